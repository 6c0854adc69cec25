"""The listener's counters, in memory that processes may share."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class Counters(ctypes.Structure):
    """Counts since the start.

    received = malformed + refused + notimp + rejected + rate_dropped + rate_slipped + local + cache_hits + cache_stale
    + answered + servfail + in flight, less prefetches in flight.

    cells: memory of `size()` bytes, which may be shared with other processes and outlive this one; None = own memory.
    One thread at a time may write it.
    """

    NAMES = (
        "received",  # messages from clients, UDP and TCP
        "malformed",  # not exactly one whole question (FORMERR), or not a query (dropped)
        "refused",  # from outside the access list
        "notimp",  # an opcode other than QUERY, a zone transfer, or an EDNS version other than 0
        "rejected",  # no room in flight: SERVFAIL at once, not forwarded, not offered for scoring
        "rejected_client",  # of those: the client had its share
        "rejected_domain",  # the domain had its share
        "rejected_upstream",  # all upstreams of the zone had their share
        "rate_dropped",  # above the rate of a client network, without an answer
        "rate_slipped",  # the same, answered with TC
        "rrl_dropped",  # answers that response rate limiting dropped
        "rrl_slipped",  # the same, sent with TC and nothing else
        "local",  # special names, answered here
        "cache_hits",  # answered from the cache
        "cache_stale",  # with an expired answer, since upstreams failed or were slow
        "cache_misses",  # looked for in the cache in vain
        "cache_prefetches",  # popular answers asked for anew before they expired
        "cache_evicted",  # answers that made room for others
        "cache_entries",  # answers in the cache now
        "cache_bytes",  # that they take now
        "answered",  # with an upstream's answer
        "servfail",  # with SERVFAIL, since all upstreams failed
        "timeouts",  # of one upstream; the next one may have answered the query
        "late_answers",  # that came after their upstream's time, and that a client still waited for
        "failed_over",  # SERVFAIL or REFUSED of one upstream: the next one was asked
        "tcp_fallbacks",  # truncated answers whose query was repeated over TCP
        "mismatched_answers",  # from an upstream's address, but not for a query sent on that socket
        "forgeries",  # upstream sockets given up for too many of those; their queries were asked over TCP
        "loops",  # probes for loops that came back
        "tcp_clients",  # connections open now
        "tcp_rejected",  # connections closed at once: too many
        "tcp_evicted",  # idle connections closed to make room for new ones
        "tcp_refused",  # connections closed at once: outside the access list
    )
    _fields_ = [(name, ctypes.c_int64) for name in NAMES]

    def __new__(cls, cells: memoryview | None = None) -> Counters:
        return super().__new__(cls) if cells is None else cls.from_buffer(cells)

    def __init__(self, cells: memoryview | None = None) -> None:
        super().__init__()

    @classmethod
    def size(cls) -> int:
        """Bytes of memory."""
        return ctypes.sizeof(cls)

    def values(self) -> dict[str, int]:
        """The present counts by name."""
        return {name: getattr(self, name) for name in self.NAMES}


_ARRAY = np.dtype([(name, np.int64) for name in Counters.NAMES])


def counters_array(counters: Counters) -> NDArray[np.void]:
    """The same memory as an array of one record, for kernels."""
    return np.frombuffer(memoryview(counters), _ARRAY)


def summed(each: Iterable[Counters]) -> Counters:
    """New counters with the sums of `each`."""
    return Counters(memoryview(np.sum([np.frombuffer(memoryview(one), np.int64) for one in each], axis=0)))
