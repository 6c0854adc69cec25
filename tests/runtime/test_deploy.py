"""What deploy/ ships for Prometheus and Grafana names metrics that /metrics gives, and its rules fire."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

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

PROMTOOL = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
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


def test_the_dashboard_is_what_grafanas_own_library_reads_and_writes() -> None:
    """Grafana itself is not to be had here; its library leaves out what its schema does not know."""
    sdk = pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is not installed")
    plugins, encoder, dashboard = (
        importlib.import_module(f"{sdk.__name__}.{name}") for name in ("cog.plugins", "cog.encoder", "models.dashboard")
    )
    plugins.register_default_plugins()

    def again(board: dict[str, Any]) -> Any:
        return json.loads(encoder.JSONEncoder().encode(dashboard.Dashboard.from_json(board)))

    board = json.loads(DASHBOARD.read_text())
    assert lost(board, again(board)) == []
    board["panels"][0]["gridPos"]["wide"], board["panels"][1]["tytle"] = 3, "x"
    assert lost(board, again(board)) == [".panels[0].gridPos.wide", ".panels[1].tytle"]


def lost(one: object, other: object, at: str = "") -> list[str]:
    """Places of what a JSON value has and another has not, or otherwise."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [place for key, value in one.items() for place in lost(value, other.get(key), f"{at}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            place
            for number, pair in enumerate(zip(one, other, strict=True))
            for place in lost(*pair, f"{at}[{number}]")
        ]
    return [] if one == other else [at]


@pytest.mark.integration
@PROMTOOL
def test_prometheus_parses_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    board = json.loads(DASHBOARD.read_text())
    queries = [str(target["expr"]) for panel in board["panels"] for target in panel["targets"]]
    asked = [one.replace("$instance", ".*") for one in queries]
    assert len(asked) > 20 and not any("$" in one for one in asked)
    for broken in ("", ") by ("):
        rules = [{"record": f"of:panel{number}", "expr": one + broken} for number, one in enumerate(asked)]
        path = tmp_path / "panels.json"
        path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
        done = subprocess.run(
            ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False, timeout=patient(60)
        )
        assert (done.returncode == 0) == (not broken), done.stdout + done.stderr


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
@PROMTOOL
def test_the_rules_fire() -> None:
    for command in (["check", "rules", RULES.name], ["test", "rules", "dns-tunnel.test.yml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=RULES.parent, capture_output=True, text=True, check=False, timeout=patient(60)
        )
        assert done.returncode == 0, done.stdout + done.stderr
