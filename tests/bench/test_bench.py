"""The benchmarks' own tools: the load generator is bounded, the figures are ratios."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from agents.sources.listener.server import can_compile
from tests.bench.__main__ import main
from tests.bench.curves import picture
from tests.bench.load import latencies, messages, percentile, rate
from tests.bench.table import Figure, markdown
from tests.support.stubs import StubServer, silent

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


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["reply"])
    assert "cannot measure" in capsys.readouterr().err


@pytest.mark.skipif(not can_compile(), reason="kernels are off, or not for this platform")
@pytest.mark.slow
def test_the_compiled_upstream_answers_and_the_probe_sees_what_is_lost() -> None:
    from tests.bench.udp import probe

    command = [sys.executable, "-m", "tests.bench.udp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as upstream, StubServer(silent) as stub:
        assert upstream.stdout is not None
        found = probe(int(upstream.stdout.readline()), 500, 0.2, WIRES)
        nothing = probe(stub.port, 500, 0.2, WIRES)
        upstream.terminate()
    assert found["lost"] == 0
    assert 0 < found["p50"] <= found["p99"] < 1e6
    assert nothing["lost"] == 1


def test_a_picture_puts_more_higher_and_has_every_point() -> None:
    text = picture("a < b", "names", {"cost": [(10, 1.0), (100, 2.0), (1_000, 4.0)]})
    circles = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text)
    across, down = [float(x) for x, _ in circles], [float(y) for _, y in circles]
    assert len(circles) == 3
    assert across == sorted(across)
    assert down == sorted(down, reverse=True)
    assert "a &lt; b" in text
