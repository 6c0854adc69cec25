"""Blocks at the listener: what is in force, and what a blocked query gets."""
