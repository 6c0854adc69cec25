"""All clients together: what each domain carries out of this network, whoever asks.

An attacker may change his address, use many clients, or fill the room of one. So a query that carries something that
its own flow counts, or for whose flow there is no room, counts below its domain for the network, too, unless the flow
is an incident by itself. There a name counts once, whoever asks for it (judge_kernels, `_hear`).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import Key, keyed_hash
from agents.core.columns import Coded
from agents.core.types import DAY_S, HOUR_S
from agents.detection.counting.flow_kernels import CELLS
from agents.detection.explanations.explainer import NETWORK_BYTES, NETWORK_BYTES_A_CLIENT
from agents.detection.judge_kernels import CLIENT_SHARE
from agents.detection.limits import ANSWER_BYTES, FIRST_BYTES, LIMITS, ORDERED_BYTES, WORDS_BYTES, Limits
from agents.detection.state import WINDOWS_S, Kind

PREFIX_V6 = 64
"""Bits of an IPv6 address that make one client: a host chooses the others itself (RFC 8981)."""


TOGETHER_FACTOR = 2.0
"""How many times a client's limits hold for all together, with one of them at home."""


def limits_together(limits: Limits) -> Limits:
    """The limits of a domain with one client at home. More clients raise them (judge_kernels.CLIENT_SHARE).

    Of hours and days alone: many clients meet within minutes, when offices open; and in a week each of them was there.
    """
    table = limits.table * TOGETHER_FACTOR
    table[[int(limit.kind) for limit in LIMITS if not limit.together]] = np.inf
    table[:, [number for number, seconds in enumerate(WINDOWS_S) if seconds not in (HOUR_S, DAY_S)]] = np.inf
    table[len(Kind) :] = limits.table[len(Kind) :]  # allowances of domains, see evidence_kernels.SPARED_BYTES
    return Limits(table, limits.rules)


class Bound(NamedTuple):
    """Bytes a day that this network lets pass without an incident, or without a page (docs/bound.md)."""

    out_client: float  # X of one client, in names and types below any domains of an attacker's
    out: float  # X of all clients
    out_more: float  # X of each further client at home
    unpaged: float  # Y beyond X: what kinds of service explain, of all clients
    unpaged_more: float  # … of each client at home
    inward: float  # Z, below one young or rare domain


def network_bound(factor: float) -> Bound:
    """The sums that bound what names and answers carry, at a factor on the limits."""
    out = factor * sum(sums[DAY_S] for sums in (WORDS_BYTES, FIRST_BYTES, ORDERED_BYTES))
    answers, together = ANSWER_BYTES[DAY_S] * factor, out * TOGETHER_FACTOR
    return Bound(out, together, together * CLIENT_SHARE, NETWORK_BYTES, NETWORK_BYTES_A_CLIENT, answers)


def cells_of(clients: Coded, key: Key) -> NDArray[np.uint8]:
    """Of each row, the cells of its client's address and of its prefix. Shape (2, n).

    Both rows are contiguous, whatever n is: the compiler makes code for each layout, which takes half a minute.
    """
    found = [_cells(one, key) for one in clients.values]
    return np.ascontiguousarray(np.array(found, np.uint8).reshape(-1, 2)[clients.codes].T)


@lru_cache(maxsize=65_536)
def _cells(client: str, key: Key) -> tuple[int, int]:
    return keyed_hash(client.encode(), key) % CELLS, keyed_hash(prefix_of(client).encode(), key) % CELLS


def prefix_of(client: str) -> str:
    """The address, or the network of PREFIX_V6 bits that an IPv6 address lies in; other text as it is."""
    if ":" not in client:
        return client
    try:
        address = ipaddress.IPv6Address(client)
    except ValueError:
        return client
    return str(ipaddress.IPv6Network((address, PREFIX_V6), strict=False))
