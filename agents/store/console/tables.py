"""Tables of the console: what people do with incidents, the views that they share, and the audit log."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Table, Text

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
"""Changes of incidents, views and known services (API and console); rows are only ever added."""
