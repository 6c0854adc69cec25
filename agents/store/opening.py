"""From a database address to its store."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from agents.core.errors import SettingsError
from agents.store.postgres import PostgresStore
from agents.store.sql import Store
from agents.store.sqlite import SqliteStore

POSTGRES_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+psycopg2"})
"""Ways to write the address of a Postgres; the first is what hosting services hand out."""


def open_store(url: str) -> Store:
    """The store at `postgresql://user:password@host/database` or `sqlite:////path`; connects to nothing yet.

    Raises SettingsError for an address that cannot be used.
    """
    parsed = _parse(url)
    if parsed.drivername in POSTGRES_SCHEMES:
        return PostgresStore(parsed.set(drivername="postgresql+psycopg2"))
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        return SqliteStore(parsed)
    raise SettingsError(f"cannot use database {parsed.drivername!r}: postgresql or sqlite is needed")


def _parse(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError("cannot use DATABASE_URL: it is not scheme://user:password@host/database") from None
