"""registry.json of a folder of models: history, states, aliases, transitions; and models/CHANGELOG.md, written of them.

Query models and each kind that cycles learn have such rows in their own folder; the change log is one for all.

A change of the champion is two files: this one, and the champion's. The index is written first, with the change as a
`move` that has not happened; then the champion's file is replaced; then the move is taken into the rows. Whoever reads
an index with a move looks at the champion's file: is it the move's, the move has happened, else it never will. So a
process that is killed between any two writes leaves one champion, and rows that say so.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from agents.core.errors import BusyError, ModelError
from agents.core.files import locked_within, write_atomic
from agents.learning.release.transitions import (
    CHANGELOG_HEAD,
    TRANSITIONS_MAX,
    Transition,
    changelog_line,
    last_number,
    of_earlier_release,
    transition_of,
)

INDEX_WAIT_S = 10.0
"""A change waits so long for who holds registry.json, which is held for a moment at a time."""
_EMPTY: dict[str, Any] = {
    "history": [],
    "states": {},
    "champion": "",
    "pin": None,
    "aliases": {},
    "approvals": {},
    "canary": None,
    "move": None,
}
_log = structlog.get_logger()


class RegistryIndex:
    """The rows of a folder of models. changelog: None = in that folder; kind: as the change log calls these models."""

    def __init__(self, models_dir: Path, champion_path: Path, changelog: Path | None = None, kind: str = "") -> None:
        self._path, self._kind = models_dir / "registry.json", kind
        self._changelog = changelog or models_dir / "CHANGELOG.md"
        self._lock_path = models_dir / ".index.lock"
        self._champion_path = champion_path

    def read(self) -> dict[str, Any]:
        """All rows as they hold now. Raises ModelError."""
        return self._settled(self._stored())

    @contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """The rows, which are written at the end, and their new transitions into the change log.

        Raises ModelError, BusyError, OSError.
        """
        try:
            lock = locked_within(self._lock_path, INDEX_WAIT_S)
        except BlockingIOError:
            raise BusyError(f"cannot change {self._path}: another process holds it") from None
        with lock:
            stored = self._stored()
            index = self._settled(copy.deepcopy(stored))
            yield index
            if index != stored or not self._path.exists():
                write_atomic(self._path, json.dumps(index, indent=1).encode())
            self._tell(index)

    def stamp(self) -> tuple[int, ...] | None:
        """Changes with the rows; None while there are none."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def catch_up(self) -> None:
        """Finish what a killed process left: a move that happened, lines that the change log lacks. Raises as above."""
        if self._path.exists():
            with self.changing():
                pass

    def _stored(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return copy.deepcopy(_EMPTY) | {"transitions": []}
        except (ValueError, OSError) as error:
            raise self._bad(str(error)) from None
        index = copy.deepcopy(_EMPTY) | found if isinstance(found, dict) else {}
        if not _is_index(index):
            raise self._bad("it is no index of models")
        if "transitions" not in index:
            index["transitions"] = [one.to_json() for one in of_earlier_release(index)]
        return index

    def _bad(self, why: str) -> ModelError:
        return ModelError(f"cannot read {self._path} (remove it to begin a new one): {why}")

    def _settled(self, index: dict[str, Any]) -> dict[str, Any]:
        """The index without a move: it has happened, or it never will."""
        move, index["move"] = index["move"], None
        if move is None or self._champion_id() != move["to"]:
            return index
        return take(index, move)

    def _champion_id(self) -> str:
        """As Model.model_id, without reading the model."""
        try:
            return hashlib.sha256(self._champion_path.read_bytes()).hexdigest()[:16]
        except OSError:
            return ""

    def _tell(self, index: Mapping[str, Any]) -> None:
        """Add the transitions that the change log does not have. It is for people: without it, models go on."""
        try:
            with locked_within(self._changelog.with_name(".changelog.lock"), INDEX_WAIT_S):
                text = self._changelog.read_text("utf-8", "replace") if self._changelog.exists() else CHANGELOG_HEAD
                last = last_number(text, self._kind)
                new = [transition_of(row) for row in index["transitions"] if row["number"] > last]
                lines = "".join(changelog_line(one, self._kind) for one in new)
                if lines:
                    write_atomic(self._changelog, f"{text.removesuffix(chr(10))}\n{lines}".encode())
        except OSError as error:
            _log.warning("models_changelog_not_written", path=str(self._changelog), error=str(error))


def add_row(index: dict[str, Any], one: Transition) -> None:
    """Add a transition to the rows; it gets the next number."""
    rows = index["transitions"]
    number = rows[-1]["number"] + 1 if rows else 1
    index["transitions"] = [*rows, one.to_json() | {"number": number}][-TRANSITIONS_MAX:]


def take(index: dict[str, Any], move: Mapping[str, Any]) -> dict[str, Any]:
    """The rows after a move of the champion, which ends a canary: what it was compared with is gone."""
    index |= {"history": move["history"], "champion": move["to"], "canary": None, "move": None}
    ended = index["aliases"].pop("canary", "")
    if ended and ended != move["to"]:
        index["states"][ended] = "replaced canary"
    index["states"] |= move["states"]
    if index["aliases"].get("candidate") in (move["to"], ended):
        del index["aliases"]["candidate"]
    index["aliases"].setdefault("anchor", move["to"])
    index["approvals"].pop(move["to"], None)
    add_row(index, transition_of(move["row"]))
    return index


def _is_index(index: dict[str, Any]) -> bool:
    kinds = {"history": list, "states": dict, "aliases": dict, "approvals": dict, "champion": str}
    if not all(isinstance(index.get(name), kind) for name, kind in kinds.items()):
        return False
    told = [index.get(name, []) for name in ("transitions", "decisions")]
    if not all(isinstance(rows, list) and all(map(_is_transition, rows)) for rows in told):
        return False
    if not all(isinstance(one.get("number"), int) for one in told[0]):
        return False
    needed = {"pin": {"model_id"}, "canary": {"model_id", "begun_at"}, "move": {"to", "history", "states", "row"}}
    for name, keys in needed.items():
        row = index[name]
        if row is not None and not (isinstance(row, dict) and keys <= row.keys()):
            return False
    steps = all(isinstance(one, dict) and isinstance(one.get("model_id"), str) for one in index["history"])
    return steps and all(isinstance(state, str) for state in index["states"].values())


def _is_transition(row: Any) -> bool:
    return isinstance(row, dict) and {"action", "model_id", "at"} <= row.keys()
