"""docker compose with its profile `cluster`: a bus of three servers; a detector and a server are killed under load."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, engine, stack
from tests.support.running import free_port, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NATS_IMAGE = "nats:2.12"


class Cluster(Stack):
    FILES = (*Stack.FILES, "tests/e2e/cluster.override.yml")

    def settings(self) -> dict[str, str]:
        self.second_port = free_port()
        return super().settings() | {
            "COMPOSE_PROFILES": "cluster",
            "EXTRAS": "nats",
            "PUBLISH_DNS_2": f"127.0.0.1:{self.second_port}",
            "STREAM": "nats://nats-1:4222,nats://nats-2:4222,nats://nats-3:4222",
            "STREAM_REPLICAS": "3",
            "STREAM_SLOTS": "8",
            "STREAM_KEEP_MB": "256",
        }

    def send(self, domain: str, first: int, count: int) -> None:
        """Names with data, through both listeners by turns; each has an answer: of the second it is SERVFAIL."""
        for number in range(first, first + count):
            label = hashlib.sha256(f"{domain}{number}".encode()).hexdigest()[:50]
            self.ask(f"{label}.{domain}", port=self.second_port if number % 2 else 0)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if missing := engine():
        pytest.skip(f"the compose tests need a Docker engine: {missing}")
    if subprocess.run(["docker", "inspect", "dns-tunnel-api"], capture_output=True, check=False).returncode == 0:
        pytest.skip("a container dns-tunnel-api is here already")
    folder = tmp_path_factory.mktemp("cluster")
    _need_nats(folder)
    with stack(Cluster(folder)) as made:
        yield made


def _need_nats(folder: Path) -> None:
    """The image of the server; where it is not there, one with the server that is installed here."""
    if subprocess.run(["docker", "image", "inspect", NATS_IMAGE], capture_output=True, check=False).returncode == 0:
        return
    program = shutil.which("nats-server")
    if program is None:
        pytest.skip(f"there is no image {NATS_IMAGE}, and no nats-server to make one of")
    context = folder / "nats"
    context.mkdir()
    shutil.copy(program, context / "nats-server")
    (context / "Dockerfile").write_text(
        'FROM python:3.11-slim-bookworm\nCOPY nats-server /nats-server\nENTRYPOINT ["/nats-server"]\n'
    )
    subprocess.run(["docker", "build", "-q", "-t", NATS_IMAGE, str(context)], check=True, capture_output=True)


def test_a_tunnel_through_two_listeners_is_one_incident_whoever_dies(running: Cluster) -> None:
    domain = "moved.test"
    running.send(domain, 0, 400)
    found = f"SELECT queries, severity FROM incidents WHERE domain = '{domain}'"
    wait_for(lambda: running.statement(found) == "400|3", "one incident is open")
    running.compose("kill", "detector-1", "nats-2")
    running.send(domain, 400, 400)
    counted = f"SELECT count(*), count(DISTINCT qname) FROM queries WHERE domain = '{domain}'"
    wait_for(lambda: running.statement(counted) == "800|800", "each query is stored, and once", 60)
    wait_for(lambda: running.statement(found) == "800|3", "one incident has all of them", 60)
    running.compose("start", "detector-1", "nats-2")
    running.compose("stop", "detector-2")
    running.send(domain, 800, 100)
    wait_for(lambda: running.statement(counted) == "900|900", "the other one goes on", 60)
    wait_for(lambda: running.statement(found) == "900|3", "in the same incident", 60)
