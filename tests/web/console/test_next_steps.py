"""From an incident onwards in one click each: a tunnel to its block, a false alarm to its known service."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.core.types import Incident
from agents.enforcement.options import EnforceMode, EnforceOptions
from tests.support.verdicts import incident, verdicts
from tests.web.console.test_incidents import Person, told
from tests.web.test_console import AUTH, World

pytestmark = pytest.mark.integration
SERVICES = "/console/services"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def stored(world: World, **facts: Any) -> Incident:
    """An incident of now, so that a preview looks at it."""
    now = time.time()
    made = incident(first_seen=now - 60, detected_at=now - 30, last_seen=now, **facts)
    world.store.write(verdicts([], incidents=(made,)), made.incident_id)
    return made


def label(world: World, made: Incident) -> str | None:
    return world.parts.console.triage.of([made.incident_id])[made.incident_id].label


def answered(world: World, person: Person, url: str, **form: Any) -> httpx.Response:
    """What a browser shows after a form of a page."""
    key = re.search(r'name="key" value="([0-9a-f]+)"', person.page(url).text)
    assert key is not None
    return world.submit(url, person.cookie, form | {"key": key[1]})


def known_service_page(person: Person, made: Incident) -> str:
    """The page that an incident's link leads to."""
    link = re.search(rf'href="({SERVICES}\?[^"]+)"', person.page(f"/console/incidents/{made.incident_id}").text)
    assert link is not None
    return person.page(unescape(link[1])).text


def filled(page: str, name: str) -> str:
    found = re.search(rf'name="{name}"[^>]* value="([^"]*)"', page)
    assert found is not None, name
    return found[1]


def test_a_tunnel_is_labelled_and_led_to_its_block(world: World) -> None:
    made, person = stored(world), Person(world)
    answer = person.send(do="block", incident=made.incident_id, page=made.incident_id)
    at = answer.headers["location"]
    assert at.startswith("/console/blocks?domain=evil.example&client=192.0.2.7&")
    page = person.page(at).text
    assert "1 incident: labelled tunnel." in page
    assert (filled(page, "domain"), filled(page, "client")) == ("evil.example", "192.0.2.7")
    assert label(world, made) == "tunnel"
    assert world.get("/blocks").json()["blocks"] == [], "a person has to press the button there"
    assert "labelled tunnel" not in Person(world, "bob").page(at).text, "nobody puts words on another's page by a link"


def test_what_cannot_be_labelled_is_led_to_no_block(world: World) -> None:
    answer = Person(world).send(do="block", page="0" * 16)
    assert answer.headers["location"].startswith("/console/incidents/")
    assert "no incident is marked" in told(answer)["problem"]


def test_without_enforcement_no_block_is_offered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stored(world)
    monkeypatch.setattr(world.parts.blocks, "options", EnforceOptions(EnforceMode.OFF))
    page = Person(world).page(f"/console/incidents/{made.incident_id}").text
    assert 'value="tunnel"' in page and "block&#8230;" not in page
    assert "<code>dry-run</code>" in Person(world).page("/console/blocks").text


@pytest.mark.parametrize("score", [0.9, 0.995])
def test_a_false_alarm_is_silenced_by_what_the_page_fills_in(world: World, score: float) -> None:
    made, person = stored(world, score=score), Person(world)
    page = known_service_page(person, made)
    assert "1 of 1 incident would be silent, 0 below it stay." in page
    sent = {name: filled(page, name) for name in ("suffix", "factor", "expires", "reason", "incident")}
    done = answered(world, person, SERVICES, do="keep", **sent).text
    assert "1 incident closed, its incident labelled benign." in done
    assert label(world, made) == "benign"
    assert world.get(f"/incidents/{made.incident_id}").json()["closed_at"] is not None


def test_nothing_is_kept_for_an_incident_that_is_gone(world: World) -> None:
    form = {"do": "keep", "suffix": "evil.example", "reason": "ours", "incident": "0" * 16}
    answer = answered(world, Person(world), SERVICES, **form)
    assert answer.status_code == 422 and "cannot label the incident" in answer.text
    assert world.get("/services").json() == {"services": []}


@pytest.mark.parametrize("earlier", [False, True], ids=["new", "in place of another"])
def test_a_known_service_that_was_kept_is_taken_back_with_what_it_closed(world: World, earlier: bool) -> None:
    made, person = stored(world), Person(world)
    before = world.get(f"/incidents/{made.incident_id}").json()
    if earlier:
        form = {"suffix": "evil.example", "factor": 1.01, "reason": "=1+1, earlier", "author": "bob"}
        assert world.call("POST", "/services", headers=AUTH, json=form).status_code == 200
    entries = world.get("/services").json()
    page = known_service_page(person, made)
    sent = {name: filled(page, name) for name in ("suffix", "factor", "expires", "reason", "incident")}
    kept = answered(world, person, SERVICES, do="keep", **sent).text
    assert world.get(f"/incidents/{made.incident_id}").json()["closed_at"] is not None
    undone = answered(world, person, SERVICES, do="undo", action=unescape(filled(kept, "action"))).text
    assert "evil.example is as before; 1 incident open again, its label taken back." in undone
    assert world.get("/services").json() == entries
    after = world.get(f"/incidents/{made.incident_id}").json()
    assert (after["closed_at"], after["reasons"]) == (before["closed_at"], before["reasons"])
    assert label(world, made) is None
    again = answered(world, person, SERVICES, do="undo", action=unescape(filled(kept, "action")))
    assert again.status_code == 422 and "cannot undo: evil.example" in again.text


def test_a_program_takes_an_entry_back_too_and_nothing_that_was_not_kept(world: World) -> None:
    made = stored(world)
    form = {"suffix": "evil.example", "factor": 100, "reason": "ours", "author": "bob"}
    kept = world.call("POST", "/services", headers=AUTH, json=form).json()
    assert kept["silenced"] == [made.incident_id]
    done = world.call("POST", "/services/undo", headers=AUTH, json={"undo": kept["undo"], "author": "bob"})
    assert done.json() == {"suffix": "evil.example", "reopened": [made.incident_id]}
    for undo in (kept["undo"], "", "{", "[]", '{"entry": {}, "before": null, "at": 1}'):
        refused = world.call("POST", "/services/undo", headers=AUTH, json={"undo": undo})
        assert refused.status_code == 422 and refused.json()["error"].startswith("cannot undo")
    noted = [(one.author, one.action, one.object) for one in world.parts.console.audit.entries()]
    assert noted[0] == ("bob", "known service undone", "evil.example")


def test_a_label_that_led_to_its_block_is_undone_there(world: World) -> None:
    made, person = stored(world), Person(world)
    at = person.send(do="block", incident=made.incident_id, page=made.incident_id).headers["location"]
    page = person.page(at).text
    person.send(do="undo", action=filled(page, "action"))
    assert label(world, made) is None


def test_a_gateway_is_silenced_and_others_that_ask_below_the_domain_are_not(world: World) -> None:
    gateway, other = stored(world, client="10.0.0.25"), stored(world, client="10.0.0.7")
    person = Person(world)
    form = {"suffix": ".", "client": "10.0.0.24/29", "factor": "100", "reason": "mail gateway"}
    preview = answered(world, person, SERVICES, do="preview", **form).text
    assert "1 of 2 incidents would be silent" in preview and filled(preview, "client") == "10.0.0.24/29"
    done = answered(world, person, SERVICES, do="keep", **form).text
    assert ". for 10.0.0.24/29 is known until" in done
    closed = {one.client: one.closed_at is not None for one in world.store.incidents(limit=10)}
    assert closed == {"10.0.0.25": True, "10.0.0.7": False}
    assert world.get(f"/incidents/{gateway.incident_id}").json()["client"] == "10.0.0.25" != other.client
    (listed,) = world.get("/services").json()["services"]
    assert (listed["suffix"], listed["client"]) == (".", "10.0.0.24/29")
    for_all = answered(world, person, SERVICES, do="preview", **form | {"client": ""})
    assert for_all.status_code == 422 and "a suffix is needed" in for_all.text
    assert answered(world, person, SERVICES, do="remove", suffix=".").status_code == 422
    assert (
        "is no longer known" in answered(world, person, SERVICES, do="remove", suffix=".", client="10.0.0.24/29").text
    )


def test_a_preview_looks_back_over_the_weeks_that_are_chosen_and_says_how_much_history_there_is(world: World) -> None:
    now, day = time.time(), 86_400.0
    made = [
        incident(client=f"10.0.0.{ago}", first_seen=now - ago * day - 60, last_seen=now - ago * day, leaked_bytes=1.0)
        for ago in (1, 10, 20)
    ]
    world.store.write(verdicts([], incidents=tuple(made)), "weeks")
    sent = {"suffix": "evil.example", "factor": 1000, "reason": "ours", "author": "ann"}

    def previewed(**more: Any) -> dict[str, Any]:
        found: dict[str, Any] = world.call("POST", "/services/preview", json=sent | more, headers=AUTH).json()
        return found

    assert [len(previewed(weeks=weeks)["silenced"]) for weeks in (1, 2, 4)] == [1, 2, 3]
    assert previewed() == previewed(weeks=1)
    assert previewed(weeks=4)["oldest"] == made[2].last_seen and not previewed(weeks=4)["is_cut"]
    assert world.call("POST", "/services/preview", json=sent | {"weeks": 3}, headers=AUTH).status_code == 422
    person = Person(world)
    form = {"suffix": "evil.example", "factor": "1000", "reason": "ours"}
    page = answered(world, person, SERVICES, do="preview", weeks="4", **form).text
    assert "In the last 4 weeks" in page and "3 of 3 incidents would be silent" in page
    assert "The oldest stored incident of this time was last seen" in page and '<option value="4" selected>' in page
    assert (
        "cannot look back 3 weeks: possible are 1, 2, 4"
        in answered(world, person, SERVICES, do="preview", weeks="3", **form).text
    )
    kept = answered(world, person, SERVICES, do="keep", weeks="4", **form).text
    assert "3 incidents closed" in kept
    undo = re.search(r'name="action" value="([^"]+)"', kept)
    assert undo is not None
    assert "3 incidents open again" in answered(world, person, SERVICES, do="undo", action=unescape(undo[1])).text
