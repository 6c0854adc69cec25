"""A judge that sends what it judges to ClickHouse: all of it arrives, hunts are asked there, health says how it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents.core.types import batch_of
from agents.runtime.bootstrap import judge_parts, load_settings, make_folders, registry_of
from agents.runtime.health import ProcessHealth, metrics_of
from agents.runtime.heartbeat import PARTS, Heartbeat
from agents.runtime.judging.judge import Judge
from tests.support.clickhouse_server import ClickHouseServer
from tests.support.commands import Inside, is_one_line
from tests.support.detecting import query
from tests.support.listening import wait_until
from tests.support.running import free_port

pytest.importorskip("chdb", reason="needs chdb (requirements-hunt-test.txt)")
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    made = ClickHouseServer(tmp_path_factory.mktemp("clickhouse"))
    yield made
    made.close()


@contextmanager
def judging(data_dir: Path, url: str) -> Iterator[Judge]:
    """A judge with its heartbeat, as a detector's process has them."""
    settings = load_settings(data_dir=data_dir, hunt_url=url, hunt_days=365)
    make_folders(settings)
    judge = Judge(judge_parts(settings))
    judge.start()
    beat = Heartbeat(settings.state_dir / PARTS["listener"], lambda: judge.health().to_json(), every_s=0.1)
    beat.start()
    try:
        yield judge
    finally:
        beat.stop()
        judge.close()


def asked(judge: Judge, count: int, client: str) -> None:
    now = time.time()
    rows = [query(now + i / 100, client, f"host-{i}.hunttest.net") for i in range(count)]
    judge.consume(batch_of(rows), f"{client.replace('.', '')}b{count}")


@pytest.mark.slow
def test_what_is_judged_is_hunted_and_erased_there(server: ClickHouseServer, tmp_path: Path, inside: Inside) -> None:
    settings = {"HUNT_URL": server.url, "HUNT_DAYS": "365", "UPSTREAMS": "127.0.0.1:9"}
    with judging(tmp_path / "data", server.url) as judge:
        asked(judge, 30, "192.0.2.1")
        asked(judge, 20, "192.0.2.2")
        wait_until(lambda: judge.health().hunting["sent"] == 50, 60)
        health = ProcessHealth(tmp_path / "data" / "data", registry_of(load_settings(data_dir=tmp_path / "data")))
        wait_until(lambda: health.components().get("hunting", {}).get("sent") == 50, 30)
        told_of_it = dict(health.components()["hunting"])
        assert (told_of_it.pop("ok"), "error" in told_of_it) == (True, False), "an error, though empty, would be one"
        assert {one.name: one.value for one in metrics_of(judge.health())}["hunt_sent_total"] == 50
        told = inside("doctor", **settings)
        assert "ok   hunt         ClickHouse at 127.0.0.1:" in told.out and "50 queries" in told.out
    by_client = "SELECT client, count(*) AS n FROM queries GROUP BY client ORDER BY client"
    rows = [{"client": "192.0.2.1", "n": 30}, {"client": "192.0.2.2", "n": 20}]
    assert inside("hunt", by_client, "--json", **settings).rows == rows
    assert len(inside("queries", "--limit", "100", "--json").rows) == 50, "the database has them, too"
    (rarest,) = inside("hunt", "rarest", "--json", **settings).rows
    assert (rarest["domain"], rarest["clients"], rarest["queries"]) == ("hunttest.net", 2, 50)
    bad = inside("hunt", "SELECT nothing FROM queries", **settings)
    assert (bad.code, is_one_line(bad)) == (2, True)
    assert "20 in ClickHouse" in inside("client", "erase", "192.0.2.2", "--yes", **settings).out
    assert inside("hunt", by_client, "--json", **settings).rows == rows[:1]


def test_a_server_that_is_away_is_in_health_and_doctor(tmp_path: Path, inside: Inside) -> None:
    url = f"clickhouse+http://u:pass-word@127.0.0.1:{free_port()}/default"
    settings = {"HUNT_URL": url, "HUNT_DAYS": "365", "UPSTREAMS": "127.0.0.1:9"}
    with judging(tmp_path / "data", url) as judge:
        asked(judge, 10, "192.0.2.1")
        wait_until(lambda: judge.health().hunting["failures"] > 0, 60)
        health = ProcessHealth(tmp_path / "data" / "data", registry_of(load_settings(data_dir=tmp_path / "data")))
        wait_until(lambda: not health.components().get("hunting", {"ok": True})["ok"], 30)
        assert health.components()["hunting"]["error"] == "cannot send queries to ClickHouse: see dns-tunnel doctor"
        assert judge.health().stored == 10, "the database does not wait for it"
        done = inside("doctor", **settings)
        assert "BAD  hunt         cannot look at tables: no ClickHouse at 127.0.0.1:" in done.out
        assert "pass-word" not in done.out
    erasing = inside("client", "erase", "192.0.2.1", "--yes", **settings)
    assert (erasing.code, is_one_line(erasing)) == (1, True)
    assert len(inside("queries", "--json").rows) == 10, "nothing was erased"


def test_settings_that_do_not_go_together(tmp_path: Path, inside: Inside) -> None:
    for settings, said in (
        ({"HUNT_URL": "clickhouse+http://h/db"}, "HUNT_DAYS says for how many days"),
        ({"HUNT_URL": "http://h/db", "HUNT_DAYS": "3"}, "cannot use setting HUNT_URL: an address is clickhouse+http"),
    ):
        done = inside("hunt", "SELECT 1", **settings)
        assert (done.code, is_one_line(done)) == (2, True)
        assert said in done.err
