"""From settings to hunting stores."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from agents.core.errors import SettingsError
from agents.core.protocols import library
from agents.runtime.bootstrap.among import Among
from agents.settings import Settings
from agents.store.hunting import options as hunt_options
from agents.store.hunting.answers import HuntStore
from agents.store.hunting.clickhouse import ClickHouse
from agents.store.hunting.days import DayFiles
from agents.store.hunting.options import HuntOptions
from agents.store.hunting.place import HuntPlace
from agents.store.hunting.sending import HuntSink
from agents.store.sql import Store

if TYPE_CHECKING:
    from agents.runtime.hunt_process import HuntDesk

HUNT_FOLDER = "hunt"
"""Folder of files of closed days, in that of the state."""


def hunt_options_of(settings: Settings) -> HuntOptions:
    """The settings HUNT_…. Raises SettingsError for those that do not go together, or need what is not installed."""
    found = hunt_options.SPEC.factory(settings.of(hunt_options.SPEC))
    if found.url and not found.days:
        raise SettingsError("cannot use setting HUNT_URL: HUNT_DAYS says for how many days queries are kept; it is 0")
    if found.file_days and importlib.util.find_spec("duckdb") is None:  # not imported: a listener has no use for it
        library("duckdb", "hunt", "setting HUNT_DAYS")
    return found


def day_files_of(settings: Settings, store: Store) -> DayFiles:
    """Files of closed days; there may be none."""
    memory_mb = hunt_options.SPEC.factory(settings.of(hunt_options.SPEC)).memory_mb
    return DayFiles(store, settings.state_dir / HUNT_FOLDER, memory_mb)


def clickhouse_of(settings: Settings) -> ClickHouse | None:
    """The server of HUNT_URL, where one is set. Raises SettingsError."""
    options = hunt_options_of(settings)
    return ClickHouse(options.url, options.memory_mb) if options.url else None


def hunt_place_of(settings: Settings) -> HuntPlace:
    """Where hunts are answered. Raises SettingsError."""
    options = hunt_options_of(settings)
    folder = str((settings.state_dir / HUNT_FOLDER).absolute())
    return HuntPlace(folder, options.memory_mb, options.days, settings.store_url, options.url)


def hunter_of(settings: Settings, store: Store, closed_only: bool = False) -> HuntStore:
    """What answers hunts in this process. closed_only: only days that are in files. Raises SettingsError."""
    return hunt_place_of(settings).hunter(store, closed_only)


def hunt_desk_of(settings: Settings) -> HuntDesk:
    """What answers hunts of the console, each in a process of its own. Raises SettingsError."""
    from agents.runtime.hunt_process import HuntDesk

    return HuntDesk(hunt_place_of(settings))


def hunt_spool_of(settings: Settings) -> Path:
    """Where queries wait that ClickHouse has not got yet."""
    return settings.state_dir / "hunt_spool"


def hunt_sink_of(settings: Settings, among: Among | None) -> HuntSink | None:
    """What has queries sent to ClickHouse, where one is set. among: which of several processes this is."""
    server, options, folder = clickhouse_of(settings), hunt_options_of(settings), hunt_spool_of(settings)
    if server is None or (among is not None and not among.judges):
        return None
    most = options.spool_mb << 20
    if among is not None:
        folder, most = folder / among.name, most // among.processes
    return HuntSink(server, folder, options.days, most)
