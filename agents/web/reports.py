"""The reports' folder: what is in it, and one of them. Names are checked before any path is made of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

NAME = re.compile(r"training_report_[0-9]{8}_[0-9]{6}(_[A-Za-z0-9]{1,16})?\.html", re.ASCII)
LISTED_MAX = 1000
"""Newest reports that are listed."""


def listed(directory: Path) -> list[dict[str, Any]]:
    """Reports, newest first: name, created (Unix seconds), bytes."""
    names = sorted((path for path in directory.glob("training_report_*.html") if _usable(path)), reverse=True)
    return [_entry(path) for path in names[:LISTED_MAX]]


def _usable(path: Path) -> bool:
    return NAME.fullmatch(path.name) is not None and path.is_file() and not path.is_symlink()


def _entry(path: Path) -> dict[str, Any]:
    facts = path.stat()
    return {"name": path.name, "created": facts.st_mtime, "bytes": facts.st_size}


def content(directory: Path, name: str) -> bytes | None:
    """The report of that name; None when there is none, or when the name is no report's."""
    if not NAME.fullmatch(name):
        return None
    path = directory / name
    return path.read_bytes() if _usable(path) else None
