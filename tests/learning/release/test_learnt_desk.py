"""DEPLOY=manual and APPROVALS for what cycles learn: it waits for a person, who approves or rejects it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from agents.core.errors import BusyError, TrainingError, UsageError
from agents.core.types import ChannelResult, Gate, Message
from agents.learning.images.image_learner import ImageThread
from agents.learning.loop.online import CycleState, LearnerThread, OnlineLearner
from agents.learning.loop.options import SPEC
from agents.learning.release.canary import CanaryTerms
from agents.learning.release.learnt import learnt_difference_text, learnt_lines
from agents.learning.release.learnt_desk import LearntDesk
from agents.learning.release.learnt_registry import ReleaseTerms
from agents.learning.sequences.history import EndedCycle
from agents.learning.sequences.learning import LearntSequences, SequenceModels
from agents.learning.sequences.on_trial import SequenceCanary
from agents.learning.sequences.rollout import SequenceRollout
from agents.runtime import bootstrap
from agents.store import Store, open_store
from agents.store.feedback.flow_hours import FlowHourStore
from tests.learning.images.test_images import BOUNDS, NOW, fit, learner_of, ordinary
from tests.support.sequences import untrained_model

pytestmark = pytest.mark.integration


class Desk:
    """A desk where what passed waits for a person; `told` has its messages."""

    def __init__(self, folder: Path, store: Store, approvals: int = 1) -> None:
        self.told: list[Message] = []
        terms = ReleaseTerms("manual", approvals, folder / "CHANGELOG.md")
        options = SPEC.factory(SPEC.values({}))
        self.learner = OnlineLearner(store, folder / "flow", options, lambda: NOW, self.tell, terms=terms)
        self.sequences = SequenceModels(folder / "sequences", release=terms)
        self.images = replace(learner_of(store, folder), terms=terms, tell=self.tell)
        self.desk = LearntDesk(self.learner, self.sequences, images=self.images, tell=self.tell)
        self.changelog = folder / "CHANGELOG.md"

    def tell(self, message: Message) -> list[ChannelResult]:
        self.told.append(message)
        return []

    def ends(self, loss: float) -> EndedCycle:
        """A cycle of the sequence model whose candidate passed its gates."""
        found = LearntSequences(untrained_model(loss).noted(loss=loss), (Gate("g", 1, 2, False),))
        return self.sequences.end(EndedCycle(began_at=NOW, decision="", length=10), found, NOW)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    opened.migrate()
    yield opened
    opened.close()


@pytest.mark.slow
def test_a_flow_model_waits_and_no_other_is_made_until_somebody_decides(tmp_path: Path, store: Store) -> None:
    one = Desk(tmp_path, store)
    ended = one.learner.cycle()
    model_id = ended["model_id"]
    assert (ended["state"], one.learner.model()) == (CycleState.HELD, None)
    assert f"models approve {model_id} --of flow" in one.told[0].summary and "waits" in one.told[0].title
    for again in (one.learner.cycle, one.learner.begin):
        with pytest.raises(BusyError, match=f"flow model {model_id} waits for a person"):
            again()
    LearnerThread(one.learner).step()
    assert len(one.learner.history(9)) == 1 and not one.learner.is_training()
    (waits,) = one.desk.versions("flow")
    assert (waits["state"], waits["aliases"], waits["data"]) == ("waiting", ["candidate"], "golden flow-hours")
    assert [gate["passed"] for gate in one.desk.version("flow", "candidate")["gates"]] == [True] * 5
    done = one.desk.decide("flow", "approve", "", "ann", "gates look well")
    assert done.made.text == f"deployed {model_id}" and one.told[-1].title == f"Flow model {model_id}: approve by hand"
    serving = one.learner.model()
    assert serving is not None and serving.model_id == model_id
    row = one.learner.history(1)[0]
    assert (row["state"], row["author"], row["reason"]) == ("deployed", "ann", "gates look well")
    (used,) = one.desk.versions("flow")
    assert (used["state"], used["decided_by"], used["data"]) == ("champion", "ann", "golden flow-hours")
    assert one.learner.cycle()["state"] == CycleState.WAITING, "the next cycle waits for labels, as ever"
    changed = replace(serving, weights=serving.weights * 1.01)
    other = one.learner.adopt(changed, "round 7 of the fleet")
    assert other["state"] == CycleState.HELD
    third = one.learner.adopt(replace(serving, weights=serving.weights * 1.02), "round 8 of the fleet")
    assert third["state"] == CycleState.ROLLED_BACK and third["reason"].startswith("another candidate waits")
    one.desk.decide("flow", "reject", other["model_id"], "bob", "not ours")
    assert one.learner.model() is not None and one.learner.path.read_bytes() == serving.to_bytes()
    assert [row["how"] for row in one.desk.history("flow")] == ["approve"]
    assert [row["action"] for row in one.desk.log("flow")] == ["hold", "approve", "hold", "pass over", "reject"]
    text = one.changelog.read_text()
    assert "flow model 1 · " in text and "by bob: not ours" in text and "by round 8 of the fleet: another" in text


@pytest.mark.slow
def test_while_the_database_is_away_a_person_decides_all_the_same(tmp_path: Path, store: Store) -> None:
    one = Desk(tmp_path, store)
    model_id = one.learner.cycle()["model_id"]
    away = replace(one.learner, store=open_store(f"sqlite:///{tmp_path / 'none' / 'q.db'}"))
    replace(one.desk, learner=away).decide("flow", "approve", model_id, "ann", "now")
    serving = one.learner.model()
    assert serving is not None and serving.model_id == model_id


def test_a_sequence_model_waits_for_two_authors(tmp_path: Path, store: Store) -> None:
    one = Desk(tmp_path, store, approvals=2)
    first = one.ends(3.0)
    assert (first.decision, one.sequences.current()) == ("waiting", None)
    second = one.ends(2.0)
    assert second.decision == "rejected" and second.reason.startswith("another candidate waits for a person")
    done = one.desk.decide("sequences", "approve", first.model_id, "ann", "")
    assert "another author has to approve" in done.made.text and one.sequences.current() is None
    assert one.desk.version("sequences", "candidate")["approvals"][0]["by"] == "ann"
    with pytest.raises(UsageError, match="ann has, another author must"):
        one.desk.decide("sequences", "approve", first.model_id, "ann", "")
    one.desk.decide("sequences", "approve", first.model_id, "bob", "seen it, too")
    current = one.sequences.current()
    assert current is not None and current.model_id == first.model_id
    newest = one.sequences.history.newest(1)[0]
    assert (newest.decision, newest.source, newest.by, newest.parent) == ("deployed", "a person", "bob", "")
    assert one.ends(2.0).decision == "waiting", "the next one waits"
    one.desk.decide("sequences", "reject", "", "bob", "no better")
    assert one.sequences.history.newest(1)[0].decision == "rejected" and one.sequences.registry.waiting() == ""
    with pytest.raises(UsageError, match="cannot choose: no sequence model waits"):
        one.desk.decide("sequences", "approve", "", "ann", "")
    for kind, action in (("trees", "approve"), ("flow", "pin")):
        with pytest.raises(UsageError, match="cannot"):
            one.desk.decide(kind, action, "", "ann", "")


@pytest.mark.slow
def test_image_models_wait_are_listed_compared_and_taken_back(tmp_path: Path, store: Store) -> None:
    FlowHourStore(store).add(ordinary(120))
    one = Desk(tmp_path, store)
    found = one.images.learn()
    assert (found["state"], one.images.model(), one.images.is_due()) == ("waiting", None, False)
    assert f"models approve {found['model_id']} --of images" in one.told[0].summary
    with pytest.raises(BusyError, match="waits for a person"):
        one.images.learn()
    ImageThread(one.images).step()
    one.desk.decide("images", "approve", "", "ann", "it finds them")
    (first,) = one.desk.versions("images")
    assert first["state"] == "champion" and first["data"].endswith(": 600 images") and len(first["data_sha256"]) == 64
    assert (first["decided_by"], first["settings"]["type"], len(first["gates"])) == ("ann", "padim", 1)
    FlowHourStore(store).add(ordinary(20, 3, "p"))
    later = replace(one.images, clock=lambda: NOW + 8 * 86_400, terms=ReleaseTerms(changelog=one.changelog))
    new = later.learn()
    assert (new["state"], new["parent"]) == ("deployed", first["model_id"])
    diff = one.desk.diff("images", "previous", "champion")
    assert diff["weights"] and all("moved by" in row["new"] for row in diff["weights"])
    assert diff["golden"]["strange"]["new"] > 0.9 and diff["listed"]["of"] == "images of flows"
    assert "images" in {row["name"] for row in diff["settings"]}
    assert "golden tunnels that are strange" in learnt_difference_text(diff)
    assert len(learnt_lines(one.desk.versions("images"))) == 2
    assert [row["how"] for row in one.desk.history("images")] == ["deploy", "approve"]
    assert one.desk.take_back("images", "too loud", "bob") == first["model_id"]
    assert one.desk.version("images", "taken-back")["model_id"] == new["model_id"]
    assert one.desk.version("images", "champion")["transitions"][-1]["decision"] == "taken back"
    with pytest.raises(UsageError, match="there is none before it"):
        one.desk.take_back("images", "too loud", "bob")
    assert "image model 4 · " in one.changelog.read_text()
    other = replace(one.desk, images=replace(one.images, kind="fastflow", train=fit, bounds=BOUNDS))
    later.learn()
    with pytest.raises(UsageError, match="of type padim, FLOW_IMAGES is fastflow"):
        other.take_back("images", "x", "bob")


def test_the_settings_say_it_for_all_kinds(tmp_path: Path, store: Store) -> None:
    settings = bootstrap.load_settings(data_dir=tmp_path / "data", deploy="manual", approvals=2, flow_images="padim")
    desk = bootstrap.learnt_desk_of(settings, store)
    for kind in ("flow", "sequences", "images"):
        terms = desk.registry(kind).terms
        assert terms.by_person and terms.approvals == 2 and terms.changelog == settings.models_dir / "CHANGELOG.md"
        assert desk.registry(kind).folder == settings.models_dir / kind
    with pytest.raises(TrainingError, match="are needed"):
        bootstrap.image_learner_of(settings, store).learn()


def test_a_person_may_end_the_trial_of_a_sequence_model(tmp_path: Path, store: Store) -> None:
    terms = asdict(CanaryTerms())
    for action, serving in (("approve", True), ("reject", False)):
        one = Desk(tmp_path / action, store, approvals=2 if action == "approve" else 1)
        one.sequences = replace(one.sequences, terms=terms)
        desk = replace(one.desk, sequences=one.sequences)
        ended = one.ends(3.0)
        assert ended.decision == "canary"
        if action == "approve":
            done = desk.decide("sequences", action, ended.model_id, "ann", "enough seen")
            assert done.made.action == "approve first" and one.sequences.current() is None
            assert SequenceCanary(one.sequences.folder).row() is not None, "it goes on"
        desk.decide("sequences", action, ended.model_id, "bob", "enough seen")
        current = one.sequences.current()
        assert (current is not None and current.model_id == ended.model_id) is serving
        assert SequenceCanary(one.sequences.folder).row() is None
        newest = one.sequences.history.newest(1)[0]
        assert (newest.decision, newest.by) == ("deployed" if serving else "rejected", "bob")
        assert desk.log("sequences")[-1]["action"] == action
        assert SequenceRollout(one.sequences, benign=lambda since: {}).look() is None
