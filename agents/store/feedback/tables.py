"""Tables of the learning loop: flow-hours and what is said of them."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    Column,
    Double,
    Integer,
    LargeBinary,
    Select,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    select,
)

from agents.store.rows import metadata


class LabelOrigin(StrEnum):
    """Where a label comes from."""

    PERSON = "a person"
    TOOL = "tool fingerprint"
    HONEYTOKEN = "honeytoken"
    SECRET = "decoded secret"  # noqa: S105 - the name of an origin
    LIMIT = "three times a limit"
    LEARNED = "learnt probability"
    GOLDEN = "golden session"  # shipped: sessions of tools and ordinary traffic, for the cold start


ROW_ID = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself in a column of exactly this type alone (sqlite.org/autoinc.html)."""

FLOW_HOURS = Table(
    "flow_hours",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("hour", Integer, nullable=False),
    Column("schema", SmallInteger, nullable=False),
    Column("rnd", Integer, nullable=False),
    Column("client", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("names", Text, nullable=False),
    Column("numbers", LargeBinary, nullable=False),
    UniqueConstraint("domain", "client", "hour", "schema", name="flow_hours_once"),
    sqlite_autoincrement=True,
)
"""One client below one domain in one hour (hours since 1970-01-01). `numbers` are little-endian float32, in the order
that `schema` gives them; `names` is a JSON list of sample names; `rnd` (0..2**31-1) is random. An id is
never given again, so that a label stays with its row."""

FLOW_LABELS = Table(
    "flow_labels",
    metadata,
    Column("flow_hour_id", BigInteger, primary_key=True, autoincrement=False),
    Column("label", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("confidence", REAL, nullable=False),
    Column("labelled_at", Double, nullable=False),
)
"""Labels that were found without a person, one a flow-hour at most."""

REVIEW_ITEMS = Table(
    "review_items",
    metadata,
    Column("domain", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("queued_at", Double, nullable=False),
    Column("informativeness", REAL, nullable=False),
    Column("why", Text, nullable=False),
    Column("clients", Integer, nullable=False),
    Column("names", Text, nullable=False),
    Column("taken_by", Text, nullable=False, server_default=""),
)
"""Domains that a person is asked about, each once; `state` is new, in work or closed; `names` is a JSON list."""

REVIEW_DECISIONS = Table(
    "review_decisions",
    metadata,
    Column("decision_id", ROW_ID, primary_key=True),
    Column("at", Double, nullable=False),
    Column("domain", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("undone_at", Double),
    Column("undone_by", Text, nullable=False, server_default=""),
    Column("undone_why", Text, nullable=False, server_default=""),
    sqlite_autoincrement=True,
)
"""What people said of a domain; the one decision of a domain that is not undone stands. None is ever deleted."""

LEARNING_CYCLES = Table(
    "learning_cycles",
    metadata,
    Column("cycle_id", ROW_ID, primary_key=True),
    Column("started_at", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("payload", Text, nullable=False),
    sqlite_autoincrement=True,
)
"""Cycles of the online learner that came to their end; `payload` is JSON."""

BLOCK_ROWS = Table(
    "blocks",
    metadata,
    Column("block_id", Text, primary_key=True),
    Column("domain", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("began_at", Double, nullable=False),
    Column("until", Double, nullable=False),
    Column("dry", Boolean, nullable=False),
    Column("incident_id", Text, nullable=False),
    Column("ended_at", Double),
    Column("ended_by", Text, nullable=False),
    Column("hits", BigInteger, nullable=False),
)
"""Each block once, as the file of blocks had it last; none is ever deleted. `hits` are queries that met it."""


def labelled_by_people() -> Select[tuple[str]]:
    """Domains about which a decision stands."""
    return select(REVIEW_DECISIONS.c.domain).where(REVIEW_DECISIONS.c.undone_at.is_(None))
