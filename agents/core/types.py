"""The nouns, as frozen classes. Queries are judged in a columnar QueryBatch: parallel columns, one row a query."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.npz import FormatError, json_of_text

HOUR_S, DAY_S = 3600, 86_400
"""Seconds in an hour and in a day of Unix time, which has no leap seconds (POSIX.1-2017, section 4.16)."""
TIME_MAX = 253_402_300_799
"""The last second of the year 9999, as Unix seconds: datetime knows none behind it."""
UNKNOWN = -1
"""Stands for a number that the source did not see (rcode, counts, sizes, TTL)."""


FORWARDED, FROM_CACHE, FROM_CACHE_STALE = range(3)
"""Where an answer came from: an upstream (or this listener itself), the cache, or the cache after it had expired."""


class Severity(IntEnum):
    """How unusual a query is, or how certain it is that an incident is data leaving."""

    NORMAL = 0
    SUSPICIOUS = 1
    HIGH = 2
    CRITICAL = 3


MARK_MAX = 64
"""Characters of a replay's mark, at most: a file's name, as a rule."""
_NO_COLUMN: NDArray[Any] = np.empty(0, np.int8)


def _no_column() -> NDArray[Any]:
    return _NO_COLUMN


_IF_NOT_GIVEN = (
    ("cached", np.int8, UNKNOWN),
    ("ans_hash", np.uint64, 0),
    ("ans_bytes", np.int32, UNKNOWN),
    ("negative_ttl", np.int32, UNKNOWN),
    ("origin", np.uint8, 0),
)
"""Columns that a QueryBatch may be made without: name, type, and the value of every row then."""


@dataclass(frozen=True, slots=True)
class QueryBatch:
    """n DNS questions with the known facts of their answers. All columns have length n.

    qname is in wire form (RFC 1035 section 3.1: length-prefixed labels) without the final root byte,
    in the case it was sent in; the root itself is b"". Unknown numbers are UNKNOWN (-1), unknown times NaN, unknown
    hashes 0. The last five columns are unknown where they are not given.
    """

    ts: NDArray[np.float64]  # Unix seconds, UTC
    client: Sequence[str]  # textual IPv4 or IPv6 address
    qname: Sequence[bytes]
    qtype: NDArray[np.uint16]
    qlen: NDArray[np.int32]  # bytes of the query message
    rcode: NDArray[np.int16]
    ancount: NDArray[np.int32]  # records in the answer section
    rlen: NDArray[np.int32]  # bytes of the answer message
    ttl_min: NDArray[np.int64]  # lowest TTL in the answer section, seconds
    rtt_ms: NDArray[np.float32]  # answer latency, milliseconds
    ans_types: Sequence[str]  # distinct answer types in order, "CNAME,A"; "" = none or unknown
    cached: NDArray[np.int8] = field(default_factory=_no_column)  # FORWARDED, FROM_CACHE or FROM_CACHE_STALE
    ans_hash: NDArray[np.uint64] = field(default_factory=_no_column)  # keyed, of the answer section's types and data
    ans_bytes: NDArray[np.int32] = field(default_factory=_no_column)  # of data in the answer section
    negative_ttl: NDArray[np.int32] = field(default_factory=_no_column)  # see dns.message_kernels.answer_facts
    origin: NDArray[np.uint8] = field(default_factory=_no_column)  # what heard it, see sources.origins

    def __post_init__(self) -> None:
        for name, kind, value in _IF_NOT_GIVEN:
            if getattr(self, name) is _NO_COLUMN:
                object.__setattr__(self, name, np.full(len(self.ts), value, kind))

    def __len__(self) -> int:
        return len(self.ts)

    def part(self, begin: int, end: int) -> QueryBatch:
        """The rows from `begin` to before `end`."""
        if begin == 0 and end == len(self):
            return self
        return QueryBatch(*(getattr(self, name)[begin:end] for name in self.__dataclass_fields__))


Row = tuple[float, str, bytes, int, int, int, int, int, int, float, str, *tuple[int, ...]]
"""One query in the order of QueryBatch's columns, without `cached`: ts, client, qname, qtype, qlen, rcode, ancount,
rlen, ttl_min, rtt_ms, ans_types; and, where they are known, all three of ans_hash, ans_bytes and negative_ttl."""
_KNOWN, _UNKNOWN_DATA = 11, (0, UNKNOWN, UNKNOWN)


def batch_of(rows: Sequence[Row]) -> QueryBatch:
    """Columns of the rows, in the given order."""
    empty: list[tuple[()]] = [()] * _KNOWN
    ts, client, qname, qtype, qlen, rcode, ancount, rlen, ttl_min, rtt_ms, ans_types = (
        zip(*[row[:_KNOWN] for row in rows], strict=True) if rows else empty
    )
    data = [row[_KNOWN:] or _UNKNOWN_DATA for row in rows]
    ans_hash, ans_bytes, negative_ttl = zip(*data, strict=True) if rows else ((), (), ())
    return QueryBatch(
        ts=np.array(ts, np.float64),
        client=client,
        qname=qname,
        qtype=np.array(qtype, np.uint16),
        qlen=np.array(qlen, np.int32),
        rcode=np.array(rcode, np.int16),
        ancount=np.array(ancount, np.int32),
        rlen=np.array(rlen, np.int32),
        ttl_min=np.array(ttl_min, np.int64),
        rtt_ms=np.array(rtt_ms, np.float32),
        ans_types=ans_types,
        ans_hash=np.array(ans_hash, np.uint64),
        ans_bytes=np.array(ans_bytes, np.int32),
        negative_ttl=np.array(negative_ttl, np.int32),
    )


@dataclass(frozen=True, slots=True)
class Incident:
    """One tunnel: a client and a registered domain, from first to last query. Times are Unix seconds."""

    client: str
    domain: str
    severity: Severity
    score: float  # 0..1, how certain it is that data leaves
    reasons: tuple[str, ...]
    tool: str | None
    first_seen: float
    last_seen: float
    detected_at: float
    queries: int
    unique_names: int
    leaked_bytes: float
    queries_before_detection: int
    bytes_before_detection: float
    sample_names: tuple[str, ...] = ()
    closed_at: float | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)  # JSON values, see detection.incidents.evidence_json
    source: str = ""  # mark of the stored replay that it is from; "" = seen live
    imported_at: float | None = None  # when that replay was begun

    @property
    def incident_id(self) -> str:
        """Stable id: the same incident gets the same id in every replay and after every restart.

        A marked one has an id of its own: a stored replay never changes what was seen live.
        """
        incident_id = _digest(f"{self.client}|{self.domain}|{self.detected_at:.6f}")
        return marked_id(incident_id, self.source) if self.source else incident_id


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def marked_id(incident_id: str, source: str) -> str:
    """The id that an incident has in the store, where a replay with this mark stored it."""
    return _digest(f"{incident_id}|{source}")


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The detector's judgement of a batch. Columns have the batch's length."""

    queries: QueryBatch
    domain: Sequence[str]  # registered domain, lower-case presentation form
    features: NDArray[np.float32]  # shape (n, number of FEATURES)
    score: NDArray[np.float32]  # 0..1, calibrated, high = anomalous
    severity: NDArray[np.uint8]  # Severity values
    reasons: Sequence[tuple[str, ...]]  # empty for NORMAL
    model_id: str
    incidents: tuple[Incident, ...] = ()  # opened, updated or closed by this batch
    features_version: int = 1  # the scoring.features.VERSION that computed `features`
    batch_id: str = ""  # id of the batch in the store, which keeps each id once; "" = a new batch
    source: str = ""  # mark of a replay that is to be stored; "" = seen live
    imported_at: float | None = None  # when that replay was begun, Unix seconds
    fence: tuple[str, int] | None = None  # slot of the bus, and the token of who writes for it; None = no bus

    def __len__(self) -> int:
        return len(self.queries)


def marked(verdicts: Verdicts, source: str, imported_at: float) -> Verdicts:
    """The verdicts as those of a replay that was begun at `imported_at` (Unix seconds), its incidents among them."""
    mark: dict[str, Any] = {"source": source, "imported_at": imported_at}
    incidents = tuple(replace(incident, **mark) for incident in verdicts.incidents)
    return replace(verdicts, incidents=incidents, **mark)


def joined(parts: Sequence[Verdicts]) -> Verdicts:
    """The verdicts on several batches, in their order, as verdicts on one batch; each incident has its last state."""
    if len(parts) == 1:
        return parts[0]
    queries = [_column([getattr(one.queries, name) for one in parts]) for name in QueryBatch.__dataclass_fields__]
    columns = {
        name: _column([getattr(one, name) for one in parts])
        for name in ("domain", "features", "score", "severity", "reasons")
    }
    incidents = {incident.incident_id: incident for one in parts for incident in one.incidents}
    return replace(parts[-1], queries=QueryBatch(*queries), incidents=tuple(incidents.values()), **columns)


def _column(parts: Sequence[Any]) -> Any:
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [one for part in parts for one in part]


@dataclass(frozen=True, slots=True)
class Sample:
    """Training material: m queries, oldest first."""

    ts: NDArray[np.float64]
    client: Sequence[str]
    qname: Sequence[str]  # presentation form
    domain: Sequence[str]
    features: NDArray[np.float32]  # shape (m, number of FEATURES)

    def __len__(self) -> int:
        return len(self.ts)


@dataclass(frozen=True, slots=True)
class Gate:
    """One pass/fail condition of a retraining: a number, its threshold, and the distance between them."""

    name: str
    value: float
    threshold: float
    at_least: bool  # True: value must be >= threshold; False: <= threshold
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.value >= self.threshold if self.at_least else self.value <= self.threshold

    @property
    def margin(self) -> float:
        """Distance to the threshold; negative = missed by that much."""
        return self.value - self.threshold if self.at_least else self.threshold - self.value


@dataclass(frozen=True, slots=True)
class ValidationCase:
    """A name whose severity is known: NORMAL means exactly NORMAL, HIGH means HIGH or above."""

    qname: str
    expected: Severity
    purpose: str
    qtype: str = "A"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The candidate's score and severity for a validation case, beside the champion's score."""

    case: ValidationCase
    score: float
    severity: Severity
    passed: bool
    champion_score: float | None = None


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """A job of the scheduler, as the database stores it. Times are Unix seconds."""

    name: str
    schedule: str  # cron expression and time zone
    last_run: float | None
    next_run: float


@dataclass(frozen=True, slots=True)
class ChannelResult:
    """Whether one channel accepted a message."""

    channel: str
    ok: bool
    error: str = ""


class Taken(NamedTuple):
    """A batch to be judged, and then committed.

    batch: None if it crashed too many processes and is given up. ts: Unix seconds of its queries. batch_id: its id in
    the store. level: of load, when it was begun. again: an earlier process ended while it judged the batch.
    """

    batch: QueryBatch | None
    ts: NDArray[np.float64]
    batch_id: str
    level: int
    again: bool


class Metric(NamedTuple):
    """One number of /metrics. A name that ends in `_total` is a counter: it never falls."""

    name: str
    help: str
    value: float


@dataclass(frozen=True, slots=True)
class Message:
    """A message for notifiers, in the format of none of the channels. All text is plain; notifiers escape it."""

    title: str
    summary: str
    facts: Sequence[tuple[str, str]]
    severity: Severity
    thread_id: str = ""  # messages of one thread belong together (mail: Message-ID and References)
    link: str | None = None
    link_text: str = "Open report"
    attachments: Sequence[tuple[str, str, bytes]] = ()  # file name, content type, content


def clean(text: str) -> str:
    """Text that both databases accept: NUL and lone surrogates are escaped."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\000")


def incident_row(incident: Incident) -> dict[str, Any]:
    """One incident as a row of the table."""
    return {
        "incident_id": incident.incident_id,
        "client": clean(incident.client),
        "domain": clean(incident.domain),
        "severity": int(incident.severity),
        "score": float(incident.score),
        "reasons": json.dumps(incident.reasons),
        "tool": None if incident.tool is None else clean(incident.tool),
        "first_seen": float(incident.first_seen),
        "last_seen": float(incident.last_seen),
        "detected_at": float(incident.detected_at),
        "queries": int(incident.queries),
        "unique_names": int(incident.unique_names),
        "leaked_bytes": float(incident.leaked_bytes),
        "queries_before_detection": int(incident.queries_before_detection),
        "bytes_before_detection": float(incident.bytes_before_detection),
        "sample_names": json.dumps(incident.sample_names),
        "closed_at": None if incident.closed_at is None else float(incident.closed_at),
        "evidence": json.dumps(dict(incident.evidence)),
        "source": clean(incident.source),
        "imported_at": None if incident.imported_at is None else float(incident.imported_at),
    }


_TEXT, _COUNT, _NUMBER, _NONE = (str,), (int,), (int, float), type(None)
_INCIDENT: Mapping[str, tuple[type, ...]] = {
    "client": _TEXT,
    "domain": _TEXT,
    "severity": _COUNT,
    "score": _NUMBER,
    "reasons": _TEXT,
    "tool": (str, _NONE),
    "first_seen": _NUMBER,
    "last_seen": _NUMBER,
    "detected_at": _NUMBER,
    "queries": _COUNT,
    "unique_names": _COUNT,
    "leaked_bytes": _NUMBER,
    "queries_before_detection": _COUNT,
    "bytes_before_detection": _NUMBER,
    "sample_names": _TEXT,
    "closed_at": (int, float, _NONE),
    "evidence": _TEXT,
    "source": _TEXT,
    "imported_at": (int, float, _NONE),
}
_SINCE: Mapping[str, Any] = {"evidence": "{}", "source": "", "imported_at": None}
"""What rows have that were written before there was such a column."""


def incident_of(row: Any) -> Incident:
    """The incident in a row of the table. Raises FormatError if it is not one, as in a damaged file."""
    if not isinstance(row, Mapping):
        raise FormatError("it is no incident")
    values = {**_SINCE, **{name: value for name, value in row.items() if name != "incident_id"}}
    wrong = [name for name, kinds in _INCIDENT.items() if not isinstance(values.get(name), kinds)]
    if wrong or values.keys() != _INCIDENT.keys():
        raise FormatError(f"it is no incident: {', '.join(wrong) or 'unknown values'}")
    if values["severity"] not in list(Severity):
        raise FormatError("it is no incident: severity")
    values["severity"] = Severity(values["severity"])
    for name in ("reasons", "sample_names"):
        found = json_of_text(values[name], name)
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise FormatError(f"it is no incident: {name}")
        values[name] = tuple(found)
    values["evidence"] = json_of_text(values["evidence"], "evidence")
    if not isinstance(values["evidence"], dict):
        raise FormatError("it is no incident: evidence")
    return Incident(**values)
