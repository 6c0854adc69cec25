"""ClickHouse over its HTTP interface: tables, blocks, questions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from agents.core.errors import StoreError, UsageError
from agents.core.text import printable
from agents.store.hunting.answers import HuntRows
from agents.store.hunting.columns import HUNT_NAMES
from agents.store.hunting.tables import HELD_BY_CLIENT, SENT_NAMES, aged_tables, made_tables

SCHEMES = {"clickhouse+http": "http", "clickhouse+https": "https"}
SEND_S, CONNECT_S = 60.0, 3.0
"""Seconds that a block may take, and a connection."""
ERROR_MAX = 300
"""Characters of the server's words, at most."""
NO_FAULT = frozenset({"81", "159", "160", "192", "193", "194", "202", "209", "210", "241", "252", "394", "516"})
"""Codes of the server's that are not the question's: time, memory, load, users (clickhouse.com, ErrorCodes.cpp)."""
_TOKENED = {
    "insert_deduplicate": "1",
    "deduplicate_blocks_in_dependent_materialized_views": "1",
    "async_insert": "0",
    "input_format_parallel_parsing": "0",
    "input_format_json_read_numbers_as_strings": "0",
}


def clickhouse_address(text: str) -> None:
    """A check of a setting. Raises ValueError."""
    try:
        parsed = urlsplit(text)
        fine = parsed.scheme in SCHEMES and bool(parsed.hostname) and (parsed.port or 1) > 0
    except ValueError:
        fine = False
    if text and not (fine and parsed.path.strip("/")):
        raise ValueError("an address is clickhouse+http://USER:PASSWORD@HOST:8123/DATABASE, or clickhouse+https://…")


class ClickHouse:
    """One database there. Threads may share it. Methods raise StoreError, without the password."""

    dialect = "clickhouse"

    def __init__(self, url: str, memory_mb: int = 512) -> None:
        parsed = urlsplit(url)
        host = f"[{parsed.hostname}]" if ":" in (parsed.hostname or "") else parsed.hostname
        self.place = f"{host}:{parsed.port or (8443 if parsed.scheme.endswith('s') else 8123)}"
        self._database, self._memory_mb = unquote(parsed.path.strip("/")), memory_mb
        headers = {"X-ClickHouse-User": unquote(parsed.username or "default")}
        if parsed.password:
            headers["X-ClickHouse-Key"] = unquote(parsed.password)
        self._client = httpx.Client(
            base_url=f"{SCHEMES[parsed.scheme]}://{self.place}",
            headers=headers,
            timeout=httpx.Timeout(SEND_S, connect=CONNECT_S),
            trust_env=False,
        )
        self._guard = threading.Lock()
        self._made = False

    def close(self) -> None:
        self._client.close()

    def make(self, days: int) -> None:
        """Make tables that are not there, and have rows kept for so many days; once in the life of this object."""
        with self._guard:
            if self._made:
                return
            for statement in made_tables(days):
                self._run("make tables", statement)
            kept = {
                row[0]: row[1]
                for row in self._rows("SELECT name, engine_full FROM system.tables WHERE database = currentDatabase()")
            }
            for name, statement in aged_tables(days).items():
                if f"toIntervalDay({days})" not in kept.get(name, ""):
                    self._run("change how long rows are kept", statement, {"mutations_sync": "0"})
            self._made = True

    def send(self, body: bytes, token: str) -> None:
        """Store a block (JSONColumns, perhaps several objects, gzip). One with this token is stored once."""
        insert = f"INSERT INTO queries ({', '.join(SENT_NAMES)}) FORMAT JSONColumns"
        self._post("send queries", body, {"query": insert, "insert_deduplication_token": token, **_TOKENED}, gzip=True)

    def ask(self, sql: str, limit: int, limit_s: float) -> HuntRows:
        """See HuntStore. The server lets it read alone: no table function, no change of settings."""
        text = sql.strip().rstrip(";").rstrip()
        whole = f"SELECT * FROM (\n{text}\n) LIMIT {limit + 1} FORMAT JSONCompact"
        options = {
            "readonly": "1",
            "max_execution_time": f"{limit_s:g}",
            "max_memory_usage": str(self._memory_mb << 20),
            "asterisk_include_materialized_columns": "1",
            "output_format_json_quote_64bit_integers": "0",
            "output_format_json_quote_denormals": "0",
            "cancel_http_readonly_queries_on_client_close": "1",
        }
        try:
            answer = self._post("hunt", whole.encode(), options, limit_s=limit_s + CONNECT_S, asked=True)
        except UsageError:
            if not int(self._rows("EXISTS TABLE queries")[0][0]):
                raise StoreError(f"cannot hunt: ClickHouse at {self.place} has been sent no queries yet") from None
            raise
        try:
            return _rows_of(answer.content, limit)
        except ValueError:  # it closed our bracket, and chose a form of its own
            raise UsageError("cannot hunt: it must be one SELECT") from None

    def covered(self) -> list[int]:
        """See HuntStore: days with an hour in the sums."""
        asked = "SELECT DISTINCT toInt32(toRelativeDayNum(hour, 'UTC')) AS day FROM domain_hours ORDER BY day"
        return [int(row[0]) for row in self._rows(asked)]

    def rows_of(self, client: str) -> Iterator[dict[str, Any]]:
        """A client's rows, newest first; ts in Unix seconds."""
        asked = f"SELECT {', '.join(HUNT_NAMES)} FROM queries WHERE client = {{client:String}} ORDER BY ts DESC"
        options = {"param_client": client, "readonly": "1", "output_format_json_quote_64bit_integers": "0"}
        answer = self._post("read a client", f"{asked} FORMAT JSONCompact".encode(), options)
        for row in _rows_of(answer.content, None).rows:
            found = dict(zip(HUNT_NAMES, row, strict=True))
            yield found | {"ts": found["ts"].replace(tzinfo=UTC).timestamp()}

    def erase(self, client: str) -> int:
        """Delete a client's rows, and wait until that is done; how many queries there were."""
        mine, values = "WHERE client = {client:String}", {"param_client": client}
        count = int(self._rows(f"SELECT count() FROM queries {mine}", values)[0][0])
        for table in HELD_BY_CLIENT:
            self._run("erase a client", f"ALTER TABLE {table} DELETE {mine}", {"mutations_sync": "2", **values})
        return count

    def counted(self) -> tuple[int, int]:
        """Rows, and bytes on the server's disk, of all our tables."""
        asked = (
            "SELECT sumIf(rows, table = 'queries'), sum(bytes_on_disk) FROM system.parts"
            " WHERE active AND database = currentDatabase()"
        )
        rows, size = self._rows(asked)[0]
        return int(rows), int(size)

    def _run(self, what: str, statement: str, options: Mapping[str, str] | None = None) -> None:
        self._post(what, statement.encode(), options or {})

    def _rows(self, sql: str, options: Mapping[str, str] | None = None) -> list[list[Any]]:
        answer = self._post("look at tables", f"{sql} FORMAT JSONCompact".encode(), options or {})
        found: list[list[Any]] = json.loads(answer.content)["data"]
        return found

    def _post(
        self,
        what: str,
        body: bytes,
        options: Mapping[str, str],
        limit_s: float = SEND_S,
        gzip: bool = False,
        asked: bool = False,
    ) -> httpx.Response:
        """asked: by a person, whose mistakes are UsageError."""
        headers = {"Content-Encoding": "gzip"} if gzip else {}
        params = {"database": self._database, "wait_end_of_query": "1", **options}
        timeout = httpx.Timeout(limit_s, connect=CONNECT_S)
        try:
            answer = self._client.post("/", params=params, content=body, headers=headers, timeout=timeout)
        except httpx.TimeoutException:
            raise StoreError(f"cannot {what}: ClickHouse at {self.place} gave no answer within {limit_s:g} s") from None
        except httpx.HTTPError as error:
            raise StoreError(f"cannot {what}: no ClickHouse at {self.place} ({type(error).__name__})") from None
        code = answer.headers.get("X-ClickHouse-Exception-Code", "")
        if answer.status_code == 200 and not code:
            return answer
        told = printable(" ".join(answer.text.partition("\n")[0].split()), ERROR_MAX) or f"status {answer.status_code}"
        kind = UsageError if asked and code and code not in NO_FAULT else StoreError
        raise kind(f"cannot {what}: {told}")


def _rows_of(content: bytes, limit: int | None) -> HuntRows:
    found = json.loads(content)
    kinds = [one["type"] for one in found["meta"]]
    rows = [tuple(map(_value, row, kinds)) for row in found["data"]]
    return HuntRows(tuple(one["name"] for one in found["meta"]), rows[:limit], limit is not None and len(rows) > limit)


def _value(value: Any, kind: str) -> Any:
    """A value as the other engine gives it: times as times."""
    if value is not None and "DateTime" in kind and isinstance(value, str):
        return datetime.fromisoformat(value).replace(tzinfo=None)
    return value
