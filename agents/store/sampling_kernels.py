"""Rows taken one after the other while their client and their domain may still give some."""

from __future__ import annotations

from typing import Any

from agents.core.jit import kernel


@kernel
def take_sample(
    clients: Any, domains: Any, at: Any, end: Any, count: Any, client_left: Any, domain_left: Any, taken: Any
) -> Any:
    """Look at rows from `at` to before `end` until `count` are taken.

    clients, domains i64 (n,): by number; client_left, domain_left i64: what each may still give, counted down.
    Sets taken bool (n,). Returns the row after the last one looked at, and how many were taken.
    """
    found = 0
    while at < end and found < count:
        client, domain = clients[at], domains[at]
        if client_left[client] > 0 and domain_left[domain] > 0:
            client_left[client] -= 1
            domain_left[domain] -= 1
            taken[at] = True
            found += 1
        at += 1
    return at, found
