"""Traffic of clients for the sequence model: people who browse, and a machine that knocks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from agents.core.types import Row, Verdicts, batch_of
from agents.detection.limits import Scale
from agents.learning.sequences.gru import SequenceModel, begun_network
from agents.learning.sequences.steps import StepRows, Windows, joined_step_rows, step_rows_of, step_windows
from tests.support.detecting import fresh_detector, query, shipped_model

NOW = 1_767_571_200.0
KEY = (3, 4)
LENGTH = 10


def browsing(client: str, count: int, seed: int, start: float = NOW) -> list[Row]:
    """Bursts of a few sites' names, then a pause."""
    draw, at = random.Random(seed), start
    rows: list[Row] = []
    while len(rows) < count:
        site = f"site{draw.randrange(30)}.example"
        for name in (f"www.{site}", f"cdn.{site}", f"api{draw.randrange(3)}.{site}"):
            rows.append(query(at, client, name, draw.choice((1, 28))))
            at += draw.uniform(0.01, 0.3)
        at += draw.uniform(2, 120)
    return rows[:count]


def knocking(client: str, count: int, every_s: float = 60.0, start: float = NOW) -> list[Row]:
    """New short names at an even pace."""
    return [query(start + at * every_s, client, f"{7919 * (at + 3):x}.beacon.example", 16) for at in range(count)]


def judged(rows: list[Row]) -> Verdicts:
    return fresh_detector(shipped_model(), Scale()).detect(batch_of(sorted(rows, key=lambda row: row[0])))


def heard(rows: list[Row]) -> StepRows:
    return joined_step_rows([step_rows_of(judged(rows), {}, KEY)])


def windows(rows: list[Row], length: int = LENGTH) -> Windows:
    return step_windows(heard(rows), length)


def untrained(windows: Windows, epochs: int, params: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    """In the place of training, where its time is not wanted: first weights."""
    return begun_network(seed)


def untrained_model(odd_from: float = 0.0, length: int = LENGTH) -> SequenceModel:
    return SequenceModel(begun_network(1), {"length": length, "odd_from": odd_from})
