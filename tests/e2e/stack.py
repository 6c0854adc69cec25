"""The compose project under test: commands, DNS through the published port, the API with its token."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import dns.message
import dns.query
import httpx

from tests.support.patience import patient
from tests.support.running import ROOT, free_port

TOKEN = "token of the e2e tests"
PASSWORD = "p@ss/w:rd #1 $HOME %20"
"""With everything in it that breaks addresses, env files and shells."""


def engine() -> str:
    """Why no engine can be used; empty where one can."""
    if shutil.which("docker") is None:
        return "there is no docker program"
    found = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    return "" if found.returncode == 0 else "docker info finds no engine"


class Stack:
    """One compose project; `env_file` is .env.example with a few lines changed."""

    FILES: tuple[str, ...] = ("docker-compose.yml", "tests/e2e/compose.override.yml")

    def __init__(self, directory: Path) -> None:
        self.dns_port, self.api_port = free_port(), free_port()
        self.env_file = directory / "env"
        self.env_file.write_text(self._settings())
        self._api = httpx.Client(
            base_url=f"http://127.0.0.1:{self.api_port}",
            timeout=patient(10),
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def settings(self) -> dict[str, str]:
        """Lines of .env.example that are changed."""
        return {
            "POSTGRES_PASSWORD": f"'{PASSWORD}'",
            "PUBLISH_DNS": f"127.0.0.1:{self.dns_port}",
            "PUBLISH_API": f"127.0.0.1:{self.api_port}",
            "UPSTREAMS": "test=127.0.0.1:5300",
            "API_TOKEN": f"'{TOKEN}'",
            "SLACK_WEBHOOK_URL": "http://listener:5301/hooks/S3CRET",
            "WEBHOOKS_PLAIN_HTTP": "on",
            "BURN_IN_DAYS": "0",
        }

    def _settings(self) -> str:
        changed = self.settings()
        lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
        names = [line.partition("=")[0] for line in lines]
        assert set(changed) <= set(names)
        pairs = zip(names, lines, strict=True)
        return "\n".join(f"{name}={changed[name]}" if name in changed else line for name, line in pairs) + "\n"

    def compose(self, *arguments: str, check: bool = True, timeout_s: float = 300) -> str:
        """Run `docker compose …`; its output. AssertionError with the output where it fails."""
        files = [part for file in self.FILES for part in ("-f", str(ROOT / file))]
        command = ["docker", "compose", "-p", "dns-tunnel-e2e", "--env-file", str(self.env_file), *files, *arguments]
        environment = {**os.environ, "E2E_ENV_FILE": str(self.env_file)}
        ran = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=patient(timeout_s),
            stdin=subprocess.DEVNULL,
        )
        assert ran.returncode == 0 or not check, f"{arguments}: exit {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout + ran.stderr

    def exec(self, *command: str, service: str = "api") -> str:
        return self.compose("exec", "-T", service, *command)

    def statement(self, sql: str) -> str:
        """One SQL statement in the Postgres of the project."""
        return self.exec("psql", "-U", "dns_tunnel", "-At", "-c", sql, service="postgres").strip()

    def ask(self, name: str, kind: str = "A", tcp: bool = False, port: int = 0) -> dns.message.Message:
        """One query to a listener, by its port; 0: the first one's."""
        query = dns.message.make_query(name, kind)
        call: Any = dns.query.tcp if tcp else dns.query.udp
        answer: dns.message.Message = call(query, "127.0.0.1", port=port or self.dns_port, timeout=patient(5))
        return answer

    def get(self, path: str, token: str = TOKEN, **parameters: Any) -> httpx.Response:
        return self._api.get(path, params=parameters, headers={"Authorization": f"Bearer {token}"})

    def queries(self, domain: str) -> list[dict[str, Any]]:
        answer = self.get("/queries", domain=domain, limit=1000)
        found: list[dict[str, Any]] = answer.json()["queries"] if answer.is_success else []
        return found

    def component(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/health").json()["components"][name]
        return found


S = TypeVar("S", bound=Stack)


@contextlib.contextmanager
def stack(made: S) -> Iterator[S]:
    """Build, start, wait until all is well; afterwards nothing is left but the image."""
    try:
        made.compose("build", timeout_s=600)
        made.compose("up", "--wait", "--wait-timeout", "180")
        yield made
    except BaseException:
        print(made.compose("ps", "-a", check=False), made.compose("logs", "--tail", "40", check=False))
        raise
    finally:
        made.compose("down", "-v", "-t", "20", check=False)
