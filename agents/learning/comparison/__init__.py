"""Candidate against champion: bounds of the gates, what both would have told of the last week, and how features drift.

`learning.retraining` and `learning.validation` ask it; `runtime.bootstrap` builds it and imports it for that.
"""
