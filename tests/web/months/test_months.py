"""Hunts over months by API and page: both engines alike, bounded, out of the process, in one clear line where not."""

from __future__ import annotations

import csv
import html
import io
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from agents.core.errors import AgentsError
from agents.core.types import Severity
from agents.runtime.hunt_process import HuntDesk
from agents.store.hunting.answers import HuntFound
from agents.store.hunting.clickhouse import ClickHouse
from agents.store.hunting.days import DayFiles, day_text
from agents.store.hunting.hunts import HUNTS, HuntQuestion
from agents.store.hunting.place import HuntPlace
from agents.store.hunting.sending import HuntSink
from agents.web import Parts, create_app
from agents.web.app import attach
from tests.support.clickhouse_server import ClickHouseServer
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.running import free_port
from tests.support.verdicts import DAY_S, verdicts
from tests.web.test_console import AUTH, HOSTILE_TEXT, World, vars_of

pytestmark = pytest.mark.integration
DUCKDB = pytest.mark.skipif("not __import__('importlib.util').util.find_spec('duckdb')", reason="needs the extra hunt")
PAGE = "/console/hunt/months"
TODAY = int(time.time() // DAY_S)
DAYS = [TODAY - ago for ago in (5, 4, 2, 0)]
"""Days with queries: one is missing before the last two days, and one is too new for a file."""
ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a, b) = 3"
MARKUP = "<script>alert(1)</script>"


def hunting(folder: Path, url: str = "", days: int = 365, at_once: int = 2) -> World:
    """An application whose hunts are answered from files below a folder, or at an address."""
    made = World(folder)
    place = HuntPlace(str(folder / "hunt"), 256, days, f"sqlite:///{folder / 'queries.db'}", url)
    made.parts = Parts(**(vars_of(made.parts) | {"hunts": HuntDesk(place, at_once)}))
    made.app = create_app(made.parts)
    return made


def fill(world: World, sink: HuntSink | None = None) -> None:
    """Ten queries on each of DAYS: eight of one client below one domain, two of another below a domain of the day."""
    for day in DAYS:
        ts = [day * DAY_S + i / 10 for i in range(10)]
        names = [f"host-{i}.site.example" if i < 8 else f"h{i}.day-{day}.example" for i in range(10)]
        client = ["192.0.2.1"] * 8 + ["192.0.2.2"] * 2
        some = verdicts(names, ts=ts, client=client, severity=Severity.HIGH if day == DAYS[0] else Severity.NORMAL)
        world.store.write(some, f"day-{day}")
        if sink is not None:
            sink.accept(replace(some, batch_id=f"day-{day}"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("files")
    made = hunting(folder)
    fill(made)
    assert DayFiles(made.store, folder / "hunt", 256).write() == 3
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    server = ClickHouseServer(tmp_path_factory.mktemp("clickhouse"))
    made = hunting(tmp_path_factory.mktemp("clickhouse_world"), server.url)
    sink = HuntSink(ClickHouse(server.url), tmp_path_factory.mktemp("spool") / "hunt", 3650, 1 << 30, every_s=0.01)
    fill(made, sink)
    wait_until(lambda: sink.counts.sent >= 40 and not sink.state()["waiting"], 60)
    sink.close()
    yield made
    made.store.close()
    server.close()


@pytest.fixture(
    params=[
        pytest.param("files", marks=DUCKDB),
        pytest.param("clickhouse", marks=pytest.mark.skipif(
            "not __import__('importlib.util').util.find_spec('chdb')", reason="needs chdb (requirements-hunt-test.txt)"
        )),
    ]
)  # fmt: skip
def world(request: pytest.FixtureRequest) -> World:
    found: World = request.getfixturevalue(request.param)
    return found


def sent(world: World, path: str, **parameters: Any) -> httpx.Response:
    return world.call("GET", path, headers=AUTH, params=parameters or None)


def refused(answer: httpx.Response, status: int, *words: str) -> None:
    """One clear line."""
    text = answer.json()["error"]
    assert (answer.status_code, "\n" in text, text[:7]) == (status, False, "cannot "), text
    for word in words:
        assert word in text


@pytest.mark.slow
def test_a_hunt_with_a_name_is_rows_and_says_which_days_it_knows(world: World) -> None:
    listed = sent(world, "/hunts").json()
    assert [one["name"] for one in listed["hunts"]] == list(HUNTS)
    assert {"name": "rcode", "meaning": "code of the answer: 3 is NXDOMAIN"} in listed["columns"]
    assert listed["engine"] in {"DuckDB", "ClickHouse"}
    found = sent(world, "/hunts/most-names", days=10, limit=2).json()
    assert found["columns"] == ["client", "domain", "names", "queries", "longest"]
    assert found["rows"][0] == {
        "client": "192.0.2.1", "domain": "site.example", "names": 8, "queries": 32, "longest": 7,
    }  # fmt: skip
    assert (len(found["rows"]), found["cut"]) == (2, True)
    assert found["days"] == {
        "first": day_text(TODAY - 5), "last": day_text(TODAY), "count": 4,
        "missing": [day_text(TODAY - 3), day_text(TODAY - 1)],
    }  # fmt: skip
    few = sent(world, "/hunts/rarest-domains", days=3).json()
    assert {row["domain"] for row in few["rows"]} == {
        "site.example",
        f"day-{TODAY - 2}.example",
        f"day-{TODAY}.example",
    }


@pytest.mark.slow
def test_a_select_is_rows_and_a_file(world: World) -> None:
    sql = (
        "SELECT client, count(*) AS n, min(ts) AS first, '=1+1' AS formula FROM queries GROUP BY client ORDER BY n DESC"
    )
    found = sent(world, "/hunts/sql", sql=sql).json()
    first = f"{day_text(TODAY - 5)}T00:00:00.000000Z"
    assert found["rows"][0] == {"client": "192.0.2.1", "n": 32, "first": first, "formula": "=1+1"}
    assert (found["cut"], found["sql"]) == (False, sql)
    table = sent(world, "/hunts/sql/export", sql=sql)
    assert table.headers["content-disposition"] == 'attachment; filename="hunt.csv"'
    assert list(csv.reader(io.StringIO(table.text)))[:2] == [
        ["client", "n", "first", "formula"],
        ["192.0.2.1", "32", first, "'=1+1"],
    ]
    lines = sent(world, "/hunts/most-names/export", days=10, format="json").text.splitlines()
    assert len(lines) == 5


@pytest.mark.slow
def test_a_hunt_changes_nothing_and_its_faults_are_one_line(world: World) -> None:
    for sql in ("selec 1", "SELECT nothing FROM queries", "DROP TABLE queries", "SELECT 1; SELECT 2"):
        refused(sent(world, "/hunts/sql", sql=sql), 422, "cannot hunt: ")
    assert sent(world, "/hunts/sql", sql="SELECT count(*) AS n FROM queries").json()["rows"] == [{"n": 40}]


@pytest.mark.slow
def test_the_page_has_the_rows_with_links(world: World) -> None:
    shown = world.page(f"{PAGE}?hunt=most-names&days=10")
    text = shown.text
    assert shown.status_code == 200
    assert '<td class="name client"><a href="/console/clients/192.0.2.1?range=last%2030d">192.0.2.1</a></td>' in text
    assert '<a href="/console/domains/site.example?range=last%2030d">site.example</a>' in text
    said = (
        f"5 rows, in [0-9.]+ s. Of 4 days from {day_text(TODAY - 5)} to {day_text(TODAY)} .UTC.; there are no queries"
    )
    assert re.search(f"{said} of {day_text(TODAY - 3)}, {day_text(TODAY - 1)}", text)
    assert "SELECT client, domain, " in text, "what was asked can be changed"
    (export,) = re.findall(r'<a href="(/hunts/most-names/export[^"]+)" download>CSV', text)
    assert len(sent(world, html.unescape(export)).text.splitlines()) == 6
    for name in HUNTS:
        assert f'href="{PAGE}?hunt={name}&amp;days=10"' in text
    assert 'aria-current="true">Most names</a>' in text
    sql = f"SELECT '{MARKUP}' AS a, severity, ts, qtype FROM queries ORDER BY ts"
    text = world.call("GET", PAGE, headers={"Cookie": world.cookie()}, params={"sql": sql, "limit": 3}).text
    assert "&lt;script&gt;alert(1)" in text and MARKUP not in text
    assert '<span class="badge high">HIGH</span>' in text and '<td class="id">16 TXT</td>' in text
    assert "3 rows, and there are more" in text
    assert f'<time datetime="{day_text(TODAY - 5)}T00:00:00Z">' in text


@pytest.mark.slow
def test_a_fault_is_said_on_the_page_and_the_text_stays(world: World) -> None:
    shown = world.page(f"{PAGE}?sql=SELECT+nothing+FROM+queries")
    assert shown.status_code == 422
    assert 'role="alert">cannot hunt: ' in shown.text
    assert "SELECT nothing FROM queries</textarea>" in shown.text
    assert world.page(f"{PAGE}?hunt=nosuch").status_code == 422


@DUCKDB
@pytest.mark.slow
def test_names_are_hostile_text(tmp_path: Path) -> None:
    world = hunting(tmp_path)
    world.store.write(verdicts([HOSTILE_TEXT], client="192.0.2.9"), "b1")
    text = world.page(f"{PAGE}?sql=SELECT+qname,domain,client+FROM+queries").text
    assert "alert(1)" in text and MARKUP not in text
    world.store.close()


@DUCKDB
@pytest.mark.slow
def test_days_in_files_alone(files: World) -> None:
    found = sent(files, "/hunts/sql", sql="SELECT count(*) AS n FROM queries", closed="true").json()
    assert (found["rows"], found["days"]["last"], found["days"]["count"]) == ([{"n": 30}], day_text(TODAY - 2), 3)


@DUCKDB
@pytest.mark.slow
def test_time_and_memory_are_bounded_and_nothing_is_left(files: World) -> None:
    refused(sent(files, "/hunts/sql", sql=ENDLESS, seconds=1), 503, "cannot hunt: no answer within 1 s")
    large = "SELECT repeat('x', 100000000) FROM range(40)"
    refused(sent(files, "/hunts/sql", sql=large, seconds=45), 503, "emory")
    shown = files.page(f"{PAGE}?seconds=1&sql={ENDLESS}")
    assert (shown.status_code, "cannot hunt: no answer within 1 s" in shown.text) == (503, True)
    assert [path.name for path in _folder(files).iterdir() if path.name.startswith(".work")] == []


def _folder(world: World) -> Path:
    return Path(world.parts.hunts._place.folder)  # type: ignore[union-attr]


@DUCKDB
@pytest.mark.slow
def test_more_hunts_at_once_than_may_run_are_refused_and_the_others_go_on(tmp_path: Path) -> None:
    world, ends = hunting(tmp_path, at_once=1), threading.Event()
    desk = world.parts.hunts
    assert desk is not None
    errors: list[str] = []

    def endless() -> None:
        try:
            desk.ask(HuntQuestion(ENDLESS, seconds=45), ends.is_set)
        except AgentsError as error:
            errors.append(str(error))

    running = threading.Thread(target=endless)
    running.start()
    try:
        wait_until(lambda: any(tmp_path.glob("hunt/.work-*")), 60)
        answer = sent(world, "/hunts/most-names")
        refused(answer, 429, "cannot hunt: 1 hunts are running")
        assert int(answer.headers["retry-after"]) > 0
        assert world.page(f"{PAGE}?hunt=most-names").status_code == 429
        assert sent(world, "/queries").status_code == 200
    finally:
        ends.set()
        running.join(patient(30))
    assert errors == ["cannot hunt: nobody waits for the answer"]
    assert sent(world, "/hunts/most-names").status_code == 200
    assert list(tmp_path.glob("hunt/.work-*")) == []
    world.store.close()


class NotingDesk(HuntDesk):
    """Which keeps what came of its hunts."""

    def __init__(self, desk: HuntDesk) -> None:
        super().__init__(desk._place, 1)
        self.ended: list[str] = []

    def ask(self, question: HuntQuestion, stopped: Callable[[], bool]) -> HuntFound:
        try:
            found = super().ask(question, stopped)
        except AgentsError as error:
            self.ended.append(str(error))
            raise
        self.ended.append("")
        return found


@contextmanager
def served(world: World) -> Iterator[tuple[str, int]]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(world.app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join(patient(20))


@DUCKDB
@pytest.mark.slow
def test_a_client_that_goes_away_ends_its_hunt(tmp_path: Path) -> None:
    world = hunting(tmp_path)
    assert isinstance(world.parts.hunts, HuntDesk)
    desk = NotingDesk(world.parts.hunts)
    attach(world.app, Parts(**(vars_of(world.parts) | {"hunts": desk})))
    with served(world) as address:
        with socket.create_connection(address) as client:
            wanted = f"GET /hunts/sql?seconds=45&sql={ENDLESS.replace(' ', '+')} HTTP/1.1\r\nHost: x\r\n"
            client.sendall(f"{wanted}Authorization: {AUTH['Authorization']}\r\n\r\n".encode())
            wait_until(lambda: any(tmp_path.glob("hunt/.work-*")), 60)
        wait_until(lambda: bool(desk.ended), 60)
        assert desk.ended == ["cannot hunt: nobody waits for the answer"], "before its 45 s are over"
        assert not any(tmp_path.glob("hunt/.work-*"))
        base = f"http://{address[0]}:{address[1]}"
        answer = httpx.get(f"{base}/hunts/most-names", headers=AUTH, timeout=patient(60))
        assert answer.status_code == 200
    world.store.close()


@DUCKDB
@pytest.mark.slow
def test_a_hunt_ends_with_the_process_that_asked(tmp_path: Path) -> None:
    code = (
        "import sys; from agents.runtime.hunt_process import *; desk = HuntDesk(HuntPlace(*eval(sys.argv[1])));"
        "desk.ask(HuntQuestion(sys.argv[2], seconds=45), lambda: False)"
    )
    world = hunting(tmp_path)
    place = (str(tmp_path / "hunt"), 256, 365, f"sqlite:///{tmp_path / 'queries.db'}", "")
    asking = subprocess.Popen([sys.executable, "-c", code, repr(place), ENDLESS])
    try:
        wait_until(lambda: any(tmp_path.glob("hunt/.work-*")), 60)
        (hunt,) = Path(f"/proc/{asking.pid}/task/{asking.pid}/children").read_text("ascii").split()
    finally:
        asking.kill()
        asking.wait(patient(30))
    wait_until(lambda: not Path(f"/proc/{hunt}/exe").exists() and not any(tmp_path.glob("hunt/.work-*")), 30)
    world.store.close()


def test_where_nothing_is_set_up_the_page_and_the_api_say_what_to_set(tmp_path: Path) -> None:
    world = hunting(tmp_path, days=0)
    text = world.page(PAGE).text
    for word in ("HUNT_DAYS=365", "HUNT_URL", "requirements-hunt.txt"):
        assert word in text
    assert "<textarea" not in text
    for path in ("/hunts/most-names", "/hunts/sql?sql=SELECT+1", "/hunts/sql/export?sql=SELECT+1"):
        refused(sent(world, path), 503, "HUNT_DAYS=365", "HUNT_URL", "requirements-hunt.txt")
    assert sent(world, "/hunts").json()["engine"] == ""
    assert '<a href="/console/hunt/months"' in world.page("/console/hunt").text
    world.store.close()


@pytest.mark.slow
def test_without_duckdb_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "duckdb.py").write_text("raise ImportError", "utf-8")
    monkeypatch.syspath_prepend(tmp_path / "none")
    world = hunting(tmp_path)
    said = "duckdb is not installed (pip install -r requirements-hunt.txt)"
    refused(sent(world, "/hunts/sql?sql=SELECT+1"), 503, said)
    assert said in world.page(f"{PAGE}?hunt=most-names").text
    world.store.close()


@pytest.mark.slow
def test_a_server_that_is_away_is_said_without_its_password(tmp_path: Path) -> None:
    world = hunting(tmp_path, f"clickhouse+http://u:pass-word@127.0.0.1:{free_port()}/default")
    answer = sent(world, "/hunts/most-names")
    refused(answer, 503, "cannot hunt: no ClickHouse at 127.0.0.1:")
    assert "pass-word" not in answer.text
    world.store.close()


def test_what_is_no_hunt_is_refused_before_anything_runs(tmp_path: Path) -> None:
    world = hunting(tmp_path)
    refused(sent(world, "/hunts/nosuch"), 404, "there are rarest-domains, ")
    refused(sent(world, "/hunts/sql"), 422, "sql")
    refused(sent(world, "/hunts/sql", sql="x" * 4001), 422)
    refused(sent(world, "/hunts/most-names", seconds=46), 422, "seconds")
    refused(sent(world, "/hunts/most-names", limit=1001), 422, "limit")
    refused(sent(world, "/hunts/most-names", day=3), 422, "'day'")
    text = world.page(PAGE).text
    assert "<summary>Columns of <code>queries</code></summary>" in text and "registered domain" in text
    world.store.close()
