"""Going back to any kept version of what cycles learn, pinning the one in use, and choosing the anchor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agents.core.errors import UsageError
from agents.core.types import Gate
from agents.learning.images.image_learner import ImageLearner
from agents.learning.release.learnt_registry import USUAL_TERMS, id_of
from agents.learning.sequences.history import EndedCycle
from agents.learning.sequences.learning import LearntSequences
from agents.store import Store, open_store
from agents.store.feedback.flow_hours import FlowHourStore
from tests.learning.images.test_images import NOW, ordinary
from tests.learning.release.test_learnt_desk import Desk
from tests.support.sequences import untrained_model

MODELS = [untrained_model(loss).noted(loss=loss) for loss in (4.0, 3.0, 2.0)]
OLDEST, MIDDLE, NEWEST = (one.model_id for one in MODELS)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def one(tmp_path: Path, store: Store) -> Desk:
    """Three sequence models, of which the last is in use; what passes is deployed."""
    made = Desk(tmp_path, store)
    made.sequences = replace(made.sequences, release=USUAL_TERMS)
    made.desk = replace(made.desk, sequences=made.sequences)
    for at, model in enumerate(MODELS):
        made.sequences.deploy(model, 100.0 + at)
    return made


def test_one_goes_back_to_any_kept_version_and_forward_again(one: Desk) -> None:
    registry = one.sequences.registry
    done = one.desk.decide("sequences", "rollback", OLDEST, "ann", "it was quieter")
    assert (done.made.action, done.made.model_id, done.made.replaced, done.made.by) == (
        "roll back", OLDEST, NEWEST, "ann")  # fmt: skip
    assert registry.in_use() == OLDEST and id_of(registry.taken_back.read_bytes()) == NEWEST
    assert [id_of(path.read_bytes()) for path in registry.earlier()] == [MIDDLE], "what lies between is kept"
    assert one.told[-1].title.startswith("Sequence model")
    one.desk.decide("sequences", "rollback", "taken-back", "ann", "it was not")
    assert registry.in_use() == NEWEST and id_of(registry.taken_back.read_bytes()) == OLDEST
    for name, why in ((NEWEST, "it is in use"), ("0" * 16, "cannot find sequence model")):
        with pytest.raises(UsageError, match=why):
            one.desk.decide("sequences", "rollback", name, "ann", "again")
    assert registry.in_use() == NEWEST


def test_what_is_pinned_is_replaced_by_no_cycle_and_no_person(one: Desk) -> None:
    registry, better = one.sequences.registry, untrained_model(1.0).noted(loss=1.0)
    one.desk.decide("sequences", "pin", "", "ann", "audit until friday")
    assert "was pinned by ann (audit until friday)" in registry.pinned()
    ended = one.sequences.end(
        EndedCycle(began_at=NOW, decision="", length=10), LearntSequences(better, (Gate("g", 1, 2, False),)), NOW
    )
    assert (ended.decision, registry.in_use(), registry.waiting()) == ("waiting", NEWEST, better.model_id)
    for action, model_id in (("approve", better.model_id), ("rollback", MIDDLE), ("pin", "")):
        with pytest.raises(UsageError, match="was pinned by ann"):
            one.desk.decide("sequences", action, model_id, "bob", "mine is better")
    with pytest.raises(UsageError, match="was pinned by ann"):
        one.sequences.deploy(better, 200.0)
    assert registry.in_use() == NEWEST
    assert one.desk.version("sequences", "champion")["pinned"] == registry.pinned()
    one.desk.decide("sequences", "unpin", "", "ann", "friday")
    assert one.desk.decide("sequences", "approve", better.model_id, "bob", "now").made.replaced == NEWEST
    assert [row.action for row in registry.transitions()[-4:]] == ["pin", "hold", "unpin", "approve"]
    with pytest.raises(UsageError, match="no sequence model is pinned"):
        one.desk.decide("sequences", "unpin", "", "ann", "again")
    with pytest.raises(UsageError, match="no image model is in use"):
        one.desk.decide("images", "pin", "", "ann", "none is there")


def test_a_person_chooses_the_anchor_and_no_cycle_replaces_it(one: Desk) -> None:
    registry = one.sequences.registry
    first = registry.anchor.model()
    assert first is not None and first.model_id == OLDEST
    one.desk.decide("sequences", "anchor", MIDDLE, "ann", "since then all is new here")
    one.sequences.deploy(untrained_model(1.0), 200.0)
    chosen = registry.anchor.model()
    assert chosen is not None and chosen.model_id == MIDDLE
    assert "anchor" in one.desk.version("sequences", MIDDLE)["aliases"]
    with pytest.raises(UsageError, match="name a version"):
        one.desk.decide("sequences", "anchor", "", "ann", "which")
    log = (one.sequences.folder / "CHANGELOG.md").read_text()
    assert f"{MIDDLE} is the anchor that candidates are compared with" in log and "by ann" in log


def test_an_image_model_of_another_type_is_no_anchor(one: Desk, store: Store) -> None:
    FlowHourStore(store).add(ordinary(120))
    images = replace(one.images, terms=USUAL_TERMS)
    assert images.learn()["state"] == "deployed"
    other: ImageLearner = replace(images, kind="fastflow")
    desk = replace(one.desk, images=other)
    with pytest.raises(UsageError, match="it is of type padim, FLOW_IMAGES is fastflow"):
        desk.decide("images", "anchor", "champion", "ann", "why not")
    assert other.registry.anchor.model() is None
