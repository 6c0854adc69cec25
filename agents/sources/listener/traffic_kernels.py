"""Token buckets of a client network's queries and answers, in memory that listener processes share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import siphash
from agents.core.jit import kernel_in_place
from agents.dns.message_kernels import int64, uint64

BUCKET = np.dtype([("key", np.uint64), ("stamp", np.int64), ("balance", np.float64), ("over", np.int64)])
"""One bucket: hash of what it limits, monotonic nanoseconds of its last use, tokens, and how often it was empty."""
WAYS = 4
"""Buckets among which one hash finds its place; the one unused for longest is taken over."""
PASS, DISCARD, SLIP = range(3)
"""Verdicts: answer; answer nothing; answer with TC and nothing else, so that an honest client asks over TCP."""
RATES = np.dtype(
    [(name, np.float64) for name in ("queries", "errors", "nxdomains", "responses", "window_s")]
    + [(name, np.int64) for name in ("slip", "prefix4", "prefix6")]
    + [(name, np.uint64) for name in ("low", "high")]
)
"""Tokens a second, 0 = no limit; seconds that a flood is remembered; one in so many slips; prefix lengths; the key."""
ADDRESS, KIND, NAME_FROM = 0, 16, 17
"""Places in the bytes that are hashed: the network (16 bytes, IPv4 mapped), the kind of limit, and a name."""
QUERIES, ERRORS, NXDOMAINS, RESPONSES = range(1, 5)
"""Kinds of limits."""
KEYED = NAME_FROM + 2 + 255
"""Bytes that are hashed at most: a type and a name of 255 bytes follow NAME_FROM."""


@kernel_in_place
def debit(buckets: NDArray[Any], key: int, now: int, rate: float, window_s: float, slip: int) -> int:
    """Take a token from the key's bucket; the verdict. now: monotonic nanoseconds.

    A bucket gains `rate` tokens a second and holds those of one second. An empty one goes into debt by `window_s`
    seconds at most, so that a flood that goes on gets nothing (as BIND's response rate limiting does).
    """
    first = int64(key & uint64(len(buckets) // WAYS - 1)) * WAYS
    at = first
    for place in range(first, first + WAYS):
        if buckets[place]["key"] == key:
            at = place
            break
        if buckets[place]["stamp"] < buckets[at]["stamp"]:
            at = place
    bucket = buckets[at]
    most = max(rate, 1.0)
    if bucket["key"] != key:
        bucket["key"], bucket["balance"], bucket["over"], bucket["stamp"] = key, most, 0, now
    balance = min(bucket["balance"] + max(now - bucket["stamp"], 0) * 1e-9 * rate, most)
    bucket["stamp"] = now
    if balance >= 1.0:
        bucket["balance"] = balance - 1.0
        return PASS
    bucket["balance"] = max(balance - 1.0, -window_s * rate) if window_s > 0 else balance
    bucket["over"] += 1
    return SLIP if slip > 0 and bucket["over"] % slip == 0 else DISCARD


@kernel_in_place
def mask_network(keyed: Any, rates: Any) -> None:
    """Keep of the address in `keyed` what its network has: IPv4 ones are mapped, ten zeros and two bytes 0xFF."""
    mapped = keyed[10] == 0xFF and keyed[11] == 0xFF
    for place in range(10):
        mapped = mapped and keyed[place] == 0
    bits = 96 + rates[0]["prefix4"] if mapped else rates[0]["prefix6"]
    for place in range(16):
        left = min(max(bits - 8 * place, 0), 8)
        keyed[place] = int64(keyed[place]) & 0xFF << 8 - left & 0xFF


@kernel_in_place
def domain_at(name: Any, start: int, end: int) -> int:
    """Where the domain begins in the wire name name[start:end], without its root byte; `end` for the root.

    The last two labels; three below a top level of two letters whose next label has at most three (co.uk). The public
    suffix list knows better, but here a domain only shares a table's room, and this costs nothing.
    """
    third = second = last = end
    at = start
    while at < end:
        third, second, last = second, last, at
        at += int64(name[at]) + 1
    if second == end:
        return last
    if third != end and name[last] == 2 and name[second] <= 3:
        return third
    return second


@kernel_in_place
def limit_query(buckets: Any, rates: Any, keyed: Any, now: int) -> int:
    """The verdict on a query of the network in `keyed`."""
    limits = rates[0]
    if limits["queries"] <= 0:
        return PASS
    keyed[KIND] = QUERIES
    return debit(
        buckets,
        siphash(keyed, ADDRESS, NAME_FROM, limits["low"], limits["high"]),
        now,
        limits["queries"],
        0.0,
        limits["slip"],
    )


@kernel_in_place
def limit_response(
    buckets: Any, rates: Any, keyed: Any, name: Any, start: int, end: int, qtype: int, rcode: int, now: int
) -> int:
    """The verdict on an answer over UDP to the network in `keyed`, about the wire name name[start:end].

    Answers are alike by name and type, NXDOMAIN by domain, errors by network alone (as in BIND).
    """
    limits, size = rates[0], NAME_FROM
    if rcode == 0:
        rate, keyed[KIND] = limits["responses"], RESPONSES
    elif rcode == 3:
        rate, keyed[KIND] = limits["nxdomains"], NXDOMAINS
    else:
        rate, keyed[KIND] = limits["errors"], ERRORS
    if rate <= 0:
        return PASS
    if rcode == 0:
        keyed[size], keyed[size + 1] = qtype >> 8, qtype & 0xFF
        size += 2
    if rcode == 0 or rcode == 3:
        begin = start if rcode == 0 else domain_at(name, start, end)
        for place in range(begin, end):
            byte = int64(name[place])
            keyed[size] = byte + 32 if 65 <= byte <= 90 else byte
            size += 1
    key = siphash(keyed, ADDRESS, size, limits["low"], limits["high"])
    return debit(buckets, key, now, rate, limits["window_s"], limits["slip"])
