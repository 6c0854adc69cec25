"""What people at the console keep and look for, on SQLite and on a real Postgres."""

from __future__ import annotations

import pytest
from sqlalchemy import Delete, Update, delete, update

from agents.core.errors import StoreError, UsageError
from agents.core.types import Severity
from agents.store import Store
from agents.store.console import ConsoleStore
from agents.store.console.finding import IncidentSearch
from agents.store.console.tables import AUDIT
from agents.store.console.terms import parse_search
from agents.store.console.triage import Change
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewStore
from agents.store.rows import INCIDENTS
from tests.support.verdicts import START, incident, verdicts

pytestmark = pytest.mark.contract
DAY = START, START + 86_400.0


@pytest.fixture
def console(store: Store) -> ConsoleStore:
    made = tuple(
        incident(client=f"10.0.{number % 2}.1", domain=f"d{number}.example", last_seen=START + number, tool="io_dine")
        for number in range(5)
    )
    store.write(verdicts([f"H{number}.shop.example" for number in range(20)], client="10.0.0.1", incidents=made), "b1")
    loud = verdicts(["aa.evil.example"], client="2001:db8::7", severity=Severity.HIGH)
    store.write(loud, "b2")
    return ConsoleStore(store)


@pytest.mark.parametrize(
    ("text", "domains"),
    [
        ("10.0.0.0/24", ["d4.example", "d2.example", "d0.example"]),
        ("D3.example", ["d3.example"]),
        ("*3.EXAMPLE", ["d3.example"]),
        ("io_dine d1", ["d1.example"]),
        ("iodine", []),
        ("state:new tool:io_dine d1", ["d1.example"]),
        ("label:tunnel", []),
    ],
)
def test_incidents_are_found(console: ConsoleStore, text: str, domains: list[str]) -> None:
    page = console.finder.page(IncidentSearch(parse_search(text, START)), limit=10)
    assert [one.domain for one in page.incidents] == domains
    assert page.count == len(domains)


def test_kind_and_model_are_columns_that_the_database_makes(store: Store) -> None:
    made = [
        incident(domain=f"d{number}.example", evidence={"kind": f"k{number % 2}", "model": "m1"} if number else {})
        for number in range(4)
    ]
    store.write(verdicts([], incidents=tuple(made)), "b1")
    finder = ConsoleStore(store).finder
    assert finder.page(IncidentSearch()).facets["kind"] == [("k1", 2), ("", 1), ("k0", 1)]
    with store.writing("damage an incident") as connection:
        connection.execute(update(INCIDENTS).where(INCIDENTS.c.domain == "d3.example").values(evidence='{"kind": NaN'))
    assert finder.page(IncidentSearch(), limit=0).facets["kind"] == [("", 2), ("k0", 1), ("k1", 1)]
    assert finder.page(IncidentSearch(kind=["k0"])).count == 1
    assert finder.page(IncidentSearch(), limit=0).facets["day"] == [(int(START // 86_400), 4)]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("h1*.shop.example", 11),
        ("SHOP", 20),
        ("h1.shop.example", 1),
        ("10.0.0.0/16", 20),
        ("2001:db8::/64", 1),
        ("%", 0),
    ],
)
def test_queries_are_found_whatever_their_letter_case(console: ConsoleStore, text: str, count: int) -> None:
    assert len(console.hunter.search(parse_search(text, START), limit=50).queries) == count


def test_summaries_and_questions(console: ConsoleStore) -> None:
    client = console.hunter.client("10.0.0.1", *DAY)
    assert (client["queries"], client["others_count"], client["hours"]) == (20, 1, [(int(START), 20, 0)])
    assert console.hunter.new_domains("10.0.0.1", *DAY) == ["shop.example"]
    assert console.hunter.domain("evil.example", *DAY)["severities"] == {"HIGH": 1}
    assert [row["domain"] for row in console.hunter.rarest(*DAY)] == ["evil.example", "shop.example"]
    assert len(console.hunter.new(*DAY)) == 2
    assert console.hunter.failing(*DAY) == []
    assert len(console.hunter.largest_answers(*DAY, 3)) == 3
    assert [row["client"] for row in console.hunter.clients(*DAY)] == ["10.0.0.1", "2001:db8::7"]


def test_a_change_is_kept_told_and_undone_and_the_log_only_grows(console: ConsoleStore, store: Store) -> None:
    first, second, *_ = console.finder.page(IncidentSearch(), limit=10).incidents
    ids = [first.incident_id, second.incident_id]
    done = console.triage.change(ids, Change(label=Label.BENIGN, reason="ours"), "ann", "console")
    assert console.triage.of(ids)[ids[0]].label is Label.BENIGN
    assert len(ReviewStore(store).decisions(standing=True)) == 2
    assert console.finder.waiting()["new"] == 3
    assert console.triage.undo(done, "bob", "API") == ids or set(console.triage.of(ids)) == set(ids)
    assert ReviewStore(store).decisions(standing=True) == []
    with pytest.raises(UsageError, match="there is no such change, or it is undone"):
        console.triage.undo(done, "bob", "API")
    console.views.save("mine", "/console/incidents?state=new", "ann", "console")
    console.views.save("mine", "/console/incidents?state=closed", "bob", "console")
    assert [(one.name, one.author) for one in console.views.all()] == [("mine", "bob")]
    assert [one.action for one in console.audit.entries()] == [
        "view saved",
        "view saved",
        "change of incidents undone",
        "incident changed",
    ]
    assert [one.author for one in console.audit.entries(author="ann")] == ["ann", "ann"]


@pytest.mark.parametrize("statement", [update(AUDIT).values(author="nobody"), delete(AUDIT)], ids=["update", "delete"])
def test_the_database_refuses_to_change_the_audit_log(store: Store, statement: Update | Delete) -> None:
    log = ConsoleStore(store).audit
    log.add("ann", "console", "blocked", "evil.example")
    with pytest.raises(StoreError), store.writing("tamper") as connection:
        connection.execute(statement)
    assert [(one.author, one.object) for one in log.entries()] == [("ann", "evil.example")]


def test_what_was_said_goes_with_its_incident(console: ConsoleStore, store: Store) -> None:
    live, gone = console.finder.page(IncidentSearch(), limit=2).incidents
    console.triage.change([live.incident_id, gone.incident_id], Change(label=Label.IGNORE), "ann", "console")
    assert console.triage.forget() == 0
    with store.writing("delete one") as connection:
        connection.execute(delete(INCIDENTS).where(INCIDENTS.c.incident_id == gone.incident_id))
    assert console.triage.forget() == 1
    assert (len(console.triage.history(live.incident_id)), console.triage.history(gone.incident_id)) == (1, [])
