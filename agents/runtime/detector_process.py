"""What runs in the detector process: batches out of the rings are judged, stored and alerted."""

from __future__ import annotations

import dataclasses
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.alerting.manager import ALERT_COUNTS, AlertSink
from agents.alerting.outbox import Outbox
from agents.core.errors import AgentsError, StoreError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.types import Incident, QueryBatch
from agents.detection import known_services, snapshot
from agents.detection.detector import empty_verdicts
from agents.detection.limits import DAY_S, bounds, load_peaks
from agents.runtime import bootstrap, health
from agents.runtime.fanout import Fanout
from agents.runtime.listener_process import listener_names
from agents.runtime.shedding import EVERYTHING, NO_EXPLANATION, SAMPLED, level_at, sampled, unexplained
from agents.runtime.signals import crashes_end
from agents.settings import Settings
from agents.store.spool import SpoolingSink
from agents.stream.ledger import ATTEMPTS_MAX, CARRIED, Intent, Shared
from agents.stream.record import batch_of_records

TICK_S = 1.0
"""How often a new model and incidents that have become quiet are looked for."""
SNAPSHOT_S = 60.0
"""How often the windows are written down: kill -9 loses at most so much of them."""
STORE_RETRY_S = 5.0
"""A database that was away at start is tried again after this many seconds."""
FIRST_TRY_S = 10.0
"""Judging waits so long for the first try: incidents that are open should be known before it begins."""
LOGGED_MAX = 3
"""Incidents that one batch may write a line of the log for; the last line says how many more there are."""
_log = structlog.get_logger()


class Outcome(NamedTuple):
    """What became of a batch, in queries. rows: given to the sinks; what is neither stored nor spooled is lost."""

    rows: int
    stored: int
    spooled: int
    unexplained: int  # their reasons were left out


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


class Judge:
    """The consumer of what the listeners saw."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = bootstrap.registry_of(settings)
        self._store = bootstrap.store_of(settings)
        self.detector = bootstrap.detector_of(
            settings, self._registry.current(), (secrets.randbits(64), secrets.randbits(64))
        )
        self._snapshot = settings.state_dir / "windows.snapshot"
        self._peaks = bootstrap.peaks_path(settings)
        self._known = bootstrap.known_path(settings)
        self._known_stamp: tuple[tuple[int, int] | None, int] | None = None
        self._known_now = self._read_known()
        self._restore_files()
        self.spool = SpoolingSink(self._store, settings.state_dir / "spool", settings.spool_max_mb << 20)
        self._manager = bootstrap.alert_manager_of(settings)
        self.alerts = AlertSink(self._manager, Outbox(settings.state_dir / "outbox"))
        self.fanout = Fanout([self.alerts, self.spool])  # what is stored counts as told after a restart
        self._saved = time.monotonic()
        self._lock = threading.Lock()
        # open incidents that the log knows, by client and domain: id and severity
        self._logged: dict[tuple[str, str], tuple[str, int]] = {}
        self._store_opened, self._store_tried_at = False, float("-inf")
        self._tried = threading.Event()
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick_on, name="ticker", daemon=True)

    def start(self) -> None:
        """Begin to tick; the first thing is to open the database, which DNS does not wait for."""
        self._ticker.start()

    @property
    def alive(self) -> bool:
        """Whether the threads behind the judging live."""
        return self._ticker.is_alive() and self.alerts.alive and self.spool.alive

    def _open_store(self) -> None:
        """Prepare the database and take over its open incidents; where it is away, that is tried again."""
        if self._store_opened or time.monotonic() - self._store_tried_at < STORE_RETRY_S:
            return
        try:
            self._store.migrate()
            found = self._store.open_incidents()
        except StoreError as error:
            if not self._tried.is_set():
                self.spool.note_away(error)
        else:
            self._take_over(found)
            self._store_opened = True
            _log.info("store_opened", incidents_open=len(found))
        self._store_tried_at = time.monotonic()
        self._tried.set()

    def _take_over(self, found: list[Incident]) -> None:
        """Go on with stored open incidents; one whose flow has a newer incident by now is closed."""
        with self._lock:
            newest = {(one.client, one.domain): one for one in sorted(found, key=lambda one: one.last_seen)}
            going_on = newest | self.detector.incidents.open
            old = [one for one in found if going_on[one.client, one.domain].incident_id != one.incident_id]
            news = [one for key, one in newest.items() if key not in self.detector.incidents.open]
            self._manager.remember(news)
            self._logged |= {(one.client, one.domain): (one.incident_id, one.severity) for one in news}
            self.detector.restore(news)
            closed = tuple(dataclasses.replace(incident, closed_at=incident.last_seen) for incident in old)
            if closed:
                self.fanout.accept(empty_verdicts(self.detector.model.model_id, closed))

    def _restore_files(self) -> None:
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

    def _take_peaks(self, path: Path) -> None:
        self.detector.peaks = load_peaks(path.read_bytes())

    def _poll_known(self) -> None:
        """Take up the operator's list where the file changed, or a day began on which entries may have ended."""
        stamp = (_stamp(self._known), int(time.time() // DAY_S))
        if stamp == self._known_stamp:
            return
        self._known_stamp = stamp
        try:
            holding = self._read_known()
        except AgentsError as error:
            _log.warning("known_services_not_read", error=str(error))
            return
        if holding != self._known_now:  # taking up a list looks at every flow
            self._known_now = holding
            self.detector.reload_services(known_services.services_at(holding, time.time()))

    def _read_known(self) -> list[known_services.Entry]:
        """The entries that hold now."""
        now = time.time()
        return [entry for entry in bootstrap.known_entries(self._settings) if entry.holds(now)]

    def consume(
        self,
        batch: QueryBatch,
        batch_id: str = "",
        level: int = EVERYTHING,
        again: bool = False,
    ) -> Outcome:
        """Judge one batch and give it to the sinks.

        batch_id: what the store is to know it by, "" = something new. level: what is left out (shedding.py).
        again: a process that was killed may have stored or spooled it: then what it kept counts.
        """
        self._tried.wait(FIRST_TRY_S)
        with self._lock:
            verdicts = self.detector.detect(batch, explain=level < NO_EXPLANATION)
            left_out = unexplained(verdicts)
            if level >= SAMPLED:
                verdicts = sampled(verdicts)
            kept = self.kept(batch_id, batch.ts) if again else None
            before = dataclasses.replace(self.spool.counts)
            self.fanout.accept(dataclasses.replace(verdicts, batch_id=batch_id))
            after = self.spool.counts
            self._log_news(verdicts.incidents)
            if kept is not None:
                return kept._replace(unexplained=left_out)
            stored, spooled = after.stored - before.stored, after.spooled - before.spooled
            return Outcome(len(verdicts), stored + after.already - before.already, spooled, left_out)

    def kept(self, batch_id: str, ts: NDArray[np.float64]) -> Outcome | None:
        """What a process that was killed stored or spooled of a batch, if anything: its queries' times are `ts`."""
        stored, spooled = self.spool.held(batch_id, ts)
        return Outcome(stored + spooled, stored, spooled, 0) if stored or spooled else None

    def _log_news(self, incidents: Iterable[Incident]) -> None:
        """A line for each incident that was opened, or has become more severe."""
        news = []
        for incident in incidents:
            key = (incident.client, incident.domain)
            if incident.closed_at is not None:
                self._logged.pop(key, None)
                continue
            incident_id, severity = self._logged.get(key, ("", 0))
            opened = incident_id != incident.incident_id
            if opened or incident.severity > severity:
                self._logged[key] = incident.incident_id, incident.severity
                news.append(("incident_opened" if opened else "incident_escalated", incident))
        for number, (event, incident) in enumerate(news[:LOGGED_MAX], start=1):
            more = {"more": len(news) - LOGGED_MAX} if LOGGED_MAX == number < len(news) else {}
            _log.warning(
                event,
                client=incident.client,
                domain=incident.domain,
                severity=incident.severity.name,
                reason=next(iter(incident.reasons), ""),
                **more,
            )

    def _tick_on(self) -> None:
        self._open_store()
        while not self._stop.wait(TICK_S):
            self._open_store()
            self._poll_known()
            model = self._registry.poll()
            if model is not None:
                self.detector.reload(model)
                _log.info("model_reloaded", model_id=model.model_id)
            with self._lock:
                closed = self.detector.tick(time.time())
                if closed is not None:
                    self.fanout.accept(closed)
                    self._log_news(closed.incidents)
            if time.monotonic() - self._saved >= SNAPSHOT_S:
                self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        windows = snapshot.dump(self.detector.flows, self._lock)
        with self._lock:
            peaks = self.detector.peaks.dump()
        try:
            write_atomic(self._snapshot, windows, mode=PRIVATE_MODE)
            write_atomic(self._peaks, peaks, mode=PRIVATE_MODE)
        except OSError as error:
            _log.warning("windows_not_saved", error=str(error))

    def close(self) -> None:
        """Write the windows down, and close the sinks."""
        self._stop.set()
        if self._ticker.ident is not None:
            self._ticker.join()
        self._save()
        self.fanout.close()

    def state(self) -> dict[str, Any]:
        """What the listener's sign of life tells."""
        return {
            "model_id": self.detector.model.model_id,
            "model_origin": self._registry.origin,
            "limits": {"factor": self.detector.model.limit_factor, **bounds(self.detector.model.limit_factor)},
            "flows": len(self.detector.flows),
            "flows_refused": self.detector.flows.refused,
            "flows_forgotten": self.detector.flows.forgotten,
            "incidents_open": len(self.detector.incidents.open),
            "sink_failures": dict(self.fanout.failures),
            "alive": self.alive,
            "alerts": {name: self.alerts.counts[name] for name in ALERT_COUNTS},
            "spool": dataclasses.asdict(self.spool.counts) | {"waiting": self.spool.waiting},
        }


IDLE_S = 1.0
"""The detector looks into the rings at least so often, rung for or not."""
LOOK_S = 0.005
"""While a batch fills, the rings are looked into so often."""
WARN_EVERY_S = 10.0


def detect(settings: Settings, shared: Shared, ready: Callable[[], None]) -> int:
    """The detector process: judges what is in the rings until SIGTERM, then what is left in them."""
    stop = threading.Event()
    signal.set_wakeup_fd(shared.bell.writing, warn_on_full_buffer=False)  # whichever thread a signal finds
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def end() -> None:
        stop.set()
        shared.bell.ring()

    with crashes_end(end) as crashed:
        judge = Judge(settings)
        detector = Detecting(settings, shared, judge)
        beat = health.Heartbeat(settings.state_dir / "listener.json", detector.state)
        try:
            judge.start()
            beat.start()
            ready()
            detector.run(stop)
        finally:
            judge.close()
            detector.state()
            beat.stop()
    return int(bool(crashed))


class Detecting:
    """Batches from the rings to the judge: each is judged once, or again where a process before this one died of it."""

    def __init__(self, settings: Settings, shared: Shared, judge: Judge) -> None:
        self._shared, self._ledger, self._judge = shared, shared.ledger, judge
        self._batch_max, self._wait_s = settings.batch_max, settings.batch_wait_ms / 1000
        self._carried = self._ledger.carried()
        self._told = self._dropped
        self._tell_at = 0.0

    @property
    def _dropped(self) -> int:
        return sum(ring.shed for ring in self._shared.rings)

    def run(self, stop: threading.Event) -> None:
        """Judge until `stop` is set and the rings are empty."""
        intent = self._ledger.resume()
        if intent is not None:
            self._judge_one(intent)
        while not (stop.is_set() and not self._shared.waiting):
            self._wait(stop)
            self._ledger.level = level_at(self._shared.fill, self._ledger.level)
            if self._shared.waiting:
                self._judge_one(self._ledger.begin(self._shared.shares(self._batch_max)))
            self._warn()

    def _wait(self, stop: threading.Event) -> None:
        """Return with a full batch, or one that has waited long enough, or with none after IDLE_S."""
        shared = self._shared
        for ring in shared.rings:
            ring.sleep(True)
        if not shared.waiting and not stop.is_set():
            shared.bell.wait(IDLE_S)
        for ring in shared.rings:
            ring.sleep(False)
        end = time.monotonic() + self._wait_s
        while 0 < shared.waiting < self._batch_max and not stop.is_set() and (left := end - time.monotonic()) > 0:
            stop.wait(min(left, LOOK_S))

    def _judge_one(self, intent: Intent) -> None:
        count = sum(intent.counts)
        records, given_up = self._shared.records(intent.counts), intent.attempts > ATTEMPTS_MAX
        if given_up:
            found = self._judge.kept(intent.batch_id, records["ts"]) or Outcome(count, 0, 0, 0)
        else:
            batch = batch_of_records(records)
            found = self._judge.consume(batch, intent.batch_id, intent.level, again=intent.attempts > 1)
        lost = found.rows - found.stored - found.spooled
        if given_up:
            _log.error("batch_given_up", queries=count, attempts=ATTEMPTS_MAX, lost=lost)
        changes = {"stored": found.stored, "spooled": found.spooled, "unexplained": found.unexplained}
        self._ledger.finish(changes | {"scored": count, "sampled_out": count - found.rows, "lost": lost})

    def _warn(self) -> None:
        dropped, now = self._dropped, time.monotonic()
        if dropped > self._told and now >= self._tell_at:
            queue_max = sum(ring.capacity for ring in self._shared.rings)
            _log.warning("queries_dropped", dropped=dropped - self._told, queue_max=queue_max)
            self._told, self._tell_at = dropped, now + WARN_EVERY_S

    def state(self) -> dict[str, Any]:
        """What the sign of life tells: sums over all processes since the supervisor began."""
        shared, state = self._shared, self._judge.state()
        spool, alerts = state["spool"], state["alerts"]
        current = spool | alerts | {name: state[name] for name in ("flows_refused", "flows_forgotten")}
        carried = {name: self._carried[name] + current[name] for name in CARRIED}
        self._ledger.carry(carried)
        totals, children = self._ledger.totals(), shared.children
        return {
            **state,
            "scored": totals["scored"],
            "flows_refused": carried["flows_refused"],
            "flows_forgotten": carried["flows_forgotten"],
            "spool": {name: carried[name] if name in carried else totals.get(name, spool[name]) for name in spool},
            "alerts": {name: carried[name] for name in alerts},
            "counters": shared.counted(),
            "queue_dropped": self._dropped,
            "queue_waiting": shared.waiting,
            "shed": {"level": self._ledger.level} | {name: totals[name] for name in ("unexplained", "sampled_out")},
            "processes": {name: child.values() for name, child in children.items()},
            "judging": state["alive"] and all(children[name].up for name in listener_names(shared.listeners)),
        }
