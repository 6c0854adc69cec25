"""The last hour of a real process on the console's first page, over a restart."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agents.web.console.last_hour import LAST_HOUR, SUMS
from tests.support.listening import wait_until
from tests.support.live import Running, running

pytestmark = pytest.mark.slow
NAMES = 40


def first_page(live: Running) -> str:
    """What a browser that runs no script shows of the last hour."""
    token = live.client.headers["Authorization"].removeprefix("Bearer ")
    if "dns_tunnel_session" not in live.client.cookies:
        live.client.post("/login", data={"password": token})
    text = live.client.get("/", headers={"Accept": "text/html"}).text
    found = re.search('<div id="strip".*?<div id="hour".*?The last hour.*?</p>', text, re.DOTALL)
    assert found is not None, text
    return found[0]


def sums_in(folder: Path) -> dict[str, float]:
    """What the file has of each sum, over all slots."""
    (path,) = folder.rglob(LAST_HOUR)
    rows = json.loads(path.read_text())["slots"].values()
    return {name: sum(row[1 + at] for row in rows) for at, name in enumerate(SUMS)}


def test_the_last_hour_is_what_was_counted_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    with running(tmp_path, COMPILED="off") as live:
        wait_until(lambda: "queries judged a second" in first_page(live), 40)  # two readings: now it is known
        for number in range(NAMES):
            live.ask(f"host{number}.shop.example")
        live.ask("x" * 60 + "." + "y" * 60 + ".evil.example", "TXT")
        wait_until(lambda: ' class="took"' in first_page(live) and "ms on average" in first_page(live), 40)
        wait_until(lambda: live.get("/health")["components"]["queue"]["stored"] > NAMES, 30)
        assert live.stop() == 0
        kept = sums_in(tmp_path)
        assert kept["answered"] >= kept["queries"] >= 1 and kept["timed"] == kept["queries"]
        assert 0 < kept["answer_s"] < 60 and kept["shed"] == kept["spooled"] == 0
        live.restart()
        live.client.cookies.clear()
        shown = first_page(live)
        assert ' class="took"' in shown and "ms on average" in shown and 'class="gap"' in shown
