"""Where queries come from: listener, captures, tables.

`runtime` and `cli` may import it; `scoring`, `store` and `alerting` stand beside it and may not.
"""
