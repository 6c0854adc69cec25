"""Collect, train, validate, report, register, promote.

`runtime` and `cli` may import it; `web` stands beside it and may not.
"""
