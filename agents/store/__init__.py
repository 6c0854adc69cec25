"""Where verdicts are kept: Postgres or SQLite behind one `Store`, and a disk spool for when it is away."""

from agents.store.base import Store
from agents.store.opening import open_store
from agents.store.spool import SpoolingSink

__all__ = ["SpoolingSink", "Store", "open_store"]
