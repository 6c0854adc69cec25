"""Model files: the champion, its backups, candidates; promote, roll back, restore, hot reload.

models/isolation_forest.npz                       the champion
models/backups/model_backup_YYYYMMDD_HHMMSS.npz   copies in time (UTC)
models/candidates/<model id>.npz                  trained, and what was champion before
models/registry.json                              history, states, decisions of people, and what is pinned
models/.lock                                      held while a retraining or a change by hand runs
models/.index.lock                                held for a moment, while registry.json changes
"""

from __future__ import annotations

import builtins
import copy
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from agents.core.errors import BusyError, ModelError, UsageError
from agents.core.files import holder, locked_within, write_atomic
from agents.core.protocols import ScoringModel
from agents.core.text import command, printable, utc

CHAMPION_FILE = "isolation_forest.npz"
HISTORY_MAX = 20
"""Steps that can be rolled back; older ones are forgotten, so that the files behind them can be pruned."""
DECISIONS_MAX = 200
"""Decisions of people that the index keeps, the newest."""
LOCK_WAIT_S = 2.0
"""A change waits so long for who holds the lock: maintenance and changes by hand take less, a retraining more."""
INDEX_WAIT_S = 10.0
"""The same for registry.json, which is held for a moment at a time."""
REASON_MAX = 300
"""Characters kept of a reason and of a name."""
_BACKUP = re.compile(r"model_backup_\d{8}_\d{6}(_\d{3})?\.npz")
_MODEL_ID = re.compile(r"[0-9a-f]{16}")
_EMPTY: dict[str, Any] = {"history": [], "states": {}, "champion": "", "decisions": [], "pin": None}
M = TypeVar("M", bound=ScoringModel)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Author:
    """Who decides, and why; both may be empty."""

    by: str = ""
    reason: str = ""

    def __str__(self) -> str:
        who = f"by {printable(self.by, REASON_MAX)}" if self.by else "by somebody"
        return f"{who} ({printable(self.reason, REASON_MAX)})" if self.reason else who


NOBODY = Author()


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person did with models. at: Unix seconds; replaced: the model in use before; note: what to know of it."""

    action: str  # approve, reject, roll back, restore, pin, unpin
    model_id: str
    at: float
    by: str = ""
    reason: str = ""
    replaced: str = ""
    note: str = ""


class ModelRegistry(Generic[M]):
    """The folder of models. `load` makes a model of bytes or raises ModelError, `baseline` is shipped."""

    def __init__(self, models_dir: Path, load: Callable[[bytes], M], baseline: bytes) -> None:
        self.models_dir = models_dir
        self.champion_path = models_dir / CHAMPION_FILE
        self.origin = self._in_use = ""
        self._load, self._baseline = load, baseline
        self._index_path = models_dir / "registry.json"
        self._seen: tuple[int, ...] | None = None

    def current(self) -> M:
        """The champion, or the shipped baseline where there is no usable one (`origin` tells which).

        Raises ModelError if the baseline cannot be used either.
        """
        stamp = self.stamp()
        try:
            model, origin = self._load(self.champion_path.read_bytes()), "champion"
        except FileNotFoundError:
            model, origin = self._load(self._baseline), "baseline"
        except (ModelError, OSError) as error:
            _log.error("champion_refused", path=str(self.champion_path), error=str(error))
            model, origin = self._load(self._baseline), "baseline"
        self.origin = origin
        if not self._in_use:  # only the first load counts for poll(): a retraining may share this registry
            self._seen, self._in_use = stamp, model.model_id
        return model

    def poll(self) -> M | None:
        """A new champion, once, if the file changed and loads; else None, and the old one stays in use."""
        stamp = self.stamp()
        if stamp is None or stamp == self._seen:
            return None
        self._seen = stamp
        try:
            model = self._load(self.champion_path.read_bytes())
        except (ModelError, OSError) as error:
            _log.error("champion_refused", path=str(self.champion_path), error=str(error))
            return None
        if model.model_id == self._in_use:
            return None
        self.origin, self._in_use = "champion", model.model_id
        return model

    def backup(self, now: float) -> Path:
        """Copy the model in use to backups/; never overwrites. Raises ModelError, OSError."""
        return self._backup(self.current().to_bytes(), now)

    def backups(self) -> Sequence[Path]:
        """All backups, oldest first."""
        found = (self.models_dir / "backups").glob("*.npz")
        return sorted((path for path in found if _BACKUP.fullmatch(path.name)), key=lambda path: path.stem)

    def prune(self, now: float, days: int) -> int:
        """Delete backups and forgotten candidates older than `days`, never the newest backup."""
        limit = now - days * 86400
        index = self._index()
        keep = {step["model_id"] for step in index["history"]} | {self.current().model_id, index["champion"]}
        keep |= {model_id for model_id, state in index["states"].items() if state == "waiting"}
        old = [path for path in self.backups()[:-1] if _taken(path) < limit]
        old += [p for p in self._candidates() if p.stem not in keep and p.stat().st_mtime < limit]
        for path in old:
            path.unlink(missing_ok=True)
        gone = {path.stem for path in old}
        if old:
            with self._changing() as index:
                index["states"] = {key: value for key, value in index["states"].items() if key not in gone}
        return len(old)

    def save_candidate(self, model: M) -> Path:
        """Keep a model under its id; one that is kept stays as old as it is. Raises OSError."""
        path, data = self._candidate_path(model.model_id), model.to_bytes()
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)
        return path

    def promote(self, model_id: str) -> M:
        """Make a kept model the champion, in one step; what it replaces is kept for `rollback`.

        Raises UsageError, ModelError, OSError.
        """
        model = self.get(model_id)
        old = self.current()
        if old.model_id != model_id:
            self.save_candidate(old)
            self._install(model, old.model_id)
        return model

    def rollback(self, author: Author = NOBODY) -> M:
        """Put back the model that was champion before. Raises UsageError, ModelError, BusyError, OSError.

        Where somebody has put another file in the champion's place since, that is the champion which was deployed.
        """
        with self.lock("roll back"):
            self._must_be_free("roll back")
            index, left = self._index(), self.current()
            note = self._strange(left)
            if not note and not index["history"]:
                raise UsageError(
                    "cannot roll back: no earlier model is known;"
                    f" {command('models list')} names backups, and `models restore FILE` puts one back"
                )
            model = self.get(index["champion"] if note else index["history"][-1]["model_id"])
            if self.origin == "champion":
                self.save_candidate(left)
            write_atomic(self.champion_path, model.to_bytes())
            with self._changing() as index:
                index["champion"] = model.model_id
                if not note:
                    index["history"] = index["history"][:-1]
                if self.origin == "champion" and left.model_id != model.model_id:
                    index["states"][left.model_id] = "rolled back"
            self._decide("roll back", model.model_id, author, left.model_id, note)
        _log.info("model_rolled_back", model_id=model.model_id)
        return model

    def restore(self, path: Path, check: Callable[[M], None], now: float | None = None, author: Author = NOBODY) -> M:
        """Make a file the champion if it loads and `check` (the caller's gates) does not raise.

        The champion is backed up first. Raises UsageError, ModelError, BusyError, OSError, and what `check` raises.
        """
        with self.lock(f"restore {path}"):
            self._must_be_free(f"restore {path}")
            left = self.current()
            note = self._strange(left)
            try:
                model = self._load(path.read_bytes())
            except OSError as error:
                raise UsageError(f"cannot read model {path}: {error.strerror}") from None
            if model.model_id == self.current().model_id:
                raise UsageError(f"cannot restore {path}: model {model.model_id} is the one in use")
            check(model)
            self.backup(time.time() if now is None else now)
            self.save_candidate(model)
            self.promote(model.model_id)
            self._decide("restore", model.model_id, author, left.model_id, note)
            return model

    def approve(self, model_id: str, author: Author = NOBODY) -> M:
        """Deploy a candidate that waits for a person. Raises UsageError, ModelError, BusyError, OSError."""
        with self.lock(f"approve model {model_id}"):
            self._must_wait(model_id, "approve")
            self._must_be_free(f"approve model {model_id}")
            left = self.current()
            note = self._strange(left)
            model = self.promote(model_id)
            if left.model_id == model_id:  # somebody has put its file in the champion's place
                self.mark(model_id, "deployed")
                note = "it was in use already: its file had been copied in by hand"
            self._decide("approve", model_id, author, left.model_id, note)
            return model

    def reject(self, model_id: str, author: Author = NOBODY) -> None:
        """Turn down a candidate that waits for a person. Raises UsageError, BusyError, OSError."""
        with self.lock(f"reject model {model_id}"):
            self._must_wait(model_id, "reject")
            self.mark(model_id, "rejected")
            self._decide("reject", model_id, author)

    def mark(self, model_id: str, state: str) -> None:
        """Note a candidate's state: waiting, rejected, deployed."""
        with self._changing() as index:
            index["states"][model_id] = state

    def pin(self, author: Author = NOBODY) -> str:
        """Keep the model in use: no retraining and no person replaces it until `unpin`. Returns its id.

        It may be done while a retraining runs. Raises UsageError, ModelError, BusyError, OSError.
        """
        model_id = self.current().model_id
        with self._changing() as index:
            if index["pin"]:
                raise UsageError(f"cannot pin model {model_id}: {self._pin_text(index['pin'])}")
            index["pin"] = {"model_id": model_id, "at": time.time(), "by": author.by, "reason": author.reason}
        self._decide("pin", model_id, author)
        return model_id

    def unpin(self, author: Author = NOBODY) -> str:
        """Let models be replaced again; returns the id of the one that was pinned. Raises as `pin` does."""
        with self._changing() as index:
            if not index["pin"]:
                raise UsageError("cannot unpin: no model is pinned")
            model_id = str(index["pin"]["model_id"])
            index["pin"] = None
        self._decide("unpin", model_id, author)
        return model_id

    def pinned(self) -> str:
        """Who pinned which model, and why, in one sentence; "" where none is pinned. Raises ModelError."""
        pin = self._index()["pin"]
        return self._pin_text(pin) if pin else ""

    def decisions(self) -> builtins.list[Decision]:
        """What people did, oldest first. Raises ModelError."""
        names = Decision.__dataclass_fields__
        return [Decision(**{key: row[key] for key in names if key in row}) for row in self._index()["decisions"]]

    def get(self, model_id: str) -> M:
        """A kept model by id. Raises UsageError if there is none, ModelError if it is damaged."""
        path = self._candidate_path(model_id)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise UsageError(f"cannot find model {model_id}: no file {path}") from None
        model = self._load(data)
        if model.model_id != model_id:
            raise ModelError(f"cannot use model {path}: its content is {model.model_id}")
        return model

    def list(self) -> builtins.list[dict[str, Any]]:
        """Every model file, the one in use first, then newest first.

        Keys: model_id, kind (current, candidate, backup), state, path, bytes, created (Unix seconds; of a backup, when
        it was taken), manifest. What was champion once is "replaced"; the champion's own copy among the candidates has
        no second row.
        """
        index = self._index()
        once = {step["model_id"] for step in index["history"]}
        once |= {model_id for model_id, state in index["states"].items() if state == "deployed"}
        states = index["states"] | dict.fromkeys(once, "replaced")
        in_use = [self._row(self.champion_path, "current", "champion")] if self.champion_path.is_file() else []
        kept = [path for path in self._candidates() if path.stem not in {row["model_id"] for row in in_use}]
        rows = [self._row(path, "candidate", states.get(path.stem, "candidate")) for path in kept]
        rows += [self._row(path, "backup", "backup") for path in self.backups()]
        return in_use + sorted(rows, key=lambda row: float(row["created"]), reverse=True)

    @contextmanager
    def lock(self, to: str = "retrain") -> Iterator[None]:
        """Keep other retrainings and changes by hand out; another has LOCK_WAIT_S to end.

        Raises BusyError; a dead holder holds nothing.
        """
        path = self.models_dir / ".lock"
        try:
            lock = locked_within(path, LOCK_WAIT_S)
        except BlockingIOError:
            pid = holder(path)
            raise BusyError(f"cannot {to}: a retraining or another change holds the lock (pid {pid})") from None
        with lock:
            yield

    def _install(self, model: M, old_id: str) -> None:
        # The history first: if the second write fails, a rollback leads to the model that is still in use.
        with self._changing() as index:
            before = {name: index[name] for name in ("history", "champion")} | {"states": dict(index["states"])}
            index["history"] = [*index["history"], {"model_id": old_id, "at": time.time()}][-HISTORY_MAX:]
            index["states"][model.model_id] = "deployed"
            index["champion"] = model.model_id
        try:
            write_atomic(self.champion_path, model.to_bytes())
        except OSError:
            with self._changing() as index:
                index |= before
            raise
        _log.info("model_promoted", model_id=model.model_id, replaced=old_id)

    def _backup(self, data: bytes, now: float) -> Path:
        folder = self.models_dir / "backups"
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"model_backup_{datetime.fromtimestamp(now, UTC):%Y%m%d_%H%M%S}"
        names = [f"{stem}.npz", *(f"{stem}_{number:03d}.npz" for number in range(1, 1000))]
        path = next(folder / name for name in names if not (folder / name).exists())
        write_atomic(path, data)
        return path

    def _must_wait(self, model_id: str, verb: str) -> None:
        path, state = self._candidate_path(model_id), self._index()["states"].get(model_id, "unknown")
        if state == "waiting":
            return
        again = f"`{command(f'models restore {path}')}` validates and deploys it" if path.is_file() else ""
        if state == "unknown" and not again:
            again = f"{command('models list')} names those that wait"
        if model_id == self.current().model_id:
            state, again = "the one in use", "there is nothing to decide"
        elif state == "deployed":
            state = "one that was deployed, and has been replaced"
        last = [one for one in self.decisions() if one.replaced == model_id and one.action == "roll back"]
        if state == "rolled back" and last:
            state += f" ({utc(last[-1].at)}, {Author(last[-1].by, last[-1].reason)})"
        raise UsageError(f"cannot {verb} model {model_id}: it is {state}, not waiting{again and f'; {again}'}")

    def _must_be_free(self, to: str) -> None:
        """Raise UsageError where a model is pinned."""
        if pinned := self.pinned():
            raise UsageError(f"cannot {to}: {pinned}")

    @staticmethod
    def _pin_text(pin: dict[str, Any]) -> str:
        by = Author(str(pin.get("by", "")), str(pin.get("reason", "")))
        return f"model {pin['model_id']} was pinned {by}; {command('models unpin')} lets it be replaced"

    def _strange(self, found: M) -> str:
        """What somebody did to the champion's file since it was deployed; "" where nothing is known of that."""
        deployed = self._index()["champion"]
        if not deployed or found.model_id == deployed:
            return ""
        if self.origin == "champion":
            kept = self._candidate_path(found.model_id)
            return f"model {found.model_id} had been copied in by hand, and is kept as {kept}"
        what = "was damaged" if self.champion_path.exists() else "had been removed"
        return f"the file of model {deployed} {what}, and the shipped model was in use"

    def _decide(self, action: str, model_id: str, author: Author, replaced: str = "", note: str = "") -> None:
        by, reason = author.by[:REASON_MAX], author.reason[:REASON_MAX]
        made = Decision(action, model_id, time.time(), by, reason, replaced, note)
        with self._changing() as index:
            index["decisions"] = [*index["decisions"], asdict(made)][-DECISIONS_MAX:]
        _log.info("model_decision", **{name: value for name, value in asdict(made).items() if name != "at"})

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """The index, which is written at the end. Raises ModelError, BusyError, OSError."""
        try:
            lock = locked_within(self.models_dir / ".index.lock", INDEX_WAIT_S)
        except BlockingIOError:
            raise BusyError(f"cannot change {self._index_path}: another process holds it") from None
        with lock:
            index = self._index()
            yield index
            self._write_index(index)

    def _candidate_path(self, model_id: str) -> Path:
        if not _MODEL_ID.fullmatch(model_id):
            raise UsageError(f"cannot use model id {model_id[:40]!r}: 16 hexadecimal digits are expected")
        return self.models_dir / "candidates" / f"{model_id}.npz"

    def _candidates(self) -> Sequence[Path]:
        return [path for path in (self.models_dir / "candidates").glob("*.npz") if _MODEL_ID.fullmatch(path.stem)]

    def _index(self) -> dict[str, Any]:
        try:
            found = json.loads(self._index_path.read_text("utf-8"))
        except FileNotFoundError:
            return copy.deepcopy(_EMPTY)
        except (ValueError, OSError) as error:
            raise self._bad_index(str(error)) from None
        index = copy.deepcopy(_EMPTY) | found if isinstance(found, dict) else {}
        if not _is_index(index):
            raise self._bad_index("it is no index of models")
        return index

    def _bad_index(self, why: str) -> ModelError:
        return ModelError(f"cannot read {self._index_path} (remove it to begin a new one): {why}")

    def _write_index(self, index: dict[str, Any]) -> None:
        write_atomic(self._index_path, json.dumps(index, indent=1).encode())

    def _row(self, path: Path, kind: str, state: str) -> dict[str, Any]:
        data = path.read_bytes()
        try:
            model = self._load(data)
            model_id, manifest = model.model_id, model.manifest
        except ModelError:
            model_id, manifest, state = hashlib.sha256(data).hexdigest()[:16], {}, "damaged"
        kept = self._candidate_path(model_id)  # as old as the model; the champion's file is as old as its deployment
        created = _taken(path) if kind == "backup" else (kept if kept.is_file() else path).stat().st_mtime
        row = {"model_id": model_id, "kind": kind, "state": state, "path": str(path), "bytes": len(data)}
        return row | {"created": created, "manifest": manifest}

    def stamp(self) -> tuple[int, ...] | None:
        """Changes with the champion file; None while there is none."""
        try:
            stat = self.champion_path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _is_index(index: dict[str, Any]) -> bool:
    history, states, decisions, pin = (index.get(name) for name in ("history", "states", "decisions", "pin"))
    if not isinstance(history, list) or not isinstance(states, dict) or not isinstance(decisions, list):
        return False
    if not all(isinstance(one, dict) and {"action", "model_id", "at"} <= one.keys() for one in decisions):
        return False
    if not isinstance(index.get("champion"), str) or (pin is not None and "model_id" not in pin):
        return False
    steps = all(isinstance(one, dict) and isinstance(one.get("model_id"), str) for one in history)
    return steps and all(isinstance(state, str) for state in states.values())


def _taken(path: Path) -> float:
    """When a backup was taken, by its name: a copy's file times lie."""
    try:
        return datetime.strptime(path.stem[13:28], "%Y%m%d_%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return path.stat().st_mtime
