"""Incidents as records for other programs: formats, and ways out.

`runtime` and `cli` may import it.
"""
