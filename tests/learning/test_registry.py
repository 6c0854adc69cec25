from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.core.errors import AgentsError, BusyError, ModelError, UsageError
from agents.learning.registry import ModelRegistry
from agents.learning.release.transitions import Author
from tests.support.fake_model import BASELINE, NOW, FakeModel, load, registry

DAY = 86400.0


def deploy(folder: Path, *names: str) -> ModelRegistry[FakeModel]:
    models = registry(folder)
    for name in names:
        models.save_candidate(FakeModel(name))
        models.promote(FakeModel(name).model_id)
    return models


def test_without_a_champion_the_baseline_is_used(tmp_path: Path) -> None:
    models = registry(tmp_path)
    assert models.current() == BASELINE
    assert models.origin == "baseline"


def test_a_damaged_champion_gives_way_to_the_baseline(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    models.champion_path.write_bytes(b"broken")
    assert models.current() == BASELINE
    assert models.origin == "baseline"


def test_a_damaged_baseline_too_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        ModelRegistry(tmp_path, load, b"broken").current()


def test_promotion_is_seen_once_by_a_running_reader(tmp_path: Path) -> None:
    reader = registry(tmp_path)
    reader.current()
    assert reader.poll() is None
    deploy(tmp_path, "one")
    assert reader.poll() == FakeModel("one")
    assert reader.poll() is None


def test_a_reader_that_shares_its_registry_with_a_retraining_sees_the_promotion(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    models.current()
    models.save_candidate(FakeModel("two"))
    models.promote(FakeModel("two").model_id)
    models.current()
    assert models.poll() == FakeModel("two")


def test_a_damaged_file_is_refused_and_a_good_one_after_it_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = deploy(tmp_path, "one")
    reader = registry(tmp_path)
    reader.current()
    models.champion_path.write_bytes(FakeModel("two").to_bytes()[:7])
    assert [reader.poll() for _ in range(3)] == [None, None, None]
    assert capsys.readouterr().out.count("champion_refused") == 1
    models.champion_path.write_bytes(FakeModel("two").to_bytes())
    assert reader.poll() == FakeModel("two")


def test_a_vanished_file_changes_nothing_for_a_reader(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    models.current()
    models.champion_path.unlink()
    assert models.poll() is None


def test_backups_never_overwrite_and_stay_sorted(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    first, second = models.backup(NOW), models.backup(NOW)
    third = models.backup(NOW + 1)
    assert first.name == "model_backup_20251120_021320.npz"
    assert models.backups() == [first, second, third]
    assert first.read_bytes() == second.read_bytes() == models.champion_path.read_bytes()


def test_pruning_keeps_the_newest_backup_however_old(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    old, older = models.backup(NOW), models.backup(NOW - DAY)
    assert models.prune(NOW + 400 * DAY, 30) == 1
    assert models.backups() == [old]
    assert not older.exists()


def test_pruning_forgets_old_candidates_but_not_those_that_a_rollback_needs(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one", "two")
    forgotten, waits = models.save_candidate(FakeModel("x")), models.save_candidate(FakeModel("y"))
    models.mark(waits.stem, "waiting")
    for path in forgotten.parent.iterdir():
        os.utime(path, (NOW, NOW))
    models.prune(NOW + 31 * DAY, 30)
    assert not forgotten.exists()
    assert waits.exists()
    assert models.rollback() == FakeModel("one")


def test_rollback_goes_back_step_by_step_to_the_baseline(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one", "two")
    names = [models.rollback().name, models.rollback().name]
    assert names == ["one", "baseline"]
    assert models.champion_path.read_bytes() == BASELINE.to_bytes()
    with pytest.raises(UsageError, match="cannot roll back"):
        models.rollback()


def test_promoting_an_unknown_or_damaged_candidate_leaves_the_champion(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    path = models.save_candidate(FakeModel("two"))
    path.write_bytes(FakeModel("three").to_bytes())
    for bad in (path.stem, "0" * 16, "../../etc/passwd"):
        with pytest.raises(AgentsError):
            models.promote(bad)
    assert models.current() == FakeModel("one")


@pytest.mark.slow
def test_a_full_disk_during_promotion_leaves_the_champion_byte_for_byte(tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    big = FakeModel("x" * 300_000)
    registry(tmp_path).save_candidate(big)
    program = (
        "import resource, sys; from pathlib import Path; from tests.support.fake_model import registry\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: registry(Path(sys.argv[1])).promote(sys.argv[2])\n"
        "except OSError: sys.exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path), big.model_id], check=False)
    assert done.returncode == 9
    models = registry(tmp_path)
    assert models.champion_path.read_bytes() == FakeModel("one").to_bytes()
    assert [path for path in models.models_dir.rglob("*") if path.name.endswith(".part")] == []
    assert models.rollback() == BASELINE


def test_restore_validates_first_and_backs_up_the_champion(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one", "two")
    backup = tmp_path / "model_backup_20251120_021320.npz"
    backup.write_bytes(FakeModel("one").to_bytes())

    def refuse(model: FakeModel) -> None:
        raise ModelError("cannot restore: gate missed")

    with pytest.raises(ModelError, match="gate missed"):
        models.restore(backup, refuse, NOW)
    assert models.current() == FakeModel("two")
    assert models.restore(backup, lambda model: None, NOW) == FakeModel("one")
    assert models.current() == FakeModel("one")
    assert [load(path.read_bytes()).name for path in models.backups()] == ["two"]
    assert models.rollback() == FakeModel("two")


def test_restoring_what_is_no_model_changes_nothing(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04")
    for path in (broken, tmp_path / "missing.npz"):
        with pytest.raises(AgentsError):
            models.restore(path, lambda model: None, NOW)
    assert models.current() == FakeModel("one")
    assert models.backups() == []


def test_only_a_waiting_candidate_can_be_approved_or_rejected(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    model_id = models.save_candidate(FakeModel("two")).stem
    for action in (models.approve, models.reject):
        with pytest.raises(UsageError, match="not waiting"):
            action(model_id)
    models.mark(model_id, "waiting")
    assert models.approve(model_id) == FakeModel("two")
    assert models.current() == FakeModel("two")
    with pytest.raises(UsageError, match="the one in use"):
        models.reject(model_id)


def test_a_model_is_as_old_as_it_is_whatever_is_done_with_it(tmp_path: Path) -> None:
    models, made = deploy(tmp_path, "one", "two"), {}
    for at, path in enumerate(sorted((models.models_dir / "candidates").iterdir())):
        made[path.stem] = NOW + at
        os.utime(path, (NOW + at, NOW + at))
    assert len(made) == 3
    changes: list[Callable[[], object]] = [models.rollback, lambda: models.promote(FakeModel("two").model_id)]
    for change in (*changes, models.rollback):
        change()
        assert {row["model_id"]: row["created"] for row in models.list()} == made


def test_list_names_every_file_with_its_state(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    models.backup(NOW)
    waiting = models.save_candidate(FakeModel("two")).stem
    models.mark(waiting, "waiting")
    models.save_candidate(FakeModel("three")).write_bytes(b"broken")
    rows = models.list()
    one = FakeModel("one").model_id
    assert (rows[0]["kind"], rows[0]["model_id"]) == ("current", one)
    assert rows[0]["manifest"]["name"] == "one"
    found = {(row["model_id"], row["kind"], row["state"]) for row in rows}
    assert {(one, "backup", "backup"), (waiting, "candidate", "waiting")} <= found
    assert (BASELINE.model_id, "candidate", "replaced") in found
    assert [row["kind"] for row in rows if row["model_id"] == one] == ["current", "backup"]
    assert [row["manifest"] for row in rows if row["state"] == "damaged"] == [{}]
    created = [row["created"] for row in rows[1:]]
    assert created == sorted(created, reverse=True)


def test_models_that_were_champion_once_are_listed_as_replaced(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one", "two")
    one, two = FakeModel("one").model_id, FakeModel("two").model_id
    assert {row["model_id"]: row["state"] for row in models.list()} == {
        two: "champion",
        one: "replaced",
        BASELINE.model_id: "replaced",
    }
    models.rollback()
    states = {row["model_id"]: row["state"] for row in models.list()}
    assert (states[one], states[two]) == ("champion", "rolled back")


def test_a_change_by_hand_says_what_the_lock_kept_from_it(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    one, path = FakeModel("one").model_id, models.champion_path
    changes: dict[str, Callable[[], object]] = {
        "roll back": models.rollback,
        f"approve model {one}": lambda: models.approve(one),
        f"reject model {one}": lambda: models.reject(one),
        f"restore {path}": lambda: models.restore(path, lambda model: None),
    }
    with registry(tmp_path).lock():
        for to, change in changes.items():
            with pytest.raises(BusyError, match=f"cannot {to}: a retraining"):
                change()


def test_the_model_in_use_is_not_restored_and_nothing_is_written(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    files = models.champion_path, models.backup(NOW)
    with models.lock():  # whose file is there from now on
        before = sorted(tmp_path.rglob("*"))
    for path in files:
        with pytest.raises(UsageError, match=f"cannot restore {path}: model {FakeModel('one').model_id} is the one in"):
            models.restore(path, lambda model: None)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_lock_keeps_others_out_and_names_its_holder(tmp_path: Path) -> None:
    models = registry(tmp_path)
    with models.lock(), pytest.raises(BusyError, match=f"pid {os.getpid()}"), registry(tmp_path).lock():
        raise AssertionError("two held the lock")
    with models.lock():
        assert (tmp_path / "models" / ".lock").read_text() == str(os.getpid())


@pytest.mark.slow
def test_a_killed_holder_leaves_no_lock_behind(tmp_path: Path) -> None:
    program = (
        "import sys, os, signal; from pathlib import Path; from tests.support.fake_model import registry\n"
        "with registry(Path(sys.argv[1])).lock(): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    with registry(tmp_path).lock():
        assert (tmp_path / "models" / ".lock").exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '{"history": 5}', '{"history": [5]}', '{"history": [{}]}', '{"states": 7}', "\0"],
)
def test_a_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    models = deploy(tmp_path, "one")
    (models.models_dir / "registry.json").write_text(text)
    for attempt in (models.rollback, models.list):
        with pytest.raises(ModelError, match=r"registry\.json \(remove it to begin a new one\)"):
            attempt()


ANN = Author("ann", "it found nothing")


def copy_in(models: ModelRegistry[FakeModel], name: str) -> FakeModel:
    """What an operator does with cp."""
    model = FakeModel(name)
    models.champion_path.write_bytes(model.to_bytes())
    return model


def test_a_roll_back_after_a_copied_in_file_leads_to_the_model_that_was_deployed(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one", "two")
    copied = copy_in(models, "copied")
    assert models.rollback(ANN) == FakeModel("two")
    made = models.decisions()[-1]
    assert (made.action, made.replaced, made.by, made.reason) == (
        "roll back",
        copied.model_id,
        "ann",
        "it found nothing",
    )
    assert "had been copied in by hand, and is kept as" in made.note
    assert models.get(copied.model_id) == copied, "it is not lost"
    assert models.rollback() == FakeModel("one"), "no step was used up"


@pytest.mark.parametrize(("damage", "said"), [(b"broken", "was damaged"), (None, "had been removed")])
def test_a_roll_back_mends_a_champion_that_was_damaged_or_removed(
    tmp_path: Path, damage: bytes | None, said: str
) -> None:
    models = deploy(tmp_path, "one")
    if damage is None:
        models.champion_path.unlink()
    else:
        models.champion_path.write_bytes(damage)
    assert models.rollback() == FakeModel("one")
    assert said in models.decisions()[-1].note


def test_an_approval_over_a_copied_in_file_says_so_and_can_be_undone(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    waiting = wait(models, "two")
    copied = copy_in(models, "copied")
    assert models.approve(waiting, ANN) == FakeModel("two")
    assert copied.model_id in models.decisions()[-1].note
    assert models.rollback() == copied


def test_an_approval_of_what_was_copied_in_deploys_it(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    waiting = wait(models, "two")
    copy_in(models, "two")
    models.approve(waiting)
    assert "was in use already" in models.decisions()[-1].note
    assert models.list()[0]["model_id"] == waiting
    assert "waiting" not in {row["state"] for row in models.list()}


def wait(models: ModelRegistry[FakeModel], name: str) -> str:
    waiting = models.save_candidate(FakeModel(name)).stem
    models.mark(waiting, "waiting")
    return waiting


def test_what_waits_no_more_is_told_with_who_and_why_and_a_way_on(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one")
    two, three = wait(models, "two"), wait(models, "three")
    models.approve(two)
    with pytest.raises(UsageError, match="it is the one in use, not waiting; there is nothing to decide"):
        models.approve(two)
    models.rollback(ANN)
    again = rf"it is rolled back \(.* UTC, by ann \(it found nothing\)\), not waiting; `.*models restore .*{two}\.npz`"
    with pytest.raises(UsageError, match=again):
        models.approve(two)
    models.reject(three, ANN)
    with pytest.raises(UsageError, match=r"it is rejected, not waiting; `.*models restore"):
        models.approve(three)
    with pytest.raises(UsageError, match=r"it is unknown, not waiting; .*models list"):
        models.approve("0" * 16)
    assert [one.action for one in models.decisions()] == ["approve", "roll back", "reject"]


def test_a_pinned_model_stays_until_it_is_unpinned_by_whoever(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one", "two")
    waiting, path = wait(models, "three"), models.backup(NOW)
    assert models.pinned() == ""
    with models.lock():  # a retraining is under way
        assert models.pin(Author("ann", "audit\x1b")) == FakeModel("two").model_id
    said = r"model \w{16} was pinned by ann \(audit\\027\); .*models unpin"
    for change in (models.rollback, lambda: models.approve(waiting), lambda: models.restore(path, print), models.pin):
        with pytest.raises(UsageError, match=said):
            change()
    models.unpin(ANN)
    assert models.approve(waiting) == FakeModel("three")
    with pytest.raises(UsageError, match="no model is pinned"):
        models.unpin()


def test_an_index_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    models = deploy(tmp_path, "one", "two")
    index = json.loads((models.models_dir / "registry.json").read_text())
    old = {name: index[name] for name in ("history", "states")}
    (models.models_dir / "registry.json").write_text(json.dumps(old))
    assert models.rollback() == FakeModel("one")
    assert models.decisions()[-1].note == ""
