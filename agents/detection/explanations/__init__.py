"""Which kind of benign service an incident may be, and how much that explains.

Face: `Explainer`. Only detection imports it.
"""
