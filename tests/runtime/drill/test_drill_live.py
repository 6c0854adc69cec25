"""A drill with all processes: listeners are asked, BIND behind a followed log is asked, the collector injects."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from agents.runtime import health
from agents.runtime.heartbeat import PARTS, detector_health, read_heartbeat
from tests.support.listening import wait_until
from tests.support.resolvers import bind, resolver
from tests.support.running import free_port
from tests.support.supervised import supervised

pytestmark = [pytest.mark.integration, pytest.mark.slow]
AT_ONCE = """
from agents.runtime.drill.drill import Drill
Drill.__init__.__kwdefaults__.update(first_s=1.0, seen_s=12.0)
"""


def test_a_drill_goes_through_each_intake_and_a_stopped_one_is_red(tmp_path: Path) -> None:
    (tmp_path / "bind").mkdir()
    with resolver(bind, tmp_path / "bind") as (port, log):
        log.touch()
        live = f"syslog+udp://127.0.0.1:{free_port()}"
        settings = {"COLLECT_FILES": f"{log},{live}", "COLLECT_FORMAT": "bind", "DRILL_MINUTES": "0.1"}
        settings |= {"DRILL_RESOLVERS": f"127.0.0.1:{port}", "HANG_S": "600"}
        with supervised(tmp_path / "data", AT_ONCE, **settings) as running:
            state_dir = tmp_path / "data" / "data"

            def last() -> dict[str, Any]:
                found: dict[str, Any] = read_heartbeat(state_dir / PARTS["listener"]).get("drill", {})
                return found

            wait_until(lambda: "through" in last(), 60)
            found = last()
            assert found["ok"], (found, running.log.read_text())
            assert [text.split(":")[0] for text in found["through"]] == [
                "the listener (asked)",
                "the resolver 127.0.0.1 (asked)",
                "the collector (injected)",
                "the receiver (injected)",
            ]
            assert running.sqlite_names() == [] and running.state()["incidents_open"] == 0
            os.kill(running.pid("collector"), signal.SIGSTOP)
            wait_until(lambda: last().get("unseen") == 2, 60)
            wait_until(lambda: "error" in _component(state_dir), 10)
            os.kill(running.pid("collector"), signal.SIGCONT)
            wait_until(lambda: last()["ok"], 90)


def _component(state_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = health._drill(detector_health(state_dir)[1]).get("drill", {})
    return found
