"""The folder of what cycles learn: what waits for a person, what was in use when, kill -9 between any two writes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from agents.core.errors import BusyError, ModelError, StoreError, UsageError
from agents.learning.release.learnt_registry import LearntRegistry, ReleaseTerms, id_of
from agents.learning.release.transitions import Author

ONE, TWO, THREE = b"one", b"two", b"three"
PROGRAM, ANN, BOB = Author("", "passed 5 gates"), Author("ann", "looks well"), Author("bob", "me, too")


def load(data: bytes) -> bytes:
    if data == b"damaged":
        raise ModelError("cannot read the model: damaged file")
    return data


def folder_of(folder: Path, approvals: int = 1) -> LearntRegistry[bytes]:
    terms = ReleaseTerms("manual", approvals, folder / "CHANGELOG.md")
    return LearntRegistry("flow", folder / "flow", load, terms)


def prepared(folder: Path) -> LearntRegistry[bytes]:
    """One model in use, one before it, and one that waits."""
    made = folder_of(folder)
    made.deploy(THREE, 1.0, PROGRAM)
    made.deploy(ONE, 2.0, PROGRAM)
    made.hold(TWO, PROGRAM)
    return made


def changes(models: LearntRegistry[bytes]) -> dict[str, Callable[[], object]]:
    """Each change, by its name."""
    return {
        "deploy": lambda: models.deploy(TWO, 3.0, PROGRAM),
        "hold": lambda: models.hold(b"four", PROGRAM),
        "approve": lambda: models.approve(id_of(TWO), ANN, None, 3.0),
        "reject": lambda: models.reject(id_of(TWO), ANN),
        "take back": lambda: models.take_back(ANN),
    }


def killed(folder: Path, action: str, wanted: int, when: str) -> bool:
    """Whether a change was killed before or after its write of that number; else it came to its end."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    try:
        numbers, replaced = count(1), Path.replace

        def dying(self: Path, target: Path) -> Path:
            number = next(numbers)
            if number == wanted and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            done = replaced(self, target)
            if number == wanted:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        Path.replace = dying  # type: ignore[method-assign, assignment]
        changes(folder_of(folder))[action]()
    finally:
        os._exit(0)


def lines_of(folder: Path) -> list[str]:
    return [line for line in (folder / "CHANGELOG.md").read_text().splitlines() if line.startswith("- ")]


@pytest.mark.slow
@pytest.mark.parametrize("action", ["deploy", "hold", "approve", "reject", "take back"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_change_that_is_killed_leaves_one_model_in_use_and_rows_that_say_so(
    tmp_path: Path, action: str, when: str
) -> None:
    kills, in_use = 0, set()
    for number in range(1, 20):
        folder = tmp_path / str(number)
        prepared(folder)
        if not killed(folder, action, number, when):
            break
        kills += 1
        models = folder_of(folder)
        serving = models.path.read_bytes()
        in_use.add(serving)
        assert serving in (ONE, TWO, THREE), "its file is whole"
        assert models.history()[0].model_id == id_of(serving) and models.history()[0].until is None
        assert models.history()[0].how in ("deploy", "approve", "roll back"), "the rows say what is in use"
        assert models.waiting() in (id_of(TWO), id_of(b"four"), "")
        models.hold(b"next", PROGRAM)
        assert models.approve(id_of(b"next"), BOB, None, 9.0) and models.waiting() == ""
        assert models.take_back(ANN) == serving, "the next changes are clean"
        told = [int(line.split()[3]) for line in lines_of(folder)]
        assert told == list(range(1, len(models.transitions()) + 1)), "each transition has one line, in order"
    assert kills >= 2
    if action in ("deploy", "approve", "take back"):
        assert len(in_use) == 2, "before its file is replaced, and after"


def test_what_passed_waits_and_a_person_puts_it_into_use(tmp_path: Path) -> None:
    models = prepared(tmp_path)
    assert (models.path.read_bytes(), models.waiting()) == (ONE, id_of(TWO))
    with pytest.raises(UsageError, match=f"cannot approve flow model {id_of(ONE)}: it does not wait, {id_of(TWO)}"):
        models.approve(id_of(ONE), ANN, None, 3.0)
    assert models.approve(id_of(TWO), ANN, None, 3.0)
    assert (models.path.read_bytes(), models.waiting()) == (TWO, "") and not models.waiting_path.exists()
    assert [path.read_bytes() for path in models.earlier()] == [THREE, ONE] and models.anchor.model() == THREE
    newest, *_, first = models.history()
    assert (newest.model_id, newest.how, newest.by, newest.reason) == (id_of(TWO), "approve", "ann", "looks well")
    assert (first.model_id, first.how) == (id_of(THREE), "deploy")
    *_, held, approved = lines_of(tmp_path)
    assert held.startswith("- flow model 3 · ") and f"{id_of(TWO)} waits for a person · by the program" in held
    assert f"deployed {id_of(TWO)}, in place of {id_of(ONE)} · by ann: looks well" in approved
    with pytest.raises(UsageError, match="it does not wait, none does"):
        models.reject(id_of(TWO), ANN)


def test_it_takes_as_many_authors_as_the_setting_says(tmp_path: Path) -> None:
    prepared(tmp_path)
    models = folder_of(tmp_path, approvals=2)
    assert not models.approve(id_of(TWO), ANN, None, 3.0) and models.path.read_bytes() == ONE
    assert [one["by"] for one in models.approvals(id_of(TWO))] == ["ann"]
    for author, why in ((Author("Ann", ""), "Ann has, another author must"), (Author("", "x"), "2 authors must")):
        with pytest.raises(UsageError, match=why):
            models.approve(id_of(TWO), author, None, 3.0)
    assert not models.approve(id_of(TWO), BOB, {"bob"}, 3.0), "who may not approve does not count any more"
    assert models.approve(id_of(TWO), ANN, {"ann", "bob"}, 3.0) and models.path.read_bytes() == TWO


def test_what_was_turned_down_is_gone_and_the_model_in_use_stays(tmp_path: Path) -> None:
    models = prepared(tmp_path)
    models.reject(id_of(TWO), Author("ann", "learnt our *backup*"))
    assert (models.path.read_bytes(), models.waiting(), models.waiting_path.exists()) == (ONE, "", False)
    assert lines_of(tmp_path)[-1].endswith(rf"rejected {id_of(TWO)} · by ann: learnt our \*backup\*")
    models.note("turn down", "0" * 16, Author("", "missed loss"))
    models.note("turn down", "0" * 16, Author("", "missed loss"))
    assert [one.action for one in models.transitions()][-2:] == ["reject", "turn down"], "once"


def test_what_cannot_be_recorded_changes_nothing(tmp_path: Path) -> None:
    models = prepared(tmp_path)
    before = models.transitions()

    def away(*_: object) -> None:
        raise StoreError("cannot reach the database")

    tries: list[Callable[[], object]] = [
        lambda: models.deploy(b"four", 3.0, PROGRAM, away),
        lambda: models.approve(id_of(TWO), ANN, None, 3.0, away),
        lambda: models.take_back(ANN, away),
    ]
    for change in tries:
        with pytest.raises(StoreError):
            change()
        assert models.path.read_bytes() == ONE and models.transitions() == before
        assert [path.read_bytes() for path in models.earlier()] == [THREE]
        assert models.history()[0].model_id == id_of(ONE)
    with pytest.raises(StoreError):
        models.hold(b"four", PROGRAM, away)
    assert (models.waiting(), models.path.read_bytes()) == ("", ONE)
    assert [one.action for one in models.transitions()][-2:] == ["hold", "pass over"]
    first = folder_of(tmp_path / "new")
    with pytest.raises(StoreError):
        first.deploy(ONE, 1.0, PROGRAM, away)
    assert not first.path.exists() and first.history() == []


def test_a_damaged_file_that_waits_is_refused_and_one_before_rows_were_kept_has_a_history(tmp_path: Path) -> None:
    models = folder_of(tmp_path)
    models.folder.mkdir(parents=True)
    models.path.write_bytes(ONE)  # as a release before this one left it
    (only,) = models.history()
    assert (only.model_id, only.since, only.until) == (id_of(ONE), None, None)
    models.hold(b"damaged", PROGRAM)
    with pytest.raises(ModelError, match="damaged file"):
        models.approve(id_of(b"damaged"), ANN, None, 3.0)
    models.hold(TWO, PROGRAM)
    models.waiting_path.write_bytes(b"something else")
    assert models.waiting() == "", "only what the rows name waits"
    late = folder_of(tmp_path).lock("approve", 0.0)
    with models.lock("learn"), pytest.raises(BusyError, match="cannot approve: a cycle is under way"), late:
        pytest.fail("it is held")


def test_kinds_share_one_change_log_and_each_counts_by_itself(tmp_path: Path) -> None:
    terms = ReleaseTerms(changelog=tmp_path / "CHANGELOG.md")
    one, two = (LearntRegistry[bytes](kind, tmp_path / kind, load, terms) for kind in ("flow", "images"))
    for number, data in enumerate((ONE, TWO)):
        one.deploy(data, number, PROGRAM)
        two.deploy(data, number, PROGRAM)
    numbers = [line.removeprefix("- ").split(" · ")[0] for line in lines_of(tmp_path)]
    assert numbers == ["flow model 1", "image model 1", "flow model 2", "image model 2"]


@pytest.mark.parametrize("action", ["approve", "reject"])
def test_a_decision_about_what_is_on_trial_leaves_what_waits(tmp_path: Path, action: str) -> None:
    models, trial = prepared(tmp_path), b"on trial"
    if action == "approve":
        assert models.approve(id_of(trial), ANN, None, 3.0, trial=trial)
    else:
        models.reject(id_of(trial), ANN, trial=trial)
    assert models.path.read_bytes() == (trial if action == "approve" else ONE)
    assert models.waiting() == id_of(TWO) and models.approve(id_of(TWO), ANN, None, 4.0)
