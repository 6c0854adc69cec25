"""The made-up network of the console's benchmark is the same for the same size, and has what pages are asked for."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

from agents.core.types import DAY_S
from agents.store import open_store
from agents.store.console import ConsoleStore
from agents.store.console.terms import parse_search
from tests.bench.console import __main__ as bench
from tests.bench.console import tabs
from tests.bench.console.late import late_notes
from tests.bench.console.network import DAYS, NEEDLE, Network
from tests.support.verdicts import START


def told(path: Path) -> tuple[list[str], int, int]:
    with contextlib.closing(open_store(f"sqlite:///{path}")) as store:
        Network(3_000, 14, START).fill(store)
        found = ConsoleStore(store).hunter.search(parse_search(NEEDLE, START), limit=9)
        rows, _ = store.queries(limit=9_999)
        assert all(START - DAYS * DAY_S <= row["ts"] < START for row in rows)
        return [row["qname"] for row in rows], len(found.queries), len(store.incidents(limit=10**6))


def test_a_network_is_the_same_again(tmp_path: Path) -> None:
    first = told(tmp_path / "one.db")
    assert first == told(tmp_path / "two.db")
    names, needles, incidents = first
    assert (len(names), needles, incidents) == (3_000 + 14 * 25, 3, 14)


@pytest.mark.slow
def test_every_page_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench, "CHROMIUM", None)
    monkeypatch.setattr(bench, "tabs", lambda *_: None)
    bench.main(["--rows", "4000", "--incidents", "20", "--rounds", "1", "--on", "sqlite"])
    said = capsys.readouterr().out
    pages = re.findall(r"^\| ([^|]+) \| +[\d,]+ \| +[\d,]+ \|", said, re.M)
    assert {"Now", "One incident", "Hunt, a network", "Rarest domains, 30 days"} <= set(pages)


@pytest.mark.slow
def test_tabs_are_watched_beside_queries(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tabs, "WATCHED_S", 0.5)
    monkeypatch.setattr(tabs, "ROUNDS", 1)
    bench.main(["--tabs"])
    said = re.findall(
        r"^\| (\w+) \| [\d.]+% \| [\d.]+% \| (?:[\d.]+|nan) \| (?:\d+|nan)% \|$", capsys.readouterr().out, re.M
    )
    assert said == [*tabs.PROCESSES]


def test_noting_late_hours_is_measured_beside_not_noting_them(tmp_path: Path) -> None:
    said: list[str] = []
    late_notes(tmp_path, said.append, 3)
    assert len(said) == 5 and said[-1].endswith("  late") and "µs" in said[-1]
