"""The sink in front of the store: while the database is away, or slower than judging can wait, batches go to disk."""

from __future__ import annotations

import contextlib
import re
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.core.errors import BatchRefusedError, FencedError, QueueFullError, StoreError, StoreUnusableError
from agents.core.files import DiskQueue, Queued
from agents.core.types import Incident, Verdicts
from agents.store.codec import Features, decode, encode

LOG_INTERVAL_S = 60.0
"""Losses are logged at most this often, with the number; and that the store is away."""
MERGED_ROWS, MERGED_MAX = 16_384, 512
"""Rows and files that one transaction writes from disk, at most: a commit costs more than a small batch."""
OWED_MAX = 10_000
"""Incidents of lost batches that memory keeps until they can be written; the oldest is forgotten."""
CLOSE_WAIT_S = 3.0
"""How long `close` waits for the write that is under way; what it writes is on disk, and the store keeps an id once."""
WRITE_WAIT_S = 1.0
"""How long judging waits for one batch to be stored; then it goes to disk, as do those that follow until the database
takes a batch in less. One batch under way is the whole queue: what a killed process had in memory would be lost."""

log = structlog.get_logger(__name__)


_OLD = re.compile(r"[0-9]{16}-(?P<key>[0-9a-zA-Z]+)\.npz", re.ASCII)
"""Names of release 0.1."""


class BatchWriter(Protocol):
    """What the sink needs of the store."""

    def write(self, verdicts: Verdicts, batch_id: str) -> int: ...

    def write_all(self, batches: Sequence[tuple[Verdicts, str]]) -> int: ...

    def rows_of_batch(self, batch_id: str, first: float, last: float) -> int: ...


FILLING = 0.8
"""From this share of SPOOL_MAX_MB on, what can be read again later is not read now."""


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


def _whole(verdicts: Verdicts) -> tuple[Verdicts]:
    return (verdicts,)


class SpoolingSink:
    """A Sink that keeps what the store does not take. Raises StoreError when the spool cannot be opened."""

    name = "store"
    incidents_only = False

    def __init__(
        self,
        store: BatchWriter,
        spool_dir: Path,
        max_bytes: int,
        retry_s: float = 5.0,
        features: Features | None = None,
        write_wait_s: float = WRITE_WAIT_S,
        parts: Callable[[Verdicts], Iterable[Verdicts]] | None = None,
    ) -> None:
        """features: how they are computed again, so that the disk need not hold them. parts: how verdicts are divided
        that not all have one fence."""
        self.counts = SpoolCounts()
        self._features, self._parts = features, parts or _whole
        self.fenced: set[str] = set()  # slots for which something was refused: another detector has them
        self._store, self._write_wait_s = store, write_wait_s
        self._writer = ThreadPoolExecutor(1, "writer")
        self._writing: Future[int] | None = None  # a batch that took too long and is on disk by now
        self._slow = False
        self._spool = _queue(spool_dir, max_bytes)
        self._retry_s = retry_s
        self._lock = threading.Lock()  # of the spool and the counters; never held during a replay's write
        self._work = threading.Event()
        self._stop = threading.Event()
        self.fault = ""  # why neither store nor disk took the last batch; "" = one of them did
        self._owed: OrderedDict[str, Incident] = OrderedDict()  # of batches that were lost
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
    def is_filling(self) -> bool:
        """Whether most of the disk's share is in use: who can wait should."""
        return self._spool.share_full > FILLING

    @property
    def alive(self) -> bool:
        """Whether the thread that writes what waits lives."""
        return self._thread.is_alive()

    def accept(self, verdicts: Verdicts) -> None:
        """Store the batch, or keep it on disk; a batch that neither takes is counted as lost."""
        for part in self._parts(verdicts):
            self._accept(part)

    def _accept(self, verdicts: Verdicts) -> None:
        batch_id = verdicts.batch_id or uuid.uuid4().hex
        with self._lock:
            verdicts = self._with_owed(verdicts)
            if self._spool.entries or not self._write_now(verdicts, batch_id):
                self._keep(verdicts, batch_id)

    def _with_owed(self, verdicts: Verdicts) -> Verdicts:
        """The batch with the incidents of those that were lost: they need no query of their client to be written."""
        if not self._owed:
            return verdicts
        newer = {one.incident_id for one in verdicts.incidents}
        owed = tuple(one for one in self._owed.values() if one.incident_id not in newer)
        return replace(verdicts, incidents=(*owed, *verdicts.incidents))

    def _kept(self) -> None:
        """The store or the disk took a batch."""
        self.fault = ""
        self._owed.clear()

    def held(self, batch_id: str, ts: NDArray[np.float64]) -> tuple[int, int]:
        """What a process that was killed kept of a batch with these times: rows in the store, and rows on disk.

        (0, 0) where nothing is known, because the store is away.
        """
        with self._lock, contextlib.suppress(StoreError, OSError):
            waiting = self._spool.find(batch_id)
            if waiting is not None:
                return 0, len(decode(waiting.path.read_bytes(), self._features))
        with contextlib.suppress(StoreError):
            return self._store.rows_of_batch(batch_id, float(ts.min()), float(ts.max())), 0
        return 0, 0

    def _write_now(self, verdicts: Verdicts, batch_id: str) -> bool:
        """True when the batch is dealt with."""
        if self._slow or (self._writing and not self._writing.done()):
            return False
        self._writing = self._writer.submit(self._store.write, verdicts, batch_id)
        try:
            written = self._writing.result(self._write_wait_s)
            self._away_log_after = 0.0
            self.counts.stored += written
            self.counts.already += len(verdicts) - written
            self._kept()
        except FencedError:
            self._leave(verdicts)
        except BatchRefusedError as error:
            self._lose(len(verdicts), str(error))
        except TimeoutError:  # it may be stored yet: the store keeps one id once
            self._slow = True
            self._tell_away(StoreError(f"cannot write a batch: no answer within {self._write_wait_s:g} s"))
            return False
        except StoreError as error:
            self._tell_away(error)
            return False
        return True

    def _leave(self, verdicts: Verdicts) -> None:
        """Leave a batch to the detector that has its slot now."""
        assert verdicts.fence is not None
        self.fenced.add(verdicts.fence[0])
        self.counts.already += len(verdicts)

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
            self._spool.put(encode(verdicts, self._features), batch_id)
        except QueueFullError as error:
            self._owe(verdicts, str(error), "the spool has reached SPOOL_MAX_MB")
        except OSError as error:
            self._owe(verdicts, f"cannot spool a batch: {error.strerror}", error.strerror or "it cannot be written")
        else:
            self.counts.spooled += len(verdicts)
            self._kept()
        if len(self._spool):
            self._work.set()

    def _owe(self, verdicts: Verdicts, why: str, fault: str) -> None:
        """Lose the rows, and keep the incidents in memory."""
        self.fault = fault
        for one in verdicts.incidents:
            self._owed[one.incident_id] = one
            self._owed.move_to_end(one.incident_id)
        while len(self._owed) > OWED_MAX:
            self._owed.popitem(last=False)
        if len(verdicts):
            self._lose(len(verdicts), why)

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
        while not self._stop.is_set() and self._replay_some():
            continue
        if self.counts.replayed > before:
            log.info("spool_replayed", queries=self.counts.replayed - before, batches_left=len(self._spool))

    def _replay_some(self) -> bool:
        """Write the oldest batches in one transaction; True when there may be more to do at once."""
        with self._lock:
            waiting = self._spool.waiting()
            if not waiting:
                self._work.clear()
                return False
        found: list[tuple[Verdicts, Queued]] = []
        rows = 0
        for one in waiting[:MERGED_MAX]:
            verdicts = self._read(one)
            if verdicts is not None:
                found.append((verdicts, one))
                rows += len(verdicts)
            if rows >= MERGED_ROWS:
                break
        return not found or self._replay(found)

    def _read(self, one: Queued) -> Verdicts | None:
        """The batch in a file; None where it is damaged, and set aside."""
        try:
            return decode(one.path.read_bytes(), self._features)
        except OSError as error:
            self._set_aside(one, error.strerror or "unreadable")
        except StoreError as error:
            self._set_aside(one, str(error))
        return None

    def _replay(self, found: Sequence[tuple[Verdicts, Queued]]) -> bool:
        """Write batches; where the store refuses them, each by itself. True unless the store is away."""
        begun = time.monotonic()
        try:
            self._store.write_all([(verdicts, one.key) for verdicts, one in found])
        except BatchRefusedError as error:
            if len(found) > 1:
                return all(self._replay([each]) for each in found)
            if isinstance(error, FencedError):
                with self._lock:
                    self._leave(found[0][0])
                    self._spool.done(found[0][1])
                return True
            self._set_aside(found[0][1], str(error))
            return True
        except StoreError:
            return False
        with self._lock:
            for verdicts, one in found:
                self._spool.done(one)
                self.counts.replayed += len(verdicts)
            self._slow = time.monotonic() - begun > self._write_wait_s
        return True

    def _set_aside(self, one: Queued, why: str) -> None:
        with self._lock:
            self.counts.damaged += 1
            log.error("spooled_batch_set_aside", file=self._spool.set_aside(one), error=why)

    def close(self) -> None:
        """Stop; what waits on disk is written by the next process."""
        self._stop.set()
        self._work.set()
        self._thread.join(CLOSE_WAIT_S)
        self._writer.shutdown(wait=False)
        with self._lock:
            self._spool.close()
