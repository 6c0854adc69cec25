"""What an evaluation found, row by row, and the summary of each tool."""

from __future__ import annotations

import base64
import csv
import io
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import lowered
from agents.core.errors import NameFormatError, UsageError
from agents.core.protocols import Source
from agents.core.types import Incident, QueryBatch, Row, Severity, batch_of
from agents.detection.detector import secret_of
from agents.detection.runner import ReplayDetector, verdicts_of
from agents.dns.name import domain_text, from_text
from agents.scoring.lexical import scored
from agents.scoring.model import Model
from agents.sources.files import open_bytes


@dataclass(frozen=True, slots=True)
class Session:
    """One tunnel capture over benign traffic."""

    file: str
    tool: str
    queries: int  # of the tunnel
    found: bool
    named: str  # the tool that the incident points to, "" for none
    severity: str
    queries_before: int
    bytes_before: float
    above_normal: float  # share of the tunnel's queries
    others: tuple[str, ...] = ()  # domains that are not the tunnel's, with an incident all the same


@dataclass(frozen=True, slots=True)
class Benign:
    """One benign capture replayed alone."""

    file: str
    queries: int
    client_hours: float
    above_normal: float
    incidents: tuple[str, ...]  # HIGH and above: client, domain and reasons


@dataclass(frozen=True, slots=True)
class NameList:
    """One list of names, scored one by one."""

    file: str
    kind: str
    names: int
    above_normal: float
    above_high: float
    secrets: int  # names that were taken for giving a secret away


@dataclass(frozen=True, slots=True)
class Leak:
    """When a tunnel of a steady rate was found; None where it was not before its end."""

    rate: float  # bytes a second
    carried: int  # bytes a name
    seconds: float | None
    bytes_out: int | None  # of what it sent
    queries: int | None


@dataclass(slots=True)
class Evaluation:
    """Everything that was measured."""

    model_id: str
    sessions: list[Session] = field(default_factory=list)
    benign: list[Benign] = field(default_factory=list)
    names: list[NameList] = field(default_factory=list)
    leak_curve: list[Leak] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tools": [asdict(row) for row in tools(self.sessions)]}


@dataclass(frozen=True, slots=True)
class Tool:
    """All sessions of one tool; medians and worst are over those found."""

    tool: str
    sessions: int
    found: int
    named: int  # sessions whose tool was named as the manifest does
    queries_median: float
    queries_worst: int
    bytes_median: float
    bytes_worst: float
    above_normal: float


def tools(sessions: Sequence[Session]) -> list[Tool]:
    """One row a tool. No limit and no model was fitted to any capture, so each row is one of a tool left out."""
    by_tool = defaultdict(list)
    for session in sessions:
        by_tool[session.tool].append(session)
    return [_tool(name, by_tool[name]) for name in sorted(by_tool)]


def _tool(name: str, sessions: Sequence[Session]) -> Tool:
    found = [session for session in sessions if session.found] or [Session("", name, 0, False, "", "", 0, 0.0, 0.0)]
    queries, leaked = [s.queries_before for s in found], [s.bytes_before for s in found]
    total = sum(session.queries for session in sessions)
    return Tool(
        tool=name,
        sessions=len(sessions),
        found=sum(session.found for session in sessions),
        named=sum(session.named == session.tool for session in sessions),
        queries_median=statistics.median(queries),
        queries_worst=max(queries),
        bytes_median=statistics.median(leaked),
        bytes_worst=max(leaked),
        above_normal=sum(session.above_normal * session.queries for session in sessions) / max(total, 1),
    )


RATES = (0.0116, 0.02, 0.1, 0.7, 10.0, 1000.0)
"""Bytes a second; 0.0116 are 1,000 bytes a day."""
CARRIED = 30
"""Bytes that one name carries: a label's worth."""
SPAN_S, LIMIT_BYTES = 86_400.0, 20_000
DOMAIN, CLIENT, START = "data.example-tunnel.net", "tunnel", 1_700_000_000.0
"""CLIENT and START hold where there is no benign client to lay a tunnel over."""
BACKGROUND_MAX = 20_000
"""Most queries of the benign client that are used, from its first: they bound the time that a curve takes."""
MIXED_AT_ONCE = 256

NameMaker = Callable[[random.Random, int], str]


def leak_curve(background: Mapping[str, Sequence[Row]], fresh: Callable[[], ReplayDetector]) -> list[Leak]:
    """One row a rate, over the busiest client of the background."""
    client = max(background, key=lambda name: (len(background[name]), name), default=CLIENT)
    own = sorted(background.get(client, ()), key=itemgetter(0))[:BACKGROUND_MAX]
    start = own[0][0] if own else START
    return [measure(fresh(), own, tunnel(rate, CARRIED, client, start), rate, CARRIED) for rate in RATES]


def encoded(rng: random.Random, size: int) -> str:
    """`size` random bytes as base32 labels of at most 63 characters."""
    text = base64.b32encode(rng.randbytes(size)).decode().rstrip("=").lower()
    return ".".join(text[at : at + 63] for at in range(0, len(text), 63))


def tunnel(rate: float, carried: int, client: str, start: float, name: NameMaker = encoded) -> Iterator[Row]:
    """Queries at `rate` bytes a second, evenly spaced with a fifth of jitter, for SPAN_S or LIMIT_BYTES."""
    rng = random.Random(f"{rate} {carried}")  # noqa: S311
    step = carried / rate
    for i in range(min(int(SPAN_S / step), LIMIT_BYTES // carried)):
        ts = start + (i + rng.random() / 5) * step
        wire = from_text(f"{name(rng, carried)}.{DOMAIN}")
        yield ts, client, wire, 1, len(wire) + 17, 0, 1, len(wire) + 40, 60, 12.0, ""


def measure(
    detector: ReplayDetector, background: Sequence[Row], sent: Iterator[Row], rate: float, carried: int
) -> Leak:
    """Lay one tunnel over the background and find it; both in time order, of one client."""
    rows = list(sent)
    mixed = sorted([*(row for row in background if rows and row[0] <= rows[-1][0]), *rows], key=itemgetter(0))
    batches = (batch_of(mixed[at : at + MIXED_AT_ONCE]) for at in range(0, len(mixed), MIXED_AT_ONCE))
    for verdicts in verdicts_of(detector, batches):
        for incident in verdicts.incidents:
            mine = incident.client == rows[0][1] and incident.domain == domain_text(rows[0][2])
            if mine and incident.severity >= Severity.HIGH:
                queries = sum(row[0] <= incident.detected_at for row in rows)
                return Leak(rate, carried, incident.detected_at - rows[0][0], queries * carried, queries)
    return Leak(rate, carried, None, None, None)


NAMES_AT_ONCE = 8192
SEED = 11
Opener = Callable[[Path], Source]


def evaluate(
    manifest: Path,
    model: Model,
    fresh: Callable[[], ReplayDetector],
    open_capture: Opener,
    progress: Callable[[Iterable[dict[str, str]]], Iterable[dict[str, str]]] = iter,
) -> Evaluation:
    """Run everything that the manifest lists. Raises UsageError where it cannot be read."""
    rows = [row for row in read_manifest(manifest) if row["kind"] != "raw-pcap"]
    evaluation = Evaluation(model.model_id)
    background = _background(manifest.parent, rows, open_capture)
    for row in progress(rows):
        path = manifest.parent / row["file"]
        if row["file"].endswith((".txt", ".txt.gz", ".csv.gz")):
            evaluation.names.append(_name_list(path, row, model, fresh()))
        elif row["kind"] == "benign":
            evaluation.benign.append(_benign(path, row["file"], fresh(), open_capture))
        else:
            evaluation.sessions.append(_session(path, row, fresh(), open_capture, background))
    evaluation.leak_curve = leak_curve(background, fresh)
    return evaluation


def read_manifest(path: Path) -> list[dict[str, str]]:
    """Rows of a manifest whose files are all there. Raises UsageError."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {path}: it is not UTF-8 at byte {error.start}") from None
    header = text.partition("\n")[0]
    reader = csv.DictReader(text.splitlines(), delimiter="\t" if "\t" in header else ",")
    if not {"file", "kind", "tool"} <= set(reader.fieldnames or ()):
        raise UsageError(f"cannot read {path}: a manifest has the columns file, kind and tool")
    rows = list(reader)
    if not rows:
        raise UsageError(f"cannot read {path}: it lists no files")
    for number, row in enumerate(rows, start=2):
        if None in (row["file"], row["kind"], row["tool"]):
            raise UsageError(f"cannot read {path}: line {number} lacks a column")
    missing = [row["file"] for row in rows if not (path.parent / row["file"]).is_file()]
    if missing:
        raise UsageError(f"cannot read {path}: {missing[0]} is listed and not there")
    return rows


def _batches(path: Path, open_capture: Opener) -> list[QueryBatch]:
    return list(open_capture(path).batches(1 << 20))


def _run(detector: ReplayDetector, batches: Iterable[QueryBatch]) -> tuple[list[Incident], list[Severity]]:
    incidents: dict[str, Incident] = {}
    severities: list[Severity] = []
    for verdicts in verdicts_of(detector, batches):
        incidents |= {incident.incident_id: incident for incident in verdicts.incidents}
        severities += [Severity(level) for level in verdicts.severity.tolist()]
    return list(incidents.values()), severities


def _client_hours(batch: QueryBatch) -> float:
    hours = defaultdict(set)
    for ts, client in zip(batch.ts.tolist(), batch.client, strict=True):
        hours[client].add(int(ts // 3600))
    return float(sum(map(len, hours.values())))


def _benign(path: Path, file: str, detector: ReplayDetector, open_capture: Opener) -> Benign:
    batches = _batches(path, open_capture)
    found, severities = _run(detector, batches)
    incidents = [one for one in found if one.severity >= Severity.HIGH]
    return Benign(
        file=file,
        queries=len(severities),
        client_hours=sum(map(_client_hours, batches)),
        above_normal=_share(severities),
        incidents=tuple(f"{one.client or '-'} {one.domain}: {'; '.join(one.reasons)}" for one in incidents),
    )


def _share(severities: Sequence[Severity]) -> float:
    return sum(level > Severity.NORMAL for level in severities) / max(len(severities), 1)


def _background(folder: Path, rows: Sequence[dict[str, str]], open_capture: Opener) -> dict[str, list[Row]]:
    """Rows of the benign capture with the most clients, by client: whom tunnels are laid over."""
    best: dict[str, list[Row]] = {}
    for row in rows:
        if row["kind"] == "benign" and row["file"].endswith((".tsv", ".tsv.gz")):
            found = defaultdict(list)
            for batch in _batches(folder / row["file"], open_capture):
                for entry in _rows(batch):
                    found[entry[1]].append(entry)
            best = max(best, dict(found), key=len)
    return {client: entries for client, entries in best.items() if len(entries) >= 20}


def _rows(batch: QueryBatch) -> Iterable[Row]:
    columns = (batch.ts, batch.qtype, batch.qlen, batch.rcode, batch.ancount, batch.rlen, batch.ttl_min, batch.rtt_ms)
    ts, qtype, qlen, rcode, ancount, rlen, ttl_min, rtt_ms = (column.tolist() for column in columns)
    data = (column.tolist() for column in (batch.ans_hash, batch.ans_bytes, batch.negative_ttl))
    return zip(
        ts, batch.client, batch.qname, qtype, qlen, rcode, ancount, rlen, ttl_min, rtt_ms, batch.ans_types, *data,
        strict=True,
    )  # fmt: skip


def _session(
    path: Path,
    row: dict[str, str],
    detector: ReplayDetector,
    open_capture: Opener,
    background: dict[str, list[Row]],
) -> Session:
    entries = [entry for batch in _batches(path, open_capture) for entry in _rows(batch)]
    domains = _tunnel_domains(path) or {domain_text(entry[2]) for entry in entries}
    rng = random.Random(f"{SEED}{row['file']}")  # noqa: S311
    client = rng.choice(sorted(background)) if background else "tunnel"
    base = background.get(client, [])
    shift = (base[rng.randrange(len(base))][0] if base else 0.0) - min((entry[0] for entry in entries), default=0.0)
    moved: list[Row] = [(entry[0] + shift, client, *entry[2:]) for entry in entries]
    mixed = sorted([*base, *moved], key=lambda entry: entry[0])
    incidents, severities = _run(detector, [batch_of(mixed)] if mixed else [])
    own = [one for one in incidents if one.domain in domains and one.severity >= Severity.HIGH]
    first = min(own, key=lambda one: one.detected_at, default=None)
    tunnel = [level for entry, level in zip(mixed, severities, strict=True) if domain_text(entry[2]) in domains]
    return Session(
        file=row["file"],
        tool=row["tool"],
        queries=len(tunnel),
        found=first is not None,
        named=next((one.tool for one in own if one.tool), ""),
        severity=max(own, key=lambda one: one.severity).severity.name if own else "",
        queries_before=first.queries_before_detection if first else 0,
        bytes_before=round(first.bytes_before_detection, 1) if first else 0.0,
        above_normal=_share(tunnel),
        others=tuple(one.domain for one in incidents if one.domain not in domains),
    )


def _tunnel_domains(path: Path) -> set[str]:
    """Registered domains of the rows that the capture's own `label` column calls tunnel; the detector never sees it."""
    with _text(path) as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if not {"label", "qname"} <= set(reader.fieldnames or ()):
            return set()
        return {_domain_or(row["qname"]) for row in reader if row["label"] == "tunnel"} - {""}


def _text(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(open_bytes(path)[0], encoding="utf-8", errors="replace", newline="")


def _domain_or(qname: str) -> str:
    try:
        return domain_text(from_text(qname))
    except NameFormatError:
        return ""


def _name_list(path: Path, row: dict[str, str], model: Model, detector: ReplayDetector) -> NameList:
    names = list(names_in(path))
    scale = detector.scale
    scores = [_votes(names[at : at + NAMES_AT_ONCE], model, detector) for at in range(0, len(names), NAMES_AT_ONCE)]
    together = np.concatenate(scores) if scores else np.zeros(1)
    return NameList(
        file=row["file"],
        kind=row["kind"],
        names=len(names),
        above_normal=float((together >= scale.suspicious).mean()),
        above_high=float((together >= scale.high).mean()),
        secrets=sum(bool(secret_of(name)) for name in names),
    )


def _votes(qnames: Sequence[bytes], model: Model, detector: ReplayDetector) -> NDArray[np.float32]:
    """What the detector's query model says of n lower-case names, known services considered."""
    names = lowered(qnames)
    scores, _ = scored(names, model)
    return detector.scale.votes(scores, detector.services.factors(names))


def names_in(path: Path) -> Iterable[bytes]:
    """Names of a list, one a line; of a CSV, its first column."""
    with _text(path) as file:
        for line in file:
            try:
                yield from_text(line.strip().partition(",")[0])
            except NameFormatError:
                continue
