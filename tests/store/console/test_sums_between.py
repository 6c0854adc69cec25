"""Sums that several processes write, and what they say of a span in the middle, on SQLite and on a real Postgres."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from agents.core.errors import StoreError
from agents.core.types import HOUR_S
from agents.store import Store, open_store
from agents.store.console import ConsoleStore
from agents.store.console.summing import QuerySums
from agents.store.console.sums import largest_flows
from agents.store.console.tables import QUERY_HOURS, QUERY_NAMES
from agents.store.console.terms import parse_search
from agents.store.rows import LATE_HOURS
from tests.support.verdicts import START, verdicts

pytestmark = pytest.mark.contract
NAME, DAY = "x1.shop.example", 86_400.0


def sum_up(store: Store) -> None:
    QuerySums(store).catch_up(time.time())


def asked(store: Store, hour: int, batch: str, name: str = NAME) -> None:
    store.write(verdicts([name], ts=[START + hour * HOUR_S + 5.0]), batch)


def test_hours_that_two_processes_sum_up_at_once_are_both_of_a_name(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each transaction of one process another sums up a late hour of the same name."""
    asked(store, 8, "first")
    asked(store, 19, "other", "other.example")
    sum_up(store)
    asked(store, 20, "next")
    other, late = open_store(store_url), list[int]()
    writing = store.writing

    @contextmanager
    def after_another(what: str, *limit: float) -> Iterator[Connection]:
        late.append(len(late) + 1)
        asked(other, late[-1], f"late {late[-1]}")
        assert QuerySums(other).catch_up(time.time(), hours=1) == 1
        with writing(what, *limit) as connection:
            yield connection

    monkeypatch.setattr(store, "writing", after_another)
    assert QuerySums(store).catch_up(time.time(), hours=1) == 1
    monkeypatch.undo()
    assert 3 <= len(late) < 8
    with other.reading("look") as connection:
        row = connection.execute(select(QUERY_NAMES).where(QUERY_NAMES.c.name == NAME)).one()
    hours = [*late, 8, 20]
    assert sorted(map(int, row.hours.split())) == [int(START // HOUR_S) + one for one in hours]
    assert (row.first_seen, row.last_seen) == (START + HOUR_S + 5.0, START + 20 * HOUR_S + 5.0)
    found = ConsoleStore(other).hunter.search(parse_search("x1", START), limit=50).queries
    assert len(found) == len(hours)
    other.close()


def test_who_asked_before_a_span_and_after_it_did_not_ask_in_it(store: Store) -> None:
    clients = [f"10.0.0.{number}" for number in range(9)]
    names, times, who = list[str](), list[float](), list[str]()

    def ask(name: str, day: float, *askers: str) -> None:
        names.extend([name] * len(askers))
        times.extend(START + day * DAY + 30.0 * number for number in range(len(askers)))
        who.extend(askers)

    for day in (0.5, 7.5):
        ask("a.often.example", day, *clients)
        ask("a.once.example", day, *clients)
    ask("a.once.example", 3.5, clients[0])
    ask("a.twice.example", 2.5, clients[1], clients[2])
    for day in (2.5, 3.5, 4.5):
        ask("a.often.example", day, clients[int(day)], clients[1])
    ask("the.days.example", 9.5, clients[8])  # the days before are over
    order = sorted(range(len(times)), key=times.__getitem__)
    store.write(
        verdicts([names[at] for at in order], ts=[times[at] for at in order], client=[who[at] for at in order]), "b"
    )
    hunter, span = ConsoleStore(store).hunter, (START + 1.5 * DAY, START + 6.5 * DAY)
    sum_up(store)
    asked_by = {"once.example": 1, "twice.example": 2, "often.example": 4}
    rarest = hunter.rarest(*span)
    assert [(one["domain"], one["clients"]) for one in rarest] == [*asked_by.items()]
    assert [one["domain"] for one in hunter.rarest(*span, 1)] == ["once.example"]
    assert {one["client"]: one["domains"] for one in hunter.clients(*span)} == {
        clients[0]: 1, clients[1]: 2, clients[2]: 2, clients[3]: 1, clients[4]: 1,
    }  # fmt: skip


@pytest.mark.slow
def test_answers_of_one_size_are_looked_for_in_little_memory(store: Store) -> None:
    flows, limit = 4_000, 20
    clients = [f"10.0.{number // 250}.{number % 250}" for number in range(flows)]
    ts = [START + 4 * DAY * number / flows for number in range(flows)]
    store.write(verdicts(["a.shop.example"] * flows, ts=ts, client=clients), "b")
    asked(store, 200, "the days are over")
    sum_up(store)

    def read(span_s: float, most: int) -> tuple[Any, int]:
        with store.reading("look") as connection:
            largest_flows(connection, START, START + span_s, most)  # what is made once, is made
            tracemalloc.start()
            found = largest_flows(connection, START, START + span_s, most)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return found, peak

    found, peak = read(5 * DAY, limit)
    assert len(found[1]) == limit and found[2] > 0
    assert peak < 400_000, f"{peak:,} bytes for {limit} of {flows} flows"
    rows = ConsoleStore(store).hunter.largest_answers(START, START + 5 * DAY, limit)
    assert [row["ts"] for row in rows] == pytest.approx(ts[: -limit - 1 : -1])


@pytest.mark.parametrize("begin", ["_dmarc", r"\195\164", "a%b"])
def test_a_name_is_that_name_and_no_pattern(store: Store, begin: str) -> None:
    right, wrong = f"{begin}.shop.example", {"_dmarc": "xdmarc", "a%b": "axxb"}.get(begin, "ab") + ".shop.example"
    store.write(verdicts([right.upper(), wrong, f"www.{right}", f"www.{wrong}"]), "b")
    hunter, span = ConsoleStore(store).hunter, (START - 1.0, START + 9.0)
    for _ in ("counted", "summed up"):
        found = hunter.search(parse_search(f"domain:{right}", START), limit=9).queries
        assert {row["qname"].lower() for row in found} == {right, f"www.{right}"}
        assert hunter.domain(right, *span)["queries"] == 2
        sum_up(store)


@pytest.mark.parametrize("before", [[], ["late"]], ids=["never summed up", "summed up again"])
@pytest.mark.parametrize(
    "meanwhile",
    [["late", "sum"], ["late", "sum", "late"], ["late"], ["sum"], ["late", "sum", "late", "sum"]],
    ids="-".join,
)
@pytest.mark.parametrize("broken_off", [False, True])
def test_what_comes_late_is_in_the_sums_whoever_else_sums_up_meanwhile(
    store: Store,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    before: list[str],
    meanwhile: list[str],
    broken_off: bool,
) -> None:
    """Between what one process reads of an hour and what it writes of it, queries come late, and another sums it up."""
    asked(store, 3, "first")
    if before:
        sum_up(store)
        asked(store, 3, "before")
    other, writing, seen = open_store(store_url), store.writing, list[str]()

    @contextmanager
    def after_another(what: str, *limit: float) -> Iterator[Connection]:
        if what == "write sums":
            seen.append(what)
            if len(seen) == 1:
                for number, one in enumerate(meanwhile):
                    asked(other, 3, f"late {number}") if one == "late" else sum_up(other)
        with writing(what, *limit) as connection:
            yield connection
        if broken_off and what == "write sums" and len(seen) == 1:
            seen.append("broken off")
            raise StoreError("cannot write sums: the connection is gone")

    monkeypatch.setattr(store, "writing", after_another)
    with suppress(StoreError):
        QuerySums(store).catch_up(time.time(), hours=1)
    monkeypatch.undo()
    assert seen and ("broken off" in seen) == broken_off
    sum_up(store)
    with other.reading("look") as connection:
        summed = connection.execute(select(func.sum(QUERY_HOURS.c.queries))).scalar()
        left = connection.execute(select(func.count()).select_from(LATE_HOURS)).scalar()
    assert (summed, left) == (1 + len(before) + meanwhile.count("late"), 0)
    other.close()
