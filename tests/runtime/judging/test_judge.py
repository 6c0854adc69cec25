"""What stands behind the listener's queue: a database that comes later, alerts and lines of the log."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agents.core.types import Incident, Row, batch_of
from agents.detection.detector import empty_verdicts
from agents.detection.known_services import Entry, save_entries
from agents.dns.name import from_text
from agents.learning.baseline import golden_sessions
from agents.runtime.bootstrap import judge_parts, load_settings
from agents.runtime.health import metrics_of
from agents.runtime.heartbeat import Heartbeat, detector_health
from agents.runtime.judging import judge as judge_module
from agents.runtime.judging.judge import Judge
from agents.settings import Settings
from agents.store import Store, open_store
from agents.stream.shared import SAMPLED, level_at
from tests.support.incidents import incident
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.postgres_server import DEAD, PostgresServer, drop_database, make_database
from tests.support.webhook import webhook

pytestmark = pytest.mark.integration

CLIENT = "192.0.2.7"


def tunnel(number: int = 0) -> list[Row]:
    """A tunnel's queries, now; `number` tells clients apart, each of which sends data of its own."""
    names = [_turned(name, number) for name in golden_sessions()["iodine-txt-base32"].qname]
    now = time.time()
    return [
        (now + at / 1000, f"192.0.2.{7 + number}", name, 16, 80, 0, 1, 200, 0, 1.0, "TXT")
        for at, name in enumerate(names)
    ]


def _turned(name: bytes, number: int) -> bytes:
    """A name whose first label is turned by so many bytes."""
    first = name[1 : 1 + name[0]]
    return name[:1] + first[number:] + first[:number] + name[1 + name[0] :]


@contextmanager
def judging(settings: Settings) -> Iterator[Judge]:
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    one = Judge(judge_parts(settings))
    one.start()
    try:
        yield one
    finally:
        one.close()


def put(store: Store, *incidents: Incident) -> None:
    store.write(empty_verdicts("m", incidents), uuid.uuid4().hex)


def fresh(**changed: Any) -> Incident:
    now = time.time()
    return incident(first_seen=now - 90, detected_at=now - 80, last_seen=now - 60, **changed)


@pytest.mark.slow
def test_a_database_that_comes_later_is_opened_and_its_incidents_are_taken_over(
    own_postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_module, "STORE_RETRY_S", 0.1)
    url = make_database(own_postgres.url)
    store = open_store(url)
    store.migrate()
    rows = tunnel()
    with judging(load_settings(data_dir=tmp_path / "probe")) as probe:
        probe.consume(batch_of(rows))
        ((_, domain),) = probe.detector.open_incidents
    put(store, fresh(), fresh(domain=domain), replace(fresh(client="192.0.2.9"), closed_at=time.time()))
    own_postgres.stop()
    begun = time.monotonic()
    try:
        with judging(load_settings(data_dir=tmp_path, database_url=url)) as one:
            assert time.monotonic() - begun < patient(5), "the start waits for no database"
            one.consume(batch_of(rows))
            assert set(one.detector.open_incidents) == {(CLIENT, domain)}
            mine = one.detector.open_incidents[CLIENT, domain].incident_id
            own_postgres.start()
            wait_until(lambda: (CLIENT, "evil.com") in one.detector.open_incidents, 20)
            assert one.detector.open_incidents[CLIENT, domain].incident_id == mine
            wait_until(lambda: one.spool.waiting == 0, 20)
        found = {row.incident_id: row for row in store.incidents(limit=10)}
        assert found[mine].closed_at is None
        assert [row.closed_at is None for row in found.values() if row.domain == domain].count(True) == 1
        assert sum(row.domain == domain for row in found.values()) == 2
    finally:
        store.close()
        drop_database(own_postgres.url, url)


def test_an_incident_of_before_the_restart_is_not_alerted_again(tmp_path: Path) -> None:
    with webhook() as hook:
        settings = load_settings(data_dir=tmp_path, slack_webhook_url=hook.url, burn_in_days=0)
        with judging(settings) as one:
            one.consume(batch_of(tunnel()))
            wait_until(lambda: one.alerts.counts["sent"] == 1)
            severity = next(iter(one.detector.open_incidents.values())).severity
        for _ in range(2):
            with judging(settings) as one:
                one.consume(batch_of(tunnel()))
                ((_, known),) = one.detector.open_incidents.items()
                assert known.severity == severity
                assert one.alerts.counts["suppressed"] == 1
        assert len(hook.got) == 1


def test_a_batch_that_was_kept_before_counts_as_it_was_kept(tmp_path: Path) -> None:
    rows = [(time.time() + n, CLIENT, b"\x03www\x07example\x03com", 1, 40, 0, 1, 50, 0, 1.0, "A") for n in range(40)]
    with judging(load_settings(data_dir=tmp_path)) as one:
        first = one.consume(batch_of(rows), "x", SAMPLED)
        assert first[:4] == (3, 3, 0, 0)
        assert one.consume(batch_of(rows), "x", again=True) == first, "not the 40 that it would store now"
        assert one.consume(batch_of(rows), "y", again=True)[:4] == (40, 40, 0, 0)
        assert one.stored_before("none", batch_of(rows).ts) is None


def test_a_batch_of_which_nothing_can_be_told_is_kept_again_and_stored_once(tmp_path: Path) -> None:
    """Its first process had stored it and was killed, and now the store is away."""
    rows = [(time.time() + n, CLIENT, b"\x03www\x07example\x03com", 1, 40, 0, 1, 50, 0, 1.0, "A") for n in range(40)]
    batch = batch_of(rows)
    with judging(load_settings(data_dir=tmp_path)) as one:
        assert one.consume(batch, "x")[:4] == (40, 40, 0, 0)
    with judging(load_settings(data_dir=tmp_path, database_url=DEAD)) as one:
        assert one.consume(batch, "x", again=True)[:4] == (40, 0, 40, 0)
        assert one.spool.counts.lost == 0
    with judging(load_settings(data_dir=tmp_path)) as one:
        wait_until(lambda: one.spool.counts.replayed == 40)
    with closing(open_store(load_settings(data_dir=tmp_path).store_url)) as store:
        assert len(store.queries(limit=100)[0]) == 40


@pytest.mark.parametrize(("fill", "stored", "left_out"), [(0.2, 50, 0), (0.3, 50, 10), (0.6, 13, 10)])
def test_first_reasons_are_left_out_then_rows_that_are_normal(
    tmp_path: Path, fill: float, stored: int, left_out: int
) -> None:
    """Forty plain names, of which three are kept at most, and ten that are odd and no incident."""
    odd = hashlib.sha256(b"").hexdigest()
    labels = [odd[at : at + 40] if at < 10 else f"host{at}" for at in range(50)]
    names = [from_text(f"{label}.d{at}.test") for at, label in enumerate(labels)]
    rows = [(time.time() + at, CLIENT, name, 1, 40, 0, 1, 50, 0, 1.0, "A") for at, name in enumerate(names)]
    with judging(load_settings(data_dir=tmp_path)) as one:
        assert one.consume(batch_of(rows), "x", level_at(fill, 0))[:4] == (stored, stored, 0, left_out)


def test_known_services_are_taken_up_only_where_they_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at every flow, so midnight, or a file that was written anew as it was, must not bring it about."""
    settings = load_settings(data_dir=tmp_path)
    path = tmp_path / "data" / "known_services.csv"
    held = Entry("keys.vendor.test", 10.0, "r", "a", "2026-01-01", "9999-12-31")
    path.parent.mkdir()
    save_entries(path, [held])
    one = Judge(judge_parts(settings))
    taken: list[float] = []
    monkeypatch.setattr(one.detector, "reload_services", lambda new: taken.append(new.factor(from_text("x.late.test"))))
    one._poll_known()
    os.utime(path, (1, 1))
    one._poll_known()
    assert taken == []
    save_entries(path, [held, replace(held, suffix="late.test", factor=5.0)])
    one._poll_known()
    save_entries(path, [held, replace(held, suffix="late.test", factor=5.0, expires="2026-01-02")])
    one._poll_known()
    assert taken == [5.0, 1.0]
    one.close()


def test_opened_incidents_are_logged_once_and_a_few_a_batch(tmp_path: Path) -> None:
    with capture_logs() as lines, judging(load_settings(data_dir=tmp_path)) as one:
        rows = sorted(row for number in range(5) for row in tunnel(number))
        one.consume(batch_of(rows))
        one.consume(batch_of(rows[-5:]))
        ((_, domain), *_) = one.detector.open_incidents
    opened = [line for line in lines if line["event"] == "incident_opened"]
    assert len(opened) == judge_module.LOGGED_MAX
    assert {line["domain"] for line in opened} == {domain}
    assert [line.get("more") for line in opened] == [None, None, 2]
    assert all(line["reason"] and line["severity"] in ("HIGH", "CRITICAL") for line in opened)
    assert {line["log_level"] for line in opened} == {"warning"}


def test_an_incident_that_becomes_worse_is_logged_once_more(tmp_path: Path) -> None:
    with capture_logs() as lines, judging(load_settings(data_dir=tmp_path)) as one:
        for row in tunnel():
            one.consume(batch_of([row]))
    with capture_logs() as later, judging(load_settings(data_dir=tmp_path)) as one:
        one.consume(batch_of(tunnel()))
    told = [line for line in lines if line["event"].startswith("incident_")]
    assert [(line["event"], line["severity"]) for line in told] == [
        ("incident_opened", "HIGH"),
        ("incident_escalated", "CRITICAL"),
    ]
    assert {line["log_level"] for line in told} == {"warning"}
    assert told[0]["domain"] == told[1]["domain"]
    assert [line for line in later if line["event"].startswith("incident_")] == [], "the log knows it"


def test_what_people_looked_up_is_for_the_owner_alone_to_read(tmp_path: Path) -> None:
    def modes() -> dict[str, int]:
        found = [path for path in (tmp_path / "data").rglob("*") if path.is_file() and "lock" not in path.name]
        return {f"{path.parent.name}/*{path.suffix}": path.stat().st_mode & 0o777 for path in found}

    before = os.umask(0o022)
    try:
        with webhook(503) as hook:
            with judging(load_settings(data_dir=tmp_path, slack_webhook_url=hook.url, burn_in_days=0)) as one:
                one.consume(batch_of(tunnel()))
                wait_until(hook.arrived.is_set)
                there = modes()
            with judging(load_settings(data_dir=tmp_path, database_url=DEAD)) as one:
                one.consume(batch_of(tunnel()))
                wait_until(lambda: one.spool.waiting == 1)
    finally:
        os.umask(before)
    there |= modes()
    kinds = {"data/*.db", "data/*.db-wal", "data/*.db-shm", "data/*.json", "data/*.snapshot"}
    assert kinds | {"slack/*.json", "spool/*.npz"} <= there.keys()
    assert there == dict.fromkeys(there, 0o600)


def test_alerts_are_counted_for_metrics_and_the_threads_are_told(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    path = settings.state_dir / "detector.json"
    with judging(settings) as one:
        assert one.alive
        beat = Heartbeat(path, lambda: one.health().to_json())
        beat.start()
        found = {metric.name for metric in metrics_of(detector_health(settings.state_dir)[1])}
        beat.stop()
    names = {"alerts_sent_total", "alerts_failed_total", "alerts_suppressed_total", "alerts_dropped_total"}
    assert names <= found
    assert not one.alive
