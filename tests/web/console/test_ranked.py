"""Lists that are ranked lead on from page to page: clients, an analyst's questions, what a client or a domain has."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agents.core.types import Severity
from agents.store.feedback.flow_hours import FlowHourStore
from tests.support.flow_hours import HOUR, flow_hours
from tests.support.verdicts import START, verdicts
from tests.web.console.test_incidents import Person
from tests.web.test_console import World

pytestmark = pytest.mark.integration
DAY = f"since={START}&until={START + 86_400}"
RANGE = time.strftime("%Y-%m-%d", time.gmtime(START))
MANY = 130


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One client that asked below many domains, and one domain that many clients asked for; most names fail."""
    made = World(tmp_path_factory.mktemp("ranked"))
    names = [f"n{again}.d{number}.example" for number in range(MANY) for again in range(10)]
    asked = verdicts(names, client="10.0.0.7")
    asked.queries.rcode[:] = 3
    asked.queries.rlen[:] = range(100, 100 + len(names))
    made.store.write(asked, "many domains")
    clients = [f"10.1.{number // 100}.{number % 100}" for number in range(MANY)]
    made.store.write(verdicts(["x.evil.example"] * MANY, client=clients, severity=Severity.HIGH), "many clients")
    domains = [f"d{number}.example" for number in range(MANY)]
    FlowHourStore(made.store).add(flow_hours(domains, HOUR))
    yield made
    made.store.close()


def all_pages(world: World, path: str, key: str, limit: int) -> list[Any]:
    """Rows of all pages of a list, by its cursor."""
    found: list[Any] = []
    cursor = ""
    while True:
        page = world.get(f"{path}&limit={limit}{f'&cursor={cursor}' if cursor else ''}").json()
        assert len(page[key]) <= limit
        found += page[key]
        cursor = page["others_cursor" if key == "others" else "cursor"]
        if not cursor:
            return found


@pytest.mark.parametrize("question", ["rarest-domains", "new-domains", "failing-domains", "largest-answers"])
def test_pages_of_a_question_give_what_one_answer_gives(world: World, question: str) -> None:
    whole = world.get(f"/questions/{question}?{DAY}&limit=1000").json()
    paged = all_pages(world, f"/questions/{question}?{DAY}", "rows", 50)
    assert whole["cursor"] is None or question == "largest-answers"
    assert paged[: len(whole["rows"])] == whole["rows"]
    assert len(paged) == {"failing-domains": MANY, "largest-answers": 11 * MANY}.get(question, MANY + 1)


@pytest.mark.parametrize("question", ["most-in-words", "nearest-to-limits"])
def test_pages_of_hours_give_what_one_answer_gives(world: World, question: str) -> None:
    span = f"since={HOUR * 3600}&until={HOUR * 3600 + 3600}"
    whole = world.get(f"/questions/{question}?{span}&limit=1000").json()["rows"]
    assert len(whole) == MANY
    assert all_pages(world, f"/questions/{question}?{span}", "rows", 49) == whole
    hours = all_pages(world, f"/flow-hours?{span}", "flow_hours", 49)
    assert sorted(one["domain"] for one in hours) == sorted(one["domain"] for one in whole)
    assert len(all_pages(world, f"/flow-hours?{span}&domain=d7.example", "flow_hours", 5)) == 1


def test_a_page_that_follows_is_of_the_same_span(world: World) -> None:
    first = world.get("/clients?limit=1").json()
    assert first == {"clients": [], "cursor": None}, "of the last day nothing is stored"
    whole = world.get(f"/clients?{DAY}&limit=1").json()
    after = world.get(f"/clients?limit=1000&cursor={whole['cursor']}").json()
    assert len(after["clients"]) == MANY and after["cursor"] is None, "the cursor names the span, too"


@pytest.mark.parametrize(("path", "count"), [("/clients/10.0.0.7", MANY), ("/domains/evil.example", MANY)])
def test_all_domains_of_a_client_and_all_clients_of_a_domain(world: World, path: str, count: int) -> None:
    others = [one["other"] for one in all_pages(world, f"{path}?{DAY}", "others", 40)]
    assert len(others) == len(set(others)) == count


@pytest.mark.parametrize("cursor", ["x", "1~2", "nan~1~1", "1~2~-3", "1~2~9999999", "inf~2~3", "1~2~3~4"])
def test_a_cursor_that_no_page_gave_is_refused_in_one_line(world: World, cursor: str) -> None:
    for path in ("/clients", "/questions/new-domains", "/flow-hours", "/domains/evil.example"):
        answer = world.get(f"{path}?cursor={cursor}")
        assert (answer.status_code, answer.json()["error"][:20]) == (422, "cannot read further:")
    page = Person(world).page(f"/console/questions/new-domains?cursor={cursor}")
    assert page.status_code == 200 and "cannot read further" in page.text


def links_on(page: str, name: str) -> list[str]:
    return [html.unescape(one) for one in re.findall(rf'href="([^"]+)"[^>]*>{name}', page)]


def test_the_page_of_a_question_leads_on(world: World) -> None:
    ann, place, shown = Person(world), f"/console/questions/rarest-domains?range={RANGE}", list[str]()
    for said in ("1 to 100", "101 to 131"):
        page = ann.page(place).text
        assert said in page
        shown += re.findall(r'href="/console/domains/([^"?]+)"', page)
        following = links_on(page, "Further ones")
        place = f"/console/questions/rarest-domains{following[0]}" if following else ""
    assert place == "" and len(shown) == len(set(shown)) == MANY + 1


def test_the_page_of_a_client_says_how_many_there_are_and_leads_to_all(world: World) -> None:
    ann, place, shown = Person(world), f"/console/clients/10.0.0.7?range={RANGE}", set[str]()
    while place:
        page = ann.page(place).text
        assert f"of {MANY}, the loudest first" in page and f'New domains <span class="count">{MANY}<' in page
        others = page.split("<h2>Domains")[1].split("</section>")[0]
        shown |= set(re.findall(r'href="/console/domains/([^"?]+)"', others))
        following = links_on(page, "Further domains")
        place = f"/console/clients/10.0.0.7{following[0]}" if following else ""
    assert len(shown) == MANY
    assert "<i>1,300 an hour</i><i>0</i>" in page, "the chart has its scale"
    assert '<p class="ticks" aria-hidden="true"><i><time datetime="2026-01-01T00:00:00Z">' in page
    (new,) = links_on(ann.page(f"/console/clients/10.0.0.7?range={RANGE}").text, "Further new domains")
    assert "51 to 100, the newest first" in ann.page(f"/console/clients/10.0.0.7{new}").text


def test_the_page_of_a_domain_says_of_how_many_names_it_shows_some(world: World) -> None:
    page = Person(world).page(f"/console/domains/evil.example?range={RANGE}").text
    assert "1 to 20 of 130, the loudest first" in page
    assert "10 of 10 names" not in page, "all are shown"
