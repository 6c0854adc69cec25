"""What every store must do, on SQLite and on a real Postgres."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, make_url, text

from agents.core.errors import AgentsError, BatchRefusedError, StoreError, UsageError
from agents.core.types import Severity
from agents.dns.name import to_text, wire_of
from agents.store import Store, migrate, open_store
from agents.store.rows import COLUMNS, query_columns
from tests.support.patience import patient
from tests.support.verdicts import DAY_S, START, incident, verdicts

pytestmark = pytest.mark.contract


def _names(count: int) -> list[str]:
    return [f"host{i}.example.com" for i in range(count)]


def test_what_is_written_is_read_newest_first(store: Store) -> None:
    assert store.write(verdicts(["a.example.com", "b.example.com"], score=[0.25, 0.75], reasons=("odd",)), "b1") == 2
    rows, cursor = store.queries(limit=10)
    assert [row["qname"] for row in rows] == ["b.example.com", "a.example.com"]
    assert rows[0] == {
        "ts": START + 1,
        "client": "192.0.2.7",
        "qname": "b.example.com",
        "qtype": 16,
        "domain": "example.com",
        "score": 0.75,
        "severity": "NORMAL",
        "reasons": ["odd"],
        "rcode": 0,
        "ancount": 1,
        "qlen": 50,
        "rlen": 90,
        "ttl_min": None,
        "rtt_ms": None,
        "ans_types": "TXT",
        "cached": None,
        "model_id": "model-1",
        "source": None,
        "imported_at": None,
    }
    assert cursor is None


def test_whether_the_cache_answered_is_stored(store: Store) -> None:
    batch = verdicts(_names(4))
    store.write(replace(batch, queries=replace(batch.queries, cached=np.array([0, 1, 2, -1], np.int8))), "one")
    rows, _ = store.queries(limit=10)
    assert sorted(str(row["cached"]) for row in rows) == ["None", "no", "stale", "yes"]


def test_a_database_without_tables_is_told_for_what_it_is(store_url: str) -> None:
    """So it is in the first moments of a new one."""
    with contextlib.closing(open_store(store_url)) as store:
        for read in (lambda: store.queries(limit=1), lambda: store.incidents(limit=1), store.ping):
            with pytest.raises(StoreError, match=r"^cannot [a-z ]+: the database has no tables yet$"):
                read()


def test_a_batch_is_stored_once(store: Store) -> None:
    batch = verdicts(_names(5), incidents=(incident(),))
    assert store.write(batch, "same") == 5
    assert store.write(batch, "same") == 0
    assert len(store.queries(limit=100)[0]) == 5
    assert len(store.incidents(limit=100)) == 1


def test_the_rows_of_a_batch_are_counted(store: Store) -> None:
    store.write(verdicts(_names(5), ts=[START + DAY_S + at for at in range(-2, 3)]), "one")
    store.write(verdicts(_names(3)), "other")
    between = (START + DAY_S - 2, START + DAY_S + 2)
    assert [store.rows_of_batch(name, *between) for name in ("one", "other", "none")] == [5, 0, 0]


def test_a_refused_batch_leaves_nothing_behind(store: Store) -> None:
    with pytest.raises(BatchRefusedError, match="cannot write a batch"):
        store.write(verdicts(_names(2), ts=[START, float("nan")]), "bad")
    assert store.queries(limit=10) == ([], None)
    assert store.write(verdicts(_names(2)), "bad") == 2


def test_an_empty_batch_can_carry_incidents(store: Store) -> None:
    assert store.write(verdicts([], incidents=(incident(),)), "b") == 0
    assert store.incident("192.0.2.7", "evil.example") == incident()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(labels=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4))
def test_any_byte_in_a_name_survives(store: Store, labels: list[bytes]) -> None:
    wire = wire_of(labels)
    client = uuid.uuid4().hex  # its own, as the store is not emptied between examples
    store.write(verdicts([wire], client=client), client)
    assert [row["qname"] for row in store.queries(client=client, limit=5)[0]] == [to_text(wire)]


def test_nul_and_lone_surrogates_in_texts_do_no_harm(store: Store) -> None:
    hostile = incident(tool="a\0b", reasons=("nul \0 and \ud800",))
    store.write(verdicts(["a.example"], client="\0\ud800x", incidents=(hostile,)), "b")
    assert store.queries(client="\0\ud800x", limit=5)[0][0]["client"] == "\\000\\ud800x"
    assert store.incidents(limit=1)[0].reasons == ("nul \0 and \ud800",)


def test_filters(store: Store) -> None:
    store.write(verdicts(_names(3), client="192.0.2.1"), "b1")
    store.write(verdicts(["x.evil.example"], severity=Severity.HIGH, ts=[START + 2 * DAY_S]), "b2")
    assert len(store.queries(client="192.0.2.1", limit=9)[0]) == 3
    assert len(store.queries(domain="evil.example", limit=9)[0]) == 1
    assert len(store.queries(severities=[Severity.HIGH, Severity.CRITICAL], limit=9)[0]) == 1
    assert len(store.queries(since=START + 1, until=START + 2, limit=9)[0]) == 1
    assert len(store.queries(since=START + DAY_S, limit=9)[0]) == 1
    assert store.queries(client="192.0.2.1", severities=[Severity.HIGH], limit=9)[0] == []
    assert len(store.queries(since=-1e300, until=1e300, limit=9)[0]) == 4


def test_pages_show_each_query_once_even_at_the_same_time(store: Store) -> None:
    store.write(verdicts(_names(10), ts=[START + 0.1] * 10), "b1")
    store.write(verdicts(["late.example.com"], ts=[START + 1 / 3 + DAY_S]), "b2")
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(4):
        rows, cursor = store.queries(limit=3, cursor=cursor)
        seen += [row["qname"] for row in rows]
    assert cursor is None
    assert seen[0] == "late.example.com"
    assert sorted(seen) == sorted([*_names(10), "late.example.com"])


@pytest.mark.slow
@pytest.mark.parametrize("cursor", ["x", "1_", "nan_1", "1_-1", "1_99999999999999999999", "'; DROP TABLE queries"])
def test_a_forged_cursor_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(UsageError, match="cannot read queries"):
        store.queries(limit=3, cursor=cursor)


def test_incidents_are_updated_and_not_set_back(store: Store) -> None:
    newer = incident(last_seen=START + 100, queries=99, severity=Severity.CRITICAL)
    store.write(verdicts([], incidents=(incident(), newer)), "b1")
    store.write(verdicts([], incidents=(incident(),)), "b0, late")
    assert store.incidents(limit=9) == [newer]
    assert store.incident_by_id(newer.incident_id) == newer
    assert len(store.incidents(limit=1000)) == 1
    assert store.incident_by_id("nothing") is None
    assert store.incident("192.0.2.8", "evil.example") is None


def test_open_incidents_come_back_after_a_restart(store: Store, store_url: str) -> None:
    closed = incident(client="192.0.2.9", closed_at=START + 4000)
    store.write(verdicts([], incidents=(incident(), closed)), "b1")
    again = open_store(store_url)
    assert again.open_incidents() == [incident()]
    assert again.incidents(open_only=True, limit=9) == [incident()]
    assert len(again.incidents(limit=9)) == 2
    assert again.incidents(since=START + 61, limit=9) == []
    again.close()


def test_counts_by_severity(store: Store) -> None:
    store.write(verdicts(_names(4), score=[0.0, 0.05, 0.55, 1.0]), "b1")
    store.write(verdicts(["x.evil.example"], severity=Severity.HIGH, score=0.7501), "b2")
    assert store.severity_counts(since=START, until=START + 9) == [
        ("NORMAL", 4),
        ("SUSPICIOUS", 0),
        ("HIGH", 1),
        ("CRITICAL", 0),
    ]


def test_runs_are_kept_and_updated(store: Store) -> None:
    store.save_run("r1", started_at=1.0, state="RUNNING", payload={})
    store.save_run("r2", started_at=2.0, state="RUNNING", payload={"why": "\0 <b>"})
    store.save_run("r1", started_at=1.0, state="FAILED", payload={"error": "x"})
    assert [(run["run_id"], run["state"], run["payload"]) for run in store.runs(limit=9)] == [
        ("r2", "RUNNING", {"why": "\0 <b>"}),
        ("r1", "FAILED", {"error": "x"}),
    ]
    assert len(store.runs(limit=1)) == 1


def test_old_days_are_dropped_and_can_be_written_again(store: Store) -> None:
    day = int(START // DAY_S)
    for age in range(3):
        store.write(verdicts(_names(4), ts=[START + age * DAY_S + i for i in range(4)]), f"b{age}")
    assert store.drop_old(day + 2)
    assert len(store.queries(limit=99)[0]) == 4
    assert not store.drop_old(day + 2)
    assert store.write(verdicts(_names(4)), "old again") == 4
    assert store.write(verdicts(_names(4)), "b0") == 0, "batches written later than that day are still known"


def test_old_closed_incidents_and_runs_are_deleted_and_what_is_open_stays(store: Store) -> None:
    old = incident(client="192.0.2.1", closed_at=START + 60)
    late = incident(client="192.0.2.2", last_seen=START + DAY_S, closed_at=START + DAY_S)
    still_open = incident(client="192.0.2.3")
    store.write(verdicts([], incidents=(old, late, still_open)), "b")
    for number in range(3):
        store.save_run(f"r{number}", started_at=START + number, state="DEPLOYED", payload={})
    assert store.forget(START + DAY_S) == (1, 2)
    assert {one.client for one in store.incidents(limit=9)} == {"192.0.2.2", "192.0.2.3"}
    assert [run["run_id"] for run in store.runs(limit=9)] == ["r2"], "the newest run stays whatever its age"
    assert store.forget(START + DAY_S) == (0, 0)


@pytest.mark.slow
def test_a_writer_goes_on_while_old_days_are_dropped(store: Store, store_url: str) -> None:
    day = int(START // DAY_S)
    for number in range(6):
        store.write(verdicts(_names(4000), ts=[START + number % 3 * DAY_S + i for i in range(4000)]), f"old {number}")
    dropping = open_store(store_url)
    took: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(dropping.drop_old, day + 3)
        while not done.done() or len(took) < 20:
            begun = time.monotonic()
            ts = [START + (3 + len(took) % 2) * DAY_S + i for i in range(50)]  # one of them a new day at first
            assert store.write(verdicts(_names(50), ts=ts), f"new {len(took)}") == 50
            took.append(time.monotonic() - begun)
        assert done.result()
    dropping.close()
    assert max(took) < patient(5), "far below a time-out of Postgres; SQLite itself waits for a lock for BUSY_S at most"
    counts = dict(store.severity_counts(since=START, until=START + 9 * DAY_S))
    assert counts["NORMAL"] == 50 * len(took)


def test_another_process_may_drop_a_day_that_the_writer_remembers(store: Store, store_url: str) -> None:
    store.write(verdicts(_names(2)), "b1")
    other = open_store(store_url)
    other.drop_old(int(START // DAY_S) + 1)
    other.close()
    assert store.write(verdicts(_names(2)), "b2") == 2


def test_two_writers_of_a_new_day_do_not_collide(store_url: str) -> None:
    stores = [open_store(store_url) for _ in range(4)]
    stores[0].migrate()
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda at: stores[at].write(verdicts(_names(50)), f"b{at}"), range(4)))
    assert written == [50] * 4
    assert len(stores[0].queries(limit=999)[0]) == 200
    for each in stores:
        each.close()


def _migrate(url: str) -> None:
    open_store(url).migrate()


def test_processes_that_start_at_once_migrate_once(store_url: str) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_migrate, args=(store_url,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(patient(30))
    assert [process.exitcode for process in processes] == [0] * 4
    opened = open_store(store_url)
    opened.ping()
    opened.close()


def test_rows_of_an_older_release_are_still_there_after_its_tables_were_changed(store_url: str) -> None:
    opened = open_store(store_url)
    engine = create_engine(store_url.replace("postgresql:", "postgresql+psycopg2:"))
    with engine.begin() as connection:
        migrate.upgrade(connection, "0002")
    opened.prepare([int(START // DAY_S)])
    columns = dict(zip(COLUMNS, query_columns(verdicts(_names(3)), "before").lists(), strict=True))
    del columns["features_version"], columns["cached"]
    insert = f"INSERT INTO queries ({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})"
    with engine.begin() as connection:
        connection.execute(
            text(insert), [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        )
    opened.migrate()
    opened.write(verdicts(_names(2), ts=[START + DAY_S, START + DAY_S + 1]), "after")
    assert len(opened.queries(domain="example.com", client="192.0.2.7", limit=9)[0]) == 5
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            found = connection.execute(
                text(
                    "SELECT count(*) FROM pg_attribute JOIN pg_collation ON pg_collation.oid = attcollation"
                    " WHERE attrelid::regclass::text LIKE 'queries%' AND attname IN ('client', 'domain')"
                    " AND collname = 'C'"
                )
            ).scalar()
        assert found == 3 * (2 + 2), "the table and two days, two columns and two indexes each"
    engine.dispose()
    opened.close()


def test_without_tables_ping_says_so(store_url: str) -> None:
    opened = open_store(store_url)
    with pytest.raises(StoreError, match="cannot reach the database"):
        opened.ping()
    opened.close()


def test_a_dead_server_is_a_store_error_in_one_line_without_the_password() -> None:
    opened = open_store("postgresql://who:pa55word@127.0.0.1:1/none")
    for call in (opened.ping, opened.migrate, lambda: opened.write(verdicts(_names(1)), "b")):
        with pytest.raises(StoreError) as caught:
            call()
        assert str(caught.value).startswith("cannot ")
        assert "\n" not in str(caught.value)
        assert "pa55word" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://u:pa55word@h/d", "nonsense pa55word", "sqlite://", "sqlite:///:memory:"])
def test_an_address_that_cannot_be_used(url: str) -> None:
    with pytest.raises(AgentsError, match="cannot use") as caught:
        open_store(url)
    assert "pa55word" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_a_store_error() -> None:
    with pytest.raises(StoreError, match="cannot open database"):
        open_store("sqlite:////proc/nowhere/queries.db").migrate()


def test_a_password_that_the_server_repeats_is_hidden(postgres_url: str) -> None:
    url = make_url(postgres_url).set(password="pa55word", database="pa55word")
    opened = open_store(url.render_as_string(hide_password=False))
    with pytest.raises(StoreError, match=r'database "\*\*\*" does not exist'):
        opened.ping()
    opened.close()
