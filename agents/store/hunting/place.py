"""Where hunts are answered, as one process hands it to another."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agents.core.protocols import library
from agents.store.hunting.answers import HuntStore
from agents.store.hunting.clickhouse import ClickHouse
from agents.store.hunting.days import DayFiles
from agents.store.hunting.hunter import FileHunter
from agents.store.sql import Store


@dataclass(frozen=True, slots=True)
class HuntPlace:
    """url: of ClickHouse, "" = files in a folder. database: address of what has the days without a file.

    days: that files are written for; 0 = there are those of before, or none.
    """

    folder: str
    memory_mb: int
    days: int
    database: str = field(repr=False)
    url: str = field(repr=False)

    @property
    def engine(self) -> str:
        """Its name for people; "" = nothing is set up."""
        if self.url:
            return "ClickHouse"
        return "DuckDB" if self.days or any(Path(self.folder).glob("day=*")) else ""

    def hunter(self, store: Store, closed: bool = False, mark: str = "", user: str = "dns-tunnel hunt") -> HuntStore:
        """What answers there. store: that of `database`; closed: only days in files; user: for whom DuckDB is needed.

        Raises SettingsError without DuckDB.
        """
        if self.url:
            return ClickHouse(self.url, self.memory_mb)
        library("duckdb", "hunt", user)
        return FileHunter(DayFiles(store, Path(self.folder), self.memory_mb, mark=mark), closed)
