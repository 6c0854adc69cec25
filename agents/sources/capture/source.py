"""One pcap or pcapng file as a Source: reads the file, has the kernels walk it, and puts TCP streams together."""

from __future__ import annotations

import io
import secrets
from collections.abc import Generator, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import CaptureError
from agents.core.jit import COMPILED
from agents.core.types import QueryBatch
from agents.sources.capture import capture_kernels as kernels
from agents.sources.capture import is_capture
from agents.sources.capture.capture_kernels import (
    AT,
    BAD_BLOCK,
    BIG,
    BLOCKS,
    CLAIMED,
    CUT,
    DPORT,
    FLAGS,
    FRAME,
    FRAME_END,
    FULL,
    HUGE,
    INTERFACE,
    INTERFACES,
    LINK,
    MALFORMED,
    MORE,
    NO_MAGIC,
    PAYLOAD,
    SEQ,
    SIZE,
    SPORT,
    STOP,
    TCP_SEGMENT,
    UNIT,
    UNKNOWN_LINK,
    WAITING,
)
from agents.sources.capture.pcap import (
    HEADER_BYTES,
    INTERFACES_MAX,
    NO_BYTE_ORDER,
    PCAP_MAGICS,
    PCAPNG_MAGIC,
    SECTION_ORDERS,
    TOO_MANY_INTERFACES,
    interface_of,
)
from agents.sources.capture.streams import Segment, Streams
from agents.sources.intake import FileSource
from agents.stream.record import RECORD, batch_of_records

_CHUNK = 1 << 22
"""Bytes read at once."""
Buffer = NDArray[np.uint8] | memoryview


def _buffer(content: bytes) -> Buffer:
    """Bytes as kernels take them; the interpreter reads a memoryview ten times faster than an array."""
    return np.frombuffer(content, np.uint8) if COMPILED else memoryview(content)


class PcapSource(FileSource):
    """DNS queries in one capture (also gzip), joined with their answers, in time order.

    ports: UDP and TCP ports that carry DNS. Raises CaptureError unless the file begins as a capture; later damage is in
    `warnings` once the batches have been read.
    """

    def __init__(self, path: Path, ports: AbstractSet[int]) -> None:
        super().__init__(path)
        carries = np.zeros(65_536, np.bool_)
        carries[list(ports)] = True
        self._walk, self._packet = kernels.new_walk(carries), kernels.packet_room()
        self._numbers = self._walk.numbers
        self._streams = Streams()

    def check(self, stream: io.BufferedReader) -> None:
        """Raise CaptureError unless the file begins as a capture does."""
        head = stream.read(HEADER_BYTES)
        if not is_capture(head):
            raise CaptureError(f"cannot read {self._path}: not a pcap or pcapng file")
        if len(head) < HEADER_BYTES:
            raise CaptureError(f"cannot read {self._path}: the file header is cut off")

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield batches of `size` queries, the last one shorter."""
        with self._open() as stream:
            damage = yield from self._read(stream, size)
        self.malformed += int(self._numbers[MALFORMED])
        self._warn_of_damage(damage)
        if cut := self._numbers[CUT]:
            self._warn(f"{cut} messages were cut by the capture's snapshot length")
        if unknown := self._numbers[UNKNOWN_LINK]:
            self._warn(f"{unknown} frames of an unknown link layer")
        if self._streams.lost:
            self._warn(f"{self._streams.lost} TCP streams had gaps")

    def _read(self, stream: io.BufferedReader, size: int) -> Generator[QueryBatch, None, str]:
        """Walk the file; the generator's value is why it could not be read to its end, or ""."""
        joiner = kernels.empty_joiner((secrets.randbits(64), secrets.randbits(64)))
        out, written = np.zeros(size, RECORD), 0
        data, damage = self._begin(stream), ""
        while True:
            reason, written = kernels.scan(self._walk, joiner, self._packet, data, out, written)
            if reason == FULL:
                yield batch_of_records(out)
                written = 0
            elif reason == TCP_SEGMENT:
                self._take_segment(joiner, data)
            elif reason == INTERFACE:
                if not self._add_interface(data):
                    damage = TOO_MANY_INTERFACES
                    break
            else:
                rest = data[self._numbers[AT] :].tobytes()
                more = stream.read(_CHUNK) if reason == MORE else b""
                if not more:
                    damage = self._damage(reason, rest)
                    break
                data = _buffer(rest + more)
                self._numbers[AT] = 0
        while joiner.numbers[WAITING] or written:
            written = kernels.ready(joiner, np.inf, out, written)
            yield batch_of_records(out[:written])
            written = 0
        return damage

    def _begin(self, stream: io.BufferedReader) -> Buffer:
        """Read the file header of a pcap; the first bytes after it."""
        magic = stream.peek(4)[:4]
        if magic == PCAPNG_MAGIC:
            self._numbers[BLOCKS] = 1
        else:
            head = stream.read(HEADER_BYTES)
            order, self._walk.times[UNIT] = PCAP_MAGICS[magic]
            self._numbers[BIG] = order == ">"
            # The upper bits of the link type field hold the length of a frame check sequence.
            self._numbers[LINK] = int.from_bytes(head[20:24], "big" if order == ">" else "little") & 0xFFFF
        return _buffer(stream.read(_CHUNK))

    def _take_segment(self, joiner: kernels.Joiner, data: Buffer) -> None:
        """Add the TCP segment that the walk stopped at to its stream, and take the messages it completes."""
        packet, numbers = self._packet, self._packet.numbers
        segment = Segment(
            bytes(packet.source),
            int(numbers[SPORT]),
            bytes(packet.destination),
            int(numbers[DPORT]),
            int(numbers[SEQ]),
            int(numbers[FLAGS]),
            data[numbers[PAYLOAD] : numbers[STOP]].tobytes(),
        )
        for message in self._streams.messages(segment):
            numbers[PAYLOAD], numbers[STOP] = 0, len(message)
            numbers[SIZE] = len(message)
            kernels.take_message(self._walk, joiner, packet, _buffer(message))

    def _add_interface(self, data: Buffer) -> bool:
        """Take the interface block that the walk stopped at; False if it is too short or one too many."""
        body = data[self._numbers[FRAME] : self._numbers[FRAME_END]].tobytes()
        number = int(self._numbers[INTERFACES])
        if len(body) < 8 or number >= INTERFACES_MAX:
            return False
        found, walk = interface_of(body, ">" if self._numbers[BIG] else "<"), self._walk
        walk.links[number], walk.snaps[number] = found.link, found.snap
        walk.units[number], walk.offsets[number] = found.unit, found.offset
        self._numbers[INTERFACES] = number + 1
        return True

    def _damage(self, reason: int, rest: bytes) -> str:
        """Why the walk ended before `rest`; "" at the file's end."""
        claimed = int(self._numbers[CLAIMED])
        if reason == HUGE:
            return f"a record claims {claimed} bytes"
        if reason == BAD_BLOCK:
            return f"a block claims {claimed} bytes"
        if reason == NO_MAGIC or (rest[:4] == PCAPNG_MAGIC and rest[8:12] not in SECTION_ORDERS):
            return NO_BYTE_ORDER
        return f"the last {'block' if self._numbers[BLOCKS] else 'record'} is cut off" if rest else ""
