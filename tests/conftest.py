"""Fixtures for all tests: a real Postgres, a fresh database in it, and a store on each kind of database."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import structlog
from hypothesis import is_hypothesis_test

from agents.core import jit
from agents.learning.baseline import model_bytes
from agents.runtime import warmup
from agents.scoring.model import Model
from agents.sources.listener.server import can_compile
from agents.store import Store, open_store
from tests.support import listening
from tests.support.commands import Inside, run_inside
from tests.support.migrated import migrated_once
from tests.support.patience import factor, patient
from tests.support.postgres_server import PostgresServer, drop_database, make_database


def pytest_configure(config: pytest.Config) -> None:
    """Measure the machine before the workers that share it start."""
    factor(getattr(config.option, "numprocesses", None) or 1)


def shared_out(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Tests in the order in which xdist hands out even parts: each part begins with its share of the slow ones."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    rest = [item for item in items if not item.get_closest_marker("slow")]
    size = -(-len(rest) // workers)
    return [item for i in range(workers) for item in (*slow[i::workers], *rest[i * size : (i + 1) * size])]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each test's time limit, its own or the general one, is for this machine; the slow ones begin."""
    general = float(config.getini("timeout"))
    items[:] = shared_out(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    for item in items:
        if is_hypothesis_test(getattr(item, "function", None)):
            item.add_marker("property")
        marker = item.get_closest_marker("timeout")
        item.add_marker(pytest.mark.timeout(patient(marker.args[0] if marker else general)), append=False)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Kernels are compiled before the first test that runs whole commands: no test's time or output is about that."""
    wanted = any(item.get_closest_marker("integration") for item in session.items)
    if not wanted or session.config.option.collectonly or jit.KEPT is None:
        return
    with (jit.KEPT / "warming").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # each of xdist's workers comes here
        warmup.up(lambda text: print(f"\n{text}", flush=True))


@pytest.fixture(scope="session", autouse=True)
def _migrated_once() -> Iterator[None]:
    with migrated_once():
        yield


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """A test that runs a command sets up logging for the whole process: take that back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(params=[False, True], ids=["python", "compiled"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Listeners serve UDP without kernels, then with them; True = with."""
    if request.param and not can_compile():
        pytest.skip("kernels are off, or not for this platform")
    monkeypatch.setitem(listening.OPTIONS, "compiled", request.param)
    return bool(request.param)


@pytest.fixture(scope="session")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that a test may stop, if it starts it again; each test process has one."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh database at TEST_DATABASE_URL, or on a server of our own."""
    base = os.environ.get("TEST_DATABASE_URL") or request.getfixturevalue("own_postgres").url
    url = make_database(base)
    yield url
    drop_database(base, url)


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of each kind, without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'queries.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A store of each kind, with tables."""
    opened = open_store(store_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def model() -> Model:
    """The shipped model."""
    return Model.from_bytes(model_bytes())


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    """`dns-tunnel ARGUMENTS` in this process, with DATA_DIR=tmp_path/data, in tmp_path."""
    return partial(run_inside, tmp_path)
