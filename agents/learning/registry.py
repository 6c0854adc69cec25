"""Model files: the champion, its backups, candidates; promote, roll back, restore, hot reload.

models/isolation_forest.npz                       the champion
models/backups/model_backup_YYYYMMDD_HHMMSS.npz   copies in time (UTC)
models/candidates/<model id>.npz                  trained, and what was champion before
models/registry.json                              history and states
models/.lock                                      held while a retraining or a change by hand runs
"""

from __future__ import annotations

import builtins
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from agents.core.errors import BusyError, ModelError, UsageError
from agents.core.files import holder, locked, write_atomic
from agents.core.protocols import ScoringModel

CHAMPION_FILE = "isolation_forest.npz"
HISTORY_MAX = 20
"""Steps that can be rolled back; older ones are forgotten, so that the files behind them can be pruned."""
_BACKUP = re.compile(r"model_backup_\d{8}_\d{6}(_\d{3})?\.npz")
_MODEL_ID = re.compile(r"[0-9a-f]{16}")
M = TypeVar("M", bound=ScoringModel)
_log = structlog.get_logger()


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
        keep = {step["model_id"] for step in index["history"]} | {self.current().model_id}
        keep |= {model_id for model_id, state in index["states"].items() if state == "waiting"}
        old = [path for path in self.backups()[:-1] if _taken(path) < limit]
        old += [p for p in self._candidates() if p.stem not in keep and p.stat().st_mtime < limit]
        for path in old:
            path.unlink(missing_ok=True)
        gone = {path.stem for path in old}
        index["states"] = {key: value for key, value in index["states"].items() if key not in gone}
        if old:
            self._write_index(index)
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

    def rollback(self) -> M:
        """Put back the model that was champion before. Raises UsageError, ModelError, BusyError, OSError."""
        with self.lock("roll back"):
            history = self._index()["history"]
            if not history:
                raise UsageError("cannot roll back: no earlier model is known")
            model = self.get(history[-1]["model_id"])
            write_atomic(self.champion_path, model.to_bytes())
            index = self._index()
            index["history"] = history[:-1]
            self._write_index(index)
        _log.info("model_rolled_back", model_id=model.model_id)
        return model

    def restore(self, path: Path, check: Callable[[M], None], now: float | None = None) -> M:
        """Make a file the champion if it loads and `check` (the caller's gates) does not raise.

        The champion is backed up first. Raises UsageError, ModelError, BusyError, OSError, and what `check` raises.
        """
        with self.lock(f"restore {path}"):
            try:
                model = self._load(path.read_bytes())
            except OSError as error:
                raise UsageError(f"cannot read model {path}: {error.strerror}") from None
            if model.model_id == self.current().model_id:
                raise UsageError(f"cannot restore {path}: model {model.model_id} is the one in use")
            check(model)
            self.backup(time.time() if now is None else now)
            self.save_candidate(model)
            return self.promote(model.model_id)

    def approve(self, model_id: str) -> M:
        """Deploy a candidate that waits for a person. Raises UsageError, ModelError, BusyError, OSError."""
        with self.lock(f"approve model {model_id}"):
            self._must_wait(model_id, "approve")
            return self.promote(model_id)

    def reject(self, model_id: str) -> None:
        """Turn down a candidate that waits for a person. Raises UsageError, BusyError, OSError."""
        with self.lock(f"reject model {model_id}"):
            self._must_wait(model_id, "reject")
            self.mark(model_id, "rejected")

    def mark(self, model_id: str, state: str) -> None:
        """Note a candidate's state: waiting, rejected, deployed."""
        index = self._index()
        index["states"][model_id] = state
        self._write_index(index)

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
        """Keep other retrainings and changes by hand out. Raises BusyError; a dead holder holds nothing."""
        path = self.models_dir / ".lock"
        try:
            lock = locked(path)
        except BlockingIOError:
            pid = holder(path)
            raise BusyError(f"cannot {to}: a retraining or another change holds the lock (pid {pid})") from None
        with lock:
            yield

    def _install(self, model: M, old_id: str) -> None:
        index = self._index()
        index["history"] = [*index["history"], {"model_id": old_id, "at": time.time()}][-HISTORY_MAX:]
        index["states"][model.model_id] = "deployed"
        # The history first: if the second write fails, a rollback leads to the model that is still in use.
        before = self._index()
        self._write_index(index)
        try:
            write_atomic(self.champion_path, model.to_bytes())
        except OSError:
            self._write_index(before)
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
        state = self._index()["states"].get(model_id, "unknown")
        if state != "waiting":
            raise UsageError(f"cannot {verb} model {model_id}: it is {state}, not waiting")

    def _candidate_path(self, model_id: str) -> Path:
        if not _MODEL_ID.fullmatch(model_id):
            raise UsageError(f"cannot use model id {model_id[:40]!r}: 16 hexadecimal digits are expected")
        return self.models_dir / "candidates" / f"{model_id}.npz"

    def _candidates(self) -> Sequence[Path]:
        return [path for path in (self.models_dir / "candidates").glob("*.npz") if _MODEL_ID.fullmatch(path.stem)]

    def _index(self) -> dict[str, Any]:
        try:
            index: dict[str, Any] = {"history": [], "states": {}} | json.loads(self._index_path.read_text("utf-8"))
            if not isinstance(index["states"], dict) or not all(str(one["model_id"]) for one in index["history"]):
                raise ValueError("it is no index of models")
        except FileNotFoundError:
            return {"history": [], "states": {}}
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ModelError(f"cannot read {self._index_path} (remove it to begin a new one): {error}") from None
        return index

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


def _taken(path: Path) -> float:
    """When a backup was taken, by its name: a copy's file times lie."""
    try:
        return datetime.strptime(path.stem[13:28], "%Y%m%d_%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return path.stat().st_mtime
