"""The page of health: a sentence for whatever is bad, what to do about it, values with units, names for people only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.runtime.heartbeat import DetectorHealth, Heartbeat
from agents.runtime.inside.components import inside_components, memory_left
from agents.web.app import create_app
from agents.web.parts import Parts
from tests.web.test_console import AUTH, HTML, World, vars_of

AT = 1_767_492_011.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def shown(world: World, **components: dict[str, Any]) -> tuple[str, dict[str, dict[str, Any]]]:
    """The page, and what the API says of each component."""
    parts = vars_of(world.parts) | {"health": lambda: components}
    app = create_app(Parts(**parts))
    page = world.call("GET", "/console/health", app, headers=HTML | {"Cookie": world.cookie(app)}).text
    found = world.call("GET", "/components", app, headers=AUTH).json()["components"]
    return page, {one["name"]: one for one in found}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "state", "sentence"),
    [
        ("listener", {"hanging": ["listener-1"]}, "listener-1 does not move; it is killed and started again."),
        ("listener", {}, "Nothing judges queries"),
        (
            "queue",
            {"waiting": 3, "lost_unacknowledged": 1},
            "3 files of verdicts on disk for the database; 1 verdict",
        ),
        ("overload", {"level": 2}, "level 2 leaves out"),
        ("overload", {"level": 0, "oldest_unjudged_s": 60.0}, "a query has waited for 60 seconds"),
        ("channels", {"slack": 2, "email": 0}, "A channel takes no messages: 2 messages for slack."),
        ("scheduler", {}, "Nobody keeps the calendar"),
        ("model", {"error": "cannot read model x"}, "cannot read model x"),
    ],
)
def test_whatever_is_bad_has_a_sentence_and_what_to_do(
    world: World, name: str, state: dict[str, Any], sentence: str
) -> None:
    page, found = shown(world, **{name: {"ok": False, **state}, "fine": {"ok": True}})
    assert sentence in found[name]["sentence"] and sentence in page
    assert found[name]["advice"] and not found["fine"]["sentence"]
    assert page.index(f'id="{name}"') < page.index('id="fine"'), "the bad ones come first"


def test_values_have_units(world: World) -> None:
    page, _ = shown(
        world,
        drill={"ok": True, "at": AT, "asked": 1234567},
        overload={"ok": True, "last_batch_s": 7200.0, "hanging": [], "by_type": {"TXT": 3}, "kept_bytes": 2_500_000},
    )
    assert '<time datetime="2026-01-04T02:00:11Z">' in page and str(int(AT)) not in page
    for text in ("1,234,567", '<dt>last batch</dt><dd class="name">2 hours</dd>', "none", "TXT 3", "2.5 MB"):
        assert text in page, text


def test_names_are_for_people_who_have_logged_in(world: World, tmp_path: Path) -> None:
    heard = {"kind": "bind", "hours": [], "error": "no such file <b>"}
    (tmp_path / "collected.json").write_text(json.dumps({"/var/log/named": heard}))
    state = DetectorHealth(
        judging=True, counters={"answered": 1, "servfail": 9}, mismatched={"9.9.9.9": 2},
        channels={"slack": {"waiting": 4, "failures": 3, "error": "403 Forbidden"}},
    )  # fmt: skip
    Heartbeat(tmp_path / "detector.json", state.to_json)._write()
    found = inside_components(tmp_path)
    assert found["upstreams"]["error"] == "cannot get answers: 90% of the queries had none from any upstream"
    assert found["intake /var/log/named"]["error"] == "no such file <b>"
    assert found["upstreams"]["wrong_answers"] == {"9.9.9.9": 2}
    assert "slack did not take it 3 times in a row: 403 Forbidden" in found["outbox"]["error"]
    app = create_app(Parts(**(vars_of(world.parts) | {"inside": lambda: found})))
    page = world.call("GET", "/console/health", app, headers=HTML | {"Cookie": world.cookie(app)}).text
    assert "9.9.9.9 2" in page and "403 Forbidden" in page and "Intake /var/log/named" in page
    assert "no such file &lt;b&gt;" in page
    assert "9.9.9.9" not in world.call("GET", "/health", app).text


def test_memory_is_too_little_below_a_twentieth(tmp_path: Path) -> None:
    for left, well in ((400, False), (800, True)):
        (tmp_path / "meminfo").write_text(f"MemTotal: 10000 kB\nMemAvailable: {left} kB\nHugePages_Total: 0\n")
        found = memory_left(tmp_path, DetectorHealth())["memory"]
        assert (found["ok"], found["left_bytes"]) == (well, left << 10)
    assert memory_left(tmp_path / "none", DetectorHealth()) == {}
