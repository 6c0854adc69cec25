"""The long-running processes but the listener: API and scheduler, and what they start."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

import structlog
import uvicorn

from agents.alerting.handover import Sender
from agents.alerting.summary import summary_message
from agents.core.errors import AgentsError, BusyError, StoreError
from agents.core.files import PRIVATE_MODE, json_state, locked, write_atomic
from agents.core.logs import retraining_file
from agents.core.protocols import Registry, RunStore
from agents.core.text import command, utc
from agents.core.types import DAY_S, Message, Severity
from agents.learning.repeating import RepeatingThread
from agents.learning.report import prune_reports
from agents.learning.retraining import RetrainingParts, retrain
from agents.learning.run import RetrainOptions, RunState, TrainingRun
from agents.runtime import warmup
from agents.runtime.health import ProcessHealth, calendar_of
from agents.runtime.heartbeat import PARTS, Heartbeat
from agents.runtime.schedule import RetrainScheduler
from agents.runtime.signals import Beat, beat_on, crashes_end, live
from agents.sources.heard_days import queries_by_intake
from agents.sources.listener.sockets import cannot_listen
from agents.sources.week_notes import WeekNotes, noted_between
from agents.store.console.hunting import Hunter
from agents.store.console.summing import QuerySums
from agents.store.console.triage import TriageStore
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.hunting.days import DayFiles
from agents.store.migrate import RETRY_MAX_S, RETRY_S
from agents.store.people.people import PeopleStore
from agents.store.retention import ClockWatch, doubt_of, doubt_of_imports, drop_before
from agents.store.sql import Store
from agents.web.app import create_app
from agents.web.connections import LimitedProtocol
from agents.web.console.last_hour import WATCHED_S
from agents.web.parts import Parts
from agents.web.people.first_login import FirstLogin

DAYS_AHEAD = 2
"""Days that the daily maintenance makes room for: one more than needed, in case it fails once."""
RETRAINING = "retraining"
"""Name of the thread of a retraining."""
TURN_S = 5.0
"""An event loop that has not turned for so many seconds hangs."""
NOTE_S = 0.5
"""How often it notes that it turns."""
WEEK_EVERY_S = 20.0
"""How often it is noted what was left out and missed."""
GRACE_S = 5
"""Seconds that requests under way have at the end."""
RUNS_LOOKED_AT = 20
"""Newest runs among which those are looked for that were broken off."""
RETENTION_FILE = "retention.json"
"""What the last maintenance kept: a setting that was lowered since was lowered on purpose."""
BROKEN_OFF = "cannot go on: the run was broken off, its process was killed or the machine stopped"
SUMMARY_DAYS, SUMMARY_INCIDENTS_MAX = 7, 10_000
"""Days that a summary looks back, and incidents that it reads, the newest."""
SUMS_EVERY_S, SUMS_STOP_S = 20.0, 5.0
"""Seconds between two looks for hours that are over, and for an hour under way to end."""
DAYS_EVERY_S, DAYS_AGAIN_S = 60.0, 1800.0
"""Seconds between two looks for days that are over, and for late rows of those that are in files."""
_log = structlog.get_logger()


class Retrain(Protocol):
    """One retraining to its end, as of `now`; `locked` is called when it holds the lock. Raises BusyError."""

    def __call__(self, *, now: float | None = None, locked: Callable[[], None] = lambda: None) -> TrainingRun: ...


class Retrainer:
    """Starts retrainings in the background, one at a time in this process (the registry's lock sees to the rest)."""

    def __init__(self, retrain: Retrain) -> None:
        self._retrain = retrain
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Begin one; returns its run id. Raises BusyError."""
        if self._thread is not None and self._thread.is_alive():
            raise BusyError("cannot retrain: a retraining is under way")
        now, locked = time.time(), Future[None]()
        self._thread = threading.Thread(target=self._run_as_of, args=(now, locked), name=RETRAINING)
        self._thread.start()
        locked.result()
        return f"{datetime.fromtimestamp(now, UTC):%Y%m%d_%H%M%S}"

    def wait(self) -> None:
        """Until the one under way has come to its end."""
        if self._thread is not None:
            self._thread.join()

    def run(self) -> None:
        """One retraining to its end; what went wrong is logged and recorded. Raises BusyError."""
        try:
            self._retrain()
        except BusyError:
            raise
        except AgentsError as error:
            _log.error("retraining_not_run", error=str(error))

    def _run_as_of(self, now: float, locked: Future[None]) -> None:
        """One retraining as of `now`; `locked` is done when it holds the lock, or cannot begin."""
        try:
            self._retrain(now=now, locked=lambda: locked.set_result(None))
        except (AgentsError, OSError) as error:
            _log.error("retraining_not_run", error=str(error))
            if not locked.done():
                locked.set_exception(
                    error if isinstance(error, AgentsError) else AgentsError(f"cannot retrain: {error}")
                )
        finally:
            if not locked.done():
                locked.set_exception(AgentsError("cannot retrain: see the log"))


def note_broken_off(store: RunStore) -> int:
    """Record runs as FAILED whose process was killed; how many. The caller holds the registry's lock."""
    found = [row for row in store.runs(limit=RUNS_LOOKED_AT) if row["state"] == RunState.RUNNING]
    for row in found:
        payload = row["payload"] | {"state": RunState.FAILED.value, "error": BROKEN_OFF}
        store.save_run(row["run_id"], started_at=row["started_at"], state=RunState.FAILED.value, payload=payload)
        _log.error("retraining_broken_off", run=row["run_id"], error=BROKEN_OFF)
    return len(found)


def retrain_once(
    parts: RetrainingParts,
    store: RunStore,
    log_path: Path,
    options: RetrainOptions,
    *,
    now: float | None = None,
    locked: Callable[[], None] = lambda: None,
) -> TrainingRun:
    """One retraining, logged to the file at `log_path`. Raises BusyError where another holds the registry's lock.

    `locked` is called as soon as that lock is held.
    """

    def begin() -> None:
        locked()
        warmup.up(lambda text: _log.info("kernels_compiling", note=text))
        try:
            store.migrate()
            note_broken_off(store)
        except StoreError as error:  # the run itself will fail on it, be recorded and reported
            _log.warning("store_unavailable", error=str(error))

    with retraining_file(log_path):
        return asyncio.run(retrain(parts, options, now, begin))


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What the daily maintenance keeps, and for how many days."""

    store: Store
    registry: Registry
    reports_dir: Path
    query_days: int
    replay_days: int  # since their import
    incident_days: int  # also of runs, their reports and flow-hours
    backup_days: int
    state_dir: Path
    clock: ClockWatch
    notify: Callable[[Message], object]
    files: DayFiles
    hunt_days: int = 0  # that closed days are kept in files; 0: none is written, and those there are left alone


def maintain(upkeep: Upkeep, anyway: bool = False) -> Mapping[str, Any]:
    """Daily: make room for days to come, drop what is older than `upkeep` says; how much. A part that fails is logged.

    Where the clock contradicts itself or what is stored, nothing is dropped, and the channels are told.
    anyway: a person has looked at the clock, and at how much goes.
    """
    store, now = upkeep.store, time.time()
    found = _days_stored(store)
    days, imports = found or ((), ())
    if not anyway and _refused(upkeep, days, imports, now):
        store.close()
        return {}
    upkeep.clock.refused = ""
    day, before = int(now // DAY_S), now - upkeep.incident_days * DAY_S
    limit, replays = day - upkeep.query_days, day - upkeep.replay_days
    if not anyway and not _lowered(upkeep, "query_days", upkeep.query_days):
        limit = drop_before(days, limit)
    if not anyway and not _lowered(upkeep, "replay_days", upkeep.replay_days):
        replays = drop_before(imports, replays)
    parts: dict[str, Callable[[], object]] = {
        "days_ahead": lambda: store.prepare([day + ahead for ahead in range(1, DAYS_AHEAD + 1)]),
        "reports_deleted": lambda: prune_reports(upkeep.reports_dir, before),
        "backups_pruned": lambda: _prune_backups(upkeep, now),
    }
    if found is not None:  # else nothing speaks for the clock by which it would be old
        parts |= {
            **(_hunting_parts(upkeep, day, anyway) if upkeep.hunt_days else {}),
            "queries_dropped": lambda: store.drop_old(limit),
            "incidents_and_runs_deleted": lambda: store.forget(before),
            "flow_hours_deleted": lambda: FlowHourStore(store).forget(before),
            "sums_of_queries_deleted": lambda: QuerySums(store).forget(limit),
            "replayed_queries_dropped": lambda: store.drop_replays(replays),
            "replayed_incidents_deleted": lambda: store.forget_replays(replays),
            "incidents_said_of_deleted": lambda: TriageStore(store).forget(),
            "sessions_and_tokens_deleted": lambda: PeopleStore(store).forget_old(now),
        }
    done = {}
    for name, part in parts.items():
        try:
            done[name] = part()
        except (AgentsError, OSError) as error:
            _log.error("maintenance_failed", part=name, error=str(error))
    _note_retention(upkeep)
    store.close()
    done = {name: some for name, some in done.items() if some is not None}
    _log.info("maintenance_finished", **done)
    return done


def _hunting_parts(upkeep: Upkeep, today: int, anyway: bool) -> dict[str, Callable[[], object]]:
    """Closed days go into files before their rows are dropped; old files go."""
    files, limit = upkeep.files, today - upkeep.hunt_days
    if not anyway and not _lowered(upkeep, "hunt_days", upkeep.hunt_days):
        limit = drop_before(list(files.days()), limit)
    return {
        "days_written": lambda: files.write(today - upkeep.hunt_days, every=True),
        "days_deleted": lambda: files.forget(limit),
    }


def summarise(upkeep: Upkeep, link_base: str = "") -> None:
    """Weekly: one message about the incidents of the last days that nobody was paged for, and about what was heard.

    Raises StoreError.
    """
    since = time.time() - SUMMARY_DAYS * DAY_S
    try:
        found = upkeep.store.incidents(since=since, source="", limit=SUMMARY_INCIDENTS_MAX)
    finally:
        upkeep.store.close()
    heard = queries_by_intake(upkeep.state_dir, SUMMARY_DAYS)
    upkeep.notify(summary_message(found, heard, SUMMARY_DAYS, link_base.rstrip("/")))


def _days_stored(store: Store) -> tuple[Sequence[int], Sequence[int]] | None:
    """Days of live queries, and days on which replays were stored; None where they cannot be read, which is logged."""
    try:
        return store.stored_days(), store.import_days()
    except StoreError as error:  # what is not in the database is kept in order all the same
        _log.error("maintenance_failed", part="stored_days", error=str(error))
        return None


def _refused(upkeep: Upkeep, days: Sequence[int], imports: Sequence[int], now: float) -> bool:
    """Whether nothing is to be dropped, because the clock is doubted: that is logged and told."""
    today = int(now // DAY_S)
    doubt = upkeep.clock.doubt() or doubt_of(days, today, upkeep.query_days)
    doubt = doubt or doubt_of_imports(imports, days, today, upkeep.replay_days)
    if not doubt:
        return False
    way = f"see whether the clock is right, then: {command('tidy --anyway')}"
    upkeep.clock.refused = f"cannot delete what is old: {doubt}; {way}"
    _log.error("maintenance_refused", error=upkeep.clock.refused)
    summary = f"Nothing was deleted, since {doubt}. It is {utc(now)} by the clock of this machine; {way}."
    upkeep.notify(Message("DNS tunnel detector: the clock is doubted", summary, (), Severity.HIGH))
    return True


def _lowered(upkeep: Upkeep, name: str, days: int) -> bool:
    """Whether a person has asked for fewer days than the last maintenance kept."""
    kept = json_state(upkeep.state_dir / RETENTION_FILE).get(name)
    return isinstance(kept, int) and days < kept


def _note_retention(upkeep: Upkeep) -> None:
    try:
        data = json.dumps(
            {
                "query_days": upkeep.query_days,
                "replay_days": upkeep.replay_days,
                "hunt_days": upkeep.hunt_days,
            }
        ).encode()
        write_atomic(upkeep.state_dir / RETENTION_FILE, data, PRIVATE_MODE)
    except OSError as error:
        _log.warning("state_not_saved", file=RETENTION_FILE, error=str(error))


def _prune_backups(upkeep: Upkeep, now: float) -> int:
    try:
        with upkeep.registry.lock():
            return upkeep.registry.prune(now, upkeep.backup_days)
    except BusyError:  # a retraining prunes, too
        _log.info("backups_not_pruned", reason="a retraining is under way")
        return 0


@asynccontextmanager
async def scheduling(
    scheduler: RetrainScheduler,
    store: RunStore,
    registry: Registry,
    data_dir: Path,
    state_dir: Path,
    in_force: Mapping[str, Any],
    sender: Sender | None = None,
    threads: Sequence[RepeatingThread] = (),
) -> AsyncIterator[None]:
    """The scheduler, the sender of alerts that were handed over, online learner and roll-out. in_force: see Heartbeat.

    While the database is away it is tried again; nothing else waits for that. At its start it records runs that were
    broken off. Raises AgentsError where another one runs: each would begin what is due.
    """
    with _only_one(state_dir / "scheduler.lock", data_dir):
        starting = asyncio.create_task(_started(store, registry, scheduler))
        state = sender.state if sender is not None else dict
        path = state_dir / PARTS["scheduler"]
        beat = Heartbeat(path, lambda: {**calendar_of(scheduler), **state()}, in_force=in_force)
        beat.start()
        if sender is not None:
            sender.start()
        for one in threads:
            one.start()
        try:
            yield
        finally:
            starting.cancel()
            for one in threads:
                await asyncio.to_thread(one.stop)
            if sender is not None:
                await asyncio.to_thread(sender.stop)
            await asyncio.to_thread(scheduler.stop)
            beat.stop()


def _only_one(path: Path, data_dir: Path) -> IO[bytes]:
    try:
        return locked(path)
    except BlockingIOError:
        where = data_dir.absolute()
        raise AgentsError(f"cannot schedule: another scheduler runs on {where} (dns-tunnel schedule or run)") from None


def _recover(store: RunStore, registry: Registry) -> None:
    store.migrate()
    with suppress(BusyError), registry.lock():  # a run that is under way notes those before it
        note_broken_off(store)


async def _started(store: RunStore, registry: Registry, scheduler: RetrainScheduler) -> None:
    pause = RETRY_S
    while True:
        try:
            await asyncio.to_thread(_recover, store, registry)
            return await asyncio.to_thread(scheduler.start)
        except AgentsError as error:
            if pause == RETRY_S:  # once; its sign of life says it all the while
                _log.warning("scheduler_waits_for_store", error=str(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_MAX_S)


class SumsThread(RepeatingThread):
    """Sums up stored queries, so that the console's pages are quick on many of them."""

    def __init__(self, hunter: Hunter) -> None:
        super().__init__("sums of queries", SUMS_EVERY_S, SUMS_STOP_S)
        self._hunter = hunter

    def step(self) -> None:
        """Sum up the hours that are over."""
        try:
            while not self._stop.is_set() and self._hunter.sum_up(1):
                pass
        except AgentsError as error:
            _log.warning("queries_not_summed_up", error=str(error))


class DaysThread(RepeatingThread):
    """Writes days that are over into files, for hunts."""

    def __init__(self, files: DayFiles, hunt_days: int) -> None:
        super().__init__("closed days", DAYS_EVERY_S, SUMS_STOP_S)
        self._files, self._hunt_days, self._again_at = files, hunt_days, 0.0

    def step(self) -> None:
        """Write days that have no file; now and then also those that got late rows."""
        first_day = int(time.time() // DAY_S) - self._hunt_days
        try:
            if time.monotonic() >= self._again_at or self._files.missing(first_day):
                self._again_at = time.monotonic() + DAYS_AGAIN_S
                self._files.write(first_day, stopped=self._stop.is_set)
        except AgentsError as error:
            _log.error("days_not_written", error=str(error))


class RatesThread(RepeatingThread):
    """Reads what the processes count, for the last hour of the console's first page."""

    def __init__(self, parts: Parts) -> None:
        super().__init__("rates", WATCHED_S, WATCHED_S)
        self._parts = parts

    def step(self) -> None:
        """Read, where it is time to."""
        self._parts.last_hour.read_when_due(self._parts.metrics)

    def stop(self) -> None:
        """End, and write down what is known."""
        super().stop()
        self._parts.last_hour.write()


class WeekThread(RepeatingThread):
    """Notes what was left out and missed, for the weekly summary."""

    def __init__(self, health: ProcessHealth, state_dir: Path) -> None:
        super().__init__("week", WEEK_EVERY_S, WEEK_EVERY_S)
        self._health, self._notes = health, WeekNotes(state_dir)

    def step(self) -> None:
        """Take over what the processes say."""
        metrics = {one.name: one.value for one in self._health.metrics()}
        self._notes.note(metrics, self._health.components().get("drill", {}))


def week_between(state_dir: Path, since: float, until: float) -> Mapping[str, Any]:
    """What was left out and missed in a span; and what was heard, where it ends today: only that is known."""
    heard = queries_by_intake(state_dir, SUMMARY_DAYS) if until >= time.time() else {}
    return {"heard": heard, **noted_between(state_dir, since, until)}


class Pulse:
    """A process' sign of life, given while each of its event loops turns. beat: where it goes, nowhere by default."""

    def __init__(self, beat: Beat = lambda allow_s: None) -> None:
        self.beat = beat
        self._turned: dict[str, float] = {}

    def note(self, loop: str = "api") -> None:
        """This event loop turns."""
        self._turned[loop] = time.monotonic()

    async def note_on(self) -> None:
        """Note it again and again, on the steady clock."""
        while True:
            self.note()
            await asyncio.sleep(NOTE_S)

    def well(self) -> bool:
        """Whether all that were ever noted turn."""
        return all(time.monotonic() - at < TURN_S for at in self._turned.values())


@asynccontextmanager
async def serving(
    parts: Parts,
    host: str,
    port: int,
    beat: Heartbeat,
    retrainer: Retrainer,
    proxies: Sequence[str],
    pulse: Pulse,
    threads: Sequence[RepeatingThread | FirstLogin] = (),
) -> AsyncIterator[None]:
    """API and console; at the end it waits for `retrainer`. Raises AgentsError where the port cannot be had.

    proxies: networks whose X-Forwarded-For header is believed. pulse: notes that the API's event loop turns.
    """
    app = create_app(parts)
    config = uvicorn.Config(
        app,
        host,
        port,
        http=LimitedProtocol,
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        timeout_graceful_shutdown=GRACE_S,
    )
    sockets = [_bound(config)]
    beat.start()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=live, args=(_served(server, sockets, pulse),), name="api")
    thread.start()
    for one in threads:
        one.start()
    try:
        yield
    finally:
        for one in threads:
            await asyncio.to_thread(one.stop)
        app.state.closing.set()
        server.should_exit = True
        await asyncio.to_thread(thread.join)
        beat.stop()
        sockets[0].close()
        await asyncio.to_thread(retrainer.wait)


async def _served(server: uvicorn.Server, sockets: list[socket.socket], pulse: Pulse) -> int:
    """Serve, and note that the loop turns: uvicorn's own call-back stays out where the wall clock is set back."""
    turning = asyncio.create_task(pulse.note_on())
    await server.serve(sockets)
    turning.cancel()
    return 0


def _bound(config: uvicorn.Config) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((config.host, config.port))
    except OSError as error:
        bound.close()
        raise cannot_listen(config.host, config.port, error) from None
    return bound


async def serve(
    services: Iterable[AbstractAsyncContextManager[None]],
    ready: Callable[[], None] = lambda: None,
    pulse: Pulse | None = None,
) -> int:
    """Run the services until SIGINT or SIGTERM.

    `ready` is called when they run. Returns the exit code: 1 where a thread died of an exception, else 0. pulse: whose
    signs of life it gives.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # a supervisor blocks it until here
    with crashes_end(lambda: loop.call_soon_threadsafe(stop.set), spare=RETRAINING) as crashed:
        async with AsyncExitStack() as entered:
            for service in services:
                await entered.enter_async_context(service)
            ready()
            pulse = pulse or Pulse()
            beating = asyncio.create_task(beat_on(pulse.beat, pulse.well))
            await stop.wait()
            beating.cancel()
    return int(bool(crashed))
