"""kill -9 of a listener and of the database under load: what is stored is stored once."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import dns.message
import psycopg2
import pytest

from agents.dns.name import to_text
from agents.runtime.bootstrap import FEATURES_AGAIN
from agents.store import codec
from tests.support.postgres_server import PostgresServer, drop_database, make_database
from tests.support.running import free_port, product, wait_for
from tests.support.stubs import StubServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
PER_S = 400


class Load:
    """Names that are each asked once, about PER_S a second, answered or not."""

    def __init__(self, port: int, prefix: str) -> None:
        self.sent = 0
        self._prefix = prefix
        self._to = ("127.0.0.1", port)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            while not self._stop.wait(1 / PER_S):
                client.sendto(dns.message.make_query(f"{self._prefix}{self.sent}.load.test", "A").to_wire(), self._to)
                self.sent += 1

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


class Rows:
    """The stored names, asked for over one connection a time: the server comes and goes."""

    def __init__(self, url: str) -> None:
        self._url = url

    def names(self) -> list[str]:
        try:
            with contextlib.closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT qname FROM queries WHERE domain = 'load.test'")
                return [str(row[0]) for row in cursor.fetchall()]
        except (psycopg2.OperationalError, psycopg2.errors.UndefinedTable):  # away, or not prepared yet
            return []


def _spooled(spool: Path) -> list[Path]:
    return sorted(spool.glob("*.npz"))


def test_killed_under_load_nothing_is_stored_twice(own_postgres: PostgresServer, tmp_path: Path) -> None:
    url, port, data = make_database(own_postgres.url), free_port(), tmp_path / "data"
    rows, spool = Rows(url), data / "data" / "spool"
    with StubServer() as stub:
        settings = {"listen_port": str(port), "upstreams": f"127.0.0.1:{stub.port}", "database_url": url}
        with product("listen", data, **settings) as listener:
            load = Load(port, "first")
            wait_for(lambda: len(rows.names()) > 200, "rows are stored")
            listener.kill()  # while it writes to the database
        with product("listen", data, **settings) as listener:
            wait_for(lambda: len(set(rows.names())) > 500, "more rows are stored")
            own_postgres.kill()
            wait_for(lambda: len(_spooled(spool)) > 20, "batches wait on disk")
            listener.kill()  # while it writes to the disk
        load.stop()
        files = {path: path.read_bytes() for path in _spooled(spool)}
        waiting = [codec.decode(content, FEATURES_AGAIN) for content in files.values()]
        own_postgres.start()
        with product("listen", data, **settings) as listener:
            wait_for(lambda: len(_spooled(spool)) < len(waiting), "the spool is written")
            listener.kill()  # while it writes what waited
        for path, content in files.items():  # as after a kill between the commit and the file's end
            path.write_bytes(content)
        with product("listen", data, **settings):
            wait_for(lambda: not _spooled(spool), "nothing waits")
            last = Load(port, "last")
            wait_for(lambda: last.sent >= 50, "it is asked again")
            last.stop()
            wait_for(lambda: sum(name.startswith("last") for name in rows.names()) >= last.sent, "it stores again")
    stored = rows.names()
    assert len(stored) == len(set(stored))
    assert {to_text(qname) for batch in waiting for qname in batch.queries.qname} <= set(stored)
    drop_database(own_postgres.url, url)
