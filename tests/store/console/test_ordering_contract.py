"""Incidents in every order, over pages, exports and neighbours, on SQLite and on a real Postgres."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from agents.core.errors import UsageError
from agents.core.types import Incident, Severity
from agents.store import Store
from agents.store.console import ConsoleStore, finding
from agents.store.console.finding import IncidentSearch
from agents.store.console.ordering import DOWN, SORTS, UP, IncidentOrder, order_of
from agents.store.console.terms import parse_search
from tests.support.verdicts import START, incident, verdicts

pytestmark = pytest.mark.contract
COUNT = 60
ATTRIBUTES = {name: name for name in SORTS} | {"bytes": "leaked_bytes"}
DOMAINS = ("a.example", "a-b.example", "B.example", "ab~c.example", "a_b.example", "\\195\\164~1.example", "zz.example")


@pytest.fixture
def made(store: Store) -> list[Incident]:
    """Incidents of few values, so that most are tied in each order."""
    draw = random.Random(11)
    found = tuple(
        incident(
            client=f"10.0.0.{number % 7}",
            domain=DOMAINS[number % len(DOMAINS)],
            severity=draw.choice([Severity.SUSPICIOUS, Severity.HIGH, Severity.CRITICAL]),
            score=draw.choice([0.1 + 0.2, 0.3, 1 / 3]),
            leaked_bytes=draw.choice([0.0, 1e-3, 912.0, 2.0**60]),
            first_seen=START + draw.randrange(4) / 3,
            last_seen=START + 100 + draw.randrange(4) / 3,
            detected_at=START + number % 20,
        )
        for number in range(COUNT)
    )
    store.write(verdicts([], incidents=found), "filled")
    return list(found)


def in_order(found: list[Incident], order: IncidentOrder) -> list[str]:
    """The ids as the order says, by Python."""
    ups = sorted(found, key=lambda one: one.incident_id)
    if order.name == "severity":
        ups.sort(key=lambda one: -one.detected_at)
    ups.sort(key=lambda one: getattr(one, ATTRIBUTES[order.name]), reverse=order.direction == DOWN)
    return [one.incident_id for one in ups]


@pytest.mark.slow
@pytest.mark.parametrize("direction", [UP, DOWN])
@pytest.mark.parametrize("name", list(SORTS))
def test_pages_exports_and_neighbours_have_one_order(
    store: Store, made: list[Incident], name: str, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "EXPORT_IDS", 17)
    monkeypatch.setattr(finding, "EXPORT_PAGE", 5)
    console, search = ConsoleStore(store), IncidentSearch(order=order_of(f"{name}:{direction}"))
    expected, paged, cursor = in_order(made, search.order), list[str](), None
    while True:
        page = console.finder.page(search, limit=7, cursor=cursor)
        paged += [one.incident_id for one in page.incidents]
        assert page.count == COUNT
        if (cursor := page.cursor) is None:
            break
    assert paged == expected
    assert [one.incident_id for one, _ in console.said_of_all(search)] == expected
    by_id = {one.incident_id: one for one in made}
    for at in (0, 1, COUNT // 2, COUNT - 1):
        above, below = console.finder.neighbours(search, by_id[expected[at]])
        assert above == (expected[at - 1] if at else None)
        assert below == (expected[at + 1] if at < COUNT - 1 else None)


def test_a_page_goes_on_where_it_was_although_incidents_came_and_changed(store: Store, made: list[Incident]) -> None:
    console, search = ConsoleStore(store), IncidentSearch(order=order_of("severity"))
    expected = in_order(made, search.order)
    first = console.finder.page(search, limit=30)
    quiet = [one for one in made if one.incident_id in expected[:10]]
    new = [incident(domain=f"n{at}.example", severity=Severity.CRITICAL, detected_at=START + 99) for at in range(9)]
    changed = [replace(one, last_seen=START + 900) for one in quiet]
    store.write(verdicts([], incidents=(*new, *changed)), "later")
    rest = [one.incident_id for one in console.finder.page(search, limit=100, cursor=first.cursor).incidents]
    added = {one.incident_id for one in new}
    assert [one for one in rest if one not in added] == expected[30:]


def test_a_cursor_of_another_order_is_refused(store: Store, made: list[Incident]) -> None:
    finder = ConsoleStore(store).finder
    cursor = finder.page(IncidentSearch(order=order_of("score")), limit=3).cursor
    with pytest.raises(
        UsageError, match=r"^cannot read incidents: the cursor is of the order score:down, the list is "
    ):
        finder.page(IncidentSearch(order=order_of("score:up")), cursor=cursor)
    for forged in ("x", "1767225700.0_9c1f0a7be2d34455", "score:down~nan~00", "score:down~~", "score:down~1", "~~"):
        with pytest.raises(UsageError, match="the cursor is not one that a page gave"):
            finder.page(IncidentSearch(order=order_of("score")), cursor=forged)
    for forged in ("severity:down~3~00", "severity:down~3,nan~00", "severity:down~3,1,2~00", "severity:down~,~00"):
        with pytest.raises(UsageError, match="the cursor is not one that a page gave"):
            finder.page(IncidentSearch(order=order_of("severity")), cursor=forged)


@pytest.mark.parametrize("text", ["queries", "score:", "score:sideways", ":up", "score:up:up", "score down"])
def test_what_is_no_order_is_said_in_one_line(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"^cannot sort incidents by '.*': possible are last_seen, first_seen, .*:down$"
    ):
        order_of(text)


def test_orders_are_named_as_people_say_them() -> None:
    assert str(order_of("")) == str(order_of("last-seen")) == "last_seen:down"
    assert [str(order_of(name)) for name in ("client", " Score ", "BYTES:UP")] == [
        "client:up",
        "score:down",
        "bytes:up",
    ]


def test_a_search_is_sorted_too(store: Store, made: list[Incident]) -> None:
    search = IncidentSearch(parse_search("10.0.0.0/30 severity:high", START), order=order_of("domain:down"))
    found = ConsoleStore(store).finder.page(search, limit=100).incidents
    fit = [
        one
        for one in made
        if one.severity == Severity.HIGH and one.client in ("10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3")
    ]
    assert [one.incident_id for one in found] == in_order(fit, search.order) and len(fit) > 3
