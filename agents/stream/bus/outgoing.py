"""From the ring to the bus: messages wait on disk until a detector's saved state has counted them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.core.errors import AgentsError, QueueFullError
from agents.core.files import DiskQueue, Queued
from agents.core.npz import FormatError, object_of
from agents.stream.answer_key import HeldKey, answer_key_of, packed_key
from agents.stream.bus.faults import BusFaults
from agents.stream.bus.jetstream import (
    ANSWERS_KEY,
    RETRY_S,
    Bus,
    BusError,
    ConflictError,
    FullError,
    MissingError,
    subject_of,
)
from agents.stream.bus.messages import bodies_of, packed_records
from agents.stream.bus.options import BusOptions
from agents.stream.bus.protocol import MessageLabel, Outbound, StreamPosition, committed_of, new_run, site_of_run
from agents.stream.bus.thread import LoopThread
from agents.stream.record import RECORD
from agents.stream.slot_kernels import owners

COMMITTED_LOOK_S = 1.0
"""How often a publisher looks at what detectors have saved, and whether streams are those that it knows."""
KEY_LOOK_S = 30.0
"""… and at the key of answers' hashes."""
REFUSED_S = 60.0
"""Between two lines of the log that say that streams are full."""
_SUFFIX = ".msgs"
_NOTHING = packed_records(np.zeros(0, RECORD))
_log = structlog.get_logger()


class Place(NamedTuple):
    """Where a message lies on disk."""

    file: Queued
    at: int
    size: int


def _is_message(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 3 and all(isinstance(one, int) and one >= 0 for one in row)


class OutgoingSpool:
    """Files of messages, each of one batch out of the rings: a line of JSON, then the messages' bodies."""

    def __init__(self, folder: Path, max_bytes: int, slots: int, site: str) -> None:
        """site: that its messages are sent for. Raises AgentsError where the folder cannot be used."""
        try:
            self._queue = DiskQueue(folder, _SUFFIX, max_bytes=max_bytes, sync=True)
        except BlockingIOError:
            raise AgentsError(f"cannot use spool {folder}: another process holds it (listen or run)") from None
        except OSError as error:
            raise AgentsError(f"cannot use spool {folder}: {error.strerror}") from None
        self.run, self._slots = new_run(site), slots
        self._numbers: dict[int, int] = defaultdict(int)

    def put(self, batch_id: str, records: NDArray[np.void]) -> Queued | None:
        """Write a batch; None where a killed process had written it. Raises QueueFullError, OSError."""
        if self._queue.find(batch_id) is not None:
            return None
        of = np.empty(len(records), np.int64)
        owners(np.ascontiguousarray(records["client"]), self._slots, of)
        head, bodies, numbers = [], [], dict(self._numbers)
        for slot in np.unique(of).tolist():
            for body in bodies_of(records[of == slot]):
                bodies.append(body)
                numbers[slot] = numbers.get(slot, 0) + 1
                head.append([slot, numbers[slot], len(bodies[-1])])
        line = json.dumps({"run": self.run, "messages": head}).encode() + b"\n"
        file = self._queue.put(b"".join([line, *bodies]), batch_id)
        self._numbers.update(numbers)
        return file

    def messages(self, file: Queued) -> list[tuple[int, str, int, Place]]:
        """Slot, run, number and place of each message of a file. Raises FormatError, OSError."""
        with file.path.open("rb") as opened:
            line = opened.readline()
        head, at, found = object_of(line), len(line), []
        run, rows = str(head.get("run")), head.get("messages")
        site_of_run(run)
        if not isinstance(rows, list) or not all(map(_is_message, rows)):
            raise FormatError("its first line names no messages")
        for slot, number, size in rows:
            found.append((slot, run, number, Place(file, at, size)))
            at += size
        if at != file.path.stat().st_size:
            raise FormatError("the file is cut off")
        return found

    @staticmethod
    def body(place: Place) -> bytes:
        """The body of a message. Raises OSError."""
        handle = os.open(place.file.path, os.O_RDONLY)
        try:
            return os.pread(handle, place.size, place.at)
        finally:
            os.close(handle)

    def waiting(self) -> list[Queued]:
        """All files, oldest first."""
        return self._queue.waiting()

    def done(self, file: Queued) -> None:
        """Let a file go."""
        self._queue.done(file)

    def set_aside(self, file: Queued) -> str:
        """Keep a file for people to look at."""
        return self._queue.set_aside(file)

    def close(self) -> None:
        """Release the folder; the files stay."""
        self._queue.close()


class _Lane:
    """One slot: runs in the order in which they began, and where their messages lie."""

    def __init__(self) -> None:
        self.runs: dict[str, Outbound] = {}
        self.places: dict[tuple[str, int], Place] = {}
        self.more = asyncio.Event()
        self.epoch = ""

    def add(self, run: str, number: int, place: Place) -> None:
        out = self.runs.setdefault(run, Outbound(run, kept=number, last=number - 1, next=number))
        out.last = max(out.last, number)
        self.places[run, number] = place
        self.more.set()

    @property
    def keeps(self) -> bool:
        """Whether something is not counted yet."""
        return bool(self.places)


class BusSender:
    """Sends what the spool holds, each slot by itself and in order; lets go what is saved."""

    def __init__(self, options: BusOptions, spool: OutgoingSpool, key: HeldKey) -> None:
        """key: of answers' hashes, which all who hear queries share."""
        self._key, self._key_fault = key, ""
        self._bus, self._spool, self._options = Bus(options), spool, options
        self._thread = LoopThread("bus")
        self._left: dict[str, int] = {}  # messages of each file that are not counted yet
        self._secret = secrets.token_hex(8)  # in ids of messages: who guesses one has its server drop that message
        self.sent = self.resent = self.refused = 0
        self._refused_at = -REFUSED_S
        self.faults = BusFaults(options.shown, "not connected yet")
        self._lanes: list[_Lane] = []
        self._work = self._thread.begin(self._run())

    @property
    def alive(self) -> bool:
        """Whether it works on."""
        return self._thread.alive and not self._work.done()

    def must_work(self) -> None:
        """Raise BusError where it has ended by itself."""
        if self._work.done() and not self._work.cancelled():
            raise BusError(f"cannot go on with the bus at {self._options.shown}: {self._work.exception()!r}")

    def add(self, file: Queued) -> None:
        """Send the messages of a new file."""
        self._thread.loop.call_soon_threadsafe(self._take, file)

    def _take(self, file: Queued) -> None:
        try:
            messages = self._spool.messages(file)
        except (OSError, FormatError) as error:
            _log.error("spooled_messages_set_aside", file=self._spool.set_aside(file), error=str(error))
            return
        self._left[file.key] = len(messages)
        for slot, run, number, place in messages:
            self._lanes[slot % len(self._lanes)].add(run, number, place)

    async def _run(self) -> None:
        self._lanes = [_Lane() for _ in range(self._options.slots)]
        for file in self._spool.waiting():
            self._take(file)
        while True:
            try:
                await self._bus.open("publisher", 0.0)
            except AgentsError as error:
                self.faults.note(error)
                await asyncio.sleep(RETRY_S)
            else:
                break
        self.faults.note(None)
        await self._share_key()
        lanes = [self._send_on(slot, lane) for slot, lane in enumerate(self._lanes)]
        await asyncio.gather(*lanes, self._look_on())

    async def _send_on(self, slot: int, lane: _Lane) -> None:
        subject = subject_of(slot)
        while True:
            lane.more.clear()
            for out in list(lane.runs.values()):
                while (label := out.to_send()) is not None:
                    try:
                        if not lane.epoch:
                            lane.epoch = (await self._bus.state(subject)).epoch
                        body = self._body(lane, label)
                        message_id = f"{self._secret}-{slot}-{out.message_id(label)}"
                        site = site_of_run(label.run)
                        sequence = await self._bus.publish(subject, body, label.text(), message_id, site)
                        if sequence <= out.at.sequence:
                            lane.epoch = (await self._bus.state(subject)).epoch
                    except FullError as error:
                        await self._wait_for_room(error)
                        continue
                    except (BusError, OSError) as error:
                        self.faults.note(error)
                        if isinstance(error, MissingError):
                            lane.epoch = ""
                        await asyncio.sleep(RETRY_S)
                        continue
                    self.sent += 1
                    self.resent += out.rewound > 0
                    if self.faults.error:
                        self.faults.note(None)
                    out.stored(label, StreamPosition(lane.epoch, sequence))
            await lane.more.wait()

    async def _wait_for_room(self, error: FullError) -> None:
        """A detector makes room when it saves; until then the message waits on this disk. Others go on."""
        self.refused += 1
        if time.monotonic() - self._refused_at > REFUSED_S:
            self._refused_at = time.monotonic()
            _log.warning("stream_is_full", error=str(error), refused=self.refused)
        await asyncio.sleep(RETRY_S)

    def _body(self, lane: _Lane, label: MessageLabel) -> bytes:
        """The body of a message; of one whose file was set aside nothing, so that those behind it count."""
        place = lane.places.get((label.run, label.number))
        return _NOTHING if place is None else self._spool.body(place)

    async def _look_on(self) -> None:
        shared_at = time.monotonic()
        while True:
            await asyncio.sleep(COMMITTED_LOOK_S)
            if time.monotonic() - shared_at >= KEY_LOOK_S:
                await self._share_key()
                shared_at = time.monotonic()
            for slot, lane in enumerate(self._lanes):
                if lane.keeps:
                    try:
                        await self._look(slot, lane)
                    except BusError as error:
                        self.faults.note(error)
                        break

    async def _share_key(self) -> None:
        """Take the key of answers' hashes that is on the bus. Where none is, a host of the main site gives its own."""
        try:
            found = await self._bus.look(ANSWERS_KEY)
            if not found.revision and not self._options.site:
                with contextlib.suppress(ConflictError):  # another host was faster, or this server has not heard of it
                    await self._bus.put_if(ANSWERS_KEY, packed_key(self._key.key), 0)
                found = await self._bus.get(ANSWERS_KEY)
            if found.revision:
                self._key.take(answer_key_of(found.data))
        except (BusError, FormatError, OSError) as error:
            if str(error) != self._key_fault:
                _log.warning("answer_key_not_shared", error=str(error))
            self._key_fault = str(error)
        else:
            self._key_fault = ""

    async def _look(self, slot: int, lane: _Lane) -> None:
        """Let go what is saved, and see what is to be sent again."""
        try:
            lane.epoch = (await self._bus.state(subject_of(slot))).epoch
        except MissingError:
            await self._bus.ensure_stream(subject_of(slot))
            lane.epoch = (await self._bus.state(subject_of(slot))).epoch
        found = await self._bus.look(f"committed.{slot}")
        committed = committed_of(found.data) if found.revision else None
        for run, out in list(lane.runs.items()):
            before = out.kept
            out.note_epoch(lane.epoch)
            if committed is not None:
                out.note(committed)
            for number in range(before, out.kept):
                if (place := lane.places.pop((run, number), None)) is not None:
                    self._let_go(place)
            if out.kept > out.last and run != self._spool.run:
                del lane.runs[run]
            elif out.to_send() is not None:
                lane.more.set()

    def _let_go(self, place: Place) -> None:
        key = place.file.key
        self._left[key] -= 1
        if not self._left[key]:
            del self._left[key]
            with contextlib.suppress(OSError):
                self._spool.done(place.file)

    def state(self) -> dict[str, Any]:
        """How it is, for health and metrics."""
        return {
            "role": "publisher",
            "connected": self._bus.connected and not self.faults.error,
            "error": self.faults.error,
            "sent": self.sent,
            "resent": self.resent,
            "refused": self.refused,
            "failures": self.faults.failures,
            "unsent": sum(max(out.last + 1 - out.next, 0) for lane in self._lanes for out in list(lane.runs.values())),
            "kept": sum(len(lane.places) for lane in self._lanes),
        }

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is sent; whether it is."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self.alive:
            if not self.state()["unsent"] and not self.faults.error:
                return True
            time.sleep(0.02)
        return False

    def close(self) -> None:
        """Stop; what is not counted yet stays on disk."""
        self._work.cancel()
        with contextlib.suppress(TimeoutError):
            self._thread.call(self._bus.close(), 5)
        self._thread.close()


class SpoolWatch:
    """Says once that the spool is full, and once that it has room again."""

    def __init__(self) -> None:
        self.error = ""

    def put(self, spool: OutgoingSpool, batch_id: str, records: NDArray[np.void]) -> tuple[Queued | None, bool]:
        """The file, None where it was there; and whether the batch is on disk."""
        try:
            file = spool.put(batch_id, records)
        except (QueueFullError, OSError) as error:
            if not self.error:
                _log.warning("stream_spool_is_full", error=str(error))
            self.error = str(error)
            return None, False
        if self.error:
            _log.info("stream_spool_has_room")
        self.error = ""
        return file, True
