"""The sink in front of the store: while the database is away, batches go to disk."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.core.columns import Coded, Names, coded, packed
from agents.core.errors import BatchRefusedError, QueueFullError, StoreError, StoreUnusableError
from agents.core.files import UNPACKED_MAX, DiskQueue, Queued
from agents.core.npz import FormatError, json_of, read_npz
from agents.core.types import QueryBatch, Verdicts, incident_of, incident_row
from agents.store.rows import reasons_by_number

_BATCH_ARRAYS = ("ts", "qtype", "qlen", "rcode", "ancount", "rlen", "ttl_min", "rtt_ms")
_VERDICT_ARRAYS = ("features", "score", "severity")
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
    "qname_len": "<i8",
}
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
    texts |= {"model_id": verdicts.model_id, "features_version": verdicts.features_version}
    texts |= {"incidents": [incident_row(incident) for incident in verdicts.incidents]}
    arrays["texts"] = np.frombuffer(json.dumps(texts).encode(), dtype=np.uint8)
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def decode(data: bytes) -> Verdicts:
    """The batch again. Raises StoreError for anything that `encode` did not write whole."""
    try:
        arrays = read_npz(data, UNPACKED_MAX)
        texts = json_of(arrays, "texts")
        _check(arrays, texts)
        incidents = tuple(incident_of(row) for row in texts["incidents"])
    except ValueError as error:
        raise StoreError(f"cannot read spooled batch: {error}") from None
    starts = np.zeros(len(arrays["qname_len"]) + 1, np.int64)
    np.cumsum(arrays["qname_len"], out=starts[1:])
    client, ans_types, domain, reasons = _columns(arrays, texts)
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
        reasons=reasons,
        model_id=texts["model_id"],
        incidents=incidents,
        features_version=texts.get("features_version", 1),  # release 0.1 wrote none
    )


def _check(arrays: dict[str, NDArray[Any]], texts: dict[str, Any]) -> None:
    """Raise ValueError unless every array and text is there, of its kind, and all have the same length."""
    numbers = (*_BATCH_ARRAYS, *_VERDICT_ARRAYS, "qname_len")
    missing = {"qname", *numbers} - arrays.keys()
    wrong = sorted(missing | {name for name in numbers if name in arrays and arrays[name].dtype.str != _KINDS[name]})
    if wrong:
        raise FormatError(f"array {wrong[0]} is missing or of another kind")
    count = len(arrays["qname_len"])
    shapes = {name: arrays[name].shape for name in numbers if name != "features"}
    if set(shapes.values()) != {(count,)} or arrays["features"].ndim != 2 or len(arrays["features"]) != count:
        raise FormatError("columns have different lengths")
    if arrays["qname"].dtype != np.uint8 or arrays["qname"].ndim != 1 or arrays["qname_len"].min(initial=0) < 0:
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
    _check_numbers(arrays, texts, count)


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


LOG_INTERVAL_S = 60.0
"""Losses are logged at most this often, with the number; and that the store is away."""
CLOSE_WAIT_S = 10.0
"""How long `close` waits for the write that is under way."""

log = structlog.get_logger(__name__)


_OLD = re.compile(r"[0-9]{16}-(?P<key>[0-9a-zA-Z]+)\.npz", re.ASCII)
"""Names of release 0.1."""


class BatchWriter(Protocol):
    """What the sink needs of the store."""

    def write(self, verdicts: Verdicts, batch_id: str) -> int: ...

    def rows_of_batch(self, batch_id: str, first: float, last: float) -> int: ...


@dataclass(slots=True)
class SpoolCounts:
    """Queries, but for `damaged`, which counts files. replayed is also a part of spooled.

    already: in the store before they were given to it: a process was killed after it had stored them.
    """

    stored: int = 0
    spooled: int = 0
    replayed: int = 0
    lost: int = 0
    damaged: int = 0
    already: int = 0


def _queue(folder: Path, max_bytes: int) -> DiskQueue:
    try:
        return DiskQueue(folder, ".npz", max_bytes=max_bytes, sync=True, old=_OLD)
    except BlockingIOError:
        raise StoreError(f"cannot use spool {folder}: another process holds it (listen or run)") from None
    except OSError as error:
        raise StoreError(f"cannot use spool {folder}: {error.strerror}") from None


class SpoolingSink:
    """A Sink that keeps what the store does not take. Raises StoreError when the spool cannot be opened."""

    name = "store"
    incidents_only = False

    def __init__(self, store: BatchWriter, spool_dir: Path, max_bytes: int, retry_s: float = 5.0) -> None:
        self.counts = SpoolCounts()
        self._store = store
        self._spool = _queue(spool_dir, max_bytes)
        self._retry_s = retry_s
        self._lock = threading.Lock()  # of the spool and the counters; never held during a replay's write
        self._work = threading.Event()
        self._stop = threading.Event()
        self._lost_logged = 0
        self._log_after = self._away_log_after = 0.0
        if len(self._spool):
            log.info("spool_found", batches=len(self._spool))
            self._work.set()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Batches on disk."""
        return len(self._spool)

    @property
    def alive(self) -> bool:
        """Whether the thread that writes what waits lives."""
        return self._thread.is_alive()

    def accept(self, verdicts: Verdicts) -> None:
        """Store the batch, or keep it on disk; a batch that neither takes is counted as lost."""
        batch_id = verdicts.batch_id or uuid.uuid4().hex
        with self._lock:
            if not self._spool.entries and self._write_now(verdicts, batch_id):
                return
            self._keep(verdicts, batch_id)

    def held(self, batch_id: str, ts: NDArray[np.float64]) -> tuple[int, int]:
        """What a process that was killed kept of a batch with these times: rows in the store, and rows on disk.

        (0, 0) where nothing is known, because the store is away.
        """
        with self._lock, contextlib.suppress(StoreError, OSError):
            waiting = self._spool.find(batch_id)
            if waiting is not None:
                return 0, len(decode(waiting.path.read_bytes()))
        with contextlib.suppress(StoreError):
            return self._store.rows_of_batch(batch_id, float(ts.min()), float(ts.max())), 0
        return 0, 0

    def _write_now(self, verdicts: Verdicts, batch_id: str) -> bool:
        """True when the batch is dealt with."""
        try:
            written = self._store.write(verdicts, batch_id)
            self._away_log_after = 0.0
            self.counts.stored += written
            self.counts.already += len(verdicts) - written
        except BatchRefusedError as error:
            self._lose(len(verdicts), str(error))
        except StoreError as error:
            self._tell_away(error)
            return False
        return True

    def note_away(self, error: StoreError) -> None:
        """Somebody else found the store away: tell it as if a batch had."""
        with self._lock:
            self._tell_away(error)

    def _tell_away(self, error: StoreError) -> None:
        """Log it, once in a while: where the disk takes nothing either, each batch comes here."""
        if time.monotonic() < self._away_log_after:
            return
        self._away_log_after = time.monotonic() + LOG_INTERVAL_S
        if isinstance(error, StoreUnusableError):
            log.error("store_unusable", error=str(error))
        else:
            log.warning("store_went_away", error=str(error))

    def _keep(self, verdicts: Verdicts, batch_id: str) -> None:
        try:
            self._spool.put(encode(verdicts), batch_id)
        except QueueFullError as error:
            self._lose(len(verdicts), str(error))
        except OSError as error:
            self._lose(len(verdicts), f"cannot spool a batch: {error.strerror}")
        else:
            self.counts.spooled += len(verdicts)
        if len(self._spool):
            self._work.set()

    def _lose(self, count: int, why: str) -> None:
        self.counts.lost += count
        if time.monotonic() >= self._log_after:
            log.error("verdicts_lost", count=self.counts.lost - self._lost_logged, error=why)
            self._lost_logged = self.counts.lost
            self._log_after = time.monotonic() + LOG_INTERVAL_S

    def _run(self) -> None:
        pause = 0.0 if self._work.is_set() else self._retry_s
        while not self._stop.is_set():
            self._work.wait()
            self._stop.wait(pause)
            if not self._stop.is_set():
                self._drain()
            pause = self._retry_s

    def _drain(self) -> None:
        """Write what waits, oldest first, until nothing waits or the store is away."""
        before = self.counts.replayed
        while not self._stop.is_set() and self._replay_one():
            continue
        if self.counts.replayed > before:
            log.info("spool_replayed", queries=self.counts.replayed - before, batches_left=len(self._spool))

    def _replay_one(self) -> bool:
        """True when there may be more to do at once."""
        with self._lock:
            oldest = self._spool.oldest()
            if oldest is None:
                self._work.clear()
                return False
        try:
            verdicts = decode(oldest.path.read_bytes())
        except OSError as error:
            return self._set_aside(oldest, error.strerror or "unreadable")
        except StoreError as error:
            return self._set_aside(oldest, str(error))
        return self._replay(verdicts, oldest)

    def _replay(self, verdicts: Verdicts, oldest: Queued) -> bool:
        try:
            self._store.write(verdicts, oldest.key)
        except BatchRefusedError as error:
            return self._set_aside(oldest, str(error))
        except StoreError:
            return False
        with self._lock:
            self._spool.done(oldest)
            self.counts.replayed += len(verdicts)
        return True

    def _set_aside(self, one: Queued, why: str) -> bool:
        with self._lock:
            self.counts.damaged += 1
            log.error("spooled_batch_set_aside", file=self._spool.set_aside(one), error=why)
        return True

    def close(self) -> None:
        """Stop; what waits on disk is written by the next process."""
        self._stop.set()
        self._work.set()
        self._thread.join(CLOSE_WAIT_S)
        with self._lock:
            self._spool.close()
