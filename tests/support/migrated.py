"""SQLite's empty databases get the tables that the migrations made in one of them, in a tenth of the time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection

from agents.store import migrate


@contextmanager
def migrated_once() -> Iterator[None]:
    """All migrations run in the first empty database of this process; those that follow get what came of it."""
    run, kept = migrate.upgrade, list[str]()

    def upgrade(connection: Connection, revision: str = "head") -> None:
        driver: Any = connection.connection.driver_connection
        if revision != "head" or not isinstance(driver, sqlite3.Connection) or _has_tables(driver):
            run(connection, revision)
        elif kept:
            for statement in kept:
                driver.execute(statement)
        else:
            run(connection, revision)
            kept.extend(_statements(driver))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(migrate, "upgrade", upgrade)
        yield


def _has_tables(driver: sqlite3.Connection) -> bool:
    return driver.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None


def _statements(driver: sqlite3.Connection) -> list[str]:
    left_out = {"BEGIN TRANSACTION;", "COMMIT;"}  # the caller has a transaction of its own
    return [text for text in driver.iterdump() if text not in left_out and "sqlite_sequence" not in text]
