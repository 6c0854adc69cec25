"""The benchmark has an operator do all tasks over a database that it filled, and says what they took."""

from __future__ import annotations

import re

import pytest

from tests.bench.console import __main__ as bench
from tests.bench.console import tasks
from tests.e2e.browsing import CHROMIUM

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


def test_an_operator_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tasks, "ROUNDS", 2)
    bench.main(["--tasks", "--rows", "3000", "--incidents", "20", "--on", "sqlite"])
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| (\d) \| (\d) \| [\d.]+ \| [\d.]+ \|$", capsys.readouterr().out, re.M)
    assert [name for name, *_ in rows] == [task.name for task in tasks.TASKS]
    assert all(int(clicks) <= int(most) for _, clicks, most in rows)
