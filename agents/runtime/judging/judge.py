"""The judge: batches are judged, stored and alerted, and what the detector knows is saved."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.alerting.manager import AlertManager
from agents.alerting.sink import ALERT_COUNTS, AlertSink
from agents.core.errors import AgentsError, StoreError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.jit import COMPILED
from agents.core.npz import FormatError
from agents.core.protocols import Detector, LiveStore, ModelInUse
from agents.core.types import DAY_S, Incident, QueryBatch, Verdicts, batch_of
from agents.detection.detector import FILES, empty_verdicts
from agents.detection.known_services import Entry, services_at
from agents.detection.privacy import Privacy, without_names
from agents.detection.shared.detector_report import DetectorReport
from agents.detection.shared.roles import CommonCounter, SlotJudge
from agents.enforcement.enforcer import Enforcer
from agents.enforcement.options import EnforceMode
from agents.export.sink import EXPORT_COUNTS, ExportSink
from agents.learning.sequences.beside import Sequences
from agents.runtime.drill.drill import Drill
from agents.runtime.drill.relay import DrillRelay, relayed_rows
from agents.runtime.heartbeat import DetectorHealth
from agents.runtime.judging.fanout import Fanout
from agents.runtime.judging.hours import LiveHours, SlotHourKeeper
from agents.runtime.judging.shedding import sampled, totals_of, unexplained
from agents.runtime.judging.trials import LiveTrial, SlotTrial
from agents.scoring.model import Model
from agents.store.hunting.sending import HuntSink
from agents.store.spool import SpoolingSink
from agents.stream.ledger import NUMBER_DIGITS
from agents.stream.note import SharedNote
from agents.stream.shared import EVERYTHING, NO_EXPLANATION, SAMPLED

TICK_S = 1.0
"""How often a new model and incidents that have become quiet are looked for."""
SNAPSHOT_S = 60.0
"""How often the windows are written down: kill -9 loses at most so much of them."""
STORE_RETRY_S = 5.0
"""A database that was away at start is tried again after this many seconds."""
FIRST_TRY_S = 10.0
"""Judging waits so long for the first try: incidents that are open should be known before it begins."""
QUERY_S = 0.001 if COMPILED else 0.05
"""A batch may take so many seconds a query before it looks like a hang: some hundred times what it takes."""
LOGGED_MAX = 3
"""Incidents that one batch may write a line of the log for; the last line says how many more there are."""
ERASE_FILES = "erase-*.json"
"""Requests to forget clients, each a JSON list, in the folder of the detector's state."""
_log = structlog.get_logger()


class Outcome(NamedTuple):
    """What became of a batch, in queries. rows: given to the sinks; what is neither stored nor spooled is lost."""

    rows: int
    stored: int
    spooled: int
    unexplained: int  # their reasons were left out
    seen: Mapping[str, int] = {}  # shedding.totals_of the whole batch


class ServedModels(ModelInUse[Model], Protocol):
    """The folder of models, as a process that judges follows it."""

    def poll(self) -> Model | None:
        """The model in use, if it is another one than at the last call."""
        ...


@dataclass(frozen=True)
class JudgeParts:
    """The collaborators of a Judge. known_entries reads the operator's list anew; known_path is its file.

    state_dir: where the detector's files lie, and the heartbeat. mismatched: ListenerConfig.mismatched_by_upstream.
    note: where the console of `run` reads the heartbeat. in_force: see Heartbeat. hours: of `detector`.
    """

    detector: Detector
    registry: ServedModels
    store: LiveStore
    spool: SpoolingSink
    manager: AlertManager
    alerts: AlertSink
    exports: ExportSink
    enforcer: Enforcer
    drill: Drill | DrillRelay
    known_entries: Callable[[], list[Entry]]
    known_path: Path
    state_dir: Path
    own_zones: Sequence[str] = ()
    mismatched: Callable[[], dict[str, int]] = dict
    hunt: HuntSink | None = None
    note: SharedNote | None = None
    in_force: Mapping[str, Any] | None = None
    hours: LiveHours | None = None
    trial: LiveTrial | None = None
    privacy: Privacy = dataclasses.field(default_factory=Privacy)
    renamed: bool = False  # stored open incidents know clients by other names than those of `privacy`
    sequences: Sequences | None = None
    send_report: Callable[[int], None] = lambda number: None  # to other detectors, after the batch of this number
    restore: Callable[[], None] | None = None  # saved state, where it is not that of one detector for all clients
    owns: Callable[[Incident], bool] = lambda incident: True  # it goes on with this stored open incident
    counter: CommonCounter | None = None  # `detector`, where it counts all clients for others
    slots: SlotJudge | None = None  # `detector`, where its clients come and go by slots
    slot_hours: SlotHourKeeper | None = None  # … in the place of `hours`
    slot_trial: SlotTrial | None = None  # … in the place of `trial`
    drilled: Callable[[QueryBatch], object] = lambda batch: None  # takes rows of drills that other detectors found
    saved: Callable[[], None] = lambda: None  # called when its state was written down
    writes: Callable[[], bool] = lambda: True  # else another process writes and alerts what it finds, too
    erase_to: Sequence[Path] = ()  # folders of processes that must forget clients, too


class Judge:
    """Judges batches and gives them to the sinks; a tick does what happens without queries."""

    def __init__(self, parts: JudgeParts) -> None:
        self._parts, self.detector = parts, parts.detector
        self._registry, self._store, self._manager = parts.registry, parts.store, parts.manager
        self.spool, self.alerts, self.exports = parts.spool, parts.alerts, parts.exports
        self._known_stamp: tuple[tuple[int, int] | None, int] | None = None
        self._known_now = self._read_known()
        (parts.restore or self._restore_files)()
        self._hours = parts.slot_hours or parts.hours
        self._enforcer, self._trial = parts.enforcer, parts.slot_trial or parts.trial
        self._drill, self._keeps_names = parts.drill, parts.privacy.keeps_names
        self._hunt = () if parts.hunt is None else (parts.hunt,)
        enforcing = () if self._enforcer.mode == EnforceMode.OFF else (self._enforcer,)
        self.fanout = Fanout(
            [self.alerts, self.exports, *enforcing, *self._hunt, self.spool]
        )  # what is stored counts as sent after a restart
        self._saved, self._save_fault = time.monotonic(), ""
        self._lock = threading.Lock()
        # open incidents that the log knows, by client and domain: id and severity
        self._logged: dict[tuple[str, str], tuple[str, int]] = {}
        self._tried = threading.Event()
        self._stop = threading.Event()
        self._opener = threading.Thread(target=self._open_store, name="store-opener", daemon=True)
        self._ticker = threading.Thread(target=self._tick_on, name="ticker", daemon=True)

    @property
    def state_dir(self) -> Path:
        """Where the detector's files lie."""
        return self._parts.state_dir

    @property
    def lock(self) -> threading.Lock:
        """Held while the detector is used."""
        return self._lock

    @property
    def opened(self) -> threading.Event:
        """Set once the database has been tried: it has tables then, or is away."""
        return self._tried

    @property
    def counter(self) -> CommonCounter:
        """The detector, in a process that counts all clients for others."""
        assert self._parts.counter is not None
        return self._parts.counter

    @property
    def slots(self) -> SlotJudge:
        """The detector, in a process whose clients come and go by slots."""
        assert self._parts.slots is not None
        return self._parts.slots

    @property
    def slot_hours(self) -> SlotHourKeeper:
        """What keeps flow-hours, in a process whose clients come and go by slots."""
        assert self._parts.slot_hours is not None
        return self._parts.slot_hours

    @property
    def slot_trial(self) -> SlotTrial:
        """What runs canaries, in a process whose clients come and go by slots."""
        assert self._parts.slot_trial is not None
        return self._parts.slot_trial

    def take_over(self, wanted: Callable[[Incident], bool]) -> None:
        """Go on with stored open incidents of clients that this process judges from now on. Raises StoreError."""
        self._take_over([one for one in self._store.open_incidents() if wanted(one)])

    def start(self) -> None:
        """Begin to tick, and to open the database, which neither DNS nor the ticker waits for."""
        self._opener.start()
        if self._hours is not None:
            self._hours.start()
        if self._parts.sequences is not None:
            self._parts.sequences.start()
        self._enforcer.start()
        self._drill.start(self._keep_drill)
        self._ticker.start()

    @property
    def alive(self) -> bool:
        """Whether the threads behind the judging live."""
        beside = (self._hours, self._parts.sequences)
        hours_alive = all(one.alive for one in beside if one is not None)
        sinks_alive = all(
            one.alive for one in (self.alerts, self.exports, self._enforcer, self._drill, self.spool, *self._hunt)
        )
        return self._ticker.is_alive() and sinks_alive and hours_alive

    def _open_store(self) -> None:
        """Prepare the database and take over its open incidents; where it is away, that is tried again."""
        while not self._stop.is_set():
            try:
                self._store.migrate()
                found = self._store.open_incidents()
            except StoreError as error:
                if not self._tried.is_set():
                    self.spool.note_away(error)
            else:
                self._take_over(found if self._parts.renamed else [one for one in found if self._parts.owns(one)])
                _log.info("store_opened", incidents_open=len(found))
                self._tried.set()
                return
            self._tried.set()
            self._stop.wait(STORE_RETRY_S)

    def _take_over(self, found: list[Incident]) -> None:
        """Go on with stored open incidents; one whose flow has a newer incident by now is closed.

        Those that know clients by other names (PRIVACY was changed) are closed in the database, and told to nobody.
        """
        if self._parts.renamed:
            closed = tuple(dataclasses.replace(incident, closed_at=incident.last_seen) for incident in found)
            self._store.write(empty_verdicts(self.detector.model_id, closed), uuid.uuid4().hex)
            return
        with self._lock:
            found = self._trial.resume(found) if self._trial is not None else found
            newest = {(one.client, one.domain): one for one in sorted(found, key=lambda one: one.last_seen)}
            going_on = newest | dict(self.detector.open_incidents)
            old = [one for one in found if going_on[one.client, one.domain].incident_id != one.incident_id]
            news = [one for key, one in newest.items() if key not in self.detector.open_incidents]
            self._manager.remember(news)
            self.exports.remember([*news, *old])
            self._logged |= {(one.client, one.domain): (one.incident_id, one.severity) for one in news}
            self.detector.restore(news)
            closed = tuple(dataclasses.replace(incident, closed_at=incident.last_seen) for incident in old)
            if closed:
                self._send(empty_verdicts(self.detector.model_id, closed))

    def _restore_files(self) -> None:
        for name in FILES:
            path = self._parts.state_dir / name
            try:
                self.detector.load(name, path.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, FormatError) as error:
                _log.warning("state_not_restored", path=str(path), error=str(error))
        if flows := self.detector.gauges()["flows"]:
            _log.info("windows_restored", flows=flows)

    def _poll_known(self) -> None:
        """Take up the operator's list where the file changed, or a day began on which entries may have ended."""
        stamp = (_stamp(self._parts.known_path), int(time.time() // DAY_S))
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
            self.detector.reload_services(services_at(holding, time.time(), self._parts.own_zones))
            _log.info("known_services_reloaded", entries=len(holding))

    def _read_known(self) -> list[Entry]:
        """The entries that hold now."""
        now = time.time()
        return [entry for entry in self._parts.known_entries() if entry.holds(now)]

    def consume(self, batch: QueryBatch, batch_id: str = "", level: int = EVERYTHING, again: bool = False) -> Outcome:
        """Judge one batch and give it to the sinks.

        batch_id: what the store is to know it by, "" = something new. level: of load (stream/shared.py).
        again: a process that was killed may have stored or spooled it: then what it kept counts.
        """
        self._tried.wait(FIRST_TRY_S)
        whole, batch = len(batch), self._drill.split(batch) if self._drill.expects else batch
        drilled = whole - len(batch)
        if drilled and not len(batch):
            return Outcome(drilled, drilled, 0, 0)
        outcome = self._consume(batch, batch_id, level, again)
        return outcome._replace(rows=outcome.rows + drilled, stored=outcome.stored + drilled)

    def _consume(self, batch: QueryBatch, batch_id: str, level: int, again: bool) -> Outcome:
        with self._lock:
            verdicts = self.detector.detect(batch, explain=level < NO_EXPLANATION)
            if self._trial is not None:
                verdicts = self._trial.judge(batch, verdicts, busy=level >= NO_EXPLANATION)
            if self._hours is not None:
                self._hours.see(verdicts)
            beside = self._parts.sequences
            if beside is not None and beside.hears:
                beside.see(verdicts)
            seen = totals_of(verdicts)
            left_out = unexplained(verdicts) if level >= NO_EXPLANATION else 0
            if level >= SAMPLED:
                verdicts = sampled(verdicts)
            kept = self.stored_before(batch_id, batch.ts) if again else None
            before = dataclasses.replace(self.spool.counts)
            verdicts = self._send(dataclasses.replace(verdicts, batch_id=batch_id))
            after = self.spool.counts
            if verdicts.incidents:
                self._log_news(verdicts.incidents)
            if kept is not None:
                return kept._replace(unexplained=left_out, seen=seen)
            stored, spooled = after.stored - before.stored, after.spooled - before.spooled
            return Outcome(len(verdicts), stored + after.already - before.already, spooled, left_out, seen)

    def begin_to_write(self) -> None:
        """Write and alert from now on what another process did until now. Raises StoreError."""
        stored = [one for one in self._store.open_incidents() if self._parts.owns(one)]
        with self._lock:
            self._manager.remember(stored)
            self.exports.remember(stored)
            self._logged |= {(one.client, one.domain): (one.incident_id, one.severity) for one in stored}
            known = {(one.client, one.domain) for one in stored}
            self.detector.restore(stored)
            unheard = tuple(one for key, one in self.detector.open_incidents.items() if key not in known)
            if unheard:
                self._send(empty_verdicts(self.detector.model_id, unheard))
                self._log_news(unheard)

    def count_reports(self, reports: Sequence[DetectorReport]) -> None:
        """Count what detectors say of all clients, and give the sinks what comes of it."""
        self._tried.wait(FIRST_TRY_S)
        for said in reports:
            if said.drilled:
                self._parts.drilled(batch_of(relayed_rows(said.drilled)))
        with self._lock:
            verdicts = self.counter.count_reports(reports)
            if verdicts is not None:
                self._send(verdicts)
                self._log_news(verdicts.incidents)

    def send_report(self, batch_id: str) -> None:
        """Tell other detectors of the batch that was just judged, where there are any."""
        with self._lock:
            self._parts.send_report(int(batch_id[-NUMBER_DIGITS:], 16))

    def _send(self, verdicts: Verdicts) -> Verdicts:
        """Give verdicts to the sinks, without the names that are not to be kept; returns what they got."""
        kept = verdicts if self._keeps_names else without_names(verdicts, self._parts.privacy.names)
        if self._parts.writes():
            self.fanout.accept(kept)
        return kept

    def _keep_drill(self, verdicts: Verdicts) -> bool:
        """Store what was judged of a drill; whether the database has it."""
        with self._lock:
            before = self.spool.counts.stored
            self.spool.accept(dataclasses.replace(verdicts, batch_id=f"drill-{uuid.uuid4().hex}"))
            return self.spool.counts.stored - before >= len(verdicts)

    def stored_before(self, batch_id: str, ts: NDArray[np.float64]) -> Outcome | None:
        """What a process that was killed stored or spooled of a batch, if anything: its queries' times are `ts`."""
        stored, spooled = self.spool.held(batch_id, ts)
        return Outcome(stored + spooled, stored, spooled, 0) if stored or spooled else None

    def _log_news(self, incidents: Iterable[Incident]) -> None:
        """A line for each incident that was opened, or has become more severe."""
        news = []
        for incident in incidents if self._parts.writes() else ():
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
        while not self._stop.wait(TICK_S):
            self._poll_known()
            model = self._registry.poll()
            if model is not None:
                self.detector.reload(model)
                self.detector.reload_profile(self._registry.profile_of(model))
                _log.info("model_reloaded", model_id=model.model_id)
            told = self._trial.poll(self._lock) if self._trial is not None else ()
            with self._lock:
                if self.spool.fault:  # as soon as there is room, incidents are written and health is well
                    self.spool.accept(empty_verdicts(self.detector.model_id, ()))
                closed = self.detector.tick(time.time())
                told = (*told, *(self._trial.tick(time.time()) if self._trial is not None else ()))
                for some in (closed, empty_verdicts(self.detector.model_id, told) if told else None):
                    if some is not None:
                        self._send(some)
                        self._log_news(some.incidents)
            if self._hours is not None:
                self._hours.turn(time.time(), self._lock)
                self._hours.appraise(time.time(), self._lock)
            if self._parts.sequences is not None:
                self._parts.sequences.cycle.tick()
            if requests := sorted(self._parts.state_dir.glob(ERASE_FILES)):
                self._erase(requests)
            elif time.monotonic() - self._saved >= SNAPSHOT_S:
                self._save()

    def _erase(self, requests: Sequence[Path]) -> None:
        """Forget the clients that people want to be forgotten, and save what is left; then the requests are gone.

        Where it cannot be saved, they stay, and are tried again.
        """
        for client in [client for path in requests for client in self._clients_in(path)]:
            with self._lock:
                self.detector.forget(client)
                if self._trial is not None:
                    self._trial.forget(client)
                self._logged = {key: known for key, known in self._logged.items() if key[0] != client}
            if self._parts.sequences is not None:
                self._parts.sequences.forget(client)
            _log.info("client_forgotten")
        self._save()
        if not self._save_fault:
            for path in requests:
                for folder in self._parts.erase_to:
                    write_atomic(folder / path.name, path.read_bytes(), mode=PRIVATE_MODE)
                path.unlink(missing_ok=True)

    @staticmethod
    def _clients_in(path: Path) -> list[str]:
        try:
            return [str(client) for client in json.loads(path.read_bytes())]
        except (OSError, ValueError) as error:
            _log.warning("erasure_not_read", path=str(path), error=str(error))
            return []

    def _save(self) -> None:
        self._saved, self._save_fault = time.monotonic(), ""
        for name, data in self.detector.save(self._lock).items():
            try:
                write_atomic(self._parts.state_dir / name, data, mode=PRIVATE_MODE)
            except OSError as error:
                self._save_fault = error.strerror or "they cannot be written"
                _log.warning("state_not_saved", file=name, error=str(error))
        self._parts.saved()

    def close(self) -> None:
        """Write the windows down, and close the sinks."""
        self._stop.set()
        if self._ticker.ident is not None:
            self._ticker.join()
        if self._hours is not None:
            self._hours.close()
        if self._trial is not None:
            self._trial.close()
        self._drill.close()
        if self._parts.sequences is not None:
            self._parts.sequences.close()
        self._save()
        self.fanout.close()

    def health(self) -> DetectorHealth:
        """How this process is; sums since it began."""
        return DetectorHealth(
            judging=self.alive,
            mismatched=self._parts.mismatched(),
            model_origin=self._registry.origin,
            spool_waiting=self.spool.waiting,
            alerts={name: self.alerts.counts[name] for name in ALERT_COUNTS},
            channels=self.alerts.channels() | self.exports.states(),
            exports={name: self.exports.counts[name] for name in EXPORT_COUNTS},
            sink_failures=dict(self.fanout.failures),
            hunting=self._hunt[0].state() if self._hunt else {},
            enforcement=self._enforcer.state(),
            drill=self._drill.state(),
            disk={name: text for name, text in self._faults().items() if text},
            **self.detector.gauges(),
            **dataclasses.asdict(self.spool.counts),
        )

    def _faults(self) -> dict[str, str]:
        return {
            "spool": self.spool.fault,
            "outbox": self.alerts.fault,
            "exports": self.exports.fault,
            "windows": self._save_fault,
        }


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
