"""A Pi-hole's API on loopback, as its description has it: sessions, a window of time, pages of the newest first."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PASSWORD = "an application password"


class PiHole:
    """`rows` are its queries; `sid` is the session that counts, None = it needs no password."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.sid: str | None = None
        self.log_ins = self.log_outs = self.pages = 0
        self.drips_s = 0.0  # seconds between the bytes of an answer
        self.body: bytes | None = None  # what it answers instead
        pi_hole = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                pi_hole.log_ins += 1
                if urlsplit(self.path).path != "/api/auth" or asked != {"password": PASSWORD}:
                    return self.answer(401, {"session": {"valid": False, "sid": None}})
                return self.answer(200, {"session": {"valid": True, "sid": pi_hole.sid, "validity": 1800}})

            def do_DELETE(self) -> None:
                pi_hole.log_outs += urlsplit(self.path).path == "/api/auth" and self.headers["X-FTL-SID"] == pi_hole.sid
                self.send_response(204)
                self.end_headers()

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                asked = {name: float(values[0]) for name, values in parse_qs(parts.query).items()}
                if pi_hole.sid is not None and self.headers["X-FTL-SID"] != pi_hole.sid:
                    return self.answer(401, {"error": {"key": "unauthorized"}})
                assert parts.path == "/api/queries"
                pi_hole.pages += 1
                inside = [row for row in pi_hole.rows if asked["from"] <= _time(row) <= asked["until"]]
                newest = sorted(inside, key=_time, reverse=True)
                return self.answer(200, {"queries": newest[int(asked["start"]) :][: int(asked["length"])], "took": 0.1})

            def answer(self, status: int, found: object) -> None:
                body = pi_hole.body or json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(OSError):  # who asked may not wait
                    for at in range(0, len(body), 1 if pi_hole.drips_s else len(body)):
                        time.sleep(pi_hole.drips_s)
                        self.wfile.write(body[at : at + 1] if pi_hole.drips_s else body)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def ask(self, ts: float, domain: str, **more: Any) -> None:
        """Have a client ask it."""
        row = {
            "id": len(self.rows),
            "time": ts,
            "type": "TXT",
            "domain": domain,
            "cname": None,
            "status": "FORWARDED",
            "client": {"ip": "192.0.2.7", "name": None},
            "dnssec": "INSECURE",
            "reply": {"type": "NXDOMAIN", "time": 19.5},
        }
        self.rows.append(row | more)


def _time(row: Any) -> float:
    return float(row["time"]) if isinstance(row, dict) and isinstance(row.get("time"), int | float) else 0.0


@contextmanager
def pi_hole_server() -> Iterator[PiHole]:
    """Serve until the block ends."""
    found = PiHole()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield found
    finally:
        found.server.shutdown()
        thread.join()
        found.server.server_close()
