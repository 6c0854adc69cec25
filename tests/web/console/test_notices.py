"""A form leads to a page that says what came of it: a reload of that page does nothing again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.learning.release.transitions import Author
from agents.store.people.roles import Role
from tests.support.carrier import with_factor
from tests.web.people.test_people import Visitor
from tests.web.test_console import HTML, World

pytestmark = pytest.mark.integration
SURE = {"reason": "too loud", "confirm": "yes"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


class Tab:
    """A page of a session: it sends its form, is led on, and is loaded again."""

    def __init__(self, world: World, cookie: str = "") -> None:
        self._world, self.cookie = world, cookie or world.cookie(name="ann")

    def get(self, url: str) -> httpx.Response:
        return self._world.call("GET", url, headers=HTML | {"Cookie": self.cookie})

    def send(self, url: str, **form: Any) -> httpx.Response:
        """The answer to the form itself."""
        key = re.findall(r'name="key" value="([0-9a-f]+)"', self.get("/console/services").text)
        return self._world.call("POST", url, headers={"Cookie": self.cookie}, data={"key": key[0], **form})


def test_a_reload_after_a_rollback_does_not_go_back_once_more(world: World) -> None:
    models = [with_factor(factor) for factor in (0.9, 0.8, 0.7)]
    for model in models:
        world.registry.save_candidate(model)
        world.registry.promote(model.model_id, Author("ann", ""))
    tab = Tab(world)
    answer = tab.send("/console/models", do="rollback", **SURE)
    assert answer.status_code == 303
    for _ in range(2):
        assert f"back to {models[1].model_id}." in tab.get(answer.headers["location"]).text
    assert world.registry.current().model_id == models[1].model_id
    other = Tab(world, world.cookie(name="bob")).get(answer.headers["location"]).text
    assert f"back to {models[1].model_id}." not in other, "nobody puts words on another's page by a link"


def test_of_two_clicks_on_one_button_the_second_finds_another_model_in_use(world: World) -> None:
    models = [with_factor(factor) for factor in (0.9, 0.8, 0.7)]
    for model in models:
        world.registry.save_candidate(model)
        world.registry.promote(model.model_id, Author("ann", ""))
    tab = Tab(world)
    shown = re.findall(r'name="in_use" value="([0-9a-f]+)"', tab.get("/console/models").text)
    assert shown == [models[2].model_id]
    for status in (303, 422):
        answer = tab.send("/console/models", do="rollback", in_use=shown[0], **SURE)
        assert answer.status_code == status
    assert "the model in use is another one by now" in answer.text
    assert world.registry.current().model_id == models[1].model_id


@pytest.mark.parametrize(
    ("url", "form", "done"),
    [
        ("/console/blocks", {"do": "block", "domain": "evil.net", "reason": "seen"}, "evil.net is blocked."),
        ("/console/blocks", {"do": "undo-all"}, "0 blocks undone"),
        ("/console/services", {"do": "keep", "suffix": "ours.example", "reason": "ours"}, "ours.example is known"),
        ("/console/learning", {"do": "disable"}, "No cycle begins by itself any more."),
        ("/console/reviews", {"do": "benign", "domain": "a.example", "reason": "ours"}, "1 domain labelled benign."),
        ("/console/users", {"do": "role", "name": "bea", "role": "analyst"}, "bea is analyst now."),
        ("/console/account", {"do": "others"}, "0 other sessions ended."),
        ("/console/health", {"do": "test"}, "No channel is set up"),
        ("/console/incidents", {"do": "save", "view": "mine"}, "The view mine is kept."),
    ],
)
def test_each_form_is_answered_by_a_page_that_may_be_loaded_again(
    world: World, url: str, form: dict[str, str], done: str
) -> None:
    world.parts.people.users.add("bea", Role.VIEWER, "test")
    tab = Tab(world, Visitor(world, "ann", Role.ADMIN).cookie)
    answer = tab.send(url, **form)
    assert answer.status_code == 303, answer.text
    before = len(world.parts.console.audit.entries())
    for _ in range(2):
        page = tab.get(answer.headers["location"])
        assert page.status_code == 200 and done in page.text
    assert len(world.parts.console.audit.entries()) == before


def test_a_secret_that_is_shown_once_stands_in_no_address(world: World) -> None:
    tab = Tab(world, Visitor(world, "ann", Role.ADMIN).cookie)
    made = tab.send("/console/account", do="token", what_for="a probe", scope="read")
    assert made.status_code == 200 and "<pre>dnst_" in made.text
    link = tab.send("/console/users", do="add", name="bea", role="viewer")
    assert link.status_code == 200 and "/login/link/" in link.text
