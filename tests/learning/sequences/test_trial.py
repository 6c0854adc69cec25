"""DEPLOY=canary of sequence models: on trial beside the one in use, and ended by rules without a person."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from agents.core.types import HOUR_S, Gate, Message, Row
from agents.detection.detector import Suspect
from agents.detection.rollout.canary import in_share
from agents.learning.release.canary import CanaryTerms
from agents.learning.sequences.gru import SequenceModel
from agents.learning.sequences.history import EndedCycle
from agents.learning.sequences.learning import LearntSequences, SequenceModels
from agents.learning.sequences.on_trial import SequenceCanary
from agents.learning.sequences.rollout import SequenceRollout
from agents.learning.sequences.trial import SequenceTrial
from tests.support.listening import wait_until
from tests.support.sequences import NOW, judged, knocking, untrained_model

TERMS = {"mode": "shadow", "hours": 48.0, "queries_min": 20, "alert_rise": 1.0, "false_alarms": 2}
ALL_ODD, NEVER_ODD = untrained_model(-100.0), untrained_model(1e9)
MINE = [client for at in range(2000) if in_share(client := f"10.8.{at // 250}.{at % 250}", 0.1)]


class World:
    """A folder with a model in use, a candidate that passed its gates, and a clock."""

    def __init__(self, folder: Path, in_use: SequenceModel | None, candidate: SequenceModel, **terms: object) -> None:
        self.models = SequenceModels(folder, terms={**TERMS, **terms})
        if in_use is not None:
            replace(self.models, terms=None).deploy(in_use, NOW - 100)
        self.candidate, self.at, self.benign = candidate, NOW, dict[str, str]()
        self.listed: list[Suspect] = []
        self.told: list[Message] = []
        self.ended = self.models.end(EndedCycle(began_at=NOW, decision=""), passed(candidate), NOW)
        self.canary = SequenceCanary(folder)
        self.trial = SequenceTrial(self.models, self._list)
        self.trial.look()

    def _list(self, found: Iterable[Suspect]) -> None:
        self.listed += found

    def hear(self, rows: list[Row]) -> None:
        self.trial.hear(judged(rows))
        self.trial._save(at_once=True)

    def look(self, hours: float, doubt: str = "") -> EndedCycle | None:
        self.at = NOW + hours * HOUR_S

        def said(since: float) -> Mapping[str, str]:
            return self.benign

        return SequenceRollout(
            self.models, self.told.append, benign=said, clock=lambda: self.at, doubt=lambda: doubt
        ).look()

    @property
    def in_use(self) -> str:
        found = self.models.current()
        return found.model_id if found is not None else ""


def passed(model: SequenceModel) -> LearntSequences:
    return LearntSequences(model.noted(data_sha256="ab" * 32), (Gate("g", 0.0, 1.0, False),))


def machines(count: int, hour: int = 0, first: int = 0) -> list[Row]:
    """Fast even knocks below a domain of each client's own: listed where they are odd alone."""
    rows: list[Row] = []
    for at in range(first, first + count):
        client = MINE[at]
        some = knocking(client, 14, 1.0, NOW + hour * HOUR_S)
        rows += [(*row[:2], row[2].replace(b"beacon", b"beac%02d" % at), *row[3:]) for row in some]
    return rows


def test_a_candidate_that_passed_is_on_trial_and_then_promoted(tmp_path: Path) -> None:
    world = World(tmp_path, NEVER_ODD, ALL_ODD)
    before = world.in_use
    assert (world.ended.decision, world.in_use) == ("canary", NEVER_ODD.model_id)
    for hour in range(0, 48, 3):
        world.hear(machines(1, hour, hour // 24))
    assert world.listed == [], "in shadow it is counted alone"
    seen = world.canary.state(NOW)
    assert seen is not None and seen["seen"]["candidate_alone"] == 2 and seen["seen"]["hours"] == 16
    json.dumps(seen)
    assert world.look(47) is None and world.look(48, "the clock was set") is None
    ended = world.look(48)
    assert ended is not None and (ended.decision, ended.source, ended.parent) == ("deployed", "canary", before)
    assert world.in_use == ended.model_id == world.ended.model_id
    assert world.canary.row() is None and not list(tmp_path.glob("canary*")) + list(tmp_path.glob("candidate*"))
    assert (
        world.told[0].title == "Sequence model: deployed" and "2 alerts beside 0" in dict(world.told[0].facts)["Reason"]
    )
    assert [one.decision for one in world.models.history.newest(2)] == ["deployed", "canary"]
    world.trial.look()
    assert world.trial.begun is None


def test_rules_stop_it_and_the_model_in_use_stays(tmp_path: Path) -> None:
    loud = World(tmp_path / "loud", NEVER_ODD, ALL_ODD)
    loud.hear(machines(4))
    ended = loud.look(1)
    assert ended is not None and ended.decision == "rejected" and "4 alerts, at most 3 beside 0" in ended.reason
    assert loud.in_use == NEVER_ODD.model_id and "4 alerts" in loud.told[0].summary
    false = World(tmp_path / "false", NEVER_ODD, ALL_ODD)
    false.hear(machines(2))
    false.benign = dict.fromkeys(false.canary.counts().domains, "ann")  # type: ignore[union-attr]
    ended = false.look(1)
    assert ended is not None and ended.reason == "people called 2 alerts false"
    kept = (tmp_path / "false" / "history.json").read_text()
    assert "ann" not in kept and "example" not in kept, "counts alone"
    assert "beac00[.]example (by ann)" in dict(false.told[0].facts)["Reason"]
    idle = World(tmp_path / "idle", NEVER_ODD, ALL_ODD)
    ended = idle.look(96)
    assert ended is not None and ended.decision == "rejected" and "it saw only 0 queries" in ended.reason
    other = World(tmp_path / "other", NEVER_ODD, ALL_ODD)
    replace(other.models, terms=None).deploy(untrained_model(5.0), NOW)
    ended = other.look(1)
    assert ended is not None and ended.decision == "rejected" and "another one by now" in ended.reason


def test_a_share_of_the_clients_is_judged_and_what_it_alone_finds_is_listed(tmp_path: Path) -> None:
    world = World(tmp_path, NEVER_ODD, ALL_ODD, mode="judge", share=0.1)
    others = [(row[0], f"10.9.0.{at}", *row[2:]) for at in range(40) for row in knocking("x", 14, 1.0)]
    mine = {client for client in {str(row[1]) for row in others} if in_share(client, 0.1)}
    world.hear([*machines(2), *others])
    clients = {one[1] for one in world.listed}
    assert clients >= set(MINE[:2]) and clients - set(MINE[:2]) <= mine and len(mine) < 20


def test_only_what_it_judged_counts(tmp_path: Path) -> None:
    world = World(tmp_path, NEVER_ODD, ALL_ODD, mode="judge", share=0.1)
    others = [f"10.9.0.{at}" for at in range(200) if not in_share(f"10.9.0.{at}", 0.1)]
    for hour in range(0, 48, 3):
        world.hear([row for at in range(2) for row in knocking(others[at], 40, 1.0, NOW + hour * HOUR_S)])
    world.hear(machines(1, 30))
    counts = world.canary.counts()
    assert counts is not None and (counts.queries, counts.timed, len(counts.hours)) == (14, 14, 1)
    assert world.look(48) is None, "nobody was judged for long enough"
    ended = world.look(96)
    assert ended is not None and ended.decision == "rejected" and "it saw only 14 queries" in ended.reason


def test_the_first_model_has_none_to_be_louder_than(tmp_path: Path) -> None:
    world = World(tmp_path, None, ALL_ODD)
    for hour in range(0, 48, 3):
        world.hear(machines(6 if hour == 0 else 1, hour))
    assert world.look(47) is None
    ended = world.look(48)
    assert ended is not None and ended.decision == "deployed" and world.in_use == ended.model_id
    assert ended.reason.endswith("6 alerts and no model in use before it")
    false = World(tmp_path / "false", None, ALL_ODD)
    false.hear(machines(2))
    false.benign = dict.fromkeys(false.canary.counts().domains, "ann")  # type: ignore[union-attr]
    ended = false.look(1)
    assert ended is not None and ended.decision == "rejected", "people's labels stop it"


def killed_at(world: World, wanted: int) -> bool:
    """Whether the end of a trial was killed at its step of that number: before and after each file that changes."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    try:
        numbers, replaced, unlinked = count(1), Path.replace, Path.unlink

        def die_at_last() -> None:
            if next(numbers) == wanted:
                os.kill(os.getpid(), signal.SIGKILL)

        def dying_replace(self: Path, target: Path) -> Path:
            die_at_last()
            done = replaced(self, target)
            die_at_last()
            return done

        def dying_unlink(self: Path, missing_ok: bool = False) -> None:
            if self.suffix != ".part":
                die_at_last()
            unlinked(self, missing_ok)

        Path.replace = dying_replace  # type: ignore[method-assign, assignment]
        Path.unlink = dying_unlink  # type: ignore[method-assign]
        world.look(48)
    finally:
        os._exit(0)


@pytest.mark.slow
def test_killed_at_any_step_of_its_end_it_is_promoted_once(tmp_path: Path) -> None:
    begun = World(tmp_path / "begun", NEVER_ODD, ALL_ODD)
    for hour in range(0, 48, 3):
        begun.hear(machines(1, hour))
    kills = 0
    for number in range(1, 30):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "begun", folder)
        begun.models = SequenceModels(folder, terms=TERMS)
        if not killed_at(begun, number):
            break
        kills += 1
        begun.look(48.1)
        assert begun.look(49) is None and SequenceCanary(folder).row() is None
        ends = [one for one in begun.models.history.newest(9) if one.source == "canary"]
        assert [one.decision for one in ends] == ["deployed"], number
        assert begun.in_use == ends[0].model_id == begun.ended.model_id
        earlier = [path.read_bytes() for path in begun.models.earlier()]
        assert earlier == [NEVER_ODD.to_bytes()], "the model before is kept once"
    assert 8 <= kills < 29


def test_one_on_trial_is_not_replaced_and_survives_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path, NEVER_ODD, ALL_ODD)
    world.hear(machines(1))
    second = world.models.end(EndedCycle(began_at=NOW, decision=""), passed(untrained_model(3.0)), NOW + 1)
    assert (second.decision, second.reason, second.model_id) == ("rejected", "another candidate is on trial", "")
    again = SequenceTrial(world.models, None)
    again.start()
    again.see(judged(machines(1, 1, 1)))
    wait_until(lambda: again.begun is not None)
    again.see(judged(machines(1, 2, 2)))
    again.close()
    counts = world.canary.counts()
    assert counts is not None and len(counts.candidate_alerts) >= 2, "what was seen before is known"
    assert world.look(-1) is None, "a clock that was set back"
    row = world.canary.row()
    assert row is not None and row["begun_at"] == NOW - HOUR_S


def test_killed_at_any_step_a_trial_is_whole_or_none(tmp_path: Path) -> None:
    world = World(tmp_path, NEVER_ODD, ALL_ODD)
    world.canary.path.write_bytes(b"half")
    ended = world.look(1)
    assert ended is not None and "cannot be read" in ended.reason and world.in_use == NEVER_ODD.model_id
    (tmp_path / "canary.json").write_bytes(b"{")
    assert world.canary.row() is None and world.look(1) is None


def test_without_canary_a_candidate_is_deployed_at_once(tmp_path: Path) -> None:
    models = SequenceModels(tmp_path)
    ended = models.end(EndedCycle(began_at=NOW, decision=""), passed(ALL_ODD), NOW)
    assert ended.decision == "deployed" and SequenceCanary(tmp_path).row() is None
    assert set(TERMS) <= set(CanaryTerms.__dataclass_fields__)
