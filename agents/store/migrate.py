"""Alembic, called from the program: no alembic.ini, any working directory, installed package or not."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from agents.core.errors import StoreUnusableError

_SCRIPTS = Path(__file__).parent / "migrations"
RETRY_S, RETRY_MAX_S = 2.0, 60.0
"""Who waits for a database at its start tries again after so many seconds, twice as many each time up to the most."""


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the tables to a revision, by default the newest, in the connection's open transaction.

    Raises StoreUnusableError for tables that another release made.
    """
    from alembic import command  # here: it takes long to import, and DNS is to be answered before
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise StoreUnusableError(f"cannot migrate the database: {error}") from None
