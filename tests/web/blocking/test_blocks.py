"""Blocks over the API and on their page."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.dns.blocks import BLOCKS_FILE
from agents.enforcement.keeper import HITS_FILE
from agents.store.console.triage import Change
from agents.store.feedback.labels import Label
from tests.support.verdicts import incident, verdicts
from tests.web.test_console import AUTH, HTML, World

pytestmark = pytest.mark.integration
URL = "/console/blocks"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def post(world: World, path: str, **sent: Any) -> httpx.Response:
    return world.call("POST", path, headers=AUTH, json=sent)


def block(world: World, domain: str = "evil.net", **sent: Any) -> httpx.Response:
    return post(world, "/blocks", domain=domain, reason="a test", author="ann", **sent)


def test_a_block_is_made_listed_and_ended(world: World, tmp_path: Path) -> None:
    made = block(world, client="192.0.2.7", hours=2, action="refused").json()
    assert (made["domain"], made["action"], made["until"] - made["began_at"]) == ("evil.net", "refused", 7200)
    (tmp_path / HITS_FILE).write_text(f'{{"{made["block_id"]}": 12}}')
    listed = world.get("/blocks").json()
    assert (listed["mode"], listed["paused"], listed["counts_alone"]) == ("on", "", False)
    assert [(one["domain"], one["hits"]) for one in listed["blocks"]] == [("evil.net", 12)]
    (ended,) = post(world, "/blocks/remove", which="evil.net", author="bob").json()
    assert ended["ended_by"] == "bob"
    assert world.get("/blocks").json()["blocks"] == []
    assert len(world.get("/blocks", params={"ended": "true"}).json()["blocks"]) == 1


def test_all_is_undone_paused_and_resumed(world: World) -> None:
    block(world)
    block(world, "other.net")
    assert len(post(world, "/blocks/undo-all", author="bob").json()) == 2
    assert world.get("/blocks").json()["paused"] == "all blocks were undone by bob"
    assert post(world, "/blocks/resume").json()["paused"] == ""
    assert post(world, "/blocks/pause", author="ann").json()["paused"] == "paused by ann"


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/blocks", {"domain": "com", "reason": "x", "author": "a"}),
        ("/blocks", {"domain": "evil.net", "reason": " ", "author": "a"}),
        ("/blocks", {"domain": "evil.net", "reason": "x"}),
        ("/blocks", {"domain": "evil.net", "reason": "x", "author": "a", "hours": 0}),
        ("/blocks", {"domain": "evil.net", "reason": "x", "author": "a", "action": "drop"}),
        ("/blocks", {"domain": "evil.net", "reason": "x", "author": "a", "client": "everybody"}),
        ("/blocks/remove", {"which": "evil.net", "author": "a"}),
        ("/blocks/undo-all", {}),
    ],
)
def test_what_cannot_be_used_is_422_and_changes_nothing(world: World, path: str, sent: dict[str, Any]) -> None:
    answer = post(world, path, **sent)
    assert answer.status_code == 422 and answer.json()["error"].startswith("cannot ")
    assert world.get("/blocks").json()["blocks"] == []


def test_blocking_needs_the_token_and_a_form_its_page(world: World) -> None:
    sent = {"domain": "evil.net", "reason": "x", "author": "a"}
    assert world.call("POST", "/blocks", json=sent).status_code == 401
    cookie = Browser(world).cookie
    assert world.call("POST", "/blocks", headers={"Cookie": cookie}, json=sent).status_code == 401
    assert world.call("POST", URL, data={"do": "undo-all"}).status_code == 401
    assert Browser(world).send(key="0" * 64, do="undo-all").status_code == 401
    assert world.call("GET", URL, headers=HTML).status_code == 303


class Browser:
    """A session, and the key that its page has."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cookie = world.cookie(name="ann")

    def page(self, query: str = "") -> str:
        return self._world.call("GET", URL + query, headers=HTML | {"Cookie": self.cookie}).text

    def send(self, key: str | None = None, **form: Any) -> httpx.Response:
        if key is None:
            (key,) = set(re.findall(r'name="key" value="([0-9a-f]+)"', self.page()))
        return self._world.submit(URL, self.cookie, {"key": key, **form})


def test_one_click_undoes_all(world: World) -> None:
    block(world)
    browser = Browser(world)
    answer = browser.send(do="undo-all")
    assert answer.status_code == 200 and "1 block undone" in answer.text and "Nothing is blocked." in answer.text
    assert "undone by ann" in answer.text
    assert "Blocks are made again." in browser.send(do="resume").text


def test_a_form_blocks_and_ends(world: World) -> None:
    browser = Browser(world)
    answer = browser.send(do="block", domain="evil.net", client="", action="", hours="", reason="seen")
    assert "evil.net is blocked." in answer.text and "all clients" in answer.text
    (entry,) = world.get("/blocks").json()["blocks"]
    assert "1 block ended." in browser.send(do="end", which=entry["block_id"]).text
    wrong = browser.send(do="block", domain="com", reason="<i>kept")
    assert wrong.status_code == 422 and 'role="alert">cannot block' in wrong.text
    assert 'value="&lt;i&gt;kept"' in wrong.text
    assert browser.send(do="block", domain="evil.net", reason="x", hours="many").status_code == 422
    assert browser.send(do="other").status_code == 422


def test_hostile_text_is_escaped_and_a_damaged_list_is_said(world: World, tmp_path: Path) -> None:
    block(world, r"\<script\>.evil.net")
    post(world, "/blocks", domain="b.net", reason="<script>alert(1)</script>", author="<b>ann")
    text = Browser(world).page("?domain=%22%3E%3Cscript%3E&client=1&reason=x")
    assert "<script>" not in text and "<b>ann" not in text and "&lt;script&gt;.evil.net" in text
    (tmp_path / BLOCKS_FILE).write_text("{")
    text = Browser(world).page()
    assert "cannot read" in text
    assert "0 blocks undone" in Browser(world).send(do="undo-all").text


def test_an_incident_leads_to_the_form(world: World) -> None:
    one = incident(domain="evil.net", detected_at=time.time())
    world.store.write(verdicts([], incidents=(one,)), "a batch")
    world.parts.console.triage.change([one.incident_id], Change(label=Label.TUNNEL), "ann", "API")
    headers = HTML | {"Cookie": Browser(world).cookie}
    text = world.call("GET", f"/console/incidents/{one.incident_id}", headers=headers).text
    (link,) = re.findall(r'href="/console/blocks(\?[^"]+)"', text)
    shown = Browser(world).page(link.replace("&amp;", "&"))
    assert 'name="domain" maxlength="1024" value="evil.net"' in shown and f"incident {one.incident_id}" in shown
