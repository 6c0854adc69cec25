"""A capture read by compiled kernels: the same queries and the same damage as pcap.py and join.py find, faster."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet

import numpy as np

from agents.errors import MessageError
from agents.kernels import capture, joining, packets
from agents.records import RECORD, batch_of_records, mapped
from agents.sources.pcap import (
    NO_BYTE_ORDER,
    PCAP_MAGICS,
    PCAPNG_MAGIC,
    SECTION_ORDERS,
    TOO_MANY_INTERFACES,
    Damage,
    Frame,
    interface_of,
)  # fmt: skip
from agents.types import QueryBatch

_CHUNK = 1 << 22
"""Bytes read at once."""


class Scan:
    """Walks one capture and joins its messages; `query` and `answer` are those of join.Joiner, for DNS over TCP."""

    def __init__(self, ports: AbstractSet[int]) -> None:
        carries = np.zeros(65_536, np.bool_)
        carries[list(ports)] = True
        self._walk, self._packet = capture.walk(carries), packets.packet()
        self._joint = joining.joint(RECORD, (secrets.randbits(64), secrets.randbits(64)))
        self._numbers = self._walk.numbers

    @property
    def malformed(self) -> int:
        """UDP payloads that are no DNS message."""
        return int(self._numbers[capture.MALFORMED])

    @property
    def cut(self) -> int:
        """Those of them that the capture cut."""
        return int(self._numbers[capture.CUT])

    @property
    def unknown_link(self) -> int:
        """Frames of an unknown link layer."""
        return int(self._numbers[capture.UNKNOWN_LINK])

    def query(self, ts: float, client: bytes, port: int, server: bytes, message: bytes, size: int) -> None:
        """Take a query. Raises MessageError."""
        self._offer(joining.query, ts, client, port, server, message, size)

    def answer(self, ts: float, client: bytes, port: int, server: bytes, message: bytes, size: int) -> None:
        """Take an answer. Raises MessageError."""
        self._offer(joining.answer, ts, client, port, server, message, size)

    def _offer(
        self, take: Callable[..., bool], ts: float, client: bytes, port: int, server: bytes, message: bytes, size: int
    ) -> None:
        data = np.frombuffer(message, np.uint8)
        addresses = (np.frombuffer(mapped(address), np.uint8) for address in (client, server))
        if not take(self._joint, ts, data, 0, len(data), size, next(addresses), port, next(addresses)):
            raise MessageError("cannot read question")

    def batches(
        self, stream: io.BufferedReader, size: int, damage: Damage, aside: Callable[[Frame], None]
    ) -> Iterator[QueryBatch]:
        """Yield batches of `size` queries, the last one shorter; `aside` gets the frames with TCP segments."""
        out, written = np.zeros(size, RECORD), 0
        data = self._begin(stream)
        status = capture.FULL
        while True:
            status, written = capture.scan(self._walk, self._joint, self._packet, data, out, written)
            if status == capture.FULL:
                yield batch_of_records(out)
                written = 0
            elif status == capture.TCP_FRAME:
                aside(self._frame(data))
            elif status == capture.INTERFACE:
                if not self._add_interface(data):
                    damage.text = TOO_MANY_INTERFACES
                    break
            else:
                rest = data[self._numbers[capture.AT] :].tobytes()
                more = stream.read(_CHUNK) if status == capture.MORE else b""
                if not more:
                    damage.text = self._damage(status, rest)
                    break
                data = np.frombuffer(rest + more, np.uint8)
                self._numbers[capture.AT] = 0
        while self._joint.numbers[joining.WAITING] or written:
            written = joining.ready(self._joint, np.inf, out, written)
            yield batch_of_records(out[:written])
            written = 0

    def _begin(self, stream: io.BufferedReader) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """Read the file header of a pcap; the first bytes after it."""
        magic = stream.peek(4)[:4]
        if magic == PCAPNG_MAGIC:
            self._numbers[capture.BLOCKS] = 1
        else:
            head = stream.read(24)
            order, self._walk.times[capture.UNIT] = PCAP_MAGICS[magic]
            self._numbers[capture.BIG] = order == ">"
            self._numbers[capture.LINK] = int.from_bytes(head[20:24], "big" if order == ">" else "little") & 0xFFFF
        return np.frombuffer(stream.read(_CHUNK), np.uint8)

    def _frame(self, data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> Frame:
        numbers = self._numbers.tolist()
        frame = data[numbers[capture.FRAME] : numbers[capture.FRAME_END]].tobytes()
        now = float(self._walk.times[capture.NOW])
        return Frame(now, numbers[capture.LINK], frame, bool(numbers[capture.WHOLE]))

    def _add_interface(self, data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> bool:
        """Take the interface block that the walk stopped at; False if it is too short or one too many."""
        body = self._frame(data).data
        number = int(self._numbers[capture.INTERFACES])
        if len(body) < 8 or number >= capture.INTERFACES_MAX:
            return False
        found, walk = interface_of(body, ">" if self._numbers[capture.BIG] else "<"), self._walk
        walk.links[number], walk.snaps[number] = found.link, found.snap
        walk.units[number], walk.offsets[number] = found.unit, found.offset
        self._numbers[capture.INTERFACES] = number + 1
        return True

    def _damage(self, status: int, rest: bytes) -> str:
        """Why the walk ended before `rest`; "" at the file's end."""
        claimed = int(self._numbers[capture.CLAIMED])
        if status == capture.HUGE:
            return f"a record claims {claimed} bytes"
        if status == capture.BAD_BLOCK:
            return f"a block claims {claimed} bytes"
        if status == capture.NO_MAGIC or (rest[:4] == PCAPNG_MAGIC and rest[8:12] not in SECTION_ORDERS):
            return NO_BYTE_ORDER
        return f"the last {'block' if self._numbers[capture.BLOCKS] else 'record'} is cut off" if rest else ""
