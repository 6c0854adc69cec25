"""The process `network` on a bus: on each host it counts what all detectors say; one of them writes and alerts.

So each host has the tables of known domains and names that its detectors read, and where the one that writes dies,
another goes on with what it has counted itself.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from agents.core.errors import StoreError
from agents.core.npz import FormatError
from agents.detection.shared.detector_report import DetectorReport, detector_report_of
from agents.detection.shared.slotted import slot_files_of, slot_state_of
from agents.runtime.bus.canary_sharing import CanaryTaker, names_of_canary
from agents.runtime.bus.file_sharing import FileTaker, names_of_files
from agents.runtime.bus.model_sharing import ModelTaker, names_of_models
from agents.runtime.bus.worker_process import COMMIT_S, Tokens, Working
from agents.runtime.heartbeat import DetectorHealth
from agents.runtime.judging.judge import FIRST_TRY_S, Judge
from agents.runtime.judging.loop import run_judge
from agents.runtime.several.exchange import DetectorExchange
from agents.runtime.several.network_process import NETWORK_PROCESS, PAUSE_S, NetworkLoop
from agents.runtime.signals import Beat
from agents.stream.bus.faults import LimitedLog
from agents.stream.bus.jetstream import NETWORK_SUBJECT, BusError, ConflictError
from agents.stream.bus.link import ROLL, SAY, SWEPT_S, BusLink
from agents.stream.bus.protocol import Committed, Counted, LeaseKeeper, StreamPosition
from agents.stream.bus.reading import Received
from agents.stream.shared import IDLE_S, SharedStream

LEASE = "leases-network"
"""Key of the lease of who writes."""
HEARD_MAX = 256
"""Messages that are counted at once."""
PARTS_S = 60.0
"""The parts of a message that is not whole after so long are dropped: its sender died."""
_LABEL = re.compile("([^ ]+) ([^ ]+) ([0-9]{1,9}) ([0-9]{1,9})", re.ASCII)
"""Kind and key of a message, number of this part, and how many there are (BusLink.send)."""
_log = structlog.get_logger()


class MessageParts:
    """Messages that travel in parts. The sender is in each key: where it dies halfway, another one says the same
    message of a slot in parts of its own."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, list[bytes]]] = {}

    def whole(self, received: Received) -> tuple[str, bytes] | None:
        """Kind and body of a message, once all of it is there. Raises FormatError for a header that is none."""
        match = _LABEL.fullmatch(received.label)
        if match is None:
            raise FormatError("it has no label")
        kind, key, number, of = match.groups()
        if key not in self._found:
            self._drop_late()
        _, parts = self._found.setdefault(key, (time.monotonic(), []))
        if int(number) == len(parts):  # one that is sent again comes twice
            parts.append(received.data)
        if len(parts) < int(of):
            return None
        del self._found[key]
        return kind, b"".join(parts)

    @property
    def pending(self) -> bool:
        """Whether some parts of a message are missing."""
        self._drop_late()
        return bool(self._found)

    def _drop_late(self) -> None:
        now = time.monotonic()
        self._found = {key: one for key, one in self._found.items() if now - one[0] < PARTS_S}


class MirrorLoop(NetworkLoop):
    """What all detectors say, on whatever host, to the judge of all clients."""

    def __init__(
        self, link: BusLink, tokens: Tokens, exchange: DetectorExchange, judge: Judge, stream: SharedStream
    ) -> None:
        super().__init__(exchange, judge, stream, listens=False)
        self._link, self._tokens, self._parts = link, tokens, MessageParts()
        self._position, self._revision, self._saved_at = StreamPosition(), 0, time.monotonic()
        self._saving: Future[int] | None = None
        self._saving_to = self._saved_position = StreamPosition()
        self._swept_at, self._limited = time.monotonic(), LimitedLog()

    def run(self, stop: threading.Event, beat: Beat) -> None:
        """Count until `stop` is set."""
        self._judge.opened.wait(FIRST_TRY_S)
        self._resume()
        self.publish()
        keeper = self._link.lease(LEASE, (0,))
        self._link.read(NETWORK_SUBJECT, self._position)
        self._link.send(NETWORK_PROCESS, ROLL, b"", self._link.me)
        while not stop.is_set():
            beat(2 * IDLE_S)
            self._link.must_work()
            self._speak(keeper)
            received, heard = self._link.received(IDLE_S / 4), list[DetectorReport]()
            while received is not None:
                self._hear(received, heard)
                received = self._link.received(0) if len(heard) < HEARD_MAX else None
            if heard:
                self._judge.count_reports(heard)
                self.publish()
                stop.wait(PAUSE_S)
            self._save_due()
            self._sweep_due()
            self._limited.tell_due()
        self._limited.tell()
        self._end(beat)

    def _resume(self) -> None:
        """Go on from what the one that writes has saved, whichever host that is."""
        saved = self._link.load(NETWORK_PROCESS)
        if not saved.revision:
            return
        try:
            for name, data in slot_files_of(saved.state).items():
                self._judge.detector.load(name, data)
        except FormatError as error:
            _log.warning("state_not_restored", path=saved.committed.name, error=str(error))
            return
        self._together.resume(saved.committed.counted.last)
        self._position = saved.committed.position

    def _hear(self, received: Received, heard: list[DetectorReport]) -> None:
        """Take up one message."""
        self._link.done(received)
        self._position = received.position
        try:
            whole = self._parts.whole(received)
            if whole is None:
                return
            kind, body = whole
            if kind == SAY:
                heard.append(detector_report_of(body))
            else:
                self._together.ask_for_rolls(received.label.split(" ")[1])
                self.publish()
        except FormatError as error:
            self._limited.error("message_not_read", stream=NETWORK_SUBJECT, error=str(error))

    def _speak(self, keeper: LeaseKeeper) -> None:
        """Write and alert where the lease is this process'."""
        token = keeper.table.of(keeper.me).get(0) if keeper.holds(0, time.monotonic()) else None
        if token == self._tokens.of.get(NETWORK_PROCESS):
            return
        if token is None:
            self._tokens.of.pop(NETWORK_PROCESS, None)
            _log.info("network_left")
            return
        self._tokens.of[NETWORK_PROCESS] = token
        try:
            self._revision = self._link.load(NETWORK_PROCESS).revision
            self._judge.begin_to_write()
        except (BusError, StoreError) as error:
            self._tokens.of.pop(NETWORK_PROCESS, None)
            _log.warning("network_not_taken", error=str(error))
            return
        _log.info("network_taken")

    def _sweep_due(self) -> None:
        """Once in a while, have dropped what nobody names any more."""
        if time.monotonic() - self._swept_at < SWEPT_S or NETWORK_PROCESS not in self._tokens.of:
            return
        self._swept_at = time.monotonic()
        slots = [NETWORK_PROCESS, *map(str, range(self._link.options.slots))]
        try:
            used = [*names_of_models(self._link), *names_of_canary(self._link), *names_of_files(self._link)]
            self._link.sweep(slots, used)
        except (BusError, FormatError) as error:  # nothing is dropped as long as it is not known what is in use
            _log.warning("objects_not_swept", error=str(error))

    def _save_due(self) -> None:
        if self._saving is not None and self._saving.done():
            self._note_saved()
        due = time.monotonic() - self._saved_at >= self._link.options.snapshot_s
        if due and self._saving is None and NETWORK_PROCESS in self._tokens.of:
            self._save()

    def _save(self) -> None:
        if self._parts.pending or self._judge.spool.waiting:
            return
        self._saved_at = time.monotonic()
        token, at = self._tokens.of[NETWORK_PROCESS], self._position
        counted = Counted(self._together.acked_all)
        name = f"{NETWORK_PROCESS}-{token}-{at.epoch}-{at.sequence}"
        state = slot_state_of(self._judge.detector.save(self._judge.lock))
        self._saving = self._link.commit(NETWORK_PROCESS, Committed(token, at, counted, 0, name), self._revision, state)
        self._saving_to = at

    def _note_saved(self) -> None:
        saving, self._saving = self._saving, None
        assert saving is not None
        try:
            self._revision = saving.result()
        except ConflictError as error:
            self._tokens.of.pop(NETWORK_PROCESS, None)  # and what is committed is read anew, if the lease is ours still
            _log.warning("network_not_saved", error=str(error))
        except BusError as error:
            _log.warning("network_not_saved", error=str(error))
        else:
            self._saved_position = self._saving_to

    def _end(self, beat: Beat) -> None:
        """Save, and let another one write at once; where saving takes too long, it reads on from what was saved."""
        for _ in range(2):
            beat(2 * COMMIT_S)
            if self._saving is None and NETWORK_PROCESS in self._tokens.of and self._position != self._saved_position:
                self._save()
            if self._saving is not None:
                try:
                    self._saving.exception(COMMIT_S)
                except TimeoutError:
                    break
                self._note_saved()
        self._link.leave(LEASE)

    def health(self) -> DetectorHealth:
        """What the heartbeat says: of this process and of all detectors of this host."""
        found = super().health()
        told = [one for name in self._exchange.names if (one := self._exchange.noted(name).get("bus"))]
        lag = {slot: number for one in told for slot, number in one.get("lag", {}).items()}
        bus: dict[str, Any] = {
            "role": "detector",
            "connected": self._link.bus.connected and all(one["connected"] for one in told),
            "error": self._link.faults.error or next((one["error"] for one in told if one["error"]), ""),
            "lag": lag,
            "network": NETWORK_PROCESS in self._tokens.of,
        }
        for name in ("failures", "slots", "gaps", "repeated", "early"):
            bus[name] = sum(int(one.get(name, 0)) for one in told)
        return replace(found, bus=bus, judging=found.judging and self._link.alive)


@dataclass(frozen=True)
class Detecting:
    """The detectors of one host on a bus, and what they share. taker: has what this host says of its slots."""

    exchange: DetectorExchange
    working: Working
    taker: Callable[[Callable[[], Mapping[str, Any]]], ModelTaker]
    file_taker: Callable[[], FileTaker]
    canary_taker: Callable[[], CanaryTaker]


def _slots_of(exchange: DetectorExchange) -> Mapping[str, Any]:
    """How many slots the detectors of this host hold, how many messages of them wait or are not saved yet, and which
    candidate judges beside the model in use."""
    held, lag, candidate = 0, 0, ""
    for name in exchange.names:
        if bus := exchange.noted(name).get("bus"):
            held, lag = held + int(bus["slots"]), lag + sum(bus["lag"].values())
            candidate = candidate or str(bus.get("candidate", ""))
    return {"slots": held, "lag": lag, "candidate": candidate}


def run_mirror(detecting: Detecting, stream: SharedStream, ready: Callable[[], None], beat: Beat) -> int:
    """The process, until SIGTERM. Raises BusError where the bus cannot be used."""
    working, exchange = detecting.working, detecting.exchange
    link, tokens = working.connect(NETWORK_PROCESS), Tokens()
    takers = (detecting.taker(partial(_slots_of, exchange)), detecting.file_taker(), detecting.canary_taker())
    try:

        def loop_of(judge: Judge) -> MirrorLoop:
            for taker in takers:
                taker.start()
            return MirrorLoop(link, tokens, exchange, judge, stream)

        make = partial(working.make, NETWORK_PROCESS, link, tokens)
        return run_judge(exchange.bell.writing, exchange.bell.ring, make, loop_of, ready, beat)
    finally:
        for taker in takers:
            taker.stop()
        link.close()
