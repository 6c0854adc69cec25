"""The reports' folder: list its reports, read one. Names are checked before they become paths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

NAME = re.compile(r"training_report_[0-9]{8}_[0-9]{6}(_[A-Za-z0-9]{1,16})?\.html", re.ASCII)
_STATE = re.compile(rb'"state": "(DEPLOYED|CANARY|REJECTED|WAITING|FAILED|UNCHANGED)"')
HEAD_BYTES = 512
"""Bytes read to find the state, the second value of a report's JSON: a thousand whole files are too much for a list."""
LISTED_MAX = 1000
"""Reports in the list, at most; the newest are listed."""


def listed(directory: Path) -> list[dict[str, Any]]:
    """Reports, newest first: name, state (how the run ended; None = not known), created (Unix seconds), bytes."""
    found = (_usable(directory, path.name) for path in directory.glob("training_report_*.html"))
    newest = sorted((path for path in found if path is not None), reverse=True)
    return [_entry(path) for path in newest[:LISTED_MAX]]


def content(directory: Path, name: str) -> bytes | None:
    """The report of that name; None if there is none, or if it is not the name of a report."""
    path = _usable(directory, name)
    return None if path is None else path.read_bytes()


def _usable(directory: Path, name: str) -> Path | None:
    if not NAME.fullmatch(name):
        return None
    path = directory / name
    return path if path.is_file() and not path.is_symlink() else None


def _entry(path: Path) -> dict[str, Any]:
    facts = path.stat()
    return {
        "name": path.name,
        "state": _state(path.with_suffix(".json")),
        "created": facts.st_mtime,
        "bytes": facts.st_size,
    }


def _state(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            found = _STATE.search(file.read(HEAD_BYTES))
    except OSError:
        return None
    return found[1].decode() if found else None
