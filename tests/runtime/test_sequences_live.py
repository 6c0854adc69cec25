"""A cycle of the sequence model in a real process: asked for over the API, trained in a process of its own."""

from __future__ import annotations

import importlib.util
import random
import subprocess
from pathlib import Path

import dns.message
import dns.query
import pytest

from tests.support.commands import BASE, environment
from tests.support.listening import wait_until
from tests.support.live import Running, running
from tests.support.patience import patient

pytestmark = [pytest.mark.integration, pytest.mark.slow]
CLIENTS, QUERIES = 8, 30


def browse(live: Running) -> None:
    """Several clients ask for hosts of a few sites."""
    draw = random.Random(1)
    for client in range(CLIENTS):
        for _ in range(QUERIES):
            question = dns.message.make_query(f"h{draw.randrange(9)}.site{draw.randrange(5)}.example", "A")
            source = f"127.8.7.{client + 1}"
            dns.query.udp(question, "127.0.0.1", port=live.dns_port, source=source, timeout=patient(5))


def phase(live: Running) -> str:
    return str(live.get("/learning/cycle")["phase"])


def waiting_for_a_cycle(live: Running, log: Path) -> subprocess.Popen[bytes]:
    """The command line that begins a cycle in the running service, and waits for its end."""
    arguments = ["learn", "cycle", "run", "--minutes", "30", "--epochs", "5"]
    with log.open("wb") as out:
        return subprocess.Popen(
            [*BASE, *arguments], cwd=live.folder, env=environment(**live.settings), stdout=out, stderr=out
        )


def test_a_cycle_of_live_queries_ends_as_it_says_and_its_data_are_gone(tmp_path: Path) -> None:
    with running(tmp_path) as live:
        waiting = waiting_for_a_cycle(live, tmp_path / "cycle.log")
        wait_until(lambda: phase(live) == "collecting", 30)
        browse(live)
        wait_until(lambda: live.get("/learning/cycle")["collected"] >= CLIENTS * QUERIES, 30)
        live.client.post("/learning/cycle/train-now")
        code = waiting.wait(patient(120))
        said, state = (tmp_path / "cycle.log").read_text(), live.get("/learning/cycle")
        (ended,) = live.get("/learning/cycle/history")["history"]
        assert (ended["decision"], ended["source"]) == (state["phase"], "live")
        assert "collecting: 0 % of 30 min" in said and ended["decision"] in said
        if importlib.util.find_spec("optax") is None:
            assert (code, state["phase"]) == (1, "failed") and "without the extra deep" in state["text"]
        else:
            assert state["phase"] in ("deployed", "rejected"), state
            assert code == (0 if state["phase"] == "deployed" else 3)
            assert (state["windows"], state["clients"]) == (CLIENTS * 5, CLIENTS)
            assert ended["trained"] == CLIENTS * 5 and ended["loss"] is not None and len(ended["data_sha256"]) == 64
        assert live.stop() == 0
    kept = [path for path in (tmp_path / "data").rglob("sequence*") if path.is_file()]
    assert all(path.stat().st_size < 1000 for path in kept), "requests and states alone"
