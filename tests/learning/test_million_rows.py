"""A million stored rows: a retraining collects from them, and the online learner learns from those that are kept.

Run with -s, it prints how long each step took, in seconds of this process. MILLION_LABELS=200000 labels all of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from agents.core.types import DAY_S
from agents.learning.baseline import benign_names
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.learning.loop.golden import golden_flow_hours
from agents.learning.loop.labels import label_counts
from agents.learning.loop.online import CycleState, OnlineLearner
from agents.learning.loop.options import SPEC
from agents.learning.retraining import retrain
from agents.learning.run import RetrainOptions, RunState
from agents.store import Store, open_store
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.store.rows import QUERIES, RND_MAX
from tests.support.fake_model import NOW, World
from tests.support.patience import patient
from tests.support.verdicts import verdicts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MILLION = 1_000_000
KEPT, WEEK_HOURS, WEEKS = 200_000, 168, 50
HOUR = int(NOW // 3600) - 1
LABELS = int(os.environ.get("MILLION_LABELS", "20000"))


@contextmanager
def clocked(what: str) -> Iterator[None]:
    begun = time.process_time()
    yield
    print(f"{what}: {time.process_time() - begun:.1f} s")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path / 'million.db'}")
    made.migrate()
    yield made
    made.close()


def queries(store: Store) -> None:
    """A million of the last week: 5,000 ordinary names, each asked by 200 clients."""
    names = benign_names()[:5000]
    ts = NOW - 1 - np.arange(len(names)) * (6 * DAY_S / len(names))
    store.write(verdicts(names, ts=ts.tolist(), client="10.0.0.0"), "first")
    store.fold()
    copied = [one.name for one in QUERIES.columns if one.name not in ("id", "rnd", "client")]
    some = ", ".join(copied)
    with store.writing("copy queries", 120.0) as connection:
        connection.execute(
            text(
                f"INSERT INTO queries ({some}, rnd, client) SELECT {some}, abs(random()) % {RND_MAX}, '10.0.0.' || at"
                " FROM queries, (WITH RECURSIVE c(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM c WHERE at < 199)"
                " SELECT at FROM c)"
            )
        )


def flow_hours(store: Store) -> None:
    """A million, half of them a tunnel's: of 50 weeks, ten at a time, and each time the reservoir takes 200,000."""
    numbers, known = golden_flow_hours()
    draw = np.random.default_rng(1)
    rows = np.concatenate([draw.choice(np.flatnonzero(known == tunnel), 10_000) for tunnel in (False, True)])
    made = (numbers[rows] * draw.uniform(0.8, 1.25, (len(rows), len(NUMBERS)))).astype(np.float32)
    domains = [f"{'tunnel' if at >= 10_000 else 'shop'}{at}.example" for at in range(len(rows))]
    clients = [f"10.0.{at % 250}.{at % 7}" for at in range(len(rows))]
    hours, given = FlowHourStore(store), 0
    hours.add(FlowHours(-9, np.full(len(rows), HOUR), clients, domains, [()] * len(rows), made))
    for first in range(0, WEEKS, 10):
        weeks = f"WITH RECURSIVE c(at) AS (SELECT {first} UNION ALL SELECT at + 1 FROM c WHERE at < {first + 9})"
        with store.writing("copy flow-hours", 120.0) as connection:
            given += connection.execute(
                text(
                    "INSERT INTO flow_hours (hour, schema, rnd, client, domain, names, numbers)"
                    f" SELECT hour - {WEEK_HOURS} * at, {SCHEMA}, abs(random()) % {RND_MAX}, client, domain, names,"
                    f" numbers FROM flow_hours, ({weeks} SELECT at FROM c) WHERE schema = -9"
                )
            ).rowcount
        hours.shrink(KEPT, SCHEMA)
    assert given == MILLION


def labels(store: Store) -> None:
    """Of flow-hours that are left, by rules."""
    with store.writing("label flow-hours", 120.0) as connection:
        connection.execute(
            text(
                "INSERT INTO flow_labels (flow_hour_id, label, origin, confidence, labelled_at) SELECT id,"
                " CASE WHEN domain LIKE 'tunnel%' THEN 'tunnel' ELSE 'benign' END, 'tool fingerprint', 1.0,"
                f" {NOW - 60} FROM flow_hours WHERE schema = {SCHEMA} ORDER BY rnd LIMIT {LABELS}"
            )
        )


def test_a_retraining_collects_its_sample_from_a_million_queries(tmp_path: Path, store: Store) -> None:
    with clocked("a million queries made"):
        queries(store)
    world = World(tmp_path)
    begun = time.process_time()
    options = RetrainOptions(samples=10_000, seed=7)
    done = asyncio.run(retrain(world.parts(store=store, labels=partial(label_counts, store)), options))
    spent = time.process_time() - begun
    print(f"a retraining, but for training and validation: {spent:.1f} s")
    assert done.state is RunState.DEPLOYED
    assert done.sample is not None and done.sample.live == 10_000 and done.sample.topped_up == 0
    assert dict(done.sample.stored)["NORMAL"] == MILLION
    (taken, _), *_ = world.trained
    days = [count for _, count in done.sample.by_day]
    assert len(days) >= 6 and sum(days) == 10_000 and sorted(days)[-6] > 1_000, "each day gives its share"
    assert max(Counter(taken.client).values()) <= 1_000 and len(set(taken.client)) > 150
    assert spent < patient(60)
    with clocked("the same sample again"):
        again = asyncio.run(retrain(world.parts(store=store), options))
    assert again.sample is not None and again.sample.data_sha256 == done.sample.data_sha256


def test_the_online_learner_learns_from_a_million_flow_hours(tmp_path: Path, store: Store) -> None:
    learner = OnlineLearner(store, tmp_path / "flow", SPEC.factory(SPEC.values({})), lambda: NOW - 120)
    assert learner.cycle()["state"] == CycleState.DEPLOYED
    with clocked("a million flow-hours made, of which the reservoir takes 200,000"):
        flow_hours(store)
    by_week = FlowHourStore(store).weeks(SCHEMA)
    assert len(by_week) >= WEEKS and sum(by_week.values()) == KEPT and max(by_week.values()) == KEPT // WEEKS
    labels(store)
    learner = OnlineLearner(store, tmp_path / "flow", SPEC.factory(SPEC.values({})), lambda: NOW)
    begun = time.process_time()
    ended = learner.cycle()
    spent = time.process_time() - begun
    print(f"a cycle over {ended['new_labels']:,} new labels: {spent:.1f} s")
    assert ended["state"] == CycleState.DEPLOYED, ended["gates"]
    assert ended["new_labels"] > LABELS // 2
    assert ended["metrics"]["balanced_accuracy"] > 0.9
