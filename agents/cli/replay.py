"""`dns-tunnel replay`: judges the queries of captures, logs and tables."""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from agents.cli.output import incident_json, incident_text, json_output, print_note, query_json
from agents.core.columns import distinct
from agents.core.errors import UsageError
from agents.core.prefetch import prefetch
from agents.core.protocols import Source, VerdictStore
from agents.core.text import counted, printable
from agents.core.types import MARK_MAX, Incident, Severity, Verdicts, marked
from agents.detection.privacy import without_names
from agents.detection.runner import ReplayDetector, verdicts_of
from agents.runtime import bootstrap, warmup
from agents.settings import Settings
from agents.sources import SPECS, open_source

AT_ONCE = 8192
"""Queries judged at once: larger batches are not faster."""


def open_files(settings: Settings, files: list[Path], format: str = "auto") -> Source:
    """Captures, logs and tables as one Source, with the settings of their kinds. Raises CaptureError."""
    options = {name: value for spec in SPECS for name, value in settings.of(spec).items()}
    return open_source(files, format, options)


class Tally:
    """The counts and incidents of a replay."""

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
    mark = mark_of(options)
    source = open_files(settings, options.files, options.format)
    warmup.up(print_note)
    model = bootstrap.registry_of(settings).current()
    store = bootstrap.store_of(settings) if options.store else None
    if store is not None:
        store.migrate()
    begun = time.perf_counter()
    with json_output(options.json) as out:
        tripwires, kept = bootstrap.tripwires_of(settings), bootstrap.privacy_of(settings)
        detector = bootstrap.detector_of(settings, model, tripwires=tripwires, kept=kept)
        detector.incidents.losses = source.losses
        keep = None if store is None else partial(_keep, store, mark, time.time(), detector.privacy.names)
        tally = _tally(source, detector, keep, out if options.verdicts else None)
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
    for text in source.taken:
        print_note(text)
    for warning in source.warnings:
        print(f"dns-tunnel: warning: {warning}", file=sys.stderr)
    for error in source.errors:
        print(f"dns-tunnel: {error}", file=sys.stderr)
    if options.json != "-":
        _print_replay(tally, summary)
        if mark and store is not None:
            print(f"stored as {mark}, for {counted(settings.replay_retention_days, 'day')}")
    return 1 if source.errors else 0


def mark_of(options: argparse.Namespace) -> str:
    """The mark of what is stored: --source, or the name of the first file. Raises UsageError."""
    if options.source is None:
        others = len(options.files) - 1
        more = f" and {counted(others, 'other')}" if others else ""
        return printable(options.files[0].name, MARK_MAX - len(more)) + more
    if not options.store:
        raise UsageError("cannot use --source: it marks what is stored, with --store")
    if options.source != printable(options.source, MARK_MAX) or options.source != options.source.strip():
        raise UsageError(f"cannot use --source: not a name of at most {MARK_MAX} printable characters")
    return str(options.source)


def _keep(store: VerdictStore, mark: str, begun: float, names: str, verdicts: Verdicts) -> None:
    """Store verdicts under the mark of this replay; without a mark, as if they had been seen live."""
    kept = without_names(verdicts, names)
    store.write(marked(kept, mark, begun) if mark else kept, uuid.uuid4().hex)


def _tally(
    source: Source, detector: ReplayDetector, keep: Callable[[Verdicts], object] | None, out: IO[str] | None
) -> Tally:
    """Judge and count all queries; `keep` stores the verdicts; with `out` print each query."""
    tally = Tally()
    with (
        closing(judged(detector, source)) as parts,
        tqdm(total=source.size, unit="B", unit_scale=True, disable=None, file=sys.stderr, leave=False) as bar,
    ):
        for verdicts in parts:
            tally.add(verdicts)
            if keep is not None:
                keep(verdicts)
            bar.set_postfix_str(counted(tally.queries, "query"), refresh=False)
            bar.update(source.done - bar.n)
            if out is not None:
                out.writelines(json.dumps(row) + "\n" for row in query_json(verdicts))
    return tally


def judged(detector: ReplayDetector, source: Any) -> Generator[Verdicts, None, None]:
    """The verdicts on all queries of a source: reading, names and windows are three threads, one behind another."""
    return verdicts_of(detector, source.batches(AT_ONCE), prefetch)


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
