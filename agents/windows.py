"""What left towards each (client, domain), over several windows at once, in bounded memory.

A name counts once per (client, domain), and so does each of its labels: repeats carry nothing new. Every window
is a pair of counters, the current bucket and the one before, and its sum is current + before x share of the
window that still lies in it: fixed memory, no reset that a patient sender could wait for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from agents.seen import Memory

WINDOWS_S = (60, 600, 3600, 86_400, 604_800)
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


@dataclass(frozen=True, slots=True)
class Part:
    """One label of a name: its identity, what it costs as new, and whether it reads as encoded."""

    key: int
    bits: float
    encoded: bool


NOTHING = (0.0,) * SUMS
"""Shared by all windows that have no bucket before this one; never written to."""


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
        bucket = int(ts // self.seconds)
        if bucket < self.bucket - 1:  # the clock was set back: what lies in a future that never comes would never age
            self.bucket = bucket
        self._turn(bucket)
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
        "alone",
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
        self.alone = False  # it reached a limit by itself: it is an incident, and no part of others'
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
