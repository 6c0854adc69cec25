"""A bus on loopback: NATS servers, hosts that hear queries and hosts that judge them, with one database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import numpy as np
import pytest
from numpy.typing import NDArray

from agents.learning.baseline import model_bytes
from agents.learning.registry import ModelRegistry
from agents.scoring.model import Model
from agents.stream.bus.jetstream import OBJECTS, stream_name, subject_of
from agents.stream.bus.messages import message_records
from tests.support.commands import environment
from tests.support.detecting import shipped_model
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.running import free_port
from tests.support.stubs import StubServer
from tests.support.supervised import _RUN, Supervised

SLOTS = 8
LEASE_S = 3.0


class NatsServer:
    """`nats-server` with JetStream on a port of its own; it may be killed and started again on the same files."""

    def __init__(
        self, folder: Path, cluster: Sequence[int] = (), number: int = 0, config: str = "", address: str = "127.0.0.1"
    ) -> None:
        """cluster: ports of the routes of all servers of a cluster, of which this is one by number. config: what its
        file says besides; with one it keeps no streams, unless that says so. address: where it listens."""
        if shutil.which("nats-server") is None:
            pytest.skip("no nats-server")
        self.folder, self.port, self.address = folder, free_port(), address
        self._clustered: list[str] = []
        if cluster:
            routes = ",".join(f"nats://127.0.0.1:{port}" for at, port in enumerate(cluster) if at != number)
            own = f"nats://127.0.0.1:{cluster[number]}"
            self._clustered = ["-n", f"n{number}", "-cluster_name", "c", "-cluster", own, "-routes", routes]
        folder.mkdir(parents=True, exist_ok=True)
        if config:
            (folder / "nats.conf").write_text(config)
        self._kept = ["-c", str(folder / "nats.conf")] if config else ["-js", "-sd", str(folder / "js")]
        self.start()

    @property
    def url(self) -> str:
        return f"nats://{self.address}:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = ["nats-server", *self._kept, "-a", self.address, "-p", str(self.port)]
        log = self.folder / "nats.log"
        log.write_bytes(b"")
        self.process = subprocess.Popen([*command, *self._clustered, "-l", str(log)], stdin=subprocess.DEVNULL)
        wait_until(lambda: b"Server is ready" in log.read_bytes(), 20)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()


class Detecting(Supervised):
    """`dns-tunnel detect` in `folder`."""

    COMMAND, STARTED = "detect", b"detectors_started"

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.port = folder, 0
        folder.mkdir(exist_ok=True)
        self.log = folder / "process.log"
        self.settings = {"DATA_DIR": str(folder), "UPSTREAMS": "127.0.0.1:9"} | settings
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RUN, self.COMMAND],
                cwd=folder,
                env=environment(**self.settings),
                stdout=log,
                stderr=log,
            )

    def wait_ready(self) -> None:
        wait_until(lambda: self.process.poll() is not None or self.STARTED in self.log.read_bytes(), 60)
        assert self.process.poll() is None, self.log.read_text()

    @property
    def registry(self) -> ModelRegistry[Model]:
        """Its models, as a person's command has them."""
        return ModelRegistry(self.folder / "models", Model.from_bytes, model_bytes())

    @property
    def slots(self) -> set[int]:
        """The slots that it holds."""
        return {int(slot) for slot in self.state().get("bus", {}).get("lag", {})}

    @property
    def waiting(self) -> int:
        """Messages of its slots that no saved state has."""
        return sum(self.state().get("bus", {}).get("lag", {}).values())

    def kill_all(self) -> None:
        """kill -9 of the whole host: all of its processes at once."""
        for one in (self.process.pid, *(one["pid"] for one in self.state()["processes"].values())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        self.process.wait()


class Deploying(Detecting):
    """`dns-tunnel schedule` in `folder`, where models are deployed."""

    COMMAND, STARTED = "schedule", b"scheduler_started"

    def deploy(self, number: int) -> str:
        """Deploy a model like the shipped one; its id."""
        model = shipped_model()
        made = replace(model, manifest={**model.manifest, "number": number})
        self.registry.save_candidate(made)
        self.registry.promote(made.model_id)
        return made.model_id

    def running(self, what: str = "model_id") -> dict[str, str]:
        """Which model each host says it runs. what: "candidate" = that of a canary."""
        try:
            found = json.loads((self.folder / "data" / "cluster.json").read_bytes())
        except FileNotFoundError:
            return {}
        return {host: one[what] for host, one in found["hosts"].items()}


class Cluster:
    """What a test starts, with one SQLite file as the database of all."""

    def __init__(self, folder: Path, upstream: StubServer, servers: int = 1, address: str = "127.0.0.1") -> None:
        self.folder, self.upstream = folder, upstream
        routes = [free_port() for _ in range(servers)] if servers > 1 else []
        self.servers = [
            NatsServer(folder / f"nats{number}", routes, number, address=address) for number in range(servers)
        ]
        self.server = self.servers[0]
        self.database = folder / "all.db"
        self.settings = {
            "STREAM": ",".join(one.url for one in self.servers),
            "STREAM_REPLICAS": str(servers),
            "STREAM_SLOTS": str(SLOTS),
            "STREAM_LEASE_S": str(LEASE_S),
            "STREAM_SNAPSHOT_S": "1",
            "DATABASE_URL": f"sqlite:///{self.database}",
            "HANG_S": "60",
        } | {name: os.environ[name] for name in ("COMPILED",) if name in os.environ}
        self.hosts: list[Supervised] = []

    def listening(self, name: str, **settings: str) -> Supervised:
        """A host that hears queries; not ready yet."""
        own = {"LISTENER_PROCESSES": "1"} | self.settings | settings
        self.hosts.append(Supervised(self.folder / name, self.upstream, **own))
        return self.hosts[-1]

    def detecting(self, name: str, **settings: str) -> Detecting:
        """A host that judges; not ready yet."""
        made = Detecting(self.folder / name, **self.settings | {"STREAM_NAME": name} | settings)
        self.hosts.append(made)
        return made

    def deploying(self, name: str, **settings: str) -> Deploying:
        """A host on which models are deployed; not ready yet."""
        made = Deploying(self.folder / name, **self.settings | {"STREAM_NAME": name} | settings)
        self.hosts.append(made)
        return made

    def spoil_objects(self) -> list[str]:
        """Damage every second object on the bus, and delete the others; their names."""

        async def spoil() -> list[str]:
            connection = await nats.connect(self.server.url)
            found = await connection.jetstream().object_store(OBJECTS)
            names = sorted(str(one.name) for one in await found.list(ignore_deletes=True))
            for number, name in enumerate(names):
                if number % 2:
                    await found.put(name, b"no state at all")
                else:
                    await found.delete(name)
            await connection.close()
            return names

        return asyncio.run(spoil())

    def records(self, slot: int) -> NDArray[np.void]:
        """All that the stream of a slot has."""

        async def read() -> NDArray[np.void]:
            connection = await nats.connect(self.server.url)
            stream, name = connection.jetstream(), stream_name(subject_of(slot))
            state = (await stream.stream_info(name)).state
            found = [await stream.get_msg(name, seq=at) for at in range(state.first_seq, state.last_seq + 1)]
            await connection.close()
            return np.concatenate([message_records(one.data or b"") for one in found])

        return asyncio.run(read())

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What the database says."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            return list(database.execute(statement).fetchall())

    def stored(self) -> int:
        """Queries in the database."""
        try:
            return int(self.rows("SELECT count(*) FROM queries")[0][0])
        except sqlite3.OperationalError:
            return 0

    def end(self) -> None:
        """Stop what runs."""
        for one in self.hosts:
            if one.process.poll() is None:
                one.process.terminate()
        for one in self.hosts:
            try:
                one.process.wait(patient(30))
            except subprocess.TimeoutExpired:
                one.process.kill()
        for server in self.servers:
            server.kill()


@contextlib.contextmanager
def cluster(folder: Path, servers: int = 1, address: str = "127.0.0.1") -> Iterator[Cluster]:
    """Servers and what is started beside them, ended with the block."""
    with StubServer() as upstream:
        made = Cluster(folder, upstream, servers, address)
        try:
            yield made
        except BaseException:
            for one in made.hosts:
                print(f"== {one.folder.name}", *one.log.read_text().splitlines()[-60:], sep="\n")
            raise
        finally:
            made.end()


def sent_by(host: Supervised) -> dict[str, Any]:
    """What a host that hears queries says of the bus."""
    found: dict[str, Any] = json.loads(json.dumps(host.state().get("bus", {})))
    return found
