"""A detector's side of the bus: leases, streams that are read, saved state, and what is said to others.

An event loop on a thread of its own does it; methods are called by the thread that judges, unless they say otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import NamedTuple

import structlog

from agents.core.errors import SettingsError
from agents.core.npz import FormatError
from agents.stream.bus.faults import BusFaults
from agents.stream.bus.jetstream import (
    NETWORK_SUBJECT,
    Bus,
    BusError,
    ConflictError,
    MissingError,
    Versioned,
    subject_of,
)
from agents.stream.bus.options import BusOptions
from agents.stream.bus.protocol import (
    Committed,
    LeaseKeeper,
    Leases,
    StreamPosition,
    committed_of,
    leases_of,
    may_commit,
)
from agents.stream.bus.reading import Received, StreamReader
from agents.stream.bus.thread import LoopThread

LEASE_LOOK_S = 0.5
"""How often the table of leases is looked at: a slot that was handed over waits so long, at most."""
TAKE_MAX = 16
"""Slots that one worker takes at a look, at most."""
PART_BYTES = 512 << 10
"""A longer message travels in parts: servers refuse more than a megabyte."""
SAID_MAX = 1000
"""Messages to others that wait, at most; then judging waits."""
LEAVE_S = 5.0
SWEPT_S = 3600.0
"""Objects that no key names are dropped when they are so old."""
SAY, ROLL = "say", "roll"
_log = structlog.get_logger()


class SavedSlot(NamedTuple):
    """What is committed of a slot. revision: of its key."""

    committed: Committed
    revision: int
    state: bytes


class BusLink:
    """A connection, and what runs on it."""

    def __init__(self, options: BusOptions, name: str) -> None:
        """Raises BusError where the bus cannot be used, SettingsError where this host may only send."""
        if options.site:
            raise SettingsError("cannot use setting STREAM_SITE here: it is for hosts that only hear queries")
        self.options, self.bus = options, Bus(options)
        self.me = f"{name}-{secrets.token_hex(4)}"
        self._thread = LoopThread("bus")
        self._inbox: SimpleQueue[Received] = SimpleQueue()
        self._readers: dict[str, tuple[StreamReader, Future[None]]] = {}
        self._tasks: list[Future[None]] = []
        self._kick: asyncio.Event | None = None
        self._giving: set[int] = set()
        self._said: asyncio.Queue[tuple[str, str, bytes]] | None = None
        self._unsaid: dict[str, int] = {}
        self._counting = threading.Lock()
        self._numbered, self._lost, self._left = 0, False, False
        self.faults = BusFaults(options.shown)
        with contextlib.ExitStack() as undoing:
            undoing.callback(self._thread.close)
            self._thread.call(self.bus.open(name))
            undoing.pop_all()

    def close(self) -> None:
        """End all, and the connection."""
        for work in (*self._tasks, *(work for _, work in self._readers.values())):
            work.cancel()
        with contextlib.suppress(TimeoutError):
            self._thread.call(self.bus.close(), LEAVE_S)
        self._thread.close()

    @property
    def alive(self) -> bool:
        """Whether all that runs does."""
        return self._thread.alive and not self._lost and not any(task.done() for task in self._tasks)

    def must_work(self) -> None:
        """Raise BusError where something that should run has ended, or where the keys of the bus are lost."""
        if self._lost:
            raise BusError(f"the bus at {self.options.shown} has lost its keys: this process begins anew")
        for task in (*self._tasks, *(work for _, work in list(self._readers.values()))):
            if task.done() and not task.cancelled():
                raise BusError(f"cannot go on with the bus at {self.options.shown}: {task.exception()!r}")

    def shared(self, key: str, made: bytes) -> bytes:
        """A value that all on the bus share: the first one that was made. Raises BusError."""

        async def get() -> bytes:
            found = await self.bus.get(key)
            if found.revision:
                return found.data
            with contextlib.suppress(ConflictError):
                await self.bus.put_if(key, made, 0)
            return (await self.bus.get(key)).data

        return self._thread.call(get())

    def value(self, key: str) -> Versioned:
        """The value of a key; revision 0 where there is none. Raises BusError."""
        return self._thread.call(self.bus.get(key))

    def put_value(self, key: str, data: bytes, revision: int) -> int:
        """Replace a value that has this revision still; the new one. Raises BusError, ConflictError."""
        return self._thread.call(self.bus.put_if(key, data, revision))

    def values(self, keys: Sequence[str]) -> list[Versioned]:
        """The values of keys. Raises BusError."""

        async def get() -> list[Versioned]:
            return await asyncio.gather(*(self.bus.get(key) for key in keys))

        return self._thread.call(get())

    def put_newest(self, key: str, token: int, data: bytes) -> Future[bool]:
        """Begin to put a value under a key, with the token of a lease (`newest_of` reads both); whether that was done:
        not over one that has a newer token."""

        async def put() -> bool:
            while True:
                found = await self.bus.get(key)
                if found.revision and newest_of(found.data)[0] > token:
                    return False
                with contextlib.suppress(ConflictError):
                    await self.bus.put_if(key, b"%d\n%b" % (token, data), found.revision)
                    return True

        return self._thread.begin(put())

    def object(self, name: str) -> bytes:
        """The contents of an object. Raises BusError."""
        return self._thread.call(self.bus.get_object(name))

    def put_object(self, name: str, data: bytes) -> None:
        """Keep an object. Raises BusError."""
        self._thread.call(self.bus.put_object(name, data))

    # leases

    def lease(self, key: str, slots: Sequence[int]) -> LeaseKeeper:
        """Begin to take slots; the keeper says which are held."""
        keeper = LeaseKeeper(self.me, slots, self.options.lease_s)
        self._tasks.append(self._thread.begin(self._lease_on(key, keeper)))
        return keeper

    async def _lease_on(self, key: str, keeper: LeaseKeeper) -> None:
        self._kick, wrote = asyncio.Event(), -1e9
        while not self._left:
            self._kick.clear()
            try:
                wrote = await self._lease_once(key, keeper, wrote)
            except ConflictError:
                await asyncio.sleep(random.uniform(0.005, 0.05))  # noqa: S311
                continue
            except BusError as error:
                self.faults.note(error)
            else:
                self.faults.note(None)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._kick.wait(), LEASE_LOOK_S)

    async def _lease_once(self, key: str, keeper: LeaseKeeper, wrote: float) -> float:
        """Look at the table, and write it where that is due; when it was written last."""
        self._lost = self._lost or await self.bus.keys_are_lost()
        if self._lost:  # what is there now is for processes that begin anew
            return wrote
        found, now = await self.bus.get(key), time.monotonic()
        table, base = (leases_of(found.data) if found.revision else Leases()), self.bus.token_base
        keeper.observe(table, base + found.revision, now)
        giving = set(self._giving) & set(table.of(self.me))
        wanted = keeper.next_table(now, TAKE_MAX).without(self.me, giving)
        news = wanted.held != table.held or wanted.beats.keys() != table.beats.keys()
        if self._left or (not news and now - wrote < keeper.lease_s / 3):
            return wrote
        revision = await self.bus.put_if(key, wanted.packed(), found.revision)
        keeper.wrote(wanted, base + revision, now)
        self._giving -= giving
        return now

    def give(self, slots: Iterable[int]) -> None:
        """Hand slots over: whoever is to have them takes them at its next look."""
        self._giving |= set(slots)
        if self._kick is not None:
            self._thread.loop.call_soon_threadsafe(self._kick.set)

    def leave(self, key: str) -> None:
        """Give back all, and be no worker any more; where the bus is away, others find out."""

        async def leave() -> None:
            self._left = True  # a cancelled task may go on: asyncio.wait_for loses what comes together with its answer
            for task in self._tasks:
                task.cancel()
            while True:
                found = await self.bus.get(key)
                if not found.revision:
                    return
                with contextlib.suppress(ConflictError):
                    await self.bus.put_if(key, leases_of(found.data).without(self.me).packed(), found.revision)
                    return

        with contextlib.suppress(BusError, TimeoutError):
            self._thread.call(leave(), LEAVE_S)

    # saved state

    def load(self, slot: str) -> SavedSlot:
        """What is committed of a slot. Raises BusError."""

        async def load() -> SavedSlot:
            found: Versioned = await self.bus.get(f"committed.{slot}")
            if not found.revision:
                return SavedSlot(Committed(), 0, b"")
            committed = _readable(slot, found.data)
            try:
                state = await self.bus.get_object(committed.name) if committed.name else b""
            except MissingError:  # what it knew is lost, and what it has counted is not
                _log.error("saved_state_missing", slot=slot, name=committed.name)
                state = b""
            return SavedSlot(committed, found.revision, state)

        return self._thread.call(load())

    def commit(self, slot: str, committed: Committed, revision: int, state: bytes) -> Future[int]:
        """Put a state in force; the revision. ConflictError where another one has the slot by now."""
        return self._thread.begin(self._commit(slot, committed, revision, state))

    async def _commit(self, slot: str, committed: Committed, revision: int, state: bytes) -> int:
        key, before = f"committed.{slot}", Committed()
        if (found := await self.bus.get(key)).revision:
            before = _readable(slot, found.data)
        if found.revision != revision or not may_commit(committed.token, before):
            raise ConflictError(f"slot {slot} has another holder")
        await self.bus.put_object(committed.name, state)
        try:
            new = await self.bus.put_if(key, committed.packed(), revision)
        except BusError as error:
            there = await self.bus.get(key)
            if there.data != committed.packed():
                if isinstance(error, ConflictError):  # else it may be written yet: `sweep` looks later
                    await self.bus.drop_object(committed.name)
                raise
            new = there.revision  # it was written, and the answer was lost
        if before.name and before.name != committed.name:
            await self.bus.drop_object(before.name)
        if slot.isdecimal():
            with contextlib.suppress(BusError):  # the next time again
                await self.bus.forget(subject_of(int(slot)), committed.position)
        return new

    def sweep(self, slots: Sequence[str], others: Iterable[str] = (), older_s: float = SWEPT_S) -> Future[int]:
        """Begin to drop objects that no key names, of processes that died between two writes; how many there were.

        slots: whose saved state there may be; others: names of objects that are in use. What is younger than `older_s`,
        seconds, is left alone: its key may be on the way.
        """

        async def sweep() -> int:
            found, used = await self.bus.objects(), set(others)
            for slot in slots:
                if (one := await self.bus.get(f"committed.{slot}")).revision:
                    used.add(_readable(slot, one.data).name)
            old = [name for name, at in found.items() if name not in used and time.time() - at > older_s]
            for name in old:
                await self.bus.drop_object(name)
            if old:
                _log.info("objects_swept", dropped=len(old))
            return len(old)

        return self._thread.begin(sweep())

    # streams

    def read(self, subject: str, position: StreamPosition) -> int:
        """Begin to read a stream behind a position; the number of the reader, which each message has with it."""
        self._numbered += 1
        number = self._numbered

        async def begin() -> StreamReader:
            return StreamReader(self.bus, subject, number, position, self._inbox.put, self.faults.note)

        reader = self._thread.call(begin())
        self._readers[subject] = reader, self._thread.begin(reader.run())
        return number

    def unread(self, subject: str) -> None:
        """Read a stream no more."""
        if (found := self._readers.pop(subject, None)) is not None:
            found[1].cancel()

    def received(self, timeout_s: float) -> Received | None:
        """The next message of any stream; None after a while without one."""
        try:
            return self._inbox.get(timeout=timeout_s)
        except Empty:
            return None

    def done(self, received: Received) -> None:
        """A message was dealt with."""
        found = self._readers.get(received.stream)
        if found is not None and found[0].number == received.reader:
            self._thread.loop.call_soon_threadsafe(found[0].done)

    def newest(self, subject: str) -> int:
        """The sequence of the last message of a stream, as far as known."""
        found = self._readers.get(subject)
        return 0 if found is None else found[0].newest

    @property
    def gaps(self) -> int:
        """How often messages were skipped and read again, by the streams that are read now."""
        return sum(reader.gaps for reader, _ in list(self._readers.values()))

    # what is said to others

    def send(self, of: str, kind: str, data: bytes, message_id: str) -> None:
        """Send a message to where all clients are counted, behind those before it. of: whose it is (`has_sent`)."""
        if self._said is None:
            self._said = asyncio.Queue()
            self._tasks.append(self._thread.begin(self._say_on(self._said)))
        parts = [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)] or [b""]
        self._count_unsaid(of, len(parts))
        while self.outgoing_is_full and self.alive:
            time.sleep(0.01)
        for number, part in enumerate(parts):
            one = (of, f"{kind} {self.me}-{message_id} {number} {len(parts)}", part)  # another sender's are others
            self._thread.loop.call_soon_threadsafe(self._said.put_nowait, one)

    async def _say_on(self, said: asyncio.Queue[tuple[str, str, bytes]]) -> None:
        while True:
            of, label, data = await said.get()
            while True:
                try:
                    await self.bus.publish(NETWORK_SUBJECT, data, label, label.replace(" ", "-"))
                except BusError as error:
                    self.faults.note(error)
                    if isinstance(error, MissingError):
                        with contextlib.suppress(BusError):
                            await self.bus.ensure_stream(NETWORK_SUBJECT)
                    await asyncio.sleep(LEASE_LOOK_S)
                else:
                    break
            self._count_unsaid(of, -1)

    @property
    def outgoing_is_full(self) -> bool:
        """Whether what is said would have to wait."""
        return sum(self._unsaid.values()) > SAID_MAX

    def _count_unsaid(self, of: str, more: int) -> None:
        with self._counting:
            self._unsaid[of] = self._unsaid.get(of, 0) + more

    def has_sent(self, of: str) -> bool:
        """Whether all that was said is on the bus."""
        return self._unsaid.get(of, 0) == 0


def newest_of(data: bytes) -> tuple[int, bytes]:
    """Token and value that `BusLink.put_newest` put; 0 and nothing of what is none, which anybody may replace."""
    head, mark, body = data.partition(b"\n")
    return (int(head), body) if mark and head.isdigit() else (0, b"")


def _readable(slot: str, data: bytes) -> Committed:
    """What is committed of a slot; where another release wrote it, nothing: all that is kept is read again."""
    try:
        return committed_of(data)
    except FormatError as error:
        _log.error("saved_state_not_read", slot=slot, error=str(error))
        return Committed()
