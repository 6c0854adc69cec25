"""The long-running processes: listener, API, scheduler, and all three in one."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import structlog
import uvicorn

from agents import __version__, bootstrap, heartbeat
from agents.cron import cron_trigger
from agents.errors import AgentsError, BusyError, StoreError
from agents.health import ModelHealth, calendar_of, counters_of, health_of
from agents.judge import Judge
from agents.logs import retraining_file
from agents.retraining import retrain
from agents.scheduler import RetrainScheduler
from agents.settings import Settings, parse_upstreams
from agents.sources.batcher import Batcher
from agents.sources.listener import Listener
from agents.sources.upstream import Endpoint, system_resolvers
from agents.web.app import create_app
from agents.web.parts import Parts

DAY_S = 86_400
_log = structlog.get_logger()


def upstreams_of(settings: Settings) -> list[tuple[str, list[Endpoint]]]:
    """Zones and their upstreams; what no zone claims goes to the system's resolvers unless UPSTREAMS says where."""
    upstreams = parse_upstreams(settings.upstreams)
    if not any(zone == "" for zone, _ in upstreams):
        upstreams.append(("", system_resolvers()))
    return upstreams


def check(settings: Settings) -> None:
    """Raise SettingsError for settings that only show when they are used, before any socket opens."""
    bootstrap.validator_of(settings)
    bootstrap.alert_manager_of(settings)
    cron_trigger(settings.retrain_schedule, settings.retrain_timezone)
    bootstrap.store_of(settings).close()


@asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[Listener]:
    """The listener with everything behind it. Raises AgentsError where it cannot start."""
    judge = Judge(settings)
    batcher = Batcher(settings.queue_max, settings.batch_max, settings.batch_wait_ms, judge.consume)
    listener = Listener(
        [host.strip() for host in settings.listen_host.split(",")],
        settings.listen_port,
        upstreams_of(settings),
        allowed_clients=[part.strip() for part in settings.allowed_clients.split(",") if part.strip()],
        timeout_s=settings.upstream_timeout_s,
        tcp_clients_max=settings.tcp_clients_max,
        tcp_idle_s=settings.tcp_idle_s,
        inflight_max=settings.inflight_max,
        offer=batcher.offer,
    )

    def state() -> dict[str, Any]:
        return {
            **judge.state(),
            "counters": dataclasses.asdict(listener.counters),
            "queue_dropped": batcher.dropped,
            "judging": batcher.alive and judge.alive,
        }

    beat = heartbeat.Heartbeat(settings.state_dir / "listener.json", state)
    try:
        await listener.start()
        judge.start()
        beat.start()
        _log.info("listener_started", addresses=[f"{host} port {port}" for host, port in listener.addresses])
        yield listener
    finally:
        await listener.stop()
        batcher.close()
        judge.close()
        beat.stop()


class Retrainer:
    """Starts retrainings in the background, one at a time in this process (the registry's lock sees to the rest)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Begin one; returns its run id. Raises BusyError."""
        if self._thread is not None and self._thread.is_alive():
            raise BusyError("cannot retrain: a retraining is under way")
        with bootstrap.registry_of(self._settings).lock():
            now = time.time()
        self._thread = threading.Thread(target=self.run, args=(now,), name="retraining")
        self._thread.start()
        return f"{datetime.fromtimestamp(now, UTC):%Y%m%d_%H%M%S}"

    def run(self, now: float | None = None) -> None:
        """One retraining to its end; what went wrong is logged and recorded."""
        try:
            retrain_once(self._settings, now)
        except AgentsError as error:
            _log.error("retraining_not_run", error=str(error))


def retrain_once(settings: Settings, now: float | None = None, **changes: Any) -> Any:
    """One retraining with the settings' options and these changes, logged to logs/retraining.log."""
    progress = changes.pop("progress", None)
    store = bootstrap.store_of(settings)
    extra = {"progress": progress} if progress else {}
    parts = bootstrap.retraining_parts(settings, store, **extra)
    with retraining_file(bootstrap.retraining_log(settings)):
        try:
            store.migrate()
        except StoreError as error:  # the run itself will fail on it, be recorded and told
            _log.warning("store_unavailable", error=str(error))
        return asyncio.run(retrain(parts, bootstrap.retrain_options_of(settings, **changes), now))


def maintain(settings: Settings) -> None:
    """Daily: drop what retention says, prune backups."""
    store = bootstrap.store_of(settings)
    day = int(time.time() // DAY_S) - settings.retention_days
    dropped = store.drop_old(day)
    pruned = bootstrap.registry_of(settings).prune(time.time(), settings.backup_days)
    _log.info("maintenance_finished", partitions_dropped=dropped, backups_pruned=pruned)


def scheduler_of(settings: Settings) -> RetrainScheduler:
    """The calendar. Raises SettingsError for a bad schedule."""
    return RetrainScheduler(
        settings.store_url,
        Retrainer(settings).run,
        lambda: maintain(settings),
        settings.retrain_schedule,
        settings.retrain_timezone,
    )


@asynccontextmanager
async def scheduling(settings: Settings) -> AsyncIterator[RetrainScheduler]:
    """The scheduler. While the database is away it is tried again; nothing else waits for that."""
    scheduler = scheduler_of(settings)
    starting = asyncio.create_task(_started(settings, scheduler))
    beat = heartbeat.Heartbeat(settings.state_dir / "scheduler.json", lambda: calendar_of(scheduler))
    beat.start()
    try:
        yield scheduler
    finally:
        starting.cancel()
        await asyncio.to_thread(scheduler.stop)
        beat.stop()


async def _started(settings: Settings, scheduler: RetrainScheduler) -> None:
    store = bootstrap.store_of(settings)
    while True:
        try:
            await asyncio.to_thread(store.migrate)
            return await asyncio.to_thread(scheduler.start)
        except AgentsError as error:
            _log.warning("scheduler_waits_for_store", error=str(error))
            await asyncio.sleep(settings.upstream_timeout_s)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[None]:
    """API and console. Raises AgentsError where the port cannot be had."""
    registry, store = bootstrap.registry_of(settings), bootstrap.store_of(settings)
    model = ModelHealth(registry)
    app = create_app(
        Parts(
            store=store,
            models=registry,
            reports_dir=settings.reports_dir,
            token=bootstrap.api_token_of(settings),
            retrain=Retrainer(settings).start,
            health=lambda: health_of(settings, model),
            counters=lambda: counters_of(settings),
            version=__version__,
        )
    )
    config = uvicorn.Config(app, settings.api_host, settings.api_port, log_config=None, access_log=False)
    sockets = [_bound(config)]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=(sockets,), name="api")
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join)
        sockets[0].close()


def _bound(config: uvicorn.Config) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((config.host, config.port))
    except OSError as error:
        bound.close()
        raise AgentsError(f"cannot serve on {config.host} port {config.port}: {error.strerror}") from None
    return bound


async def serve(settings: Settings, parts: Sequence[str], ready: Callable[[], None] = lambda: None) -> None:
    """Run "listener", "api" and "scheduler", those that `parts` names, until SIGINT or SIGTERM."""
    bootstrap.make_folders(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    makers = {"listener": listening, "api": serving, "scheduler": scheduling}
    async with AsyncExitStack() as stack:
        for part in parts:
            await stack.enter_async_context(makers[part](settings))
        ready()
        await stop.wait()
        _log.info("stopping")
