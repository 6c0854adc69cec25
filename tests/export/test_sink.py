"""From incidents to records: once when new, graver or over; kept on disk while a way out is away."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agents.alerting.delivery import RefusedError
from agents.cli.parser import main
from agents.core.errors import NotifyError
from agents.core.types import Incident, Severity
from agents.export.record import Record
from agents.export.sink import UPDATE_S, ExportSink
from tests.support.incidents import incident
from tests.support.patience import patient
from tests.support.running import wait_for
from tests.support.verdicts import verdicts


class Kept:
    """A way out that keeps records, or fails as it is told."""

    def __init__(self, name: str = "kept", error: Exception | None = None) -> None:
        self.name, self.error = name, error
        self.got: list[Record] = []
        self.tried = threading.Event()

    async def send(self, message: Record) -> None:
        self.tried.set()
        if self.error is not None:
            raise self.error
        self.got.append(message)


def heard(folder: Path, *incidents: Incident, least: Severity = Severity.SUSPICIOUS) -> list[tuple[str, str]]:
    kept = Kept()
    sink = ExportSink([kept], folder, "https://t.example", least)
    for one in incidents:
        sink.accept(verdicts(["a.evil.com"], incidents=(one,)))
        wait_for(lambda: not any((folder / "kept").glob("*.json")), "records sent")
    sink.close()
    return [(str(one.event), one.severity.name) for one in kept.got]


def test_an_incident_is_told_when_it_is_new_graver_and_over(tmp_path: Path) -> None:
    one = incident(severity=Severity.SUSPICIOUS)
    graver = incident(severity=Severity.HIGH, queries=130)
    later = incident(severity=Severity.HIGH, queries=900, last_seen=one.last_seen + UPDATE_S)
    closed = incident(severity=Severity.HIGH, queries=900, last_seen=later.last_seen, closed_at=later.last_seen)
    told = heard(tmp_path, one, one, graver, graver, later, closed, closed)
    assert told == [("new", "SUSPICIOUS"), ("update", "HIGH"), ("update", "HIGH"), ("ended", "HIGH")]
    assert heard(tmp_path, one, graver, least=Severity.HIGH) == [("new", "HIGH")]


def test_what_a_way_out_did_not_take_is_sent_by_the_next_process(tmp_path: Path) -> None:
    away = Kept(error=NotifyError("cannot send to kept: no connection"))
    sink = ExportSink([away], tmp_path)
    sink.accept(verdicts(["a.evil.com"], incidents=(incident(),)))
    assert away.tried.wait(patient(10))
    wait_for(lambda: sink.states()["export_kept"]["failures"] == 1, "a failure")
    sink.close()
    kept = Kept()
    again = ExportSink([kept], tmp_path)
    wait_for(lambda: len(kept.got) == 1, "the record")
    again.remember([incident()])
    again.accept(verdicts(["a.evil.com"], incidents=(incident(),)))
    again.close()
    assert len(kept.got) == 1 and again.counts["sent"] == 1


def test_what_was_refused_waits_for_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data" / "exports"
    sink = ExportSink([Kept(error=RefusedError("cannot send to kept: it answered 400"))], folder)
    sink.accept(verdicts(["a.evil.com"], incidents=(incident(),)))
    wait_for(lambda: sink.counts["failed"] == 1, "giving up")
    sink.close()
    run = ("--data-dir", str(tmp_path), "outbox")
    assert main([*run, "list"]) == 0
    assert "given up" in (shown := capsys.readouterr().out) and "evil.com" in shown
    assert main([*run, "retry", "export-kept/7"]) == 1
    assert "cannot find export-kept/7" in capsys.readouterr().err
    assert main([*run, "retry", "export-kept/1"]) == 0
    kept = Kept()
    again = ExportSink([kept], folder)
    wait_for(lambda: len(kept.got) == 1, "the record")
    again.close()
    assert main([*run, "drop", "all"]) == 0
    assert "0 messages dropped" in capsys.readouterr().out
