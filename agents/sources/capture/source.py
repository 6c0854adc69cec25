"""Captures as a Source: pcap and pcapng files, tables, and several of them one after the other."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from pathlib import Path
from typing import Literal

from agents.core.errors import CaptureError, MessageError
from agents.core.jit import COMPILED
from agents.core.types import QueryBatch, Row, batch_of
from agents.sources.capture.join import Joiner
from agents.sources.capture.kernels import Scan
from agents.sources.capture.packets import KNOWN, UDP, Segment, Streams, segment
from agents.sources.capture.pcap import PCAP_MAGICS, PCAPNG_MAGIC, Damage, Frame, frames
from agents.sources.files import Position, open_bytes
from agents.sources.table import TsvSource, is_table

Format = Literal["auto", "pcap", "tsv"]


class PcapSource:
    """DNS queries in one pcap or pcapng file (also gzip), joined with their answers, in time order.

    ports: UDP and TCP ports that carry DNS; compiled: by kernels, with the same result. Raises CaptureError unless
    the file begins as a capture; what is damaged later is told in `warnings`, once the batches have been read.
    """

    def __init__(self, path: Path, ports: AbstractSet[int], compiled: bool = COMPILED) -> None:
        self._path, self._ports = path, ports
        self.malformed = 0
        self.warnings: list[str] = []
        self._joiner: Joiner | Scan = Scan(ports) if compiled else Joiner()
        self._streams = Streams()
        self._cut = self._unknown_link = 0
        if detect(path) != "pcap":
            raise CaptureError(f"cannot read {path}: not a pcap or pcapng file")
        self.position = Position(path)

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield batches of `size` queries, the last one shorter."""
        stream, inflated = open_bytes(self._path)
        self.position.follow(stream, inflated)
        damage = Damage()
        with stream:
            if isinstance(self._joiner, Scan):
                yield from self._joiner.batches(stream, size, damage, self._take)
                self.malformed += self._joiner.malformed
                self._cut += self._joiner.cut
                self._unknown_link += self._joiner.unknown_link
            else:
                rows = self._rows(self._joiner, stream, damage)
                while chunk := list(islice(rows, size)):
                    yield batch_of(chunk)
        self._warn((inflated.damage if inflated else "") or damage.text)

    def _rows(self, joiner: Joiner, stream: io.BufferedReader, damage: Damage) -> Iterator[Row]:
        for frame in frames(stream, damage):
            self._take(frame)
            yield from joiner.ready(frame.ts)
        yield from joiner.rest()

    def _take(self, frame: Frame) -> None:
        part = segment(frame.link, frame.data)
        if part is None:
            self._unknown_link += frame.link not in KNOWN
            return
        if part.sport not in self._ports and part.dport not in self._ports:
            return
        if part.proto == UDP:
            self._message(frame, part, part.payload, part.size)
            return
        for message in self._streams.messages(part):
            self._message(frame, part, message, len(message))

    def _message(self, frame: Frame, part: Segment, message: bytes, size: int) -> None:
        """Count what is no DNS message; QR tells queries and answers apart where both ports are DNS."""
        try:
            if len(message) < 3:
                raise MessageError("cannot read message: shorter than a header")
            if message[2] & 0x80:
                if part.sport in self._ports:
                    self._joiner.answer(frame.ts, part.dst, part.dport, part.src, message, size)
            elif part.dport in self._ports and not message[2] & 0x78:
                self._joiner.query(frame.ts, part.src, part.sport, part.dst, message, size)
        except MessageError:
            self.malformed += 1
            self._cut += not frame.whole

    def _warn(self, damage: str) -> None:
        if damage:
            self.warnings.append(f"{self._path}: {damage}; what came before was used")
        if self._cut:
            self.warnings.append(f"{self._path}: {self._cut} messages were cut by the capture's snapshot length")
        if self._unknown_link:
            self.warnings.append(f"{self._path}: {self._unknown_link} frames of an unknown link layer")
        if self._streams.lost:
            self.warnings.append(f"{self._path}: {self._streams.lost} TCP streams had gaps")


class Sources:
    """Several sources, one after the other; batches do not span two of them."""

    def __init__(self, sources: Iterable[PcapSource | TsvSource]) -> None:
        self._sources = list(sources)
        self.malformed = 0
        self.warnings: list[str] = []

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(source.position.size for source in self._sources)

    @property
    def done(self) -> int:
        """Bytes that have been read, as they lie on the disk."""
        return sum(source.position.done for source in self._sources)

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield the batches of each source; `malformed` and `warnings` grow as sources end."""
        for source in self._sources:
            yield from source.batches(size)
            self.malformed += source.malformed
            self.warnings.extend(source.warnings)


def detect(path: Path) -> Literal["pcap", "tsv"]:
    """The format by content. Raises CaptureError if the file cannot be read or is neither."""
    stream, _ = open_bytes(path)
    with stream:
        magic = stream.peek(4)[:4]
        if magic == PCAPNG_MAGIC or magic in PCAP_MAGICS:
            short = len(stream.read(24)) < 24
            if short:
                raise CaptureError(f"cannot read {path}: the file header is cut off")
            return "pcap"
        if is_table(stream):
            return "tsv"
    raise CaptureError(f"cannot read {path}: neither a capture nor a table with ts, client, qname and qtype")


def open_source(paths: Sequence[Path], format: Format, ports: AbstractSet[int]) -> Sources:
    """A source over files in the order given. Raises CaptureError for any bad file before reading one."""
    return Sources([_open(path, format, ports) for path in paths])


def _open(path: Path, format: Format, ports: AbstractSet[int]) -> PcapSource | TsvSource:
    kind = detect(path) if format == "auto" else format
    return PcapSource(path, ports) if kind == "pcap" else TsvSource(path)
