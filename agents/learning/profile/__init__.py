"""The network profile of a retraining: made of what the detector and the store know, gated, and compared.

Face: `make_profile`, `profile_gates`, `profile_changes`. Bootstrap, retraining and comparison import it.
"""
