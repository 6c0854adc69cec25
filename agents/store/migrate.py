"""Alembic, called from the program: no alembic.ini, any working directory, installed package or not."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from agents.core.errors import StoreUnusableError

_SCRIPTS = Path(__file__).parent / "migrations"


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
