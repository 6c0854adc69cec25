"""Earlier versions of what cycles learn: which are kept, so that one can go weeks back on a small disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agents.core.types import DAY_S

BACKUP_DAYS = 56
"""What the setting of that name is by default: eight weeks."""
NEWEST_KEPT = 5
"""Versions that are kept in any case, of models that come by the day; beside them the last one of each day."""
TAKEN_BACK_FILE = "taken_back.npz"
"""In a folder of models: the one that a person took back last, for a look at it, or to use it again."""


def version_file(folder: Path, now: float, named: str = "") -> Path:
    """Where the version that is replaced at a time is kept; names have the order of the times. now: Unix seconds."""
    return folder / f"{now:017.6f}{named and f'_{named}'}.npz"


def drop_versions(paths: Sequence[Path], newest: int, days: int, now: float) -> None:
    """Delete versions, but for the newest ones, and the last one of each day (UTC) of so many days.

    paths: of `version_file`, oldest first. now: Unix seconds. Raises OSError.
    """
    last_of_day = {int(path.name[:10]) // int(DAY_S): path for path in paths if path.name[:10].isdigit()}
    wanted = {path for day, path in last_of_day.items() if day > now // DAY_S - days}
    for path in paths[:-newest]:
        if path not in wanted:
            path.unlink(missing_ok=True)
