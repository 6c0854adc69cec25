"""dnstap in files of Frame Streams (`.fstrm`): whole messages with their times, of clients alone."""

from __future__ import annotations

import io
import math
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np

from agents.core.text import counted
from agents.core.types import QueryBatch
from agents.sources.dnstap.dnstap_kernels import (
    AT,
    CLAIMED,
    CONTROL,
    DAMAGE,
    DAMAGED,
    DAMAGES,
    FIRST_DAMAGED,
    FRAME_STREAMS,
    FRAMES,
    FULL,
    HUGE,
    OTHERS,
    new_scan,
    scan_frames,
)
from agents.sources.dnstap.merging_kernels import WAITING, give, new_merger
from agents.sources.intake import FileSource
from agents.sources.pairs import PAIR_WAIT_S
from agents.stream.record import RECORD, batch_of_records

_CHUNK = 1 << 20
"""Bytes read at once."""
_ROWS_MAX = 65_536
"""Rows that wait for their other halves, at most; the oldest goes first."""


class DnstapSource(FileSource):
    """One file of Frame Streams, plain or compressed. Answers alone suffice; queries count where no answer came.

    A frame that cannot be read is counted in `malformed`, and a warning names the first one; damage of the framing ends
    the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._scan = new_scan(new_merger((secrets.randbits(64), secrets.randbits(64))))

    def check(self, stream: io.BufferedReader) -> None:
        """Any content is tried: a file that was rotated in the middle of a stream begins with a data frame."""

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield batches of `size` queries, the last one shorter."""
        queries = 0
        with self._open() as stream:
            rows = self._read(stream, size)
            damage = ""
            while True:
                try:
                    batch = next(rows)
                except StopIteration as end:
                    damage = end.value
                    break
                queries += len(batch)
                yield batch
        self._warn_of_damage(damage)
        self._warn_of_frames(queries)

    def _read(self, stream: io.BufferedReader, size: int) -> Generator[QueryBatch, None, str]:
        """Walk the file; the generator's value is why it could not be read to its end, or ""."""
        scan, numbers, merger = self._scan, self._scan.numbers, self._scan.merger
        out, written, data, damage = np.zeros(size, RECORD), 0, b"", ""
        while True:
            reason = scan_frames(scan, _bytes(data), len(data), FRAME_STREAMS, 0, math.nan, PAIR_WAIT_S)
            while True:
                written = give(merger, float(merger.newest[0]), PAIR_WAIT_S, _ROWS_MAX, out, written)
                if written < size:
                    break
                yield batch_of_records(out)
                written = 0
            if reason in (CONTROL, FULL):
                continue
            rest = data[numbers[AT] :]
            if reason == HUGE:
                damage = f"a frame of {int(numbers[CLAIMED])} bytes"
                break
            if not (more := stream.read(_CHUNK)):
                damage = "the last frame is cut off" if rest else ""
                break
            data, numbers[AT] = rest + more, 0
        while merger.numbers[WAITING] or written:
            written = give(merger, math.inf, PAIR_WAIT_S, _ROWS_MAX, out, written)
            yield batch_of_records(out[:written])
            written = 0
        return damage

    def _warn_of_frames(self, queries: int) -> None:
        """Warn of frames that could not be read, and where there is no query."""
        numbers = self._scan.numbers
        frames, others = (counted(int(numbers[at]), "frame") for at in (FRAMES, OTHERS))
        self.malformed = int(numbers[DAMAGED])
        first = f"frame {numbers[FIRST_DAMAGED]}: {DAMAGES.get(int(numbers[DAMAGE]), '')}"
        if self.malformed and not queries:
            self.errors.append(f"cannot read {self._path}: no query in {frames}; {first}")
        elif self.malformed:
            self._warn(f"{counted(self.malformed, 'frame')} could not be read; the first: {first}")
        elif not queries:
            self._warn(f"no query in {frames}")
        if numbers[OTHERS] and not queries:
            self._warn(f"{others} of other kinds: CLIENT_QUERY and CLIENT_RESPONSE are read")


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)
