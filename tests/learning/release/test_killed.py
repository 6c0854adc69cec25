"""kill -9 between any two writes of a change of the champion: one champion, rows that say so, and a next change."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agents.core.errors import ModelError
from agents.core.types import DAY_S
from agents.learning.registry import ModelRegistry
from agents.learning.release.transitions import Author
from tests.support.fake_model import BASELINE, FakeModel, registry

ONE, TWO = FakeModel("one"), FakeModel("two")


def changes(models: ModelRegistry[FakeModel], backup: Path) -> dict[str, Callable[[], object]]:
    """Each change of a model, by its name."""
    return {
        "promote": lambda: models.promote(TWO.model_id, Author("the retraining", "run 1")),
        "approve": lambda: models.approve(TWO.model_id, Author("ann", "looks well")),
        "rollback": lambda: models.rollback(Author("ann", "found nothing")),
        "reject": lambda: models.reject(TWO.model_id, Author("ann", "no")),
        "restore": lambda: models.restore(backup, lambda model: None),
    }


def prepared(folder: Path) -> ModelRegistry[FakeModel]:
    models = registry(folder)
    models.save_candidate(ONE)
    models.promote(ONE.model_id)
    models.save_candidate(TWO)
    models.mark(TWO.model_id, "waiting", Author("the retraining", "run 1"))
    return models


def killed(folder: Path, action: str, number: int, when: str) -> bool:
    """Whether the change was killed at its write of that number; else it came to its end."""
    backup = folder / "two.npz"
    backup.write_bytes(TWO.to_bytes())
    child = os.fork()
    if not child:
        _die_at(number, when)
        changes(registry(folder), backup)[action]()
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def _die_at(wanted: int, when: str) -> None:
    """From now on, this process is killed before or after its write of that number: each ends in a rename."""
    real, seen = Path.replace, count(1)

    def replace(self: Path, target: Path) -> Path:
        number = next(seen)
        if number == wanted and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        out = real(self, target)
        if number == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
        return out

    Path.replace = replace  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("action", ["promote", "approve", "rollback", "reject", "restore"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_change_that_is_killed_leaves_one_champion_and_rows_that_say_so(
    tmp_path: Path, action: str, when: str
) -> None:
    numbers, champions = 0, set()
    for number in range(1, 20):
        folder = tmp_path / str(number)
        prepared(folder)
        if not killed(folder, action, number, when):
            break
        numbers += 1
        models = registry(folder)
        found = models.current()
        champions.add(found.name)
        assert found in (ONE, TWO, BASELINE)
        assert models.origin == "champion", "its file is whole"
        assert models.aliases()["champion"] == found.model_id
        assert models.history()[0].model_id == found.model_id, "the rows say what is in use"
        assert models.history()[0].how != "found in the champion's place"
        assert [row["state"] for row in models.list()].count("champion") == 1
        assert models.transitions()[-1].model_id in (found.model_id, TWO.model_id)
        models.save_candidate(FakeModel("three"))
        models.promote(FakeModel("three").model_id)
        assert models.rollback() == found, "the next change is clean"
        lines = (models.models_dir / "CHANGELOG.md").read_text().splitlines()[4:]
        told = [int(line.split()[1]) for line in lines]
        assert told == list(range(1, len(models.transitions()) + 1)), "each transition has one line, in order"
    assert numbers >= 2, "it was killed at each write"
    if action != "reject":
        assert len(champions) == 2, "before its file is replaced, and after"


def test_a_full_disk_at_any_write_of_a_promotion_changes_nothing_or_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agents.learning import registry as module
    from agents.learning.release import index

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    models = prepared(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_atomic", full)
        with pytest.raises(OSError, match="No space"):
            models.promote(TWO.model_id)
    assert (models.current(), models.history()[0].model_id) == (ONE, ONE.model_id)
    assert models.aliases()["candidate"] == TWO.model_id, "it still waits"
    with monkeypatch.context() as patched:
        patched.setattr(index, "write_atomic", full)
        with pytest.raises(OSError, match="No space"):
            models.promote(TWO.model_id)
    assert models.current() == ONE
    models.approve(TWO.model_id)
    assert models.history()[0].model_id == TWO.model_id


def test_a_change_log_that_cannot_be_written_keeps_no_model_from_its_place(tmp_path: Path) -> None:
    models = prepared(tmp_path)
    log = models.models_dir / "CHANGELOG.md"
    kept = log.read_text()
    log.unlink()
    log.mkdir()
    models.approve(TWO.model_id)
    assert models.current() == TWO
    log.rmdir()
    log.write_text(kept)
    models.rollback()
    assert [line.split()[1] for line in log.read_text().splitlines()[4:]] == ["1", "2", "3", "4"], "it caught up"


def test_a_move_in_the_index_that_is_no_move_is_named(tmp_path: Path) -> None:
    models = prepared(tmp_path)
    path = models.models_dir / "registry.json"
    index = json.loads(path.read_text())
    damages: list[dict[str, Any]] = [
        {"move": 7},
        {"move": {}},
        {"canary": []},
        {"transitions": {}},
        {"transitions": [{"action": "x"}]},
    ]
    for broken in damages:
        path.write_text(json.dumps(index | broken))
        with pytest.raises(ModelError, match=r"registry\.json \(remove it"):
            models.transitions()


def test_no_write_is_left_half_done(tmp_path: Path) -> None:
    prepared(tmp_path)
    killed(tmp_path, "promote", 1, "before")
    models = registry(tmp_path)
    models.approve(TWO.model_id)
    assert len(list(models.models_dir.rglob(".*.part"))) == 1
    models.prune(time.time() + 2 * DAY_S, 30)
    assert not list(models.models_dir.rglob(".*.part"))
    assert models.current() == TWO
