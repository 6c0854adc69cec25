"""The leak curve: tunnels of a steady rate over one client's own traffic."""

from __future__ import annotations

import base64
import random

import pytest

from agents.cli.output import leak_cells
from agents.core.types import Row
from agents.detection.detector import TunnelDetector
from agents.detection.limits import Scale
from agents.learning.baseline import benign_names
from agents.learning.evaluation import (
    BACKGROUND_MAX,
    CARRIED,
    CLIENT,
    LIMIT_BYTES,
    RATES,
    SPAN_S,
    Leak,
    encoded,
    leak_curve,
    tunnel,
)
from agents.scoring.model import Model
from tests.support.detecting import START, domain_key, fresh_detector, paced


def curve(background: dict[str, list[Row]], model: Model) -> tuple[list[Leak], list[TunnelDetector]]:
    used: list[TunnelDetector] = []

    def fresh() -> TunnelDetector:
        used.append(fresh_detector(model, Scale()))
        return used[-1]

    return leak_curve(background, fresh), used


@pytest.mark.parametrize("rate", RATES)
def test_a_tunnel_sends_what_its_rate_says(rate: float) -> None:
    rows = list(tunnel(rate, CARRIED, "192.0.2.1", START))
    sent = len(rows) * CARRIED
    assert sent == pytest.approx(min(rate * SPAN_S, LIMIT_BYTES), abs=CARRIED)
    took = rows[-1][0] - rows[0][0]
    assert (sent - CARRIED) / took == pytest.approx(rate, rel=0.05)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert len({row[2] for row in rows}) == len(rows)


@pytest.mark.parametrize("size", [1, 30, 110])
def test_a_name_carries_its_bytes(size: int) -> None:
    labels = encoded(random.Random(1), size).upper().split(".")
    assert all(len(label) <= 63 for label in labels)
    text = "".join(labels)
    assert base64.b32decode(text + "=" * (-len(text) % 8)) == random.Random(1).randbytes(size)


def test_a_faster_tunnel_is_found_sooner_and_after_no_more_bytes(model: Model) -> None:
    found, _ = curve({"192.0.2.1": paced(benign_names()[:300], 60.0, "192.0.2.1")}, model)
    assert [leak.rate for leak in found] == list(RATES)
    seconds = [leak.seconds for leak in found if leak.seconds is not None]
    assert len(seconds) == len(RATES)
    assert seconds == sorted(seconds, reverse=True)
    for leak in found:
        assert leak.queries is not None and leak.bytes_out == leak.queries * CARRIED <= 500
    assert seconds[0] <= SPAN_S and seconds[-1] <= 2


def test_it_is_laid_over_the_busiest_client(model: Model) -> None:
    idle = paced(benign_names()[:20], 60.0, "192.0.2.1")
    busy = paced(benign_names()[:200], 60.0, "192.0.2.2")
    _, used = curve({"192.0.2.1": idle, "192.0.2.2": busy}, model)
    slowest = used[0]
    assert {client for _, client, _ in slowest.peaks.rows} == {"192.0.2.2"}
    assert slowest.flows.find("192.0.2.2", domain_key(slowest, "example-tunnel.net")) is not None
    assert len(slowest.flows) > 20, "its own names were there too"


@pytest.mark.slow
def test_of_a_very_busy_client_the_first_queries_are_used(model: Model) -> None:
    rows = paced(["www.example.com"] * (BACKGROUND_MAX + 500), 0.001, "192.0.2.1")
    _, used = curve({"192.0.2.1": rows[::-1]}, model)
    row = used[0].flows.find("192.0.2.1", domain_key(used[0], "example.com"))
    assert row is not None
    flow = used[0].flows.view(row)
    assert flow.first_seen == START
    assert flow.queries == BACKGROUND_MAX


def test_without_a_background_there_is_a_curve_too(model: Model) -> None:
    found, used = curve({}, model)
    assert all(leak.seconds is not None for leak in found)
    assert {client for _, client, _ in used[0].peaks.rows} == {CLIENT}


def test_what_is_not_found_is_said_so(model: Model) -> None:
    blind = leak_curve({}, lambda: fresh_detector(model, Scale(), keys_max=0))
    assert {(leak.seconds, leak.bytes_out, leak.queries) for leak in blind} == {(None, None, None)}
    assert leak_cells(blind[0]) == ("0.0116", "30", "not found", "–", "–")
    assert leak_cells(Leak(10.0, 30, 9.31, 1_200, 40)) == ("10", "30", "9.3 s", "1,200", "40")
    assert leak_cells(Leak(0.02, 30, 36_000.0, 420, 14))[2] == "10.0 h"
    assert leak_cells(Leak(0.1, 30, 1_800.0, 420, 14))[2] == "30 min"
