"""The frozen anchor of a model that cycles learn: the first one that passed its gates; no cycle ever replaces it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from agents.core.errors import ModelError
from agents.core.files import write_atomic

Learned = TypeVar("Learned")
ANCHOR_FILE = "anchor.npz"
_log = structlog.get_logger("agents.learning")


@dataclass(frozen=True, slots=True)
class FrozenAnchor(Generic[Learned]):
    """In a folder of learnt models. load: reads a file's bytes, raises ModelError, also for those of another schema.

    kept: files of models before the one in use, oldest first, and that one: where a release before this one wrote no
    anchor, the oldest of them is it.
    """

    folder: Path
    load: Callable[[bytes], Learned]
    kept: Callable[[], Iterable[Path]]

    @property
    def path(self) -> Path:
        """Its file."""
        return self.folder / ANCHOR_FILE

    def model(self) -> Learned | None:
        """The anchor; None before the first model that passed, or where none can be read."""
        for path in (self.path, *self.kept()):
            if (found := self._read(path)) is not None:
                return found
        return None

    def keep(self, data: bytes) -> None:
        """Keep the anchor before a model goes into use, whose bytes are the anchor if there is none. Raises OSError."""
        if self._read(self.path) is not None:
            return
        for path in self.kept():
            if self._read(path) is not None:
                data = path.read_bytes()
                break
        write_atomic(self.path, data)

    def _read(self, path: Path) -> Learned | None:
        try:
            return self.load(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ModelError, OSError) as error:
            _log.warning("anchor_not_used", path=str(path), error=str(error))
            return None
