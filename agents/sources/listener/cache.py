"""The listener's cache of answers: its memory, and the way in for the asyncio side (cache_kernels.py has the rules).

Each listener process has a cache of its own. One for all would need a lock that outlives a killed process, and the
kernel sends a client's queries to the same process as long as it asks from the same port.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.protocols import Field, Spec, Within
from agents.sources.listener.cache_kernels import (
    CACHE_CELLS,
    CACHE_KEYED,
    ENTRY,
    EXPIRED,
    HIT,
    LOG,
    MAIN,
    MISS,
    NO_ENTRY,
    SMALL,
    SMALL_SHARE,
    STALE_HIT,
    CacheState,
    find_answer,
    is_due,
    keep_answer,
    query_bits,
    write_answer,
)
from agents.sources.listener.sockets import UDP_MAX
from agents.stream.counters import Counters, counters_array

_UNITS_A_CHAIN = 4
"""Units of room for each chain of the table: an entry has three or more."""
_LEAST_UNITS = 1024
"""Units of the smallest cache."""


FIELDS = (
    Field(
        "cache_mb", int, 32, "memory for cached answers of all listeners together, MiB; 0 = no cache", Within(0, 65_536)
    ),
    Field(
        "cache_prefetch_percent",
        int,
        10,
        "a popular answer is asked for anew in so many last percent of its TTL; 0 = never",
        Within(0, 90),
    ),
    Field(
        "cache_stale_max_s",
        float,
        86_400.0,
        "seconds that an expired answer is used where upstreams fail; 0 = never",
        Within(0, 604_800),
    ),
    Field(
        "cache_stale_wait_s",
        float,
        1.8,
        "seconds that a client waits for an upstream before it gets an expired answer",
        Within(0, 60),
    ),
)


class CacheLimits(NamedTuple):
    """size: bytes, 0 = no cache. prefetch_percent: of a TTL, see cache_kernels. stale_max_s and stale_wait_s: seconds
    that expired answers may be used, and that a client waits before it gets one."""

    size: int = 0
    prefetch_percent: int = 10
    stale_max_s: float = 86_400.0
    stale_wait_s: float = 1.8

    @property
    def serves_stale(self) -> bool:
        """Whether expired answers are used."""
        return self.size > 0 and self.stale_max_s > 0


def _limits_of(values: Mapping[str, Any]) -> CacheLimits:
    """values: of FIELDS, by their names."""
    return CacheLimits(
        int(values["cache_mb"]) << 20,
        int(values["cache_prefetch_percent"]),
        float(values["cache_stale_max_s"]),
        float(values["cache_stale_wait_s"]),
    )


SPEC: Spec[CacheLimits] = Spec(
    "cache", "answers are kept for as long as they may be, and longer where upstreams fail", FIELDS, _limits_of
)


class CacheFind(NamedTuple):
    """What the cache had. answer: for use at once; bits: see query_bits; due: it is to be asked for anew."""

    outcome: int
    bits: int
    answer: bytes = b""
    due: bool = False


_NOTHING = CacheFind(MISS, -1)


def make_cache(limits: CacheLimits, counters: Counters) -> CacheState:
    """All arrays of an empty cache, which counts in `counters`; with a size of 0 it is off."""
    units = max(limits.size // ENTRY.itemsize, _LEAST_UNITS) if limits.size else 1
    cells = np.zeros(1, CACHE_CELLS)
    cells["on"], cells["stale_ns"] = int(limits.size > 0), int(limits.stale_max_s * 1e9)
    cells["prefetch_percent"] = limits.prefetch_percent
    cells["low"], cells["high"] = secrets.randbits(64), secrets.randbits(64)
    logs, small = np.zeros(2, LOG), max(units // SMALL_SHARE, 1)
    logs["first"][MAIN], logs["size"][SMALL], logs["size"][MAIN] = small, small, units - small
    chains = 1 << (units // _UNITS_A_CHAIN).bit_length()
    # np.zeros takes pages from the system as they are first written.
    entries = np.zeros(units, ENTRY)
    counted = counters_array(counters)
    counted["cache_entries"] = counted["cache_bytes"] = 0  # those of a process that was killed are gone
    return CacheState(
        cells=cells,
        counted=counted,
        entries=entries,
        data=entries.view(np.uint8),
        logs=logs,
        table=np.full(chains, NO_ENTRY, np.int32),
        ghosts=np.zeros(chains, np.uint32),
        keyed=np.zeros(CACHE_KEYED, np.uint8),
    )


class AnswerCache:
    """A cache for one thread; `guard` is held while others might use the same state. clock: monotonic nanoseconds."""

    def __init__(self, limits: CacheLimits, counters: Counters, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.limits, self.state, self._clock = limits, make_cache(limits, counters), clock
        self.guard: AbstractContextManager[Any] = nullcontext()
        self._room: NDArray[np.uint8] = np.zeros(UDP_MAX + 1, np.uint8)

    def look_up(self, query: bytes, end: int) -> CacheFind:
        """What there is for a query, whose question ends at `end`; it is counted."""
        bits = query_bits(self._loaded(query), len(query), end)
        if bits < 0:
            return _NOTHING
        with self.guard:
            now = self._clock()
            outcome, unit = find_answer(self.state, self._room, end, bits, now)
            if outcome not in (HIT, STALE_HIT):
                self.state.counted["cache_misses"] += 1
                return CacheFind(outcome, bits)
            due = is_due(self.state, unit, now)
            self.state.counted["cache_hits" if outcome == HIT else "cache_stale"] += 1
            return CacheFind(outcome, bits, self._answer(unit, end, now), due)

    def expired(self, query: bytes, end: int, bits: int) -> CacheFind:
        """An expired answer, for use since upstreams fail, or one that came meanwhile. It is counted."""
        self._loaded(query)
        with self.guard:
            now = self._clock()
            outcome, unit = find_answer(self.state, self._room, end, bits, now)
            if outcome not in (HIT, STALE_HIT, EXPIRED):
                return CacheFind(outcome, bits)
            self.state.counted["cache_hits" if outcome == HIT else "cache_stale"] += 1
            return CacheFind(outcome, bits, self._answer(unit, end, now))

    def store(self, answer: bytes, end: int, bits: int) -> bool:
        """Keep the answer to a query with these bits, if it may be kept."""
        self._loaded(answer)
        with self.guard:
            return bool(keep_answer(self.state, self._room, end, len(answer), bits, self._clock()))

    def count_prefetch(self) -> None:
        """A popular answer is asked for anew."""
        with self.guard:
            self.state.counted["cache_prefetches"] += 1

    def _answer(self, unit: int, end: int, now: int) -> bytes:
        return self._room[: write_answer(self.state, unit, self._room, end, now)].tobytes()

    def _loaded(self, message: bytes) -> NDArray[np.uint8]:
        self._room[: len(message)] = np.frombuffer(message, np.uint8)
        return self._room


def load_cache() -> None:
    """Compile the kernels as the event loop calls them, or load them from the cache of compiled kernels."""
    one = AnswerCache(CacheLimits(1), Counters(), lambda: 1)  # compiling takes longer than a TTL
    query = b"\0\0\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1"
    answer = b"\0\0\x81\x80\0\1\0\1" + query[8:] + b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1"
    assert one.store(answer, len(query), one.look_up(query, len(query)).bits)
    assert one.look_up(query, len(query)).answer == answer
