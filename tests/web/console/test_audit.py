"""The audit log has what people do, is narrowed by who, what and of what, and leads to what it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.store.feedback.reviews import ReviewItem, ReviewStore
from tests.web.test_console import AUTH, HTML, World

pytestmark = pytest.mark.integration


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_reviews_that_are_taken_and_logouts_are_in_it(world: World) -> None:
    items = [ReviewItem(f"{name}.example", 0.5, "why", 2) for name in ("one", "two", "three")]
    ReviewStore(world.store).fill(items, 1_767_225_600.0, 9, 100.0)
    world.call("POST", "/reviews/take", headers=AUTH, json={"domain": "one.example", "author": "bob"})
    cookie = world.cookie(name="ann")
    shown = world.call("GET", "/console/reviews", headers={"Cookie": cookie}).text
    form = {"key": re.findall(r'name="key" value="([0-9a-f]+)"', shown)[0], "do": "take"}
    world.submit("/console/reviews", cookie, form | {"domain": ["two.example", "three.example"]})
    world.call("POST", "/logout", headers={"Cookie": cookie})
    world.call("POST", "/logout", headers={"Cookie": cookie})  # nobody's any more
    noted = [(one.author, one.action, one.object) for one in world.parts.console.audit.entries()]
    assert noted == [
        ("ann", "logout", "console"),
        ("ann", "review taken", "2 domains"),
        ("ann", "login", "console"),
        ("bob", "review taken", "one.example"),
    ]


def test_it_is_narrowed_and_leads_to_what_it_is_about(world: World) -> None:
    log = world.parts.console.audit
    log.add("ann", "console", "blocked", "evil.example", "<b>")
    log.add("bob", "API", "model: approve", "0" * 16)
    log.add("ann", "console", "incident changed", "1" * 16)
    log.add("ann", "console", "incident changed", "2 incidents")
    for number in range(100):
        log.add("eve", "API", "view saved", f"v{number}")
    cookie = world.cookie()

    def page(query: str) -> str:
        return world.call("GET", f"/console/audit{query}", headers=HTML | {"Cookie": cookie}).text

    ann = page("?author=ann")
    assert "v99" not in ann and "0" * 16 not in ann
    assert 'href="/console/domains/evil.example"' in ann and f'href="/console/incidents/{"1" * 16}"' in ann
    assert f'href="/console/models/{"0" * 16}"' in page("?action=model%3A+approve")
    assert 'name="object" value="evil.example"' in page("?object=evil.example")
    assert "Nothing is found" in page("?author=nobody")
    older = re.findall(r'href="(/console/audit\?author=eve&amp;before=\d+)"', page("?author=eve"))
    assert len(older) == 1, "the next page keeps the filter"
    found = world.get("/audit", params={"object": "evil.example"}).json()["entries"]
    assert [one["action"] for one in found] == ["blocked"]
