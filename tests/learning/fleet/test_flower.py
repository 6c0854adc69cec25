"""Weights over Flower: who may take part, what is joined, and five rounds over loopback where Flower is installed."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.core.errors import AgentsError, UsageError
from agents.learning.fleet.exchange import WEIGHTS
from agents.learning.fleet.flower import FlowerRounds, FlowerSite, _signature, must_have_flower
from tests.learning.fleet.test_coordinator import Fleet
from tests.support.patience import patient

FLOWER = importlib.util.find_spec("flwr") is not None
SITES = ("one", "two", "three")


def sent(rounds: FlowerRounds, fleet: Fleet, site: str, delta: float, key: str = "", number: int = 1) -> Any:
    weights = rounds.weights + delta
    return [weights], {"site": site, "signature": _signature(key or fleet.keys[site], rounds.run, number, weights)}


@pytest.mark.parametrize(
    ("address", "said"),
    [("9092", "HOST:PORT"), ("127.0.0.1:x", "HOST:PORT"), ("127.0.0.1:0", "HOST:PORT"), ("192.0.2.1:9", "beyond this")],
)
def test_flower_stays_on_this_machine(address: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        must_have_flower(address)


@pytest.mark.skipif(FLOWER, reason="the extra flower is installed here")
@pytest.mark.slow
def test_without_the_extra_one_line_says_so(tmp_path: Path) -> None:
    Fleet(tmp_path)
    for action in (["serve"], ["run", "--engine", "flower"]):
        command = [sys.executable, "-m", "agents", "--data-dir", str(tmp_path), "fleet", *action]
        found = subprocess.run(command, capture_output=True, text=True, timeout=patient(100), check=False)
        assert found.returncode == 2
        assert found.stderr.strip().endswith("(pip install 'dns-tunnel-detector[flower]')"), found.stderr


def test_weights_of_strangers_of_another_round_and_of_a_second_time_are_left_out(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    rounds = FlowerRounds(fleet.desk)
    before = rounds.weights.copy()
    honest = [sent(rounds, fleet, "one", 0.01), sent(rounds, fleet, "two", 0.02)]
    rounds.join_round(1, [*honest, sent(rounds, fleet, "one", 0.9), sent(rounds, fleet, "three", 0.03, key="k" * 20)])
    assert (rounds.weights == before).all() and rounds.lines == ["round 1: nothing joined, 2 sites sent"]
    rounds.join_round(1, [*honest, sent(rounds, fleet, "three", 0.03, number=2)])
    rounds.join_round(1, [*honest, ([rounds.weights[:3]], honest[0][1])])
    assert (rounds.weights == before).all()
    rounds.join_round(1, [*honest, sent(rounds, fleet, "three", 5.0)])
    assert rounds.weights == pytest.approx(before + 0.02), "of three the median"
    assert fleet.state()["weights"] == pytest.approx(rounds.weights.tolist()), "rounds over HTTPS go on from there"


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    rounds = FlowerRounds(fleet.desk)
    rounds.join_round(
        1, [sent(rounds, fleet, site, bad) for site, bad in zip(SITES, (np.nan, np.inf, 1e9), strict=True)]
    )
    assert rounds.lines == ["round 1: nothing joined, 0 sites sent"]


@pytest.mark.parametrize("damage", [[], [np.zeros(3)], [np.zeros(35), np.zeros(35), np.zeros(36)]])
def test_a_site_takes_no_model_that_is_none(damage: Sequence[np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it is none"):
        FlowerSite(None).fit(damage, {"round": 1, "run": "r"})  # type: ignore[arg-type]


def test_a_server_that_is_away_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.learning.fleet.flower.WAIT_S", 0.0)
    monkeypatch.setattr("agents.learning.fleet.flower.must_have_flower", lambda address: ("127.0.0.1", 9))
    with pytest.raises(AgentsError, match="nobody listens on port 9"):
        FlowerSite(None).take_part("127.0.0.1:9")  # type: ignore[arg-type]


def command(folder: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """The program in a process of its own, its output in one pipe."""
    import os

    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLEET")} | settings
    words = [sys.executable, "-m", "agents", "--data-dir", str(folder), "fleet", *arguments]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not FLOWER, reason="needs the extra flower (requirements-flower.txt)")
def test_three_sites_run_five_rounds_over_flower(tmp_path: Path) -> None:
    """As people do it: one serves, three take part, each with its own gates and database."""
    keys = {}
    for site in SITES:
        with command(tmp_path / "coordinator", "add", site) as added:
            out, _ = added.communicate(timeout=patient(100))
        keys[site] = next(line.split("=", 1)[1] for line in out.splitlines() if line.startswith("FLEET_KEY="))
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    server = command(tmp_path / "coordinator", "serve", "--rounds", "5", "--address", address)
    sites = [
        command(
            tmp_path / site, "run", "--engine", "flower", "--address", address,
            FLEET="http://127.0.0.1:9", FLEET_SITE=site, FLEET_KEY=keys[site],
        )
        for site in SITES
    ]  # fmt: skip
    try:
        for one in sites:
            out, _ = one.communicate(timeout=patient(300))
            assert one.returncode == 0, out
            assert all(f"round {number}: flow model deployed" in out for number in range(1, 6)), out
        out, _ = server.communicate(timeout=patient(100))
        assert server.returncode == 0, out
    finally:
        for one in (server, *sites):
            one.kill()
            one.wait()
    assert all(f"round {number}: joined one, three, two" in out for number in range(1, 6)), out
    kept = json.loads(next((tmp_path / "coordinator").rglob("round.json")).read_bytes())
    assert len(kept["weights"]) == WEIGHTS
