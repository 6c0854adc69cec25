"""Tripwires: what makes a query an incident by itself, whatever it carries: honeytokens and strict groups.

`detection`, `runtime` and `cli` may import it.
"""
