"""From batches to sinks: what stands behind a listener's queue, with a tick for what happens without queries."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import structlog

from agents import bootstrap, known, snapshot
from agents.alerting import AlertSink
from agents.budget import DAY_S, load_peaks
from agents.errors import AgentsError
from agents.fanout import Fanout
from agents.files import write_atomic
from agents.policy import bounds
from agents.settings import Settings
from agents.store.spool import SpoolingSink
from agents.types import QueryBatch

TICK_S = 1.0
"""How often a new model and incidents that have become quiet are looked for."""
SNAPSHOT_S = 60.0
"""How often the windows are written down: kill -9 loses at most so much of them."""
_log = structlog.get_logger()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


class Judge:
    """The consumer of the listener's queue."""

    def __init__(self, settings: Settings) -> None:
        self._registry = bootstrap.registry_of(settings)
        store = bootstrap.store_of(settings)
        self.detector = bootstrap.detector_of(settings, self._registry.current())
        self._snapshot = settings.state_dir / "windows.snapshot"
        self._peaks = bootstrap.peaks_path(settings)
        self._known = bootstrap.known_path(settings)
        self._known_stamp: tuple[tuple[int, int] | None, int] | None = None
        self._restore(store)
        self._poll_known()
        self.spool = SpoolingSink(store, settings.state_dir / "spool", settings.spool_max_mb << 20)
        self.alerts = AlertSink(bootstrap.alert_manager_of(settings))
        self.fanout = Fanout([self.spool, self.alerts])
        self.scored = 0
        self._saved = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick_on, name="ticker", daemon=True)
        self._ticker.start()

    def _restore(self, store: Any) -> None:
        try:
            store.migrate()
            self.detector.incidents.restore(store.open_incidents())
        except AgentsError as error:
            _log.warning("store_unavailable_at_start", error=str(error))
        for path, take in ((self._snapshot, self._take_windows), (self._peaks, self._take_peaks)):
            try:
                take(path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                _log.warning("state_not_restored", path=str(path), error=str(error))

    def _take_windows(self, path: Path) -> None:
        flows = self.detector.flows
        _log.info("windows_restored", flows=snapshot.load(path.read_bytes(), flows))
        self.detector.familiar.rebuild(flows.flows.items())

    def _take_peaks(self, path: Path) -> None:
        self.detector.peaks = load_peaks(path.read_bytes())

    def _poll_known(self) -> None:
        """Take up the operator's list where the file changed, or a day began on which entries may have ended."""
        stamp = (_stamp(self._known), int(time.time() // DAY_S))
        if stamp == self._known_stamp:
            return
        self._known_stamp = stamp
        try:
            entries = known.load(self._known)
        except AgentsError as error:
            _log.warning("known_services_not_read", error=str(error))
            return
        self.detector.reload_services(known.services_at(entries, time.time()))

    def consume(self, batch: QueryBatch) -> None:
        """Judge one batch and give it to the sinks."""
        with self._lock:
            verdicts = self.detector.detect(batch)
            self.scored += len(batch)
            self.fanout.accept(verdicts)

    def _tick_on(self) -> None:
        while not self._stop.wait(TICK_S):
            self._poll_known()
            model = self._registry.poll()
            if model is not None:
                self.detector.reload(model)
                _log.info("model_reloaded", model_id=model.model_id)
            with self._lock:
                closed = self.detector.tick(time.time())
                if closed is not None:
                    self.fanout.accept(closed)
            if time.monotonic() - self._saved >= SNAPSHOT_S:
                self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        with self._lock:
            windows, peaks = snapshot.dump(self.detector.flows), self.detector.peaks.dump()
        try:
            write_atomic(self._snapshot, windows, mode=0o600)
            write_atomic(self._peaks, peaks, mode=0o600)
        except OSError as error:
            _log.warning("windows_not_saved", error=str(error))

    def close(self) -> None:
        """Write the windows down, and close the sinks."""
        self._stop.set()
        self._ticker.join()
        self._save()
        self.fanout.close()

    def state(self) -> dict[str, Any]:
        """What the listener's sign of life tells."""
        return {
            "model_id": self.detector.model.model_id,
            "model_origin": self._registry.origin,
            "limits": {"factor": self.detector.model.limit_factor, **bounds(self.detector.model.limit_factor)},
            "scored": self.scored,
            "flows": len(self.detector.flows),
            "flows_refused": self.detector.flows.refused,
            "incidents_open": len(self.detector.incidents.open),
            "sink_failures": dict(self.fanout.failures),
            "spool": dataclasses.asdict(self.spool.counts) | {"waiting": self.spool.waiting},
        }
