"""Flow and sequence models beside the one in use and the anchor: what each would list, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.core.types import Gate, Message, QueryBatch, Row, batch_of
from agents.detection.limits import Scale
from agents.learning.comparison.bounds import GateBounds
from agents.learning.comparison.flow_listing import FlowListing
from agents.learning.comparison.listed_diff import listed_gates, listed_lines, listed_text
from agents.learning.comparison.sequence_listing import SequenceListing, odd_sessions, odd_sessions_gate
from agents.learning.loop.flow_hours import NUMBERS
from agents.learning.loop.flow_model import FlowModel
from agents.learning.loop.material import cold_model
from agents.learning.loop.online import CycleState, OnlineLearner
from agents.learning.loop.options import SPEC
from agents.learning.messages import flow_message
from agents.learning.sequences.learning import SequenceModels, learn_sequences
from agents.store import Store, open_store, stored_traffic
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewStore
from tests.support.detecting import fresh_detector, shipped_model
from tests.support.flow_hours import HOUR, flow_hours
from tests.support.sequences import browsing, knocking, untrained, untrained_model, windows

NOW = (HOUR + 30) * 3600.0
BOUNDS = GateBounds(alert_rise=0.5, budget_per_week=3.0)
NAMES_AT = NUMBERS.index("names")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    opened.migrate()
    yield opened
    opened.close()


def lists_from(names: float) -> FlowModel:
    """A model that lists flow-hours with so many new names or more, and calls others benign."""
    count = len(NUMBERS)
    weights = np.zeros(count)
    weights[NAMES_AT] = 100.0
    edge = float(np.log1p(names - 0.5))
    mean = np.zeros(count)
    mean[NAMES_AT] = edge
    return FlowModel(mean, np.ones(count), weights, 0.0, {"names": names})


def domains(count: int, prefix: str = "d") -> list[str]:
    return [f"{prefix}{at}.example" for at in range(count)]


def missed(gates: tuple[Gate, ...]) -> list[str]:
    return [gate.name for gate in gates if not gate.passed]


def test_two_flow_models_on_the_networks_own_week(store: Store) -> None:
    hours = FlowHourStore(store)
    hours.add(flow_hours(["both.example"], HOUR, names=50))
    hours.add(flow_hours(["both.example"], HOUR + 2, names=50))  # within a day: one incident
    hours.add(flow_hours(domains(10), HOUR, names=20))
    hours.add(flow_hours(["later.example"], HOUR, names=20))
    hours.add(flow_hours(["later.example"], HOUR + 3, names=50))
    hours.add(flow_hours(["decided.example"], HOUR, names=50))
    hours.add(flow_hours(["long-ago.example"], HOUR - 24 * 9, names=50))
    ReviewStore(store).decide(["decided.example"], Label.IGNORE, "ours", "ann", NOW)
    found = FlowListing(store, 0.95, BOUNDS).diff(lists_from(40), lists_from(10), NOW)
    assert (found.rows, found.days) == (15, 1.0)
    assert (found.added, found.lost, found.changed) == (10, 0, 1)
    assert (found.old_a_week, found.new_a_week) == (14.0, 84.0)
    by_domain = {one.domain: one for one in found.changes}
    assert by_domain["d3.example"].what == "new" and by_domain["d3.example"].names == ("a.d3.example",)
    assert by_domain["later.example"].what == "changed" and "decided.example" not in by_domain
    back = FlowListing(store, 0.95, BOUNDS).diff(lists_from(10), lists_from(40), NOW)
    assert (back.added, back.lost) == (0, 10) and missed(listed_gates(back, BOUNDS)) == []
    (gate,) = [one for one in listed_gates(found, BOUNDS) if not one.passed]
    assert (gate.name, gate.value, gate.threshold, gate.margin) == ("listed a week", 84.0, 21.0, -63.0)
    told = found.to_json()
    json.dumps(told)
    assert "14.0 by the one, 84.0 by the other" in listed_text(told)
    assert "d3.example: new, 1 times, as a.d3.example" in listed_lines(told)


def test_what_people_said_counts_though_nothing_is_listed_below_it(store: Store) -> None:
    FlowHourStore(store).add(flow_hours(["tunnel.example", "ours.example"], HOUR, names=50))
    ReviewStore(store).decide(["tunnel.example"], Label.TUNNEL, "seen", "ann", NOW)
    ReviewStore(store).decide(["ours.example"], Label.BENIGN, "ours", "ann", NOW)
    listing = FlowListing(store, 0.95, BOUNDS)
    lost = listing.diff(lists_from(40), lists_from(60), NOW)
    assert missed(listed_gates(lost, BOUNDS)) == ["certain tunnels lost"]
    assert [(one.domain, one.what, one.certain) for one in lost.changes] == [("tunnel.example", "lost", True)]
    alarms = listing.diff(lists_from(60), lists_from(40), NOW)
    assert missed(listed_gates(alarms, BOUNDS)) == ["benign domains listed"]
    assert missed(listed_gates(alarms, replace(BOUNDS, benign_alarms=1))) == [], "the bound is a setting"


def learner_at(store: Store, folder: Path) -> OnlineLearner:
    options = SPEC.factory(SPEC.values({}))
    made = OnlineLearner(store, folder / "flow", options, lambda: NOW, bounds=BOUNDS)
    assert made.cycle()["state"] == CycleState.DEPLOYED
    return made


@pytest.mark.slow
def test_a_flow_model_that_would_list_too_much_is_refused_and_told(store: Store, tmp_path: Path) -> None:
    told: list[Message] = []

    def tell(message: Message) -> tuple[()]:
        told.append(message)
        return ()

    learner = replace(learner_at(store, tmp_path), tell=tell)
    before, anchor = learner.path.read_bytes(), learner.anchor.path.read_bytes()
    assert before == anchor, "the first one that passed"
    loud = learner.model()
    assert loud is not None
    quiet = flow_hours(domains(40), HOUR, queries=60, names=9, information_bytes=90, types=2)
    FlowHourStore(store).add(quiet)
    hardly = replace(learner, options=replace(learner.options, tunnel_from=float(loud.probabilities(quiet.numbers)[0])))
    found = replace(hardly, options=replace(hardly.options, tunnel_from=hardly.options.tunnel_from + 1e-6)).adopt(
        replace(loud, bias=loud.bias + 0.1), "another site"
    )
    assert found["state"] == CycleState.ROLLED_BACK
    assert [gate["name"] for gate in found["gates"] if not gate["passed"]] == ["listed a week"]
    assert learner.path.read_bytes() == before
    (kept,) = learner.history(1)
    assert kept["listed"]["added"] == 40 and "changes" not in kept["listed"], "domains and names go with flow-hours"
    facts = dict(told[0].facts)
    assert "40" in facts["Listed on the last days"] and "listed a week (" in told[0].summary
    assert "below 35 other domains" in [value for _, value in told[0].facts]
    assert flow_message(kept).title == "Online learner: rolled back", "also of a row that is kept"


@pytest.mark.slow
def test_the_anchor_ends_a_fall_that_is_small_each_time(store: Store, tmp_path: Path) -> None:
    learner = learner_at(store, tmp_path)
    anchor = learner.anchor.path.read_bytes()
    options = replace(learner.options, balanced_min=0.0, accuracy_min=0.0, loss_max=50.0, fall_max=1.0)
    lenient = replace(learner, options=options)
    first, states = learner.model(), []
    assert first is not None
    for step in (0.5, 1.0, 6.0):
        found = lenient.adopt(replace(first, bias=first.bias - step), "another site")
        states.append((found["state"], [gate["name"] for gate in found["gates"] if not gate["passed"]]))
    names = ["golden tunnels found, beside the anchor", "drift from the anchor"]
    assert states[0] == states[1] == (CycleState.DEPLOYED, [])
    assert states[2][0] == CycleState.ROLLED_BACK and states[2][1][:1] == names[:1]
    assert lenient.anchor.path.read_bytes() == anchor, "no cycle replaces it"


@pytest.mark.slow
def test_without_a_file_the_oldest_model_that_is_kept_is_the_anchor(store: Store, tmp_path: Path) -> None:
    learner = learner_at(store, tmp_path)
    first = learner.model()
    assert first is not None
    learner.adopt(replace(first, bias=first.bias + 0.01), "another site")
    learner.anchor.path.unlink()  # as a release before this one left it
    replace(learner, clock=lambda: NOW + 0.1).adopt(replace(first, bias=first.bias + 0.02), "another site")
    anchor = learner.anchor.model()
    assert learner.anchor.path.exists() and anchor is not None and anchor.model_id == first.model_id


def stored(store: Store, rows: list[Row]) -> None:
    batch: QueryBatch = batch_of(sorted(rows, key=lambda row: row[0]))
    store.write(fresh_detector(shipped_model(), Scale()).detect(batch), "b1")


def sequence_listing(store: Store, **bounds: int) -> SequenceListing:
    return SequenceListing(store, lambda: fresh_detector(shipped_model(), Scale()), replace(BOUNDS, **bounds))


def test_two_sequence_models_on_stored_queries(store: Store) -> None:
    begin = NOW - 86_400.0
    rows = [row for at in range(3) for row in browsing(f"10.7.7.{at}", 60, at, begin)]
    for at in range(8):  # fast and even: listed by what finds it odd alone, and too few for a limit
        knocks = knocking(f"10.8.8.{at}", 14, 1.0, begin)
        rows += [(*row[:2], row[2].replace(b"beacon", b"beac%02d" % at), *row[3:]) for row in knocks]
    stored(store, rows)
    all_odd, never_odd = untrained_model(-100.0), untrained_model(1e9)
    listing = sequence_listing(store)
    found = listing.diff(never_odd, all_odd, NOW, 100_000)
    assert (found.rows, found.of, found.added, found.lost) == (len(rows), "queries", 8, 0)
    assert all(len(one.names) == 3 and one.what == "new" for one in found.changes)
    assert missed(listed_gates(found, BOUNDS)) == ["listed a week"]
    assert missed(listed_gates(listing.diff(all_odd, never_odd, NOW, 100_000), BOUNDS)) == []
    assert listing.diff(never_odd, all_odd, NOW, 0).rows == 0, "REPLAY_QUERIES_MAX=0"
    learnt = windows(rows)
    assert sequence_listing(store, replayed_max=0)(all_odd, learnt, never_odd, None, NOW).gates == ()


def test_the_comparison_is_the_same_whatever_a_page_of_stored_queries_holds(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, rows = NOW - 86_400.0, list[Row]()
    for at in range(4):  # each knocks, and then asks as people do for hours
        knocks = knocking(f"10.8.8.{at}", 14, 1.0, begin)
        rows += [(*row[:2], row[2].replace(b"beacon", b"beac%02d" % at), *row[3:]) for row in knocks]
        rows += browsing(f"10.8.8.{at}", 90, at, begin + 60)
    stored(store, rows)
    found = []
    for page in (13, 41, 20_000):
        monkeypatch.setattr(stored_traffic, "PAGE_ROWS", page)
        found.append(sequence_listing(store).diff(untrained_model(1e9), untrained_model(-100.0), NOW, 100_000))
    assert found[0] == found[1] == found[2] and found[0].added == 4
    assert all(len(one.names) == 3 for one in found[0].changes)


def test_a_sequence_model_to_which_no_golden_session_is_odd_is_refused() -> None:
    anchor, deaf = untrained_model(-100.0), untrained_model(1e9, 5)
    assert (odd_sessions(anchor), odd_sessions(deaf)) == (1.0, 0.0)
    gate = odd_sessions_gate(deaf, anchor, BOUNDS)
    assert not gate.passed and gate.margin == pytest.approx(-0.95)
    assert odd_sessions_gate(deaf, deaf, BOUNDS).passed


def test_a_training_asks_for_the_comparison_and_a_refusal_leaves_the_model(store: Store, tmp_path: Path) -> None:
    listing, models = sequence_listing(store), SequenceModels(tmp_path)
    anchor = untrained_model(-100.0)
    models.deploy(anchor, 1.0)
    assert models.anchor.path.read_bytes() == anchor.to_bytes()
    crowd = windows([row for at in range(12) for row in browsing(f"p{at}", 90, at)])
    asked = []

    def compare(model, learnt):  # type: ignore[no-untyped-def]
        asked.append(model)
        deaf = replace(model, manifest={**model.manifest, "odd_from": 1e9})
        return listing(deaf, learnt, anchor, models.anchor.model(), NOW)

    assert not learn_sequences(crowd, 5, {}, None, untrained, compare=compare).passed
    assert not asked, "it is no better than a guess"
    models.deploy(untrained_model(-99.0), 2.0)
    assert models.anchor.path.read_bytes() == anchor.to_bytes(), "no cycle replaces it"


@pytest.mark.slow
def test_a_cold_model_passes_beside_itself(store: Store) -> None:
    cold = cold_model(0.003)
    assert missed(FlowListing(store, 0.95, BOUNDS).anchor_gates(cold, cold, NOW)) == []
