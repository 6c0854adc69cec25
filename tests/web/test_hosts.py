"""Which host on a bus runs which model, over the API and on the page of health."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from agents.runtime.bus.cluster_models import CLUSTER_FILE, candidate_hosts, shown_hosts
from agents.web.app import create_app
from agents.web.parts import Parts
from tests.web.test_console import AUTH, HTML, World, vars_of

OLD, NEW, THIRD = "0" * 15 + "1", "0" * 15 + "2", "0" * 15 + "3"
TRIED = {"candidate": THIRD, "candidate_since": 1000.0}


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    """What the scheduler's process has written down."""
    now = time.time()
    hosts = {
        "east": {"model_id": NEW, "since": now - 60, "at": now, "slots": 40} | TRIED,
        "west": {"model_id": OLD, "since": now - 9000, "at": now - 300, "slots": 24},
    }
    (tmp_path / CLUSTER_FILE).write_text(json.dumps({"model_id": NEW, "hosts": hosts, "at": now}))
    return tmp_path


def test_hosts_that_are_behind_or_silent_are_told_apart(noted: Path) -> None:
    found = shown_hosts(noted)
    assert found["model_id"] == NEW
    told = [(one["name"], one["slots"], one["behind"], one["silent"]) for one in found["hosts"]]
    assert told == [("east", 40, False, False), ("west", 24, True, True)]


def test_hosts_of_a_candidate_are_named_where_there_is_a_bus(tmp_path: Path, noted: Path) -> None:
    assert candidate_hosts(noted, THIRD) == {"east": 1000.0}
    assert candidate_hosts(noted, OLD) == {}
    assert candidate_hosts(tmp_path / "none", THIRD) is None


@pytest.mark.parametrize("text", ["", "[]", '{"at": 1}', '{"at": 1e18, "model_id": "", "hosts": {"a": 1}}'])
def test_what_cannot_be_read_is_no_host(tmp_path: Path, text: str) -> None:
    (tmp_path / CLUSTER_FILE).write_text(text)
    assert shown_hosts(tmp_path) == {"model_id": "", "hosts": []}


def test_api_and_page_say_it(tmp_path: Path, noted: Path) -> None:
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world")
    app = create_app(Parts(**(vars_of(world.parts) | {"hosts": lambda: shown_hosts(noted)})))
    answer = world.call("GET", "/hosts", app=app, headers=AUTH).json()
    assert [(one["name"], one["candidate"]) for one in answer["hosts"]] == [("east", THIRD), ("west", "")]
    seen = HTML | {"Cookie": world.cookie(app)}
    page = world.call("GET", "/console/health", app=app, headers=seen).text
    assert f"{OLD}, not the one in force" in page and "silent since" in page and "2 hosts" in page
    assert page.count(f"{THIRD} since") == 1
    assert "Hosts on the bus" not in world.page("/console/health").text
    world.store.close()
