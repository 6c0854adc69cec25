"""Settings in force and the rates of the last hour, over the API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agents.web import create_app
from agents.web.console.last_hour import SLOT_S, SLOTS, SUMS
from tests.web.test_console import AUTH, World

pytestmark = pytest.mark.integration


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_settings_in_force_say_where_they_came_from(world: World) -> None:
    parts = replace(world.parts, in_force=lambda: [("FORWARD", "normalised", "default"), ("API_TOKEN", "…", ".env")])
    found = world.call("GET", "/settings", create_app(parts), headers=AUTH).json()
    assert found["settings"] == [
        {"name": "FORWARD", "value": "normalised", "origin": "default"},
        {"name": "API_TOKEN", "value": "…", "origin": ".env"},
    ]


def test_rates_are_those_that_the_first_page_draws_and_unknown_is_null(world: World) -> None:
    begun = world.get("/rates").json()
    assert begun["now"] is None and begun["slots"] == [None] * SLOTS and begun["slot_s"] == SLOT_S
    hour = world.parts.last_hour
    for at, scored in ((100.0, 5.0), (102.0, 25.0)):
        metrics = {"detector_up": 1.0, "detector_scored_total": scored, "listener_answered_total": scored}
        hour.note(metrics, begun["as_of"], at)
    (known,) = [one for one in world.get("/rates").json()["slots"] if one is not None]
    assert known["seconds"] == 2.0 and known["latency_ms"] is None
    assert known["counts"] == dict.fromkeys(SUMS, 0.0) | {"queries": 20.0, "answered": 20.0}
