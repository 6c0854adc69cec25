"""From the nouns to rows and back. What is written is free of NUL and of lone surrogates."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Any

import numpy as np

from agents.names import to_text
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
    "client",
    "qname",
    "domain",
    "ans_types",
    "reasons",
    "model_id",
    "batch_id",
    "features",
)
"""Order of a row's values: numbers first, then texts, then bytes."""
NUMBERS = 12
"""How many of COLUMNS are numbers."""
RND_MAX = 2**31 - 1
"""Largest value of `rnd`: the largest integer of four bytes."""


def clean(text: str) -> str:
    """Text that both databases take: NUL and lone surrogates written out."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\000")


def query_columns(verdicts: Verdicts, batch_id: str) -> list[Iterable[Any]]:
    """One iterable for each of COLUMNS, all of the batch's length, each to be gone through once."""
    batch = verdicts.queries
    features = np.ascontiguousarray(verdicts.features, dtype="<f4")
    count = len(batch)
    return [
        batch.ts.tolist(),
        np.floor_divide(batch.ts, DAY_S).astype(np.int64).tolist(),
        batch.qtype.tolist(),
        verdicts.score.tolist(),
        verdicts.severity.tolist(),
        batch.rcode.tolist(),
        batch.ancount.tolist(),
        batch.qlen.tolist(),
        batch.rlen.tolist(),
        batch.ttl_min.tolist(),
        batch.rtt_ms.tolist(),
        _random(batch_id, count),
        map(clean, batch.client),
        map(to_text, batch.qname),
        map(clean, verdicts.domain),
        map(clean, batch.ans_types),
        (json.dumps(reasons) if reasons else "[]" for reasons in verdicts.reasons),
        repeat(clean(verdicts.model_id), count),
        repeat(batch_id, count),
        (row.tobytes() for row in features),
    ]


def _random(batch_id: str, count: int) -> list[int]:
    """`rnd` of a batch's rows: the same again when the batch is written again."""
    seed = int.from_bytes(hashlib.sha256(batch_id.encode()).digest()[:8], "big")
    drawn: list[int] = np.random.default_rng(seed).integers(0, RND_MAX, count, endpoint=True).tolist()
    return drawn


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
