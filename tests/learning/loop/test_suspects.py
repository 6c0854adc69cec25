"""What a learnt model says of incidents, and what it lists by itself: within the alert budget, and nobody is paged."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from agents.core.text import NETWORK
from agents.core.types import Severity, batch_of
from agents.detection.detector import empty_verdicts
from agents.detection.reasons import LEARNT_REASON
from agents.learning.loop.golden import golden_flow_hours
from agents.learning.loop.suspects import suspects_of
from agents.store import Store
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewStore
from tests.support.detecting import paced, query
from tests.support.flow_hours import HOUR, HOUR_S, cold, collecting, flow_hours
from tests.support.incidents import incident

NOW = (HOUR + 1) * float(HOUR_S)


@cache
def clearest(tunnel: bool) -> np.ndarray:
    """The golden flow-hour that the model is surest of, as a tunnel or as none."""
    numbers, known = golden_flow_hours()
    some = numbers[known == tunnel]
    chance = cold().probabilities(some)
    return np.asarray(some[np.argmax(chance) if tunnel else np.argmin(chance)])


def hours_of(*domains: str, tunnel: bool = True, client: str = "192.0.2.7") -> FlowHours:
    return replace(flow_hours(domains, client=client), numbers=np.stack([clearest(tunnel)] * len(domains)))


def suspects(store: Store, budget: float = 3) -> list[tuple[str, str]]:
    found = suspects_of(store, cold(), 0.95, budget, HOUR, NOW)
    assert all(chance >= 0.95 and at <= NOW for at, _, _, chance, _ in found)
    return [(client, domain) for _, client, domain, _, _ in found]


def test_the_most_probable_flows_are_named_one_a_domain(store: Store) -> None:
    hours = FlowHourStore(store)
    hours.add(hours_of("a.example", "b.example"))
    hours.add(hours_of("a.example", client="192.0.2.8"))
    hours.add(hours_of("quiet.example", tunnel=False))
    found = suspects(store)
    assert sorted(domain for _, domain in found) == ["a.example", "b.example"]


def test_several_detectors_list_together_what_one_would_and_nothing_twice(store: Store) -> None:
    hours = FlowHourStore(store)
    hours.add(hours_of("a.example", "b.example"))
    hours.add(hours_of("a.example", "c.example", client="192.0.2.8"))
    alone = suspects(store)
    each = [
        suspects_of(store, cold(), 0.95, 3, HOUR, NOW, lambda client, own=own: client == own)  # type: ignore[misc]
        for own in ("192.0.2.7", "192.0.2.8")
    ]
    assert sorted((client, domain) for part in each for _, client, domain, _, _ in part) == sorted(alone)
    assert len(alone) == 3 and all(each)


def test_nothing_of_an_empty_hour(store: Store) -> None:
    assert suspects(store) == []


@pytest.mark.parametrize(("budget", "expected"), [(0, 0), (0.9, 0), (2, 2), (3.9, 3)])
def test_the_alert_budget_is_the_most_of_a_week(store: Store, budget: float, expected: int) -> None:
    FlowHourStore(store).add(hours_of(*(f"d{i}.example" for i in range(6))))
    assert len(suspects(store, budget)) == expected


def test_what_was_listed_this_week_counts_for_the_budget(store: Store) -> None:
    FlowHourStore(store).add(hours_of(*(f"d{i}.example" for i in range(6))))
    listed = [
        incident(domain=f"old{i}.example", reasons=(f"{LEARNT_REASON} (probability 0.970)",), last_seen=NOW - ago,
                 detected_at=NOW - ago, closed_at=NOW - ago, first_seen=NOW - ago)
        for i, ago in enumerate([6 * 86_400, 3 * 86_400, 8 * 86_400])
    ]  # fmt: skip
    store.write(empty_verdicts("m", tuple(listed)), "")
    assert len(suspects(store)) == 1


def test_a_persons_decision_and_a_recent_incident_are_heeded(store: Store) -> None:
    FlowHourStore(store).add(hours_of("ours.example", "known.example", "new.example"))
    ReviewStore(store).decide(["ours.example"], Label.BENIGN, "our backup", "ann", NOW)
    seen = incident(domain="known.example", last_seen=NOW - 3600, detected_at=NOW - 7200, closed_at=NOW - 3600)
    store.write(empty_verdicts("m", (seen,)), "")
    assert [domain for _, domain in suspects(store)] == ["new.example"]


def test_a_suspect_is_listed_and_pages_nobody(store: Store, tmp_path: Path) -> None:
    with collecting(store, tmp_path) as one:
        one.ask([query(NOW + i, "192.0.2.7", f"host{i}.slow.example") for i in range(3)])
        one.detector.appraise(
            {}, [(NOW + 3, "192.0.2.7", "slow.example", 0.97, ""), (NOW + 3, "192.0.2.7", "gone.example", 0.99, "")]
        )
        told = one.detector.tick(NOW + 4)
        assert told is not None
        (found,) = told.incidents
        assert (found.domain, found.severity) == ("slow.example", Severity.SUSPICIOUS)
        assert found.reasons == (f"{LEARNT_REASON} (probability 0.970)", "no limit was reached")
        assert found.evidence["probability"] == 0.97
        one.ask([query(NOW + 5, "192.0.2.7", "host9.slow.example")])
        assert one.detector.open_incidents["192.0.2.7", "slow.example"].severity == Severity.SUSPICIOUS


def test_a_suspect_that_reaches_a_limit_later_is_an_incident_as_any_other(store: Store, tmp_path: Path) -> None:
    draw = random.Random(5)
    with collecting(store, tmp_path) as one:
        one.ask([query(NOW, "10.9.0.9", "www.slow.example")])
        one.detector.appraise({}, [(NOW + 1, "10.9.0.9", "slow.example", 0.97, "")])
        one.detector.tick(NOW + 2)
        rows = paced((f"{draw.randbytes(25).hex()}.slow.example" for _ in range(40)), 1.0)
        one.ask([(NOW + 3 + row[0] - rows[0][0], *row[1:]) for row in rows])
        found = one.detector.open_incidents["10.9.0.9", "slow.example"]
        assert found.severity == Severity.CRITICAL
        assert not found.reasons[0].startswith(LEARNT_REASON)


def test_an_open_incident_learns_its_probability_within_a_minute(store: Store, tmp_path: Path) -> None:
    draw = random.Random(7)
    with collecting(store, tmp_path, cold()) as one:
        one.ask([query(NOW + 1, "192.0.2.7", "www.shop.example")])
        one.ask([query(NOW + 2 + i, "10.9.0.9", f"{draw.randbytes(25).hex()}.t.example", 16) for i in range(60)])
        assert "probability" not in one.detector.open_incidents["10.9.0.9", "t.example"].evidence
        one.collector.appraise(NOW + 63)
        told = one.detector.tick(NOW + 64)
        assert told is not None and told.incidents[0].evidence["probability"] > 0.95
        one.detector.appraise({("10.9.0.9", "t.example"): 0.5})
        one.collector.appraise(NOW + 70)  # not again within a minute
        told = one.detector.tick(NOW + 71)
        assert told is not None and told.incidents[0].evidence["probability"] == 0.5


@pytest.mark.slow
def test_many_clients_below_one_domain_have_the_highest_probability(store: Store, tmp_path: Path) -> None:
    draw = random.Random(9)
    with collecting(store, tmp_path, cold()) as one:
        one.ask([
            query(NOW + i / 8, f"10.9.{i % 200}.9", f"{draw.randbytes(12).hex()}.many.example", 16) for i in range(3000)
        ])  # fmt: skip
        assert (NETWORK, "many.example") in one.detector.open_incidents
        one.collector.appraise(NOW + 400)
        told = one.detector.tick(NOW + 401)
        assert told is not None
        assert any("probability" in one.evidence for one in told.incidents if one.client == NETWORK)


def test_batches_without_queries_take_it_up_too(store: Store, tmp_path: Path) -> None:
    with collecting(store, tmp_path) as one:
        one.ask([query(NOW, "192.0.2.7", "a.slow.example")])
        one.detector.appraise({}, [(NOW, "192.0.2.7", "slow.example", 0.99, "")])
        assert one.detector.detect(batch_of([query(NOW + 1, "192.0.2.8", "b.other.example")])).incidents
