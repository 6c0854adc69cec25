"""Flow-hours that move are told: which number, how far, and since when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.learning.comparison.drift import COMPARED_MIN
from agents.learning.comparison.flow_drift import flow_drift
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.learning.loop.flow_model import empty_flow_model
from agents.learning.loop.online import OnlineLearner
from agents.learning.loop.options import SPEC
from agents.learning.release.learnt import LearntVersions
from agents.learning.release.transitions import Author
from agents.learning.sequences.learning import SequenceModels
from agents.store import Store, open_store
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from tests.support.flow_hours import HOUR

WEEK = 168
THEN, NOW = HOUR * 3600.0, (HOUR + 4 * WEEK) * 3600.0


def week(end: int, queries: float, seed: int, count: int = 600) -> FlowHours:
    """Flow-hours of the week that ends at an hour: Poisson numbers of queries, names alike."""
    draw = np.random.default_rng(seed)
    numbers = np.zeros((count, len(NUMBERS)), np.float32)
    numbers[:, NUMBERS.index("queries")] = draw.poisson(queries, count)
    numbers[:, NUMBERS.index("names")] = draw.poisson(9, count)
    hours = end - 1 - np.arange(count, dtype=np.int64) % WEEK
    clients = [f"10.0.{at % 50}.{at // 50}" for at in range(count)]
    domains = [f"d{seed}-{at}.example" for at in range(count)]
    return FlowHours(SCHEMA, hours, clients, domains, [()] * count, numbers)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Three weeks: before the anchor, before the model in use (the same), and this one, of twice the queries."""
    opened = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    opened.migrate()
    for end, queries, seed in ((HOUR, 5, 1), (HOUR + 2 * WEEK, 20, 2), (HOUR + 4 * WEEK, 40, 3)):
        FlowHourStore(opened).add(week(end, queries, seed))
    yield opened
    opened.close()


def test_what_moved_most_comes_first_also_beside_the_anchor(store: Store) -> None:
    first, *others = flow_drift(store, (HOUR + 2 * WEEK) * 3600.0, THEN, NOW)
    assert first.name == "queries" and first.psi > 1 and first.wasserstein > 1 and 0.5 < first.jensen_shannon <= 1
    assert first.psi_anchor is not None and first.psi_anchor > first.psi, "the anchor is older, and the week moved on"
    assert len(others) == len(NUMBERS) - 1 and all(one.psi < 0.2 for one in others)
    names = next(one for one in others if one.name == "names")
    assert names.wasserstein < 0.2 and sum(names.old) == pytest.approx(1) == sum(names.new)
    assert all(one.psi_anchor is None for one in flow_drift(store, (HOUR + 2 * WEEK) * 3600.0, None, NOW))


def test_a_week_of_too_few_is_compared_with_nothing(store: Store) -> None:
    assert flow_drift(store, THEN - 30 * 86_400, THEN, NOW) == ()
    FlowHourStore(store).add(week(HOUR + 6 * WEEK, 20, 4, COMPARED_MIN - 1))
    assert flow_drift(store, THEN, THEN, NOW + 2 * WEEK * 3600.0) == ()
    FlowHourStore(store).add(week(HOUR + 6 * WEEK, 20, 5, 1))
    assert flow_drift(store, THEN, THEN, NOW + 2 * WEEK * 3600.0) != ()


def test_a_version_shows_it(store: Store, tmp_path: Path) -> None:
    learner = OnlineLearner(store, tmp_path / "flow", SPEC.factory(SPEC.values({})), lambda: NOW)
    base = empty_flow_model(week(HOUR, 5, 1).numbers)
    for at in (THEN, (HOUR + 2 * WEEK) * 3600.0):
        model = replace(base, manifest={"trained": at, "parent": ""})
        learner.registry.deploy(model.to_bytes(), at, Author("", "passed 5 gates"))
    versions = LearntVersions(learner, SequenceModels(tmp_path / "sequences"))
    used, first = (versions.version("flow", name)["drift"] for name in ("champion", "anchor"))
    assert used[0]["name"] == first[0]["name"] == "queries" and used[0]["psi_anchor"] == first[0]["psi"]
    json.dumps(used)
    away = replace(learner, store=open_store(f"sqlite:///{tmp_path / 'none' / 'q.db'}"))
    assert replace(versions, learner=away).version("flow", "champion")["drift"] == []
    model = replace(base, manifest={"parent": ""})  # of a release that did not note when
    learner.registry.deploy(model.to_bytes(), NOW, Author())
    assert versions.version("flow", "champion")["drift"] == []
