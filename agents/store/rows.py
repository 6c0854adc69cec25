"""From the nouns to rows and back. What is written is free of NUL and of lone surrogates."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.columns import Coded, Names, coded, packed
from agents.presentation import packed_texts
from agents.store.tables import DAY_S
from agents.types import UNKNOWN, Incident, Severity, Verdicts

COLUMNS = (
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
    "features",
    "client",
    "qname",
    "domain",
    "ans_types",
    "reasons",
    "model_id",
    "batch_id",
)
"""Order of a row's values: numbers first, then bytes, then texts."""
NUMBERS = 12
"""How many of COLUMNS are numbers."""
RND_MAX = 2**31 - 1
"""Largest value of `rnd`: the largest integer of four bytes."""


def clean(text: str) -> str:
    """Text that both databases take: NUL and lone surrogates written out."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\000")


class Columns(NamedTuple):
    """The rows of n queries, by columns in the order of COLUMNS."""

    numbers: tuple[NDArray[Any], ...]
    features: NDArray[np.float32]  # little-endian, shape (n, number of features)
    texts: tuple[Coded | Names, ...]  # Names hold ASCII

    def lists(self) -> list[Iterable[Any]]:
        """One iterable for each of COLUMNS, to be gone through once: int, float, bytes and str."""
        data, width = self.features.tobytes(), self.features.shape[1] * self.features.itemsize
        features = [data[at : at + width] for at in range(0, len(data), width)] if width else [b""] * len(self.features)
        texts = [ascii_of(column) if isinstance(column, Names) else column for column in self.texts]
        return [*(column.tolist() for column in self.numbers), features, *texts]


def query_columns(verdicts: Verdicts, batch_id: str) -> Columns:
    """The batch as it is stored."""
    batch, count = verdicts.queries, len(verdicts)
    numbers = (
        batch.ts,
        np.floor_divide(batch.ts, DAY_S).astype(np.int64),
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
    )
    texts = (
        _cleaned(batch.client),
        packed_texts(packed(batch.qname)),
        _cleaned(verdicts.domain),
        _cleaned(batch.ans_types),
        _reasons(verdicts.reasons),
        _all(clean(verdicts.model_id), count),
        _all(batch_id, count),
    )
    return Columns(numbers, np.ascontiguousarray(verdicts.features, dtype="<f4"), texts)


def _cleaned(column: Sequence[str]) -> Coded:
    texts = coded(column)
    return Coded(texts.codes, [clean(value) for value in texts.values])


def _reasons(reasons: Sequence[tuple[str, ...]]) -> Coded:
    numbers: dict[tuple[str, ...], int] = {}
    codes = np.fromiter([numbers.setdefault(some, len(numbers)) for some in reasons], np.int32, len(reasons))
    return Coded(codes, [json.dumps(some) for some in numbers])


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


def query_json(row: Mapping[str, Any]) -> dict[str, Any]:
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
        "model_id": row["model_id"],
    }


def incident_row(incident: Incident) -> dict[str, Any]:
    """One incident as a row of the table."""
    return {
        "incident_id": incident.incident_id,
        "client": clean(incident.client),
        "domain": clean(incident.domain),
        "severity": int(incident.severity),
        "score": float(incident.score),
        "reasons": json.dumps(incident.reasons),
        "tool": None if incident.tool is None else clean(incident.tool),
        "first_seen": float(incident.first_seen),
        "last_seen": float(incident.last_seen),
        "detected_at": float(incident.detected_at),
        "queries": int(incident.queries),
        "unique_names": int(incident.unique_names),
        "leaked_bytes": float(incident.leaked_bytes),
        "queries_before_detection": int(incident.queries_before_detection),
        "bytes_before_detection": float(incident.bytes_before_detection),
        "sample_names": json.dumps(incident.sample_names),
        "closed_at": None if incident.closed_at is None else float(incident.closed_at),
        "evidence": json.dumps(dict(incident.evidence)),
    }


def incident_of(row: Mapping[str, Any]) -> Incident:
    """The incident that a row of the table holds."""
    values = {name: value for name, value in row.items() if name != "incident_id"}
    values["severity"] = Severity(values["severity"])
    values["reasons"] = tuple(json.loads(values["reasons"]))
    values["sample_names"] = tuple(json.loads(values["sample_names"]))
    values["evidence"] = json.loads(values.get("evidence", "{}"))
    return Incident(**values)
