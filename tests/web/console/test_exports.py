"""Files of what pages show: the audit log, an analyst's questions, the week."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.core.types import Severity
from agents.store.console import audit
from tests.support.verdicts import START, incident, verdicts
from tests.web.console.test_incidents import Person
from tests.web.test_console import World

pytestmark = pytest.mark.integration
DAY = f"since={START}&until={START + 86_400}"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def table(world: World, path: str) -> list[dict[str, str]]:
    answer = world.get(path)
    assert answer.headers["content-type"].startswith("text/csv")
    assert re.fullmatch(r'attachment; filename="[-a-z0-9]+\.csv"', answer.headers["content-disposition"])
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_the_audit_log_is_exported_with_all_its_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "ENTRIES_AT_ONCE", 7)
    for number in range(30):
        world.parts.console.audit.add("=ann" if number % 2 else "bob", "API", "changed", f"thing {number}", "a\nb")
    rows = table(world, "/audit/export")
    assert [row["object"] for row in rows] == [f"thing {number}" for number in reversed(range(30))]
    assert rows[0]["author"] == "'=ann", "no formula"
    assert re.fullmatch(r"20\d\d-\d\d-\d\d.\d\d:\d\d:\d\d.*", rows[0]["at"])
    assert len(table(world, "/audit/export?author=bob")) == 15
    lines = world.get("/audit/export?author=bob&format=json").text.splitlines()
    assert {json.loads(line)["author"] for line in lines} == {"bob"} and len(lines) == 15
    page = Person(world).page("/console/audit?author=bob").text
    assert 'href="/audit/export?author=bob"' in page and 'href="/audit/export?author=bob&amp;format=json"' in page


def test_an_answer_to_a_question_is_exported_whole(world: World) -> None:
    world.store.write(verdicts([f"a.d{number}.example" for number in range(120)]), "b1")
    rows = table(world, f"/questions/rarest-domains/export?{DAY}")
    assert len(rows) == 120 and rows[0]["domain"] == "d0.example" and rows[0]["last_seen"].startswith("2026-01-01")
    largest = table(world, f"/questions/largest-answers/export?{DAY}")
    assert (len(largest), largest[0]["qtype"], largest[0]["rlen"]) == (120, "TXT", "90")
    assert world.get("/questions/why/export").status_code == 404
    assert table(world, "/questions/failing-domains/export") == []
    day = time.strftime("%Y-%m-%d", time.gmtime(START))
    page = Person(world).page(f"/console/questions/rarest-domains?range={day}").text
    (link, *_) = re.findall(r'href="(/questions/[^"]+)" download>CSV', page)
    assert len(table(world, html.unescape(link))) == 120, "of the span that the page shows"


def test_the_week_is_exported_with_all_its_domains(world: World) -> None:
    found = tuple(
        incident(
            domain=f"d{number}.example", severity=Severity.CRITICAL if number % 2 else Severity.SUSPICIOUS,
            leaked_bytes=float(number), tool="iodine",
        )
        for number in range(130)
    )  # fmt: skip
    world.store.write(verdicts([], incidents=found), "b1")
    rows = table(world, "/weekly/export?until=2026-01-02")
    shown = world.get("/weekly?until=2026-01-02").json()
    assert len(shown["told"]) == 50 < len([row for row in rows if row["what"] == "paged"]) == shown["paged"]
    assert len(rows) == 130 and rows[0]["domain"] == "d129.example" and rows[0]["tools"] == "iodine"
    page = Person(world).page("/console/weekly?until=2026-01-02").text
    assert 'href="/weekly/export?until=2026-01-02" download>CSV' in page
    assert world.get("/weekly/export?until=tomorrow").status_code == 422
