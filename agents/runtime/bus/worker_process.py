"""A detector that judges slots of the bus: takes leases, goes on from saved state, and hands over when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import structlog

from agents.core.errors import StoreError
from agents.core.npz import FormatError
from agents.core.types import QueryBatch
from agents.runtime.heartbeat import DetectorHealth
from agents.runtime.judging.judge import FIRST_TRY_S, QUERY_S, Judge, JudgeParts
from agents.runtime.judging.loop import DetectorLoop, run_judge
from agents.runtime.signals import Beat
from agents.store.sql import LOOK_S
from agents.stream.bus.faults import LimitedLog
from agents.stream.bus.jetstream import BusError, ConflictError, subject_of
from agents.stream.bus.link import BusLink
from agents.stream.bus.messages import heard_records
from agents.stream.bus.protocol import (
    NOWHERE,
    Committed,
    Counted,
    LeaseKeeper,
    MessageLabel,
    MessageStep,
    StreamPosition,
    label_of,
)
from agents.stream.bus.reading import Received
from agents.stream.shared import SharedStream
from agents.stream.slot_kernels import owners

LEASES = "leases"
"""Key of the table of leases of slots."""
WAIT_S = 0.1
"""How long it waits for a message before it looks at leases and at what is to be saved."""
HAND_OVER_S = 1.0
"""Between two slots that are handed over because another detector has fewer."""
REST_LOOK_S = 1.0
"""How often it is looked which hours end without a message."""
SOONER = 1 / 8
"""Part of STREAM_SNAPSHOT_S after which a slot may be saved again where a site fills its stream."""
COMMIT_S = 10.0
"""How long saving one slot may take."""
_log = structlog.get_logger()


SendReport = Callable[[int, int], None]
"""Tells others what a slot's detector says of its message of this number."""


class Tokens:
    """The token of each slot that this process judges: what it writes carries them."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}


@dataclass(slots=True)
class SlotState:
    """What this process has judged of a slot. saved: how far that is committed. revision: of the committed state."""

    token: int
    revision: int
    reader: int
    position: StreamPosition
    counted: Counted
    judged: int
    saved: StreamPosition
    due: float
    saving: Future[int] | None = None
    saving_to: StreamPosition = NOWHERE


class WorkerLoop(DetectorLoop):
    """Messages of the slots that it holds to the judge."""

    def __init__(
        self, link: BusLink, tokens: Tokens, stream: SharedStream, judge: Judge, send_report: SendReport
    ) -> None:
        super().__init__(stream, judge, (), alone=False)
        self._link, self._tokens, self._shared, self._send_report = link, tokens, stream, send_report
        self._detector, self._hours, self._trial = judge.slots, judge.slot_hours, judge.slot_trial
        self._options = link.options
        self._slots: dict[int, SlotState] = {}
        self._subjects = {subject_of(slot): slot for slot in range(self._options.slots)}
        self._gave_at, self._given = 0.0, set[tuple[int, int]]()  # slots and tokens that were handed over
        self.early = self.repeated = 0
        self._store_away, self._rested_at, self._limited = False, 0.0, LimitedLog()

    def run(self, stop: threading.Event, beat: Beat = lambda allow_s: None) -> None:
        """Judge until `stop` is set; then save and hand over all slots."""
        if self._shared.ledger.resume() is not None:  # a batch that a killed process had begun: it is read again
            self._shared.ledger.finish({})
        self._judge.opened.wait(FIRST_TRY_S)
        keeper = self._link.lease(LEASES, range(self._options.slots))
        while not stop.is_set():
            beat(LOOK_S + FIRST_TRY_S)
            self._link.must_work()
            self._follow_leases(keeper, beat)
            received = self._link.received(WAIT_S)
            while received is not None and not stop.is_set():
                if not self._may_judge(keeper, received, stop, beat):
                    break
                self._take(received, beat)
                self._save_due()
                received = self._link.received(0) if self._now_held(keeper) else None
            self._rest(keeper)
            self._save_due()
            self._share(keeper)
            self._warn()
            self._limited.tell_due()
        self._hand_over_all(beat)
        self._limited.tell()

    def _now_held(self, keeper: LeaseKeeper) -> bool:
        """Whether the table of leases still says what this process does."""
        mine = keeper.table.of(keeper.me)
        return mine == {slot: one.token for slot, one in self._slots.items()}

    def _may_judge(self, keeper: LeaseKeeper, received: Received, stop: threading.Event, beat: Beat) -> bool:
        """Wait until the lease is certain, or lost: while the bus is away nobody may judge. Wait as well while what
        is judged has nowhere to go: messages are on the bus, and a detector's disk and memory are small."""
        slot = self._subjects[received.stream]
        while slot in self._slots and not (keeper.holds(slot, time.monotonic()) and self._has_room()):
            beat(LOOK_S + FIRST_TRY_S)
            self._link.must_work()
            self._follow_leases(keeper, beat)
            if stop.wait(WAIT_S):
                return False
        return True

    def _rest(self, keeper: LeaseKeeper) -> None:
        """Let the hours of slots end that have no message waiting."""
        now = time.monotonic()
        if now - self._rested_at < REST_LOOK_S:
            return
        self._rested_at = now
        for slot, one in self._slots.items():
            if keeper.holds(slot, now) and self._link.newest(subject_of(slot)) <= one.position.sequence:
                self._hours.rest(slot, time.time(), self._judge.lock)

    def _has_room(self) -> bool:
        return not (self._judge.spool.is_filling or self._link.outgoing_is_full)

    def _follow_leases(self, keeper: LeaseKeeper, beat: Beat) -> None:
        """Open slots that are held now, and leave those that are not."""
        held = keeper.table.of(keeper.me)
        for slot, one in list(self._slots.items()):
            if held.get(slot) != one.token:
                self._drop(slot)
        for slot, token in held.items():
            if slot not in self._slots and (slot, token) not in self._given and keeper.holds(slot, time.monotonic()):
                beat(LOOK_S + FIRST_TRY_S)
                try:
                    self._open(slot, token)
                except (BusError, StoreError) as error:
                    self._drop(slot)
                    if not self._store_away:
                        _log.warning("slot_not_opened", slot=slot, error=str(error))
                    self._store_away = True
                    return  # bus or database is away for all slots
                self._store_away = False

    def _open(self, slot: int, token: int) -> None:
        """Go on with a slot from what is committed; where its state cannot be read, with windows that begin anew.

        Raises BusError, StoreError.
        """
        begun, saved = time.monotonic(), self._link.load(str(slot))
        committed, state = saved.committed, saved.state
        self._tokens.of[str(slot)] = token
        with self._judge.lock:
            try:
                self._detector.open_slot(slot, state)
            except FormatError as error:
                _log.error("state_not_restored", slot=slot, name=committed.name, error=str(error))
                state = b""
                self._detector.open_slot(slot, state)
        self._hours.open_slot(slot, token, state)
        self._judge.spool.fenced.discard(str(slot))
        self._judge.take_over(lambda incident: self._slot_of(incident.client) == slot)
        self._trial.open_slot(slot, token, state, self._judge.lock)
        due = time.monotonic() + self._options.snapshot_s * (1 + slot / self._options.slots) / 2
        at = committed.position
        reader = self._link.read(subject_of(slot), at)
        counted, judged = committed.counted.copy(), committed.judged
        self._slots[slot] = SlotState(token, saved.revision, reader, at, counted, judged, at, due)
        _log.info("slot_taken", slot=slot, sequence=at.sequence, took_s=round(time.monotonic() - begun, 3))

    def _slot_of(self, client: str) -> int:
        return self._detector.slot_of(client)

    def _drop(self, slot: int) -> None:
        """Judge a slot no more."""
        self._link.unread(subject_of(slot))
        self._tokens.of.pop(str(slot), None)
        with self._judge.lock:
            self._detector.close_slot(slot)
        self._hours.close_slot(slot)
        self._trial.close_slot(slot, self._judge.lock)
        if self._slots.pop(slot, None) is not None:
            _log.info("slot_left", slot=slot)

    def _take(self, received: Received, beat: Beat) -> None:
        """Judge one message, if its slot has not counted it."""
        slot = self._subjects[received.stream]
        one = self._slots.get(slot)
        self._link.done(received)
        if one is None or received.reader != one.reader:
            return
        if self._is_refused(slot):
            return
        try:
            label = label_of(received.label, received.site)
        except FormatError as error:
            self._limited.error("message_not_read", slot=slot, sequence=received.position.sequence, error=str(error))
        else:
            if not self._judge_message(slot, one, label, received.data, beat):
                return
        one.position = received.position

    def _is_refused(self, slot: int) -> bool:
        """Whether the database refuses what this process writes for a slot; then it leaves it."""
        if str(slot) not in self._judge.spool.fenced:
            return False
        _log.error("slot_refused", slot=slot, hint="another detector has written for it with a newer lease")
        self._drop(slot)
        return True

    def _judge_message(self, slot: int, one: SlotState, label: MessageLabel, data: bytes, beat: Beat) -> bool:
        """Judge a message where it is new; False where it is left to another detector, which has the slot by now.

        One that cannot be read counts, too: else all behind it would be early.
        """
        step = one.counted.step(label)
        self.early += step is MessageStep.EARLY
        self.repeated += step is MessageStep.REPEATED
        if step is not MessageStep.NEW:
            return True
        try:
            records, batch = heard_records(data, time.time())
            of = np.empty(len(records), np.int64)
            owners(np.ascontiguousarray(records["client"]), self._options.slots, of)
            if (of != slot).any():
                raise FormatError("its clients are of another slot: was it sent with another STREAM_SLOTS?")
        except FormatError as error:
            self._limited.error("message_lost", slot=slot, run=label.run, number=label.number, error=str(error))
            self._shared.ledger.begin([0] * len(self._shared.rings))
            self._shared.ledger.finish({"scored": 1, "lost": 1})  # how many queries it had, nobody knows
            one.counted.count(label, max(one.counted.seen.values(), default=0.0))
            return True
        beat(LOOK_S + FIRST_TRY_S + len(records) * QUERY_S)
        if len(records):
            self._hours.begin_message(slot, float(records["ts"].max()), self._judge.lock)
            self._judge_batch(slot, one, label.batch_id(slot), batch)
            if self._is_refused(slot):  # it was not stored: whoever has the slot counts it
                return False
        one.counted.count(label, float(records["ts"].max(initial=0.0)))
        return True

    def _judge_batch(self, slot: int, one: SlotState, batch_id: str, batch: QueryBatch) -> None:
        count, ledger = len(batch), self._shared.ledger
        ledger.begin([0] * len(self._shared.rings))
        outcome = self._judge.consume(batch, batch_id)
        one.judged += 1
        with self._judge.lock:
            self._send_report(slot, one.judged)
        lost = outcome.rows - outcome.stored - outcome.spooled
        ledger.finish(
            {
                "scored": count,
                "stored": outcome.stored,
                "spooled": outcome.spooled,
                "sampled_out": count - outcome.rows,
                "lost": lost,
                **outcome.seen,
            }
        )
        self._last_batch_at = time.time()

    # what is saved

    def _save_due(self) -> None:
        """Begin to save what is due, and see what has been saved."""
        now = time.monotonic()
        for slot, one in list(self._slots.items()):
            if one.saving is not None and one.saving.done():
                self._saved(slot, one)
        if self._judge.spool.waiting:
            return  # what waits on this disk alone is not to be taken for stored
        for slot, one in list(self._slots.items()):
            if self._is_due(one, now) and one.position != one.saved and self._may_save(slot):
                self._begin_to_save(slot, one)
                return

    def _may_save(self, slot: int) -> bool:
        """Whether all that follows from what was judged is where it does not end with this process."""
        return self._link.has_sent(str(slot)) and not self._hours.has_unwritten(slot)

    def _is_due(self, one: SlotState, now: float) -> bool:
        """Whether a slot is to be saved: after a while, and sooner where a site may soon have no room in its stream."""
        if one.saving is not None:
            return False
        soon = one.position.sequence - one.saved.sequence >= self._options.keep_messages // 2
        return now >= one.due - soon * self._options.snapshot_s * (1 - SOONER)

    def _begin_to_save(self, slot: int, one: SlotState) -> None:
        beside = {**self._hours.saved_files(slot), **self._trial.saved_files(slot, self._judge.lock)}
        state = self._detector.saved_slot(slot, self._judge.lock, beside)
        name = f"{slot}-{one.token}-{one.position.epoch}-{one.position.sequence}"
        committed = Committed(one.token, one.position, one.counted.copy(), one.judged, name)
        one.saving, one.saving_to = self._link.commit(str(slot), committed, one.revision, state), one.position
        one.due = time.monotonic() + self._options.snapshot_s

    def _saved(self, slot: int, one: SlotState) -> None:
        """Note that saving came to an end."""
        saving, one.saving = one.saving, None
        assert saving is not None
        try:
            one.revision, one.saved = saving.result(), one.saving_to
            self._trial.note_saved(slot)
        except ConflictError as error:
            _log.warning("slot_not_saved", slot=slot, error=str(error))
            self._drop(slot)
        except BusError as error:
            one.due = time.monotonic() + WAIT_S
            _log.warning("slot_not_saved", slot=slot, error=str(error))

    def _save_now(self, slot: int, beat: Beat) -> None:
        """Save a slot before it is handed over; where that fails, the next one reads again what came since."""
        one = self._slots.get(slot)
        end = time.monotonic() + COMMIT_S
        while one is not None and time.monotonic() < end:
            beat(COMMIT_S)
            if one.saving is not None:
                try:
                    one.saving.exception(COMMIT_S)
                except TimeoutError:
                    return
                self._saved(slot, one)
            elif one.position == one.saved or self._judge.spool.waiting:
                return
            elif self._may_save(slot):
                self._begin_to_save(slot, one)
            else:
                time.sleep(0.01)
            one = self._slots.get(slot)

    def _share(self, keeper: LeaseKeeper) -> None:
        """Hand over a slot where others have fewer."""
        now = time.monotonic()
        if now - self._gave_at < HAND_OVER_S or not self._now_held(keeper):
            return
        if surplus := keeper.surplus(now):
            self._gave_at = now
            self._hand_over(surplus[-1])

    def _hand_over(self, slot: int) -> None:
        self._save_now(slot, lambda allow_s: None)
        if slot in self._slots:
            self._given = {(slot, self._slots[slot].token)}
            self._drop(slot)
            self._link.give([slot])

    def _hand_over_all(self, beat: Beat) -> None:
        for slot in list(self._slots):
            self._link.unread(subject_of(slot))
        for slot in list(self._slots):
            if self._slots[slot].saving is None and self._slots[slot].position != self._slots[slot].saved:
                self._slots[slot].due = 0.0
            self._save_now(slot, beat)
        for slot in list(self._slots):
            self._drop(slot)
        self._link.leave(LEASES)

    def health(self) -> DetectorHealth:
        """What the heartbeat says, the lag of each slot among it: messages that no saved state has."""
        found = super().health()
        slots = list(self._slots.items())
        lag = {slot: max(self._link.newest(subject_of(slot)) - one.saved.sequence, 0) for slot, one in slots}
        bus = {
            "role": "detector",
            "connected": self._link.bus.connected and not self._link.faults.error,
            "error": self._link.faults.error,
            "failures": self._link.faults.failures,
            "slots": len(lag),
            "lag": {str(slot): number for slot, number in sorted(lag.items())},
            "gaps": self._link.gaps,
            "repeated": self.repeated,
            "early": self.early,
            "candidate": self._trial.candidate,
        }
        ends = [found.judging, self._link.alive]
        return replace(found, bus=bus, judging=all(ends))


@dataclass(frozen=True)
class Working:
    """How detectors on a bus are made. connect: opens the bus for a process. make: the collaborators of its judge, its
    tokens, and what it says to others."""

    connect: Callable[[str], BusLink]
    make: Callable[[str, BusLink, Tokens], JudgeParts]
    send_report: Callable[[BusLink, Judge, int, int], None]


def run_worker(working: Working, name: str, stream: SharedStream, ready: Callable[[], None], beat: Beat) -> int:
    """The process, until SIGTERM. Raises BusError where the bus cannot be used."""
    link, tokens = working.connect(name), Tokens()
    try:

        def loop_of(judge: Judge) -> WorkerLoop:
            return WorkerLoop(link, tokens, stream, judge, partial(working.send_report, link, judge))

        make = partial(working.make, name, link, tokens)
        return run_judge(stream.wakeup_fd, stream.wake, make, loop_of, ready, beat)
    finally:
        link.close()
