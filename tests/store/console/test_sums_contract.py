"""Pages say the same whether hours are summed up or counted, on SQLite and on a real Postgres."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, func, select

from agents.core.errors import StoreError
from agents.core.types import HOUR_S, Severity, Verdicts, marked
from agents.store import Store
from agents.store.console import ConsoleStore, searching
from agents.store.console.summing import QuerySums
from agents.store.console.tables import QUERY_HOURS, QUERY_KINDS, QUERY_NAMES
from agents.store.console.terms import parse_search
from agents.store.feedback.clients import ClientRecords
from agents.store.rows import LATE_HOURS, QUERIES
from tests.support.verdicts import START, verdicts

pytestmark = pytest.mark.contract
DAYS, ROWS, CLIENTS = 4, 400, ("10.0.0.1", "10.0.0.2", "10.0.1.3", "2001:db8::7")
HALF = int(START + DAYS * 43_200) // 3_600
"""An hour in the middle."""
SPANS = {
    "all": (START - 10.0, START + DAYS * 86_400.0),
    "odd ends": (START + 86_400 + 1_234.5, START + 2 * 86_400 + 7_654.25),
    "days": (START + 3_000.0, START + 3 * 86_400 + 77.0),
    "minutes": (START + 90_000.0, START + 91_000.0),
}
SEARCHES = (
    "", "H1", "h1*.shop0.example", "rare7x", "nosuchname", "type:NULL", "rcode:SERVFAIL",
    "type:NULL rcode:NXDOMAIN", "type:NULL severity:high", "type:WKS", "severity:critical",
    "score>0.8", "why:encoded", "10.0.0.0/24 type:A", "h2 severity:high", "shop1.example",
    "h1.shop0.example", "h1.shop0.example shop1.example", "h1.shop0.example type:A",
    "*.shop2.example shop3.example", "2026-01-02", "rare7x 2026-01-03..", "state:new", "10.0.0.1 h1",
)  # fmt: skip


def made(seed: int, rows: int = ROWS, days: int = DAYS) -> Verdicts:
    """Queries of few clients for few names, with something rare among them."""
    draw = random.Random(seed)
    names = [
        f"{'H' if draw.random() < 0.5 else 'h'}{draw.randrange(9)}.shop{draw.randrange(6)}.example" for _ in range(rows)
    ]
    for at in range(3):
        names[draw.randrange(rows)] = f"Rare{draw.randrange(7, 9)}x.shop{at}.example"
    ts = sorted(START + draw.random() * days * 86_400 for _ in range(rows))
    found = verdicts(names, ts=ts, client=[draw.choice(CLIENTS) for _ in range(rows)])
    level = np.array([draw.choice([0] * 40 + [1, 2, 3]) for _ in range(rows)], np.uint8)
    queries = replace(
        found.queries,
        qtype=np.array([draw.choice([1] * 9 + [28] * 9 + [10]) for _ in range(rows)], np.uint16),
        rcode=np.array([draw.choice([0] * 20 + [3] * 4 + [2]) for _ in range(rows)], np.int16),
        rlen=np.array([draw.randrange(40, 4_000) for _ in range(rows)], np.int32),
    )
    score = np.array([0.9 if one > 1 else draw.random() * 0.7 for one in level], np.float32)
    reasons = [("reads as encoded",) if one else () for one in level]
    return replace(found, queries=queries, severity=level, score=score, reasons=reasons)


def told(store: Store) -> dict[str, Any]:
    """What the pages say."""
    hunter = ConsoleStore(store).hunter
    found: dict[str, Any] = {"first": hunter.first_seen(["shop1.example", "h1.shop1.example", "no.example"])}
    for name, (since, until) in SPANS.items():
        found[name] = {
            "client": {one: hunter.client(one, since, until) for one in CLIENTS},
            "domain": {one: hunter.domain(one, since, until) for one in ("shop1.example", "h2.shop1.example")},
            "clients": hunter.clients(since, until),
            "rarest": hunter.rarest(since, until),
            "new": hunter.new(since, until),
            "failing": hunter.failing(since, until),
            "largest": hunter.largest_answers(since, until, 20),
            "new domains": hunter.new_domains("10.0.0.1", since, until),
        }
    for text in SEARCHES:
        found[text], cursor = [], None
        while True:
            page = hunter.search(parse_search(text, START), limit=40, cursor=cursor)
            found[text] += page.queries
            if (cursor := page.cursor) is None:
                break
    return found


def sum_up(store: Store) -> int:
    return QuerySums(store).catch_up(time.time())


@pytest.mark.slow
def test_summed_up_and_counted_say_the_same(store: Store) -> None:
    store.write(made(1), "live")
    store.write(marked(made(2, 200), "replay", START), "replayed")
    counted = told(store)
    assert len(counted[""]) == ROWS + 200 and counted["rare7x"] and counted["severity:critical"]
    assert sum_up(store) > 60
    assert told(store) == counted
    assert sum_up(store) == 0


@pytest.mark.slow
def test_what_comes_late_is_summed_up_again(store: Store) -> None:
    store.write(made(1), "live")
    sum_up(store)
    before = told(store)
    store.write(made(3, 300), "late")
    assert sum_up(store) > 50
    with store.reading("look") as connection:
        assert connection.execute(select(func.count()).select_from(LATE_HOURS)).scalar() == 0
        queries = connection.execute(select(func.sum(QUERY_HOURS.c.queries))).scalar()
    assert queries == ROWS + 300
    after = told(store)
    assert after != before and len(after[""]) == ROWS + 300
    _count_all(store)
    assert told(store) == after


def _count_all(store: Store) -> None:
    """Nothing is summed up any more."""
    QuerySums(store).forget(2**20)
    with store.writing("forget") as connection:
        connection.exec_driver_sql("UPDATE query_sums SET until = 0")


def test_an_hour_is_summed_up_when_it_is_over_and_settled(store: Store) -> None:
    now = time.time()
    store.write(verdicts(["a.shop.example"], ts=[now]), "now")
    assert sum_up(store) == 0
    over = (now // HOUR_S + 1) * HOUR_S
    assert QuerySums(store).catch_up(over + 60) == 0
    assert QuerySums(store).catch_up(over + 600) == 1


@pytest.mark.slow
def test_a_search_that_stops_goes_on_where_it_stopped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(made(1), "live")
    sum_up(store)
    whole = told(store)
    monkeypatch.setattr(searching, "SEARCH_S", 0.0)
    assert told(store) == whole


@pytest.mark.slow
def test_hours_that_were_summed_up_before_there_were_kinds_are_looked_through(store: Store) -> None:
    store.write(made(1), "live")
    sum_up(store)
    whole = told(store)
    assert whole["type:NULL rcode:NXDOMAIN"] and not whole["type:WKS"]
    with store.writing("as an earlier version left it") as connection:
        connection.execute(delete(QUERY_KINDS).where(QUERY_KINDS.c.hour < HALF))
        connection.exec_driver_sql(f"UPDATE query_sums SET kinds_from = {HALF}")
    assert told(store) == whole


def test_a_kind_that_comes_late_is_found(store: Store) -> None:
    store.write(made(1, 100, 1), "live")
    sum_up(store)
    late = verdicts(["late.shop.example"], ts=[START + 40_000])
    store.write(replace(late, queries=replace(late.queries, qtype=np.array([11], np.uint16))), "late")
    sum_up(store)
    found = ConsoleStore(store).hunter.search(parse_search("type:WKS", START), limit=9)
    assert [row["qname"] for row in found.queries] == ["late.shop.example"]


def test_new_domains_of_a_client_are_those_that_it_asked_for_in_the_span_and_nobody_before(store: Store) -> None:
    day, (mine, other) = 86_400.0, CLIENTS[:2]
    asked = [
        ("known.example", other, 0.1), ("known.example", mine, 1.2), ("new.example", mine, 1.3),
        ("shared.example", other, 1.4), ("shared.example", mine, 2.1), ("later.example", other, 1.5),
        ("later.example", mine, 3.2), ("others.example", other, 1.6), ("end.example", mine, 2.9),
    ]  # fmt: skip
    names, clients, days = zip(*asked, strict=True)
    times = [START + at * day for at in days]
    store.write(verdicts([f"www.{one}" for one in names], ts=times, client=list(clients)), "live")
    for until, wanted in ((3.0, {"new.example", "shared.example", "end.example"}), (2.0, {"new.example"})):
        for _ in range(2):
            found = ConsoleStore(store).hunter.new_domains(mine, START + day, START + until * day)
            assert set(found) == wanted
            sum_up(store)
        _count_all(store)


@pytest.mark.slow
def test_old_sums_go_with_their_queries(store: Store) -> None:
    store.write(made(1), "live")
    sum_up(store)
    day = int(START // 86_400) + 2
    store.drop_old(day)
    assert QuerySums(store).forget(day) > 0
    kept = told(store)
    with store.reading("look") as connection:
        assert connection.execute(select(func.min(QUERY_HOURS.c.hour))).scalar_one() >= day * 24
        assert connection.execute(select(func.min(QUERY_KINDS.c.hour))).scalar_one() >= day * 24
        left = connection.execute(select(func.count()).select_from(QUERIES)).scalar()
    assert kept["all"]["clients"] and sum(one["queries"] for one in kept["all"]["clients"]) == left


@pytest.mark.slow
def test_an_erased_client_leaves_no_name_of_its_own(store: Store) -> None:
    store.write(made(1), "live")
    store.write(verdicts(["secret.own.example", "h1.shop1.example"], client="10.0.0.9"), "own")
    sum_up(store)
    assert ConsoleStore(store).hunter.search(parse_search("secret", START), limit=9).queries
    assert ClientRecords(store).erase("10.0.0.9")["sums"] > 0
    with store.reading("look") as connection:
        names = set(connection.execute(select(QUERY_NAMES.c.name)).scalars())
        clients = set(connection.execute(select(QUERY_HOURS.c.client)).scalars())
    assert "secret.own.example" not in names and "h1.shop1.example" in names
    assert clients == set(CLIENTS)


def test_what_was_read_before_a_client_was_erased_is_not_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(made(1, 100, 1), "live")
    sums = QuerySums(store)
    put = QuerySums._put

    def erased_first(self: QuerySums, *arguments: Any) -> None:
        monkeypatch.setattr(QuerySums, "_put", put)
        ClientRecords(store).erase("10.0.0.1")
        put(self, *arguments)

    monkeypatch.setattr(QuerySums, "_put", erased_first)
    with pytest.raises(StoreError, match="erased meanwhile"):
        sums.catch_up(time.time())
    sums.catch_up(time.time())
    with store.reading("look") as connection:
        assert "10.0.0.1" not in set(connection.execute(select(QUERY_HOURS.c.client)).scalars())


def test_severities_are_counted(store: Store) -> None:
    store.write(verdicts(["a.x.example"] * 3, severity=Severity.HIGH), "high")
    sum_up(store)
    assert ConsoleStore(store).hunter.client("192.0.2.7", START, START + 9)["severities"] == {"HIGH": 3}
