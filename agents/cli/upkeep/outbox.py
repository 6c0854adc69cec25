"""`dns-tunnel outbox`: messages and records that wait, or were given up; send them again, or drop them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from agents.core.errors import AgentsError
from agents.core.text import counted, printable, utc
from agents.runtime.heartbeat import EXPORTS, OUTBOX
from agents.settings import Settings

GIVEN_UP = ".bad"


class _About(BaseModel):
    client: str = ""
    domain: str = ""


class _Row(BaseModel):
    """What is shown of a message, or of a record."""

    at: float
    title: str = ""
    event: str = ""
    incident: _About = _About()


class Waiting(NamedTuple):
    """One file. way: a channel, or `export-` and a way out."""

    way: str
    path: Path

    @property
    def given_up(self) -> bool:
        """Whether nobody tries it any more."""
        return self.path.suffix == GIVEN_UP

    @property
    def number(self) -> str:
        """What a person calls it by."""
        return f"{self.way}/{int(self.path.name[:16])}"


def outbox(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel outbox list|retry|drop`; exit code 1 where a number is none."""
    found = list(_files(settings.state_dir))
    if options.action == "list":
        return _list(found)
    chosen = [one for one in found if one.given_up and options.number in ("all", one.number)]
    if not chosen and options.number != "all":
        raise AgentsError(f"cannot find {printable(options.number)} among what was given up: dns-tunnel outbox list")
    for one in chosen:
        if options.action == "drop":
            one.path.unlink(missing_ok=True)
        else:
            one.path.rename(one.path.with_name(f"{one.path.stem.rpartition('-')[0]}-0.json"))
    verb = "dropped" if options.action == "drop" else "to be sent again"
    print(f"{counted(len(chosen), 'message')} {verb}")
    return 0


def _files(state_dir: Path) -> Iterator[Waiting]:
    for base, prefix in ((state_dir / OUTBOX, ""), (state_dir / EXPORTS, "export-")):
        for folder in sorted(path for path in base.glob("*") if path.is_dir()):
            for path in sorted(folder.iterdir()):
                if path.suffix in (".json", GIVEN_UP) and path.name[:16].isdigit():
                    yield Waiting(f"{prefix}{folder.name}", path)


def _list(found: list[Waiting]) -> int:
    for one in found:
        state = "given up" if one.given_up else "waits"
        print(f"{one.number:<28}{state:<10}{_title(one.path)}")
    given_up = sum(one.given_up for one in found)
    print(f"{counted(len(found) - given_up, 'message')} wait, {given_up} given up")
    return 0


def _title(path: Path) -> str:
    """When it was written, and what it is about."""
    try:
        row = _Row.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return "unreadable"
    title = row.title or f"{row.event} {row.incident.client} {row.incident.domain}"
    return f"{utc(row.at)}  {printable(title, 100)}"
