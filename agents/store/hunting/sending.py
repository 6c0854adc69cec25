"""The sink that has queries sent to ClickHouse: judging only writes a small file, a thread sends.

What waits is on disk, in batches; the thread joins them to blocks. Which batches are a block is noted before it is
sent: one that is sent again, by the next process perhaps, has the same token, and the server keeps it once.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
import time
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from agents.core.columns import Names
from agents.core.errors import QueueFullError, StoreError
from agents.core.files import PRIVATE_MODE, DiskQueue, Queued, json_state, write_atomic
from agents.core.types import UNKNOWN, Verdicts
from agents.store.hunting.clickhouse import ClickHouse
from agents.store.hunting.columns import STORED_NAMES
from agents.store.hunting.tables import SENT_NAMES
from agents.store.rows import CACHED, NUMBERS, TEXTS, ascii_of, query_columns
from agents.store.spool import LOG_INTERVAL_S

BLOCK_FILES = 512
"""Batches of a block, at most."""
BLOCK_BYTES = 8 << 20
"""Bytes of packed batches after which a block has no more of them."""
EVERY_S = 1.0
"""Seconds between two blocks while nothing is behind: a server merges what comes in small pieces."""
PAUSE_S, PAUSE_MAX_S = 2.0, 60.0
"""Seconds to the next try after a failure, twice as many each time up to the most."""
REMEMBERED = 4_096
"""Batches that were sent, whose repetition by a process that was killed is known."""
CLOSE_S = 3.0
NOTE, SENT = "block.json", "sent.json"
_UNKNOWN_IS_NULL = frozenset({"rcode", "ancount", "qlen", "rlen", "ttl_min"})
_log = structlog.get_logger()


@dataclass(slots=True)
class HuntCounts:
    """Queries, but for `failed`, which counts tries, and `damaged`, which counts files."""

    sent: int = 0
    lost: int = 0
    failed: int = 0
    damaged: int = 0


class HuntSink:
    """A Sink that never waits for the server. Raises StoreError where its folder cannot be used."""

    name = "hunt"
    incidents_only = False

    def __init__(
        self,
        server: ClickHouse,
        folder: Path,
        days: int,
        max_bytes: int,
        every_s: float = EVERY_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        self.counts = HuntCounts()
        self._server, self._folder, self._days = server, folder, days
        self._every_s, self._pause_s = every_s, pause_s
        try:
            self._queue = DiskQueue(folder, ".json.z", max_bytes=max_bytes, sync=False)
        except BlockingIOError:
            raise StoreError(f"cannot use {folder}: another process holds it (listen or run)") from None
        except OSError as error:
            raise StoreError(f"cannot use {folder}: {error.strerror}") from None
        self._sent: OrderedDict[str, None] = OrderedDict.fromkeys(json_state(folder / SENT).get("batches", ()))
        self.error, self._failing, self._log_after = "", 0, 0.0
        self._stop, self._work = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="hunt", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread that sends lives."""
        return self._thread.is_alive()

    def state(self) -> dict[str, Any]:
        """For health: counts, batches that wait, failures in a row, and the last of them in words."""
        return {**asdict(self.counts), "waiting": len(self._queue), "failures": self._failing, "error": self.error}

    def accept(self, verdicts: Verdicts) -> None:
        """Put the batch on disk; one that the disk does not take is counted as lost."""
        batch_id = verdicts.batch_id or uuid.uuid4().hex
        if not len(verdicts) or verdicts.imported_at is not None or batch_id in self._sent:
            return
        try:
            self._queue.put(packed_batch(verdicts, batch_id), batch_id)
        except (QueueFullError, OSError) as error:
            self.counts.lost += len(verdicts)
            self._tell(f"cannot keep queries for ClickHouse: {getattr(error, 'strerror', None) or error}")
        self._work.set()

    def close(self) -> None:
        """Stop; what waits is sent by the next process."""
        self._stop.set()
        self._work.set()
        self._thread.join(CLOSE_S)
        self._queue.close()
        self._server.close()

    def _run(self) -> None:
        if len(self._queue):
            self._work.set()
        pause = 0.0
        while not self._stop.wait(pause):
            self._work.wait()
            self._work.clear()
            pause = self._every_s
            while len(self._queue) and not self._stop.is_set():
                if not self._send_some():
                    pause = min(self._pause_s * 2 ** min(self._failing - 1, 10), PAUSE_MAX_S)
                    self._work.set()
                    break

    def _send_some(self) -> bool:
        """Send the next block; False where that failed."""
        try:
            members, token = self._block()
            body, rows, read = self._body(members)
            if rows:
                self._server.make(self._days)
                self._server.send(body, token)
            self._note_sent([one.key for one in members])
            for one in read:
                self._queue.done(one)
            (self._folder / NOTE).unlink(missing_ok=True)
        except (StoreError, OSError) as error:
            self.counts.failed += 1
            self._failing += 1
            self.error = str(error)
            self._tell(self.error)
            return False
        self.counts.sent += rows
        self._failing, self.error = 0, ""
        return True

    def _block(self) -> tuple[list[Queued], str]:
        """The batches of the block that was begun, or of a new one, which is noted; and its token."""
        noted, waiting = json_state(self._folder / NOTE), {one.key: one for one in self._queue.waiting()}
        if noted.get("token") and (left := [waiting[key] for key in noted.get("batches", ()) if key in waiting]):
            return left, str(noted["token"])
        members, size = [], 0
        for one in list(waiting.values())[:BLOCK_FILES]:
            members.append(one)
            size += one.path.stat().st_size if one.path.exists() else 0
            if size >= BLOCK_BYTES:
                break
        keys = [one.key for one in members]
        token = hashlib.sha256(" ".join(keys).encode()).hexdigest()
        write_atomic(self._folder / NOTE, json.dumps({"token": token, "batches": keys}).encode(), PRIVATE_MODE, False)
        return members, token

    def _body(self, members: Sequence[Queued]) -> tuple[bytes, int, list[Queued]]:
        """The block as it is sent, its rows, and the batches that could be read: others are set aside."""
        parts, rows, read = [], 0, []
        for one in members:
            try:
                head, _, columns = zlib.decompress(one.path.read_bytes()).partition(b"\n")
                rows += int(head)
            except (zlib.error, ValueError, FileNotFoundError) as error:
                self.counts.damaged += 1
                _log.error("hunt_batch_set_aside", file=self._queue.set_aside(one), error=type(error).__name__)
            else:
                parts.append(columns)
                read.append(one)
        return gzip.compress(b"\n".join(parts), 1), rows, read

    def _note_sent(self, keys: Sequence[str]) -> None:
        """Before the batches go: a process that was killed, and judges one again, must not send it again."""
        for key in keys:
            self._sent[key] = None
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
        data = json.dumps({"batches": list(self._sent)}).encode()
        write_atomic(self._folder / SENT, data, PRIVATE_MODE, False)

    def _tell(self, error: str) -> None:
        if time.monotonic() >= self._log_after:
            self._log_after = time.monotonic() + LOG_INTERVAL_S
            _log.warning("hunt_not_sent", error=error, lost=self.counts.lost, waiting=len(self._queue))


def packed_batch(verdicts: Verdicts, batch_id: str) -> bytes:
    """A batch as its file has it: the number of rows, and JSON by columns."""
    stored = query_columns(verdicts, batch_id)
    columns: dict[str, list[Any]] = {
        name: column.tolist() for name, column in zip(NUMBERS, stored.numbers, strict=True) if name in STORED_NAMES
    }
    for name, column in zip(TEXTS, stored.texts, strict=True):
        if name in STORED_NAMES:
            columns[name] = ascii_of(column) if isinstance(column, Names) else list(column)
    columns["level"] = columns["severity"]
    columns["ts"] = [f"{at:.6f}" for at in columns["ts"]]
    columns["cached"] = [CACHED.get(one) for one in columns["cached"]]
    columns["rtt_ms"] = [None if one is None or np.isnan(one) else one for one in columns["rtt_ms"]]
    for name in _UNKNOWN_IS_NULL:
        columns[name] = [None if one == UNKNOWN else one for one in columns[name]]
    text = json.dumps({name: columns[name] for name in SENT_NAMES}, allow_nan=False)
    return zlib.compress(f"{len(verdicts)}\n{text}".encode(), 1)
