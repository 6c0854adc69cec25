"""What the online learner may learn of learnt labels: nothing in doubt, nothing near an incident, no one's flood."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.core.types import DAY_S, Severity
from agents.detection.detector import empty_verdicts
from agents.learning.loop.flow_hours import SCHEMA
from agents.learning.loop.learnable import DOMAIN_FREE, within_shares, without_doubt
from agents.learning.loop.online import CycleState, OnlineLearner
from agents.store import Store
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.store.feedback.labels import Label, LabelledHours, LabelStore
from agents.store.feedback.reviews import ReviewItem, ReviewStore
from agents.store.sampling import home_of
from tests.learning.loop.test_online import OPTIONS, kind
from tests.support.flow_hours import HOUR
from tests.support.verdicts import incident


def guessed(store: Store, flows: Sequence[tuple[str, str]], hour: int = HOUR, at: float = HOUR * 3600.0) -> None:
    """Benign flow-hours of these clients and domains, labelled by a learnt probability."""
    clients, domains = (list(column) for column in zip(*flows, strict=True))
    hours = np.full(len(flows), hour, np.int64)
    numbers = kind(False, len(flows), seed=len(flows))
    FlowHourStore(store).add(FlowHours(SCHEMA, hours, clients, domains, [()] * len(flows), numbers))
    rows = FlowHourStore(store).read(SCHEMA, since=hour, until=hour + 1)
    ids = rows.id.tolist()[-len(flows) :]
    LabelStore(store).put(ids, [Label.BENIGN] * len(ids), [0.9] * len(ids), at)


def may(store: Store) -> dict[tuple[str, str], bool]:
    labels = LabelStore(store).labelled(SCHEMA)
    pairs = zip(labels.client, labels.domain, strict=True)
    return dict(zip(pairs, without_doubt(store, labels).tolist(), strict=True))


def test_a_domain_that_waits_for_a_person_teaches_nobody_until_it_is_closed(store: Store) -> None:
    guessed(store, [("10.0.0.1", "asked.example"), ("10.0.0.1", "plain.example")])
    ReviewStore(store).fill([ReviewItem("asked.example", 0.9, "why", 1)], HOUR * 3600.0, 5, 9e9)
    assert may(store) == {("10.0.0.1", "asked.example"): False, ("10.0.0.1", "plain.example"): True}
    ReviewStore(store).take("asked.example", "ann")
    assert not may(store)["10.0.0.1", "asked.example"]
    ReviewStore(store).decide(["asked.example"], Label.BENIGN, "ours", "ann", HOUR * 3600.0)
    assert may(store)["10.0.0.1", "asked.example"], "now a person says so"


def test_nothing_of_a_client_is_learnt_within_a_day_of_an_incident_of_its_own(store: Store) -> None:
    begin = (HOUR + 0.5) * 3600.0
    for client, after_s in (("10.0.0.1", 2.0 * 3600), ("10.0.0.2", DAY_S + 3600.0), ("10.0.0.3", 0.0)):
        guessed(store, [(client, "plain.example")])
        severity = Severity.SUSPICIOUS if client == "10.0.0.3" else Severity.HIGH
        at = begin + after_s
        one = replace(
            incident(client=client, domain="t.example"),
            severity=severity, first_seen=at, detected_at=at, last_seen=at + 60,
        )  # fmt: skip
        store.write(empty_verdicts("m", (one,)), uuid.uuid4().hex)
    guessed(store, [("10.0.0.4", "plain.example")])
    assert [may(store)[f"10.0.0.{number}", "plain.example"] for number in (1, 2, 3, 4)] == [False, True, True, True]


def test_a_flood_of_one_client_or_network_or_domain_has_its_share(store: Store) -> None:
    flood = [("10.0.0.1", f"d{number}.example") for number in range(400)]
    flood += [(f"2001:db8:0:7::{number:x}", f"e{number}.example") for number in range(400)]
    flood += [(f"10.1.{number // 250}.{number % 250}", "one.example") for number in range(400)]
    quiet = [(f"10.2.{number // 250}.{number % 250}", f"f{number}.example") for number in range(300)]
    guessed(store, flood + quiet)
    labels = LabelStore(store).labelled(SCHEMA)
    kept = within_shares(labels, np.ones(len(labels), np.bool_), 50)
    rows = np.flatnonzero(kept).tolist()
    by_home = Counter(home_of(labels.client[row]) for row in rows)
    by_domain = Counter(labels.domain[row] for row in rows)
    assert by_home["10.0.0.1"] == by_home["2001:db8:0:7::"] == 150, "a tenth of 1,500"
    assert by_domain["one.example"] == 30, "a fiftieth"
    assert sum(by_home.values()) == 150 + 150 + 30 + 300
    again = within_shares(labels, np.ones(len(labels), np.bool_), 50)
    assert (kept == again).all()


@pytest.mark.slow
def test_one_client_alone_teaches_what_a_cycle_needs_and_no_more(store: Store, tmp_path: Path) -> None:
    learner = OnlineLearner(store, tmp_path / "flow", OPTIONS, lambda: (HOUR - 1) * 3600.0)
    assert learner.cycle()["state"] == CycleState.DEPLOYED
    guessed(store, [("10.0.0.1", f"d{number}.example") for number in range(300)])
    found = replace(learner, clock=lambda: (HOUR + 2) * 3600.0).cycle()
    assert (found["state"], found["new_labels"]) == (CycleState.DEPLOYED, OPTIONS.min_samples)


@pytest.mark.slow
def test_one_domain_alone_does_not_even_begin_a_cycle(store: Store, tmp_path: Path) -> None:
    learner = OnlineLearner(store, tmp_path / "flow", OPTIONS, lambda: (HOUR - 1) * 3600.0)
    assert learner.cycle()["state"] == CycleState.DEPLOYED
    guessed(store, [(f"10.0.0.{number}", "one.example") for number in range(200)])
    found = replace(learner, clock=lambda: (HOUR + 2) * 3600.0).cycle()
    needed = OPTIONS.min_samples
    assert found == {"state": CycleState.WAITING, "new_labels": int(DOMAIN_FREE * needed), "needed": needed}


def test_what_people_say_has_no_share(store: Store) -> None:
    guessed(store, [("10.0.0.1", f"d{number}.example") for number in range(300)])
    domains = [f"d{number}.example" for number in range(300)]
    ReviewStore(store).decide(domains, Label.BENIGN, "ours", "ann", HOUR * 3600.0)
    labels: LabelledHours = LabelStore(store).labelled(SCHEMA)
    assert within_shares(labels, np.ones(len(labels), np.bool_), 50).all()


@pytest.mark.slow
def test_a_clock_that_was_ahead_ends_no_learning(store: Store, tmp_path: Path) -> None:
    learner = OnlineLearner(store, tmp_path / "flow", OPTIONS, lambda: (HOUR - 1) * 3600.0)
    assert learner.cycle()["state"] == CycleState.DEPLOYED
    flows = [(f"10.0.{number}.1", f"d{number}.example") for number in range(60)]
    guessed(store, flows)
    year = 365 * 24
    ahead = replace(learner, clock=lambda: (HOUR + year) * 3600.0)
    assert ahead.cycle()["state"] == CycleState.DEPLOYED
    guessed(store, [(client, f"more.{domain}") for client, domain in flows], HOUR + 1, (HOUR + 2) * 3600.0)
    back = replace(learner, clock=lambda: (HOUR + 3) * 3600.0)
    assert back.cycle()["state"] == CycleState.DEPLOYED, "labels that came since the clock is right again"
    assert back.cycle()["state"] == CycleState.WAITING
