"""Batches of verdicts as files of the spool."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.archive import MAGIC, arrays_of, pack, unpack
from agents.core.columns import Coded, Names, coded, packed
from agents.core.errors import StoreError
from agents.core.files import UNPACKED_MAX
from agents.core.npz import FormatError, json_of, object_of, read_npz
from agents.core.types import UNKNOWN, QueryBatch, Verdicts, incident_of, incident_row
from agents.store.rows import TS_MAX, reasons_by_number


class Features(NamedTuple):
    """How features are computed again. of: wire names -> shape (n, number of features)."""

    version: int
    of: Callable[[Names], NDArray[np.float32]]


_BATCH_ARRAYS = ("ts", "qtype", "qlen", "rcode", "ancount", "rlen", "ttl_min", "rtt_ms")
_KINDS = {
    "ts": "<f8",
    "qtype": "<u2",
    "qlen": "<i4",
    "rcode": "<i2",
    "ancount": "<i4",
    "rlen": "<i4",
    "ttl_min": "<i8",
    "rtt_ms": "<f4",
    "features": "<f4",
    "score": "<f4",
    "severity": "|u1",
    "qname": "|u1",
    "qname_len": "<i8",
    "numbers": "<i4",
    "cached": "|i1",
}
_TEXTS = ("client", "ans_types", "domain", "reasons")


def encode(verdicts: Verdicts, features: Features | None = None) -> bytes:
    """The batch as one file; without features where they can be computed again."""
    batch, names = verdicts.queries, packed(verdicts.queries.qname)
    arrays = {name: np.asarray(getattr(batch, name)) for name in _BATCH_ARRAYS}
    arrays |= {name: np.asarray(getattr(verdicts, name)) for name in ("score", "severity")}
    if features is None or features.version != verdicts.features_version:
        arrays["features"] = np.asarray(verdicts.features)
    if (batch.cached != UNKNOWN).any():
        arrays["cached"] = np.asarray(batch.cached)
    arrays |= {"qname": names.array, "qname_len": np.diff(names.starts)}
    columns = [coded(batch.client), coded(batch.ans_types), coded(verdicts.domain)]
    numbers, reasons = reasons_by_number(verdicts.reasons)
    arrays["numbers"] = np.array([*(column.codes for column in columns), numbers], np.int32)
    texts: dict[str, Any] = dict(zip(_TEXTS, [*(column.values for column in columns), reasons], strict=True))
    texts |= {"model_id": verdicts.model_id, "features_version": verdicts.features_version}
    texts |= {"width": verdicts.features.shape[1]}
    texts |= {"incidents": [incident_row(incident) for incident in verdicts.incidents]}
    if verdicts.imported_at is not None:
        texts |= {"source": verdicts.source, "imported_at": verdicts.imported_at}
    if verdicts.fence is not None:
        texts |= {"fence": list(verdicts.fence)}
    return pack(texts, {name: array.astype(_KINDS[name], copy=False) for name, array in arrays.items()})


def decode(data: bytes, features: Features | None = None) -> Verdicts:
    """The batch again. Raises StoreError for anything that `encode` did not write whole."""
    try:
        if data.startswith(MAGIC):
            texts, arrays = _unpacked(data)
        else:  # an npz file of release 0.1
            arrays = read_npz(data, UNPACKED_MAX)
            texts = json_of(arrays, "texts")
        _check(arrays, texts)
        incidents = tuple(incident_of(row) for row in texts["incidents"])
        fence = _fence_of(texts["fence"]) if "fence" in texts else None
    except FormatError as error:
        raise StoreError(f"cannot read spooled batch: {error}") from None
    starts = np.zeros(len(arrays["qname_len"]) + 1, np.int64)
    np.cumsum(arrays["qname_len"], out=starts[1:])
    names = Names(arrays["qname"].tobytes(), starts)
    version = texts.get("features_version", 1)  # release 0.1 wrote none
    if "features" not in arrays:
        if features is None:
            raise StoreError("cannot read spooled batch: its features cannot be computed here")
        arrays["features"], version = features.of(names), features.version
    client, ans_types, domain, reasons = _columns(arrays, texts)
    batch = QueryBatch(
        **{name: arrays[name] for name in _BATCH_ARRAYS},
        client=client,
        qname=names,
        ans_types=ans_types,
        **({"cached": arrays["cached"]} if "cached" in arrays else {}),
    )
    return Verdicts(
        features=arrays["features"],
        score=arrays["score"],
        severity=arrays["severity"],
        queries=batch,
        domain=domain,
        reasons=reasons,
        model_id=texts["model_id"],
        incidents=incidents,
        features_version=version,
        source=texts.get("source", ""),
        imported_at=texts.get("imported_at"),
        fence=fence,
    )


def _unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    archive = unpack(data, UNPACKED_MAX)
    texts = object_of(archive.line)
    lengths = texts.get("lengths")
    if not isinstance(lengths, dict) or not all(isinstance(length, int) for length in lengths.values()):
        raise FormatError("its arrays have no lengths")
    arrays = arrays_of(archive.body, lengths, {name: np.dtype(kind) for name, kind in _KINDS.items()})
    if "numbers" in arrays:
        arrays["numbers"] = _shaped(arrays["numbers"], len(_TEXTS), lengths.get("ts"))
    if "features" in arrays:
        arrays["features"] = _shaped(arrays["features"], lengths.get("ts"), texts.get("width"))
    return texts, arrays


def _shaped(array: NDArray[Any], *shape: Any) -> NDArray[Any]:
    if not all(isinstance(size, int) and size >= 0 for size in shape) or math.prod(shape) != array.size:
        raise FormatError("columns have different lengths")
    return array.reshape(shape)


def _check(arrays: dict[str, NDArray[Any]], texts: dict[str, Any]) -> None:
    """Raise FormatError unless every array and text is there, of its kind, and all have the same length."""
    numbers = (*_BATCH_ARRAYS, "score", "severity", "qname_len")
    missing = {"qname", *numbers} - arrays.keys()
    wrong = sorted(missing | {name for name in arrays.keys() & _KINDS.keys() if arrays[name].dtype.str != _KINDS[name]})
    if wrong:
        raise FormatError(f"array {wrong[0]} is missing or of another kind")
    count = len(arrays["qname_len"])
    shapes = {arrays[name].shape for name in numbers}
    features = arrays.get("features", np.empty((count, 0), np.float32))
    if "cached" in arrays:
        shapes.add(arrays["cached"].shape)
    if shapes != {(count,)} or features.ndim != 2 or len(features) != count:
        raise FormatError("columns have different lengths")
    if arrays["qname"].ndim != 1 or arrays["qname_len"].min(initial=0) < 0:
        raise FormatError("names and their lengths do not match")
    if int(arrays["qname_len"].sum()) != len(arrays["qname"]):
        raise FormatError("names and their lengths do not match")
    for name in (*_TEXTS, "incidents"):
        if not isinstance(texts.get(name), list):
            raise FormatError(f"there is no list of {name}")
    if not all(isinstance(value, str) for name in _TEXTS[:3] for value in texts[name]):
        raise FormatError("a text is none")
    if not all(isinstance(some, list) and all(isinstance(one, str) for one in some) for some in texts["reasons"]):
        raise FormatError("a reason is none")
    version = texts.get("features_version", 1)
    if not isinstance(texts.get("model_id"), str) or not isinstance(version, int) or not 0 < version < 1 << 15:
        raise FormatError("model or version of the features is missing")
    imported_at = texts.get("imported_at")
    if not isinstance(texts.get("source", ""), str) or not (imported_at is None or _is_time(imported_at)):
        raise FormatError("the mark of a replay is none")
    _check_numbers(arrays, texts, count)


def _fence_of(row: Any) -> tuple[str, int]:
    if not isinstance(row, list) or len(row) != 2 or not isinstance(row[1], int):
        raise FormatError("the token of a slot is none")
    return str(row[0]), row[1]


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < TS_MAX


def _check_numbers(arrays: dict[str, NDArray[Any]], texts: dict[str, Any], count: int) -> None:
    if "numbers" not in arrays:
        if any(len(texts[name]) != count for name in _TEXTS):
            raise FormatError("columns have different lengths")
        return
    numbers = arrays["numbers"]
    if numbers.dtype != np.int32 or numbers.shape != (len(_TEXTS), count):
        raise FormatError("texts and their numbers do not match")
    for one, name in zip(numbers, _TEXTS, strict=True):
        if count and not 0 <= one.min() <= one.max() < len(texts[name]):
            raise FormatError("texts and their numbers do not match")


def _columns(
    arrays: dict[str, NDArray[Any]], texts: dict[str, Any]
) -> tuple[Sequence[str], Sequence[str], Sequence[str], list[tuple[str, ...]]]:
    """Clients, answer types, domains and reasons."""
    reasons = [tuple(some) for some in texts["reasons"]]
    if "numbers" not in arrays:  # written before texts had numbers: one text a row
        return texts["client"], texts["ans_types"], texts["domain"], reasons
    *codes, numbers = arrays["numbers"]
    client, ans_types, domain = (Coded(one, texts[name]) for one, name in zip(codes, _TEXTS, strict=False))
    return client, ans_types, domain, [reasons[number] for number in numbers.tolist()]
