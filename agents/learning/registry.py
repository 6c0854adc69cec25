"""Model files: the champion, its backups, versions; promote, roll back, restore, roll out, hot reload.

models/isolation_forest.npz                       the champion, of whatever detector type
models/backups/model_backup_YYYYMMDD_HHMMSS.npz   copies in time (UTC)
models/candidates/<model id>.npz                  every version, named after its content, and its lineage (.json)
models/profiles/<sha256>.json                     network profiles, each named by the manifest of its model
models/registry.json                              history, states, aliases, transitions, and what is pinned
models/CHANGELOG.md                               a line for each transition
models/.lock                                      held while a retraining or a change by hand runs
models/.index.lock                                held for a moment, while registry.json changes
"""

from __future__ import annotations

import builtins
import hashlib
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from agents.core.errors import BusyError, ModelError, UsageError
from agents.core.files import holder, locked_within, write_atomic
from agents.core.protocols import ScoringModel
from agents.core.text import command, printable, utc
from agents.core.types import DAY_S
from agents.detection.explanations.network_profile import NetworkProfile
from agents.learning.release.approvals import close_row, note_approval, transition_now
from agents.learning.release.index import RegistryIndex, add_row
from agents.learning.release.lineage import lineage_path, note_lineage, read_lineage
from agents.learning.release.profiles import ProfileFolder, profile_digest
from agents.learning.release.transitions import (
    NOBODY,
    Author,
    Period,
    Transition,
    periods,
    transition_of,
)

CHAMPION_FILE = "isolation_forest.npz"
HISTORY_MAX = 20
"""Steps that can be rolled back; older ones are forgotten, so that the files behind them can be pruned."""
LOCK_WAIT_S = 2.0
"""A change waits so long for who holds the lock: maintenance and changes by hand take less, a retraining more."""
SHIPPED = "shipped"
"""What the model of the package is called where a version is named."""
ORIGIN_REPORT = ".origin.html"
"""How the report that came with a staged candidate ends."""
ALIASES = ("champion", "candidate", "canary", "anchor")
"""Names that lead to a version: in production, waiting for a decision, judging a share, and fixed for comparison."""
_OPEN_STATES = ("waiting", "canary")
"""States of versions that somebody, or a canary's end, still decides about."""
_ACTIONS = {"waiting": "hold", "rejected": "turn down"}
"""Transition of a version that a retraining puts into this state."""
_BACKUP = re.compile(r"model_backup_\d{8}_\d{6}(_\d{3})?\.npz")
_MODEL_ID = re.compile(r"[0-9a-f]{16}")
M = TypeVar("M", bound=ScoringModel)
_log = structlog.get_logger()


class ModelRegistry(Generic[M]):
    """The folder of models. `load` makes a model of bytes or raises ModelError, `baseline` is shipped.

    approvals: so many authors must approve a candidate before it is deployed by hand. secret: FLEET_SECRET.
    """

    def __init__(
        self, models_dir: Path, load: Callable[[bytes], M], baseline: bytes, approvals: int = 1, secret: str = ""
    ) -> None:
        self.models_dir = models_dir
        self.champion_path = models_dir / CHAMPION_FILE
        self.origin = self._in_use = ""
        self._load, self._baseline, self._approvals = load, baseline, approvals
        self._rows = RegistryIndex(models_dir, self.champion_path)
        self._profiles = ProfileFolder(models_dir / "profiles", secret)
        self._seen: tuple[int, ...] | None = None
        self._canary_seen: tuple[int, ...] | None = None
        self._canary_row: dict[str, Any] | None = None

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
        self._rows.catch_up()
        index = self._rows.read()
        keep = {step["model_id"] for step in index["history"]} | {self.current().model_id, index["champion"]}
        keep |= {model_id for model_id, state in index["states"].items() if state in _OPEN_STATES}
        keep |= set(index["aliases"].values())
        old = [path for path in self.backups()[:-1] if _taken(path) < limit]
        old += [p for p in self._candidates() if p.stem not in keep and p.stat().st_mtime < limit]
        for part in self.models_dir.rglob(".*.part"):  # of a process that was killed while it wrote
            if part.stat().st_mtime < now - DAY_S:
                part.unlink(missing_ok=True)
        for path in old:
            path.unlink(missing_ok=True)
            for beside in (lineage_path(path), path.with_suffix(ORIGIN_REPORT)):
                beside.unlink(missing_ok=True)
        gone = {path.stem for path in old}
        if old:
            with self._rows.changing() as index:
                index["states"] = {key: value for key, value in index["states"].items() if key not in gone}
            self._profiles.prune({profile_digest(row["manifest"]) for row in self.list()}, limit)
        return len(old)

    def save_profile(self, profile: NetworkProfile) -> None:
        """Keep a network profile for the model whose manifest names it. Raises OSError."""
        self._profiles.save(profile)

    def profile_of(self, model: ScoringModel) -> NetworkProfile | None:
        """The network profile that was made with a model; None where there is none, or none that can be used."""
        return self._profiles.of(model.manifest)

    def save_candidate(self, model: M) -> Path:
        """Keep a model under its id; one that is kept stays as old as it is. Raises OSError."""
        path, data = self._candidate_path(model.model_id), model.to_bytes()
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)
        return path

    def promote(self, model_id: str, author: Author = NOBODY) -> M:
        """Make a kept model the champion, in one step; what it replaces is kept for `rollback`.

        Raises UsageError, ModelError, BusyError, OSError.
        """
        model, left = self.get(model_id), self.current()
        if left.model_id != model_id:
            self._deploy(model, left, transition_now("deploy", model_id, author, by_person=False))
        return model

    def rollback(self, author: Author = NOBODY) -> M:
        """Put back the model that was champion before. Raises UsageError, ModelError, BusyError, OSError.

        Where somebody has put another file in the champion's place since, that is the champion which was deployed.
        """
        with self.lock("roll back"):
            self._must_be_free("roll back")
            index, left = self._rows.read(), self.current()
            note = self._strange(left)
            if not note and not index["history"]:
                raise UsageError(
                    "cannot roll back: no earlier model is known;"
                    f" {command('models list')} names backups, and `models restore FILE` puts one back"
                )
            model = self.get(index["champion"] if note else index["history"][-1]["model_id"])
            deployed = self.origin == "champion"
            if deployed:
                self.save_candidate(left)
            states = {left.model_id: "rolled back"} if deployed and left.model_id != model.model_id else {}
            history = index["history"] if note else index["history"][:-1]
            row = transition_now("roll back", model.model_id, author, left.model_id, note)
            self._move(model, history, states, row)
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
            self._must_be_approved(model.model_id, f"restore {path}")
            self.backup(time.time() if now is None else now)
            self.save_candidate(model)
            self._deploy(model, left, transition_now("restore", model.model_id, author, left.model_id, note))
            return model

    @property
    def authors_needed(self) -> int:
        """So many authors must approve a candidate (APPROVALS)."""
        return self._approvals

    def approve(self, model_id: str, author: Author = NOBODY, voters: Collection[str] | None = None) -> M | None:
        """Deploy a candidate that waits for a person; None where another author has to approve it first, too.

        voters: whose approvals count, those given before among them; None = everybody's. Raises UsageError, ModelError,
        BusyError, OSError.
        """
        with self.lock(f"approve model {model_id}"):
            self._must_wait(model_id, "approve")
            self._must_be_free(f"approve model {model_id}")
            if note_approval(self._rows, self._approvals, model_id, author, voters) < self._approvals:
                return None
            left, model = self.current(), self.get(model_id)
            row = transition_now("approve", model_id, author, left.model_id, self._strange(left))
            if left.model_id == model_id:  # somebody has put its file in the champion's place
                with self._rows.changing() as index:
                    index["states"][model_id] = "deployed"
                    index["champion"] = model_id
                    close_row(index, model_id)
                    note = "it was in use already: its file had been copied in by hand"
                    add_row(index, transition_of(row.to_json() | {"note": note}))
            else:
                self._deploy(model, left, row)
            return model

    def reject(self, model_id: str, author: Author = NOBODY) -> None:
        """Turn down a candidate that waits for a person. Raises UsageError, BusyError, OSError."""
        with self.lock(f"reject model {model_id}"):
            self._must_wait(model_id, "reject")
            with self._rows.changing() as index:
                index["states"][model_id] = "rejected"
                close_row(index, model_id)
                add_row(index, transition_now("reject", model_id, author))

    def mark(self, model_id: str, state: str, author: Author = NOBODY) -> None:
        """Note what a retraining did with a candidate: waiting, rejected, deployed."""
        with self._rows.changing() as index:
            index["states"][model_id] = state
            if state == "waiting":
                index["aliases"]["candidate"] = model_id
            else:
                close_row(index, model_id)
            if state in _ACTIONS:
                add_row(index, transition_now(_ACTIONS[state], model_id, author, by_person=False))

    def canary(self) -> dict[str, Any] | None:
        """The canary that runs: model_id, champion, begun_at (Unix seconds), terms; None if none does.

        To be asked every second; a file that has not changed is not read again. Raises ModelError.
        """
        stamp = self._rows.stamp()
        if stamp is None or stamp != self._canary_seen:
            self._canary_row, self._canary_seen = self._rows.read()["canary"], stamp
        return self._canary_row

    def begin_canary(
        self, model_id: str, terms: Mapping[str, Any], now: float, author: Author = NOBODY, by_person: bool = True
    ) -> None:
        """Let a kept version judge as a canary; terms: JSON. Raises UsageError, ModelError, BusyError, OSError."""
        self.get(model_id)
        left = self.current().model_id
        with self._rows.changing() as index:
            if index["canary"]:
                raise UsageError(f"cannot begin a canary: model {index['canary']['model_id']} is one already")
            if model_id == left:
                raise UsageError(f"cannot begin a canary: model {model_id} is the one in use")
            index["canary"] = {"model_id": model_id, "champion": left, "begun_at": now, "terms": dict(terms)}
            index["states"][model_id] = "canary"
            index["aliases"] |= {"canary": model_id, "candidate": model_id}
            add_row(index, transition_now("begin canary", model_id, author, by_person=by_person))

    def start_canary(self, model_id: str, terms: Mapping[str, Any], now: float, author: Author = NOBODY) -> None:
        """As `begin_canary`, for a person: of a candidate that waits. Raises UsageError and as that does."""
        with self.lock(f"begin a canary of model {model_id}"):
            self._must_wait(model_id, "begin a canary of")
            self._must_be_free(f"begin a canary of model {model_id}")
            self.begin_canary(model_id, terms, now, author)

    def restart_canary(self, now: float) -> None:
        """Let the time of the canary begin anew. Raises ModelError, BusyError, OSError."""
        with self._rows.changing() as index:
            if index["canary"]:
                index["canary"]["begun_at"] = now

    def end_canary(self, promote: bool, author: Author, now: float) -> Transition:
        """Make the canary the champion, or turn it down, as its rules say; what was done.

        Raises UsageError, ModelError, BusyError, OSError.
        """
        with self.lock("end a canary"):
            row = self._rows.read()["canary"]
            if row is None:
                raise UsageError("cannot end a canary: none runs")
            model_id, left = str(row["model_id"]), self.current()
            if promote:
                self._must_be_free(f"promote canary {model_id}")
                made = transition_now("promote canary", model_id, author, left.model_id, by_person=False)
                self._deploy(self.get(model_id), left, made)
            else:
                with self._rows.changing() as index:
                    index["states"][model_id] = "stopped canary"
                    close_row(index, model_id)
                    add_row(index, transition_now("stop canary", model_id, author, by_person=False))
            done = "promote canary" if promote else "stop canary"
            return next(one for one in reversed(self.transitions()) if (one.action, one.model_id) == (done, model_id))

    def record(self, action: str, model_id: str, author: Author = NOBODY, note: str = "") -> Transition:
        """Note what somebody did with a version that changes nothing of it. Raises ModelError, BusyError, OSError."""
        with self._rows.changing() as index:
            made = transition_now(action, model_id, author, note=note)
            add_row(index, made)
            return transition_of(index["transitions"][-1])

    def set_anchor(self, model_id: str, author: Author = NOBODY) -> None:
        """Compare candidates with this version from now on. Raises UsageError, ModelError, BusyError, OSError."""
        model = self.find(model_id)
        self.save_candidate(model)  # a shipped one, or a backup, is kept as long as it is the anchor
        with self._rows.changing() as index:
            index["aliases"]["anchor"] = model.model_id
            add_row(index, transition_now("anchor", model.model_id, author))

    def pin(self, author: Author = NOBODY) -> str:
        """Keep the model in use: no retraining and no person replaces it until `unpin`. Returns its id.

        It may be done while a retraining runs. Raises UsageError, ModelError, BusyError, OSError.
        """
        model_id = self.current().model_id
        with self._rows.changing() as index:
            if index["pin"]:
                raise UsageError(f"cannot pin model {model_id}: {self._pin_text(index['pin'])}")
            index["pin"] = {"model_id": model_id, "at": time.time(), "by": author.by, "reason": author.reason}
            add_row(index, transition_now("pin", model_id, author))
        return model_id

    def unpin(self, author: Author = NOBODY) -> str:
        """Let models be replaced again; returns the id of the one that was pinned. Raises as `pin` does."""
        with self._rows.changing() as index:
            if not index["pin"]:
                raise UsageError("cannot unpin: no model is pinned")
            model_id = str(index["pin"]["model_id"])
            index["pin"] = None
            add_row(index, transition_now("unpin", model_id, author))
        return model_id

    def pinned(self) -> str:
        """Who pinned which model, and why, in one sentence; "" where none is pinned. Raises ModelError."""
        pin = self._rows.read()["pin"]
        return self._pin_text(pin) if pin else ""

    def decisions(self) -> builtins.list[Transition]:
        """What people did, oldest first. Raises ModelError."""
        return [one for one in self.transitions() if one.by_person]

    def transitions(self) -> builtins.list[Transition]:
        """What people and the program did, oldest first. Raises ModelError."""
        return [transition_of(row) for row in self._rows.read()["transitions"]]

    def history(self) -> builtins.list[Period]:
        """What was in production when, newest first. Raises ModelError."""
        return periods(self.transitions(), self.current().model_id)

    def aliases(self) -> dict[str, str]:
        """Model ids by alias; those that lead nowhere are left out. Raises ModelError."""
        found = {"champion": self.current().model_id} | self._rows.read()["aliases"]
        return {name: found[name] for name in ALIASES if found.get(name)}

    def approvals(self, model_id: str) -> builtins.list[dict[str, Any]]:
        """Who has approved a candidate that waits: by, reason, at. Raises ModelError."""
        return list(self._rows.read()["approvals"].get(model_id, ()))

    def find(self, name: str) -> M:
        """A version by its id, an alias, "shipped", or the path of a file. Raises UsageError, ModelError."""
        if name in ALIASES:
            found = self.aliases().get(name)
            if found is None:
                raise UsageError(f"cannot find the {name}: no model is it")
            return self.current() if name == "champion" else self.get(found)
        if name == SHIPPED:
            return self._load(self._baseline)
        if _MODEL_ID.fullmatch(name):
            return self._by_id(name)
        path = Path(name)
        if not path.is_file():
            known = ", ".join((*ALIASES, SHIPPED))
            raise UsageError(f"cannot find model {printable(name)}: it is an id, a file, or one of {known}")
        return self._load(path.read_bytes())

    def _by_id(self, model_id: str) -> M:
        """One of the versions, or the champion, the shipped one, or a backup, whose files have other names."""
        if self._candidate_path(model_id).is_file():
            return self.get(model_id)
        others = (self.champion_path, *reversed(self.backups()))
        for data in (self._baseline, *(path.read_bytes() for path in others if path.is_file())):
            if hashlib.sha256(data).hexdigest()[:16] == model_id:
                return self._load(data)
        return self.get(model_id)

    def lineage(self, model_id: str) -> dict[str, Any]:
        """What is known of where a version comes from; {} if nothing is. Raises UsageError."""
        return read_lineage(self._candidate_path(model_id))

    def note(self, model_id: str, facts: Mapping[str, Any]) -> None:
        """Add to what is known of a version. facts: JSON. Raises UsageError, OSError."""
        note_lineage(self._candidate_path(model_id), facts)

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
        it was taken), manifest, aliases. What was champion once is "replaced"; the champion's own copy among the
        candidates has no second row.
        """
        index = self._rows.read()
        once = {step["model_id"] for step in index["history"]}
        once |= {model_id for model_id, state in index["states"].items() if state == "deployed"}
        aliases = {"champion": self.current().model_id} | index["aliases"]
        states = index["states"] | dict.fromkeys(once, "replaced")
        in_use = [self._row(self.champion_path, "current", "champion")] if self.champion_path.is_file() else []
        kept = [path for path in self._candidates() if path.stem not in {row["model_id"] for row in in_use}]
        rows = [self._row(path, "candidate", states.get(path.stem, "candidate")) for path in kept]
        rows += [self._row(path, "backup", "backup") for path in self.backups()]
        for row in in_use + rows:
            own = [name for name in ALIASES if aliases.get(name) == row["model_id"]]
            row["aliases"] = own if row["kind"] != "backup" else []
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

    def _deploy(self, model: M, left: M, row: Transition) -> None:
        """Make a model the champion in the place of `left`, which is kept for `rollback`."""
        self.save_candidate(left)
        history = [*self._rows.read()["history"], {"model_id": left.model_id, "at": time.time()}][-HISTORY_MAX:]
        row = transition_of(row.to_json() | {"replaced": left.model_id})
        self._move(model, history, {model.model_id: "deployed"}, row)
        _log.info("model_promoted", model_id=model.model_id, replaced=left.model_id)

    def _move(
        self, model: M, history: builtins.list[dict[str, Any]], states: Mapping[str, str], row: Transition
    ) -> None:
        """Replace the champion; see release/index.py. Raises OSError, and then nothing has changed."""
        move = {"to": model.model_id, "history": history, "states": dict(states), "row": row.to_json()}
        with self._rows.changing() as index:
            index["move"] = move
        write_atomic(self.champion_path, model.to_bytes())
        self._rows.catch_up()

    def _backup(self, data: bytes, now: float) -> Path:
        folder = self.models_dir / "backups"
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"model_backup_{datetime.fromtimestamp(now, UTC):%Y%m%d_%H%M%S}"
        names = [f"{stem}.npz", *(f"{stem}_{number:03d}.npz" for number in range(1, 1000))]
        path = next(folder / name for name in names if not (folder / name).exists())
        write_atomic(path, data)
        return path

    def _must_be_approved(self, model_id: str, to: str) -> None:
        """Raise UsageError for a version that was never in production, where one author is not enough."""
        index = self._rows.read()
        known = {step["model_id"] for step in index["history"]} | {hashlib.sha256(self._baseline).hexdigest()[:16]}
        once = model_id in known or index["states"].get(model_id) in ("deployed", "rolled back")
        if self._approvals > 1 and not once:
            raise UsageError(
                f"cannot {to}: model {model_id} was never in production, and APPROVALS={self._approvals} authors must"
                f" approve it ({command('models approve')})"
            )

    def _must_wait(self, model_id: str, verb: str) -> None:
        path, state = self._candidate_path(model_id), self._rows.read()["states"].get(model_id, "unknown")
        if state in _OPEN_STATES:
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
        deployed = self._rows.read()["champion"]
        if not deployed or found.model_id == deployed:
            return ""
        if self.origin == "champion":
            kept = self._candidate_path(found.model_id)
            return f"model {found.model_id} had been copied in by hand, and is kept as {kept}"
        what = "was damaged" if self.champion_path.exists() else "had been removed"
        return f"the file of model {deployed} {what}, and the shipped model was in use"

    def _candidate_path(self, model_id: str) -> Path:
        if not _MODEL_ID.fullmatch(model_id):
            raise UsageError(f"cannot use model id {model_id[:40]!r}: 16 hexadecimal digits are expected")
        return self.models_dir / "candidates" / f"{model_id}.npz"

    def _candidates(self) -> Sequence[Path]:
        return [path for path in (self.models_dir / "candidates").glob("*.npz") if _MODEL_ID.fullmatch(path.stem)]

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
