"""Jobs that run by the calendar, as people see them: when each runs, and which of them are paused, by whom and why."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from agents.core.errors import AgentsError, UsageError
from agents.core.files import PRIVATE_MODE, json_state, write_atomic
from agents.core.text import printable, said_text
from agents.core.types import ScheduledJob
from agents.store.feedback.reviews import TEXT_MAX_AUTHOR, TEXT_MAX_REASON

RETRAIN, MAINTAIN, SUMMARISE = "retrain", "maintain", "summarise"
PAUSED_JOBS = "paused_jobs.json"
"""The file, in the folder of the state."""


class JobStore(Protocol):
    """The table of jobs. Every method raises StoreError."""

    def jobs(self) -> Sequence[ScheduledJob]: ...

    def save_job(self, job: ScheduledJob) -> None: ...

    def take_job(self, job: ScheduledJob, now: float, next_run: float) -> bool: ...


class JobDesk:
    """What people look up and decide about jobs: a job that is paused is passed over, by every scheduler of a folder.

    path: where pauses are kept; they hold after a restart.
    """

    def __init__(self, store: JobStore, path: Path) -> None:
        self._store, self._path = store, path

    def jobs(self) -> list[dict[str, Any]]:
        """Each job with its pause, if any; see web.models.schemas.JobEntry. Raises StoreError."""
        kept = self._paused()
        return [asdict(job) | {"paused": kept.get(job.name)} for job in self._store.jobs()]

    def is_paused(self, name: str) -> bool:
        """Whether a job is passed over."""
        return name in self._paused()

    def pause(self, name: str, author: str, reason: str) -> None:
        """Pass a job over from now on. Raises UsageError, StoreError."""
        self._known(name)
        if name == MAINTAIN:
            raise UsageError(f"cannot pause {MAINTAIN}: what is to be deleted would stay")
        told = {"at": time.time(), "by": said_text(author, "an author", TEXT_MAX_AUTHOR)}
        self._keep({**self._paused(), name: told | {"reason": said_text(reason, "a reason", TEXT_MAX_REASON)}})

    def resume(self, name: str) -> None:
        """Let it run again, from its next time on. Raises UsageError, StoreError."""
        self._known(name)
        paused = self._paused()
        if paused.pop(name, None) is None:
            raise UsageError(f"cannot resume {name}: it is not paused")
        self._keep(paused)

    def _known(self, name: str) -> None:
        names = sorted(job.name for job in self._store.jobs())
        if name not in names:
            raise UsageError(f"cannot find the job {printable(name, 40)!r}; there are {', '.join(names) or 'none yet'}")

    def _paused(self) -> dict[str, dict[str, Any]]:
        return {name: one for name, one in json_state(self._path).items() if isinstance(one, dict)}

    def _keep(self, paused: Mapping[str, Mapping[str, Any]]) -> None:
        try:
            write_atomic(self._path, json.dumps(paused).encode(), PRIVATE_MODE)
        except OSError as error:
            raise AgentsError(f"cannot keep that: {error.strerror or error}") from None
