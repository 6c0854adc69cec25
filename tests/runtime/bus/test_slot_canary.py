"""A canary in slots that move between hosts with their saved state: what it has seen is as by one host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from agents.core.types import Incident, Row, Severity, batch_of
from agents.detection.limits import Scale
from agents.detection.rollout.canary import CanaryCounts, counts_of, in_share
from agents.detection.shared.part import TrialPartDetector
from agents.detection.shared.slotted import SlottedDetector, slot_files_of, slot_state_of
from agents.detection.shared.view import Facts, NetworkView, known_tables
from agents.learning.baseline import model_bytes
from agents.learning.registry import ModelRegistry
from agents.learning.release.canary import CANARY_FILE, CanaryTerms
from agents.runtime.bus.slot_canary import SLOT_ALERTS_MAX, SlotCanaries
from agents.scoring.model import Model
from agents.stream.slots import slot_of_client
from tests.support.carrier import LOOSE, TIGHT, carried, with_factor
from tests.support.detecting import KEYS_MAX, QUIET_S, query

SLOTS = 4
CLIENT = next(f"192.0.2.{number}" for number in range(1, 250) if in_share(f"192.0.2.{number}", 0.1))
OTHER = next(
    f"192.0.2.{number}"
    for number in range(1, 250)
    if slot_of_client(f"192.0.2.{number}") % SLOTS == slot_of_client(CLIENT) % SLOTS
    and not in_share(f"192.0.2.{number}", 0.1)
)
SLOT = slot_of_client(CLIENT) % SLOTS
BEGIN, BEGUN_AT = 1_780_000_000.0, 1_779_990_000.5
NAMES = carried("slow.example", 3)


def models(folder: Path) -> ModelRegistry[Model]:
    """A champion with wide limits, and a canary with narrow ones."""
    folder.mkdir(exist_ok=True)
    made = ModelRegistry(folder, Model.from_bytes, model_bytes())
    for factor in (LOOSE, TIGHT):
        made.save_candidate(with_factor(factor))
    made.promote(with_factor(LOOSE).model_id)
    made.begin_canary(with_factor(TIGHT).model_id, asdict(CanaryTerms()), BEGUN_AT)
    return made


class Host:
    """A host that holds one slot, with a lease's token; messages are judged in the order in which they are given."""

    def __init__(
        self, registry: ModelRegistry[Model], token: int, state: bytes = b"", stored: Sequence[Incident] = ()
    ) -> None:
        """stored: what the database has of a canary's open incidents."""
        tables = known_tables()

        def view(slot: int) -> NetworkView:
            return NetworkView(str(slot), tables, Facts)

        fixed: tuple[Any, ...] = (KEYS_MAX, QUIET_S, Scale(), None, (0, 0), None, 0, None)
        self.detector = SlottedDetector(
            lambda client: slot_of_client(client) % SLOTS, view, registry.current(), *fixed
        )  # fmt: skip
        self.told: list[tuple[int, int, CanaryCounts]] = []
        self.away = False
        self.canaries = SlotCanaries(
            registry,
            self.detector,
            lambda slot, model: TrialPartDetector(model, *fixed, view=view(slot)),
            self._put,
        )
        self.detector.open_slot(SLOT, state)
        newest = {(one.client, one.domain): one for one in stored}
        assert self.canaries.resume(list(newest.values())) == []
        self.canaries.open_slot(SLOT, token, state, nullcontext())

    def _put(self, slot: int, token: int, data: bytes) -> Future[bool]:
        done: Future[bool] = Future()
        if self.away:
            done.set_exception(OSError("the bus is away"))
        else:
            self.told.append((slot, token, counts_of(json.loads(data), with_factor(TIGHT).model_id, BEGUN_AT)))
            done.set_result(True)
        return done

    def judge(self, *messages: list[Row]) -> list[Incident]:
        """What is told of them."""
        told: list[Incident] = []
        for rows in messages:
            batch = batch_of(rows)
            told += self.canaries.judge(batch, self.detector.detect(batch)).incidents
        return told

    def saved(self) -> bytes:
        """Its state, which is in force from now on."""
        files = self.canaries.saved_files(SLOT, nullcontext())
        state = self.detector.saved_slot(SLOT, nullcontext(), files)
        self.canaries.note_saved(SLOT)
        return state

    def poll(self) -> tuple[Incident, ...]:
        return self.canaries.poll(nullcontext())

    @property
    def counts(self) -> dict[str, Any]:
        found = counts_of(json.loads(slot_files_of(self.saved())[CANARY_FILE]), with_factor(TIGHT).model_id, BEGUN_AT)
        return {
            name: one for name, one in found.summary().items() if name not in ("timed", "champion_us", "candidate_us")
        } | {"domains": found.domains}


def messages() -> list[list[Row]]:
    """A slow channel of a client of the canary, and beside it one of another client, which the canary does not see."""
    return [
        [
            query(BEGIN + 400 * at + 100 * step, client, NAMES[4 * at + step])
            for step in range(4)
            for client in (CLIENT, OTHER)
        ]
        for at in range(5)
    ]


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry[Model]:
    return models(tmp_path / "models")


def test_the_candidate_alone_finds_it_and_the_counts_are_of_its_clients(registry: ModelRegistry[Model]) -> None:
    host = Host(registry, 1)
    told = host.judge(*messages())
    named = {(one.client, one.evidence.get("canary")) for one in told if one.severity >= Severity.HIGH}
    assert named == {(CLIENT, with_factor(TIGHT).model_id)}
    counts = host.counts
    assert (counts["queries"], counts["candidate_alerts"], counts["champion_alerts"]) == (20, 1, 0)
    assert counts["domains"] == {"slow.example": 1}


@pytest.mark.parametrize("moves", [0, 1, 2, 3, 4])
def test_a_slot_that_moves_after_any_message_has_seen_what_one_host_sees(
    registry: ModelRegistry[Model], moves: int
) -> None:
    whole = Host(registry, 1)
    whole.judge(*messages())
    one = Host(registry, 1)
    stored = one.judge(*messages()[:moves])
    two = Host(registry, 2, one.saved(), stored)
    two.judge(*messages()[moves:])
    assert two.counts == whole.counts


def test_what_is_judged_again_from_saved_state_counts_once(registry: ModelRegistry[Model]) -> None:
    one = Host(registry, 1)
    one.judge(*messages()[:2])
    state = one.saved()
    stored = one.judge(*messages()[2:])  # and it dies before that is saved
    two = Host(registry, 2, state, stored)
    two.judge(*messages()[2:])
    assert two.counts == one.counts


def test_only_what_is_in_force_is_told_and_until_the_bus_takes_it(registry: ModelRegistry[Model]) -> None:
    host = Host(registry, 7)
    host.judge(*messages()[:1])
    host.poll()
    assert host.told == [], "nothing is saved yet"
    host.away = True
    host.saved()
    host.judge(*messages()[1:2])
    host.poll()
    host.poll()
    host.away = False
    host.poll()
    host.poll()
    assert [(slot, token, counts.queries) for slot, token, counts in host.told] == [(SLOT, 7, 4)]
    follower = Host(registry, 8, host.saved())
    follower.poll()
    assert [(token, counts.queries) for _, token, counts in follower.told] == [(8, 8)], "at once, whoever had it before"


def test_an_incident_of_the_canary_alone_goes_on_at_another_host_and_ends_with_the_canary(
    registry: ModelRegistry[Model],
) -> None:
    one = Host(registry, 1)
    told = one.judge(*messages())
    state = one.saved()
    two = Host(registry, 2)
    two.detector.close_slot(SLOT)
    two.canaries.close_slot(SLOT, nullcontext())
    assert two.canaries.resume([told[-1]]) == []
    two.detector.open_slot(SLOT, state)
    assert two.poll() == (), "its slot is being opened"
    two.canaries.open_slot(SLOT, 3, state, nullcontext())
    assert two.poll() == ()
    registry.reject(with_factor(TIGHT).model_id)
    (closed,) = two.poll()
    assert (closed.domain, closed.closed_at is not None) == ("slow.example", True)
    assert two.canaries.candidate == ""
    assert CANARY_FILE not in slot_files_of(two.saved())


def test_a_promoted_candidate_goes_on_with_what_it_alone_had(registry: ModelRegistry[Model]) -> None:
    host = Host(registry, 1)
    told = host.judge(*messages())
    registry.promote(with_factor(TIGHT).model_id)
    assert host.poll() == ()
    going_on = host.detector.open_incidents[CLIENT, "slow.example"]
    assert going_on.incident_id == told[-1].incident_id and going_on.closed_at is None


@pytest.mark.parametrize("damage", [b"", b"x", b"[]", b'{"model_id": 1}', b"\xff"])
def test_counts_that_cannot_be_read_begin_anew(registry: ModelRegistry[Model], damage: bytes) -> None:
    one = Host(registry, 1)
    one.judge(*messages()[:1])
    files = {**slot_files_of(one.saved()), CANARY_FILE: damage}
    two = Host(registry, 2, slot_state_of(files))
    two.judge(*messages()[1:2])
    assert two.counts["queries"] == 4


def test_a_host_that_cannot_load_the_candidate_keeps_what_others_counted(registry: ModelRegistry[Model]) -> None:
    one = Host(registry, 1)
    one.judge(*messages()[:2])
    path = registry.models_dir / "candidates" / f"{with_factor(TIGHT).model_id}.npz"
    good = path.read_bytes()
    path.write_bytes(b"broken")
    two = Host(registry, 2, one.saved())
    assert two.canaries.candidate == ""
    two.judge(*messages()[2:3])
    path.write_bytes(good)
    three = Host(registry, 3, two.saved())
    three.judge(*messages()[3:])
    assert three.counts["queries"] == 16


def test_a_host_where_none_runs_keeps_what_others_counted(registry: ModelRegistry[Model], tmp_path: Path) -> None:
    """A pinned one, or one that has not heard of it yet."""
    one = Host(registry, 1)
    one.judge(*messages()[:2])
    pinned = models(tmp_path / "pinned")
    pinned.reject(with_factor(TIGHT).model_id)
    two = Host(pinned, 2, one.saved())
    two.judge(*messages()[2:3])
    three = Host(registry, 3, two.saved())
    three.judge(*messages()[3:])
    assert three.counts["queries"] == 16


def test_the_counts_of_a_slot_fit_into_a_message(registry: ModelRegistry[Model]) -> None:
    """However many alerts there are."""
    host = Host(registry, 1)
    canary: Any = host.canaries._slots[SLOT].canary
    found = host.judge(*messages())[-1]
    many = [replace(found, domain=f"{'x' * 60}.{'y' * 60}{number}.example") for number in range(3 * SLOT_ALERTS_MAX)]
    canary._count(many, canary.counts.champion_alerts)
    canary._count(many, canary.counts.candidate_alerts)
    for one in many:
        canary._remember(one.domain)
    assert len(host.canaries.saved_files(SLOT, nullcontext())[CANARY_FILE]) < 100_000
