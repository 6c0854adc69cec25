"""The last cycles of the sequence model, and what became of its models: a file beside them.

It holds counts and measures alone, no client and no name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, Field, ValidationError

from agents.core.files import PRIVATE_MODE, locked_within, write_atomic
from agents.core.types import Gate

CYCLES_FILE = "history.json"
CYCLES_KEPT = 500
"""Ended cycles that are kept, the newest."""
NEWEST_LOOKED_AT = 20
"""Ended cycles among which that of a request, or a trial's end that was recorded before a death, is looked for."""
HISTORY_WAIT_S = 5.0
"""Whoever writes a cycle waits so long for another one who does."""
_log = structlog.get_logger("agents.learning.sequences")


class EndedCycle(BaseModel):
    """A cycle that came to its end, or a model that was taken back. Times are Unix seconds.

    decision: deployed, canary (on trial), waiting (for a person), rejected, failed or taken back. trained: windows.
    loss: surprise of what was held out, nats a step. ask: the request that it answers. listed: numbers of what it and
    the model in use list. report: its file name, "" = none was written.
    """

    number: int = 0
    began_at: float
    seconds: float = 0
    source: str = "live"  # or "store", "a person", "canary" (a trial that ended)
    minutes: float | None = None
    length: int = 0
    epochs: int = 0
    collected: int = 0
    clients: int = 0
    trained: int = 0
    loss: float | None = None
    decision: str
    reason: str = ""
    by: str = "the program"
    model_id: str = ""
    parent: str = ""
    data_sha256: str = ""
    gates: list[dict[str, Any]] = Field(default_factory=list)
    listed: dict[str, Any] = Field(default_factory=dict)
    ask: str = ""
    report: str = ""


class _Kept(BaseModel):
    cycles: list[EndedCycle] = Field(default_factory=list)


def gate_rows(gates: Sequence[Gate]) -> list[dict[str, Any]]:
    """Gates as JSON values."""
    return [
        {"name": one.name, "value": one.value, "threshold": one.threshold, "passed": one.passed, "detail": one.detail}
        for one in gates
    ]


class SequenceHistory:
    """Cycles in a folder of sequence models; a file that cannot be read is begun anew, and logged."""

    def __init__(self, folder: Path) -> None:
        self._path, self._lock = folder / CYCLES_FILE, folder / ".history.lock"

    def add(self, cycle: EndedCycle) -> EndedCycle:
        """Keep a cycle; it gets the next number. Raises OSError, also where another process holds the file."""
        with locked_within(self._lock, HISTORY_WAIT_S):
            kept = self._read()
            numbered = cycle.model_copy(update={"number": kept[-1].number + 1 if kept else 1})
            rows = _Kept(cycles=[*kept, numbered][-CYCLES_KEPT:])
            write_atomic(self._path, rows.model_dump_json().encode(), mode=PRIVATE_MODE)
        return numbered

    def newest(self, limit: int) -> list[EndedCycle]:
        """Cycles, newest first."""
        return self._read()[::-1][:limit]

    def total(self) -> int:
        """How many there were, those that are no longer kept among them."""
        return next((one.number for one in self.newest(1)), 0)

    def of_model(self, model_id: str) -> list[Mapping[str, Any]]:
        """What happened to a model, oldest first, as JSON values."""
        return [one.model_dump(mode="json") for one in self._read() if one.model_id == model_id]

    def _read(self) -> list[EndedCycle]:
        try:
            return _Kept.model_validate_json(self._path.read_bytes()).cycles
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            _log.warning("sequence_history_not_read", path=str(self._path), error=str(error).partition("\n")[0])
            return []
