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
from tests.web.test_console import World

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
    """What a form of a page is answered with where that is a page."""
    key = re.search(r'name="key" value="([0-9a-f]+)"', person.page(url).text)
    assert key is not None
    return world.call("POST", url, data=form | {"key": key[1]}, headers={"Cookie": person.cookie})


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
