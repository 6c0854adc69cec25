"""Hunting: searches over all history, clients, domains, and an analyst's questions, by API and on pages."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.core.types import Severity
from agents.store.console import searching
from tests.support.commands import run_inside
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


@pytest.mark.parametrize(
    ("days", "queries"),
    [
        ("2025-12-29", "1 query"),
        ("2025-12-29..31", "1 query"),
        ("2026-01-01", "1 query"),
        ("2025-12-29..2026-01-01", "2 queries"),
    ],
)
def test_a_page_shows_the_days_that_its_link_names(world: World, days: str, queries: str) -> None:
    page = Person(world).page(f"/console/domains/old.example?range={days}").text
    assert f"{queries} by" in page and f">{days}</a> (UTC)" in page
    assert f"domain%3Aold.example%20{days}" in page, "a link to these queries"


@pytest.mark.parametrize("odd", ["2026-13-45", "evil.example 2026-01-01", "..", "last month"])
def test_a_range_that_is_none_is_the_last_day(world: World, odd: str) -> None:
    page = Person(world).page(f"/console/domains/old.example?range={odd}").text
    assert 'class="chosen" aria-current="true">last 24h</a>' in page


def test_an_export_has_all_that_a_search_finds(world: World, tmp_path: Path) -> None:
    names = [f"{'=' * (number == 7)}m{number}.long.example" for number in range(1100)]
    world.store.write(verdicts(names, client="10.9.9.9"), "long")
    answer = world.get("/hunt/export", params={"q": "long.example"})
    assert answer.headers["content-disposition"] == 'attachment; filename="queries.csv"'
    table = list(csv.DictReader(io.StringIO(answer.text)))
    assert sorted(row["qname"].lstrip("'") for row in table) == sorted(names)
    assert [row["qname"] for row in table if "=" in row["qname"]] == ["'=m7.long.example"], "no formula"
    assert {(row["client"], row["type"], row["domain"]) for row in table} == {("10.9.9.9", "TXT", "long.example")}
    lines = world.get("/hunt/export", params={"q": "10.0.0.8", "format": "json"}).text.splitlines()
    assert [json.loads(line)["qname"] for line in lines] == ["y.old.example", "aa.evil.example"]
    page = Person(world).page("/console/hunt?q=long.example&severity=NORMAL").text
    assert 'href="/hunt/export?q=long.example&amp;severity=NORMAL"' in page
    assert 'href="/hunt/export?q=long.example&amp;severity=NORMAL&amp;format=json"' in page

    url = f"sqlite:///{tmp_path / 'queries.db'}"
    listed = run_inside(tmp_path, "queries", "long.example", "--csv", "--limit", "1050", DATABASE_URL=url)
    assert len(list(csv.DictReader(io.StringIO(listed.out)))) == 1050
    refused = run_inside(tmp_path, "queries", "x", "--csv", "--json", DATABASE_URL=url)
    assert refused.code == 2


def test_a_search_is_followed_until_somebody_stops_and_keeps_its_filters(world: World) -> None:
    person = Person(world)
    page = person.page("/console/hunt?q=evil&severity=HIGH").text
    follow = re.search(r'href="([^"]+)" data-key="f">Follow<', page)
    assert follow is not None and "data-reload" not in page
    followed = person.page(html.unescape(follow[1])).text
    again = re.search(r'data-reload="([^"]+)"', followed)
    assert again is not None and html.unescape(again[1]) == html.unescape(follow[1])
    assert 'href="/console/hunt?q=evil&amp;severity=HIGH" data-key="f">Stop following<' in followed
    assert 'href="/hunt/export?q=evil&amp;severity=HIGH"' in followed
    assert "aa.evil.example" in followed


def test_a_search_is_kept_for_all_and_forgotten(world: World) -> None:
    ann = Person(world)
    sent = {"do": "save", "view": "evil ones", "of": "/console/hunt", "query": "q=evil&follow=on"}
    place = ann.send(**sent)
    assert place.headers["location"].startswith("/console/hunt?q=evil&")
    page = Person(world, "bob").page("/console/hunt").text
    assert 'href="/console/hunt?q=evil" title="kept by ann">evil ones<' in page
    ann.send(do="forget", view="evil ones", of="/console/hunt", query="")
    assert "evil ones" not in ann.page("/console/hunt").text


def test_clients_lead_from_one_page_to_the_next(world: World) -> None:
    for number in range(120):
        world.store.write(
            verdicts([f"w{number}.many.example"], client=f"10.1.{number // 100}.{number % 100}"), f"c{number}"
        )
    person, days = Person(world), time.strftime("%Y-%m-%d", time.gmtime(START))
    shown: list[str] = []
    place = f"/console/clients?range={days}"
    for count in ("1 to 100", "101 to 122"):
        page = person.page(place).text
        assert f"{count}, by queries" in page
        shown += re.findall(r'href="/console/clients/([^"?]+)"', page)
        following = re.search(r'href="([^"]+)"[^>]*>Further clients', page)
        place = f"/console/clients{html.unescape(following[1])}" if following else ""
    assert place == "" and len(shown) == len(set(shown)) == 122 and shown[0] == "10.0.0.7"
    assert (
        "No further client" in person.page(f"/console/clients?range={days}&cursor={START}~{START + 86_400}~5000").text
    )


def test_the_first_page_has_the_loudest_domains_of_the_last_hour(world: World) -> None:
    now = time.time()
    world.store.write(verdicts([f"a{n}.calm.example" for n in range(9)], ts=[now - 60 + n for n in range(9)]), "n1")
    loud = verdicts(["x.loud.example"], ts=[now - 30], severity=Severity.HIGH, score=0.8)
    world.store.write(loud, "n2")
    shown = Person(world).page("/").text.split("Loudest domains of the last hour")[1].split("</section>")[0]
    assert re.findall(r'href="/console/domains/([^"]+)"', shown) == ["loud.example", "calm.example"]
    assert "9 queries" in shown and 'class="badge high"' in shown


def test_the_menu_says_which_page_this_is(world: World) -> None:
    current = r'<a href="([^"]+)" aria-current="page">'
    for path, place in (
        ("/", "/"),
        ("/console/clients/10.0.0.7", "/console/clients"),
        ("/console/weekly", "/console/weekly"),
    ):
        assert re.findall(current, Person(world).page(path).text) == [place]


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
