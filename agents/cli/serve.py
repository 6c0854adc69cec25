"""`dns-tunnel run`, `listen`, `collect`, `detect`, `api` and `schedule`: commands that run until they are stopped."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from typing import TYPE_CHECKING

from agents.core.errors import SettingsError, UsageError
from agents.core.text import command
from agents.runtime import bootstrap
from agents.runtime.signals import Beat, live
from agents.runtime.supervisor import supervise, supervise_one
from agents.settings import Settings
from agents.stream.note import SharedNote

if TYPE_CHECKING:
    from agents.runtime import services


def listen(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel listen`."""
    bootstrap.check_settings(settings)
    plan = bootstrap.plan_of(
        settings, collecting=bootstrap.collecting_of(settings), receiving=bootstrap.receiving_of(settings)
    )
    return _ended(settings, supervise(plan, lambda: None))


def detect(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel detect`."""
    bootstrap.check_settings(settings)
    return _ended(settings, supervise(bootstrap.detect_plan_of(settings), lambda: None))


def collect(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel collect`."""
    collecting = bootstrap.collecting_of(settings, options.files, options.format or "", options.from_start)
    receiving = bootstrap.receiving_of(settings, options.files, options.format or "")
    if collecting is None and receiving is None:
        raise UsageError("cannot collect: no file is named, nor is any in COLLECT_FILES")
    bootstrap.check_settings(settings)
    plan = bootstrap.plan_of(settings, collecting=collecting, listens=False, receiving=receiving)
    return _ended(settings, supervise(plan, lambda: None))


def run(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel run`."""
    from agents.runtime import services  # here: `listen` does not need the web server

    bootstrap.check_settings(settings)
    if bootstrap.bus_options_of(settings).servers:
        raise SettingsError("cannot run all in one with setting STREAM: start `listen`, `detect`, `api` and `schedule`")

    note = SharedNote()

    def console(ready: Callable[[], None], beat: Beat) -> int:
        pulse = services.Pulse(beat)
        parts = [bootstrap.serving_of(settings, pulse, note), bootstrap.scheduling_of(settings)]
        return live(services.serve(parts, ready, pulse=pulse))

    collecting, receiving = bootstrap.collecting_of(settings), bootstrap.receiving_of(settings)
    plan = bootstrap.plan_of(settings, [("console", console)], note, collecting, receiving=receiving)
    return _ended(settings, supervise(plan, lambda: print(_welcome(settings), flush=True)))


def _ended(settings: Settings, code: int) -> int:
    with closing(bootstrap.store_of(settings)) as store:
        store.fold()
    return code


def _welcome(settings: Settings) -> str:
    host = settings.listen_host.split(",")[0]
    at, port = settings.api_host, settings.api_port
    where = f"[{at}]" if ":" in at else at
    kept = "API_TOKEN" if settings.api_token.get_secret_value() else str(bootstrap.token_path(settings))
    return (
        f"\n  answering DNS   {host} port {settings.listen_port}"
        f"      try: dig @{host} -p {settings.listen_port} example.com"
        f"\n  console, API    http://{where}:{port}/      token: {kept}"
        f"\n  retrain now     {command('retrain')}      stop: Ctrl-C\n"
    )


def _serve(
    settings: Settings, name: str, service: Callable[[Settings, services.Pulse], AbstractAsyncContextManager[None]]
) -> int:
    """One service, in a process that is started again where it dies or hangs."""
    from agents.runtime import services

    bootstrap.check_settings(settings)
    bootstrap.make_folders(settings)

    def work(ready: Callable[[], None], beat: Beat) -> int:
        pulse = services.Pulse(beat)
        return live(services.serve([service(settings, pulse)], ready, pulse=pulse))

    return supervise_one(name, work, settings.hang_s)


def api(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel api`."""
    return _serve(settings, "api", bootstrap.serving_of)


def schedule(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel schedule`."""
    return _serve(settings, "scheduler", lambda settings, pulse: bootstrap.scheduling_of(settings))
