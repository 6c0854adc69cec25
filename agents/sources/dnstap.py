"""dnstap in files of Frame Streams (`.fstrm`): whole messages with their times, of clients alone.

The walk over Protocol Buffers is our own: a frame has two levels and a dozen fields. dnstap.proto of dnstap.info has
the numbers, and the README of the Frame Streams library the framing.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from itertools import islice

from agents.core.text import counted
from agents.core.types import QueryBatch
from agents.sources.intake import Intake, Observed
from agents.sources.logs.source import Pairs, Rows, RowSource, client_address

DNSTAP = b"protobuf:dnstap.Dnstap"
"""The content type that the START frame names."""
FRAME_MAX = 1 << 18
"""Longest frame in bytes: two messages of 65,535 bytes, and what stands beside them, are shorter."""
_CONTROL, _START, _STOP = 0, 2, 3
_MESSAGE = 14  # of Dnstap
_TYPE, _CLIENT, _PORT = 1, 4, 6  # of Message: type, query_address, query_port
_ASKED_S, _ASKED_NS, _QUERY = 8, 9, 10
_ANSWERED_S, _ANSWERED_NS, _ANSWER = 12, 13, 14
_CLIENT_QUERY, _CLIENT_RESPONSE = 5, 6
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_MAX = 10
"""Bytes of a varint of 64 bits."""
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}


def is_dnstap(head: bytes) -> bool:
    """Whether a file that begins so has a START frame of dnstap."""
    size = int.from_bytes(head[4:8])
    return head[:4] == bytes(4) and head[8:12] == _START.to_bytes(4) and DNSTAP in head[12 : 8 + size]


def fields_of(data: bytes) -> dict[int, int | bytes]:
    """The fields of one message of Protocol Buffers by their numbers, the last of each. Raises ValueError.

    Varints and fixed numbers are unsigned; what is length-delimited is bytes.
    """
    found: dict[int, int | bytes] = {}
    at, size = 0, len(data)
    while at < size:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            found[key >> 3], at = _varint(data, at)
            continue
        if kind == _BYTES:
            width, at = _varint(data, at)
        elif kind in _WIDTHS:
            width = _WIDTHS[kind]
        else:
            raise ValueError("a field is of a kind that dnstap does not have")
        if at + width > size:
            raise ValueError("a field is cut off")
        value = data[at : at + width]
        found[key >> 3] = value if kind == _BYTES else int.from_bytes(value, "little")
        at += width
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint, and the offset behind it. Raises ValueError."""
    if at < len(data) and data[at] < 0x80:  # nearly all are of one byte
        return data[at], at + 1
    value = shift = 0
    for byte in data[at : at + _VARINT_MAX]:
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number is cut off")


def observed_in(frame: bytes) -> Observed | None:
    """The query or the answer of a client in a frame; None for other messages. Raises ValueError or AgentsError."""
    # Imported here: it loads the compiler, which the list of kinds does not need.
    from agents.sources.messages import with_answer, with_question

    message = fields_of(frame).get(_MESSAGE)
    if not isinstance(message, bytes):
        return None
    fields = fields_of(message)
    kind = fields.get(_TYPE)
    if kind not in (_CLIENT_QUERY, _CLIENT_RESPONSE):
        return None
    is_answer = kind == _CLIENT_RESPONSE
    client, port, wire = fields.get(_CLIENT), fields.get(_PORT), fields.get(_ANSWER if is_answer else _QUERY)
    if not isinstance(client, bytes) or not isinstance(wire, bytes):
        raise ValueError("a message of a client has no address or no DNS in it")
    asked_at, answered_at = _time(fields, _ASKED_S, _ASKED_NS), _time(fields, _ANSWERED_S, _ANSWERED_NS)
    ts = answered_at if math.isnan(asked_at) else asked_at
    asked = with_question(Observed(ts, _address(client), "", ""), wire)
    if not asked.qtype:
        raise ValueError("a message has no whole question")
    asked = asked._replace(pair=(client, port, wire[:2], asked.qname.lower(), asked.qtype), is_answer=is_answer)
    if is_answer:
        rtt_ms = (answered_at - asked_at) * 1000
        return with_answer(asked, wire)._replace(rtt_ms=rtt_ms)
    return asked._replace(qlen=len(wire))


def _address(packed: bytes) -> str:
    if len(packed) == 4:
        return ".".join(map(str, packed))
    if len(packed) != 16:
        raise ValueError("an address has neither 4 nor 16 bytes")
    return client_address(":".join(packed[at : at + 2].hex() for at in range(0, 16, 2)))


def _time(fields: dict[int, int | bytes], seconds: int, nanoseconds: int) -> float:
    """Unix seconds, NaN where the frame has none."""
    whole, fraction = fields.get(seconds), fields.get(nanoseconds, 0)
    return whole + fraction * 1e-9 if isinstance(whole, int) and isinstance(fraction, int) else math.nan


class DnstapSource(RowSource):
    """One file of Frame Streams, plain or compressed. Answers alone suffice; queries count where no answer came."""

    def check(self, stream: io.BufferedReader) -> None:
        """Any content is tried: a file that was rotated in the middle of a stream begins with a data frame."""

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield batches of at most `size` queries."""
        rows, pairs = Rows("frame"), Pairs()
        self._damage, self._others = "", 0
        with self._open() as stream:
            frames = self._frames(stream, rows)
            while chunk := list(islice(frames, size)):
                for found in chunk:
                    pairs.add(found)
                yield from _parts(rows.batch(list(pairs.ready())), size)
            yield from _parts(rows.batch(list(pairs.ready(all_of_them=True))), size)
        self.malformed = rows.malformed
        self._warn_of_damage(self._damage)
        self.warn_of_rows(rows, 0)
        if self._others and not rows.queries:
            self._warn(f"{counted(self._others, 'frame')} of other kinds: CLIENT_QUERY and CLIENT_RESPONSE are read")

    def _frames(self, stream: io.BufferedReader, rows: Rows) -> Iterator[Observed]:
        """What the data frames have; damage of the framing ends the file."""
        from agents.core.errors import MessageError

        while head := stream.read(4):
            control = head == bytes(4)
            length = int.from_bytes(stream.read(4) if control else head)
            if length > FRAME_MAX:
                self._damage = f"a frame of {length} bytes"
                return
            frame = stream.read(length)
            if len(head) < 4 or len(frame) < length:
                self._damage = "the last frame is cut off"
                return
            if control:
                continue
            rows.at += 1
            try:
                found = observed_in(frame)
            except (ValueError, MessageError) as error:
                rows.note_bad(error)
                continue
            if found is None:
                self._others += 1
            else:
                yield found


def _parts(batch: QueryBatch | None, size: int) -> Iterator[QueryBatch]:
    for begin in range(0, len(batch) if batch is not None else 0, size):
        if batch is not None:
            yield batch.part(begin, min(begin + size, len(batch)))


SPEC = Intake(
    name="dnstap",
    summary="a dnstap file",
    fields=(),
    factory=lambda path, options: DnstapSource(path),
    recognizes=is_dnstap,
    sign="the first frame, which names dnstap",
)
