"""The spool and real databases: a Postgres that stops and starts again, and a process that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.store import SpoolingSink, Store, open_store
from tests.support.postgres_server import PostgresServer, drop_database, make_database
from tests.support.verdicts import verdicts

pytestmark = pytest.mark.integration

BATCH = 20


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        threading.Event().wait(0.01)


def batch_names(number: int) -> list[str]:
    return [f"h{i}.b{number}.example.com" for i in range(BATCH)]


def stored(store: Store) -> list[str]:
    names: list[str] = []
    cursor: str | None = None
    while True:
        rows, cursor = store.queries(limit=1000, cursor=cursor)
        names += [row["qname"] for row in rows]
        if cursor is None:
            return names


def test_a_postgres_that_goes_and_comes_back_loses_nothing(own_postgres: PostgresServer, tmp_path: Path) -> None:
    url = make_database(own_postgres.url)
    store = open_store(url)
    store.migrate()
    sink = SpoolingSink(store, tmp_path / "spool", 1 << 20, retry_s=0.05)
    for number in range(30):
        if number == 10:
            own_postgres.stop()
        if number == 20:
            assert sink.waiting == 10
            own_postgres.start()
        sink.accept(verdicts(batch_names(number)))
    until(lambda: sink.waiting == 0)
    sink.close()
    names = stored(store)
    store.close()
    drop_database(own_postgres.url, url)
    assert sorted(names) == sorted(name for number in range(30) for name in batch_names(number))
    assert sink.counts.lost == 0
    assert sink.counts.stored + sink.counts.replayed == 30 * BATCH


_WRITER = """
import sys
from pathlib import Path
from agents.store import SpoolingSink, open_store
from tests.store.test_spool_and_database import batch_names
from tests.support.verdicts import verdicts

sink = SpoolingSink(open_store(sys.argv[1]), Path(sys.argv[2]), 1 << 26, retry_s=0.01)
number = 0
while True:
    sink.accept(verdicts(batch_names(number)))
    print(number, flush=True)
    number += 1
"""


def _kill_after(lines: int, url: str, spool: Path) -> int:
    """Run a writer, kill -9 it after that many acknowledged batches; how many it acknowledged."""
    command = [sys.executable, "-c", _WRITER, url, str(spool)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root) as writer:
        assert writer.stdout is not None
        output = [writer.stdout.readline() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        output += writer.stdout.read().splitlines()
    return 1 + max(int(line) for line in output if line.strip().isdigit())  # there are log lines too


@pytest.mark.parametrize("away", [False, True], ids=["database there", "database away"])
@pytest.mark.slow
def test_kill_9_loses_at_most_the_batch_in_flight(store: Store, store_url: str, tmp_path: Path, away: bool) -> None:
    spool = tmp_path / "spool"
    url = "postgresql://nobody@127.0.0.1:1/none" if away else store_url
    acknowledged = _kill_after(25, url, spool)
    sink = SpoolingSink(store, spool, 1 << 26, retry_s=0.01)
    assert bool(sink.waiting + sink.counts.replayed) == away
    until(lambda: sink.waiting == 0)
    sink.close()
    names = stored(store)
    expected = {name for number in range(acknowledged) for name in batch_names(number)}
    in_flight = set(batch_names(acknowledged))
    assert len(names) == len(set(names)), "nothing twice"
    assert expected <= set(names) <= expected | in_flight
    assert len(names) % BATCH == 0, "a batch is there whole or not at all"
