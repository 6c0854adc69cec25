"""A receiver of live intakes in a thread, with the ring that it puts into; and senders of Frame Streams."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.types import QueryBatch
from agents.sources import SPECS as INTAKES
from agents.sources.collector import RECEIVED
from agents.sources.dnstap import DNSTAP
from agents.sources.live.addresses import RECEIVE, parse_live, tls_context
from agents.sources.live.frame_protocol import READY, STOP, control_frame
from agents.sources.live.receiver import LiveReceiver, Receiving
from agents.sources.live.sockets import open_sockets
from agents.sources.logs import SPECS as LOGS
from agents.stream.record import batch_of_records
from agents.stream.rings import Rings
from tests.support.patience import patient

LINES = tuple(kind.name for kind in LOGS)
ANYWHERE = ("127.0.0.0/8", "::1/128")


class Heard:
    """A running receiver, and what it has put."""

    def __init__(self, receiver: LiveReceiver, rings: Rings, state_dir: Path) -> None:
        self.receiver, self.state_dir = receiver, state_dir
        (self.ring,) = rings.rings

    def records(self, count: int, timeout_s: float = 20.0) -> NDArray[np.void]:
        """All that was put, once that are so many. Raises TimeoutError."""
        end = time.monotonic() + patient(timeout_s)
        while self.ring.waiting < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.ring.waiting} of {count} queries came")
            time.sleep(0.01)
        return self.ring.peek(self.ring.capacity).copy()

    def told(self, name: str) -> dict[str, Any]:
        """What is saved of an intake, empty before there is anything."""
        try:
            return dict(json.loads((self.state_dir / RECEIVED).read_bytes())[name])
        except FileNotFoundError:
            return {}

    def batch(self, count: int, timeout_s: float = 20.0) -> QueryBatch:
        """The same as columns."""
        return batch_of_records(self.records(count, timeout_s))


def receiving_of(names: Sequence[str], state_dir: Path, format: str = "auto", **settings: Any) -> Receiving:
    """What to hear. settings: of RECEIVE, by name."""
    values: Mapping[str, Any] = RECEIVE.values(settings)
    addresses = [parse_live(name, LINES) for name in names]
    tls = tls_context(values) if any(one.transport == "tls" for one in addresses) else None
    options = {field.name: field.default for kind in INTAKES for field in kind.fields}
    allowed = str(values["receive_allowed"]).split(",") if values["receive_allowed"] else ANYWHERE
    return Receiving(addresses, state_dir, allowed, [53], values, options, format, tls)


@contextmanager
def receiver_at(
    *names: str,
    state_dir: Path,
    capacity: int = 1 << 16,
    format: str = "auto",
    later: bool = False,
    **settings: Any,
) -> Iterator[Heard]:
    """A receiver of these addresses; at the end it is stopped, and has put all that it heard.

    later: see open_socket.
    """
    receiving = receiving_of(names, state_dir, format, **settings)
    sockets = open_sockets(receiving.addresses, receiving.values, receiving.ports, later)
    ring = Rings(memoryview(bytearray(Rings.size_of(1, capacity))), capacity)
    receiver = LiveReceiver(receiving, sockets, ring)
    stop, ready, loop = asyncio.Event(), threading.Event(), asyncio.new_event_loop()
    work = threading.Thread(
        target=lambda: loop.run_until_complete(receiver.run(stop, ready.set, lambda: None)), daemon=True
    )
    work.start()
    assert ready.wait(patient(20.0))
    try:
        yield Heard(receiver, ring, state_dir)
    finally:
        loop.call_soon_threadsafe(stop.set)
        work.join(patient(20.0))
        loop.close()
        for one in sockets:
            one.end()


def framed(*frames: bytes) -> bytes:
    """Data frames of Frame Streams."""
    return b"".join(len(frame).to_bytes(4) + frame for frame in frames)


class FrameSender:
    """A sender of dnstap that shakes hands, at a connected socket."""

    def __init__(self, sock: socket.socket, both_ways: bool = True) -> None:
        self.sock, self._both_ways = sock, both_ways
        self.sock.settimeout(patient(10.0))
        if both_ways:
            self.sock.sendall(control_frame(READY, DNSTAP))
            self.accepted = self._control()
        self.sock.sendall(control_frame(2, DNSTAP))

    def _control(self) -> bytes:
        head = self._exactly(8)
        return self._exactly(int.from_bytes(head[4:]))

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self.sock.recv(size - len(found))
            if not more:
                raise EOFError
            found += more
        return found

    def send(self, *frames: bytes) -> None:
        """Send data frames."""
        self.sock.sendall(framed(*frames))

    def stop(self) -> bytes:
        """End the stream; the answer to that, b"" where the connection is one-way."""
        self.sock.sendall(control_frame(STOP))
        with closing(self.sock):
            return self._control() if self._both_ways else self.sock.recv(1)
