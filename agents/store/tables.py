"""The tables, as the migrations leave them. Statements are built from these; nothing is created from them.

Times are Unix seconds in UTC; `day` counts whole days since 1970-01-01: partitions are cut by it.
"""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    Column,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)

DAY_S = 86_400
"""Seconds in a day of Unix time, which has no leap seconds (POSIX.1-2017, section 4.16)."""

metadata = MetaData()

QUERIES = Table(
    "queries",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("ts", Double, nullable=False),
    Column("day", Integer, nullable=False),
    Column("qtype", Integer, nullable=False),
    Column("score", REAL, nullable=False),
    Column("severity", SmallInteger, nullable=False),
    Column("rcode", SmallInteger, nullable=False),
    Column("ancount", Integer, nullable=False),
    Column("qlen", Integer, nullable=False),
    Column("rlen", Integer, nullable=False),
    Column("ttl_min", BigInteger, nullable=False),
    Column("rtt_ms", REAL),
    Column("rnd", Integer, nullable=False),
    Column("client", Text, nullable=False),
    Column("qname", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("ans_types", Text, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("batch_id", Text, nullable=False),
    Column("features", LargeBinary, nullable=False),
)
"""One row a query. `rnd` (0..2**31-1) follows from batch_id and row, for sampling; `features` are
little-endian float32; `reasons` is a JSON list; qname and domain are in presentation form."""

INCIDENTS = Table(
    "incidents",
    metadata,
    Column("incident_id", Text, primary_key=True),
    Column("client", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("severity", SmallInteger, nullable=False),
    Column("score", Double, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("tool", Text),
    Column("first_seen", Double, nullable=False),
    Column("last_seen", Double, nullable=False),
    Column("detected_at", Double, nullable=False),
    Column("queries", BigInteger, nullable=False),
    Column("unique_names", BigInteger, nullable=False),
    Column("leaked_bytes", Double, nullable=False),
    Column("queries_before_detection", BigInteger, nullable=False),
    Column("bytes_before_detection", Double, nullable=False),
    Column("sample_names", Text, nullable=False),
    Column("closed_at", Double),
    Column("evidence", Text, nullable=False, server_default="{}"),
)

BATCHES = Table(
    "batches",
    metadata,
    Column("batch_id", Text, primary_key=True),
    Column("written_at", Double, nullable=False),
)
"""A batch is here if and only if its rows are: both are committed together."""

RUNS = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("started_at", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("payload", Text, nullable=False),
)
"""Retrainings; `payload` is JSON."""
