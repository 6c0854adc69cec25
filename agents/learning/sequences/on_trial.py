"""The row of a sequence model on trial, its file, and what was seen of it.

models/sequences/candidate.npz, canary.json (since when, beside which model, on which terms), canary_counts.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from agents.core.errors import ModelError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.detection.rollout.canary import CanaryCounts
from agents.learning.release.canary import read_counts, terms_of
from agents.learning.sequences.gru import SequenceModel, load_sequence_model

_log = structlog.get_logger("agents.learning.sequences")


@dataclass(frozen=True, slots=True)
class SequenceCanary:
    """The trial of a candidate in a folder of sequence models."""

    folder: Path

    @property
    def path(self) -> Path:
        """The candidate's file."""
        return self.folder / "candidate.npz"

    @property
    def counts_path(self) -> Path:
        """What was seen of it."""
        return self.folder / "canary_counts.json"

    @property
    def lock_path(self) -> Path:
        """Held while it is ended."""
        return self.folder / ".canary.lock"

    @property
    def _row_path(self) -> Path:
        return self.folder / "canary.json"

    def row(self) -> dict[str, Any] | None:
        """model_id, champion, begun_at (Unix seconds) and terms of the one that runs; None: none does."""
        try:
            found = json.loads(self._row_path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("sequence_canary_not_read", error=str(error))
            return None
        kinds = {"model_id": str, "champion": str, "begun_at": int | float, "terms": dict}
        if not isinstance(found, dict) or not all(isinstance(found.get(one), kind) for one, kind in kinds.items()):
            _log.warning("sequence_canary_not_read", error="it is no row of a trial")
            return None
        return found

    def model(self) -> SequenceModel | None:
        """The candidate; None where its file is not that of the row."""
        row = self.row()
        try:
            found = load_sequence_model(self.path.read_bytes()) if row is not None else None
        except (ModelError, OSError) as error:
            _log.warning("sequence_model_not_used", path=str(self.path), error=str(error))
            return None
        return found if found is not None and row is not None and found.model_id == row["model_id"] else None

    def begin(self, model: SequenceModel, champion: str, terms: Mapping[str, Any], now: float) -> None:
        """Begin a trial; the row comes last, so that a death leaves none or a whole one. Raises OSError."""
        write_atomic(self.path, model.to_bytes())
        self.counts_path.unlink(missing_ok=True)
        self._note({"model_id": model.model_id, "champion": champion, "begun_at": now, "terms": dict(terms)})

    def restart(self, now: float) -> None:
        """Its time begins anew: the clock was set back. Raises OSError."""
        if (row := self.row()) is not None:
            self._note(row | {"begun_at": now})

    def end(self) -> None:
        """Drop it. Raises OSError."""
        self._row_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self.counts_path.unlink(missing_ok=True)

    def counts(self) -> CanaryCounts | None:
        """What was seen so far; None: none runs."""
        row = self.row()
        return None if row is None else read_counts(self.counts_path, row["model_id"], row["begun_at"])

    def state(self, now: float) -> dict[str, Any] | None:
        """The trial for people and programs; None: none runs."""
        row, counts = self.row(), self.counts()
        if row is None or counts is None:
            return None
        hours = terms_of(row).hours
        return {**row, "ends_at": row["begun_at"] + hours * 3600, "elapsed_s": max(now - row["begun_at"], 0.0),
                "seen": counts.summary()}  # fmt: skip

    def _note(self, row: Mapping[str, Any]) -> None:
        write_atomic(self._row_path, json.dumps(dict(row)).encode(), mode=PRIVATE_MODE)
