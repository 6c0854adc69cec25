"""The folder of one kind of model that cycles learn (flow, sequence, image): files, who decides, what was in use when.

current.npz       the model in use            earlier/        those before it
candidate.npz     of a trial (sequences)      taken_back.npz  what a person replaced last
waiting.npz       what waits for a person     anchor.npz      the first one that passed its gates
registry.json     its rows (release.index), which models/CHANGELOG.md is written from, too
lineage/          what is known of each version that is kept, beside its manifest
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import structlog

from agents.core.errors import AgentsError, BusyError, ModelError, UsageError
from agents.core.files import holder, locked_within, write_atomic
from agents.core.text import command, printable
from agents.learning.comparison.frozen import FrozenAnchor
from agents.learning.earlier import BACKUP_DAYS, NEWEST_KEPT, TAKEN_BACK_FILE, drop_versions, version_file
from agents.learning.release.approvals import close_row, note_approval, transition_now
from agents.learning.release.index import RegistryIndex, add_row
from agents.learning.release.lineage import note_lineage, read_lineage
from agents.learning.release.transitions import Author, Period, Transition, periods, transition_of

LearntKind = Literal["flow", "sequences", "images"]
LEARNT_KINDS: tuple[LearntKind, ...] = ("flow", "sequences", "images")
KIND_NAMES: dict[str, str] = {"flow": "flow model", "sequences": "sequence model", "images": "image model"}
PERSON_WAIT_S = 1.0
"""A person's decision waits so long for who holds the lock; whoever asks for a state holds it for a moment."""
LINEAGE, EARLIER, CURRENT_FILE = "lineage", "earlier", "current.npz"
Learned = TypeVar("Learned")
_log = structlog.get_logger("agents.learning")


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class ReleaseTerms:
    """deploy, approvals: as the settings of these names. changelog: None = in the folder of the models."""

    deploy: str = "auto"
    approvals: int = 1
    changelog: Path | None = None

    @property
    def by_person(self) -> bool:
        """Whether what passed its gates waits for a person."""
        return self.deploy == "manual"


USUAL_TERMS = ReleaseTerms()


def id_of(data: bytes) -> str:
    """As `model_id` of what these bytes are."""
    return hashlib.sha256(data).hexdigest()[:16]


@dataclass(frozen=True)
class LearntRegistry(Generic[Learned]):
    """load: reads a file's bytes, raises ModelError. newest, days: which earlier versions are kept (learning.earlier).

    Changes are made under `lock`, which is held by whoever calls what does not say that it takes it.
    """

    kind: LearntKind
    folder: Path
    load: Callable[[bytes], Learned]
    terms: ReleaseTerms = USUAL_TERMS
    newest: int = NEWEST_KEPT
    days: int = BACKUP_DAYS
    anchor_folder: Path | None = None

    @property
    def name(self) -> str:
        """What such a model is called."""
        return KIND_NAMES[self.kind]

    @property
    def path(self) -> Path:
        """The model in use."""
        return self.folder / CURRENT_FILE

    @property
    def waiting_path(self) -> Path:
        """What waits for a person."""
        return self.folder / "waiting.npz"

    @property
    def taken_back(self) -> Path:
        """The model that a person took back last."""
        return self.folder / TAKEN_BACK_FILE

    @property
    def lock_path(self) -> Path:
        """Held while somebody learns or decides."""
        return self.folder / "learning.lock"

    @property
    def anchor(self) -> FrozenAnchor[Learned]:
        """The first model that passed its gates."""
        if self.anchor_folder is not None:
            return FrozenAnchor(self.anchor_folder, self.load, lambda: ())
        return FrozenAnchor(self.folder, self.load, lambda: [*self.earlier(), self.path])

    def earlier(self) -> list[Path]:
        """Models of before, oldest first."""
        return sorted((self.folder / EARLIER).glob("*.npz"))

    @contextmanager
    def lock(self, to: str, wait_s: float = PERSON_WAIT_S) -> Iterator[None]:
        """Keep others out. Raises BusyError; a dead holder holds nothing."""
        try:
            lock = locked_within(self.lock_path, wait_s)
        except BlockingIOError:
            pid = holder(self.lock_path)
            raise BusyError(f"cannot {to}: a cycle is under way, and process {pid} holds the lock") from None
        with lock:
            yield

    def in_use(self) -> str:
        """The id of the model in use; "" where there is no file."""
        data = self._bytes(self.path)
        return id_of(data) if data is not None else ""

    def waiting(self) -> str:
        """The id of the model that waits for a person; "" where none does. Raises ModelError."""
        index, data = self._rows.read(), self._bytes(self.waiting_path)
        found = id_of(data) if data is not None else ""
        return found if found and index["states"].get(found) == "waiting" else ""

    def approvals(self, model_id: str) -> list[dict[str, Any]]:
        """Who has approved a candidate that waits: by, reason, at. Raises ModelError."""
        return list(self._rows.read()["approvals"].get(model_id, ()))

    def facts_of(self, model_id: str) -> dict[str, Any]:
        """What was noted of a version; {} if nothing was."""
        return read_lineage(self._facts_path(model_id))

    def note_facts(self, model_id: str, facts: Mapping[str, Any]) -> None:
        """Add to what is known of a version before it is kept. facts: JSON values. Raises OSError."""
        note_lineage(self._facts_path(model_id), facts)

    def drop_facts(self) -> None:
        """What is known of models that are not kept goes with them. Raises OSError."""
        kept = {id_of(path.read_bytes()) for path in (*self.folder.glob("*.npz"), *self.folder.glob("*/*.npz"))}
        for path in (self.folder / LINEAGE).glob("*.json"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)

    def reports(self) -> set[str]:
        """File names of the reports of versions that are kept."""
        known = (self.facts_of(path.stem) for path in (self.folder / LINEAGE).glob("*.json"))
        return {str(one["report"]) for one in known if "report" in one}

    def _facts_path(self, model_id: str) -> Path:
        return self.folder / LINEAGE / f"{model_id}.npz"  # whose lineage stands beside it

    def transitions(self) -> list[Transition]:
        """What people and the program did, oldest first. Raises ModelError."""
        return [transition_of(row) for row in self._rows.read()["transitions"]]

    def history(self) -> list[Period]:
        """What was in production when, newest first. Raises ModelError."""
        return periods(self.transitions(), self.in_use())

    def deploy(
        self,
        data: bytes,
        now: float,
        author: Author,
        record: Callable[[], object] = _nothing,
        action: str = "deploy",
        by_person: bool = False,
    ) -> Path | None:
        """Put a model into its place; where the one before is kept, None where none was. now: Unix seconds.

        record: notes it elsewhere; where it raises AgentsError, all is as before. Raises that, UsageError where a model
        is pinned, and as the rows do.
        """
        self._must_be_free(f"deploy a {self.name}")
        kept = self._keep(now)
        self.anchor.keep(data)
        row = transition_now(action, id_of(data), author, self.in_use(), "", by_person, self.kind)
        try:
            self._move(data, row, record)
        except (AgentsError, OSError):
            if kept is not None:
                kept.unlink(missing_ok=True)
            raise
        drop_versions(self.earlier(), self.newest, self.days, now)
        self.drop_facts()
        return kept

    def hold(self, data: bytes, author: Author, record: Callable[[], object] = _nothing) -> None:
        """Let a model wait for a person. Raises ModelError, BusyError, OSError, and what record raises."""
        model_id = id_of(data)
        write_atomic(self.waiting_path, data)
        with self._rows.changing() as index:
            index["states"], index["approvals"] = {model_id: "waiting"}, {}
            index["aliases"]["candidate"] = model_id
            add_row(index, transition_now("hold", model_id, author, by_person=False, kind=self.kind))
        try:
            record()
        except AgentsError as error:
            self._turn_down("pass over", model_id, Author("", str(error)), by_person=False)
            raise

    def note(self, action: str, model_id: str, author: Author) -> None:
        """Note what the program did with a model that is not in use, once. Raises ModelError, BusyError, OSError."""
        with self._rows.changing() as index:
            last = index["transitions"][-1:]
            if last and (last[0]["action"], last[0]["model_id"]) == (action, model_id):
                return  # by a process that was killed after it
            add_row(index, transition_now(action, model_id, author, by_person=False, kind=self.kind))

    def approve(
        self,
        model_id: str,
        author: Author,
        voters: Collection[str] | None,
        now: float,
        record: Callable[[], object] = _nothing,
        trial: bytes | None = None,
    ) -> bool:
        """Put what waits, or is on trial, into use; whether it is, or else another author has to approve it, too.

        trial: what is on trial. voters, Raises: as of `note_approval`, and as `deploy` does.
        """
        data = self._must_wait(model_id, "approve", trial)
        self._must_be_free(f"approve {self.name} {model_id}")
        if note_approval(self._rows, self.terms.approvals, model_id, author, voters, self.kind) < self.terms.approvals:
            return False
        self.deploy(data, now, author, record, "approve", True)
        self._drop_waiting(model_id)
        return True

    def reject(
        self,
        model_id: str,
        author: Author,
        record: Callable[[], object] = _nothing,
        trial: bytes | None = None,
    ) -> None:
        """Turn down what waits, or is on trial. Raises UsageError, ModelError, BusyError, OSError, and what record
        raises."""
        self._must_wait(model_id, "reject", trial)
        record()
        self._turn_down("reject", model_id, author)

    def _turn_down(self, action: str, model_id: str, author: Author, by_person: bool = True) -> None:
        """Nobody waits for a decision about what waited; the model in use stays."""
        with self._rows.changing() as index:
            index["states"] |= {model_id: "rejected"}
            close_row(index, model_id)
            add_row(index, transition_now(action, model_id, author, by_person=by_person, kind=self.kind))
        self._drop_waiting(model_id)

    def _drop_waiting(self, model_id: str) -> None:
        """It waits no more; another one does on."""
        if self._id_in(self.waiting_path) == model_id:
            self.waiting_path.unlink()

    def take_back(
        self, author: Author, record: Callable[[Learned], object] = lambda model: None, path: Path | None = None
    ) -> Learned:
        """Put a model that is kept into its place again; the one in use is kept as `taken_back`.

        path: of that model, None = the one before this. Raises UsageError where there is none, ModelError, and as
        `deploy` does.
        """
        self._must_be_free(f"take the {self.name} back")
        was, now_in_use = self._bytes(self.path), self.in_use()
        before = path or next((one for one in self.earlier()[::-1] if self._id_in(one) != now_in_use), None)
        if before is None:
            raise UsageError(f"cannot take the {self.name} back: there is none before it")
        data = before.read_bytes()
        if id_of(data) == now_in_use:
            raise UsageError(f"cannot go back to {self.name} {now_in_use}: it is in use")
        model = self.load(data)
        row = transition_now("roll back", id_of(data), author, now_in_use, kind=self.kind)
        self._move(data, row, lambda: record(model))
        if was is not None:
            write_atomic(self.taken_back, was)
        if before.parent.name == EARLIER:
            before.unlink()
        return model

    def set_anchor(self, path: Path, author: Author) -> str:
        """Compare candidates with the model at a path from now on; its id. Raises ModelError, BusyError, OSError."""
        data = path.read_bytes()
        self.load(data)
        write_atomic(self.anchor.path, data)
        with self._rows.changing() as index:
            add_row(index, transition_now("anchor", id_of(data), author, kind=self.kind))
        return id_of(data)

    def pin(self, author: Author) -> None:
        """Keep the model in use: no cycle and no person replaces it until `unpin`.

        Raises UsageError where there is none, or one is pinned, ModelError, BusyError, OSError.
        """
        if not (model_id := self.in_use()):
            raise UsageError(f"cannot pin: no {self.name} is in use")
        with self._rows.changing() as index:
            if index["pin"]:
                raise UsageError(f"cannot pin {self.name} {model_id}: {self._pin_text(index['pin'])}")
            index["pin"] = {"model_id": model_id, "at": time.time(), "by": author.by, "reason": author.reason}
            add_row(index, transition_now("pin", model_id, author, kind=self.kind))

    def unpin(self, author: Author) -> None:
        """Let the model in use be replaced again. Raises as `pin` does."""
        with self._rows.changing() as index:
            if not index["pin"]:
                raise UsageError(f"cannot unpin: no {self.name} is pinned")
            model_id, index["pin"] = str(index["pin"]["model_id"]), None
            add_row(index, transition_now("unpin", model_id, author, kind=self.kind))

    def pinned(self) -> str:
        """Who pinned the model in use, and why, in one sentence; "" where it is not pinned. Raises ModelError."""
        pin = self._rows.read()["pin"]
        return self._pin_text(pin) if pin else ""

    def holds(self) -> bool:
        """Whether what passed its gates waits for a person now. Raises ModelError."""
        return self.terms.by_person or bool(self.pinned())

    def _must_be_free(self, to: str) -> None:
        """Raise UsageError where a model is pinned."""
        if pinned := self.pinned():
            raise UsageError(f"cannot {to}: {pinned}")

    def _pin_text(self, pin: Mapping[str, Any]) -> str:
        by = Author(str(pin.get("by", "")), str(pin.get("reason", "")))
        ends = f"{command(f'models unpin --of {self.kind}')} lets it be replaced"
        return f"{self.name} {pin['model_id']} was pinned {by}; {ends}"

    @property
    def _rows(self) -> RegistryIndex:
        return RegistryIndex(self.folder, self.path, self.terms.changelog, self.name)

    def _must_wait(self, model_id: str, verb: str, trial: bytes | None = None) -> bytes:
        """The file of what waits, or is on trial. Raises UsageError, ModelError where it cannot be read."""
        if trial is not None and id_of(trial) == model_id:
            return trial
        waiting = self.waiting()
        if not waiting or waiting != model_id:
            which = f"{waiting} does" if waiting else f"none does; {command('models list')} names what is kept"
            raise UsageError(f"cannot {verb} {self.name} {printable(model_id, 60)}: it does not wait, {which}")
        data = self.waiting_path.read_bytes()
        self.load(data)
        return data

    def _move(self, data: bytes, row: Transition, record: Callable[[], object]) -> None:
        """Replace the model in use; see release.index."""
        was = self._bytes(self.path)
        move = {"to": id_of(data), "history": [], "states": {id_of(data): "deployed"}, "row": row.to_json()}
        with self._rows.changing() as index:
            index["states"] = {one: state for one, state in index["states"].items() if state == "waiting"}
            index["move"] = move
        write_atomic(self.path, data)
        try:
            record()
        except AgentsError:
            self._put_back(was)
            raise
        self._rows.catch_up()

    def _put_back(self, was: bytes | None) -> None:
        """What cannot be recorded leaves the model as it was, and no row."""
        if was is None:
            self.path.unlink(missing_ok=True)
        else:
            write_atomic(self.path, was)
        self._rows.catch_up()

    def _keep(self, now: float) -> Path | None:
        """Keep the model in use among the earlier ones; where. None: there is none that can be read, or it is kept."""
        was, newest = self._bytes(self.path), next(iter(self.earlier()[::-1]), None)
        if was is None or (newest is not None and newest.read_bytes() == was):  # a process was killed after it
            return None
        try:
            self.load(was)
        except ModelError as error:
            _log.warning("model_not_kept", path=str(self.path), error=str(error))
            return None
        path = version_file(self.folder / EARLIER, now, id_of(was))
        write_atomic(path, was)
        return path

    def _id_in(self, path: Path) -> str:
        data = self._bytes(path)
        return id_of(data) if data is not None else ""

    @staticmethod
    def _bytes(path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
