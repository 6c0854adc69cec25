"""ClickHouse's own engine (chdb) behind the part of its HTTP interface that is used here."""

from __future__ import annotations

import gzip
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

USER, PASSWORD, DATABASE = "hunter", "p@ss word", "default"


class ClickHouseServer:
    """On loopback. fail: so many requests are answered 503; swallow: answers to so many blocks are lost.

    hang: requests wait while it is clear.
    """

    def __init__(self, folder: Path) -> None:
        from chdb.session import Session

        self._session = Session(str(folder))
        self._lock = threading.Lock()
        self.fail, self.swallow, self.hang = 0, 0, threading.Event()
        self.hang.set()
        self.inserts: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"clickhouse+http://{USER}:p%40ss%20word@127.0.0.1:{self._server.server_port}/{DATABASE}"

    def close(self) -> None:
        self.hang.set()
        self._server.shutdown()
        self._server.server_close()
        self._session.close()

    def rows(self, sql: str) -> list[list[str]]:
        """Rows of a SELECT, as text."""
        with self._lock:
            found = self._session.query(sql, "TSV").bytes().decode()
        return [line.split("\t") for line in found.splitlines()]

    def run(self, sql: str) -> None:
        """A statement."""
        with self._lock:
            self._session.query(sql)

    def answer(self, request: Any) -> None:
        """One request."""
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.hang.wait()
        options = dict(parse_qsl(urlsplit(request.path).query))
        if (request.headers["X-ClickHouse-User"], request.headers["X-ClickHouse-Key"]) != (USER, PASSWORD):
            return _said(request, 403, b"Code: 516. DB::Exception: hunter: Authentication failed", "516")
        if self.fail:
            self.fail -= 1
            return _said(request, 503, b"Code: 202. DB::Exception: Too many simultaneous queries", "202")
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        try:
            found = self._execute(options, body)
        except Exception as error:  # noqa: BLE001 - what the engine says is what is answered
            code = match[1] if (match := re.search(r"Code: (\d+)", str(error))) else "0"
            return _said(request, 500, str(error).encode(), code)
        if self.swallow and "query" in options:  # it is done, and nobody hears of it
            self.swallow -= 1
            request.connection.close()
            return None
        return _said(request, 200, found)

    def _execute(self, options: dict[str, str], body: bytes) -> bytes:
        given = {
            name: value for name, value in options.items() if name not in {"database", "query", "wait_end_of_query"}
        }
        values = {name.removeprefix("param_"): given.pop(name) for name in list(given) if name.startswith("param_")}
        settings = ", ".join(f"{name} = '{value}'" for name, value in given.items())
        text = body.decode()
        with self._lock:
            if "query" in options:
                self.inserts.append(options["insert_deduplication_token"])
                insert, _, kind = options["query"].partition(" FORMAT ")
                text = f"{insert} SETTINGS {settings} FORMAT {kind}\n{text}"
                return bytes(self._session.query(text).bytes())
            statement, _, kind = text.rpartition(" FORMAT ") if " FORMAT " in text else (text, "", "")
            alters = statement.startswith(("CREATE", "ALTER"))
            if settings and not alters:
                statement = f"{statement} SETTINGS {settings}"
            for name, value in given.items() if alters else ():
                self._session.query(f"SET {name} = '{value}'")
            return bytes(self._session.query(statement, kind or "TSV", params=values or None).bytes())


def _said(request: Any, status: int, body: bytes, code: str = "") -> None:
    request.send_response(status)
    if code:
        request.send_header("X-ClickHouse-Exception-Code", code)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
