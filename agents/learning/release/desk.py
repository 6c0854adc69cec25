"""What people look up and decide about models: from the command line, the API and the pages alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog

from agents.core.errors import StoreError, UsageError
from agents.core.text import printable
from agents.core.types import ChannelResult, Message
from agents.detection.limits import Scale
from agents.learning.messages import transition_message
from agents.learning.profile.difference import NO_PROFILE
from agents.learning.registry import ModelRegistry
from agents.learning.release.approvals import deciding_author
from agents.learning.release.canary import CANARY_FILE, canary_state
from agents.learning.release.diff import Version, difference
from agents.learning.release.transitions import Transition
from agents.learning.run import RunState
from agents.scoring.model import Model
from agents.store.sql import RunDatabase

RUNS_SEARCHED_MAX = 100
"""Newest runs that are searched for a candidate's run, at most."""
_RUN_STATES = {
    "approve": RunState.DEPLOYED,
    "reject": RunState.REJECTED,
    "promote canary": RunState.DEPLOYED,
    "stop canary": RunState.REJECTED,
}
"""How a run ended, after what became of its candidate."""
_log = structlog.get_logger()


@dataclass(frozen=True)
class Decided:
    """What came of a decision. problems: what did not follow it, a line each: a channel, the database, MLflow."""

    made: Transition
    problems: tuple[str, ...]


@dataclass(frozen=True)
class ModelDesk:
    """Decisions are carried out in the registry; then the run, the channels and a user's MLflow server are told.

    check: raises ModelError for a model that may not be restored. tell: sends a message over every channel.
    publish: gives the state of the registry to other programs; returns a line for each problem. terms: of canaries.
    canary_path: where what was seen of one is written. hosts: where a candidate judges on a bus, by name, since when
    (Unix seconds); None = there is no bus.
    """

    registry: ModelRegistry[Model]
    store: RunDatabase
    scale: Scale
    check: Callable[[Model], None]
    tell: Callable[[Message], Sequence[ChannelResult]]
    publish: Callable[[], Sequence[str]] = tuple
    terms: Mapping[str, Any] = field(default_factory=dict)
    canary_path: Path = Path(CANARY_FILE)
    hosts: Callable[[str], Mapping[str, float] | None] = lambda model_id: None

    def canary(self) -> dict[str, Any] | None:
        """The canary that runs; see release/canary.py. Raises ModelError."""
        found = canary_state(self.registry, self.canary_path, time.time())
        hosts = self.hosts(str(found["model_id"])) if found is not None else None
        return found if found is None or hosts is None else found | {"hosts": dict(hosts)}

    def versions(self) -> list[dict[str, Any]]:
        """Every model file; see ModelRegistry.list. Raises ModelError."""
        return self.registry.list()

    def version(self, name: str) -> dict[str, Any]:
        """One version: model_id, state, aliases, manifest, lineage, approvals, transitions, report.

        Raises UsageError, ModelError.
        """
        model = self.registry.find(name)
        rows = [row for row in self.registry.list() if row["model_id"] == model.model_id]
        known = self.registry.lineage(model.model_id)
        run_id = str(known.get("run_id", ""))
        return {
            "model_id": model.model_id,
            "state": rows[0]["state"] if rows else "shipped",
            "aliases": rows[0]["aliases"] if rows else [],
            "path": rows[0]["path"] if rows else "",
            "created": rows[0]["created"] if rows else None,
            "manifest": dict(model.manifest),
            "lineage": known,
            "approvals": self.registry.approvals(model.model_id),
            "transitions": [one.to_json() for one in self.registry.transitions() if one.model_id == model.model_id],
            "report": f"training_report_{run_id}.html" if run_id else None,
        }

    def diff(self, old: str, new: str) -> dict[str, Any]:
        """Two versions side by side; see release/diff.py. Raises UsageError, ModelError."""
        return difference(self._version(old), self._version(new), self.scale)

    def _version(self, name: str) -> Version:
        model = self.registry.find(name)
        aliases = [alias for alias, model_id in self.registry.aliases().items() if model_id == model.model_id]
        known, profile = self.registry.lineage(model.model_id), self.registry.profile_of(model)
        return Version(name, model, known, aliases, profile)

    def profile(self, name: str) -> dict[str, Any]:
        """The network profile of a version, as JSON; an empty one where it has none. Raises UsageError, ModelError."""
        found = self.registry.profile_of(self.registry.find(name))
        return (found or NO_PROFILE).model_dump(mode="json")

    def history(self) -> list[dict[str, Any]]:
        """What was in production when, newest first. Raises ModelError."""
        return [asdict(one) for one in self.registry.history()]

    def log(self, people_only: bool = False) -> list[dict[str, Any]]:
        """What became of models, oldest first, each with its text. Raises ModelError."""
        found = self.registry.decisions() if people_only else self.registry.transitions()
        return [one.to_json() | {"text": one.text} for one in found]

    def decide(self, action: str, model_id: str, by: str, reason: str) -> Decided:
        """approve, reject, canary, rollback, restore (model_id: a file), pin, unpin or anchor.

        model_id: "" = the one that waits. Raises UsageError, ModelError, BusyError, OSError.
        """
        registry = self.registry
        author, voters = deciding_author(self.store, registry.authors_needed, action, by, reason)
        before = {one.number for one in registry.decisions()[-1:]}
        if action in ("approve", "reject"):
            chosen = model_id or self._waiting()
            registry.reject(chosen, author) if action == "reject" else registry.approve(chosen, author, voters)
        elif action == "restore":
            registry.restore(Path(model_id), self.check, author=author)
        elif action == "canary":
            registry.start_canary(model_id or self._waiting(), self.terms, time.time(), author)
        elif action == "anchor":
            registry.set_anchor(model_id, author)
        elif action in ("rollback", "pin", "unpin"):
            {"rollback": registry.rollback, "pin": registry.pin, "unpin": registry.unpin}[action](author)
        else:
            raise UsageError(f"cannot {printable(action)}: no decision about a model has that name")
        made = registry.decisions()[-1]
        assert made.number not in before
        return self.follow(made)

    def follow(self, made: Transition) -> Decided:
        """Tell the run, the channels and other programs what became of a model; it holds, whoever is away."""
        problems = [*self._note_run(made), *self.publish()]
        problems += [one.error for one in self.tell(transition_message(made)) if not one.ok]
        for problem in problems:
            _log.warning("transition_not_told", model_id=made.model_id, action=made.action, error=problem)
        return Decided(made, tuple(problems))

    def _note_run(self, made: Transition) -> list[str]:
        """Write what became of a candidate into its stored run."""
        state = _RUN_STATES.get(made.action)
        if state is None:
            return []
        try:
            for row in self.store.runs(limit=RUNS_SEARCHED_MAX):
                if row["payload"].get("candidate_id") == made.model_id:
                    self._save_run(row, state)
                    break
        except StoreError as error:
            return [f"the run is not updated: {error}"]
        return []

    def _save_run(self, row: Mapping[str, Any], state: RunState) -> None:
        payload = row["payload"] | {"state": state.value}
        self.store.save_run(row["run_id"], started_at=row["started_at"], state=state.value, payload=payload)

    def _waiting(self) -> str:
        waiting = [str(row["model_id"]) for row in self.registry.list() if row["state"] in ("waiting", "canary")]
        if len(waiting) != 1:
            raise UsageError(f"cannot choose a model: {f'{len(waiting)} wait, name one' if waiting else 'none waits'}")
        return waiting[0]
