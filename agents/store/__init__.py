"""What is kept: Postgres or SQLite behind one `Store`, and a disk spool for when it is away.

`learning`, `web`, `runtime` and `cli` may import it; `sources`, `scoring` and `alerting` stand beside it and may not.
"""

from agents.store.opening import open_store
from agents.store.spool import SpoolingSink
from agents.store.sql import Store

__all__ = ["SpoolingSink", "Store", "open_store"]
