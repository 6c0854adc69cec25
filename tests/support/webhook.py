"""A real HTTP server on loopback that plays a webhook: it answers what it is told and keeps what it got."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.patience import patient


class Webhook:
    """`answers` are used up one a request, (status, headers); then `status` is given."""

    def __init__(self, status: int = 200, at: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.status = status
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.got: list[dict[str, Any]] = []
        self.arrived = threading.Event()
        self.hold = threading.Event()
        self.hold.set()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.got.append(json.loads(body))
                webhook.arrived.set()
                webhook.hold.wait(patient(30))
                status, headers = webhook.answers.pop(0) if webhook.answers else (webhook.status, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Tests read what they need from `got`."""

        self.server = ThreadingHTTPServer(at, Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/T0P/S3CRET"


@contextmanager
def webhook(status: int = 200, at: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[Webhook]:
    """Serve until the block ends. at: address and port, 0 = a free one."""
    hook = Webhook(status, at)
    thread = threading.Thread(target=hook.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        hook.hold.set()
        hook.server.shutdown()
        hook.server.server_close()
        thread.join()
