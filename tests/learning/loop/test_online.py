"""The online learner: what it learns, what it refuses, and what a death in the middle leaves."""

from __future__ import annotations

import fcntl
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agents.core.errors import BusyError, ModelError
from agents.core.types import ChannelResult, Message, Severity
from agents.learning.loop import golden, online
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.learning.loop.flow_model import FlowModel, load_flow_model
from agents.learning.loop.golden import GOLDEN_SCHEMA, golden_flow_hours
from agents.learning.loop.material import HELD_OUT, Examples, material_of, measures
from agents.learning.loop.online import CycleState, LearnerThread, OnlineLearner, label_by_probability
from agents.learning.loop.options import SPEC
from agents.learning.loop.review import teaches
from agents.learning.release import learnt_registry
from agents.store import Store
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.store.feedback.labels import Label, LabelledSpan, LabelStore
from agents.store.feedback.reviews import ReviewStore
from agents.store.feedback.tables import LabelOrigin
from tests.support.flow_hours import HOUR
from tests.support.listening import wait_until

WEEK = 168
OPTIONS = replace(SPEC.factory(SPEC.values({})), min_samples=50)
TEACHING = [domain for i in range(3000) if teaches(domain := f"d{i}.example")]


@pytest.fixture
def learner(store: Store, tmp_path: Path) -> OnlineLearner:
    """One that has begun from the golden flow-hours."""
    made = OnlineLearner(store, tmp_path / "flow", OPTIONS, lambda: HOUR * 3600.0)
    assert made.cycle()["state"] == CycleState.DEPLOYED
    return made


def later(learner: OnlineLearner, hours: int) -> OnlineLearner:
    return replace(learner, clock=lambda: (HOUR + hours) * 3600.0)


def kind(tunnel: bool, count: int, seed: int = 1) -> NDArray[np.float32]:
    """Golden flow-hours of one kind, each a little different."""
    numbers, known = golden_flow_hours()
    draw = np.random.default_rng(seed)
    rows = draw.choice(np.flatnonzero(known == tunnel), count)
    made: NDArray[np.float32] = (numbers[rows] * draw.uniform(0.8, 1.25, (count, len(NUMBERS)))).astype(np.float32)
    return made


def keys() -> NDArray[np.float32]:
    """A service of this network that looks like a tunnel: many encoded names, asked for by many clients."""
    numbers = kind(True, 120)
    numbers[:, NUMBERS.index("domain_clients")] = 60
    numbers[:, NUMBERS.index("domain_age_days")] = 90
    return numbers


def put(store: Store, numbers: NDArray[np.float32], hour: int, first: int = 0) -> list[str]:
    """Store them, each below a domain of its own that teaches."""
    domains = TEACHING[first : first + len(numbers)]
    hours = np.full(len(numbers), hour, np.int64)
    rows = FlowHours(SCHEMA, hours, ["192.0.2.7"] * len(numbers), domains, [()] * len(numbers), numbers)
    FlowHourStore(store).add(rows)
    return domains


def first_labels(store: Store) -> None:
    """120 flow-hours of a service that looks like a tunnel, and 60 of tunnels."""
    first = put(store, np.concatenate([keys(), kind(True, 60, 2)]), HOUR)
    say(store, first[:120], Label.BENIGN, HOUR)
    say(store, first[120:], Label.TUNNEL, HOUR)


def say(store: Store, domains: list[str], label: Label, hour: int) -> None:
    ReviewStore(store).decide(domains, label, "a reason", "ann", hour * 3600.0)


def model_of(learner: OnlineLearner) -> FlowModel:
    model = learner.model()
    assert model is not None
    return model


@pytest.mark.slow
def test_the_first_model_knows_the_golden_flow_hours(learner: OnlineLearner) -> None:
    numbers, tunnel = golden_flow_hours()
    found = measures(model_of(learner), Examples(numbers, tunnel))
    assert found["balanced_accuracy"] > 0.98
    assert found["loss"] < 0.1
    assert learner.cycle() == {"state": "waiting for labels", "new_labels": 0, "needed": 50}
    assert learner.status() == {
        "enabled": True, "is_training": False, "progress": None, "last_training_time": HOUR * 3600.0,
        "last_processed_id": 0, "total_training_cycles": 1, "model_versions": 1,
        "labels": {"benign (golden session)": int((~tunnel).sum()), "tunnel (golden session)": int(tunnel.sum())},
    }  # fmt: skip


@pytest.mark.slow
def test_what_people_say_is_learnt_and_nothing_is_forgotten(store: Store, learner: OnlineLearner) -> None:
    """The oldest month's labels before and after ten weekly updates."""
    first_labels(store)
    assert (model_of(learner).probabilities(keys()) > 0.5).mean() > 0.5, "it did not know that service"
    assert later(learner, 1).cycle()["state"] == CycleState.DEPLOYED
    labels = LabelStore(store).labelled(SCHEMA)
    oldest = Examples(labels.numbers, labels.tunnel)
    before = measures(model_of(learner), oldest)["accuracy"]
    for week in range(1, 11):
        more = put(store, kind(week % 2 == 0, 60, week + 10), HOUR + week * WEEK, 200 + 60 * (week - 1) % 600)
        say(store, more, Label.TUNNEL if week % 2 == 0 else Label.BENIGN, HOUR + week * WEEK)
        assert later(learner, week * WEEK + 1).cycle()["state"] == CycleState.DEPLOYED
    after = measures(model_of(learner), oldest)["accuracy"]
    assert before > 0.85
    assert after >= before - 0.02
    assert measures(model_of(learner), Examples(*golden_flow_hours()))["balanced_accuracy"] > 0.95
    assert learner.status()["total_training_cycles"] == 12
    assert [one["state"] for one in learner.history(3)] == ["deployed"] * 3


@pytest.mark.slow
def test_labels_that_would_unlearn_tunnels_are_rolled_back(
    store: Store, learner: OnlineLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rehearsal protects; here a hundred passes at a high rate get past it, and the gates say no."""
    say(store, put(store, kind(True, 300, 3), HOUR), Label.BENIGN, HOUR)
    before = learner.path.read_bytes()
    told: list[Message] = []

    def tell(message: Message) -> list[ChannelResult]:
        told.append(message)
        return [ChannelResult("slack", False, "cannot send to slack: it is away")]

    rash = replace(later(learner, 1), options=replace(OPTIONS, passes=100, rate=0.3), tell=tell)
    monkeypatch.setattr(
        Examples, "drawn", lambda self, count, draw: Examples(self.numbers[:count], self.tunnel[:count] & False)
    )
    found = rash.cycle()
    assert found["state"] == CycleState.ROLLED_BACK
    (message,) = told
    assert message.title == "Online learner: rolled back" and message.severity is Severity.SUSPICIOUS
    assert "It missed" in message.summary and "balanced accuracy (" in message.summary
    assert len(found["data_sha256"]) == 64 and found["settings"] == {"batch": 32, "passes": 100, "rate": 0.3, "seed": 1}
    assert {gate["name"] for gate in found["gates"] if not gate["passed"]} >= {"balanced accuracy"}
    assert learner.path.read_bytes() == before
    assert later(learner, 2).cycle()["state"] == CycleState.WAITING, "the same labels are not tried again and again"


def test_the_half_that_validates_is_never_learnt(store: Store) -> None:
    domains = [f"h{i}.example" for i in range(60)]
    numbers = kind(False, 60)
    hours = np.full(60, HOUR, np.int64)
    FlowHourStore(store).add(FlowHours(SCHEMA, hours, ["192.0.2.7"] * 60, domains, [()] * 60, numbers))
    say(store, domains, Label.BENIGN, HOUR)
    found = material_of(LabelStore(store).labelled(SCHEMA), 0.0)
    teaching = sum(map(teaches, domains))
    assert len(found.new.tunnel) == teaching
    golden = len(golden_flow_hours()[1])
    assert len(found.held_out.tunnel) == len(range(0, golden, HELD_OUT)) + 60 - teaching
    assert dict(found.origins) == {"a person": teaching}


@pytest.mark.slow
def test_probabilities_label_beyond_the_bounds_and_rules_win(store: Store, learner: OnlineLearner) -> None:
    numbers = np.concatenate([kind(True, 3), kind(False, 3)])
    domains = put(store, numbers, HOUR)
    LabelStore(store).mark(
        [LabelledSpan(None, domains[5], HOUR, HOUR, Label.TUNNEL, LabelOrigin.TOOL, 1.0)], SCHEMA, 1.0
    )
    chance = model_of(learner).probabilities(numbers)
    sure = int(((chance >= 0.95) | (chance <= 0.3)).sum())
    assert label_by_probability(store, model_of(learner), OPTIONS, HOUR, 2.0) == sure
    labels = LabelStore(store).labelled(SCHEMA)
    assert labels.origin[-1] == "tool fingerprint"
    assert labels.origin.count("learnt probability") == sure - 1
    assert (
        label_by_probability(store, model_of(learner), replace(OPTIONS, tunnel_from=1.0, benign_to=0.0), HOUR, 3.0) == 0
    )
    found = material_of(labels, 0.0)
    assert len(found.certain.tunnel) == 1, "guesses are new, never certain"


@pytest.mark.slow
def test_a_death_in_the_middle_leaves_the_model_and_the_next_cycle_is_clean(
    store: Store, learner: OnlineLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_labels(store)
    before = learner.path.read_bytes()
    steps = [(online, step) for step in ("learnt", "gates_of_cycle", "measures")]
    for module, step in (*steps, (learnt_registry, "write_atomic")):
        with monkeypatch.context() as patched:
            patched.setattr(module, step, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space"):
                later(learner, 1).cycle()
        assert learner.path.read_bytes() == before, step
        assert not learner.is_training()
        assert learner.status()["total_training_cycles"] == 1
    done = later(learner, 1).cycle()
    assert (done["state"], done["new_labels"]) == (CycleState.DEPLOYED, 180)
    assert [path.read_bytes() for path in (learner.folder / "earlier").glob("*.npz")] == [before]


@pytest.mark.slow
def test_two_at_once_one_learns_and_the_other_says_so(learner: OnlineLearner) -> None:
    with (learner.folder / "learning.lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert learner.status()["is_training"]
        for begin in (learner.cycle, learner.begin):
            with pytest.raises(BusyError, match=r"^cannot learn: a cycle is under way"):
                begin()
    assert not learner.status()["is_training"]


@pytest.mark.parametrize("data", [b"", b"damaged", b"PK\x03\x04"])
@pytest.mark.slow
def test_a_damaged_model_is_replaced_by_one_that_begins_anew(learner: OnlineLearner, data: bytes) -> None:
    good = learner.path.read_bytes()
    learner.path.write_bytes(data)
    assert learner.usable_model() is None
    assert learner.cycle()["state"] == CycleState.DEPLOYED
    assert model_of(learner).weights.tolist() == load_flow_model(good).weights.tolist()


@given(st.binary(max_size=400))
def test_other_bytes_are_no_flow_model(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"^cannot read the flow model: "):
        load_flow_model(data)


@pytest.mark.slow
def test_a_model_of_another_schema_is_refused(learner: OnlineLearner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.learning.loop.flow_model.SCHEMA", SCHEMA + 1)
    with pytest.raises(ModelError, match="another schema"):
        learner.model()


@pytest.mark.slow
def test_the_thread_learns_by_itself_unless_it_is_stopped(store: Store, tmp_path: Path) -> None:
    quick = OnlineLearner(store, tmp_path / "flow", replace(OPTIONS, interval_s=0.05))
    quick.enable(False)
    assert not quick.status()["enabled"]
    assert not OnlineLearner(store, tmp_path / "flow", OPTIONS).enabled, "another process sees it, too"
    thread = LearnerThread(quick)
    thread.start()
    threading.Event().wait(0.3)
    assert quick.status()["total_training_cycles"] == 0
    quick.enable(True)
    wait_until(lambda: quick.status()["total_training_cycles"] == 1)
    thread.stop()


@pytest.mark.slow
def test_golden_sessions_are_stored_labels_that_nothing_ends(
    store: Store, learner: OnlineLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, tunnel = golden_flow_hours()
    labels, hours = LabelStore(store), FlowHourStore(store)
    stored = labels.labelled(GOLDEN_SCHEMA)
    assert np.array_equal(stored.numbers, numbers) and stored.tunnel.tolist() == tunnel.tolist()
    assert set(stored.origin) == {"golden session"}
    monkeypatch.setattr(golden, "golden_flow_hours", lambda: pytest.fail("they are stored"))
    assert golden.stored_golden(store, 0.0)[1].tolist() == tunnel.tolist()
    put(store, kind(True, 50), HOUR)
    assert (hours.shrink(20, SCHEMA), hours.forget(1e12)) == (30, 20)
    assert len(labels.labelled(GOLDEN_SCHEMA)) == len(tunnel)
    assert len(labels.labelled(SCHEMA)) == 0, "they are no traffic of this network"


@pytest.mark.slow
def test_another_release_brings_its_own_golden_sessions(
    store: Store, learner: OnlineLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, tunnel = golden_flow_hours()
    monkeypatch.setattr(golden, "golden_domain", lambda: "golden-of-another-release")
    monkeypatch.setattr(golden, "golden_flow_hours", lambda: (numbers[:40], tunnel[:40]))
    assert len(golden.stored_golden(store, 0.0)[1]) == 40
    assert set(LabelStore(store).labelled(GOLDEN_SCHEMA).domain) == {"golden-of-another-release"}


@pytest.mark.slow
def test_the_bounds_of_the_gates_are_settings(store: Store, learner: OnlineLearner) -> None:
    first_labels(store)
    before = learner.path.read_bytes()
    strict = replace(later(learner, 1), options=replace(OPTIONS, loss_max=0.0, accuracy_min=1.0, balanced_min=1.0))
    found = strict.cycle()
    wanted = {gate["name"]: gate["threshold"] for gate in found["gates"]}
    held = measures(load_flow_model(before), strict._material(0.0).held_out)
    assert wanted["loss"] == pytest.approx(held["loss"]), "no worse than the model in use, which misses them"
    assert wanted["accuracy"] == pytest.approx(held["accuracy"])
    values = SPEC.values({"learning_loss_max": 1.5, "learning_fall_max": 0.2})
    assert (SPEC.factory(values).loss_max, SPEC.factory(values).fall_max) == (1.5, 0.2)
