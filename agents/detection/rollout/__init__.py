"""A candidate on trial beside the detector in use.

`learning.release` begins and ends trials; `runtime` imports it through that.
"""
