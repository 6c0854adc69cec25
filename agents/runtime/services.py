"""The long-running processes but the listener: API and scheduler, and what they start."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import IO, Any

import structlog
import uvicorn

from agents import __version__
from agents.core.errors import AgentsError, BusyError, StoreError
from agents.core.files import locked
from agents.core.logs import retraining_file
from agents.learning.report import prune
from agents.learning.retraining import retrain
from agents.runtime import bootstrap, warmup
from agents.runtime.health import ProcessHealth, calendar_of
from agents.runtime.heartbeat import Heartbeat
from agents.runtime.schedule import RetrainScheduler
from agents.runtime.signals import crashes_end
from agents.runtime.trainer import train_here, train_spawned
from agents.settings import Settings
from agents.sources.listener.sockets import cannot_listen
from agents.web.app import create_app
from agents.web.parts import Parts

DAY_S = 86_400
DAYS_AHEAD = 2
"""Days that the daily maintenance makes room for: one more than needed, in case it fails once."""
RETRAINING = "retraining"
"""Name of the thread of a retraining."""
RETRY_S, RETRY_MAX_S = 2.0, 60.0
"""The scheduler looks for its database after so many seconds, twice as many each time up to the most."""
_log = structlog.get_logger()


class Retrainer:
    """Starts retrainings in the background, one at a time in this process (the registry's lock sees to the rest)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
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
        """One retraining to its end; what went wrong is logged and recorded."""
        try:
            retrain_once(self._settings, spawned=True)
        except AgentsError as error:
            _log.error("retraining_not_run", error=str(error))

    def _run_as_of(self, now: float, locked: Future[None]) -> None:
        """One retraining as of `now`; `locked` is done when it holds the lock, or cannot begin."""
        try:
            retrain_once(self._settings, now, locked=lambda: locked.set_result(None), spawned=True)
        except (AgentsError, OSError) as error:
            _log.error("retraining_not_run", error=str(error))
            if not locked.done():
                locked.set_exception(
                    error if isinstance(error, AgentsError) else AgentsError(f"cannot retrain: {error}")
                )
        finally:
            if not locked.done():
                locked.set_exception(AgentsError("cannot retrain: see the log"))


def retrain_once(
    settings: Settings,
    now: float | None = None,
    locked: Callable[[], None] = lambda: None,
    spawned: bool = False,
    **changes: Any,
) -> Any:
    """One retraining with the settings' options and these changes, logged to logs/retraining.log.

    `locked` is called as soon as the registry's lock is held. spawned: train in another process, for one that lives on.
    Raises BusyError where another holds the lock.
    """
    progress = changes.pop("progress", None)
    store = bootstrap.store_of(settings)
    extra = {"progress": progress} if progress else {}
    parts = bootstrap.retraining_parts(settings, store, train=train_spawned if spawned else train_here, **extra)

    def begin() -> None:
        locked()
        warmup.up(lambda text: _log.info("kernels_compiling", note=text))
        try:
            store.migrate()
        except StoreError as error:  # the run itself will fail on it, be recorded and reported
            _log.warning("store_unavailable", error=str(error))

    with retraining_file(bootstrap.retraining_log(settings)):
        return asyncio.run(retrain(parts, bootstrap.retrain_options_of(settings, **changes), now, begin))


def maintain(settings: Settings) -> None:
    """Daily: make room for days to come, drop what is older than the settings say. A part that fails is logged."""
    store, now = bootstrap.store_of(settings), time.time()
    day, before = int(now // DAY_S), now - settings.incident_retention_days * DAY_S
    parts: dict[str, Callable[[], object]] = {
        "days_ahead": lambda: store.prepare([day + ahead for ahead in range(1, DAYS_AHEAD + 1)]),
        "days_dropped": lambda: store.drop_old(day - settings.query_retention_days),
        "incidents_and_runs_deleted": lambda: store.forget(before),
        "reports_deleted": lambda: prune(settings.reports_dir, before),
        "backups_pruned": lambda: _prune_backups(settings, now),
    }
    done = {}
    for name, part in parts.items():
        try:
            done[name] = part()
        except (AgentsError, OSError) as error:
            _log.error("maintenance_failed", part=name, error=str(error))
    store.close()
    _log.info("maintenance_finished", **{name: found for name, found in done.items() if found is not None})


def _prune_backups(settings: Settings, now: float) -> int:
    registry = bootstrap.registry_of(settings)
    try:
        with registry.lock():
            return registry.prune(now, settings.backup_days)
    except BusyError:  # a retraining prunes, too
        _log.info("backups_not_pruned", reason="a retraining is under way")
        return 0


def scheduler_of(settings: Settings) -> RetrainScheduler:
    """The calendar. Raises SettingsError for a bad schedule."""
    return RetrainScheduler(
        bootstrap.store_of(settings),
        Retrainer(settings).run,
        lambda: maintain(settings),
        settings.retrain_schedule,
        settings.retrain_timezone,
    )


@asynccontextmanager
async def scheduling(settings: Settings) -> AsyncIterator[RetrainScheduler]:
    """The scheduler. While the database is away it is tried again; nothing else waits for that.

    Raises AgentsError where another one runs: each would begin what is due.
    """
    scheduler = scheduler_of(settings)
    with _only_one(settings):
        starting = asyncio.create_task(_started(settings, scheduler))
        beat = Heartbeat(settings.state_dir / "scheduler.json", lambda: calendar_of(scheduler))
        beat.start()
        try:
            yield scheduler
        finally:
            starting.cancel()
            await asyncio.to_thread(scheduler.stop)
            beat.stop()


def _only_one(settings: Settings) -> IO[bytes]:
    try:
        return locked(settings.state_dir / "scheduler.lock")
    except BlockingIOError:
        folder = settings.data_dir.absolute()
        raise AgentsError(f"cannot schedule: another scheduler runs on {folder} (dns-tunnel schedule or run)") from None


async def _started(settings: Settings, scheduler: RetrainScheduler) -> None:
    store, pause = bootstrap.store_of(settings), RETRY_S
    while True:
        try:
            await asyncio.to_thread(store.migrate)
            return await asyncio.to_thread(scheduler.start)
        except AgentsError as error:
            if pause == RETRY_S:  # once; its sign of life says it all the while
                _log.warning("scheduler_waits_for_store", error=str(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_MAX_S)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[None]:
    """API and console. Raises AgentsError where the port cannot be had."""
    registry, store = bootstrap.registry_of(settings), bootstrap.store_of(settings)
    health_, retrainer = ProcessHealth(settings.state_dir, registry), Retrainer(settings)
    app = create_app(
        Parts(
            store=store,
            models=registry,
            reports_dir=settings.reports_dir,
            token=bootstrap.api_token_of(settings),
            retrain=retrainer.start,
            health=health_.components,
            metrics=health_.metrics,
            version=__version__,
        )
    )
    config = uvicorn.Config(
        app, settings.api_host, settings.api_port, log_config=None, log_level="warning", access_log=False
    )
    sockets = [_bound(config)]
    beat = Heartbeat(settings.state_dir / "api.json", dict)
    beat.start()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=(sockets,), name="api")
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join)
        beat.stop()
        sockets[0].close()
        await asyncio.to_thread(retrainer.wait)


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
    settings: Settings,
    parts: Sequence[str],
    ready: Callable[[], None] = lambda: None,
    stopping: Callable[[], None] = lambda: None,
) -> int:
    """Run "api" and "scheduler", those that `parts` names, until SIGINT or SIGTERM.

    `ready` is called when they run, `stopping` when they are about to end. Returns the exit code: 1 where a thread
    died of an exception, else 0.
    """
    bootstrap.make_folders(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # a supervisor blocks it until here
    with crashes_end(lambda: loop.call_soon_threadsafe(stop.set), spare=RETRAINING) as crashed:
        async with AsyncExitStack() as entered:
            for name, maker in (("api", serving), ("scheduler", scheduling)):
                if name in parts:
                    await entered.enter_async_context(maker(settings))
            ready()
            await stop.wait()
            stopping()
    return int(bool(crashed))
