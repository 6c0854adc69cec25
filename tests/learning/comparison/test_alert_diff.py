"""What two models tell of a network's own stored week: new, lost and changed alerts, and the gates over them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agents.core.types import DAY_S, Verdicts
from agents.detection.limits import Scale
from agents.learning.baseline import benign_names, golden_sessions
from agents.learning.comparison.alert_diff import AlertComparison, alert_gates
from agents.learning.comparison.bounds import GateBounds
from agents.learning.messages import run_message
from agents.learning.report import render
from agents.learning.run import AlertDiff, alerts_text
from agents.scoring.model import Model
from agents.store import Store, open_store
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewStore
from agents.store.stored_traffic import stored_traffic
from tests.support.carrier import carried, with_factor
from tests.support.detecting import fresh_detector, shipped_model
from tests.support.run_samples import HOSTILE, deployed
from tests.support.verdicts import START, verdicts

pytestmark = pytest.mark.integration
BOUNDS = GateBounds()


def carrier(client: str, domain: str, seed: int) -> Verdicts:
    """A slow channel: some three hundred encoded bytes in a day, in labels of different lengths."""
    names, rng = carried(domain, seed), random.Random(seed)
    times = sorted(START + DAY_S + rng.random() * 0.9 * DAY_S for _ in names)
    return verdicts(names, ts=times, client=client)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    """Ordinary names of forty clients, and a whole iodine session of another one."""
    store = open_store(f"sqlite:///{tmp_path / 'queries.db'}")
    store.migrate()
    names = benign_names()[:2000]
    times = (START + np.linspace(0, 3 * DAY_S, len(names))).tolist()
    store.write(verdicts(names, ts=times, client=[f"192.0.2.{i % 40}" for i in range(len(names))]), "benign")
    session = next(batch for name, batch in golden_sessions().items() if "iodine" in name)
    found = verdicts(list(session.qname), ts=(session.ts - session.ts[0] + START + DAY_S).tolist(), client="192.0.2.99")
    found = replace(found, queries=replace(found.queries, qtype=session.qtype))
    store.write(found, "tunnel")
    for number, domain in enumerate(("slow.example", "other.example")):
        store.write(carrier(f"192.0.2.{200 + number}", domain, number), domain)
    yield store
    store.close()


def compared(store: Store, candidate: Model, champion: Model, bounds: GateBounds = BOUNDS) -> AlertDiff:
    comparison = AlertComparison(store, lambda model: fresh_detector(model, Scale()), Scale(), bounds)
    return comparison(candidate, champion, START, START + 7 * DAY_S)


def test_stored_traffic_comes_back_in_order_and_whole(store: Store) -> None:
    traffic = stored_traffic(store, START, START + 7 * DAY_S, 10_000_000)
    batches = list(traffic.batches())
    ts = np.concatenate([batch.ts for batch in batches])
    assert np.all(np.diff(ts) >= 0)
    assert (len(ts), traffic.share) == (sum(count for _, count in store.severity_counts(since=0, until=9e9)), 1.0)
    session = next(batch for name, batch in golden_sessions().items() if "iodine" in name)
    stored = [
        name.lower()
        for batch in batches
        for name, client in zip(batch.qname, batch.client, strict=True)
        if client == "192.0.2.99"
    ]
    assert stored == [name.lower() for name in session.qname]


def test_too_much_traffic_is_read_by_whole_clients_the_loud_ones_first(store: Store) -> None:
    from tests.support.verdicts import incident

    session = len(next(batch for name, batch in golden_sessions().items() if "iodine" in name))
    loud = incident(client="192.0.2.99", last_seen=START + DAY_S, source="")
    store.write(verdicts([], incidents=(loud,)), "incident")
    traffic = stored_traffic(store, START, START + 7 * DAY_S, session + 120)
    read = Counter(client for batch in traffic.batches() for client in batch.client)
    assert read.pop("192.0.2.99") == session
    assert 60 < sum(read.values()) <= 120
    assert set(read.values()) <= {50, 20}, "each of them whole"
    assert (traffic.stands_for("192.0.2.99"), traffic.stands_for("*")) == (1.0, 1.0)
    assert traffic.stands_for(next(iter(read))) == pytest.approx(2040 / sum(read.values()))
    assert sum(len(batch) for batch in stored_traffic(store, START, START + 7 * DAY_S, 10).batches()) == 10


def test_the_same_model_twice_changes_nothing(store: Store) -> None:
    found = compared(store, shipped_model(), shipped_model())
    assert (found.added, found.lost, found.changed, found.changes) == (0, 0, 0, ())
    assert found.old_a_week == found.new_a_week > 0
    assert all(gate.passed for gate in alert_gates(found, BOUNDS))


@pytest.mark.slow
def test_a_tunnel_that_a_candidate_would_lose_is_named_and_refused(store: Store) -> None:
    found = compared(store, with_factor(10.0), with_factor(0.3))
    assert {one.domain for one in found.changes if one.lost} >= {"slow.example", "other.example"}
    assert found.new_a_week < found.old_a_week
    assert all(one.names and one.new == "" for one in found.changes if one.lost)
    ReviewStore(store).decide(["slow.example"], Label.TUNNEL, "a test of ours", "ann", START)
    again = compared(store, with_factor(10.0), with_factor(0.3))
    assert again.changes[0].domain == "slow.example", "first of all"
    gates = {gate.name: gate for gate in alert_gates(again, BOUNDS)}
    assert not gates["certain tunnels lost"].passed
    assert gates["certain tunnels lost"].margin == -again.tunnels_lost <= -1
    assert alert_gates(again, replace(BOUNDS, tunnels_lost=9))[1].passed


@pytest.mark.slow
def test_new_alerts_below_what_people_called_benign_are_refused(store: Store) -> None:
    found = compared(store, with_factor(0.1), with_factor(10.0))
    added = [one for one in found.changes if one.added]
    assert added, "limits at a tenth see more than at ten times"
    ReviewStore(store).decide([added[0].domain], Label.BENIGN, "our backup", "ann", START)
    again = compared(store, with_factor(0.1), with_factor(10.0))
    gates = {gate.name: gate for gate in alert_gates(again, BOUNDS)}
    assert gates["alarms below benign domains"].value >= 1
    assert not gates["alarms below benign domains"].passed
    assert next(one for one in again.changes if one.domain == added[0].domain).label == "benign"


def test_alerts_a_week_have_the_budget_or_those_of_the_model_in_use_as_their_bound() -> None:
    loud = AlertDiff(queries=1000, days=7.0, old_a_week=10.0, new_a_week=16.0)
    gate = alert_gates(loud, BOUNDS)[0]
    assert (gate.threshold, gate.passed, gate.margin) == (15.0, False, -1.0)
    assert alert_gates(loud, replace(BOUNDS, budget_per_week=20.0))[0].passed
    assert alert_gates(AlertDiff(), BOUNDS) == (), "nothing was judged, so nothing is said"
    assert compared_without_store() == AlertDiff()


def compared_without_store() -> AlertDiff:
    comparison = AlertComparison(SimpleNamespace(), SimpleNamespace(), Scale(), replace(BOUNDS, replayed_max=0))  # type: ignore[arg-type]
    return comparison(shipped_model(), shipped_model(), 0.0, 1.0)


def test_report_and_message_name_domains_with_sample_names_harmlessly(store: Store) -> None:
    found = compared(store, with_factor(0.1), with_factor(10.0))
    hostile = replace(found.changes[0], domain=HOSTILE, names=(HOSTILE,))
    run = replace(deployed(), alerts=replace(found, changes=(hostile, *found.changes)))
    page = render(run)
    assert "<script>alert" not in page
    assert "Alerts on this network&#39;s own traffic" in page or "Alerts on this network's own traffic" in page
    message = run_message(run)
    facts = [text for name, text in message.facts if name == "Alerts that change"]
    assert facts and "evil.com" not in " ".join(facts)
    assert f"New: {found.added}, lost: {found.lost}" in alerts_text(found)
