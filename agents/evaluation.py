"""Measures detection on labelled captures that a manifest lists.

Every tunnel capture is overlaid on benign traffic: its client becomes a benign client, its clock is shifted into
that client's day, since a tunnel alone in its own network is trivially separable. The manifest is a table (tab or
comma) with the columns file, kind (benign, tunnel-tool, …) and tool, relative to its folder; files that end in
.txt or .txt.gz are names without clients and are scored one by one.
"""

from __future__ import annotations

import csv
import io
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.columns import lowered
from agents.detection import TunnelDetector, secret_of
from agents.errors import NameFormatError, UsageError
from agents.leak import leak_curve
from agents.lexical import scored
from agents.measured import Benign, Evaluation, Names, Session
from agents.model import Model
from agents.names import domain_text, from_text
from agents.protocols import Source
from agents.sources.inflate import open_bytes
from agents.types import Incident, QueryBatch, Row, Severity, batch_of

NAMES_AT_ONCE = 8192
SEED = 11
Opener = Callable[[Path], Source]


def evaluate(
    manifest: Path,
    model: Model,
    fresh: Callable[[], TunnelDetector],
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
            evaluation.names.append(_names(path, row, model, fresh()))
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


def _run(detector: TunnelDetector, batches: Iterable[QueryBatch]) -> tuple[list[Incident], list[Severity]]:
    incidents: dict[str, Incident] = {}
    severities: list[Severity] = []
    for verdicts in (*map(detector.detect, batches), detector.flush()):
        if verdicts is not None:
            incidents |= {incident.incident_id: incident for incident in verdicts.incidents}
            severities += [Severity(level) for level in verdicts.severity.tolist()]
    return list(incidents.values()), severities


def _client_hours(batch: QueryBatch) -> float:
    hours = defaultdict(set)
    for ts, client in zip(batch.ts.tolist(), batch.client, strict=True):
        hours[client].add(int(ts // 3600))
    return float(sum(map(len, hours.values())))


def _benign(path: Path, file: str, detector: TunnelDetector, open_capture: Opener) -> Benign:
    batches = _batches(path, open_capture)
    incidents, severities = _run(detector, batches)
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
    return zip(
        ts, batch.client, batch.qname, qtype, qlen, rcode, ancount, rlen, ttl_min, rtt_ms, batch.ans_types, strict=True
    )


def _session(
    path: Path,
    row: dict[str, str],
    detector: TunnelDetector,
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


def _names(path: Path, row: dict[str, str], model: Model, detector: TunnelDetector) -> Names:
    names = list(read_names(path))
    scale = detector.scale
    scores = [_votes(names[at : at + NAMES_AT_ONCE], model, detector) for at in range(0, len(names), NAMES_AT_ONCE)]
    together = np.concatenate(scores) if scores else np.zeros(1)
    return Names(
        file=row["file"],
        kind=row["kind"],
        names=len(names),
        above_normal=float((together >= scale.suspicious).mean()),
        above_high=float((together >= scale.high).mean()),
        secrets=sum(bool(secret_of(name)) for name in names),
    )


def _votes(qnames: Sequence[bytes], model: Model, detector: TunnelDetector) -> NDArray[np.float32]:
    """What the detector's query model says of n lower-case names, known services considered."""
    names = lowered(qnames)
    scores, _ = scored(names, model)
    return detector.scale.votes(scores, detector.services.factors(names))


def read_names(path: Path) -> Iterable[bytes]:
    """Names of a list, one a line; of a CSV, its first column."""
    with _text(path) as file:
        for line in file:
            try:
                yield from_text(line.strip().partition(",")[0])
            except NameFormatError:
                continue
