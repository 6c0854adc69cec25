"""One flow in plain Python: what it remembers, what its windows hold, and what a query newly carries.

An oracle of seen_kernels.py and flow_kernels.py; tests/detection/test_state.py holds them equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from agents.core.types import DAY_S
from agents.detection.counting.flow_kernels import (
    ANSWER_FRAME,
    ANSWERED_BYTES,
    CARRYING_TYPES,
    CROWD_DOMAINS,
    CROWD_MAX,
    EVIDENCE_BYTES,
    GOLDEN,
    MIX_FOLLOWER,
    PLAIN_ANSWERS,
    SAMPLES,
)
from agents.detection.counting.order_kernels import FOLLOWERS, MIX_CHOICE, TEXT_TYPES, USUAL_TYPES
from agents.detection.counting.seen_kernels import EXACT_MAX, FULL_BITS, SKETCH_BITS, SKETCH_HASHES
from agents.detection.evidence_kernels import BURST_S
from agents.detection.flows import Flow as View
from agents.detection.state import (
    ANSWERS,
    CHOICE,
    ENCODED,
    ENCODED_NAMES,
    INFORMATION,
    NAMES,
    OWN_TYPES,
    QTYPES_MAX,
    SHORT_MAX,
    SUMS,
    UNNUMBERED,
    WINDOWS_S,
    Left,
    Scope,
)


def single(number: float) -> float:
    """A number as the kernels keep their sums: 32 bits."""
    return float(np.float32(number))


@dataclass(frozen=True, slots=True)
class Part:
    """One label of a name: its identity, what it costs as new, and whether it reads as encoded."""

    key: int
    bits: float
    encoded: bool


@dataclass(frozen=True, slots=True)
class Query:
    """One query as the kernels read it (kernels/state.Asked), its client as text and its name as bytes."""

    ts: float
    client: str
    wire: bytes
    name: int
    domain: int
    parts: tuple[Part, ...]
    qtype: int = 1
    rlen: int = -1
    answer: int = 0  # hash of the data in its answer
    data: int = -1  # their bytes, -1 = unknown
    left: int = Left.KEPT
    discount: float = 1.0
    numbered: tuple[int, str] | None = None  # identity of its shape, and its digits
    secret: bool = False
    scoped: int = Scope.NOTHING
    form: int = 0  # hash of the widths of its labels


class Memory:
    """Which keys were seen: one by one while few, then in two generations of a Bloom filter."""

    def __init__(self) -> None:
        self.exact: set[int] = set()
        self.filter: set[int] | None = None  # bits that are set
        self.older: set[int] = set()

    def add(self, key: int) -> bool:
        """Remember a key; True if it was new."""
        key = key or 1
        if self.filter is None:
            if key in self.exact:
                return False
            if len(self.exact) < EXACT_MAX:
                self.exact.add(key)
                return True
            self.filter = {bit for one in self.exact for bit in _bits(one)}
        bits = _bits(key)
        new = not self.filter.issuperset(bits)
        self.filter.update(bits)
        if not new or (self.older and self.older.issuperset(bits)):
            return False
        if key % 256 == 0 and len(self.filter) >= FULL_BITS:
            self.older, self.filter = self.filter, set()
        return True


def _bits(key: int) -> list[int]:
    step = (key >> 32) | 1
    return [(key + i * step) % 2**64 % SKETCH_BITS for i in range(SKETCH_HASHES)]


@dataclass(slots=True)
class Window:
    """Sums of the current bucket of `seconds`, and of the one before."""

    seconds: int
    bucket: int = -1
    now: list[float] = field(default_factory=lambda: [0.0] * SUMS)
    before: list[float] = field(default_factory=lambda: [0.0] * SUMS)

    def add(self, ts: float, amounts: Sequence[float]) -> None:
        """Count amounts at ts; a clock that was set back by more than a bucket takes the window along."""
        bucket = math.floor(ts / self.seconds)
        if bucket < self.bucket - 1:
            self.bucket = bucket
        self._turn(bucket)
        self.now = [single(now + amount) for now, amount in zip(self.now, amounts, strict=True)]

    def sums(self, ts: float) -> list[float]:
        """The current bucket, and the share of the one before that the window still covers."""
        self._turn(math.floor(ts / self.seconds))
        left = min(max(1 - (ts / self.seconds - self.bucket), 0.0), 1.0)
        return [now + left * before for now, before in zip(self.now, self.before, strict=True)]

    def take_back(self, carried: float) -> None:
        """Count so many encoded bytes no more, as far as they lie in the current bucket."""
        for one in (INFORMATION, ENCODED, UNNUMBERED):
            self.now[one] = single(max(self.now[one] - carried, 0.0))

    def _turn(self, bucket: int) -> None:
        if bucket > self.bucket:
            self.before = self.now if bucket == self.bucket + 1 else [0.0] * SUMS
            self.now, self.bucket = [0.0] * SUMS, bucket


@dataclass(slots=True)
class Client:
    """On how many domains a client asked below on its last day, and on the one before."""

    day: int = -1
    today: int = 0
    yesterday: int = 0

    def meet(self, ts: float, flow: Flow) -> None:
        day = math.floor(ts / DAY_S)
        if day > self.day:
            self.yesterday = self.today if day == self.day + 1 else 0
            self.day, self.today = day, 0
        if day == self.day and (flow.queries == 0 or math.floor(flow.last_seen / DAY_S) < day):
            self.today += 1

    @property
    def crowd(self) -> float:
        return min(max(max(self.today, self.yesterday) / CROWD_DOMAINS, 1.0), CROWD_MAX)


@dataclass(slots=True, eq=False)
class Flow:
    """What is known of one (client, domain)."""

    client: str
    domain: int
    first_seen: float
    last_seen: float
    scattered: bool = False
    queries: int = 0
    names: int = 0
    encoded_names: int = 0
    leaked: float = 0.0
    encoded: float = 0.0
    bytes_in: int = 0
    first_answer: int = 0
    largest: int = 0  # bytes of its largest answer
    asked_last: int = 0  # name and type, of what no cache keeps
    table: dict[int, int] = field(default_factory=dict)  # what followed what last, of all flows, by place
    foretold: int = 0
    type_last: int = 0  # type of its last query that left
    named_ts: float = -math.inf
    pace: int = 0  # sixteenths of a second
    swing: int = 0
    empty: int = 0  # answers without data
    polls: int = 0  # queries for text at an even pace, in a row
    poll_pace: int = 0
    poll_swing: int = 0
    types: list[int] = field(default_factory=list)  # unusual ones, in the order in which they came
    last_numbered: tuple[int, str] = (0, "")
    encoded_ts: float = -math.inf
    lent: float = 0.0
    alone: bool = False
    watched: bool = False
    shown: bool = False  # it carried something: its types are counted and its names kept
    peak: tuple[int, float] = (-1, 0.0)  # day, ratio
    samples: list[tuple[bytes, int]] = field(default_factory=list)
    qtypes: dict[int, int] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    windows: list[Window] = field(default_factory=lambda: [Window(seconds) for seconds in WINDOWS_S])

    @property
    def has_evidence(self) -> bool:
        """Whether it showed enough not to make room for others."""
        return self.leaked >= EVIDENCE_BYTES

    def pause(self, ts: float) -> None:
        """An incident that was quiet for long is over; all that its windows hold has been told."""
        if self.watched and ts - self.last_seen > 3600:
            self.watched = self.alone = False
            self.windows = [Window(seconds) for seconds in WINDOWS_S]

    def add(
        self, query: Query, young: bool, discount: float, pointing: Callable[[], float] = lambda: math.inf
    ) -> tuple[bool, list[float]]:
        """Count a query; whether its name is new, and what counts of it towards the limits (in the order of sums).

        young: whether the domain is young or rare; pointing: bits that point at the name, if it is known elsewhere.
        """
        if query.qtype in TEXT_TYPES and query.left != Left.STAYED:
            self._keep_polls(query.ts)
        self.queries += 1
        self.last_seen = max(self.last_seen, query.ts)
        answers, choice = self._answers(query, young) / discount, self._choice(query)
        new, information, encoded, known_shape = self._price(query, pointing)
        self.empty += query.data == 0
        if new:
            self._keep_pace(query.ts)
        choice = (choice + (self._order(query, not new, choice > 0) if young else 0.0)) / discount
        amounts = [0.0] * SUMS
        amounts[INFORMATION] = single(single(information) / discount)
        amounts[ENCODED] = single(single(encoded) / discount)
        amounts[UNNUMBERED] = single(single(self._beyond_digits(query, known_shape, information)) / discount)
        amounts[NAMES] = float(new)
        if encoded > 0:
            amounts[ENCODED_NAMES] = single(1 / discount) if abs(query.ts - self.encoded_ts) >= BURST_S else 0.0
            self.encoded_ts = query.ts
        amounts[ANSWERS], amounts[CHOICE] = single(answers), single(choice)
        if new or answers > 0 or choice > 0:
            self.note(query.ts, amounts)
        self.keep(query, new)
        return new, amounts

    def note(self, ts: float, amounts: Sequence[float]) -> None:
        """Count what a query carried in every window."""
        for window in self.windows:
            window.add(ts, amounts)

    def keep(self, query: Query, new: bool) -> None:
        """Count the query's type and keep its name, once the flow showed something."""
        begins = not self.shown
        shows = self.encoded_names > 0 or self.has_evidence or self.bytes_in >= ANSWERED_BYTES
        if begins and not shows and not query.secret:
            return
        self.shown = True
        if query.qtype in self.qtypes or len(self.qtypes) < QTYPES_MAX:
            self.qtypes[query.qtype] = self.qtypes.get(query.qtype, 0) + 1
        if (new or begins) and len(self.samples) < SAMPLES:
            self.samples.append((query.wire, query.qtype))

    def _answers(self, query: Query, young: bool) -> float:
        """Bytes of an answer: the same data again, or the same name, type and size, carry nothing that is new."""
        size, key, factor = query.data, query.answer, 1.0 if young else PLAIN_ANSWERS
        if query.data < 0:
            size, factor = query.rlen - len(query.wire) - ANSWER_FRAME, PLAIN_ANSWERS
            key = (query.name ^ (query.qtype * 0x9E3779B97F4A7C15) ^ (query.rlen * 0xC2B2AE3D27D4EB4F)) % 2**64
        if size <= 0 or (factor > 1 and query.qtype not in CARRYING_TYPES) or key == self.first_answer:
            return 0.0
        if not self.first_answer:
            self.first_answer = key
        elif not self.memory.add(key):
            return 0.0
        self.bytes_in += size
        counted, self.largest = min(size, self.largest), max(size, self.largest)
        return counted / factor

    def _keep_pace(self, ts: float) -> None:
        """Smooth the time between new names."""
        gap = ts - self.named_ts
        if abs(gap) < BURST_S:
            return
        self.named_ts = ts
        if gap < 0 or gap == math.inf:
            return
        steps = int(min(gap * 16, SHORT_MAX))
        if not self.pace:
            self.pace, self.swing = steps, steps // 2
            return
        self.swing += math.floor((abs(steps - self.pace) - self.swing) / 4)
        self.pace += math.floor((steps - self.pace) / 8)

    def _keep_polls(self, ts: float) -> None:
        """Smooth the time between queries for text."""
        gap = ts - self.last_seen
        if gap < BURST_S:
            return
        steps = int(min(gap * 16, SHORT_MAX))
        if not self.poll_pace or not self.poll_pace / 2 <= steps <= self.poll_pace * 2:
            self.poll_pace, self.poll_swing, self.polls = steps, steps // 2, 1
            return
        self.poll_swing += math.floor((abs(steps - self.poll_pace) - self.poll_swing) / 4)
        self.poll_pace += math.floor((steps - self.poll_pace) / 8)
        self.polls = min(self.polls + 1, SHORT_MAX)

    def _order(self, query: Query, known: bool, typed: bool) -> float:
        """Bytes in what a query that left asks for after the one before it."""
        if query.left == Left.STAYED:
            return 0.0
        carried = 0.0 if self._type_order(query) or typed else math.log2(len(self.types) + len(USUAL_TYPES)) / 8
        if query.left == Left.UNKEPT:
            names = self._name_order(query)
            carried = names if known else carried
        self.leaked += carried
        return carried

    def _type_order(self, query: Query) -> bool:
        """Whether no other record type followed the flow's type before it the last time."""
        before, self.type_last = self.type_last, query.qtype
        if not before:
            return True
        return self._foretold(before * int(MIX_CHOICE), query.qtype) is not False

    def _foretold(self, before: int, question: int) -> bool | None:
        """Whether this followed that the last time, too; None if nothing did yet."""
        own = (self.domain + int(self.first_seen * 1024) * int(GOLDEN)) % 2**64
        place = ((before % 2**64 ^ own) * int(MIX_FOLLOWER) % 2**64 >> 32) % FOLLOWERS
        follower = question * int(MIX_FOLLOWER) % 2**64 >> 32
        last, self.table[place] = self.table.get(place, 0), follower
        return None if last == 0 else last == follower

    def _name_order(self, query: Query) -> float:
        """Bytes in the choice of a question that did not follow the one before it the last time."""
        question, before = query.name ^ (query.qtype * int(MIX_CHOICE) % 2**64), self.asked_last
        self.asked_last = question
        if not before:
            return 0.0
        if self._foretold(before, question):
            self.foretold += 1
            return 0.0
        foretold, self.foretold = self.foretold, 0
        return (math.log2(self.names + len(self.types) + 1) + math.log2(foretold + 1)) / 8

    def _choice(self, query: Query) -> float:
        """Bytes in the choice of the record type, where it is neither usual nor one of the flow's first."""
        if query.qtype in USUAL_TYPES or query.qtype in self.types[:OWN_TYPES]:
            return 0.0
        if query.qtype not in self.types:
            self.types.append(query.qtype)
        if len(self.types) <= OWN_TYPES:
            return 0.0
        carried = math.log2(len(self.types) + len(USUAL_TYPES)) / 8
        self.leaked += carried
        return carried

    @staticmethod
    def _beyond_digits(query: Query, known_shape: bool, information: float) -> float:
        """Bytes beside the digits of a numbered name; none where its shape was asked for before."""
        digits = len(query.numbered[1]) if query.numbered else 0
        return 0.0 if known_shape else max(information - digits * math.log2(10) / 8, 0.0)

    def _price(self, query: Query, pointing: Callable[[], float]) -> tuple[bool, float, float, bool]:
        """(whether the name is new, bytes of information, those that read as encoded, whether its shape is known)."""
        if not query.parts or not self.memory.add(query.name):
            return False, 0.0, 0.0, False
        known = pointing()
        digits = self._numbered(query)
        information = encoded = 0.0
        for part in query.parts:
            if self.memory.add(part.key):
                information += part.bits
                encoded += part.bits * part.encoded
            else:  # which of those that were there before
                information += min(part.bits, math.log2(self.names + 2))
        if digits is not None:
            information, encoded = min(information, digits), 0.0
        if known < information:
            information, encoded = known, 0.0
        self.names += 1
        self.encoded_names += encoded > 0
        self.leaked += information / 8
        self.encoded += encoded / 8
        return True, information / 8, encoded / 8, digits is not None

    def _numbered(self, query: Query) -> float | None:
        """Bits of a name that differs from earlier ones in its numbers alone: which digits, and what they are
        instead; and which shape, where it is not that of the last one."""
        if query.numbered is None:
            return None
        (shape, digits), last = query.numbered, self.last_numbered
        self.last_numbered = query.numbered
        bits = len(digits) * math.log2(10)
        if last[0] == shape:
            changed = max(sum(a != b for a, b in zip(digits, last[1], strict=True)), 1)
            bits = min(bits, changed * (math.log2(10) + math.log2(len(digits))))
        else:
            bits += math.log2(self.names + 2)
        return None if self.memory.add(shape) else bits

    def view(self) -> View:
        """As detection/flows.py shows a flow."""
        return View(
            first_seen=self.first_seen,
            last_seen=self.last_seen,
            queries=self.queries,
            names=self.names,
            encoded_names=self.encoded_names,
            leaked_bytes=self.leaked,
            encoded_bytes=self.encoded,
            bytes_in=self.bytes_in,
            samples=tuple(self.samples),
            qtypes=self.qtypes,
        )
