"""The review queue over the API and on its page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.store.feedback.reviews import ReviewItem, ReviewState, ReviewStore
from tests.web.test_console import AUTH, HOSTILE_TEXT, HTML, World

pytestmark = pytest.mark.integration
URL = "/console/reviews"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    items = [ReviewItem(HOSTILE_TEXT, 0.8, "<b>why", 1, ("<script>x",)), ReviewItem("good.example", 0.5, "why", 2)]
    ReviewStore(made.store).fill(items, 1_767_225_600.0, 9, 100.0)
    yield made
    made.store.close()


def post(world: World, path: str, **sent: Any) -> httpx.Response:
    return world.call("POST", path, headers=AUTH, json=sent)


def test_the_queue_a_decision_and_its_undoing(world: World) -> None:
    first = world.get("/reviews").json()
    assert [one["domain"] for one in first["reviews"]] == [HOSTILE_TEXT, "good.example"]
    assert first["counts"] == {"new": 2, "in work": 0, "closed": 0}
    assert post(world, "/reviews/take", domain="good.example", author="ann").json()["taken_by"] == "ann"
    assert len(world.get("/reviews", params={"state": "in work"}).json()["reviews"]) == 1
    decided = post(world, "/reviews/decide", domains=["good.example"], label="benign", reason="ours", author="ann")
    assert decided.json()["decisions"][0]["label"] == "benign"
    undone = post(world, "/reviews/undo", domain="good.example", reason="no", author="bob").json()
    assert undone["undone_by"] == "bob"
    assert len(world.get("/reviews/decisions").json()["decisions"]) == 1


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/reviews/decide", {"domains": ["a.example"], "label": "good", "reason": "x", "author": "a"}),
        ("/reviews/decide", {"domains": [], "label": "benign", "reason": "x", "author": "a"}),
        ("/reviews/decide", {"domains": ["a.example"], "label": "benign", "reason": " ", "author": "a"}),
        ("/reviews/decide", {"domains": ["a.example"], "label": "benign", "reason": "x"}),
        ("/reviews/undo", {"domain": "a.example", "reason": "x", "author": "a"}),
        ("/reviews/take", {"domain": "a.example", "author": "a"}),
    ],
)
def test_what_cannot_be_used_is_422_and_changes_nothing(world: World, path: str, sent: dict[str, Any]) -> None:
    answer = post(world, path, **sent)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("cannot ")
    assert world.get("/reviews/decisions").json() == {"decisions": []}


class Browser:
    """A session, and the key that its page has."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cookie = world.cookie(name="ann")

    def page(self) -> str:
        return self._world.call("GET", URL, headers=HTML | {"Cookie": self.cookie}).text

    def send(self, key: str | None = None, **form: Any) -> httpx.Response:
        if key is None:
            (key,) = set(re.findall(r'name="key" value="([0-9a-f]+)"', self.page()))
        return self._world.submit(URL, self.cookie, {"key": key, **form})


def test_the_page_escapes_what_strangers_wrote_and_can_be_used_with_the_keyboard(world: World) -> None:
    text = Browser(world).page()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    for key in "tbimr":
        assert text.count(f'data-key="{key}"') == 1
    assert "accesskey" not in text, "one vocabulary of keys on all pages"
    assert text.count("autofocus") == 1
    for number in (1, 2):
        assert f'id="item{number}"' in text
        assert f'for="item{number}"' in text


def test_a_form_labels_all_marked_domains(world: World) -> None:
    browser = Browser(world)
    answer = browser.send(domain=[HOSTILE_TEXT, "good.example"], do="benign", reason="ours")
    assert (answer.status_code, "2 domains labelled benign." in answer.text) == (200, True)
    assert world.parts.reviews.items() == []
    answer = browser.send(domain="good.example", do="undo", reason="no")
    assert "good.example is no longer labelled benign." in answer.text
    assert [one.domain for one in world.parts.reviews.items(ReviewState.NEW)] == ["good.example"]
    browser.send(domain="good.example", do="take")
    assert [one.taken_by for one in world.parts.reviews.items(ReviewState.IN_WORK)] == ["ann"]


@pytest.mark.parametrize(
    "form",
    [
        {"do": "benign", "reason": "", "domain": "good.example"},
        {"do": "benign", "reason": "x"},
        {"do": "other", "reason": "x", "domain": "good.example"},
        {"do": "undo", "reason": "x"},
    ],
)
def test_a_form_that_lacks_something_says_so_and_keeps_what_was_entered(world: World, form: dict[str, str]) -> None:
    answer = Browser(world).send(**form)
    assert answer.status_code == 422
    assert 'role="alert">cannot ' in answer.text
    assert f'name="reason" maxlength="500" data-key="r" value="{form["reason"]}"' in answer.text
    assert world.parts.reviews.decisions() == []


def test_a_form_of_another_site_or_without_a_session_does_nothing(world: World) -> None:
    form = {"domain": "good.example", "do": "benign", "reason": "x"}
    browser = Browser(world)
    assert browser.send(key="", **form).status_code == 401
    assert browser.send(key="0" * 64, **form).status_code == 401
    assert browser.send(key="ü", **form).status_code == 401
    key = re.findall(r'name="key" value="([0-9a-f]+)"', browser.page())[0]
    assert world.call("POST", URL, data={"key": key, **form}).status_code == 401
    assert world.parts.reviews.decisions() == []
    assert world.call("GET", URL, headers=HTML).headers["location"] == "/login?next=/console/reviews"
