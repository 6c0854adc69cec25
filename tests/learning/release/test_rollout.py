"""Canaries end by their rules, on an injected clock: promoted, or stopped by each rule, and told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from agents.core.errors import BusyError, UsageError
from agents.detection.detector import TunnelDetector
from agents.detection.limits import Scale
from agents.detection.rollout.canary import CanaryCounts
from agents.learning.baseline import model_bytes
from agents.learning.registry import ModelRegistry
from agents.learning.release.canary import CanaryTerms, CanaryTrial, Rollout, canary_state, ending_of, summed_counts
from agents.learning.release.transitions import Author, Transition
from agents.scoring.model import Model
from tests.support.carrier import with_factor
from tests.support.detecting import fresh_detector

BEGUN, HOUR = 1_767_225_600.0, 3600.0
TERMS = CanaryTerms()
NEW = with_factor(0.9)
BUSY = set(range(48))
COUNTS = CanaryCounts(NEW.model_id, BEGUN, queries=5000, timed=2000, champion_s=0.01, candidate_s=0.01, hours=BUSY)
OLD = Model.from_bytes(model_bytes())


def alerts(count: int, begin: int = 0) -> set[str]:
    return {f"{number:016x}" for number in range(begin, begin + count)}


def test_without_a_reason_to_stop_it_goes_on_until_its_time_and_is_promoted() -> None:
    assert ending_of(TERMS, COUNTS, {}, BEGUN + 47.9 * HOUR) is None
    ending = ending_of(TERMS, COUNTS, {}, BEGUN + 48 * HOUR)
    assert ending is not None and ending.promote
    assert "5,000 queries in 48.0 hours" in ending.reason


def test_what_several_detectors_have_seen_of_one_canary_is_summed_up(tmp_path: Path) -> None:
    """Alerts of one flow count once, whichever number of detectors there was when; another canary's counts do not."""
    hours = set(list(BUSY)[:1])
    parts = {
        ".": replace(COUNTS, queries=10, timed=2, champion_alerts=alerts(2), domains={"a.example": 1}, hours=hours),
        "detector-1-of-2": replace(COUNTS, queries=5, timed=1, candidate_alerts=alerts(3), domains={"a.example": 2}),
        "detector-2-of-2": replace(COUNTS, queries=1, timed=0, candidate_alerts=alerts(2, 2), champion_s=1.0),
        "detector-2-of-3": replace(COUNTS, model_id="another", queries=1_000),
    }
    for folder, counts in parts.items():
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "canary.json").write_text(json.dumps(counts.to_json()))
    found = summed_counts(tmp_path / "canary.json", NEW.model_id, BEGUN)
    assert (found.queries, found.timed, found.hours, found.domains) == (16, 3, BUSY, {"a.example": 3})
    assert (found.champion_alerts, found.candidate_alerts) == (alerts(2), alerts(4))
    assert found.champion_s == pytest.approx(1.02)


STOPS: dict[str, tuple[CanaryCounts, Mapping[str, str], str]] = {
    "labels": (COUNTS, {"a.example": "ann", "b.example": "bob"}, "people called 2 alerts false: a.example (by ann)"),
    "volume": (
        replace(COUNTS, champion_alerts=alerts(2), candidate_alerts=alerts(8)),
        {},
        "8 alerts, at most 7 beside 2",
    ),
    "latency": (replace(COUNTS, candidate_s=0.2), {}, "95 µs a name longer than the model in use, at most 50"),
}


@pytest.mark.parametrize("rule", STOPS)
def test_each_rule_stops_it_at_once(rule: str) -> None:
    counts, labels, said = STOPS[rule]
    ending = ending_of(TERMS, counts, labels, BEGUN + HOUR)
    assert ending is not None and not ending.promote
    assert said in ending.reason


def test_just_below_each_rule_it_goes_on() -> None:
    near = replace(COUNTS, champion_alerts=alerts(2), candidate_alerts=alerts(7), candidate_s=0.1)
    assert ending_of(TERMS, near, {"a.example": "ann"}, BEGUN + HOUR) is None
    few = replace(COUNTS, candidate_s=9.0, timed=10)
    assert ending_of(TERMS, few, {}, BEGUN + HOUR) is None, "ten names say nothing of time"


def test_one_that_sees_too_little_goes_on_for_twice_its_hours() -> None:
    idle = replace(COUNTS, queries=3)
    assert ending_of(TERMS, idle, {}, BEGUN + 95 * HOUR) is None
    ending = ending_of(TERMS, idle, {}, BEGUN + 96 * HOUR)
    assert ending is not None and not ending.promote
    assert "it saw only 3 queries" in ending.reason


def test_a_machine_that_was_off_for_most_of_the_time_promotes_nothing() -> None:
    """The first thousand queries after a week-end say little."""
    off = replace(COUNTS, hours=set(range(11)))
    assert ending_of(TERMS, off, {}, BEGUN + 60 * HOUR) is None
    ending = ending_of(TERMS, off, {}, BEGUN + 96 * HOUR)
    assert ending is not None and not ending.promote
    assert "(11 hours with queries)" in ending.reason
    on = ending_of(TERMS, replace(COUNTS, hours=set(range(12))), {}, BEGUN + 60 * HOUR)
    assert on is not None and on.promote


class World:
    """A registry with a canary, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.registry = ModelRegistry(folder / "models", Model.from_bytes, model_bytes())
        self.registry.save_candidate(NEW)
        self.registry.begin_canary(NEW.model_id, asdict(TERMS), BEGUN, Author("the retraining"), False)
        self.now, self.labels, self.doubt = BEGUN, dict[str, str](), ""
        self.told: list[Transition] = []
        self.path = folder / "canary.json"
        self.see(COUNTS)

    def see(self, counts: CanaryCounts) -> None:
        self.path.write_text(json.dumps(counts.to_json()))

    def look(self, hours: float) -> Transition | None:
        self.now = BEGUN + hours * HOUR
        return Rollout(
            self.registry,
            self.path,
            self.told.append,
            benign=lambda since: self.labels,
            clock=lambda: self.now,
            doubt=lambda: self.doubt,
        ).look()

    @property
    def log(self) -> str:
        return (self.registry.models_dir / "CHANGELOG.md").read_text()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_canary_that_is_promoted_is_the_champion_and_that_is_told(world: World) -> None:
    assert world.look(1) is None
    made = world.look(48)
    assert made is not None and made.action == "promote canary"
    assert world.registry.current().model_id == NEW.model_id
    assert (world.registry.canary(), world.told) == (None, [made])
    assert world.registry.aliases() == {"champion": NEW.model_id, "anchor": NEW.model_id}
    assert f"deployed {NEW.model_id} after its time as a canary, in place of {OLD.model_id} · by its rules" in world.log
    assert world.registry.lineage(NEW.model_id)["canary"]["promoted"] is True
    assert world.registry.rollback().model_id == OLD.model_id
    assert world.look(60) is None, "there is none any more"


@pytest.mark.parametrize("rule", STOPS)
def test_a_canary_that_a_rule_stops_leaves_the_champion_and_that_is_told(world: World, rule: str) -> None:
    counts, labels, said = STOPS[rule]
    world.see(replace(counts, domains=dict.fromkeys(labels, 1)))
    world.labels = {**labels, "elsewhere.example": "ann"}
    made = world.look(2)
    assert made is not None and (made.action, made.by_person) == ("stop canary", False)
    assert said in made.reason
    assert world.registry.current().model_id == OLD.model_id
    assert world.told == [made]
    assert f"{NEW.model_id} is no canary any more · by its rules" in world.log
    assert [row["state"] for row in world.registry.list()] == ["stopped canary"]
    with pytest.raises(UsageError, match="stopped canary, not waiting"):
        world.registry.approve(NEW.model_id)


def test_labels_of_domains_that_it_never_alerted_of_do_not_count(world: World) -> None:
    world.labels = {"a.example": "ann", "b.example": "bob"}
    assert world.look(2) is None


def test_a_doubted_clock_promotes_nothing_but_rules_still_stop(world: World) -> None:
    world.doubt = "the clock was set 50 hours ahead"
    assert world.look(50) is None
    world.see(STOPS["volume"][0])
    assert world.look(50) is not None


def test_a_clock_that_is_set_back_lets_its_time_begin_anew(world: World) -> None:
    assert world.look(-5) is None
    row = world.registry.canary()
    assert row is not None and row["begun_at"] == BEGUN - 5 * HOUR
    assert world.look(10) is None


def test_whoever_changes_the_champion_ends_the_canary(world: World) -> None:
    other = with_factor(1.1)
    world.registry.save_candidate(other)
    world.registry.promote(other.model_id)
    assert world.registry.canary() is None
    assert {row["state"] for row in world.registry.list()} >= {"champion", "replaced canary"}
    world.registry.begin_canary(NEW.model_id, asdict(TERMS), BEGUN)
    world.registry.champion_path.write_bytes(OLD.to_bytes())  # by hand
    made = world.look(1)
    assert made is not None and f"the model in use is {OLD.model_id} by now" in made.reason


def test_a_person_may_promote_it_early_or_stop_it(world: World) -> None:
    approved = world.registry.approve(NEW.model_id, Author("ann", "seen enough"))
    assert approved is not None and world.registry.current().model_id == NEW.model_id
    assert world.registry.canary() is None
    world.registry.rollback()
    world.registry.mark(NEW.model_id, "waiting")
    world.registry.start_canary(NEW.model_id, asdict(TERMS), BEGUN, Author("ann"))
    world.registry.reject(NEW.model_id, Author("bob", "too loud"))
    assert (world.registry.canary(), world.registry.aliases().get("canary")) == (None, None)


def test_one_canary_at_a_time_and_never_the_model_in_use(world: World) -> None:
    other = with_factor(1.1)
    world.registry.save_candidate(other)
    for begin, said in ((other, "is one already"), (NEW, "is one already")):
        with pytest.raises(UsageError, match=said):
            world.registry.begin_canary(begin.model_id, {}, BEGUN)
    with pytest.raises(UsageError, match="not waiting"):
        world.registry.start_canary(other.model_id, {}, BEGUN)
    world.registry.approve(NEW.model_id)
    with pytest.raises(UsageError, match="the one in use"):
        world.registry.begin_canary(NEW.model_id, {}, BEGUN)


def test_while_a_retraining_runs_or_a_model_is_pinned_nothing_is_ended(world: World) -> None:
    with world.registry.lock(), pytest.raises(BusyError):
        world.look(48)
    world.registry.pin(Author("ann", "audit"))
    with pytest.raises(UsageError, match="was pinned by ann"):
        world.look(48)
    assert world.registry.canary() is not None
    world.registry.unpin()
    assert world.look(48) is not None


def test_counts_that_cannot_be_read_are_none(world: World) -> None:
    for damage in (b"", b"{", b"\xff", b"[1]"):
        world.path.write_bytes(damage)
        assert world.look(48) is None, "nothing was seen, so far as is known"
    state = canary_state(world.registry, world.path, BEGUN + HOUR)
    assert state is not None
    assert (state["elapsed_s"], state["seen"]["queries"]) == (HOUR, 0)


def test_a_canary_in_the_index_ends_with_one_change_whatever_is_killed(world: World) -> None:
    """The promotion is one move: tests/learning/release/test_killed.py kills it at each write."""
    found: dict[str, Any] = json.loads((world.registry.models_dir / "registry.json").read_text())
    assert found["canary"]["model_id"] == NEW.model_id
    again: Callable[[], Any] = ModelRegistry(world.registry.models_dir, Model.from_bytes, model_bytes()).canary
    assert again() == found["canary"], "another process reads the same"


def test_a_mistake_in_the_program_is_not_taken_for_a_canary_that_cannot_begin(world: World) -> None:
    def mistaken(model: Model) -> TunnelDetector:
        raise ValueError(f"a mistake with {model.model_id}")

    trial = CanaryTrial(world.registry, fresh_detector(OLD, Scale()), mistaken, world.path)
    with pytest.raises(ValueError, match="a mistake"):
        trial.poll(nullcontext())
