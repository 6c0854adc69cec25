"""`dns-tunnel listen` and `dns-tunnel run`: the commands that answer DNS. They import little, to answer soon."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import closing

from agents import bootstrap
from agents.messages import command
from agents.settings import Settings
from agents.signals import live
from agents.supervisor import supervise


def listen(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel listen`."""
    bootstrap.check_settings(settings)
    return _ended(settings, supervise(settings, [], lambda: None))


def run(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel run`."""
    from agents import processes  # here: `listen` needs no web server

    bootstrap.check_settings(settings)

    def console(ready: Callable[[], None]) -> int:
        return live(processes.serve(settings, ("api", "scheduler"), ready))

    code = supervise(settings, [("console", console)], lambda: print(_welcome(settings), flush=True))
    return _ended(settings, code)


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
