"""What deploy/ ships for Prometheus and Grafana names metrics that /metrics gives, and its rules fire."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agents.alerting.sink import ALERT_COUNTS
from agents.export.sink import EXPORT_COUNTS
from agents.runtime.bootstrap import load_settings, make_folders, registry_of
from agents.runtime.health import ProcessHealth, metrics_of
from agents.runtime.heartbeat import DetectorHealth
from agents.sources.collector import COLLECTED
from agents.stream.counters import Counters
from agents.web.metrics import PREFIX
from tests.support.patience import patient

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "dns-tunnel.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dns-tunnel.json"
NAME = re.compile(rf"\b{PREFIX}\w+")


def given(folder: Path) -> set[str]:
    """Names that /metrics has, where everything is set up and runs."""
    settings = load_settings(data_dir=folder)
    make_folders(settings)
    state = DetectorHealth(
        counters=Counters().values(),
        alerts=dict.fromkeys(ALERT_COUNTS, 0),
        exports=dict.fromkeys(EXPORT_COUNTS, 0),
        enforcement={"mode": "on"},
        drill={"ok": True, "at": 1.0},
    )
    (settings.state_dir / COLLECTED).write_text(json.dumps({"log": {"queries": 1}}))
    live = ProcessHealth(settings.state_dir, registry_of(settings)).metrics()
    return {PREFIX + one.name for one in (*metrics_of(state), *live)}


def expressions() -> list[str]:
    board = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    variables = [str(one["query"]) for one in board["templating"]["list"]]
    return [*queries, *variables, *re.findall(r"expr: (.+)", RULES.read_text())]


def test_metrics_that_are_named_exist(tmp_path: Path) -> None:
    named = {name for text in expressions() for name in NAME.findall(text)}
    assert len(named) > 20
    assert named - given(tmp_path) == set()


def test_no_client_is_a_label() -> None:
    labels = {label for text in expressions() for label in re.findall(r"\b(\w+)=~?\"", text)}
    grouped = [some for text in expressions() for some in re.findall(r"\bby \(([^)]*)\)", text)]
    labels |= {one.strip() for some in grouped for one in some.split(",")}
    assert labels <= {"instance", "job"}


def test_panels_lie_beside_each_other() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = {(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels}
    assert len(places) == len(panels) == len({one["id"] for one in panels})


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_the_rules_fire() -> None:
    for command in (["check", "rules", RULES.name], ["test", "rules", "dns-tunnel.test.yml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=RULES.parent, capture_output=True, text=True, check=False, timeout=patient(60)
        )
        assert done.returncode == 0, done.stdout + done.stderr
