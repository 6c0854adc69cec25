"""Which domains a person is asked about: those whose flow-hours nothing labels, and of which most would be learnt.

Uncertainty sampling (Lewis, Gale 1994), weighed with how many clients it concerns and how near a limit it came.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.core.protocols import Field, Spec, Within
from agents.core.text import counted
from agents.core.types import DAY_S, Severity, ValidationCase
from agents.detection.judge_kernels import PEAK_MIN
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.store.feedback.labels import Label, LabelStore
from agents.store.feedback.reviews import ReviewItem, ReviewStore
from agents.store.sql import Database

UNCERTAIN_SHARE, NEARNESS_SHARE, CLIENTS_SHARE = 0.4, 0.4, 0.2
"""What the uncertainty of a learnt probability, nearness to a limit and the number of clients weigh in the
informativeness."""
CLIENTS_MANY = 64
"""So many clients below a domain count in full."""
SPAN_S = 7.0 * DAY_S
"""REVIEW_PER_WEEK counts domains that came into the queue within so many seconds."""
UNKNOWN_CHANCE = 0.5
"""Stands for the probability where no model has learnt yet."""
RARE_FROM = 3.0
"""Rarity of an image, decades, from which people are asked: one ordinary image in a thousand is as strange."""
CASES_MAX = 500
"""Decisions that give validation cases, at most: the newest."""
NAMES_A_DOMAIN = 8
"""Validation cases of one domain, at most."""
_NEAR = NUMBERS.index("peak_today")


@dataclass(frozen=True, slots=True)
class ReviewLimits:
    """How much people are asked."""

    per_week: int


SPEC: Spec[ReviewLimits] = Spec(
    "review",
    "reviews: domains that people are asked about",
    (
        Field(
            "review_per_week",
            int,
            20,
            "domains that come into the review queue in a week, at most; 0 = none",
            Within(0, 10_000),
        ),
    ),
    lambda values: ReviewLimits(values["review_per_week"]),
)


def candidates(
    rows: FlowHours,
    chance: NDArray[np.float64],
    unsure: tuple[float, float],
    rarity: NDArray[np.float64] | None = None,
) -> list[ReviewItem]:
    """The domains of flow-hours that came near a limit, or of which nothing is learnt: how much a label would teach.

    chance: learnt probabilities, shape (n,), 0.5 = nothing is known; unsure: between these, nobody learns from them.
    rarity: of their images, decades, (n,); from RARE_FROM on people are asked, too.
    """
    rare = np.zeros(len(rows)) if rarity is None else rarity
    loud = rows.numbers[:, _NEAR:].max(axis=1, initial=0.0)
    asked = (loud >= PEAK_MIN) | ((chance > unsure[0]) & (chance < unsure[1]) & (chance != UNKNOWN_CHANCE))
    asked |= rare >= RARE_FROM
    by_domain: dict[str, list[int]] = {}
    for row in np.flatnonzero(asked).tolist():
        by_domain.setdefault(rows.domain[row], []).append(row)
    return [_item_of(domain, found, rows, loud, chance, rare) for domain, found in by_domain.items()]


def _item_of(
    domain: str,
    found: Sequence[int],
    rows: FlowHours,
    loud: NDArray[np.float32],
    chance: NDArray[np.float64],
    rare: NDArray[np.float64],
) -> ReviewItem:
    clients = len({rows.client[row] for row in found})
    nearness = float(max(loud[row] for row in found))
    nearest = min(found, key=lambda row: abs(float(chance[row]) - 0.5))
    uncertain = 1 - abs(2 * float(chance[nearest]) - 1)
    many = min(math.log2(1 + clients) / math.log2(1 + CLIENTS_MANY), 1.0)
    parts = UNCERTAIN_SHARE * uncertain, NEARNESS_SHARE * min(nearness, 1.0), CLIENTS_SHARE * many
    likely = f", probability {chance[nearest]:.2f}" if chance[nearest] != UNKNOWN_CHANCE else ""
    rarest = max(float(rare[row]) for row in found)
    likely += f", image as one in {10**rarest:,.0f}" if rarest >= RARE_FROM else ""
    return ReviewItem(
        domain=domain,
        informativeness=round(sum(parts), 4),
        why=f"{nearness:.2f} times a limit, {counted(clients, 'client')}{likely}",
        clients=clients,
        names=tuple(rows.names[max(found, key=lambda row: float(loud[row]))]),
    )


def _unknown(numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.full(len(numbers), UNKNOWN_CHANCE)


def _ordinary_images(rows: FlowHours) -> NDArray[np.float64]:
    return np.zeros(len(rows))


@dataclass(frozen=True)
class Reviewer:
    """Fills the queue with what an hour brought. Called with the hour; raises StoreError.

    unsure: bounds of probabilities from which nobody learns. chances: learnt probabilities of n flow-hours. rarity:
    of their images.
    """

    store: Database
    limits: ReviewLimits
    unsure: tuple[float, float] = (0.0, 0.0)
    chances: Callable[[NDArray[np.float32]], NDArray[np.float64]] = _unknown
    rarity: Callable[[FlowHours], NDArray[np.float64]] = _ordinary_images
    clock: Callable[[], float] = time.time

    def __call__(self, hour: int) -> None:
        if not self.limits.per_week:
            return
        rows = FlowHourStore(self.store).read(SCHEMA, since=hour, until=hour + 1)
        if not len(rows):
            return
        labelled = LabelStore(self.store).certain_ids(SCHEMA, since=hour, until=hour + 1)
        tunnels = {rows.domain[row] for row, one in enumerate(rows.id.tolist()) if one in labelled}
        found = [
            item
            for item in candidates(rows, self.chances(rows.numbers), self.unsure, self.rarity(rows))
            if item.domain not in tunnels
        ]
        ReviewStore(self.store).fill(found, self.clock(), self.limits.per_week, SPAN_S)


def teaches(domain: str) -> bool:
    """Whether a person's label of a domain is learnt; that of the other half of all domains gives validation cases."""
    return hashlib.sha256(domain.encode("utf-8", "backslashreplace")).digest()[0] % 2 == 0


_EXPECTED: Mapping[Label, Severity] = {Label.BENIGN: Severity.NORMAL, Label.TUNNEL: Severity.HIGH}


def reviewed_cases(store: Database) -> tuple[ValidationCase, ...]:
    """Names below domains that people called benign or a tunnel, of the half that does not teach. Raises StoreError."""
    reviews, hours, cases = ReviewStore(store), FlowHourStore(store), {}
    for decision in reviews.decisions(standing=True, limit=CASES_MAX):
        if decision.label not in _EXPECTED or teaches(decision.domain):
            continue
        item = reviews.item(decision.domain)
        rows = hours.read(SCHEMA, domain=decision.domain, limit=4 * NAMES_A_DOMAIN)
        names = dict.fromkeys([*(item.names if item else ()), *(name for some in rows.names for name in some)])
        purpose = f"reviewed: {decision.label}, by {decision.author}"
        for name in list(names)[:NAMES_A_DOMAIN]:
            cases[name] = ValidationCase(name, _EXPECTED[decision.label], purpose)
    return tuple(cases.values())
