"""A batch of verdicts as bytes: NumPy arrays in one npz, texts as JSON, no pickle.

Damage is found by zip's CRC. Texts of which few differ are written once each, beside their numbers.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.columns import Coded, Names, coded, packed
from agents.errors import StoreError
from agents.store.rows import incident_of, incident_row, reasons_by_number
from agents.types import QueryBatch, Verdicts

_BATCH_ARRAYS = ("ts", "qtype", "qlen", "rcode", "ancount", "rlen", "ttl_min", "rtt_ms")
_VERDICT_ARRAYS = ("features", "score", "severity")
_TEXTS = ("client", "ans_types", "domain", "reasons")


def encode(verdicts: Verdicts) -> bytes:
    """The batch as one npz file."""
    batch, names = verdicts.queries, packed(verdicts.queries.qname)
    arrays = {name: np.asarray(getattr(batch, name)) for name in _BATCH_ARRAYS}
    arrays |= {name: np.asarray(getattr(verdicts, name)) for name in _VERDICT_ARRAYS}
    arrays |= {"qname": names.array, "qname_len": np.diff(names.starts)}
    columns = [coded(batch.client), coded(batch.ans_types), coded(verdicts.domain)]
    numbers, reasons = reasons_by_number(verdicts.reasons)
    arrays["numbers"] = np.array([*(column.codes for column in columns), numbers], np.int32)
    texts: dict[str, Any] = dict(zip(_TEXTS, [*(column.values for column in columns), reasons], strict=True))
    texts |= {"model_id": verdicts.model_id, "incidents": [incident_row(incident) for incident in verdicts.incidents]}
    arrays["texts"] = np.frombuffer(json.dumps(texts).encode(), dtype=np.uint8)
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def decode(data: bytes) -> Verdicts:
    """The batch again. Raises StoreError for anything that `encode` did not write whole."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        texts = json.loads(arrays["texts"].tobytes())
        return _verdicts(arrays, texts)
    except (zipfile.BadZipFile, ValueError, KeyError, IndexError, TypeError, OSError, EOFError) as error:
        raise StoreError(f"cannot read spooled batch: {error}") from None


def _verdicts(arrays: dict[str, NDArray[Any]], texts: dict[str, Any]) -> Verdicts:
    starts = np.zeros(len(arrays["qname_len"]) + 1, np.int64)
    np.cumsum(arrays["qname_len"], out=starts[1:])
    if arrays["qname_len"].min(initial=0) < 0 or starts[-1] != len(arrays["qname"]):
        raise ValueError("names and their lengths do not match")
    client, ans_types, domain, numbers = _columns(arrays, texts, len(starts) - 1)
    reasons = [tuple(some) for some in texts["reasons"]]
    batch = QueryBatch(
        **{name: arrays[name] for name in _BATCH_ARRAYS},
        client=client,
        qname=Names(arrays["qname"].tobytes(), starts),
        ans_types=ans_types,
    )
    return Verdicts(
        features=arrays["features"],
        score=arrays["score"],
        severity=arrays["severity"],
        queries=batch,
        domain=domain,
        reasons=[reasons[number] for number in numbers],
        model_id=texts["model_id"],
        incidents=tuple(incident_of(row) for row in texts["incidents"]),
    )


def _columns(
    arrays: dict[str, NDArray[Any]], texts: dict[str, Any], count: int
) -> tuple[Sequence[str], Sequence[str], Sequence[str], Sequence[int]]:
    """Clients, answer types, domains, and the numbers of the reasons."""
    if "numbers" not in arrays:  # written before texts had numbers: one text a row
        return texts["client"], texts["ans_types"], texts["domain"], range(count)
    for one, name in zip(arrays["numbers"], _TEXTS, strict=True):
        if len(one) != count or (count and not 0 <= one.min() <= one.max() < len(texts[name])):
            raise ValueError("texts and their numbers do not match")
    *codes, reasons = arrays["numbers"]
    client, ans_types, domain = (Coded(one, texts[name]) for one, name in zip(codes, _TEXTS, strict=False))
    return client, ans_types, domain, reasons.tolist()
