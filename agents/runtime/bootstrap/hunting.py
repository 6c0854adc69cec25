"""From settings to hunting stores."""

from __future__ import annotations

from agents.core.protocols import library
from agents.settings import Settings
from agents.store.hunting import options as hunt_options
from agents.store.hunting.answers import HuntStore
from agents.store.hunting.days import DayFiles
from agents.store.hunting.hunter import FileHunter
from agents.store.hunting.options import HuntOptions
from agents.store.sql import Store


def hunt_options_of(settings: Settings) -> HuntOptions:
    """The settings HUNT_…. Raises SettingsError where files are to be written and DuckDB is not installed."""
    found = hunt_options.SPEC.factory(settings.of(hunt_options.SPEC))
    if found.days:
        library("duckdb", "hunt", "setting HUNT_DAYS")
    return found


def day_files_of(settings: Settings, store: Store) -> DayFiles:
    """Files of closed days; there may be none."""
    memory_mb = hunt_options.SPEC.factory(settings.of(hunt_options.SPEC)).memory_mb
    return DayFiles(store, settings.state_dir / "hunt", memory_mb)


def hunter_of(settings: Settings, store: Store, closed_only: bool = False) -> HuntStore:
    """What answers hunts. closed_only: only days that are in files. Raises SettingsError."""
    library("duckdb", "hunt", "dns-tunnel hunt")
    return FileHunter(day_files_of(settings, store), closed_only)
