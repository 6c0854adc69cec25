"""Pi-hole's long-term database `pihole-FTL.db`, an SQLite file with a table or view `queries`."""

from __future__ import annotations

import io
import math
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agents.core.errors import AgentsError, CaptureError
from agents.core.text import printable
from agents.core.types import FORWARDED, FROM_CACHE, FROM_CACHE_STALE, TIME_MAX, UNKNOWN, QueryBatch
from agents.sources.intake import Fidelity, Intake, Observed
from agents.sources.logs.source import Rows, RowSource, literal

_MAGIC = b"SQLite format 3\0"
_TYPES = (
    "", "A", "AAAA", "ANY", "SRV", "SOA", "PTR", "TXT", "NAPTR", "MX", "DS", "RRSIG", "DNSKEY", "NS", "", "SVCB",
    "HTTPS",
)  # fmt: skip
"""Pi-hole's numbers of types; "" = another one (docs.pi-hole.net/database/query-database)."""
_OTHER_FROM = 100
"""Where the number is 100 or more, the type is what is above it."""
NOT_TOLD = "TYPE0"
"""Stands for a type that the database does not tell: 0 is no type (RFC 6895 section 3.1)."""
_RCODES = {1: 0, 2: 3, 3: 0, 4: 0, 5: 0, 6: 0, 7: 2, 8: 5, 9: 4, 11: 0, 13: 0}
"""Response codes of Pi-hole's reply types: NODATA, NXDOMAIN, CNAME, IP, DOMAIN, RRNAME, SERVFAIL, and so on."""
_CACHED = {2: FORWARDED, 3: FROM_CACHE, 17: FROM_CACHE_STALE}
_NEEDED = ("timestamp", "type", "status", "domain", "client")
HIDDEN = "hidden"
"""What Pi-hole writes for names or clients at its privacy levels."""


class PiHoleAwayError(AgentsError):
    """A Pi-hole's API cannot be asked at present."""


class PiHoleSource(RowSource):
    """The queries of one database, in the order of their times. Raises CaptureError if it has none of Pi-hole's."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._rows = self._done_rows = 0
        with self._connected() as database:
            try:
                found = {str(row[1]) for row in database.execute("PRAGMA table_info(queries)")}
                self._optional = [name for name in ("reply_type", "reply_time") if name in found]
                if missing := [name for name in _NEEDED if name not in found]:
                    raise CaptureError(f"cannot read {path}: a database without Pi-hole's queries ({missing[0]})")
            except sqlite3.Error as error:
                raise CaptureError(f"cannot read {path}: {printable(error)}") from None

    def check(self, stream: io.BufferedReader) -> None:
        """Raise CaptureError unless the file is an SQLite database that lies there unpacked."""
        if stream.read(len(_MAGIC)) != _MAGIC or (self._opened and self._opened.inflated):
            raise CaptureError(f"cannot read {self._path}: no SQLite file, or one that is to be unpacked first")

    @property
    def done(self) -> int:
        """Bytes read up to now, by the share of rows that were."""
        return self._size * self._done_rows // max(self._rows, 1)

    def _connected(self) -> sqlite3.Connection:
        # Read only, and where another process writes to it: what is committed is read.
        database = sqlite3.connect(
            f"file:{quote(str(self._path.absolute()))}?mode=ro", uri=True, check_same_thread=False
        )
        database.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        return database

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield batches of at most `size` queries."""
        found, hidden = Rows("row"), 0
        columns = ", ".join((*_NEEDED, *self._optional))
        database = self._connected()
        try:
            (self._rows,) = database.execute("SELECT count(*) FROM queries").fetchone()
            rows = database.execute(f"SELECT {columns} FROM queries ORDER BY timestamp, id")  # noqa: S608
            while chunk := rows.fetchmany(size):
                self._done_rows += len(chunk)
                observed = []
                for row in chunk:
                    found.at += 1
                    if row[3] == HIDDEN:
                        hidden += 1
                        continue
                    if (one := _observed(row[:5], dict(zip(self._optional, row[5:], strict=True)))) is not None:
                        observed.append(one)
                    else:
                        found.note_bad(ValueError("a row does not hold what Pi-hole writes"))
                if (batch := found.batch(observed)) is not None:
                    yield batch
        except sqlite3.Error as error:
            self._warn(f"{printable(error)}; what came before was used")
        finally:
            database.close()
        self.malformed = found.malformed
        self.warn_of_rows(found, hidden)


def _observed(needed: tuple[Any, ...], optional: Mapping[str, Any]) -> Observed | None:
    """One row, or None for values that are not Pi-hole's."""
    timestamp, number, status, domain, client = needed
    reply, took = optional.get("reply_type"), optional.get("reply_time")
    if not isinstance(timestamp, int | float) or not isinstance(domain, str) or not isinstance(client, str):
        return None
    if not 0 <= timestamp <= TIME_MAX:
        return None
    if not isinstance(number, int) or number < 0 or len(_TYPES) <= number < _OTHER_FROM:
        return None
    qtype = f"TYPE{number - _OTHER_FROM}" if number >= _OTHER_FROM else _TYPES[number]
    return Observed(
        float(timestamp),
        client,
        literal(domain),
        qtype or NOT_TOLD,
        rcode=_RCODES.get(reply, UNKNOWN) if isinstance(reply, int) else UNKNOWN,
        rtt_ms=took * 1000 if isinstance(took, int | float) else math.nan,
        cached=_CACHED.get(status, UNKNOWN) if isinstance(status, int) else UNKNOWN,
    )


SPEC = Intake(
    name="pihole",
    summary="a database of Pi-hole",
    fields=(),
    factory=lambda path, options: PiHoleSource(path),
    recognizes=lambda head: head.startswith(_MAGIC),
    sign="an SQLite file",
    fidelity=Fidelity(
        names="small letters only, and what cannot be printed is replaced: names in base64 cannot be decoded",
        answers="none: data in answers is not seen",
    ),
)
