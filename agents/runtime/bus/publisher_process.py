"""In the place of a detector, where queries are judged elsewhere: from the rings to the disk, from there to the bus."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from agents.runtime.heartbeat import PARTS, STILL_S, DetectorHealth, Heartbeat
from agents.runtime.signals import Beat, crashes_end
from agents.store.sql import LOOK_S
from agents.stream.answer_key import ANSWER_KEY_FILE, HeldKey
from agents.stream.bus.messages import RECORDS_MAX
from agents.stream.bus.options import BusOptions
from agents.stream.bus.outgoing import BusSender, OutgoingSpool, SpoolWatch
from agents.stream.shared import SharedStream
from agents.stream.slot_kernels import SLOTS

BATCH_MAX, BATCH_WAIT_S = SLOTS * RECORDS_MAX, 1.0
"""Queries that one file holds at most, and how long it waits for them: a message of few costs a detector as much as a
full one, some milliseconds."""
FLUSH_S = 8.0
"""At its end it sends for so long what waits on disk; the rest is sent after the next start."""
ROOM_S = 0.2
"""Where the spool is full, it is looked at so often."""
_log = structlog.get_logger()


@dataclass(frozen=True)
class Publishing:
    """How a publisher works. folder: of its spool. state_dir: of the heartbeat."""

    options: BusOptions
    folder: Path
    state_dir: Path
    in_force: Mapping[str, Any]


class PublisherLoop:
    """Batches out of the rings into the spool, each once, and the sender behind it."""

    def __init__(self, publishing: Publishing, stream: SharedStream, names: list[str]) -> None:
        """names: of the processes that hear queries. Raises AgentsError where the spool cannot be used."""
        self._stream, self._names, options = stream, names, publishing.options
        self._spool = OutgoingSpool(publishing.folder, options.spool_bytes, options.slots, options.sending_site)
        self._sender = BusSender(options, self._spool, HeldKey(publishing.state_dir / ANSWER_KEY_FILE))
        self._watch, self._last_batch_at = SpoolWatch(), 0.0

    def run(self, stop: threading.Event, beat: Beat) -> None:
        """Work until `stop` is set and nothing waits, or nothing more finds room."""
        while True:
            beat(self._stream.take_s)
            self._sender.must_work()
            intent = self._stream.begun(stop)
            if intent is None:
                if stop.is_set():
                    break
                continue
            records = self._stream.records(intent.counts)
            beat(LOOK_S)
            file, kept = self._watch.put(self._spool, intent.batch_id, records)
            while not kept:  # the rings fill up meanwhile, and drop as ever
                if stop.wait(ROOM_S):
                    return
                beat(LOOK_S)
                file, kept = self._watch.put(self._spool, intent.batch_id, records)
            if file is not None:
                self._sender.add(file)
            self._stream.commit(scored=len(records), spooled=len(records))
            self._last_batch_at = time.time()
        beat(FLUSH_S)
        self._sender.flush(FLUSH_S)

    def health(self) -> DetectorHealth:
        """What the heartbeat says: `scored` counts what was taken over, `spooled` what is or was on this disk."""
        streamed = self._stream.health()
        processes = streamed["processes"]
        hears = all(processes[name]["up"] and processes[name]["still_s"] < STILL_S for name in self._names)
        return DetectorHealth(
            **streamed,
            judging=hears and self._sender.alive,
            last_batch_at=self._last_batch_at,
            bus=self._sender.state(),
            disk={"stream_spool": self._watch.error} if self._watch.error else {},
        )

    def close(self) -> None:
        """Stop the sender."""
        self._sender.close()
        self._spool.close()


def run_publisher(
    publishing: Publishing, stream: SharedStream, names: list[str], ready: Callable[[], None], beat: Beat
) -> int:
    """The process, until SIGTERM."""
    stop = threading.Event()
    signal.set_wakeup_fd(stream.wakeup_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def end() -> None:
        stop.set()
        stream.wake()

    with crashes_end(end) as crashed:
        loop = PublisherLoop(publishing, stream, names)
        path = publishing.state_dir / PARTS["listener"]
        heartbeat = Heartbeat(path, lambda: loop.health().to_json(), in_force=publishing.in_force)
        try:
            heartbeat.start()
            ready()
            loop.run(stop, beat)
        finally:
            loop.close()
            heartbeat.stop()
    return int(bool(crashed))
