"""Channels to people, one file each. Every one takes plain values and a RetryPolicy."""
