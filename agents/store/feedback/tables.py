"""Tables of the learning loop: flow-hours and what is said of them."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    Column,
    Double,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from agents.store.rows import metadata

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
