"""One pcap or pcapng file as a Source: reads the file, has the kernels walk it, and puts TCP streams together."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np

from agents.core.errors import CaptureError
from agents.core.text import counted
from agents.core.types import QueryBatch
from agents.sources.capture import capture_kernels as kernels
from agents.sources.capture import is_capture
from agents.sources.capture.capture_kernels import (
    AT,
    BAD_BLOCK,
    BIG,
    BLOCKS,
    CLAIMED,
    COPIES,
    CUT,
    FRAME,
    FRAME_END,
    FRAMES,
    FULL,
    HUGE,
    INTERFACE,
    INTERFACES,
    LINK,
    MALFORMED,
    MORE,
    NO_MAGIC,
    UNIT,
    WAITING,
)
from agents.sources.capture.frame_kernels import (
    hides_queries,
    reason_text,
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
from agents.sources.capture.walk import Buffer, FrameWalk, buffer_of
from agents.sources.intake import FileSource
from agents.stream.record import RECORD, batch_of_records

_CHUNK = 1 << 22
"""Bytes read at once."""
_PORTS_SHOWN = 5
"""Other ports named in a warning, those with the most queries."""


class PcapSource(FileSource):
    """DNS queries in one capture (also compressed), joined with their answers, in time order.

    ports: UDP and TCP ports that carry DNS; on others, queries are known by their content. Raises CaptureError unless
    the file begins as a capture; later damage is in `warnings` once the batches have been read.
    """

    def __init__(self, path: Path, ports: AbstractSet[int]) -> None:
        super().__init__(path)
        self._frames = FrameWalk(ports)
        self._walk, self._numbers = self._frames.walk, self._frames.numbers
        self._queries = 0

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
        self._warn_of_losses()

    def _warn_of_losses(self) -> None:
        """Warn of what was not read, read in part or read otherwise than it lay there."""
        if cut := self._numbers[CUT]:
            self._warn(f"{counted(cut, 'message')} cut by the capture's snapshot length")
        if self._frames.streams.lost:
            self._warn(
                f"{counted(self._frames.streams.lost, 'gap')} in TCP streams: segments are missing from the capture"
            )
        if self._frames.fragments.incomplete:
            self._warn(f"{counted(self._frames.fragments.incomplete, 'fragmented packet')} incomplete")
        if copies := self._numbers[COPIES] + self._frames.streams.copied:
            self._warn(
                f"{counted(copies, 'message')} captured twice, on both sides of a router or a mirror; counted once"
            )
        others = np.asarray(self._walk.others)
        if found := int(others.sum()):
            ports = np.argsort(-others, kind="stable")[: min(_PORTS_SHOWN, int((others > 0).sum()))]
            shown = ", ".join(f"{port} ({others[port]:,})" for port in ports.tolist())
            self._warn(f"{counted(found, 'query')} on other ports, known by their content: {shown}")
        skipped = np.asarray(self._walk.skipped)
        reasons = [
            f"{counted(skipped[reason], 'frame')} {reason_text(reason)}"
            for reason in np.flatnonzero(skipped).tolist()
            if self._queries == 0 or hides_queries(reason)
        ]
        if self._queries == 0 and (frames := self._numbers[FRAMES]):
            self._warn(f"no query in {counted(frames, 'frame')}" + (f": {', '.join(reasons)}" if reasons else ""))
        elif reasons:
            self._warn(f"not read: {', '.join(reasons)}")

    def _read(self, stream: io.BufferedReader, size: int) -> Generator[QueryBatch, None, str]:
        """Walk the file; the generator's value is why it could not be read to its end, or ""."""
        joiner = self._frames.joiner
        out, written = np.zeros(size, RECORD), 0
        data, damage = self._begin(stream), ""
        while True:
            reason, written = self._frames.scan(data, out, written)
            if reason == FULL:
                self._queries += written
                yield batch_of_records(out)
                written = 0
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
                data = buffer_of(rest + more)
                self._numbers[AT] = 0
        self._frames.finish()
        while joiner.numbers[WAITING] or written:
            written = kernels.ready(joiner, np.inf, out, written)
            self._queries += written
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
        return buffer_of(stream.read(_CHUNK))

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
