"""One capture judged live and in replay: the same verdicts, however the queries come in batches."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.cli.output import incident_json, query_json
from agents.core.types import Row, Verdicts, batch_of
from agents.dns.message import type_name
from agents.dns.name import to_text
from agents.learning.baseline import golden_sessions, golden_traffic
from agents.runtime.bootstrap import detector_of, judge_parts, load_settings, tripwires_of
from agents.runtime.judging.fanout import Fanout
from agents.runtime.judging.judge import Judge
from agents.sources import open_source
from tests.support.commands import Inside

pytestmark = pytest.mark.integration

SPAN_S = 10_800.0
"""Three incidents' quiet: what is closed opens again when the first half of a session is followed by the second."""
BACKGROUND = 600
COMPARED = ("client", "domain", "severity", "score", "first_seen", "detected_at", "queries_before_detection", "reasons")


def capture(start: float) -> list[tuple[float, str, str, int]]:
    """Every golden session of a client of its own, in halves at the ends of the span, with benign traffic all along.

    Times are to come, so that a clock which runs while the queries are judged finds none of them quiet.
    """
    benign = golden_traffic()
    rows = [
        (start + SPAN_S * i / BACKGROUND, f"192.0.2.{i % 20}", to_text(benign.qname[i]), 1) for i in range(BACKGROUND)
    ]
    for i, session in enumerate(golden_sessions().values()):
        half = len(session) // 2
        for at, qname in enumerate(session.qname):
            shift = float(session.ts[at] - session.ts[0]) + (SPAN_S - 600 if at >= half else 0.0)
            rows.append((start + i + shift, f"198.51.100.{i}", to_text(qname), int(session.qtype[at])))
    return sorted(rows)


class Recorder:
    """A sink that remembers what came."""

    name = "recorder"
    incidents_only = False

    def __init__(self) -> None:
        self.queries: list[dict[str, Any]] = []
        self.incidents: dict[str, dict[str, Any]] = {}

    def accept(self, verdicts: Verdicts) -> None:
        self.queries += json.loads(json.dumps(list(query_json(verdicts))))
        rows = json.loads(json.dumps([incident_json(incident) for incident in verdicts.incidents]))
        self.incidents |= {row["incident_id"]: row for row in rows}

    def close(self) -> None:
        """Nothing is open."""


def live(path: Path, folder: Path, sizes: Sequence[int]) -> Recorder:
    """The capture's queries through a listener's judge, in batches of these sizes by turns.

    Its hashes have the key of a replay: how many clients there are is estimated by them, and the limits that all
    clients have together follow from it.
    """
    settings = load_settings(data_dir=folder)
    parts = judge_parts(settings)
    detector = detector_of(
        settings, parts.registry.current(), tripwires=tripwires_of(settings), burn_in_days=settings.burn_in_days
    )
    judge = Judge(dataclasses.replace(parts, detector=detector))
    recorder = Recorder()
    judge.fanout = Fanout([*judge.fanout.sinks, recorder])
    judge.start()
    rows = rows_of(path)
    at, turn = 0, 0
    while at < len(rows):
        size = sizes[turn % len(sizes)]
        judge.consume(batch_of(rows[at : at + size]))
        at, turn = at + size, turn + 1
    judge.close()
    assert not judge.fanout.failures
    return recorder


def rows_of(path: Path) -> list[Row]:
    (batch,) = open_source([path]).batches(1 << 20)
    columns = [getattr(batch, name) for name in batch.__dataclass_fields__ if name not in ("cached", "origin")]
    return list(
        zip(*(column.tolist() if isinstance(column, np.ndarray) else column for column in columns), strict=True)
    )


def compared(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [{name: row[name] for name in COMPARED} for row in rows]
    return sorted(found, key=lambda row: (row["detected_at"], row["client"], row["domain"]))


@pytest.mark.parametrize("sizes", [(1,), (7, 1, 64), (5000,)], ids=str)
@pytest.mark.slow
def test_live_traffic_and_its_replay_are_judged_alike(tmp_path: Path, inside: Inside, sizes: Sequence[int]) -> None:
    rows = capture(time.time() + 60)
    path = tmp_path / "capture.tsv"
    lines = [f"{ts!r}\t{client}\t{qname}\t{type_name(qtype)}" for ts, client, qname, qtype in rows]
    path.write_text("\n".join(["ts\tclient\tqname\tqtype", *lines]) + "\n")
    replayed = inside("replay", path, "--json", "-", "--verdicts").rows
    recorded = live(path, tmp_path / "live", sizes)

    queries = [row for row in replayed if row["type"] == "query"]
    assert len(queries) == len(rows)
    assert recorded.queries == queries
    incidents = compared(row for row in replayed if row["type"] == "incident")
    assert len(incidents) > 5, "some were closed and opened again"
    assert compared(iter(recorded.incidents.values())) == incidents
