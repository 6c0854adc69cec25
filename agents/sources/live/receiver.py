"""Reads live intakes at once into a ring: what a receiver process does. It never waits for who judges.

A server that writes dnstap drops frames as soon as its reader falls behind, and says so nowhere; so nothing here waits
for room. What finds none in the ring is counted there, and who sends the most loses first.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.types import QueryBatch
from agents.dns.drill import DRILL_REQUEST, injected, requested
from agents.dns.message_kernels import KEY
from agents.sources.collector import RECEIVED, Heard, packable_rows, saved_states
from agents.sources.dnstap.dnstap_kernels import FRAME_STREAMS, POWERDNS
from agents.sources.dnstap.merging_kernels import (
    AHEAD,
    LATE,
    POOL,
    QUERIES,
    SENDERS,
    UNASKED,
    WAITING,
    give,
    new_merger,
)
from agents.sources.live.addresses import PACKET, LiveAddress
from agents.sources.live.doors import Doorkeeper, keep_alive
from agents.sources.live.frame_protocol import HANDSHAKE_S, HOLD_S, FrameCounts, FrameProtocol
from agents.sources.live.loss import SenderLoss
from agents.sources.live.packets import PacketReader, packet_options
from agents.sources.live.sockets import LiveSocket, open_socket
from agents.sources.live.syslog_protocol import SyslogDatagrams, SyslogLines, SyslogStream
from agents.sources.origins import origin_numbers
from agents.stream.answer_key import ANSWERS
from agents.stream.note import NOTE_MAX, SharedNote
from agents.stream.record import RECORD
from agents.stream.rings import Rings

GIVE_S = 0.05
"""Rows are given on so often."""
TELL_S = 1.0
RETRY_S = 5.0
"""What could not be opened is tried again so often."""
ROWS_MAX = POOL - (1 << 14)
"""Rows that are held, at most; a block of frames finds room beside them."""
_OUT_ROWS = 4096
_TURN_BLOCKS = 16
"""Blocks of one interface that are read before others have their turn."""
_SO_MEMINFO, _MEMINFO_DROPS = 55, 8
"""Datagrams that found no room in the kernel (<linux/sock_diag.h>, SK_MEMINFO_DROPS), since the socket was made."""
_COUNT_BITS = 0xFFFFFFFF
_FRAMED = ("dnstap", "powerdns")
_log = structlog.get_logger()


@dataclass(frozen=True)
class Receiving:
    """What is heard live. options: values of the fields of RECEIVE, TLS and of the kinds of lines, by name."""

    addresses: Sequence[LiveAddress]
    state_dir: Path
    allowed: Sequence[str]
    ports: Sequence[int]
    values: Mapping[str, Any]
    options: Mapping[str, Any]
    format: str = "auto"
    tls: ssl.SSLContext | None = field(default=None, compare=False)
    note: SharedNote = field(default_factory=SharedNote)

    @property
    def names(self) -> list[str]:
        """The addresses as they were written."""
        return [address.name for address in self.addresses]

    def reported_at_start(self) -> dict[str, dict[str, Any]]:
        """What is known of each intake before it hears, by name; see HeardLive.to_json."""
        fixed = "" if self.format == "auto" else self.format
        return {
            one.name: {"kind": one.kind, "senders": {}, "lines": [kind] if (kind := one.format or fixed) else []}
            for one in self.addresses
        }


class HeardLive(Heard):
    """What was heard at one address. numbers: of its senders in the merger. goes_on: its socket is that of `saved`."""

    def __init__(
        self, address: LiveAddress, saved: Mapping[str, Any], numbers: Sequence[int], goes_on: bool = False
    ) -> None:
        super().__init__(saved)
        self.name, self.address = address.name, address
        self.frames = FrameCounts(address.name, numbers)
        self.losses: dict[str, SenderLoss] = {}
        self.dropped = self.dropped_before = _whole(saved.get("dropped"))
        self._kernel_dropped = _whole(saved.get("kernel_dropped")) if goes_on else 0
        self.connections = self.late = self.ahead = self.passed_over = 0
        self.kinds: list[str] = []

    def note_drops(self, counted: int) -> None:
        """Take over what the kernel has counted since the socket was made, in 32 bits."""
        self.dropped += (counted - self._kernel_dropped) & _COUNT_BITS
        self._kernel_dropped = counted

    def to_json(self) -> dict[str, Any]:
        """What is saved, and shown by `doctor`."""
        told = super().to_json()
        told |= {"kind": self.address.kind, "kernel_dropped": self._kernel_dropped}
        live: dict[str, Any] = {
            "dropped": self.dropped,
            "connections": self.connections,
            "refused": self.frames.refused,
        }
        live |= {"late": self.late, "ahead": self.ahead, "passed_over": self.passed_over, "lines": self.kinds}
        senders = {name: loss.to_json() for name, loss in self.losses.items()}
        return {**told, **live, "first_bad": self.frames.first_bad, "senders": senders}


def _whole(found: object) -> int:
    return found if isinstance(found, int) and found >= 0 else 0


class LiveReceiver:
    """Hears all live intakes of one process."""

    def __init__(self, receiving: Receiving, sockets: Sequence[LiveSocket], ring: Rings) -> None:
        self._receiving, self._sockets, self._ring = receiving, sockets, ring
        self._path = receiving.state_dir / RECEIVED
        self._drilled = requested(receiving.state_dir / DRILL_REQUEST)
        self._heard = self._saved()
        self._doors = Doorkeeper(receiving.allowed, int(receiving.values["receive_connections_max"]))
        self.merger = new_merger((secrets.randbits(64), secrets.randbits(64)))
        for one in self._heard.values():
            if one.address.kind in _FRAMED:
                self.merger.origins[list(one.frames.numbers)] = one.origin
        self._out: NDArray[np.void] = np.zeros(_OUT_ROWS, RECORD)
        self._connections: set[FrameProtocol | SyslogStream] = set()
        self._opened: list[LiveSocket] = []
        self._servers: list[asyncio.Server] = []
        self._readers: list[tuple[PacketReader, HeardLive]] = []
        self._lines: list[tuple[SyslogLines, HeardLive, socket.socket | None]] = []
        self._failing = False
        self._told = dict[str, int]()

    def _saved(self) -> dict[str, HeardLive]:
        """What was heard before; each intake of frames has its part of the merger's numbers of senders."""
        noted = self._receiving.note.read()
        saved = saved_states(noted, self._path)
        part = SENDERS // max(sum(one.address.kind in _FRAMED for one in self._sockets), 1)
        heard, begin = dict[str, HeardLive](), 0
        for one in self._sockets:
            name = one.address.name
            goes_on = bool(noted) and one.sock is not None  # the note and the socket are of the same supervisor
            heard[name] = HeardLive(one.address, saved.get(name, {}), range(begin, begin + part), goes_on)
            begin += part * (one.address.kind in _FRAMED)
        for name, number in origin_numbers((), heard).items():
            heard[name].origin = number
        return heard

    async def run(self, stop: asyncio.Event, ready: Callable[[], None], beat: Callable[[], None]) -> None:
        """Hear until `stop` is set; what was heard by then is put."""
        for one in self._sockets:
            await self._hear(one)
        opening = asyncio.create_task(self._open_missing())
        ready()
        state_at = 0.0
        while not stop.is_set():
            beat()
            self._give(time.time())
            for lines, heard, _ in self._lines:
                self._put_batches(lines.taken(), lines, heard)
            busy = self._read_packets()
            if time.monotonic() >= state_at:
                state_at = time.monotonic() + TELL_S
                self._drill()
                self._note()
                self.merger.facts[KEY:] = ANSWERS.key
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0 if busy else GIVE_S)
            if opening.done():
                opening.result()
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening
        self._end()

    def _end(self) -> None:
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.close()
        for reader, heard in self._readers:
            reader.close(lambda rows, heard=heard: self._put(rows, heard))  # type: ignore[misc]
        for lines, heard, _ in self._lines:
            self._put_batches(lines.rest(), lines, heard)
        self._give(math.inf)
        self._note()
        for one in self._opened:
            one.end()

    # Opening.

    async def _open_missing(self) -> None:
        """Open what could not be opened at the start. Raises SettingsError."""
        receiving, missing = self._receiving, [one.address for one in self._sockets if one.sock is None]
        while missing:
            await asyncio.sleep(RETRY_S)
            for address in list(missing):
                opened = await asyncio.to_thread(open_socket, address, receiving.values, receiving.ports, later=True)
                if opened.sock is not None:
                    missing.remove(address)
                    self._opened.append(opened)
                await self._hear(opened)

    async def _hear(self, one: LiveSocket) -> None:
        loop, address, heard = asyncio.get_running_loop(), one.address, self._heard[one.address.name]
        heard.note(heard.name, one.error)
        if one.sock is None:
            return
        if address.kind == PACKET:
            options = packet_options(self._receiving.values)
            reader = PacketReader(one.sock, address.host, self._receiving.ports, options)
            self._readers.append((reader, heard))
            return
        if address.transport == "udp":
            lines = self._new_lines(heard, one.sock)
            await loop.create_datagram_endpoint(
                lambda: SyslogDatagrams(lines, self._doors.allows, time.monotonic, heard.frames.refuse),
                sock=one.sock.dup(),
            )
            return
        context = self._receiving.tls if address.transport == "tls" else None
        shared = self._new_lines(heard, None) if address.kind == "syslog" else None
        server = await loop.create_server(
            lambda: _Door(self, heard, shared),
            sock=one.sock.dup(),
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_S if context else None,
        )
        self._servers.append(server)

    def _new_lines(self, heard: HeardLive, sock: socket.socket | None) -> SyslogLines:
        kind = heard.address.format or self._receiving.format
        lines = SyslogLines(kind, self._receiving.options)
        self._lines.append((lines, heard, sock))
        return lines

    def admit(self, heard: HeardLive, lines: SyslogLines | None, peer: object) -> FrameProtocol | SyslogStream | None:
        """The reader of a connection from a peer, or None where it may not send."""
        host = str(peer[0]).partition("%")[0] if isinstance(peer, tuple) else ""
        if why := self._doors.admit(host):
            heard.frames.refuse(host or "unix", why)
            return None
        heard.connections += 1
        made: FrameProtocol | SyslogStream
        if lines is not None:
            made = SyslogStream(lines, host, time.monotonic, self._left(heard, host), heard.frames.refuse)
        else:
            framing = FRAME_STREAMS if heard.address.kind == "dnstap" else POWERDNS
            made = FrameProtocol(framing, self, heard.frames, host or "unix", self._left(heard, host))
        self._connections.add(made)
        return made

    def _left(self, heard: HeardLive, host: str) -> Callable[[Any], None]:
        def left(connection: Any) -> None:
            self._connections.discard(connection)
            self._doors.left(host)
            heard.connections -= 1

        return left

    # Rows.

    def make_room(self) -> None:
        """Give rows on, since none is free."""
        self._give(time.time())

    def _give(self, now: float) -> None:
        while self.merger.numbers[WAITING]:
            written = int(give(self.merger, now, HOLD_S, ROWS_MAX, self._out, 0))
            if written:
                self._ring.put(self._out[:written].tobytes())
            if written < len(self._out):
                return

    def _put(self, rows: NDArray[np.void], heard: HeardLive) -> None:
        if len(rows):
            rows["origin"] = heard.origin
            self._ring.put(rows.tobytes())
            heard.add(len(rows))

    def _put_batches(self, batches: Sequence[QueryBatch], lines: SyslogLines, heard: HeardLive) -> None:
        for batch in batches:
            heard.counted(batch, lines.malformed, lines.nameless)
            self._ring.put_rows(list(packable_rows(batch, heard.origin)))

    def _drill(self) -> None:
        """Put a drill's names into the ring, once where it is asked for."""
        drill = requested(self._receiving.state_dir / DRILL_REQUEST)
        if drill and drill != self._drilled:
            self._drilled = drill
            self._ring.put_rows(list(packable_rows(injected(drill, "receiver"))))

    def _read_packets(self) -> bool:
        """Read a turn's blocks of each interface; whether there may be more."""
        busy = False
        for reader, heard in self._readers:
            for _ in range(_TURN_BLOCKS):
                if not reader.read(lambda rows, heard=heard: self._put(rows, heard)):  # type: ignore[misc]
                    break
            else:
                busy = True
        return busy

    # What is told.

    def _note(self) -> None:
        for heard in self._heard.values():
            self._count_frames(heard)
        for reader, heard in self._readers:
            reader.tend()
            heard.note(heard.name, reader.error)
            reader.count()
            heard.dropped = heard.dropped_before + reader.dropped
            heard.counted(None, reader.malformed, 0)
            loss = heard.losses.setdefault(heard.address.host, SenderLoss())
            if loss.look_at_drops(reader.packets, reader.dropped, time.monotonic()):
                _log.warning("packets_lost", intake=heard.name, share=round(loss.share, 5))
        for lines, heard, sock in self._lines:
            self._put_batches(lines.due(time.monotonic()), lines, heard)
            heard.counted(None, lines.malformed, lines.nameless)
            heard.kinds, heard.passed_over = lines.kinds, lines.passed_over
            if sock is not None:
                heard.note_drops(_datagrams_dropped(sock))
        self._save(self._state())

    def _state(self) -> bytes:
        """What was heard, for the note and the file; without senders where that is too long for the note."""
        told = {name: heard.to_json() for name, heard in self._heard.items()}
        state = json.dumps(told).encode()
        if len(state) > NOTE_MAX:
            state = json.dumps({name: {**one, "senders": {}} for name, one in told.items()}).encode()
        return state

    def _save(self, state: bytes) -> None:
        self._receiving.note.write(state)
        try:
            write_atomic(self._path, state, PRIVATE_MODE)
        except OSError as error:
            if not self._failing:
                _log.warning("state_not_saved", path=str(self._path), error=str(error))
            self._failing = True
        else:
            self._failing = False

    def _count_frames(self, heard: HeardLive) -> None:
        """Queries of the frames of an intake since the last time, and what each sender lost."""
        frames, total = heard.frames, 0
        for name, number in frames.senders.items():
            counts = self.merger.counts[number].tolist()
            total += counts[QUERIES] + counts[UNASKED]
            loss = heard.losses.setdefault(name, SenderLoss())
            if loss.look(counts, time.monotonic()):
                _log.warning("frames_lost", intake=heard.name, sender=name, share=round(loss.share, 5))
        before = self._told.get(heard.name, 0)
        if total > before:
            heard.add(total - before)
            self._told[heard.name] = total
        if heard.address.kind in _FRAMED:
            heard.counted(None, frames.malformed, 0)
            heard.late = int(self.merger.numbers[LATE])
            heard.ahead = int(self.merger.numbers[AHEAD])


class _Door(asyncio.Protocol):
    """Lets a connection in, or not, when its peer is known."""

    def __init__(self, receiver: LiveReceiver, heard: HeardLive, lines: SyslogLines | None) -> None:
        self._receiver, self._heard, self._lines = receiver, heard, lines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection over, or end it."""
        assert isinstance(transport, asyncio.Transport)
        made = self._receiver.admit(self._heard, self._lines, transport.get_extra_info("peername"))
        if made is None:
            transport.abort()
            return
        keep_alive(transport)
        transport.set_protocol(made)
        made.connection_made(transport)


def _datagrams_dropped(sock: socket.socket) -> int:
    """Datagrams that found no room in the kernel; 0 where that is not known."""
    try:
        found = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
    except OSError:
        return 0
    numbers = np.frombuffer(found, np.uint32)
    return int(numbers[_MEMINFO_DROPS]) if len(numbers) > _MEMINFO_DROPS else 0
