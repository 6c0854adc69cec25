"""The folder through which the console exports candidates, and imports those of another installation and verdicts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.core.errors import UsageError
from agents.core.files import make_private_folder
from agents.core.text import printable
from agents.learning.release.desk import Decided, ModelDesk
from agents.learning.release.staging import Staging
from agents.learning.release.transitions import Author

_STAGED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.stage(\.verdict)?")
"""Files of the folder that are offered: no path leads out of it."""
SHOWN_MAX = 100
"""Files that are shown, the newest."""


@dataclass(frozen=True)
class StageFolder:
    """Files of staging by name. make: staging, made when it is needed; desk: tells what came of it.

    Every method raises UsageError, ModelError, OSError; `take` BusyError and StoreError, too.
    """

    folder: Path
    make: Callable[[], Staging]
    desk: ModelDesk

    def files(self) -> list[dict[str, Any]]:
        """name, kind (candidate, verdict), bytes, at (Unix seconds) of each file, the newest first."""
        found: list[dict[str, Any]] = []
        for path in self.folder.glob("*.stage*"):
            if _STAGED.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                stat = path.stat()
                kind = "verdict" if path.suffix == ".verdict" else "candidate"
                found.append({"name": path.name, "kind": kind, "bytes": stat.st_size, "at": stat.st_mtime})
        return sorted(found, key=lambda one: float(one["at"]), reverse=True)[:SHOWN_MAX]

    def path(self, name: str) -> Path:
        """The file of that name."""
        if name not in {one["name"] for one in self.files()}:
            raise UsageError(f"cannot find {printable(name, 100)} in {self.folder}")
        return self.folder / name

    def export(self, model_id: str, by: str, reason: str) -> Decided:
        """Write a version, with lineage and report, as MODEL_ID.stage."""
        found = self.desk.version(model_id)["model_id"]
        make_private_folder(self.folder)
        return self.desk.follow(self.make().export(self.folder / f"{found}.stage", found, Author(by, reason)))

    def take(self, name: str, by: str, reason: str) -> Decided:
        """Validate a candidate of another installation, and write its verdict beside it; or note a verdict."""
        path = self.path(name)
        return self.desk.follow(self.make().take(path, path.with_name(f"{name}.verdict"), Author(by, reason)))
