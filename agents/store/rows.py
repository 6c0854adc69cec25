"""The tables, and the nouns as their rows. What is written is free of NUL and of lone surrogates."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
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
    literal_column,
)

from agents.core.columns import Coded, Names, coded, packed
from agents.core.types import DAY_S, FORWARDED, FROM_CACHE, FROM_CACHE_STALE, HOUR_S, UNKNOWN, Severity, Verdicts, clean
from agents.dns.name import packed_texts

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
    Column("features_version", SmallInteger, nullable=False, server_default="1"),
    Column("cached", SmallInteger, nullable=False, server_default="-1"),
    Column("imported_at", Double),
    Column("source", Text, nullable=False, server_default=""),
)
"""One row a query. `rnd` (0..2**31-1) follows from batch_id and row, for sampling; `features` are
little-endian float32; `reasons` is a JSON list; `cached` is as in QueryBatch;
qname and domain are in presentation form. `source` is the mark of a replay, "" where it was seen live; `day` is that
of ts, or that of a replay's shelf."""

REPLAYED = QUERIES.c.day < literal_column("0")
"""Rows of replays; a literal, or SQLite would not see that the partial index fits."""

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
    Column("source", Text, nullable=False, server_default=""),
    Column("imported_at", Double),
)

BATCHES = Table(
    "batches",
    metadata,
    Column("batch_id", Text, primary_key=True),
    Column("written_at", Double, nullable=False),
)
"""A batch is here if and only if its rows are: both are committed together."""

SLOT_TOKENS = Table(
    "slot_tokens",
    metadata,
    Column("slot", Text, primary_key=True),
    Column("token", BigInteger, nullable=False),
)
"""The highest token that has written for each slot of the bus."""

RUNS = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("started_at", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("payload", Text, nullable=False),
)
"""Retrainings; `payload` is JSON."""

JOBS = Table(
    "scheduled_jobs",
    metadata,
    Column("name", Text, primary_key=True),
    Column("schedule", Text, nullable=False),
    Column("last_run", Double),
    Column("next_run", Double, nullable=False),
)
"""Jobs of the scheduler: when each ran last, and when it is due."""

LATE_HOURS = Table(
    "query_late_hours",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)
"""Hours (since 1970-01-01) of which live queries were written late, or which somebody sums up: whoever sums hours up
does it again. `version` begins at the clock's nanoseconds, so that no note has that of one that is gone, and grows with
each batch, so that none is overlooked that comes meanwhile."""
LATE_S = 60.0
"""A query that is written later than so many seconds after the end of its hour is late."""

NUMBERS = (
    "ts",
    "day",
    "qtype",
    "score",
    "severity",
    "rcode",
    "ancount",
    "qlen",
    "rlen",
    "ttl_min",
    "rtt_ms",
    "rnd",
    "features_version",
    "cached",
)
TEXTS = (
    "client",
    "qname",
    "domain",
    "ans_types",
    "reasons",
    "model_id",
    "batch_id",
)
COLUMNS: tuple[str, ...] = (*NUMBERS, "features", *TEXTS)
"""Order of a row's values: numbers first, then bytes, then texts."""
MARKED_COLUMNS: tuple[str, ...] = (*NUMBERS, "imported_at", "features", *TEXTS, "source")
"""The same of a replay's rows. What is seen live need not carry its columns to the database."""
TS_MAX = 2.0**36
"""Latest time a row may have, Unix seconds: far beyond what a capture can hold (32 bits)."""
RND_MAX = 2**31 - 1
"""Largest value of `rnd`: the largest integer of four bytes."""


class Columns(NamedTuple):
    """The rows of n queries, by columns in the order of `names`."""

    numbers: tuple[NDArray[Any], ...]
    features: NDArray[np.float32]  # little-endian, shape (n, number of features)
    texts: tuple[Coded | Names, ...]  # Names hold ASCII
    names: tuple[str, ...] = COLUMNS  # or MARKED_COLUMNS

    def lists(self) -> list[Iterable[Any]]:
        """One iterable for each of `names`, to be gone through once: int, float, bytes and str."""
        data, width = self.features.tobytes(), self.features.shape[1] * self.features.itemsize
        features = [data[at : at + width] for at in range(0, len(data), width)] if width else [b""] * len(self.features)
        texts = [ascii_of(column) if isinstance(column, Names) else column for column in self.texts]
        return [*(column.tolist() for column in self.numbers), features, *texts]


def shelf_of(import_day: int) -> int:
    """The `day` of rows that a replay stored on that day (since 1970-01-01); and the day again, of a shelf.

    Below zero, apart from the days of live queries: replays are kept, and dropped, by the day of their import.
    """
    return -1 - import_day


def days_of(verdicts: Verdicts) -> NDArray[np.int64]:
    """The `day` of each query."""
    if verdicts.imported_at is None:
        return np.floor_divide(verdicts.queries.ts, DAY_S).astype(np.int64)
    return np.full(len(verdicts), shelf_of(int(verdicts.imported_at // DAY_S)), np.int64)


def late_hours(verdicts: Verdicts, now: float) -> set[int]:
    """Hours of live queries of this batch that ended more than LATE_S seconds ago."""
    first_in_time = (now - LATE_S) // HOUR_S * HOUR_S
    ts = verdicts.queries.ts
    if verdicts.imported_at is not None or not len(ts) or ts.min() >= first_in_time:
        return set()
    return {int(hour) for hour in np.unique(ts[ts < first_in_time] // HOUR_S)}


def query_columns(verdicts: Verdicts, batch_id: str) -> Columns:
    """The batch as it is stored."""
    batch, count = verdicts.queries, len(verdicts)
    numbers: tuple[NDArray[Any], ...] = (
        batch.ts,
        days_of(verdicts),
        batch.qtype,
        verdicts.score,
        verdicts.severity,
        batch.rcode,
        batch.ancount,
        batch.qlen,
        batch.rlen,
        batch.ttl_min,
        batch.rtt_ms,
        _random(batch_id, count),
        np.full(count, verdicts.features_version, np.int16),
        batch.cached,
    )
    texts: tuple[Coded | Names, ...] = (
        _cleaned(batch.client),
        packed_texts(packed(batch.qname)),
        _cleaned(verdicts.domain),
        _cleaned(batch.ans_types),
        _reasons(verdicts.reasons),
        _all(clean(verdicts.model_id), count),
        _all(batch_id, count),
    )
    features = np.ascontiguousarray(verdicts.features, dtype="<f4")
    if verdicts.imported_at is None:
        return Columns(numbers, features, texts)
    numbers += (np.full(count, verdicts.imported_at),)
    return Columns(numbers, features, (*texts, _all(clean(verdicts.source), count)), MARKED_COLUMNS)


def _cleaned(column: Sequence[str]) -> Coded:
    texts = coded(column)
    return Coded(texts.codes, [clean(value) for value in texts.values])


def reasons_by_number(reasons: Sequence[tuple[str, ...]]) -> tuple[NDArray[np.int32], list[tuple[str, ...]]]:
    """The number of each row's reasons in a list that holds each once."""
    numbers: dict[tuple[str, ...], int] = {}
    codes = np.fromiter([numbers.setdefault(some, len(numbers)) for some in reasons], np.int32, len(reasons))
    return codes, list(numbers)


def _reasons(reasons: Sequence[tuple[str, ...]]) -> Coded:
    codes, values = reasons_by_number(reasons)
    return Coded(codes, [json.dumps(some) for some in values])


def _all(value: str, count: int) -> Coded:
    return Coded(np.zeros(count, np.int32), [value])


def ascii_of(column: Names) -> list[str]:
    """The values as texts."""
    text = column.data.decode("ascii")
    return [text[start:end] for start, end in pairwise(column.starts.tolist())]


def _random(batch_id: str, count: int) -> NDArray[np.int64]:
    """`rnd` of a batch's rows: the same again when the batch is written again."""
    seed = int.from_bytes(hashlib.sha256(batch_id.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).integers(0, RND_MAX, count, endpoint=True)


CACHED = {FORWARDED: "no", FROM_CACHE: "yes", FROM_CACHE_STALE: "stale"}


def stored_query_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """One stored query as JSON shows it: severity by name, what is unknown as null."""
    known = {
        name: None if row[name] == UNKNOWN else row[name] for name in ("rcode", "ancount", "qlen", "rlen", "ttl_min")
    }
    rtt = row["rtt_ms"]
    return {
        "ts": row["ts"],
        "client": row["client"],
        "qname": row["qname"],
        "qtype": row["qtype"],
        "domain": row["domain"],
        "score": round(row["score"], 6),
        "severity": Severity(row["severity"]).name,
        "reasons": json.loads(row["reasons"]),
        **known,
        "rtt_ms": None if rtt is None or math.isnan(rtt) else round(rtt, 3),
        "ans_types": row["ans_types"],
        "cached": CACHED.get(row["cached"]),
        "model_id": row["model_id"],
        "source": row["source"] or None,
        "imported_at": row["imported_at"],
    }
