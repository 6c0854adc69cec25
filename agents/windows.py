"""What left towards each (client, domain), over several windows at once, in bounded memory.

A name counts once per (client, domain), and so does each of its labels: repeats carry nothing new. Every window
is a pair of counters, the current bucket and the one before, and its sum is current + before x share of the
window that still lies in it: fixed memory, no reset that a patient sender could wait for. Keys are chosen by the
attacker: there is a cap, new ones are refused and counted there, and none that holds evidence is evicted.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

WINDOWS_S = (60, 600, 3600, 86_400, 604_800)
EXACT_MAX = 2_000
"""Names and labels remembered one by one; beyond it a Bloom filter (Bloom 1970) of SKETCH_BITS takes over."""
SKETCH_BITS = 1 << 17
SKETCH_HASHES = 4
SAMPLES = 24
"""First names of a flow that are kept, with their query types: as evidence, and to recognise a tool."""
SUMS = 5
QTYPES_MAX = 16
"""Query types counted apart for one flow."""
CARRYING_TYPES = frozenset((5, 10, 13, 15, 16, 25, 29, 33, 35, 37, 99, 65399))
"""Types whose answers hold text or names of the answerer's choice: CNAME, NULL, HINFO, MX, TXT, KEY, LOC, SRV, NAPTR,
CERT, SPF, and iodine's PRIVATE."""
ANSWER_FRAME = 30
"""Bytes of an answer beside question and data: header, question's end, one record's head (RFC 1035 section 4.1)."""
IDLE_S = 3600
"""A key without evidence that was idle for this long makes room."""
SWEEP_S = 60
EVIDENCE_BYTES = 20.0
"""A key that showed less than this holds no evidence."""


@dataclass(frozen=True, slots=True)
class Part:
    """One label of a name: its identity, what it costs as new, and whether it reads as encoded."""

    key: int
    bits: float
    encoded: bool


@lru_cache(maxsize=131_072)
def key_of(data: bytes) -> int:
    """64-bit identity of a label or name, the same in every process (BLAKE2, RFC 7693)."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class Memory:
    """Which 64-bit keys were seen: one by one while few, then in a Bloom filter (which may overlook a new one)."""

    __slots__ = ("exact", "sketch")

    def __init__(self) -> None:
        self.exact: set[int] = set()
        self.sketch: bytearray | None = None

    def add(self, key: int) -> bool:
        """Remember the key; True if it was new."""
        if self.sketch is None:
            if key in self.exact:
                return False
            self.exact.add(key)
            if len(self.exact) >= EXACT_MAX:
                self.sketch = bytearray(SKETCH_BITS // 8)
                for old in self.exact:
                    self._mark(old)
                self.exact = set()
            return True
        return self._mark(key)

    def _mark(self, key: int) -> bool:
        assert self.sketch is not None
        new = False
        step = (key >> 32) | 1
        for i in range(SKETCH_HASHES):  # double hashing (Kirsch, Mitzenmacher 2006)
            bit = (key + i * step) % SKETCH_BITS
            if not self.sketch[bit >> 3] >> (bit & 7) & 1:
                self.sketch[bit >> 3] |= 1 << (bit & 7)
                new = True
        return new


NOTHING = (0.0,) * SUMS


@dataclass(slots=True)
class Window:
    """Sums over the last `seconds`: bytes of information, of encoded data, new names, encoded ones, answer bytes."""

    seconds: int
    bucket: int = -1
    now: list[float] = field(default_factory=lambda: [0.0] * SUMS)
    before: Sequence[float] = NOTHING

    def add(
        self, ts: float, information: float, encoded: float, names: int, encoded_names: float, answers: float = 0.0
    ) -> None:
        """Count new names that carry so many bytes, and what came in answers."""
        self._turn(int(ts // self.seconds))
        now = self.now
        now[0] += information
        now[1] += encoded
        now[2] += names
        now[3] += encoded_names
        now[4] += answers

    def sums(self, ts: float) -> Sequence[float]:
        """(information bytes, encoded bytes, names, encoded names, answer bytes) at ts, not before the last add."""
        bucket = int(ts // self.seconds)
        if bucket > self.bucket:
            self._turn(bucket)
        now, before = self.now, self.before
        if before is NOTHING:
            return now
        left = 1 - (ts / self.seconds - self.bucket)
        left = min(max(left, 0.0), 1.0)
        return (
            now[0] + left * before[0],
            now[1] + left * before[1],
            now[2] + left * before[2],
            now[3] + left * before[3],
            now[4] + left * before[4],
        )

    def _turn(self, bucket: int) -> None:
        if bucket <= self.bucket:
            return
        self.before = self.now if bucket == self.bucket + 1 else NOTHING
        self.now = [0.0] * SUMS
        self.bucket = bucket


def _windows() -> tuple[Window, ...]:
    return tuple(Window(seconds) for seconds in WINDOWS_S)


class Flow:
    """What is known of one (client, domain)."""

    __slots__ = (
        "bytes_in",
        "encoded_bytes",
        "encoded_names",
        "first_seen",
        "last_seen",
        "leaked_bytes",
        "memory",
        "names",
        "qtypes",
        "queries",
        "samples",
        "settled_bytes",
        "windows",
    )

    def __init__(self, ts: float) -> None:
        self.first_seen = self.last_seen = ts
        self.queries = self.names = self.encoded_names = self.bytes_in = 0
        self.leaked_bytes = self.encoded_bytes = self.settled_bytes = 0.0
        self.memory = Memory()
        self.samples: list[tuple[bytes, int]] = []
        self.qtypes: dict[int, int] = {}
        self.windows = _windows()

    def add(
        self, ts: float, query: tuple[bytes, int, int], name_key: int, parts: tuple[Part, ...], discount: float
    ) -> tuple[float, float]:
        """Count one query: (wire name as sent, qtype, bytes of the answer or UNKNOWN).

        Returns (information, encoded) bytes that it newly carried; what counts towards limits is that by the discount.
        """
        wire, qtype, rlen = query
        self.queries += 1
        self.last_seen = max(self.last_seen, ts)
        if qtype in self.qtypes or len(self.qtypes) < QTYPES_MAX:
            self.qtypes[qtype] = self.qtypes.get(qtype, 0) + 1
        answers = self._answers(name_key, qtype, rlen, len(wire)) / discount
        if not parts or not self.memory.add(name_key):
            if answers:
                for window in self.windows:
                    window.add(ts, 0.0, 0.0, 0, 0, answers)
            return 0.0, 0.0
        information = encoded = 0.0
        for part in parts:
            if self.memory.add(part.key):
                information += part.bits
                encoded += part.bits * part.encoded
            else:  # one of those that were there before
                information += min(part.bits, math.log2(self.names + 2))
        information, encoded = information / 8, encoded / 8
        self.names += 1
        self.encoded_names += encoded > 0
        self.leaked_bytes += information
        self.encoded_bytes += encoded
        if len(self.samples) < SAMPLES:
            self.samples.append((wire, qtype))
        for window in self.windows:
            window.add(ts, information / discount, encoded / discount, 1, (encoded > 0) / discount, answers)
        return information, encoded

    def _answers(self, name_key: int, qtype: int, rlen: int, name_bytes: int) -> int:
        """Bytes that an answer newly carried: the same name, type and size again carry nothing that is new."""
        size = rlen - name_bytes - ANSWER_FRAME
        if qtype not in CARRYING_TYPES or size <= 0:
            return 0
        mixed = name_key ^ (qtype * 0x9E3779B97F4A7C15) ^ (rlen * 0xC2B2AE3D27D4EB4F)
        if not self.memory.add(mixed & 0xFFFF_FFFF_FFFF_FFFF):
            return 0
        self.bytes_in += size
        return size


class Spread:
    """What one client sent as encoded names below several domains: data split over domains adds up here."""

    __slots__ = ("domains", "windows")

    def __init__(self) -> None:
        self.domains: dict[str, float] = {}
        self.windows = _windows()

    def add(self, ts: float, domain: str, encoded: float, names: int) -> None:
        if domain not in self.domains and len(self.domains) >= SPREAD_DOMAINS:
            self.domains.pop(min(self.domains, key=self.domains.__getitem__))
        self.domains[domain] = self.domains.get(domain, 0.0) + encoded
        for window in self.windows:
            window.add(ts, 0.0, encoded, names, names)


SPREAD_DOMAINS = 64
"""Domains remembered by name for one client; the sum goes on beyond it."""
SPREAD_NAMES = 3
"""Encoded names from which a domain counts as a carrier: a page has one hash host, a carrier has many."""


class Flows:
    """All flows, at most `keys_max`. Time comes from the queries alone."""

    def __init__(self, keys_max: int) -> None:
        self.keys_max = keys_max
        self.refused = 0
        self.flows: dict[tuple[str, str], Flow] = {}
        self.spreads: dict[str, Spread] = {}
        self._swept = -math.inf

    def __len__(self) -> int:
        return len(self.flows)

    def flow(self, ts: float, client: str, domain: str) -> Flow | None:
        """The flow of a key, made if it is new; None where the cap refuses it."""
        found = self.flows.get((client, domain))
        if found is not None:
            return found
        if len(self.flows) >= self.keys_max:
            self._sweep(ts)
            if len(self.flows) >= self.keys_max:
                self.refused += 1
                return None
        made = self.flows[client, domain] = Flow(ts)
        return made

    def spread(self, client: str, domain: str, flow: Flow, ts: float, encoded: float) -> Spread | None:
        """Add a carrier's encoded bytes to its client's sum; None while the domain is no carrier."""
        if flow.encoded_names < SPREAD_NAMES:
            return None
        spread = self.spreads.setdefault(client, Spread())
        if encoded > 0 and flow.encoded_names == SPREAD_NAMES:
            spread.add(ts, domain, flow.encoded_bytes, SPREAD_NAMES)
        elif encoded > 0:
            spread.add(ts, domain, encoded, 1)
        return spread

    def _sweep(self, ts: float) -> None:
        if ts < self._swept + SWEEP_S:
            return
        self._swept = ts
        for key in [key for key, flow in self.flows.items() if _idle(flow, ts)]:
            del self.flows[key]
        clients = {client for client, _ in self.flows}
        self.spreads = {client: spread for client, spread in self.spreads.items() if client in clients}


def _idle(flow: Flow, ts: float) -> bool:
    idle = ts - flow.last_seen
    return idle > WINDOWS_S[-1] or (idle > IDLE_S and flow.leaked_bytes < EVIDENCE_BYTES)
