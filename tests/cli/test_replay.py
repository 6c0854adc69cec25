"""Replay works in stages that overlap: the same rows as one batch after another, the same ends where one fails."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.cli.output import incident_json, query_json
from agents.cli.replay import judged
from agents.core.errors import CaptureError
from agents.core.types import QueryBatch, Verdicts, batch_of
from agents.detection.detector import TunnelDetector
from agents.detection.incidents import spans
from agents.detection.limits import Scale
from agents.sources import open_source
from tests.support.commands import BASE, Inside, call, environment, is_one_line
from tests.support.detecting import fresh_detector, shipped_model
from tests.support.listening import wait_until
from tests.support.make_capture import write
from tests.support.mixed import mixed
from tests.support.patience import patient

pytestmark = pytest.mark.integration

AT_ONCE = 100
QUIET_S = 600.0


def detector() -> TunnelDetector:
    return fresh_detector(shipped_model(), Scale(), quiet_s=QUIET_S)


class Batches:
    """A source that has these batches, and then an error."""

    malformed = size = done = 0

    def __init__(self, batches: list[QueryBatch], error: Exception | None = None) -> None:
        self._batches, self._error = batches, error
        self.warnings: list[str] = []

    def batches(self, size: int) -> Iterator[QueryBatch]:
        yield from self._batches
        if self._error:
            raise self._error


def told(parts: Iterator[Verdicts]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every query, and every state of every incident in the order they were told, evidence and all."""
    queries, incidents = list[dict[str, Any]](), list[dict[str, Any]]()
    for part in parts:
        queries += query_json(part)
        incidents += [incident_json(one) | {"evidence": one.evidence} for one in part.incidents]
    return queries, incidents


def one_after_another(batches: list[QueryBatch]) -> Iterator[Verdicts]:
    alone = detector()
    for batch in batches:
        for part in spans(batch, QUIET_S):
            yield alone.detect(part)
    last = alone.flush()
    if last is not None:
        yield last


@pytest.mark.slow
def test_stages_that_overlap_say_what_one_after_another_says() -> None:
    rows = mixed()
    batches = [batch_of(rows[at : at + AT_ONCE]) for at in range(0, len(rows), AT_ONCE)]
    queries, incidents = told(judged(detector(), Batches(batches)))
    assert (queries, incidents) == told(one_after_another(batches))
    assert [row["ts"] for row in queries] == [row[0] for row in rows]
    assert len({row["domain"] for row in incidents}) >= 4


@pytest.mark.slow
def test_a_capture_replayed_with_and_without_kernels_gives_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcap"
    write(path, 3_000, clients=20)
    with_, without = (
        call(tmp_path, "replay", path, "--json", "-", "--verdicts", COMPILED=mode).rows for mode in ("auto", "off")
    )
    assert with_[-1].pop("seconds") > 0
    assert without[-1].pop("seconds") > 0
    assert with_ == without
    alone = told(one_after_another(list(open_source([path]).batches(AT_ONCE))))
    assert [row for row in with_ if row["type"] == "query"] == json.loads(json.dumps(alone[0]))
    assert with_[-1]["incidents"] > 0


@pytest.mark.slow
def test_an_incident_that_closes_tells_what_it_was_about_and_not_what_came_after() -> None:
    """Within one batch the tunnel pauses for longer than an incident's quiet, and goes on with another type."""
    rows = mixed()
    at_once, one_by_one = judged(detector(), Batches([batch_of(rows)])), [batch_of([row]) for row in rows]
    last = [
        {(row["client"], row["domain"], row["detected_at"]): row for row in told(parts)[1]}
        for parts in (at_once, one_after_another(one_by_one))
    ]
    assert last[0] == last[1]
    twice = [row for (_, domain, _), row in sorted(last[0].items(), key=str) if domain == "evil-tunnel.net"]
    assert len(twice) >= 2
    assert list(twice[0]["evidence"]["qtypes"]) == ["A"]


@pytest.mark.slow
def test_an_error_of_a_source_comes_behind_what_was_read_before_it() -> None:
    rows, parts = mixed()[: 2 * AT_ONCE], []
    batches = [batch_of(rows[:AT_ONCE]), batch_of(rows[AT_ONCE:])]
    with pytest.raises(CaptureError, match="cannot read"):
        for part in judged(detector(), Batches(batches, CaptureError("cannot read x: gone"))):
            parts.append(part)
    assert sum(map(len, parts)) == len(rows)


@pytest.mark.slow
def test_an_error_of_the_last_stage_ends_all_of_them_with_one_line(tmp_path: Path, inside: Inside) -> None:
    write(tmp_path / "capture.pcap", 30_000)
    folder = tmp_path / "data"
    assert inside("replay", "capture.pcap", "--json", "-", "--store").code == 0
    (found,) = folder.rglob("*.db")
    for path in found.parent.glob("*.db*"):
        path.unlink()
    found.mkdir()
    done = inside("replay", "capture.pcap", "--json", "-", "--store")
    assert done.code == 1
    assert is_one_line(done)


@pytest.mark.slow
def test_ctrl_c_ends_a_replay_without_a_word(tmp_path: Path) -> None:
    write(tmp_path / "capture.pcap", 200_000)
    out = tmp_path / "out.json"
    command = [*BASE, "--data-dir", str(tmp_path / "data"), "replay", "capture.pcap", "--verdicts", "--json", str(out)]
    # A shell's job in the background ignores SIGINT, and whatever it starts inherits that.
    command = ["env", "--default-signal=INT", *command]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: out.exists() and out.stat().st_size > 0, 60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=patient(30))
    assert process.returncode == 130
    assert errors == ""


@pytest.mark.slow
def test_on_a_terminal_a_replay_shows_how_far_it_is(tmp_path: Path) -> None:
    write(tmp_path / "capture.pcap", 250_000, 60_000)
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    command = [*BASE, "--data-dir", str(tmp_path / "data"), "replay", "capture.pcap", "--json", "-"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=its, stdout=subprocess.DEVNULL) as process:
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the process has closed its end
            while part := os.read(ours, 65_536):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    states = [line for line in shown.decode().split("\r") if "queries" in line]
    assert len(set(states)) >= 2, shown
    shares = [int(line.partition("%")[0]) for line in states]
    assert shares == sorted(shares)
    assert 50 < shares[-1] <= 100, "per cent of the file's bytes"
    bar, _, said = shown.decode().rpartition("\rdns-tunnel: ")
    assert bar.endswith(" "), "and at the end the line is empty again"
    assert said.startswith("capture.pcap is read as ")
