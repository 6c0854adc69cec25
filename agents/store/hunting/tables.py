"""Tables of ClickHouse: queries, and sums that are kept beside them as views.

Each table has a window of deduplication: a block that is sent again with its token is stored once, and once in each
view (clickhouse.com/docs, "Deduplicating inserts on retries").
"""

from __future__ import annotations

from agents.core.types import Severity
from agents.dns.message import rcode_number

WINDOW = 10_000
"""Blocks whose tokens a table remembers: hours of them, at a block a second."""
_KINDS = {
    "ts": "DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD)",
    "client": "LowCardinality(String)",
    "qname": "String CODEC(ZSTD(3))",
    "qtype": "UInt16 CODEC(ZSTD)",
    "domain": "String CODEC(ZSTD)",
    "score": "Float32 CODEC(ZSTD)",
    "severity": f"LowCardinality(String) MATERIALIZED transform(level, {[int(one) for one in Severity]},"
    f" {[one.name for one in Severity]}, '')",
    "level": "UInt8 CODEC(ZSTD)",
    "reasons": "LowCardinality(String)",
    "rcode": "Nullable(Int16) CODEC(ZSTD)",
    "ancount": "Nullable(Int32) CODEC(ZSTD)",
    "qlen": "Nullable(Int32) CODEC(ZSTD)",
    "rlen": "Nullable(Int32) CODEC(ZSTD)",
    "ttl_min": "Nullable(Int64) CODEC(ZSTD)",
    "rtt_ms": "Nullable(Float32) CODEC(ZSTD)",
    "ans_types": "LowCardinality(String)",
    "cached": "LowCardinality(Nullable(String))",
    "model_id": "LowCardinality(String)",
}
"""Columns of queries: their kinds in ClickHouse."""
SENT_NAMES = tuple(name for name in _KINDS if name != "severity")
"""Columns that are sent; the severity's name is made of its level."""
_SEEN = "SimpleAggregateFunction({}, DateTime64(6, 'UTC'))"
_FIRST, _LAST = f"first_seen {_SEEN.format('min')}", f"last_seen {_SEEN.format('max')}"
_SUM, _FAILED = "SimpleAggregateFunction(sum, UInt64)", f"countIf(rcode = {rcode_number('NXDOMAIN')})"
_SUMS = {
    "domain_hours": (
        "hour, domain",
        f"hour DateTime('UTC'), domain String, queries {_SUM}, failed {_SUM},"
        " level SimpleAggregateFunction(max, UInt8), clients AggregateFunction(uniqCombined, String),"
        f" {_FIRST}, {_LAST}",
        f"toStartOfHour(ts) AS hour, domain, count() AS queries, {_FAILED} AS failed, max(level) AS level,"
        " uniqCombinedState(toString(client)) AS clients, min(ts) AS first_seen, max(ts) AS last_seen",
        "hour",
    ),
    "flow_hours": (
        "hour, client, domain",
        f"hour DateTime('UTC'), client LowCardinality(String), domain String, queries {_SUM},"
        " names AggregateFunction(uniqCombined, String), longest SimpleAggregateFunction(max, Int64)",
        "toStartOfHour(ts) AS hour, client, domain, count() AS queries, uniqCombinedState(lower(qname)) AS names,"
        " max(toInt64(length(qname)) - length(domain)) AS longest",
        "hour",
    ),
    "domains_seen": (
        "domain",
        f"domain String, {_FIRST}, {_LAST}",
        "domain, min(ts) AS first_seen, max(ts) AS last_seen",
        "toDateTime(last_seen)",
    ),
}
"""Views: key, columns, how they are made, and what their rows age by."""
TABLES = ("queries", *_SUMS)
HELD_BY_CLIENT = ("queries", "flow_hours")
"""Tables whose rows name a client; in the others it is in a count alone."""


def made_tables(days: int) -> list[str]:
    """Statements that make what is not there. days: that rows are kept."""
    kept = f"SETTINGS non_replicated_deduplication_window = {WINDOW}"
    columns = ", ".join(f"{name} {kind}" for name, kind in _KINDS.items())
    found = [
        f"CREATE TABLE IF NOT EXISTS queries ({columns},"
        " INDEX names lower(qname) TYPE ngrambf_v1(4, 16384, 2, 0) GRANULARITY 1)"
        " ENGINE = MergeTree PARTITION BY toYYYYMM(ts) ORDER BY (domain, client, ts)"
        f" TTL {_aged('toDateTime(ts)', days)} {kept}"
    ]
    for name, (key, made_of, made, age) in _SUMS.items():
        by = "" if name == "domains_seen" else "PARTITION BY toYYYYMM(hour) "
        found += [
            f"CREATE TABLE IF NOT EXISTS {name} ({made_of}) ENGINE = AggregatingMergeTree {by}ORDER BY ({key})"
            f" TTL {_aged(age, days)} {kept}",
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {name}_sent TO {name}"
            f" AS SELECT {made} FROM queries GROUP BY {key}",
        ]
    return found


def aged_tables(days: int) -> dict[str, str]:
    """By table, the statement that has its rows kept for so many days."""
    ages = {"queries": "toDateTime(ts)"} | {name: age for name, (_, _, _, age) in _SUMS.items()}
    return {name: f"ALTER TABLE {name} MODIFY TTL {_aged(age, days)}" for name, age in ages.items()}


def _aged(age: str, days: int) -> str:
    return f"{age} + toIntervalDay({days})"
