"""The columns of `queries` as hunts see them: names, types, how they are made of a stored row, and what they mean."""

from __future__ import annotations

from typing import NamedTuple

from agents.core.types import UNKNOWN, Severity
from agents.store.rows import CACHED


class HuntColumn(NamedTuple):
    """stored: its type in the database, as DuckDB names it; made: SQL that makes the column of that."""

    name: str
    stored: str
    made: str
    meaning: str


_SEVERITY = " ".join(f"WHEN {int(level)} THEN '{level.name}'" for level in Severity)
_CACHED = " ".join(f"WHEN {number} THEN '{word}'" for number, word in CACHED.items())


def _known(name: str) -> str:
    return f"nullif({name}, {UNKNOWN})"


HUNT_COLUMNS = (
    HuntColumn("ts", "DOUBLE", "make_timestamp(CAST(round(ts * 1e6) AS BIGINT))", "time of the query, UTC"),
    HuntColumn("client", "VARCHAR", "client", "who asked, as PRIVACY keeps it"),
    HuntColumn("qname", "VARCHAR", "qname", "the name, as STORE_NAMES keeps it"),
    HuntColumn("qtype", "USMALLINT", "qtype", "number of the record type: 16 is TXT"),
    HuntColumn("domain", "VARCHAR", "domain", "the registered domain"),
    HuntColumn("score", "FLOAT", "score", "0 to 1, high is anomalous"),
    HuntColumn("severity", "TINYINT", f"CASE severity {_SEVERITY} END", "NORMAL, SUSPICIOUS, HIGH or CRITICAL"),
    HuntColumn("level", "TINYINT", "severity", "the severity as a number, 0 to 3"),
    HuntColumn("reasons", "VARCHAR", "reasons", "a JSON list"),
    HuntColumn("rcode", "SMALLINT", _known("rcode"), "code of the answer: 3 is NXDOMAIN"),
    HuntColumn("ancount", "INTEGER", _known("ancount"), "records of the answer"),
    HuntColumn("qlen", "INTEGER", _known("qlen"), "bytes of the question's message"),
    HuntColumn("rlen", "INTEGER", _known("rlen"), "bytes of the answer's message"),
    HuntColumn("ttl_min", "BIGINT", _known("ttl_min"), "smallest time to live of the answer, seconds"),
    HuntColumn(
        "rtt_ms", "FLOAT", "CASE WHEN isnan(rtt_ms) THEN NULL ELSE rtt_ms END", "time to the answer, milliseconds"
    ),
    HuntColumn("ans_types", "VARCHAR", "ans_types", "record types of the answer"),
    HuntColumn("cached", "TINYINT", f"CASE cached {_CACHED} END", "no, yes or stale"),
    HuntColumn("model_id", "VARCHAR", "model_id", "the model that gave the score"),
)
"""What is unknown is NULL."""
HUNT_NAMES = tuple(one.name for one in HUNT_COLUMNS)
STORED_NAMES = tuple(name for name in HUNT_NAMES if name != "level")
"""Columns of the database that they are made of."""
