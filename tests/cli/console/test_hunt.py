"""`dns-tunnel hunt`, and what days in files mean for other commands: retention, erasure, doctor, scheduler."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agents.runtime import bootstrap
from agents.runtime.bootstrap import load_settings
from agents.settings import Settings
from agents.store.hunting.days import day_text
from agents.store.hunting.hunts import HUNTS
from tests.support.commands import Inside, environment, is_one_line
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.verdicts import DAY_S, verdicts

HAVE = pytest.mark.skipif("not __import__('importlib.util').util.find_spec('duckdb')", reason="needs the extra hunt")
TODAY = int(time.time() // DAY_S)


def filled(data_dir: Path, days: int = 4) -> Settings:
    """A DATA_DIR with ten queries on each of the last days: eight of one client, two of another."""
    settings = load_settings(data_dir=data_dir)
    store = bootstrap.store_of(settings)
    store.migrate()
    for day in range(TODAY - days + 1, TODAY + 1):
        ts = [day * DAY_S + i / 10 for i in range(10)]
        names = [f"host-{i}.site-{i // 8}-{day}.example" for i in range(10)]
        store.write(verdicts(names, ts=ts, client=["192.0.2.1"] * 8 + ["192.0.2.2"] * 2), f"day-{day}")
    store.close()
    return settings


def files_in(data_dir: Path) -> list[str]:
    return sorted(path.parent.name for path in (data_dir / "data" / "hunt").glob("day=*/*.parquet"))


@HAVE
def test_rows_as_text_json_and_csv(tmp_path: Path, inside: Inside) -> None:
    filled(tmp_path / "data")
    sql = (
        "SELECT client, count(*) AS n, '=1+1' AS formula, min(ts) AS first FROM queries GROUP BY client ORDER BY n DESC"
    )
    shown = inside("hunt", sql)
    assert (shown.code, shown.out.splitlines()[0].split()) == (0, ["client", "n", "formula", "first"])
    assert shown.out.splitlines()[1].split()[:2] == ["192.0.2.1", "32"]
    first = f"{day_text(TODAY - 3)}T00:00:00.000000Z"
    assert inside("hunt", sql, "--json").rows[0] == {"client": "192.0.2.1", "n": 32, "formula": "=1+1", "first": first}
    assert inside("hunt", sql, "--csv").out.splitlines()[1] == f"192.0.2.1,32,'=1+1,{first}"
    few = inside("hunt", "SELECT qname FROM queries", "--limit", "3", "--json")
    assert (len(few.rows), few.code) == (3, 0)
    assert "more than 3 rows" in few.err


@HAVE
def test_values_of_every_type_are_json(tmp_path: Path, inside: Inside) -> None:
    filled(tmp_path / "data", 1)
    sql = "SELECT 'nan'::DOUBLE a, 1.5::DECIMAL(9,2) b, [1, NULL] c, {'x': DATE '2026-01-01'} d, 'x'::BLOB e"
    (row,) = inside("hunt", sql, "--json").rows
    assert row == {"a": None, "b": 1.5, "c": [1, None], "d": {"x": "2026-01-01"}, "e": "78"}


@HAVE
def test_what_a_name_does_to_a_terminal(tmp_path: Path, inside: Inside) -> None:
    filled(tmp_path / "data", 1)
    shown = inside("hunt", "SELECT chr(27) || '[31m' AS red")
    assert "\x1b" not in shown.out
    assert r"\027[31m" in shown.out


@HAVE
@pytest.mark.parametrize("name", HUNTS)
def test_each_named_hunt_answers(tmp_path: Path, inside: Inside, name: str) -> None:
    filled(tmp_path / "data")
    done = inside("hunt", name, "--json", "--days", "2")
    assert done.code == 0
    if name == "failing-domains":
        assert done.rows == []
    elif name == "new-domains":
        assert {row["domain"] for row in done.rows} >= {f"site-0-{TODAY}.example"}
        assert f"site-0-{TODAY - 3}.example" not in {row["domain"] for row in done.rows}
    else:
        assert done.rows
    assert name in inside("hunt", "--list").out


@HAVE
@pytest.mark.parametrize(
    "words", [["nosuch"], [], ["SELECT nothing FROM queries"], ["DROP VIEW queries"], ["SELECT 1", "--limit", "0"]]
)
def test_what_cannot_be_hunted_is_bad_usage(tmp_path: Path, inside: Inside, words: list[str]) -> None:
    filled(tmp_path / "data", 1)
    done = inside("hunt", *words)
    assert done.code == 2
    assert is_one_line(done) or "usage:" in done.err


@pytest.mark.slow
@HAVE
def test_tidy_writes_days_before_it_drops_them(tmp_path: Path, inside: Inside) -> None:
    filled(tmp_path / "data", 8)
    settings = {"HUNT_DAYS": "365", "QUERY_RETENTION_DAYS": "5"}
    done = inside("tidy", **settings)
    assert done.code == 0, done.err
    assert files_in(tmp_path / "data") == [f"day={day_text(TODAY - ago)}" for ago in range(7, 0, -1)]
    count = "SELECT count(*) AS n, count(DISTINCT ts::DATE) AS days FROM queries"
    assert inside("hunt", count, "--json", **settings).rows == [{"n": 80, "days": 8}]
    assert inside("hunt", count, "--json", "--closed").rows == [{"n": 70, "days": 7}]
    assert "7 days in files" in inside("doctor", UPSTREAMS="127.0.0.1:9", **settings).out
    inside("tidy", HUNT_DAYS="3", QUERY_RETENTION_DAYS="5")
    assert len(files_in(tmp_path / "data")) == 3, "fewer days were asked for"
    inside("tidy", QUERY_RETENTION_DAYS="5")
    assert len(files_in(tmp_path / "data")) == 3, "HUNT_DAYS=0 writes none, and leaves those alone"
    assert "which nothing deletes" in inside("doctor", UPSTREAMS="127.0.0.1:9").out


@HAVE
def test_doctor_says_which_days_no_scheduler_has_written(tmp_path: Path, inside: Inside) -> None:
    filled(tmp_path / "data")
    done = inside("doctor", UPSTREAMS="127.0.0.1:9", HUNT_DAYS="30")
    assert f"BAD  hunt         cannot hunt in 2 days from {day_text(TODAY - 3)} on" in done.out


@HAVE
def test_an_erased_client_is_gone_from_files(tmp_path: Path, inside: Inside) -> None:
    filled(tmp_path / "data")
    inside("tidy", HUNT_DAYS="30")
    store = bootstrap.store_of(load_settings(data_dir=tmp_path / "data"))
    store.drop_old(TODAY)
    store.close()
    exported = inside("client", "export", "192.0.2.2")
    assert [row["type"] for row in exported.rows] == ["query"] * 8
    assert len({row["qname"] for row in exported.rows}) == 8
    assert "6 in files" in inside("client", "erase", "192.0.2.2", "--yes").out
    assert inside("hunt", "SELECT DISTINCT client FROM queries", "--json").rows == [{"client": "192.0.2.1"}]


def test_without_duckdb_every_way_says_what_to_install(
    tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)  # how Python marks what cannot be imported
    filled(tmp_path / "data", 2)
    folder = tmp_path / "data" / "data" / "hunt" / f"day={day_text(TODAY - 1)}"
    folder.mkdir(parents=True)
    (folder / "queries.parquet").touch()
    for words, settings in (
        (["hunt", "SELECT 1"], {}),
        (["tidy"], {"HUNT_DAYS": "30"}),
        (["client", "erase", "192.0.2.1", "--yes"], {}),
    ):
        done = inside(*words, **settings)
        assert (done.code, is_one_line(done)) == (2, True), (words, done)
        assert "duckdb is not installed (pip install -r requirements-hunt.txt)" in done.err
    assert len(inside("client", "export", "192.0.2.2").rows) == 0
    assert len(inside("queries", "--json").rows) == 20, "nothing was erased"


@pytest.mark.slow
@HAVE
def test_the_scheduler_writes_days_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "data")
    code = (
        "import sys; from agents.runtime import services; services.DAYS_EVERY_S = 0.2;"
        "from agents.cli.parser import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "--data-dir", str(tmp_path / "data"), "schedule"]
    running = subprocess.Popen(command, cwd=tmp_path, env=environment(HUNT_DAYS="30", COMPILED="off"))
    try:
        wait_until(lambda: len(files_in(tmp_path / "data")) == 3, 60)
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(patient(30)) == 0
