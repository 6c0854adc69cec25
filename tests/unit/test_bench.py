"""The benchmarks' own tools: the load generator is bounded, the figures are ratios."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.bench.load import latencies, messages, percentile, rate
from tests.bench.table import Figure, markdown
from tests.stubs import StubServer, silent

WIRES = [b"\3www\7example\3com"] * 300


def test_every_answer_is_counted_once() -> None:
    with StubServer() as stub:
        answers_a_second, share = rate(stub.port, messages(WIRES), 5)
        found = latencies(stub.port, messages(WIRES[:20]), 5)
    assert answers_a_second > 0
    assert share == 1
    assert len(stub.asked) == 320
    assert len(found) == 20
    assert 0 < percentile(found, 0.5) <= percentile(found, 0.99) <= max(found)


def test_a_server_that_stays_silent_ends_the_load_in_time() -> None:
    with StubServer(silent) as stub:
        begun = time.monotonic()
        _, share = rate(stub.port, messages(WIRES), 1)
        assert latencies(stub.port, messages(WIRES), 1) == []
    assert share == 0
    assert time.monotonic() - begun < 6


def test_a_figure_is_shown_with_its_baseline_and_ratio() -> None:
    text = markdown([Figure("rows stored", 5_000.0, "/s", 20_000.0, "a bare table")])
    assert text.splitlines()[-1] == "| rows stored | 5,000 /s | 20,000 /s: a bare table | 0.25 |"


def test_an_unknown_part_is_refused() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.bench", "reply"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot measure" in done.stderr
