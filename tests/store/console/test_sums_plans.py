"""Pages over weeks find what they read in the order of an index that holds all of it (SQLite's own plan says so)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from agents.learning.loop.looking import FlowLook
from agents.store import Store, open_store
from agents.store.console import ConsoleStore
from agents.store.console.summing import QuerySums
from agents.store.console.terms import parse_search
from agents.store.feedback.flow_hours import FlowHourStore
from tests.store.console.test_sums_contract import DAYS, made
from tests.support.flow_hours import HOUR, HOUR_S, flow_hours
from tests.support.verdicts import START

UNTIL = START + DAYS * 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(f"sqlite:///{tmp_path / 'queries.db'}")) as opened:
        opened.migrate()
        opened.write(made(1), "live")
        QuerySums(opened).catch_up(UNTIL + 86_400.0)
        yield opened


@contextmanager
def plans(store: Store) -> Iterator[list[str]]:
    """Plans of all that is read meanwhile."""
    found: list[str] = []

    def explain(connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "WITH")):
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            found.extend(row[3] for row in cursor.fetchall())

    event.listen(store._engine, "before_cursor_execute", explain)
    yield found
    event.remove(store._engine, "before_cursor_execute", explain)


@pytest.mark.slow
def test_a_client_and_a_domain_over_days_are_read_from_an_index_alone(store: Store) -> None:
    hunter = ConsoleStore(store).hunter
    with plans(store) as found:
        hunter.client("10.0.0.1", START, UNTIL)
        hunter.domain("shop1.example", START, UNTIL)
    for name in ("query_hours_client (client", "query_hours_domain (domain"):
        assert sum(f"query_hours USING COVERING INDEX {name}=? AND hour>? AND hour<?)" in plan for plan in found) == 2


@pytest.mark.slow
def test_a_rare_search_looks_up_each_flow_by_its_hour_and_never_scans_queries(store: Store) -> None:
    hunter = ConsoleStore(store).hunter
    with plans(store) as found:
        assert hunter.search(parse_search("type:NULL", UNTIL), limit=100).queries
    looked = [plan for plan in found if re.search(r"queries USING INDEX queries_(domain|client)_ts", plan)]
    assert looked and all("=? AND ts>? AND ts<?)" in plan for plan in looked)
    assert not any("SCAN queries" in plan for plan in found)


@pytest.mark.slow
def test_two_rare_things_are_looked_for_in_the_hours_that_have_both(store: Store) -> None:
    hunter = ConsoleStore(store).hunter
    with plans(store) as found:
        assert hunter.search(parse_search("type:NULL rcode:NXDOMAIN", UNTIL), limit=100).queries
    assert [plan for plan in found if "query_hours" in plan] == ["SEARCH query_hours USING PRIMARY KEY (hour=?)"]
    with plans(store) as found:
        assert not hunter.search(parse_search("type:WKS", UNTIL), limit=100).queries
    assert any("query_kinds" in plan for plan in found) and not any("query_hours" in plan for plan in found)


@pytest.mark.slow
def test_names_by_a_pattern_are_looked_for_below_their_domain(store: Store) -> None:
    with plans(store) as found:
        assert ConsoleStore(store).hunter.search(parse_search("h1*.shop0.example", UNTIL), limit=100).queries
    assert any("query_names USING INDEX query_names_domain (domain=?)" in plan for plan in found)
    assert not any("SCAN query_names" in plan for plan in found)


@pytest.mark.slow
def test_questions_about_weeks_are_answered_from_indexes_alone(store: Store) -> None:
    hunter = ConsoleStore(store).hunter
    with plans(store) as found:
        assert hunter.rarest(START, UNTIL) and hunter.failing(START, UNTIL)
    assert found.count("SCAN query_domain_days USING COVERING INDEX query_domain_days_domain") == 2
    with plans(store) as found:
        assert hunter.largest_answers(START, UNTIL)
    assert "SEARCH query_hours USING COVERING INDEX query_hours_domain (domain=? AND hour>? AND hour<?)" in found


@pytest.mark.slow
def test_pairs_of_a_question_are_counted_from_an_index_alone(store: Store) -> None:
    with plans(store) as found:
        assert ConsoleStore(store).hunter.rarest(START, UNTIL)
    assert any("query_pairs USING COVERING INDEX query_pairs_domain" in plan for plan in found)


@pytest.mark.slow
def test_flow_hours_of_a_client_are_the_latest_ones(store: Store) -> None:
    hours = FlowHourStore(store)
    for domain, hour in (("b.example", HOUR + 1), ("a.example", HOUR), ("c.example", HOUR + 1), ("d.example", HOUR)):
        hours.add(flow_hours([domain], hour))
    hours.add(flow_hours(["other.example"], HOUR + 2, client="192.0.2.8"))
    found = FlowLook(store).hours(client="192.0.2.7", since=HOUR * HOUR_S, limit=3)
    names = [(one["sample_names"], one["at"]) for one in found]
    later, at = (HOUR + 1) * HOUR_S, HOUR * HOUR_S
    assert names == [(["a.c.example"], later), (["a.b.example"], later), (["a.d.example"], at)]


@pytest.mark.slow
def test_nothing_is_found_in_a_span_without_flow_hours(store: Store) -> None:
    assert FlowLook(store).most_in_words(START, UNTIL) == FlowLook(store).nearest_to_limits(START, UNTIL) == []
