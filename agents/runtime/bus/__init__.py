"""The processes of a bus: what sends queries to it where they are heard, and what judges them elsewhere.

Only `supervisor` and `bootstrap` may import it.
"""
