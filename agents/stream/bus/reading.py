"""Streams of the bus as they are read: in order, without gaps, and again from where a connection broke."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from agents.stream.bus.jetstream import LABEL, RETRY_S, Bus, BusError, MissingError, site_of
from agents.stream.bus.protocol import StreamPosition, follows, position_in

READ_AHEAD = 32
"""Messages of one stream that wait in memory, at most."""
IDLE_S = 2.0
"""A stream without messages is looked at so often: its consumer may be gone."""


class Received(NamedTuple):
    """A message. reader: which one read it. label: its header, "" = none. site: whose subject it came on. newest:
    sequence of the last message of its stream, as far as known."""

    stream: str
    reader: int
    position: StreamPosition
    label: str
    site: str
    data: bytes
    newest: int


class StreamReader:
    """Reads one stream from a position on and hands over each message; `done` makes room for the next."""

    def __init__(
        self,
        bus: Bus,
        subject: str,
        number: int,
        position: StreamPosition,
        hand_over: Callable[[Received], None],
        note: Callable[[BusError | None], None],
    ) -> None:
        """number: of this reader. note: told of what does not succeed, and of None when something does."""
        self._bus, self._subject, self.number, self.position = bus, subject, number, position
        self._hand_over, self._note = hand_over, note
        self._room = asyncio.Semaphore(READ_AHEAD)
        self.newest = position.sequence
        self.gaps = 0
        self._began = StreamPosition()

    def done(self) -> None:
        """A message was dealt with."""
        self._room.release()

    async def run(self) -> None:
        """Read until it is cancelled."""
        while True:
            try:
                await self._read()
            except MissingError as error:
                self._note(error)
                await self._made_again()
            except BusError as error:
                self._note(error)
                await asyncio.sleep(RETRY_S)

    async def _made_again(self) -> None:
        try:
            await self._bus.ensure_stream(self._subject)
        except BusError as error:
            self._note(error)
        await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        """Read by one consumer until it skips something, or says nothing though there is something.

        Where the one before came no further, the next message is fetched by itself: the client takes one whose header
        says `Status` for a word of the server's, and keeps it.
        """
        state = await self._bus.state(self._subject)
        self.position, self.newest = position_in(self.position, state.epoch, state.first), state.last
        if self.position == self._began and state.last > self.position.sequence:
            await self._pass_on(await self._bus.message(self._subject, self.position.sequence + 1))
        self._began = self.position
        consumer = await self._bus.consumer(self._subject, self.position.sequence)
        self._note(None)
        try:
            await self._follow(consumer)
        finally:
            await self._bus.end_consumer(consumer)

    async def _follow(self, consumer: Any) -> None:
        while True:
            messages = await self._bus.fetched(consumer, READ_AHEAD, IDLE_S)
            if not messages:
                state = await self._bus.state(self._subject)
                if state.epoch != self.position.epoch or state.last > self.position.sequence:
                    return
            for message in messages:
                sequence = int(message.metadata.sequence.stream)
                if not follows(self.position, sequence):
                    self.gaps += 1
                    return
                self.newest = sequence + int(message.metadata.num_pending)
                await self._pass_on(message)

    async def _pass_on(self, message: Any) -> None:
        """Hand over the message behind the last one."""
        await self._room.acquire()
        self.position = StreamPosition(self.position.epoch, self.position.sequence + 1)
        label, data = (message.headers or {}).get(LABEL, ""), message.data or b""
        site = site_of(message.subject)
        self._hand_over(Received(self._subject, self.number, self.position, label, site, data, self.newest))
