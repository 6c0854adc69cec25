"""Decoys against the alert budget: loud, harmless domains that make the next retraining loosen all limits."""

from __future__ import annotations

import random
from collections.abc import Iterator

from agents.core.types import DAY_S, Row, batch_of
from agents.detection.limits import Scale, choose
from agents.learning.evaluation import encoded
from agents.settings import Settings
from tests.corpora.lookalike_kinds import word
from tests.support.detecting import START, fresh_detector, query, shipped_model

SOURCES, DAYS, A_WEEK = 40, 15, 7
"""Spoofed sources, each with a domain of its own that it asks loudly below once a week; days of it."""


def decoys(seed: int = 1) -> Iterator[Row]:
    """Decoys in time order."""
    rng = random.Random(seed)
    zones = [f"{word(rng)}-{word(rng)}.com" for _ in range(SOURCES)]
    for day in range(DAYS):
        for number in range(SOURCES):
            at = START + day * DAY_S + number * 600
            if number % A_WEEK == day % A_WEEK:
                for step in range(12):
                    yield query(at + step * 5, f"10.60.0.{number}", f"{encoded(rng, 30)}.{zones[number]}")
            else:
                yield query(at, f"10.60.0.{number}", f"www.{zones[number]}")


def factor_after_decoys(seed: int = 1) -> float:
    """The factor on all limits that a retraining would choose from the peaks of these days."""
    detector, rows = fresh_detector(shipped_model(), Scale()), list(decoys(seed))
    for at in range(0, len(rows), 1000):
        detector.detect(batch_of(rows[at : at + 1000]), explain=False)
    return choose(detector.peaks, float(Settings.model_fields["alert_budget_per_week"].default)).factor
