"""Blocks of log lines read by compiled code. What it is not certain of, the kind's own line reader reads."""
