"""Incidents, with what people said of them, and queries as rows of a table, for export; times are UTC."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from agents.core.text import who
from agents.core.types import Incident
from agents.dns.message import type_name
from agents.store.console.triage import Triage

COLUMNS = (
    "incident_id", "severity", "state", "label", "assignee", "client", "domain", "tool", "score", "leaked_bytes",
    "queries", "unique_names", "first_seen", "last_seen", "detected_at", "closed_at", "reasons",
)  # fmt: skip
"""What an export has of each incident."""
QUERY_COLUMNS = (
    "time", "client", "qname", "type", "domain", "score", "severity", "reasons", "rcode", "ancount", "qlen", "rlen",
    "ttl_min", "rtt_ms", "cached", "model_id", "source",
)  # fmt: skip
"""What an export has of each query."""
AUDIT_COLUMNS = ("at", "author", "way", "action", "object", "detail", "audit_id")
WEEK_COLUMNS = (
    "what", "domain", "severity", "incidents", "clients", "leaked_bytes", "tools", "may_be", "labels", "incident_id",
    "at", "author", "why",
)  # fmt: skip
"""What an export has of each domain of a week: paged or listed; and of each service that was silenced."""
TIMES = frozenset({"at", "ts", "first_seen", "last_seen"})
"""Columns of Unix seconds."""
CLIENT_COLUMNS = ("client", "queries", "domains", "severity", "last_seen")
FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for a formula begins with one of these."""


def row_of(incident: Incident, said: Triage) -> dict[str, Any]:
    """One incident by COLUMNS."""
    times = {name: _time(getattr(incident, name)) for name in ("first_seen", "last_seen", "detected_at", "closed_at")}
    rest = {
        "severity": incident.severity.name,
        "state": str(said.state),
        "label": said.label or "",
        "assignee": said.assignee,
        "client": who(incident.client),
        "tool": incident.tool or "",
        "score": round(incident.score, 4),
        "leaked_bytes": round(incident.leaked_bytes, 1),
        "reasons": "; ".join(incident.reasons),
    }
    return {name: getattr(incident, name, None) for name in COLUMNS} | times | rest


def query_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One query, as searches give it, by QUERY_COLUMNS."""
    known = {name: row.get(name) for name in QUERY_COLUMNS}
    shown = {"time": _time(row["ts"]), "type": type_name(row["qtype"]), "reasons": "; ".join(row["reasons"])}
    return known | shown | {"client": who(row["client"]), "qname": row["qname"] or "."}


def client_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One client, as hunting gives it, by CLIENT_COLUMNS."""
    return {**row, "client": who(row["client"]), "last_seen": _time(row["last_seen"])}


def told_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Any row of facts: times as UTC, several values of one fact one after the other, a type by its name."""
    shown = {name: _time(value) if name in TIMES else value for name, value in row.items()}
    shown |= {name: "; ".join(map(str, value)) for name, value in row.items() if isinstance(value, list | tuple)}
    return shown | ({"qtype": type_name(row["qtype"])} if "qtype" in row else {})


def csv_lines(rows: Iterable[dict[str, Any]], names: Sequence[str] = COLUMNS) -> Iterator[str]:
    """A table of the columns `names` (RFC 4180), its head first.

    What a spreadsheet would take for a formula begins with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(map(_cell, names))
    for row in rows:
        yield _taken(out)
        writer.writerow([_cell(row[name]) for name in names])
    yield _taken(out)


def _taken(out: io.StringIO) -> str:
    text = out.getvalue()
    out.seek(0)
    out.truncate()
    return text


def _time(at: float | None) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}" if at is not None else ""


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(FORMULA_BEGINS) else text
