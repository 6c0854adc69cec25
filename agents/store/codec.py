"""A batch of verdicts as bytes: NumPy arrays in one npz, texts as JSON, no pickle.

Damage is found by zip's CRC.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.errors import StoreError
from agents.store.rows import incident_of, incident_row
from agents.types import QueryBatch, Verdicts

_BATCH_ARRAYS = ("ts", "qtype", "qlen", "rcode", "ancount", "rlen", "ttl_min", "rtt_ms")
_VERDICT_ARRAYS = ("features", "score", "severity")


def encode(verdicts: Verdicts) -> bytes:
    """The batch as one npz file."""
    batch = verdicts.queries
    arrays = {name: np.asarray(getattr(batch, name)) for name in _BATCH_ARRAYS}
    arrays |= {name: np.asarray(getattr(verdicts, name)) for name in _VERDICT_ARRAYS}
    arrays["qname"] = np.frombuffer(b"".join(batch.qname), dtype=np.uint8)
    arrays["qname_len"] = np.array([len(name) for name in batch.qname], dtype=np.int64)
    arrays["texts"] = np.frombuffer(json.dumps(_texts(verdicts)).encode(), dtype=np.uint8)
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def _texts(verdicts: Verdicts) -> dict[str, Any]:
    return {
        "client": list(verdicts.queries.client),
        "ans_types": list(verdicts.queries.ans_types),
        "domain": list(verdicts.domain),
        "reasons": [list(reasons) for reasons in verdicts.reasons],
        "model_id": verdicts.model_id,
        "incidents": [incident_row(incident) for incident in verdicts.incidents],
    }


def decode(data: bytes) -> Verdicts:
    """The batch again. Raises StoreError for anything that `encode` did not write whole."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        texts = json.loads(arrays["texts"].tobytes())
        return _verdicts(arrays, texts)
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, OSError, EOFError) as error:
        raise StoreError(f"cannot read spooled batch: {error}") from None


def _verdicts(arrays: dict[str, NDArray[Any]], texts: dict[str, Any]) -> Verdicts:
    batch = QueryBatch(
        **{name: arrays[name] for name in _BATCH_ARRAYS},
        client=texts["client"],
        qname=_split(arrays["qname"].tobytes(), arrays["qname_len"].tolist()),
        ans_types=texts["ans_types"],
    )
    return Verdicts(
        features=arrays["features"],
        score=arrays["score"],
        severity=arrays["severity"],
        queries=batch,
        domain=texts["domain"],
        reasons=[tuple(reasons) for reasons in texts["reasons"]],
        model_id=texts["model_id"],
        incidents=tuple(incident_of(row) for row in texts["incidents"]),
    )


def _split(joined: bytes, lengths: list[int]) -> list[bytes]:
    names, at = [], 0
    for length in lengths:
        names.append(joined[at : at + length])
        at += length
    return names
