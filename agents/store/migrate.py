"""Alembic, called from the program: no alembic.ini, any working directory, installed package or not."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

_SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the tables to a revision, the newest unless told, in the connection's open transaction."""
    from alembic import command  # here: it takes long to import, and DNS is to be answered before
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
