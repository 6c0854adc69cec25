"""The list of incidents sorted: column heads that are links, the order in the address, exports, the command line."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agents.core.types import Severity
from tests.support.commands import Done, is_one_line, run_inside
from tests.support.verdicts import START, incident, verdicts
from tests.web.console.test_incidents import Person
from tests.web.test_console import World

pytestmark = pytest.mark.integration
LIST = "/console/incidents"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    found = [
        incident(
            client=f"10.0.0.{number % 9}", domain=f"d{number * 7 % 61}.example", score=number % 13 / 13,
            severity=Severity.CRITICAL if number % 4 == 0 else Severity.HIGH, leaked_bytes=float(number * 31 % 59),
            first_seen=START - number, last_seen=START + number * 17 % 61, detected_at=START + number / 7,
        )
        for number in range(60)
    ]  # fmt: skip
    made.store.write(verdicts([], incidents=tuple(found)), "filled")
    yield made
    made.store.close()


def rows(text: str) -> list[str]:
    return re.findall(r'<tr id="row-([0-9a-f]{16})"', text)


def heads(text: str) -> dict[str, tuple[str, str]]:
    """Of each column head that is a link: aria-sort, and the address."""
    found = re.findall(r'<th(?: class="\w+")?(?: aria-sort="(\w+)")?><a href="([^"]+)">([\w ]+?)(?: <span|</a>)', text)
    return {shown: (aria, html.unescape(address)) for aria, address, shown in found}


def test_heads_are_links_that_turn_the_order_and_the_address_keeps_it(world: World) -> None:
    ann = Person(world)
    plain = ann.page(f"{LIST}?q=d&severity=HIGH").text
    assert {name: aria for name, (aria, _) in heads(plain).items()} == {
        "Severity": "", "Client": "", "Domain": "", "Leaked": "", "Last seen": "descending",
    }  # fmt: skip
    by_client = ann.page(heads(plain)["Client"][1]).text
    assert heads(by_client)["Client"][0] == "ascending" and heads(by_client)["Last seen"][0] == ""
    asked = parse_qs(urlsplit(heads(by_client)["Client"][1]).query)
    assert asked == {"q": ["d"], "severity": ["HIGH"], "sort": ["client:down"]}, "the search stays"
    turned = ann.page(heads(by_client)["Client"][1]).text
    assert heads(turned)["Client"][0] == "descending" and set(rows(turned)) == set(rows(plain))
    assert "sort=client%3Adown" in turned.split('name="query" value="')[1], "forms and views keep it, too"
    clients = re.findall(r'href="/console/clients/([\d.]+)"', turned)
    assert clients == sorted(clients, reverse=True) and len(clients) == 45
    first = ann.page(f"{LIST}?sort=first_seen").text
    assert heads(first)["First seen"][0] == "descending" and "Last seen" not in heads(first)
    assert heads(ann.page(f"{LIST}?sort=score:up").text)["Score"][0] == "ascending"
    assert "Clear</a>" not in first and "Clear</a>" in plain, "an order narrows nothing"


def test_pages_exports_and_the_api_have_the_order_of_the_page(world: World) -> None:
    ann, found, address = Person(world), list[str](), f"{LIST}?sort=bytes:up&severity=HIGH"
    while address:
        text = ann.page(address).text
        found += rows(text)
        following = re.search(r'<a href="([^"]+)" rel="next">Next</a>', text)
        address = html.unescape(following[1]) if following else ""
    shown = world.get("/incidents?sort=bytes:up&severity=HIGH&limit=1000").json()["incidents"]
    assert [one["incident_id"] for one in shown] == found
    assert [one["leaked_bytes"] for one in shown] == sorted(one["leaked_bytes"] for one in shown)
    link = re.search(
        r'href="(/incidents/export\?[^"]+)" download>CSV', ann.page(f"{LIST}?sort=bytes:up&severity=HIGH").text
    )
    assert link is not None
    exported = list(csv.DictReader(io.StringIO(world.get(html.unescape(link[1])).text)))
    assert [one["incident_id"] for one in exported] == found
    lines = world.get(html.unescape(link[1]) + "&format=json").text.splitlines()
    assert [json.loads(line)["incident_id"] for line in lines] == found
    page = ann.page(f"{LIST}/{found[3]}?sort=bytes:up&severity=HIGH").text
    assert f"{LIST}/{found[2]}?" in page and f"{LIST}/{found[4]}?" in page, "j and k go on in the same order"


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"sort": "queries"}, "cannot sort incidents by 'queries': possible are last_seen, "),
        ({"sort": "score:left"}, "cannot sort incidents by 'score:left': possible are "),
        (
            {"sort": "score", "cursor": "bytes:up~3.0~00"},
            "cannot read incidents: the cursor is of the order bytes:up, the",
        ),
        ({"cursor": "1767225700.0_9c1f0a7be2d34455"}, "cannot read incidents: the cursor is not one that a page gave"),
    ],
)
def test_what_is_no_order_is_refused_in_one_line(world: World, params: dict[str, Any], said: str) -> None:
    answer = world.get("/incidents", params=params)
    assert answer.status_code == 422 and answer.json()["error"].startswith(said)
    if "cursor" in params:
        query = "&".join(f"{name}={value}" for name, value in params.items())
        assert said in html.unescape(Person(world).page(f"{LIST}?{query}").text), "the page says so, and stays one"


@pytest.mark.slow
def test_the_command_line_sorts_what_it_lists_and_exports(world: World, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queries.db'}"

    def ran(*options: str) -> Done:
        return run_inside(tmp_path, "incidents", *options, DATABASE_URL=url)

    shown = [one["incident_id"] for one in world.get("/incidents?sort=severity:up&limit=1000").json()["incidents"]]
    listed = ran("--sort", "severity:up")
    assert [line.split()[0] for line in listed.out.splitlines()[:-1]] == shown[:50]
    assert listed.out.splitlines()[-1] == "60 incidents, the first 50 of them here"
    table = csv.DictReader(io.StringIO(ran("--sort", "severity:up", "--csv").out))
    assert [row["incident_id"] for row in table] == shown
    assert ran("--in-state", "in-work").out == ran("--in-state", "in work").out != listed.out
    refused = ran("--sort", "sideways")
    assert refused.code == 2 and is_one_line(refused)
    assert "cannot sort incidents by 'sideways'" in refused.err
