"""A cycle of the sequence model in a real process: asked for over the API, trained in a process of its own."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import dns.message
import dns.query
import pytest

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


def test_a_cycle_of_live_queries_ends_as_it_says_and_its_data_are_gone(tmp_path: Path) -> None:
    with running(tmp_path) as live:
        assert live.client.post("/learning/cycle/start", json={"minutes": 30, "epochs": 5}).status_code == 202
        wait_until(lambda: phase(live) == "collecting", 30)
        browse(live)
        wait_until(lambda: live.get("/learning/cycle")["collected"] >= CLIENTS * QUERIES, 30)
        live.client.post("/learning/cycle/train-now")
        wait_until(lambda: phase(live) in ("deployed", "rejected", "failed"), 120)
        state = live.get("/learning/cycle")
        if importlib.util.find_spec("optax") is None:
            assert state["phase"] == "failed" and "without the extra deep" in state["text"]
        else:
            assert state["phase"] in ("deployed", "rejected"), state
            assert (state["windows"], state["clients"]) == (CLIENTS * 5, CLIENTS)
        assert live.stop() == 0
    kept = [path for path in (tmp_path / "data").rglob("sequence*") if path.is_file()]
    assert all(path.stat().st_size < 1000 for path in kept), "requests and states alone"
