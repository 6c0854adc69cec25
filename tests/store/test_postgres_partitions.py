"""Dropping days on a busy Postgres: writers go on, and what a killed process began is finished."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg2
import pytest

from agents.core.errors import BatchRefusedError, StoreError
from agents.store import Store, open_store
from tests.support.patience import patient
from tests.support.verdicts import DAY_S, START, verdicts

pytestmark = pytest.mark.integration

DAY = int(START // DAY_S)


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Store]:
    store = open_store(postgres_url)
    store.migrate()
    for age in range(3):
        store.write(verdicts(["a.example.com"], ts=[START + age * DAY_S]), f"b{age}")
    yield store
    store.close()


def _tables(url: str) -> set[str]:
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'queries_day_%'")
        names = {name for (name,) in cursor.fetchall()}
    connection.close()
    return names


def _names(*days: int) -> set[str]:
    return {f"queries_day_{day}" for day in days}


def test_a_writer_is_not_blocked_while_old_days_wait_to_go(postgres: Store, postgres_url: str) -> None:
    reader = psycopg2.connect(postgres_url)
    with reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM queries")  # an open transaction that saw all days
    dropping = threading.Thread(target=postgres.drop_old, args=(DAY + 2,))
    dropping.start()
    for number in range(20):
        assert postgres.write(verdicts(["b.example.com"], ts=[START + 2 * DAY_S + number]), f"new {number}") == 1
    assert dropping.is_alive(), "it waits for the reader"
    reader.close()
    dropping.join(patient(20))
    assert _tables(postgres_url) == _names(DAY + 2)
    assert len(postgres.queries(limit=99)[0]) == 21


def test_a_new_day_begins_while_old_days_wait_to_go(postgres: Store, postgres_url: str) -> None:
    reader = psycopg2.connect(postgres_url)
    with reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM queries")
    dropping = threading.Thread(target=postgres.drop_old, args=(DAY + 2,))
    dropping.start()
    assert postgres.write(verdicts(["b.example.com"], ts=[START + 3 * DAY_S]), "new day") == 1
    assert dropping.is_alive(), "it waits for the reader"
    reader.close()
    dropping.join(patient(20))
    assert _tables(postgres_url) == _names(DAY + 2, DAY + 3)


@pytest.mark.slow
def test_days_made_ahead_need_no_lock_at_midnight(postgres: Store, postgres_url: str) -> None:
    postgres.prepare([DAY + 3, DAY + 4])
    assert _tables(postgres_url) == _names(*range(DAY, DAY + 5))
    writer, busy = open_store(postgres_url), psycopg2.connect(postgres_url)
    writer.write(verdicts(["a.example.com"], ts=[START + 2 * DAY_S]), "it knows the days now")
    with busy.cursor() as cursor:
        cursor.execute("LOCK TABLE queries IN SHARE UPDATE EXCLUSIVE MODE")  # as VACUUM or a new index takes it
        assert writer.write(verdicts(["b.example.com"], ts=[START + 3 * DAY_S]), "midnight") == 1
        with pytest.raises(StoreError, match="lock timeout"):
            writer.write(verdicts(["b.example.com"], ts=[START + 9 * DAY_S]), "not made ahead")
    busy.close()
    assert writer.write(verdicts(["b.example.com"], ts=[START + 9 * DAY_S]), "not made ahead") == 1
    writer.close()


def _cancel_a_detachment(url: str) -> None:
    """Leave a day half detached, as a killed process does."""
    reader, dropper = psycopg2.connect(url), psycopg2.connect(url)
    dropper.autocommit = True
    with reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM queries")
    with dropper.cursor() as cursor:
        cursor.execute("SET statement_timeout = 300")
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cursor.execute(f"ALTER TABLE queries DETACH PARTITION queries_day_{DAY} CONCURRENTLY")
    reader.close()
    dropper.close()


def test_a_half_detached_day_is_finished(postgres: Store, postgres_url: str) -> None:
    _cancel_a_detachment(postgres_url)
    postgres.drop_old(DAY + 1)
    assert _tables(postgres_url) == _names(DAY + 1, DAY + 2)


def test_a_half_detached_day_can_be_written_again(postgres: Store, postgres_url: str) -> None:
    _cancel_a_detachment(postgres_url)
    store = open_store(postgres_url)
    assert store.write(verdicts(["again.example.com"]), "again") == 1
    assert [row["qname"] for row in store.queries(until=START + DAY_S, limit=9)[0]] == ["again.example.com"]
    store.close()


def test_wild_times_do_not_make_a_table_for_each_day(postgres: Store, postgres_url: str) -> None:
    wild = verdicts(["w.example.com"] * 2500, ts=[START + day * DAY_S for day in range(2500)])
    with pytest.raises(BatchRefusedError, match="days"):
        postgres.write(wild, "wild")
    assert len(_tables(postgres_url)) == 3
