"""Tables of the console: what people do with incidents, the views that they share, and the audit log."""

from __future__ import annotations

from typing import Any

from sqlalchemy import REAL, BigInteger, Column, Double, Index, Integer, SmallInteger, Table, Text

from agents.store.feedback.tables import ROW_ID
from agents.store.rows import metadata

TRIAGE = Table(
    "incident_triage",
    metadata,
    Column("incident_id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("assignee", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("changed_by", Text, nullable=False),
)
"""What people said of an incident last. One without a row is new, has no label, and is nobody's."""

TRIAGE_CHANGES = Table(
    "incident_changes",
    metadata,
    Column("change_id", ROW_ID, primary_key=True),
    Column("action_id", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("incident_id", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("decision_id", BigInteger),
    Column("undone_at", Double),
    Column("undone_by", Text, nullable=False),
    Index("incident_changes_incident", "incident_id"),
    Index("incident_changes_action", "action_id"),
    sqlite_autoincrement=True,
)
"""Each change once; it goes with its incident. `before` and `after` are JSON objects of TRIAGE's columns; changes of
one click have one `action_id`, by which they are undone together. `decision_id`: the decision about the domain that a
label made for the learning loop."""

SAVED_VIEWS = Table(
    "saved_views",
    metadata,
    Column("name", Text, primary_key=True),
    Column("address", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("saved_at", Double, nullable=False),
)
"""Lists that people keep and share: a name, and the page with its query string."""

AUDIT = Table(
    "audit_log",
    metadata,
    Column("audit_id", ROW_ID, primary_key=True),
    Column("at", Double, nullable=False),
    Column("author", Text, nullable=False),
    Column("way", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Index("audit_log_at", "at"),
    sqlite_autoincrement=True,
)
"""Who changed what, when, and by which way: console, API or command line. Rows are only ever added."""


def _sums(name: str, *key: Column[Any]) -> Table:
    """A table of sums over live queries, by a key. `severity`, `score` and `largest` (bytes of an answer) are maxima;
    `types` and `rcodes` say how many queries had which: " 1:30 28:12 "."""
    return Table(
        name,
        metadata,
        *key,
        *(Column(one, BigInteger, nullable=False) for one in ("queries", "failed", "suspicious", "high", "critical")),
        Column("severity", SmallInteger, nullable=False),
        Column("score", REAL, nullable=False),
        Column("largest", Integer, nullable=False),
        Column("others", Integer, nullable=False, server_default="1"),
        Column("types", Text, nullable=False),
        Column("rcodes", Text, nullable=False),
        Column("first_seen", Double, nullable=False),
        Column("last_seen", Double, nullable=False),
    )


QUERY_HOURS = _sums(
    "query_hours",
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("client", Text, primary_key=True),
    Column("domain", Text, primary_key=True),
)
"""What one client asked below one domain in one hour (since 1970-01-01)."""

CLIENT_DAYS = _sums(
    "query_client_days",
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("client", Text, primary_key=True),
)
"""What one client asked in one day (since 1970-01-01); `others`: its domains."""

DOMAIN_DAYS = _sums(
    "query_domain_days",
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("domain", Text, primary_key=True),
)
"""What was asked below one domain in one day; `others`: the clients that asked."""

QUERY_PAIRS = Table(
    "query_pairs",
    metadata,
    Column("client", Text, primary_key=True),
    Column("domain", Text, primary_key=True),
    Column("first_seen", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
)
"""Since when, and until when, a client asked below a domain, as far as days are summed up."""

QUERY_DOMAINS = Table(
    "query_domains",
    metadata,
    Column("domain", Text, primary_key=True),
    Column("first_seen", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
)
"""Since when, and until when, anybody asked below a domain."""

QUERY_NAMES = Table(
    "query_names",
    metadata,
    Column("name", Text, primary_key=True),
    Column("domain", Text, nullable=False),
    Column("first_seen", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
    Column("hours", Text, nullable=False),
)
"""Each name once, in lower case: names come again and again, so this is much smaller than the queries, and a part of a
name is looked for here. `hours`: in which hours it was asked for, "490992 491160"; "" = in many."""

QUERY_KINDS = Table(
    "query_kinds",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("qtype", Integer, primary_key=True, autoincrement=False),
    Column("rcode", Integer, primary_key=True, autoincrement=False),
    Column("severity", SmallInteger, primary_key=True, autoincrement=False),
)
"""Which kinds of queries an hour has, some twenty rows: hours without a rare one are passed over. One that went with an
erased client may stay: its hour is looked at in vain."""

SUMS_STATE = Table(
    "query_sums",
    metadata,
    Column("sums_id", SmallInteger, primary_key=True, autoincrement=False),
    Column("until", Integer, nullable=False),
    Column("erasures", BigInteger, nullable=False),
    Column("kinds_from", Integer, nullable=False, server_default="0"),
)
"""One row. All hours before `until` are summed up; days that ended before it, too. `erasures`: how often a client was
erased, so that nobody writes what was read before. Hours before `kinds_from` were summed up before there were kinds."""
