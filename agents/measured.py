"""What an evaluation found, row by row, and the summary of each tool."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Session:
    """One tunnel capture over benign traffic."""

    file: str
    tool: str
    queries: int  # of the tunnel
    found: bool
    named: str  # the tool that the incident points to, "" for none
    severity: str
    queries_before: int
    bytes_before: float
    above_normal: float  # share of the tunnel's queries
    others: tuple[str, ...] = ()  # domains that are not the tunnel's, with an incident all the same


@dataclass(frozen=True, slots=True)
class Benign:
    """One benign capture replayed alone."""

    file: str
    queries: int
    client_hours: float
    above_normal: float
    incidents: tuple[str, ...]  # client, domain and reasons


@dataclass(frozen=True, slots=True)
class Names:
    """One list of names, scored one by one."""

    file: str
    kind: str
    names: int
    above_normal: float
    above_high: float
    secrets: int  # names that were taken for giving a secret away


@dataclass(frozen=True, slots=True)
class Leak:
    """When a tunnel of a steady rate was found; None where it was not before its end."""

    rate: float  # bytes a second
    carried: int  # bytes a name
    seconds: float | None
    bytes_out: int | None  # of what it sent
    queries: int | None


@dataclass(slots=True)
class Evaluation:
    """Everything that was measured."""

    model_id: str
    sessions: list[Session] = field(default_factory=list)
    benign: list[Benign] = field(default_factory=list)
    names: list[Names] = field(default_factory=list)
    leak_curve: list[Leak] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tools": [asdict(row) for row in tools(self.sessions)]}


@dataclass(frozen=True, slots=True)
class Tool:
    """All sessions of one tool; medians and worst are over those found."""

    tool: str
    sessions: int
    found: int
    named: int  # sessions whose tool was named as the manifest does
    queries_median: float
    queries_worst: int
    bytes_median: float
    bytes_worst: float
    above_normal: float


def tools(sessions: Sequence[Session]) -> list[Tool]:
    """One row a tool. No limit and no model was fitted to any capture, so each row is one of a tool left out."""
    by_tool = defaultdict(list)
    for session in sessions:
        by_tool[session.tool].append(session)
    return [_tool(name, by_tool[name]) for name in sorted(by_tool)]


def _tool(name: str, sessions: Sequence[Session]) -> Tool:
    found = [session for session in sessions if session.found] or [Session("", name, 0, False, "", "", 0, 0.0, 0.0)]
    queries, leaked = [s.queries_before for s in found], [s.bytes_before for s in found]
    total = sum(session.queries for session in sessions)
    return Tool(
        tool=name,
        sessions=len(sessions),
        found=sum(session.found for session in sessions),
        named=sum(session.named == session.tool for session in sessions),
        queries_median=statistics.median(queries),
        queries_worst=max(queries),
        bytes_median=statistics.median(leaked),
        bytes_worst=max(leaked),
        above_normal=sum(session.above_normal * session.queries for session in sessions) / max(total, 1),
    )
