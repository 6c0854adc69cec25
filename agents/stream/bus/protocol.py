"""The rules of the bus, without clock, network or disk: what is sent, what counts, what is committed, who holds a slot.

A stream may lose, repeat or reorder messages, processes die at any step, and clocks differ. What makes that harmless:
- The messages of one publisher's run have numbers without gaps in each slot. A slot's state knows, for each run, the
  number that it has counted last, and counts the next one alone (`Counted`).
- A publisher keeps what it sent until the committed state of the slot has counted it (`Outbound`).
- State and what it has counted are one object, put in force by one compare-and-set (`Committed`).
- Whoever writes for a slot has a token that rises with each holder; older ones are refused (`Leases`, `may_commit`).
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from agents.core.npz import FormatError, object_of

RUNS_KEPT_S = 7 * 86_400.0
"""A run that has said nothing for so long, by the time of its queries, is forgotten: older queries are not heard."""
RUNS_KEPT, RUNS_MAX = 64, 200
"""Runs of one site that are kept however long they have said nothing, and that are kept at most: a site that makes up
runs forgets its own, and nobody else's."""
_NUMBER_MAX = 2**63 - 1


class MessageLabel(NamedTuple):
    """Which message of a slot this is. number: of the run in this slot, from 1. oldest: that its publisher keeps."""

    run: str
    number: int
    oldest: int

    def text(self) -> str:
        """As a header of the message."""
        return f"{self.run} {self.number} {self.oldest}"

    def batch_id(self, slot: int) -> str:
        """Under which its queries are stored: letters and digits, at most 70 of them."""
        site, _, run = self.run.rpartition(".")
        return f"{site.replace('-', 'Z')}X{run}{slot:02x}{self.number:016x}"


SITE_NAME = re.compile("[a-z0-9-]{1,32}")
"""A site, as subjects have it."""
_LABEL = re.compile("([^ ]+) ([0-9]{1,19}) ([0-9]{1,19})", re.ASCII)
_RUN = re.compile(rf"(?P<site>{SITE_NAME.pattern})\.[0-9a-f]{{16}}")


def new_run(site: str) -> str:
    """A name for a run of a publisher, which nobody else has."""
    return f"{site}.{secrets.token_hex(8)}"


def site_of_run(run: str) -> str:
    """The site of a run. Raises FormatError for what is no run's name."""
    match = _RUN.fullmatch(run)
    if match is None:
        raise FormatError("it names no run")
    return match["site"]


def label_of(text: str, site: str) -> MessageLabel:
    """A label from the header of a message that this site has sent. Raises FormatError: also for a run of another site,
    whose messages this one cannot be allowed to count as its own."""
    match = _LABEL.fullmatch(text)
    if match is None:
        raise FormatError("it has no label")
    run, number, oldest = match.groups()
    if site_of_run(run) != site:
        raise FormatError(f"site {site} sent it as a message of {site_of_run(run)}")
    label = MessageLabel(run, int(number), int(oldest))
    if not 1 <= label.oldest <= label.number <= _NUMBER_MAX:
        raise FormatError("it has no possible number")
    return label


class MessageStep(Enum):
    """What a message is to a slot."""

    NEW = "new"
    REPEATED = "repeated"
    EARLY = "early"  # some before it are missing: their publisher has them and sends all again


@dataclass
class Counted:
    """Which messages a slot's state has counted: of each run the last number, and the time of its queries."""

    last: dict[str, int] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)

    def step(self, label: MessageLabel) -> MessageStep:
        """What a message is, by its label."""
        expected = max(self.last.get(label.run, 0) + 1, label.oldest)
        if label.number == expected:
            return MessageStep.NEW
        return MessageStep.REPEATED if label.number < expected else MessageStep.EARLY

    def count(self, label: MessageLabel, ts: float) -> None:
        """Note that a new message was counted. ts: of its last query, Unix seconds."""
        self.last[label.run] = label.number
        self.seen[label.run] = max(ts, self.seen.get(label.run, 0.0))
        if len(self.last) > RUNS_KEPT:
            self._forget_some(label.run.rpartition(".")[0])

    def _forget_some(self, site: str) -> None:
        own = sorted((self.seen[run], run) for run in self.last if run.rpartition(".")[0] == site)
        newest = own[-1][0]
        for at, (seen, run) in enumerate(own[: max(len(own) - RUNS_KEPT, 0)]):
            if newest - seen > RUNS_KEPT_S or at < len(own) - RUNS_MAX:
                del self.last[run], self.seen[run]

    def copy(self) -> Counted:
        """One that does not change with this one."""
        return Counted(dict(self.last), dict(self.seen))


class StreamPosition(NamedTuple):
    """How far a stream has been read. epoch: which stream of that name it is, "" = none has been seen."""

    epoch: str = ""
    sequence: int = 0


NOWHERE = StreamPosition()


def follows(position: StreamPosition, sequence: int) -> bool:
    """Whether a message is the next one of its stream; else it is to be read again from `position` on.

    A consumer without acknowledgements skips messages where its connection broke.
    """
    return sequence == position.sequence + 1


def position_in(position: StreamPosition, epoch: str, first: int) -> StreamPosition:
    """Where to read on in a stream that has messages from `first` on: a lost stream begins anew, an old one forgets."""
    if epoch != position.epoch:
        return StreamPosition(epoch, max(first - 1, 0))
    return StreamPosition(epoch, max(position.sequence, first - 1))


@dataclass(frozen=True)
class Committed:
    """The state of a slot that is in force, and what it has counted.

    name: of the object that holds the state, "" = none. token: of who wrote it. judged: messages in all.
    """

    token: int = 0
    position: StreamPosition = NOWHERE
    counted: Counted = field(default_factory=Counted)
    judged: int = 0
    name: str = ""

    def packed(self) -> bytes:
        """As JSON."""
        return json.dumps(
            {
                "token": self.token,
                "epoch": self.position.epoch,
                "sequence": self.position.sequence,
                "last": self.counted.last,
                "seen": self.counted.seen,
                "judged": self.judged,
                "name": self.name,
            }
        ).encode()


def committed_of(data: bytes) -> Committed:
    """What `Committed.packed` wrote. Raises FormatError."""
    found = _object_of(
        data, {"token": int, "epoch": str, "sequence": int, "last": dict, "seen": dict, "judged": int, "name": str}
    )
    position = StreamPosition(found["epoch"], found["sequence"])
    return Committed(found["token"], position, Counted(found["last"], found["seen"]), found["judged"], found["name"])


def _object_of(data: bytes, kinds: Mapping[str, type]) -> dict[str, Any]:
    """A JSON object that has these names, with values of these kinds. Raises FormatError."""
    found = object_of(data, "what is on the bus")
    if not all(isinstance(found.get(name), kind) for name, kind in kinds.items()):
        raise FormatError("what is on the bus was not written by this release")
    return found


def may_commit(token: int, before: Committed) -> bool:
    """Whether the holder with this token may replace what is committed; the write itself compares and sets."""
    return token >= before.token


def has_passed(before: StreamPosition, sent: StreamPosition) -> bool:
    """Whether a reader that is at `before` has read the message that was stored at `sent`."""
    return before.epoch == sent.epoch and before.sequence >= sent.sequence


@dataclass
class Outbound:
    """What one publisher's run has for one slot: numbers that it keeps, from `kept` to `last`, and what to send next.

    One message is under way at a time: a later one must not be stored before an earlier one.
    """

    run: str
    kept: int = 1
    last: int = 0
    next: int = 1
    at: StreamPosition = NOWHERE  # where the last message was stored
    rewound: int = 0
    stored_at: dict[int, int] = field(default_factory=dict)  # sequences of the messages from `kept` to before `next`

    def add(self) -> int:
        """The number of a message that is kept from now on."""
        self.last += 1
        return self.last

    def to_send(self) -> MessageLabel | None:
        """The message that is to be sent now; None where all have been."""
        return MessageLabel(self.run, self.next, self.kept) if self.kept <= self.next <= self.last else None

    def stored(self, label: MessageLabel, position: StreamPosition) -> None:
        """Note where the stream has put a message.

        A stream that began anew has lost what was sent before: that is sent again.
        """
        lost = self.at.epoch not in ("", position.epoch)
        self.at = position
        if lost:
            self._rewind()
        elif label.number == self.next:
            self.stored_at[label.number] = position.sequence
            self.next += 1

    def note_epoch(self, epoch: str) -> None:
        """Look at which stream is there now, also where nothing is to be sent."""
        if self.at.epoch not in ("", epoch):
            self.at = StreamPosition(epoch, 0)
            self._rewind()

    def note(self, committed: Committed) -> int:
        """Take up what is committed: what is counted is let go. Returns the oldest number that is kept.

        Where a reader has passed the oldest of these without counting it, it is missing: all again. Those behind it
        may still be unread: where more comes all the time, some always are.
        """
        counted, before = committed.counted.last.get(self.run, 0), self.kept
        self.kept = max(self.kept, min(counted, self.last) + 1)
        for number in range(before, self.kept):
            self.stored_at.pop(number, None)
        self.next = max(self.next, self.kept)
        oldest = self.stored_at.get(self.kept)
        if oldest is not None and has_passed(committed.position, self.at._replace(sequence=oldest)):
            self._rewind()
        return self.kept

    def _rewind(self) -> None:
        self.stored_at.clear()
        self.next = self.kept
        self.rewound += 1

    def message_id(self, label: MessageLabel) -> str:
        """For the window in which the server drops repeated messages: what is sent again on purpose has another."""
        return f"{label.run}-{label.number}-{self.rewound}"


class Held(NamedTuple):
    """Who holds a slot. token: rises with each holder."""

    owner: str
    token: int


@dataclass(frozen=True)
class Leases:
    """The one table of all leases, which workers replace by compare-and-set. beats: a number of each worker that rises
    while it lives."""

    beats: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[int, Held] = field(default_factory=dict)

    def packed(self) -> bytes:
        """As JSON."""
        return json.dumps(
            {"beats": dict(self.beats), "held": {slot: list(one) for slot, one in self.held.items()}}
        ).encode()

    def of(self, worker: str) -> dict[int, int]:
        """The slots of a worker and their tokens."""
        return {slot: one.token for slot, one in self.held.items() if one.owner == worker}

    def without(self, worker: str, slots: Iterable[int] | None = None) -> Leases:
        """… where a worker has given up some slots; None: all, and itself."""
        gone = set(self.of(worker) if slots is None else slots)
        held = {slot: one for slot, one in self.held.items() if one.owner != worker or slot not in gone}
        beats = {name: beat for name, beat in self.beats.items() if slots is not None or name != worker}
        return Leases(beats, held)


def leases_of(data: bytes) -> Leases:
    """What `Leases.packed` wrote. Raises FormatError."""
    found = _object_of(data, {"beats": dict, "held": dict})
    rows, beats = found["held"], found["beats"]
    if not all(slot.isdecimal() and _is_held(row) for slot, row in rows.items()):
        raise FormatError("what is on the bus was not written by this release")
    if not all(isinstance(beat, int) for beat in beats.values()):
        raise FormatError("what is on the bus was not written by this release")
    return Leases(beats, {int(slot): Held(*row) for slot, row in rows.items()})


def _is_held(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and isinstance(row[1], int)


class LeaseKeeper:
    """One worker's view of the leases. Time is its own monotonic clock: no two machines' clocks are compared.

    A worker is taken for dead when its beat has not changed for `lease_s` while this one could look at the table: where
    looks are further apart than `lease_s` / 3, the bus was away, and all get that time once more.
    """

    def __init__(self, me: str, slots: Sequence[int], lease_s: float) -> None:
        self.me, self._slots, self.lease_s = me, tuple(slots), lease_s
        self.table, self.revision = Leases(), 0
        self._changed: dict[str, tuple[int, float]] = {}  # beat of each worker, and since when
        self._looked = -math.inf
        self._valid_until = -math.inf

    def observe(self, table: Leases, revision: int, now: float) -> None:
        """Take up the table as it is at a revision of its bucket."""
        if now - self._looked > self.lease_s / 3:
            self._changed = {}
        self._looked, self.table, self.revision = now, table, revision
        known = self._changed
        self._changed = {
            name: known[name] if name in known and known[name][0] == beat else (beat, now)
            for name, beat in table.beats.items()
        }

    def _alive(self, now: float) -> set[str]:
        return {name for name, (_, since) in self._changed.items() if now - since <= self.lease_s} | {self.me}

    def wanted(self, now: float) -> int:
        """How many slots this worker is to hold: an equal share, rounded up."""
        return -(-len(self._slots) // len(self._alive(now)))

    def surplus(self, now: float) -> list[int]:
        """Slots beyond the share, to be handed over one after the other."""
        mine = sorted(self.table.of(self.me))
        return mine[self.wanted(now) :]

    def next_table(self, now: float, most: int) -> Leases:
        """The table that this worker is to write: its beat, the dead left out, at most `most` more slots for it."""
        alive = self._alive(now)
        held = {slot: one for slot, one in self.table.held.items() if one.owner in alive}
        beats = {name: beat for name, beat in self.table.beats.items() if name in alive}
        beats[self.me] = beats.get(self.me, 0) + 1
        mine = sum(one.owner == self.me for one in held.values())
        free = [slot for slot in self._slots if slot not in held]
        for slot in free[: max(min(self.wanted(now) - mine, most), 0)]:
            held[slot] = Held(self.me, self.token)
        return Leases(beats, held)

    @property
    def token(self) -> int:
        """For slots that are taken now: one revision of the bucket is replaced once alone."""
        return self.revision + 1

    def wrote(self, table: Leases, revision: int, begun: float) -> None:
        """Note that the table was written; begun: when that was begun, from which on others may have seen it."""
        self.table, self.revision = table, revision
        self._valid_until = begun + self.lease_s

    def holds(self, slot: int, now: float) -> bool:
        """Whether this worker may judge and write for a slot now."""
        return now < self._valid_until and slot in self.table.of(self.me)
