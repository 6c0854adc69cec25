"""Counts of the list of incidents, and changes of all that it finds."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.core.types import Severity
from agents.store.console import counting
from agents.store.feedback.labels import Label
from agents.web.console import incidents
from tests.support.verdicts import START, incident, verdicts
from tests.web.console.test_incidents import Person, fill, post, told
from tests.web.test_console import World

pytestmark = pytest.mark.integration


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def varied(world: World) -> World:
    """Incidents that differ in each facet, of three days; some were triaged."""
    made = [
        incident(
            client=f"10.0.0.{number % 4}",
            domain=f"d{number}.example",
            severity=Severity.CRITICAL if number % 3 else Severity.HIGH,
            tool="iodine" if number % 2 else None,
            first_seen=START + number,
            last_seen=START + number % 7 % 3 * 86_400 + number,
            evidence={"kind": f"k{number % 5}", "model": f"{number % 2:016x}"},
        )
        for number in range(60)
    ]
    world.store.write(verdicts([], incidents=tuple(made)), "varied")
    ids = [one["incident_id"] for one in world.get("/incidents?limit=60").json()["incidents"]]
    assert post(world, "/incidents/change", incidents=ids[:20], label="benign", author="ann").status_code == 200
    assert post(world, "/incidents/change", incidents=ids[10:30], assignee="bob", author="ann").status_code == 200
    return world


@pytest.mark.parametrize(
    "chosen",
    [
        "",
        "severity=HIGH",
        "severity=HIGH&state=closed&client=10.0.0.1",
        "day=2026-01-02&tool=iodine",
        "client=10.0.0.1&client=10.0.0.2&model=0000000000000001",
        "q=label:benign&domain=d13.example",
        "kind=k3&assignee=none&label=none&day=2026-01-01",
        "severity=SUSPICIOUS",
    ],
)
def test_a_facet_counts_what_choosing_its_value_finds(varied: World, chosen: str) -> None:
    found = varied.get(f"/incidents?{chosen}").json()
    rest = [pair.split("=") for pair in chosen.split("&") if pair]
    for name, values in found["facets"].items():
        others = [f"{key}={value}" for key, value in rest if key != name]
        if name == "label" and "q=label:benign" in others:
            continue  # it is typed, and stays
        for value, count in values:
            page = varied.get(f"/incidents?{'&'.join([*others, f'{name}={value}'])}").json()
            assert (page["count"], len(page["incidents"])) == (count, count), (name, value)
    assert len(found["incidents"]) == found["count"]


def test_days_are_listed_the_latest_first_and_are_links(varied: World) -> None:
    assert [day for day, _ in varied.get("/incidents").json()["facets"]["day"]] == [
        "2026-01-03", "2026-01-02", "2026-01-01",
    ]  # fmt: skip
    page = Person(varied).page("/console/incidents?severity=HIGH").text
    assert "<h2>Model</h2>" in page and 'href="/console/incidents?severity=HIGH&amp;model=0000000000000001"' in page
    assert 'href="/console/incidents?severity=HIGH&amp;day=2026-01-01">2026-01-01</a>' in page
    answer = varied.get("/incidents?day=2026-13-01")
    assert answer.status_code == 422 and "day" in answer.json()["error"]


def test_counts_over_very_many_incidents_are_kept_for_seconds_and_say_how_old_they_are(
    varied: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "KEPT_FROM", 10)
    before = varied.get("/incidents").json()
    varied.store.write(verdicts([], incidents=(incident(domain="new.example", last_seen=START + 900_000),)), "more")
    after = varied.get("/incidents?sort=score").json()
    assert (after["count"], after["counted_at"]) == (60, before["counted_at"]), "counts are those of before"
    assert varied.get("/incidents").json()["incidents"][0]["domain"] == "new.example", "the list is not"
    newest = after["incidents"][0]["incident_id"]
    post(varied, "/incidents/change", incidents=[newest], label="ignore", author="ann")
    assert varied.get("/incidents").json()["count"] == 61, "what somebody did is counted at once"
    monkeypatch.setattr(counting, "KEPT_S", 0.0)
    at = time.time() + 5
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: at)
        assert re.search(r"61, counted \d seconds ago", Person(varied).page("/console/incidents").text)


def test_all_that_is_found_is_changed_and_undone_with_one_entry_of_the_audit_log(world: World) -> None:
    ids = fill(world)
    ann = Person(world)
    page = ann.page("/console/incidents?severity=HIGH&q=10.0.0.0%2F8").text
    assert "All 80 incidents that are found" in page
    shown_at = re.search(r'name="shown_at" value="([0-9.]+)"', page)
    assert shown_at is not None
    where = "/console/incidents/found?severity=HIGH&q=10.0.0.0%2F8"
    refused = send_all(ann, world, where, do="benign", shown_at=shown_at[1])
    assert "confirm with the box" in told(refused)["problem"]
    assert world.get("/incidents?label=benign").json()["count"] == 0
    done = send_all(ann, world, where, do="benign", confirm="all", reason="a scan of ours", shown_at=shown_at[1])
    assert told(done)["done"] == "All 80 incidents that were found: labelled benign."
    assert done.headers["location"].startswith("/console/incidents?severity=HIGH&q=10.0.0.0%2F8&")
    assert world.get("/incidents?label=benign&severity=HIGH").json()["count"] == 80
    assert world.get("/incidents?label=none").json()["count"] == len(ids) - 80
    assert len(world.parts.reviews.decisions(standing=True, limit=1000)) == 80
    (entry,) = [one for one in world.get("/audit").json()["entries"] if one["action"] == "incident changed"]
    assert (entry["object"], entry["author"]) == ("80 incidents", "ann")
    assert entry["detail"].endswith("all that was found by: severity=HIGH q=10.0.0.0/8")
    undone = ann.send(do="undo", action=told(done)["undo"])
    assert told(undone)["done"] == "Undone for 80 incidents."
    assert world.get("/incidents?label=none").json()["count"] == len(ids)
    assert world.parts.reviews.decisions(standing=True) == []


def send_all(person: Person, world: World, url: str, **form: str) -> Any:
    """The form of the list, with the button of all that is found."""
    key = re.search(r'name="key" value="([0-9a-f]+)"', person.page("/console/incidents").text)
    assert key is not None
    answer = world.call("POST", url, data=form | {"key": key[1]}, headers={"Cookie": person.cookie})
    assert answer.status_code == 303, answer.text
    return answer


def test_programs_change_all_that_a_search_finds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world)
    done = post(world, "/incidents/change-found?q=tool:iodine&severity=CRITICAL", label="tunnel", author="siem").json()
    assert len(done["incidents"]) == 8
    assert [one.label for one in world.parts.reviews.decisions(standing=True)] == [Label.TUNNEL] * 8
    assert post(world, "/incidents/undo", action_id=done["action_id"], author="siem").status_code == 200
    early = post(world, "/incidents/change-found", state="closed", author="siem", detected_until=START + 10)
    assert len(early.json()["incidents"]) == 10, "what was detected later was not seen by anybody"
    for path, words in (
        ("/incidents/change-found?q=nothing-of-this", "nothing is found"),
        ("/incidents/change-found?sevrity=HIGH", "cannot use the parameter 'sevrity'"),
    ):
        answer = post(world, path, state="closed", author="siem")
        assert (answer.status_code, words in answer.json()["error"]) == (422, True)
    monkeypatch.setattr(incidents, "FOUND_MAX", 100)
    answer = post(world, "/incidents/change-found", state="closed", author="siem")
    assert answer.json()["error"] == "cannot change more than 100 incidents at once: narrow the search"
    assert world.get("/incidents?state=closed").json()["count"] == 10


def test_whoever_may_only_read_changes_nothing(world: World) -> None:
    fill(world, 3)
    answer = world.call("POST", "/console/incidents/found?severity=HIGH", data={"do": "benign", "confirm": "all"})
    assert answer.status_code == 401
    assert world.get("/incidents?label=none").json()["count"] == 3


@pytest.mark.slow
def test_ten_thousand_incidents_are_changed_at_once(world: World) -> None:
    made = incident()
    some = [replace(made, domain=f"d{number}.example", last_seen=START + number) for number in range(10_000)]
    world.store.write(verdicts([], incidents=tuple(some)), "many")
    began = time.process_time()
    done = post(world, "/incidents/change-found", label="ignore", author="ann").json()
    assert len(done["incidents"]) == 10_000
    assert post(world, "/incidents/undo", action_id=done["action_id"], author="ann").status_code == 200
    print(f"{time.process_time() - began:.1f} s of CPU")
    assert world.get("/incidents?label=none").json()["count"] == 10_000
