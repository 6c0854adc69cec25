"""What judges files and names: `replay`, `score` and `evaluate`, with their output as text and JSON lines."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from agents import bootstrap, warm
from agents.ahead import ahead
from agents.columns import distinct, lowered
from agents.detection import Seen, TunnelDetector
from agents.errors import NameFormatError, UsageError
from agents.evaluation import evaluate
from agents.features import view_of
from agents.incidents import spans
from agents.lexical import scored
from agents.messages import counted, printable
from agents.model import Model
from agents.names import from_text_folded, to_text
from agents.policy import Scale, name_reasons
from agents.services import Services
from agents.settings import Settings
from agents.showing import incident_json, incident_text, print_evaluation, query_json
from agents.sources.capture import open_source
from agents.store.base import Store
from agents.types import Incident, QueryBatch, Severity, Verdicts
from agents.wire import type_name

AT_ONCE = 8192
"""Queries judged at once: more than that gain nothing."""
NAMES_AT_ONCE = 4096


@contextmanager
def json_output(target: str | None) -> Iterator[IO[str] | None]:
    """The stream that --json names: None, standard output for "-", or a file. Raises UsageError."""
    if target is None:
        yield None
    elif target == "-":
        yield sys.stdout
    else:
        try:
            with Path(target).open("w", encoding="utf-8") as file:
                yield file
        except OSError as error:
            raise UsageError(f"cannot write {target}: {error.strerror}") from None


def ports_of(settings: Settings) -> frozenset[int]:
    """The setting REPLAY_PORTS as numbers."""
    return frozenset(int(port) for port in settings.replay_ports.split(","))


def open_files(settings: Settings, files: list[Path], kind: Any = "auto") -> Any:
    """Captures as one Source. Raises CaptureError."""
    return open_source(files, kind, ports_of(settings))


def tell(text: str) -> None:
    """Say on standard error what a user waits for."""
    print(f"dns-tunnel: {text}", file=sys.stderr)


class Tally:
    """What a replay saw."""

    def __init__(self) -> None:
        self.queries = 0
        self.clients: set[str] = set()
        self.domains: set[str] = set()
        self.severities: Counter[str] = Counter({level.name: 0 for level in Severity})
        self.incidents: dict[str, Incident] = {}

    def add(self, verdicts: Verdicts) -> None:
        self.queries += len(verdicts)
        self.clients.update(distinct(verdicts.queries.client))
        self.domains.update(distinct(verdicts.domain))
        counts = np.bincount(verdicts.severity, minlength=len(Severity)).tolist()
        self.severities.update({level.name: counts[level] for level in Severity})
        self.incidents |= {incident.incident_id: incident for incident in verdicts.incidents}

    def found(self) -> list[Incident]:
        return sorted(self.incidents.values(), key=lambda incident: (incident.detected_at, incident.domain))


def replay(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel replay`."""
    if options.verdicts and options.json is None:
        raise UsageError("cannot print verdicts: --verdicts needs --json")
    source = open_files(settings, options.files, options.format)
    warm.up(tell)
    model = bootstrap.registry_of(settings).current()
    store = bootstrap.store_of(settings) if options.store else None
    if store is not None:
        store.migrate()
    begun = time.perf_counter()
    with json_output(options.json) as out:
        tally = _tally(source, bootstrap.detector_of(settings, model), store, out if options.verdicts else None)
        summary = {
            "type": "summary",
            "queries": tally.queries,
            "malformed": source.malformed,
            "clients": len(tally.clients),
            "domains": len(tally.domains),
            "incidents": len(tally.incidents),
            "seconds": round(time.perf_counter() - begun, 3),
            "severities": dict(tally.severities),
            "model_id": model.model_id,
        }
        if out is not None:
            out.writelines(json.dumps(row) + "\n" for row in (*map(incident_json, tally.found()), summary))
    for warning in source.warnings:
        print(f"dns-tunnel: warning: {warning}", file=sys.stderr)
    if options.json != "-":
        _print_replay(tally, summary)
    return 0


def _tally(source: Any, detector: TunnelDetector, store: Store | None, out: IO[str] | None) -> Tally:
    """Count what is judged; also store it, and print every query."""
    tally = Tally()
    with (
        closing(judged(detector, source)) as parts,
        tqdm(total=source.size, unit="B", unit_scale=True, disable=None, file=sys.stderr, leave=False) as bar,
    ):
        for verdicts in parts:
            tally.add(verdicts)
            bar.set_postfix_str(counted(tally.queries, "query"), refresh=False)
            bar.update(source.done - bar.n)
            if store is not None:
                store.write(verdicts, uuid.uuid4().hex)
            if out is not None:
                out.writelines(json.dumps(row) + "\n" for row in query_json(verdicts))
    return tally


def judged(detector: TunnelDetector, source: Any) -> Generator[Verdicts, None, None]:
    """The verdicts of all that a source has: reading it, names, and windows are three threads, one behind another."""
    quiet_s = detector.incidents.quiet_s
    batches = ahead(part for batch in source.batches(AT_ONCE) for part in spans(batch, quiet_s))
    return ahead(_in_order(detector, ahead((batch, detector.read(batch)) for batch in batches)))


def _in_order(detector: TunnelDetector, seen: Iterable[tuple[QueryBatch, Seen]]) -> Generator[Verdicts, None, None]:
    for batch, found in seen:
        yield detector.judge(batch, found)
    last = detector.flush()
    if last is not None:
        yield last


def _print_replay(tally: Tally, summary: dict[str, Any]) -> None:
    for incident in tally.found():
        print(incident_text(incident))
    levels = ", ".join(f"{count:,} {name}" for name, count in summary["severities"].items())
    print(
        f"{counted(summary['queries'], 'query')} of {counted(summary['clients'], 'client')}"
        f" to {counted(summary['domains'], 'domain')} in {summary['seconds']} s: {levels};"
        f" {counted(summary['incidents'], 'incident')}"
        + (f"; {summary['malformed']} malformed (packets or lines)" if summary["malformed"] else "")
    )


def score(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel score`."""
    if not options.names and options.file is None:
        raise UsageError("cannot score: give names, or --file")
    warm.up(tell)
    model, scale = bootstrap.registry_of(settings).current(), bootstrap.scale_of(settings)
    services = bootstrap.services_of(settings)
    bad = 0
    with json_output(options.json) as out:
        for chunk in _chunks(_names(options)):
            for row in score_rows(model, scale, services, chunk, type_name(options.qtype)):
                bad += "error" in row
                _emit_score(row, out)
    return 1 if bad else 0


def _emit_score(row: dict[str, Any], out: IO[str] | None) -> None:
    if out is not None:
        out.write(json.dumps(row) + "\n")
    elif "error" in row:
        print(f"dns-tunnel: {printable(row['error'])}", file=sys.stderr)
    else:
        why = f"  {'; '.join(row['reasons'])}" if row["reasons"] else ""
        print(f"{row['severity']:<10} {row['score']:.3f}  {printable(row['qname'], 1024)}{why}")


def score_rows(
    model: Model, scale: Scale, services: Services, names: list[str], qtype: str
) -> Iterator[dict[str, Any]]:
    """One row a name: as `score --json` prints it, or {"qname", "error"} for what is no name.

    `qtype` is told back and changes no score: the query model knows names alone.
    """
    wires: list[bytes | str] = [_wire_or_error(name) for name in names]
    good = lowered([wire for wire in wires if isinstance(wire, bytes)])
    scores, cuts = scored(good, model)
    scores = scale.votes(scores, services.factors(good))
    found = zip(good, scores.tolist(), cuts.tolist(), strict=True)
    for name, error in zip(names, wires, strict=True):
        if isinstance(error, str):
            yield {"qname": name, "error": error}
            continue
        wire, value, cut = next(found)
        severity = scale.severity(value)
        yield {
            "qname": name,
            "qtype": qtype,
            "domain": to_text(wire[cut:]),
            "score": round(value, 4),
            "severity": severity.name,
            "reasons": list(name_reasons(view_of(wire))) if severity else [],
        }


def _wire_or_error(name: str) -> bytes | str:
    try:
        return from_text_folded(name)
    except NameFormatError as error:
        return str(error)


def _names(options: argparse.Namespace) -> Iterator[str]:
    yield from options.names
    if options.file is None:
        return
    try:
        raw = options.file.read_bytes()
        text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"cannot read {options.file}: {getattr(error, 'strerror', None) or error}") from None
    lines = text.decode("utf-8", "surrogateescape").splitlines()
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise UsageError(f"cannot read {options.file}: there is no name in it")
    yield from names


def _chunks(names: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    for name in names:
        chunk.append(name)
        if len(chunk) == NAMES_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def run_evaluation(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel evaluate`."""
    warm.up(tell)
    model = bootstrap.registry_of(settings).current()
    with json_output(options.json) as out:  # first: what takes minutes is not to fail on its last line
        found = evaluate(
            options.manifest,
            model,
            lambda: bootstrap.detector_of(settings, model),
            lambda path: open_files(settings, [path]),
            lambda rows: tqdm(rows, unit=" captures", disable=None, file=sys.stderr, leave=False),
        )
        if out is not None:
            out.write(json.dumps(found.to_json()) + "\n")
    if options.json != "-":
        print_evaluation(found)
    return 0
