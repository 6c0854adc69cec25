"""The week in one page: what was found, listed, silenced, left out and missed."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents.core.types import DAY_S, Severity
from agents.sources.week_notes import WEEK_NOTES, WeekNotes, noted_between
from agents.store.console.audit import KNOWN_KEPT
from agents.web.app import create_app
from tests.support.verdicts import incident, verdicts
from tests.web.test_console import AUTH, World

OUT, LOST = "detector_sampled_out_total", "store_lost_total"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def fill(world: World) -> None:
    now = time.time()
    paged = incident(domain="evil.example", severity=Severity.CRITICAL, tool="dnscat2", leaked_bytes=900.0,
                     last_seen=now - 60, detected_at=now - 90)  # fmt: skip
    listed = incident(domain="lists.example", severity=Severity.SUSPICIOUS, last_seen=now - DAY_S,
                      detected_at=now - DAY_S, evidence={"explanation": {"kind": "reputation"}})  # fmt: skip
    old = incident(domain="old.example", severity=Severity.HIGH, last_seen=now - 8 * DAY_S, detected_at=now - 8 * DAY_S)
    replayed = incident(domain="replayed.example", severity=Severity.HIGH, last_seen=now, source="a.pcap")
    world.store.write(verdicts([], incidents=(paged, listed, old, replayed)), "b1")


def test_a_week_says_what_was_paged_and_what_was_listed(world: World) -> None:
    fill(world)
    week = world.get("/weekly").json()
    assert [(one["domain"], one["severity"], one["tools"]) for one in week["told"]] == [
        ("evil.example", "CRITICAL", ["dnscat2"])
    ]
    assert [(one["domain"], one["may_be"]) for one in week["listed"]] == [("lists.example", ["reputation"])]
    assert (week["severities"], week["unanswered"]) == ({"CRITICAL": 1, "SUSPICIOUS": 1}, 1)
    world.call("POST", "/services", headers=AUTH, json={"suffix": "cdn.example", "factor": 5, "reason": "ours"})
    text = world.page("/console/weekly").text
    assert "1 of them not looked at" in text
    assert ">cdn.example</a></span> by API: x5 until" in text
    assert "old.example" not in text and "replayed.example" not in text


def test_a_week_of_many_domains_counts_all_and_lists_the_loudest(world: World) -> None:
    now = time.time()
    many = tuple(
        incident(domain=f"d{at}.example", severity=Severity.HIGH, last_seen=now - 60 - at, detected_at=now - 90 - at)
        for at in range(60)
    )
    world.store.write(verdicts([], incidents=many), "b1")
    week = world.get("/weekly").json()
    assert (week["paged"], week["unpaged"], len(week["told"])) == (60, 0, 50)
    assert "60 incidents that somebody was paged for" in world.page("/console/weekly").text


def test_the_week_before_is_a_link_away_and_has_what_it_had(world: World) -> None:
    fill(world)
    before = re.findall(r'href="(/console/weekly\?until=[^"]+)" rel="prev"', world.page("/console/weekly").text)[0]
    page = world.page(html.unescape(before)).text
    assert "old.example" in page and "evil.example" not in page
    assert 'rel="next"' in page
    assert 'rel="next"' not in world.page("/console/weekly?until=2999-01-01").text, "the future has no weeks"


@pytest.mark.parametrize("until", ["yesterday", "2026-13-01", "<b>", "0001-01-01"])
def test_a_day_that_is_none_is_named(world: World, until: str) -> None:
    answer = world.get("/weekly", params={"until": until})
    assert answer.status_code == (200 if until == "0001-01-01" else 422)
    page = world.call("GET", "/console/weekly", params={"until": until}, headers={"Cookie": world.cookie()})
    assert page.status_code == 200
    assert "<b>" not in page.text


def test_counters_are_summed_by_the_day_over_restarts_of_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    for out, lost, drill in (
        (5.0, 0.0, {"at": 10.0, "ok": True}),
        (7.0, 1.0, {"at": 10.0, "ok": True}),
        (2.0, 0.0, {"at": 20.0, "ok": False}),  # the supervisor was started again
        (2.0, 0.0, {}),
    ):
        WeekNotes(tmp_path).note({OUT: out, LOST: lost}, drill)
    assert noted_between(tmp_path, now[0] - DAY_S, now[0] + 1) == {"left_out": 10, "drills": 2, "missed": 1}
    now[0] += 3 * DAY_S
    notes = WeekNotes(tmp_path)
    notes.note({OUT: 3.0}, {})
    assert noted_between(tmp_path, now[0] - DAY_S, now[0] + 1)["left_out"] == 1
    now[0] += 70 * DAY_S
    notes.note({OUT: 3.0}, {})
    assert noted_between(tmp_path, 0, now[0] + 1)["left_out"] == 0, "old days go"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"days": {"x": 1, "5": [], "20000": {"missed": "a"}}, "before": -1}'])
def test_a_damaged_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / WEEK_NOTES).write_text(text)
    WeekNotes(tmp_path).note({OUT: 1.0}, {"at": "x"})
    today = datetime.now(UTC).timestamp()
    assert noted_between(tmp_path, today - DAY_S, today + DAY_S)["left_out"] == 1


def test_what_was_left_out_and_missed_is_red(world: World) -> None:
    week = {"heard": {"listener": 0}, "left_out": 12, "drills": 4, "missed": 1}
    app = create_app(replace(world.parts, week=lambda since, until: week))
    page = world.call("GET", "/console/weekly", app, headers={"Cookie": world.cookie(app)}).text
    for text in ("12 queries left out", "1 of 4 test tunnels not seen", "listener: nothing was heard"):
        assert re.search(rf'<li class="bad">{text}', page), text


def test_no_stranger_at_the_login_pushes_out_of_the_week_what_was_silenced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.web.console.weekly.CHANGES_SHOWN", 3)
    audit = world.parts.console.audit
    audit.add("ann", "console", KNOWN_KEPT, "cdn.example", "ours")
    audit.add("bea", "command line", KNOWN_KEPT, "mail.example")
    for _ in range(4):
        audit.add("admin", "console", "login refused", "console")
    silenced = world.get("/weekly").json()["silenced"]
    assert [(one["author"], one["suffix"]) for one in silenced] == [("bea", "mail.example"), ("ann", "cdn.example")]
