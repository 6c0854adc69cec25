"""The zone: blocks for all clients as records, rendered by hand, with the last changes for IXFR (RFC 1995).

Records are bytes from the start: through a library's objects, 40,000 of them did not get to a resolver in 30 s.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from agents.core.errors import NameFormatError
from agents.core.files import PRIVATE_MODE, json_state, write_atomic
from agents.dns.blocks import Block, BlockAction
from agents.dns.message import IN, type_number
from agents.dns.name import from_text, labels_of
from agents.enforcement.brakes import RPZ_LABELS

STEPS_MAX = 100
"""Changes that are kept for IXFR; an older serial gets the whole zone."""
NAME_MAX = 255
"""Bytes of a name in wire form with its root (RFC 1035 section 2.3.4)."""
TTL_S = 5
"""Of every record, and of negative answers: what is undone is to be forgotten soon."""
REFRESH_S, RETRY_S = 5, 5
"""A resolver that nothing tells asks for the serial so often."""
EXPIRE_S = 3600
"""Resolvers forget the zone, and block nothing, so long after this server was last heard."""
MESSAGE_MAX = 60_000
"""Bytes of records in one message of a transfer."""
STATE_FILE = "rpz.json"
"""Serial and digest of the zone, in the folder of the detector's state: a restart moves no serial."""
_TO_ORIGIN = b"\xc0\x0c"
"""The name of the question (RFC 1035 section 4.1.4), which every message of ours has: the zone's own."""
_CNAME, _A, _AAAA, _SOA, _NS = (type_number(name) for name in ("CNAME", "A", "AAAA", "SOA", "NS"))
_LOCALHOST = b"\x09localhost\0"


def record(owner: bytes, kind: int, data: bytes) -> bytes:
    """A resource record; owner: the labels before the zone's name."""
    return owner + _TO_ORIGIN + kind.to_bytes(2) + IN.to_bytes(2) + TTL_S.to_bytes(4) + len(data).to_bytes(2) + data


def records_of(block: Block, origin: bytes, sinkhole: Sequence[str]) -> list[bytes]:
    """The records of one block for all; none where a zone cannot say it, or the name becomes too long.

    NXDOMAIN is CNAME to the root (draft-vixie-dnsop-dns-rpz section 3); the zone has no REFUSED, so it is the same.
    """
    if not block.is_for_all or block.action == BlockAction.SLOW:
        return []
    name = from_text(block.domain)
    instructs = any(label.lower().startswith(RPZ_LABELS) for label in labels_of(name)[-1:])
    if instructs or len(name) + len(origin) + 3 > NAME_MAX:
        return []
    data = [(_CNAME, b"\0")]
    if block.action == BlockAction.SINKHOLE:
        found = map(ipaddress.ip_address, sinkhole)
        data = [((_A if one.version == 4 else _AAAA), one.packed) for one in found]
    return [record(owner, kind, one) for owner in (name, b"\1*" + name) for kind, one in data]


class Step(NamedTuple):
    """One change: records that went and came between two serials."""

    before: int
    after: int
    gone: tuple[bytes, ...]
    new: tuple[bytes, ...]


class PolicyZone:
    """The zone of one origin (wire form without its root). state: where the serial is kept."""

    def __init__(
        self, origin: str, state: Path, sinkhole: Sequence[str] = (), clock: Callable[[], float] = time.time
    ) -> None:
        self.origin, self._sinkhole, self._clock, self._state = from_text(origin).lower(), sinkhole, clock, state
        self._records: frozenset[bytes] = frozenset()
        self._steps: deque[Step] = deque(maxlen=STEPS_MAX)
        self.serial, self._digest = _kept(state)
        self._whole: tuple[int, list[tuple[int, bytes]]] | None = None
        self.left_out, self._own = 0, False  # whether the records are those of the serial

    def __len__(self) -> int:
        return len(self._records)

    def update(self, blocks: Iterable[Block]) -> bool:
        """Take these blocks; whether the zone is another one, with a new serial. Raises OSError."""
        found: set[bytes] = set()
        left_out = 0
        for block in blocks:
            try:
                made = records_of(block, self.origin, self._sinkhole)
            except NameFormatError:
                made = []
            left_out += not made
            found.update(made)
        self.left_out = left_out
        records, digest = frozenset(found), _digest(found)
        if digest == self._digest and self.serial:
            self._records, self._own = records, True  # as the process before had them
            return False
        before, self.serial = self.serial, max(self.serial + 1, int(self._clock()))
        if self._own:
            gone, new = self._records - records, records - self._records
            self._steps.append(Step(before, self.serial, tuple(sorted(gone)), tuple(sorted(new))))
        self._records, self._digest, self._own = records, digest, True
        state = json.dumps({"serial": self.serial, "digest": digest}).encode()
        write_atomic(self._state, state, PRIVATE_MODE, sync=False)
        return True

    def soa(self, serial: int | None = None) -> bytes:
        """The SOA record (RFC 1035 section 3.3.13)."""
        numbers = (self.serial if serial is None else serial, REFRESH_S, RETRY_S, EXPIRE_S, TTL_S)
        return record(b"", _SOA, _LOCALHOST + b"\x0ahostmaster" + _LOCALHOST + b"".join(n.to_bytes(4) for n in numbers))

    def ns(self) -> bytes:
        """The NS record."""
        return record(b"", _NS, _LOCALHOST)

    def transfer(self) -> list[tuple[int, bytes]]:
        """Answers of an AXFR (RFC 5936), each as its number of records and their bytes; made once a serial."""
        if self._whole is None or self._whole[0] != self.serial:
            rows = [self.soa(), self.ns(), *sorted(self._records), self.soa()]
            self._whole = self.serial, list(packed_messages(rows))
        return self._whole[1]

    def changes(self, since: int) -> list[tuple[int, bytes]]:
        """Answers of an IXFR from a serial on: the changes, the SOA alone where there are none, else the whole zone."""
        if since == self.serial:
            return [(1, self.soa())]
        steps = list(self._steps)
        begins = next((at for at, step in enumerate(steps) if step.before == since), None)
        if begins is None:
            return self.transfer()
        rows = [self.soa()]
        for step in steps[begins:]:
            rows += [self.soa(step.before), *step.gone, self.soa(step.after), *step.new]
        return list(packed_messages([*rows, self.soa()]))


def packed_messages(records: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Records in as few messages as they need."""
    some: list[bytes] = []
    size = 0
    for one in records:
        if size + len(one) > MESSAGE_MAX:
            yield len(some), b"".join(some)
            some, size = [], 0
        some.append(one)
        size += len(one)
    yield len(some), b"".join(some)


def _digest(records: Iterable[bytes]) -> str:
    total = hashlib.sha256()
    for one in sorted(records):
        total.update(one)
    return total.hexdigest()


def _kept(path: Path) -> tuple[int, str]:
    """Serial and digest of the process before; 0 and "" where there was none."""
    found = json_state(path)
    serial, digest = found.get("serial"), found.get("digest")
    return (serial, digest) if isinstance(serial, int) and 0 < serial < 2**32 and isinstance(digest, str) else (0, "")
