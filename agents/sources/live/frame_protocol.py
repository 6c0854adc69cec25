"""A sender of frames: dnstap over Frame Streams, with or without its handshake, or PowerDNS' protobuf.

The handshake is that of the Frame Streams library: READY is answered by ACCEPT, then START begins the stream; STOP ends
it and is answered by FINISH. A stream that begins with START is one-way, and nothing is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import structlog

from agents.core.text import printable
from agents.sources.dnstap import DNSTAP, START
from agents.sources.dnstap import dnstap_kernels as kernels
from agents.sources.dnstap.merging_kernels import Merger

HOLD_S = 2.5
"""Rows are held so long: BIND and dnsdist flush frames after two seconds at most (measured)."""
HANDSHAKE_S = 10.0
"""A sender has so many seconds until its stream begins."""
FIRST_DATA_S = 300.0
"""Where no handshake begins a stream, its first data comes within so many seconds: syslog-ng and the Recursor connect
before they have anything to send."""
REFUSALS_S = 10.0
"""The log has one line in so many seconds about senders of an intake that were refused."""
NAMES_MAX = 100
"""Senders of an intake that are named; a sender chooses its name."""
OTHERS = "others"
"""The name of all further senders."""
ACCEPT, STOP, READY, FINISH = 1, 3, 4, 5
"""Types of control frames (FSTRM_CONTROL_…)."""
_CONTENT_TYPE = 1
IDENTITY_MAX = 64
"""Characters of a server's name that are kept."""
_IDENTITY_KEY = 0x0A
"""The key of field 1, identity, which servers write first."""
_log = structlog.get_logger()


class FrameSink(Protocol):
    """Where frames go."""

    merger: Merger

    def make_room(self) -> None:
        """Give rows on, since none is free."""
        ...


class BadStreamError(Exception):
    """A sender does not speak as it should; the connection is ended."""


def control_frame(kind: int, content_type: bytes = b"") -> bytes:
    """One control frame."""
    field = _CONTENT_TYPE.to_bytes(4) + len(content_type).to_bytes(4) + content_type if content_type else b""
    return bytes(4) + (4 + len(field)).to_bytes(4) + kind.to_bytes(4) + field


def read_control(frame: bytes) -> tuple[int, list[bytes]]:
    """Type and content types of a control frame without its escape and length. Raises BadStreamError."""
    kind, at, found = int.from_bytes(frame[:4]), 4, []
    if len(frame) < 4:
        raise BadStreamError("a control frame is cut off")
    while at < len(frame):
        field, size = int.from_bytes(frame[at : at + 4]), int.from_bytes(frame[at + 4 : at + 8])
        if at + 8 + size > len(frame) or len(frame) - at < 8:
            raise BadStreamError("a control frame is cut off")
        if field == _CONTENT_TYPE:
            found.append(frame[at + 8 : at + 8 + size])
        at += 8 + size
    return kind, found


class FrameProtocol(asyncio.Protocol):
    """One connection of a sender. framing: kernels.FRAME_STREAMS or POWERDNS."""

    def __init__(
        self, framing: int, sink: FrameSink, heard: FrameCounts, peer: str, left: Callable[[FrameProtocol], None]
    ) -> None:
        """left: called when the connection has ended."""
        self._framing, self._sink, self._heard, self._peer, self._left = framing, sink, heard, peer, left
        self._buffer, self._need = bytearray(), 1
        self._scan = kernels.new_scan(sink.merger)
        self._answers = self._begun = False
        self._sender = -1
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The sender is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._framing == kernels.FRAME_STREAMS:
            self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_S, self._give_up)
        else:
            self._timer = asyncio.get_running_loop().call_later(FIRST_DATA_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """The sender is gone."""
        if self._timer:
            self._timer.cancel()
        self._count()
        self._left(self)

    def close(self) -> None:
        """End the connection."""
        if self._transport:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take whole frames; what is left waits for more."""
        if not self._begun and self._framing != kernels.FRAME_STREAMS:
            self._begin(self._peer)
        self._buffer += data
        if len(self._buffer) < self._need:  # of a long frame that comes in small pieces: no look at each
            return
        try:
            self._take(bytes(self._buffer))
        except BadStreamError as error:
            self._heard.refuse(self._peer, str(error))
            self.close()
            self._buffer.clear()

    def _take(self, data: bytes) -> None:
        numbers, view = self._scan.numbers, np.frombuffer(data, np.uint8)
        numbers[kernels.AT] = 0
        while True:
            self._know_sender(data)
            reason = kernels.scan_frames(
                self._scan, view, len(data), self._framing, max(self._sender, 0), time.time(), HOLD_S
            )
            if reason == kernels.CONTROL:
                if self._take_control(data[numbers[kernels.FRAME] : numbers[kernels.FRAME_END]]):
                    return
            elif reason == kernels.FULL:
                self._sink.make_room()
            else:
                break
        if reason == kernels.HUGE:
            raise BadStreamError(f"a frame of {int(numbers[kernels.CLAIMED])} bytes")
        at = int(numbers[kernels.AT])
        del self._buffer[:at]
        head = 4 if self._framing == kernels.FRAME_STREAMS else 2
        left = len(self._buffer)
        self._need = head + int.from_bytes(self._buffer[:head]) if left >= head else head
        self._need = min(max(self._need, left + 1), kernels.DNSTAP_FRAME_MAX + 8)
        self._count()

    def _know_sender(self, data: bytes) -> None:
        """Find who sends, by the first frame; refuse frames before the stream has begun."""
        at = int(self._scan.numbers[kernels.AT])
        if (
            self._framing != kernels.FRAME_STREAMS
            or self._sender >= 0
            or len(data) < at + 4
            or not any(data[at : at + 4])
        ):
            return
        if not self._begun:
            raise BadStreamError("a data frame comes before the stream has begun")
        if len(data) < at + 4 + int.from_bytes(data[at : at + 4]):
            return
        name = ""
        if data[at + 4] == _IDENTITY_KEY and data[at + 5] < 0x80:
            name = data[at + 6 : at + 6 + data[at + 5]].decode("utf-8", "replace")
        self._begin(f"{name} ({self._peer})" if name else self._peer)

    def _begin(self, name: str) -> None:
        self._begun = True
        if self._timer:
            self._timer.cancel()
        self._sender = self._heard.sender(printable(name, IDENTITY_MAX))

    def _take_control(self, frame: bytes) -> bool:
        """Take a control frame; True where it ends the stream. Raises BadStreamError."""
        kind, types = read_control(frame)
        if kind == STOP and self._begun:
            if self._answers and self._transport:
                self._transport.write(control_frame(FINISH))
            self._count()
            self.close()
            return True
        if kind == READY and not self._answers and not self._begun:
            self._check(types)
            self._answers = True
            if self._transport:
                self._transport.write(control_frame(ACCEPT, DNSTAP))
        elif kind == START and not self._begun:
            self._check(types)
            self._begun = True
            if self._timer:
                self._timer.cancel()
        else:
            raise BadStreamError(f"a control frame of type {kind} is out of place")
        return False

    @staticmethod
    def _check(types: list[bytes]) -> None:
        if types and DNSTAP not in types:
            raise BadStreamError(f"it sends {printable(types[0].decode('latin-1'), IDENTITY_MAX)}, not dnstap")

    def _give_up(self) -> None:
        if not self._begun:
            self._heard.refuse(self._peer, "no stream began")
            self.close()

    def _count(self) -> None:
        """Add what this connection has counted to what was heard of the intake."""
        numbers, heard = self._scan.numbers, self._heard
        heard.frames += int(numbers[kernels.FRAMES])
        heard.others += int(numbers[kernels.OTHERS])
        heard.malformed += int(numbers[kernels.DAMAGED])
        if numbers[kernels.DAMAGED] and not heard.first_bad:
            heard.first_bad = kernels.DAMAGES.get(int(numbers[kernels.DAMAGE]), "")
        numbers[kernels.FRAMES] = numbers[kernels.OTHERS] = numbers[kernels.DAMAGED] = 0


class FrameCounts:
    """What the connections of one intake counted. numbers: that its senders have in the merger, at least one."""

    def __init__(self, name: str, numbers: Sequence[int] = (0,)) -> None:
        self.name, self.numbers = name, numbers
        self.frames = self.others = self.malformed = self.refused = 0
        self.first_bad = ""
        self.senders: dict[str, int] = {}
        self._untold, self._tell_at = 0, 0.0

    def sender(self, name: str) -> int:
        """The number of a sender, each of its own; the last one is that of all who find none."""
        if name not in self.senders:
            named = min(len(self.numbers) - 1, NAMES_MAX)
            name, at = (name, len(self.senders)) if len(self.senders) < named else (OTHERS, -1)
            self.senders.setdefault(name, self.numbers[at])
        return self.senders[name]

    def refuse(self, sender: object, reason: str) -> None:
        """Count a sender that is not heard; the log says it now and then."""
        self.refused += 1
        self._untold += 1
        now = time.monotonic()
        if now < self._tell_at:
            return
        more = {"more": self._untold - 1} if self._untold > 1 else {}
        _log.warning("sender_refused", intake=self.name, sender=printable(sender), reason=reason, **more)
        self._untold, self._tell_at = 0, now + REFUSALS_S
