"""`dns-tunnel run` as a real process with a real upstream, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.message
import dns.name
import dns.query
import httpx

from tests.support.commands import BASE, environment, free_port
from tests.support.listening import wait_until
from tests.support.observed import Observed
from tests.support.patience import patient
from tests.support.stubs import StubServer
from tests.support.supervised import Upstream


class Running(Observed):
    """One process; `folder` is its DATA_DIR and working directory."""

    def __init__(self, folder: Path, upstream: Upstream, log: Path | None = None, **settings: str) -> None:
        self.folder = folder
        self.dns_port, self.api_port = free_port(), free_port()
        self.settings = {
            "LISTEN_PORT": str(self.dns_port),
            "API_PORT": str(self.api_port),
            "UPSTREAMS": f"127.0.0.1:{upstream.port}",
            "DATA_DIR": str(folder),
            **settings,
        }
        self.log = log or folder / "process.log"
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.api_port}", timeout=patient(10), trust_env=False)
        self.process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*BASE, "run"], cwd=self.folder, env=environment(**self.settings), stdout=log, stderr=log
            )

    def wait_ready(self) -> None:
        """Return once DNS and API answer, and the database has its tables."""
        wait_until(lambda: self.process.poll() is not None or self._answers(), 30)
        assert self.process.poll() is None, self.log.read_text()
        self.client.headers["Authorization"] = f"Bearer {(self.folder / 'data' / 'api_token').read_text().strip()}"

    def _answers(self) -> bool:
        try:
            parts = self.client.get("/health").json()["components"]
        except httpx.TransportError:
            return False
        return bool(parts["listener"]["ok"] and parts["database"]["ok"])

    def ask(self, name: str | bytes, qtype: str = "A") -> dns.message.Message:
        """One query by UDP; `name` as text, or in wire form without the root byte."""
        qname = dns.name.from_wire(name + b"\0", 0)[0] if isinstance(name, bytes) else dns.name.from_text(name)
        return dns.query.udp(dns.message.make_query(qname, qtype), "127.0.0.1", port=self.dns_port, timeout=patient(5))

    def get(self, path: str, **parameters: Any) -> Any:
        """The answer of the API as JSON."""
        answer = self.client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def stored(self) -> int:
        """Queries that the API shows, 1000 at most."""
        return len(self.get("/queries", limit=1000)["queries"])

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(patient(10))

    def restart(self) -> None:
        """Start again in the same folder, on the same ports."""
        self.process = self._spawn()
        self.wait_ready()

    def stop(self) -> int:
        """SIGTERM; the exit code, which must come within seconds."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patient(20))

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(patient(10))


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[Running]:
    """A ready process and its upstream, ended with the block."""
    with StubServer() as upstream:
        made = Running(folder, upstream, None, **settings)
        try:
            made.wait_ready()
            yield made
        finally:
            made.close()
