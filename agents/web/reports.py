"""The reports' folder: list its reports, read one. Names are checked before they become paths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from agents.web.parts import LEARNT_NAMES

NAME = re.compile(r"training_report_[0-9]{8}_[0-9]{6}(_[A-Za-z0-9]{1,16})?\.html", re.ASCII)
_STATE = re.compile(rb'"state": "(DEPLOYED|CANARY|REJECTED|WAITING|FAILED|UNCHANGED)"')
HEAD_BYTES = 512
"""Bytes read to find the state, the second value of a report's JSON: a thousand whole files are too much for a list."""
LISTED_MAX = 1000
"""Reports in the list, at most; the newest are listed."""


def listed(directory: Path) -> list[dict[str, Any]]:
    """Reports, newest first: name, kind of model, state (how the run ended; None = not known), created (Unix seconds),
    bytes."""
    found = (_usable(directory, path.name) for path in directory.glob("training_report_*.html"))
    newest = sorted((path for path in found if path is not None), reverse=True)
    return [_entry(path) for path in newest[:LISTED_MAX]]


def overview(directory: Path, shown: int) -> list[dict[str, Any]]:
    """So many reports of retrainings, and the last one of each kind of cycle, which come by the hour; newest first."""
    found = listed(directory)
    last = [next((one for one in found if one["kind"] == kind), None) for kind in LEARNT_NAMES]
    some = [one for one in found if one["kind"] == "query"][:shown] + [one for one in last if one is not None]
    return sorted(some, key=lambda one: str(one["name"]), reverse=True)


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
        "kind": _kind(path.stem),
        "state": _state(path.with_suffix(".json")),
        "created": facts.st_mtime,
        "bytes": facts.st_size,
    }


def _kind(stem: str) -> str:
    """Of which model: the reports of cycles end with it."""
    last = stem.rpartition("_")[2]
    return last if last in LEARNT_NAMES else "query"


def _state(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            found = _STATE.search(file.read(HEAD_BYTES))
    except OSError:
        return None
    return found[1].decode() if found else None
