"""What one detector says of a batch to where all clients are counted: plain records, as bytes between processes.

Of each query that carries something its client has not carried before, all that its price depends on goes along: a
name counts once whoever asks for it, which sums of bytes could not tell. That is one query in four to eleven.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import Coded, Names, gathered
from agents.core.npz import FormatError, object_of
from agents.core.types import QueryBatch
from agents.detection.shared.report_checks import BY_LABEL, check_arrays, check_head
from agents.detection.state import SENT, WINDOWS, Asked

_ASKED: dict[str, Any] = {
    "ts": np.float64,
    "qtype": np.uint16,
    "rlen": np.int32,
    "answer": np.uint64,
    "data": np.int32,
    "left": np.uint8,
    "size": np.int64,
    "name": np.uint64,
    "domain": np.uint64,
    "form": np.uint64,
    "shape": np.uint64,
    "digits": np.uint64,
    "discount": np.float64,
    "secret": np.uint8,
    "cell": np.uint8,
    "home_cell": np.uint8,
    "scoped": np.uint8,
    "parts": np.int64,
    "key": np.uint64,
    "bits": np.float64,
    "encoded": np.uint8,
}
"""Columns of state.Asked, without the client's row, which is each process' own."""
VISIT = np.dtype(
    [
        ("domain", np.uint64),
        ("first_seen", np.float64),
        ("last_seen", np.float64),
        ("client", np.int32),
        ("names", np.int32),
    ]
)
"""One client below one domain, as a detector's flows know it. client: indexes Roll.clients."""
_ARRAYS: dict[str, Any] = {
    "codes": np.int32,
    "domain_codes": np.int32,
    "sent": SENT,
    "windows": WINDOWS,
    "origin": np.uint8,
    "starts": np.int64,
    "visits": VISIT,
    "days": np.int32,
}
_HEAD = 1
"""Number of what the line of JSON has in it: to be raised where that changes."""
_KINDS = {name: np.dtype(kind) for name, kind in (_ASKED | _ARRAYS).items()}
_LAYOUT = repr([_HEAD, *((name, kind.descr) for name, kind in _KINDS.items())])
_MARK = b"S" + hashlib.blake2b(_LAYOUT.encode(), digest_size=8).hexdigest().encode()


@dataclass(frozen=True, slots=True)
class Roll:
    """All that ask below all domains, when it is to be counted anew. days: (n, 3), of each client: day, domains of it
    and of the day before (state.CLIENT)."""

    visits: NDArray[Any]
    clients: Sequence[str]
    days: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class DetectorReport:
    """One message of a detector, about n queries in order of time. asked: `client` is not set."""

    detector: str
    number: int
    asked: Asked
    sent: NDArray[Any]  # SENT, (n,)
    windows: NDArray[Any]  # WINDOWS
    names: Names  # as sent
    clients: Coded
    domains: Coded
    origin: NDArray[np.uint8]
    spent: Mapping[str, float] = field(default_factory=dict)  # NetworkView.sending
    habits: Sequence[tuple[float, str, float, str]] = ()  # Habits.note
    peaks: Sequence[tuple[float, str, str, float]] = ()  # Peaks.note
    mail: Sequence[tuple[str, int]] = ()  # clients that handle mail, and the day
    roll: Roll | None = None
    drilled: Sequence[Sequence[Any]] = ()  # rows of drills, which are judged by themselves

    def packed(self) -> bytes:
        """The mark of the layout, one line of JSON, and the arrays."""
        roll = self.roll or Roll(np.zeros(0, VISIT), (), np.zeros((0, 3), np.int32))
        arrays = {name: getattr(self.asked, name) for name in _ASKED} | {
            "codes": self.clients.codes,
            "domain_codes": self.domains.codes,
            "sent": self.sent,
            "windows": self.windows,
            "origin": self.origin,
            "starts": self.names.starts,
            "visits": roll.visits,
            "days": roll.days.reshape(-1),
        }
        head = {
            "detector": self.detector,
            "number": self.number,
            "clients": self.clients.values,
            "domains": self.domains.values,
            "spent": self.spent,
            "habits": self.habits,
            "peaks": self.peaks,
            "mail": self.mail,
            "drilled": self.drilled,
            "roll": None if self.roll is None else list(roll.clients),
            "sizes": {name: len(array) for name, array in arrays.items()},
        }
        body = [np.ascontiguousarray(array, _KINDS[name]).tobytes() for name, array in arrays.items()]
        return b"".join([_MARK, b"\n", json.dumps(head).encode(), b"\n", *body, self.names.data])


def detector_report_of(data: bytes) -> DetectorReport:
    """A message from its bytes, of the same layout; its arrays fit together. Raises FormatError for all others."""
    mark, line, body = (*data.split(b"\n", 2), b"", b"")[:3]
    if mark != _MARK:
        raise FormatError("cannot read what a detector says: another release wrote it, or it is damaged")
    head = object_of(line, "what a detector says")
    check_head(head, list(_KINDS))
    sizes = {name: head["sizes"][name] * kind.itemsize for name, kind in _KINDS.items()}
    if sum(sizes.values()) > len(body):
        raise FormatError("cannot read what a detector says: it is cut off")
    arrays, at = {}, 0
    for name, kind in _KINDS.items():
        part = body[at : at + sizes[name]]
        arrays[name] = np.frombuffer(part, kind).copy()  # kernels are made for arrays to write in
        at += sizes[name]
    check_arrays(head, arrays, len(body) - at)
    asked = Asked(client=np.empty(0, np.int32), **{name: arrays[name] for name in _ASKED})
    roll = head["roll"]
    return DetectorReport(
        head["detector"],
        head["number"],
        asked,
        arrays["sent"],
        arrays["windows"],
        Names(body[at:], arrays["starts"]),
        Coded(arrays["codes"], head["clients"]),
        Coded(arrays["domain_codes"], head["domains"]),
        arrays["origin"],
        head["spent"],
        [tuple(one) for one in head["habits"]],
        [tuple(one) for one in head["peaks"]],
        [tuple(one) for one in head["mail"]],
        None if roll is None else Roll(arrays["visits"], roll, arrays["days"].reshape(-1, 3)),
        head["drilled"],
    )


def empty_report() -> DetectorReport:
    """A message about no queries."""
    arrays: dict[str, Any] = {name: np.zeros(int(name == "parts"), kind) for name, kind in _ASKED.items()}
    asked, none = Asked(client=np.empty(0, np.int32), **arrays), np.empty(0, np.int32)
    texts = Coded(none, []), Coded(none, [])
    sent, windows = np.empty(0, SENT), np.empty(0, WINDOWS)
    return DetectorReport("", 0, asked, sent, windows, Names(b"", np.zeros(1, np.int64)), *texts, np.empty(0, np.uint8))


def rows_of_asked(asked: Asked, rows: NDArray[np.int64]) -> Asked:
    """Some queries of `asked`, in the order of `rows`."""
    begins, sizes = asked.parts[rows], asked.parts[rows + 1] - asked.parts[rows]
    parts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(sizes, out=parts[1:])
    places = np.repeat(begins - parts[:-1], sizes) + np.arange(parts[-1])
    columns = {name: getattr(asked, name)[places if name in BY_LABEL else rows] for name in _ASKED if name != "parts"}
    client = asked.client[rows] if len(asked.client) else asked.client
    return Asked(client=client, parts=parts, **columns)


def merged_reports(reports: Sequence[DetectorReport]) -> DetectorReport:
    """Several messages as one, their queries in order of time; their other contents are left out."""
    if len(reports) == 1:
        return reports[0]
    codes, domain_codes, clients, domains = [], [], list[str](), list[str]()
    sents, windows_before, parts_before, parts = [], 0, 0, [np.zeros(1, np.int64)]
    for one in reports:
        codes.append(one.clients.codes + np.int32(len(clients)))
        domain_codes.append(one.domains.codes + np.int32(len(domains)))
        clients += one.clients.values
        domains += one.domains.values
        sent = one.sent.copy()
        sent["windows"][sent["windows"] >= 0] += windows_before
        windows_before += len(one.windows)
        sents.append(sent)
        parts.append(one.asked.parts[1:] + parts_before)
        parts_before += int(one.asked.parts[-1])
    columns = {
        name: np.concatenate([getattr(one.asked, name) for one in reports]) for name in _ASKED if name != "parts"
    }
    asked = Asked(client=np.empty(0, np.int32), parts=np.concatenate(parts), **columns)
    order = np.argsort(asked.ts, kind="stable")
    data = b"".join([one.names.data for one in reports])
    sizes = np.concatenate([np.diff(one.names.starts) for one in reports])
    begins = np.cumsum(sizes) - sizes
    return DetectorReport(
        "",
        0,
        rows_of_asked(asked, order),
        np.concatenate(sents)[order],
        np.concatenate([one.windows for one in reports]),
        gathered(np.frombuffer(data, np.uint8), begins[order], sizes[order]),
        Coded(np.concatenate(codes)[order], clients),
        Coded(np.concatenate(domain_codes)[order], domains),
        np.concatenate([one.origin for one in reports])[order],
    )


def batch_of_report(said: DetectorReport) -> QueryBatch:
    """The columns of its queries that incidents read; the others hold nothing."""
    count = len(said.sent)
    none = np.full(count, -1, np.int32)
    return QueryBatch(
        ts=said.asked.ts,
        client=said.clients,
        qname=said.names,
        qtype=said.asked.qtype,
        qlen=none,
        rcode=none.astype(np.int16),
        ancount=none,
        rlen=said.asked.rlen,
        ttl_min=none.astype(np.int64),
        rtt_ms=np.full(count, np.nan, np.float32),
        ans_types=("",) * count,
        origin=said.origin,
    )
