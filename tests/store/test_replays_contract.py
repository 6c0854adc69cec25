"""What a stored replay and what was seen live have to do with each other in the store: nothing. On both databases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import TextClause, create_engine, text

from agents.core.types import MARK_MAX, Verdicts, incident_row, marked
from agents.store import Store, migrate, open_store
from agents.store.codec import decode, encode
from agents.store.rows import COLUMNS, query_columns
from tests.support.verdicts import DAY_S, START, incident, verdicts

pytestmark = pytest.mark.contract

TODAY = int(START // DAY_S)
LONG_AGO = START - 2000 * DAY_S


def names(count: int) -> list[str]:
    return [f"h{i}.d{i}-example.com" for i in range(count)]


def live(count: int, day: int = 0, **more: Any) -> Verdicts:
    ts = [START + day * DAY_S + i for i in range(count)]
    return verdicts(names(count), ts=ts, client=[f"192.0.2.{i}" for i in range(count)], **more)


def replay(count: int, mark: str = "old.pcap", day: int = 0, at: float = LONG_AGO, **more: Any) -> Verdicts:
    """Queries of long ago, replayed some days after START."""
    found = verdicts(names(count), ts=[at + i for i in range(count)], client="198.51.100.7", **more)
    return marked(found, mark, START + day * DAY_S + 60)


def sources(store: Store, **wanted: Any) -> list[str | None]:
    return [row["source"] for row in store.queries(limit=999, **wanted)[0]]


def test_queries_have_their_mark_and_are_filtered_by_it(store: Store) -> None:
    store.write_all([(live(3), "live"), (replay(2), "old"), (live(1, day=1), "more"), (replay(4, "ü b"), "other")])
    assert sources(store)[:4] == [None] * 4, "the newest"
    assert sorted(map(str, sources(store)[4:])) == ["old.pcap"] * 2 + ["ü b"] * 4
    assert sources(store, source="") == [None] * 4
    assert sources(store, source="old.pcap") == ["old.pcap"] * 2
    assert sources(store, source="nothing") == []
    (row,) = store.queries(source="ü b", since=LONG_AGO + 3, until=LONG_AGO + 4, limit=9)[0]
    assert (row["ts"], row["imported_at"], row["qname"]) == (LONG_AGO + 3, START + 60, "h3.d3-example.com")
    assert store.queries(source="", limit=1)[0][0]["imported_at"] is None
    assert sources(store, since=START) == [None] * 4, "by the time of the queries"
    assert sources(store, until=START, client="198.51.100.7", domain="d1-example.com") != []


def test_pages_of_both_show_each_query_once(store: Store) -> None:
    store.write(live(7), "live")
    store.write(replay(6, at=START), "same times")
    seen: list[tuple[str, str | None]] = []
    cursor: str | None = None
    for _ in range(5):
        rows, cursor = store.queries(limit=3, cursor=cursor)
        seen += [(row["qname"], row["source"]) for row in rows]
    assert cursor is None
    assert sorted(seen, key=str) == sorted(
        [(name, None) for name in names(7)] + [(name, "old.pcap") for name in names(6)], key=str
    )


def test_each_kind_is_dropped_by_its_own_age(store: Store) -> None:
    store.write_all([(live(5), "b0"), (live(4, day=1), "b1"), (replay(3), "r0"), (replay(2, day=9), "r9")])
    assert store.stored_days() == [TODAY, TODAY + 1], "not those of long ago"
    assert store.import_days() == [TODAY, TODAY + 9]
    assert store.drop_old(TODAY + 1) == 5
    assert sources(store) == [None] * 4 + ["old.pcap"] * 5
    assert store.drop_replays(TODAY) == 0
    assert store.drop_replays(TODAY + 1) == 3
    assert store.drop_old(TODAY + 1) == 0
    assert sources(store) == [None] * 4 + ["old.pcap"] * 2
    assert store.import_days() == [TODAY + 9]
    assert store.write(replay(3), "r0 again") == 3, "a dropped shelf is made again"
    assert store.drop_replays(TODAY + 99) == 5
    assert sources(store) == [None] * 4


def test_old_live_queries_among_many_of_replays_are_dropped(store: Store) -> None:
    store.write(replay(5000, at=START - 5000), "old")
    store.write(verdicts(names(5000), ts=[START - 5000 + i for i in range(5000)]), "live")
    assert store.drop_old(TODAY) == 5000
    assert sources(store, source="") == []
    assert store.drop_replays(TODAY + 1) == 5000


def test_incidents_of_a_replay_are_kept_apart(store: Store) -> None:
    """The same client, domain and moment: the capture was taken where the listener ran."""
    seen = incident()
    store.write(verdicts([], incidents=(seen,)), "live")
    again = replace(seen, queries=9999, last_seen=seen.last_seen + 5, closed_at=seen.last_seen + 5)
    store.write(marked(verdicts([], incidents=(again,)), "a.pcap", START), "one replay")
    assert store.open_incidents() == [seen], "neither extended nor closed"
    store.write(marked(verdicts([], incidents=(replace(again, closed_at=None),)), "b.pcap", START + 1), "broken off")
    assert store.open_incidents() == [seen], "a replay's open ones are nobody's to go on with"
    assert {one.source for one in store.incidents(limit=9)} == {"", "a.pcap", "b.pcap"}
    (stored,) = store.incidents(source="a.pcap", limit=9)
    assert stored == replace(again, source="a.pcap", imported_at=START)
    assert store.incidents(source="", limit=9) == [seen]
    assert store.incident_by_id(seen.incident_id) == seen
    assert store.incident_by_id(stored.incident_id) == stored
    assert len({incident_row(one)["incident_id"] for one in store.incidents(limit=9)}) == 3


def test_an_incident_is_found_by_the_id_that_replay_printed(store: Store) -> None:
    printed = incident(closed_at=START + 60)
    for at, mark in enumerate(("a.pcap", "b.pcap")):
        store.write(marked(verdicts([], incidents=(printed,)), mark, START + at), mark)
    found = store.incident_by_id(printed.incident_id)
    assert found is not None and found.source == "b.pcap", "the last one"


def test_incidents_are_forgotten_by_their_own_age(store: Store) -> None:
    old = incident(closed_at=START + 60)
    store.write(verdicts([], incidents=(old,)), "live")
    of_replay = (incident(client="192.0.2.1", closed_at=START), incident(client="192.0.2.2"))
    store.write(marked(verdicts([], incidents=of_replay), "a.pcap", START + 9 * DAY_S), "replayed")
    assert store.import_days() == [TODAY + 9]
    assert store.forget(START + DAY_S) == (1, 0)
    assert store.forget_replays(TODAY + 9) == 0
    assert store.forget_replays(TODAY + 10) == 2, "an open one, too: nobody will close it"
    assert not store.incidents(limit=1000)


def test_learning_takes_what_was_seen_live_unless_it_is_asked_for_more(store: Store) -> None:
    store.write_all([(live(30), "live"), (replay(20, at=START + 9), "new"), (replay(10), "long ago")])
    wanted: dict[str, Any] = {"since": START, "until": START + DAY_S}
    limits: dict[str, Any] = {"limit": 99, "max_score": 0.5, "client_share": 1.0, "domain_share": 1.0}
    fixed: dict[str, Any] = {"features_version": 1, "seed": 1}
    assert set(store.sample_normal(**wanted, **limits, **fixed).client) == {f"192.0.2.{i}" for i in range(30)}
    assert len(store.sample_normal(**wanted, **limits, **fixed, replayed=True)) == 50
    assert store.severity_counts(**wanted)[0] == ("NORMAL", 30)
    assert store.severity_counts(**wanted, replayed=True)[0] == ("NORMAL", 50)
    store.drop_old(TODAY + 1)
    assert len(store.sample_normal(**wanted, **limits, **fixed)) == 0
    assert len(store.sample_normal(**wanted, **limits, **fixed, replayed=True)) == 20


def test_two_replays_at_once(store_url: str) -> None:
    """Each process has connections of its own; both make the shelf of the day."""
    stores = [open_store(store_url) for _ in range(2)]
    stores[0].migrate()

    def run(at: int) -> int:
        shared = tuple(incident(client=f"192.0.2.{i}", closed_at=START) for i in range(20))
        parts = [replay(50, f"{at}.pcap", incidents=shared) for _ in range(10)]
        return sum(stores[at].write(part, f"{at} {number}") for number, part in enumerate(parts))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == [500, 500]
    for at, each in enumerate(stores):
        assert sources(each, source=f"{at}.pcap") == [f"{at}.pcap"] * 500
        assert len(each.incidents(source=f"{at}.pcap", limit=99)) == 20
    assert stores[0].drop_replays(TODAY + 1) == 1000
    assert stores[1].write(replay(3), "after") == 3, "another process dropped the shelf that this one remembers"
    for each in stores:
        each.close()


def inserting(table: str, columns: Iterable[str]) -> TextClause:
    return text(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})")


def test_what_an_older_release_stored_was_seen_live(store_url: str) -> None:
    engine = create_engine(store_url.replace("postgresql:", "postgresql+psycopg2:"))
    columns = dict(zip(COLUMNS, query_columns(live(3), "before").lists(), strict=True))
    row = {name: value for name, value in incident_row(incident()).items() if name not in ("source", "imported_at")}
    with closing(open_store(store_url)) as opened:
        with engine.begin() as connection:
            migrate.upgrade(connection, "0006")
        opened.prepare([TODAY])
        with engine.begin() as connection:
            for values in zip(*columns.values(), strict=True):
                connection.execute(inserting("queries", columns), dict(zip(columns, values, strict=True)))
            connection.execute(inserting("incidents", row), row)
        opened.migrate()
        opened.write_all([(live(2, day=1), "after"), (replay(2), "replayed")])
        assert sources(opened, source="") == [None] * 5
        assert opened.open_incidents() == [incident()]
        assert (opened.drop_old(TODAY + 1), opened.drop_replays(TODAY + 1)) == (3, 2)
    engine.dispose()


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=MARK_MAX),
    st.floats(0, 2.0**36 - 1),
)
def test_the_spool_keeps_the_mark(mark: str, imported_at: float) -> None:
    batch = marked(verdicts(names(2), incidents=(incident(),)), mark, imported_at)
    found = decode(encode(batch))
    assert (found.source, found.imported_at) == (mark, imported_at)
    assert found.incidents == batch.incidents
    plain = decode(encode(verdicts(names(2))))
    assert (plain.source, plain.imported_at) == ("", None)


@pytest.fixture
def spooled(store: Store) -> Iterator[Store]:
    store.write(decode(encode(replay(3, incidents=(incident(),)))), "from disk")
    yield store


def test_what_waited_on_disk_is_stored_with_its_mark(spooled: Store) -> None:
    assert sources(spooled) == ["old.pcap"] * 3
    assert [one.source for one in spooled.incidents(limit=9)] == ["old.pcap"]
