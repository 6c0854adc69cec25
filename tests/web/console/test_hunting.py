"""Hunting: searches over all history, clients, domains, and an analyst's questions, by API and on pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.core.types import Severity
from agents.store.console import searching
from tests.support.verdicts import START, verdicts
from tests.web.console.test_incidents import Person
from tests.web.test_console import World

pytestmark = pytest.mark.integration
DAY = f"since={START}&until={START + 86_400}"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.store.write(verdicts([f"h{number}.Shop.example" for number in range(30)], client="10.0.0.7"), "b1")
    made.store.write(verdicts(["aa.evil.example"], client="10.0.0.8", severity=Severity.HIGH, score=0.8), "b2")
    made.store.write(verdicts(["x.old.example"], ts=[START - 86_400 * 3], client="2001:db8::5"), "b3")
    made.store.write(verdicts(["y.old.example"], ts=[START + 5], client="10.0.0.8"), "b4")
    yield made
    made.store.close()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 33),
        ("shop", 30),
        ("h1*.shop.example", 11),
        ("shop.example", 30),
        ("h3.shop.example", 1),
        ("10.0.0.7", 30),
        ("10.0.0.8/32", 2),
        ("10.0.0.0/8", 32),
        ("2001:db8::/32", 1),
        ("10.0.0.8 severity:high", 1),
        ("score>0.5", 1),
        ("type:TXT", 33),
        ("type:A", 0),
        ("type:FOO", 0),
        ("rcode:FOO", 0),
        ("severity:loud", 0),
        ("rcode:NXDOMAIN", 0),
        ("2025-12-29", 1),
        ("nothing-of-this", 0),
        ("tool:iodine", 0),
        ("state:new", 0),
        ("client:*", 0),
        ("%", 0),
    ],
)
def test_a_search_finds_what_it_says(world: World, text: str, count: int) -> None:
    found = world.get("/hunt", params={"q": text, "limit": 200}).json()
    assert (len(found["queries"]), found["cursor"], found["looked_back_to"]) == (count, None, None)
    times = [row["ts"] for row in found["queries"]]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("limit", [1, 7, 31, 32, 33])
def test_pages_of_a_search_miss_none_and_show_none_twice(world: World, limit: int) -> None:
    seen: list[str] = []
    cursor = None
    while True:
        params: dict[str, Any] = {"q": "example", "limit": limit} | ({"cursor": cursor} if cursor else {})
        page = world.get("/hunt", params=params).json()
        seen += [row["qname"] for row in page["queries"]]
        if (cursor := page["cursor"]) is None:
            break
    assert len(seen) == len(set(seen)) == 33


def test_a_search_that_takes_too_long_says_how_far_it_looked_and_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "SEARCH_S", 0.0)
    found: list[str] = []
    cursor, stops = None, 0
    while True:
        params: dict[str, Any] = {"q": "old"} | ({"cursor": cursor} if cursor else {})
        page = world.get("/hunt", params=params).json()
        found += [row["qname"] for row in page["queries"]]
        if (cursor := page["cursor"]) is None:
            break
        stops += page["looked_back_to"] is not None
    assert found == ["y.old.example", "x.old.example"]
    assert stops > 0


def test_one_row_far_ahead_hides_nothing(world: World) -> None:
    world.store.write(verdicts(["z.far.example"], ts=[2.0**35]), "far")
    found = world.get("/hunt", params={"q": "example", "limit": 200}).json()
    assert (len(found["queries"]), found["looked_back_to"]) == (34, None)


def test_the_forms_own_choice_of_any_severity_finds_all(world: World) -> None:
    assert Person(world).page("/console/hunt?q=evil&severity=").text.count("aa.evil.example") == 1
    assert Person(world).page("/console/hunt?q=evil&severity=NORMAL").text.count("aa.evil.example") == 0


def test_what_a_client_did(world: World) -> None:
    found = world.get(f"/clients/10.0.0.8?{DAY}").json()
    assert (found["queries"], found["others_count"], found["severities"]) == (2, 2, {"NORMAL": 1, "HIGH": 1})
    assert [one["other"] for one in found["others"]] == ["evil.example", "old.example"]
    assert found["new_domains"] == ["evil.example"], "the other was known before"
    assert [one["client"] for one in world.get(f"/clients?{DAY}").json()["clients"]] == ["10.0.0.7", "10.0.0.8"]


def test_what_was_asked_below_a_domain(world: World) -> None:
    found = world.get(f"/domains/old.example?{DAY}").json()
    assert (found["queries"], found["others"][0]["other"], found["names"]) == (1, "10.0.0.8", ["y.old.example"])
    assert found["first_ever"] == START - 86_400 * 3


@pytest.mark.parametrize(
    ("question", "first"),
    [("rarest-domains", "evil.example"), ("new-domains", "shop.example"), ("largest-answers", "shop.example")],
)
def test_an_analysts_questions(world: World, question: str, first: str) -> None:
    rows = world.get(f"/questions/{question}?{DAY}").json()["rows"]
    assert rows[0]["domain"] == first
    if question == "new-domains":
        assert sorted(row["domain"] for row in rows) == ["evil.example", "shop.example"]


def test_a_new_domain_is_found_among_thousands_that_are_known(world: World) -> None:
    many = [f"x.known{number}.example" for number in range(1_200)]
    world.store.write(verdicts(many, ts=[START - 5000.0] * len(many), client="10.0.0.8"), "before")
    world.store.write(verdicts(many * 2, ts=[START + 50.0] * 2 * len(many), client="10.0.0.8"), "again")
    assert world.get(f"/clients/10.0.0.8?{DAY}").json()["new_domains"] == ["evil.example"]
    rows = world.get(f"/questions/new-domains?{DAY}").json()["rows"]
    assert sorted(row["domain"] for row in rows) == ["evil.example", "shop.example"]


def test_a_question_that_nobody_answers_is_said(world: World) -> None:
    answer = world.get("/questions/why")
    assert (answer.status_code, answer.json()["error"][:40]) == (404, "cannot answer that question; there are r")


def test_pages_lead_from_one_to_the_next(world: World) -> None:
    person = Person(world)
    page = person.page("/console/hunt?q=evil").text
    assert ">aa.evil.example</a>" in page
    assert 'value="evil"' in page
    links = set(re.findall(r'href="(/console/[^"#]*)"', page))
    assert {"/console/clients/10.0.0.8", "/console/domains/evil.example", "/console/questions/new-domains"} <= links
    for link in links:
        assert person.page(link.replace("&amp;", "&")).status_code == 200, link


def test_without_a_session_every_page_leads_to_the_login(world: World) -> None:
    for path in (
        *("/console/hunt", "/console/clients", "/console/incidents", "/console/audit", "/console/health"),
        *("/console/services", "/console/events", "/console/questions/new-domains"),
    ):
        answer = world.call("GET", path, headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}"), path
