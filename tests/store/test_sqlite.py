"""The embedded store when its file is not what it should be."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event
from structlog.testing import capture_logs

from agents.core.errors import StoreError, StoreUnusableError
from agents.store import SpoolingSink, Store, open_store
from agents.store.sqlite import DELETE_CHUNK
from tests.support.verdicts import verdicts

WHY = {"garbage": "file is not a database", "folder": "unable to open database file"}


def garbage(path: Path) -> None:
    path.write_bytes(b"nothing that SQLite would read\n" * 200)


SPOILT: dict[str, Callable[[Path], None]] = {"garbage": garbage, "folder": Path.mkdir}


def opened(path: Path) -> Store:
    return open_store(f"sqlite:///{path}")


@contextlib.contextmanager
def listening(name: str, then: Callable[..., object]) -> Iterator[None]:
    """While the block lasts, `then` hears of an event of every SQLAlchemy engine, also of those that are made in it."""
    event.listen(Engine, name, then)
    try:
        yield
    finally:
        event.remove(Engine, name, then)


@pytest.mark.parametrize("how", SPOILT)
def test_what_is_no_database_is_told_at_once_and_for_what_it_is(tmp_path: Path, how: str) -> None:
    path = tmp_path / "x.db"
    SPOILT[how](path)
    with contextlib.closing(opened(path)) as store:
        for attempt in (store.migrate, lambda: store.write(verdicts(["a.test"]), "b"), store.ping):
            with pytest.raises(StoreUnusableError, match=rf"^cannot .*: {WHY[how]} \({path}\)$"):
                attempt()


def test_a_database_removed_before_its_first_batch_takes_none(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with contextlib.closing(opened(path)) as store:
        store.migrate()
        path.unlink()
        with pytest.raises(StoreUnusableError, match="removed or replaced"):
            store.write(verdicts(["a.test"]), "b")


def test_a_database_where_none_can_be_made_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "x.db"
    why = rf"^cannot open database {path}: (Not a directory|File exists)$"
    with contextlib.closing(opened(path)) as store, pytest.raises(StoreUnusableError, match=why):
        store.migrate()


def test_a_locked_database_is_not_an_unusable_one(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with contextlib.closing(opened(path)) as store:
        store.migrate()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with contextlib.closing(opened(path)) as store:
            with pytest.raises(StoreError) as caught:
                store.ping()
            assert not isinstance(caught.value, StoreUnusableError), "it is only busy"


def test_a_database_that_has_no_room_spools(tmp_path: Path) -> None:
    """The driver's own errors are told as ours: else such a batch would be neither stored nor spooled."""
    with contextlib.closing(opened(tmp_path / "x.db")) as store:
        store.migrate()
    full = listening("connect", lambda driver, _: driver.execute("PRAGMA max_page_count=1"))
    with full, contextlib.closing(opened(tmp_path / "x.db")) as store:
        sink = SpoolingSink(store, tmp_path / "spool", 1 << 20, retry_s=3600)
        sink.accept(verdicts([f"host{n}.example.com" for n in range(2000)]))
        sink.close()
        assert (sink.counts.stored, sink.counts.spooled, sink.counts.lost) == (0, 2000, 0)


def test_a_file_that_is_removed_while_it_is_open_takes_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with contextlib.closing(opened(path)) as store:
        store.migrate()
        sink = SpoolingSink(store, tmp_path / "spool", 1 << 20, retry_s=3600)
        sink.accept(verdicts(["a.test"]))
        path.unlink()
        sink.accept(verdicts(["b.test"]))
        sink.close()
    assert (sink.counts.stored, sink.counts.spooled) == (1, 1)


def test_once_folded_the_file_alone_is_the_database(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with contextlib.closing(opened(path)) as store:
        store.migrate()
        store.write(verdicts(["a.test"]), "1")
        store.fold()
        (tmp_path / "copy.db").write_bytes(path.read_bytes())
    assert not Path(f"{path}-wal").exists()
    with contextlib.closing(opened(tmp_path / "copy.db")) as copy:
        assert copy.rows_of_batch("1", 0, 2e9) == 1


def test_a_database_that_is_spoilt_while_it_runs_is_an_error_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with contextlib.closing(opened(path)) as store, capture_logs() as lines:
        store.migrate()
        sink = SpoolingSink(store, tmp_path / "spool", 1 << 20, retry_s=3600)
        sink.accept(verdicts(["a.test"]))
        with contextlib.closing(sqlite3.connect(path)) as other:  # the store reads the file anew
            other.execute("DELETE FROM batches")
            other.commit()
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        garbage(path)
        for _ in range(2):
            sink.accept(verdicts(["b.test"]))
        sink.close()
    (told,) = [line for line in lines if line["event"].startswith("store_")]
    assert (told["event"], told["log_level"]) == ("store_unusable", "error")
    assert told["error"] == f"cannot write a batch: file is not a database ({path})"
    assert (sink.counts.stored, sink.counts.spooled) == (1, 2)


def test_tables_of_a_later_release_are_told_for_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with contextlib.closing(opened(path)) as store:
        store.migrate()
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("UPDATE alembic_version SET version_num = '9999'")
            database.commit()
        with pytest.raises(StoreUnusableError, match=r"^cannot migrate the database: .*9999"):
            store.migrate()


def test_a_database_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    path.chmod(0o640)
    with contextlib.closing(opened(path)) as store:
        store.migrate()
        store.ping()
        assert {path.stat().st_mode & 0o777, Path(f"{path}-wal").stat().st_mode & 0o777} == {0o640}


def test_what_is_known_of_old_batches_goes_in_parts_too(tmp_path: Path) -> None:
    """There is one every 50 ms: a day's at once would hold the lock for seconds."""
    path, count = tmp_path / "x.db", 2 * DELETE_CHUNK + 1
    with contextlib.closing(opened(path)) as store:
        store.migrate()
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.executemany("INSERT INTO batches VALUES (?, ?)", ((str(n), float(n)) for n in range(count)))
        deleted: list[int] = []
        with listening("after_cursor_execute", lambda *found: deleted.append(found[1].rowcount)):
            store.drop_old(1)
        assert max(deleted) == DELETE_CHUNK
        with contextlib.closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT count(*) FROM batches").fetchone() == (0,)
