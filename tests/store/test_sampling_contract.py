"""The training sample, on SQLite and on a real Postgres."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from agents.core.types import Sample, Severity
from agents.store import Store, open_store, sampling_kernels
from agents.store.sampling import home_of
from tests.support.listening import wait_until
from tests.support.verdicts import DAY_S, START, verdicts

pytestmark = pytest.mark.contract


def _fill(store: Store, day: int, count: int, batch_id: str, **more: Any) -> None:
    names = [f"h{i}.d{i % 97}-example.com" for i in range(count)]
    ts = [START + day * DAY_S + i for i in range(count)]
    clients = more.pop("client", [f"192.0.2.{i % 50}" for i in range(count)])
    store.write(verdicts(names, ts=ts, client=clients, **more), batch_id)


def _sample(store: Store, **changes: Any) -> Sample:
    wanted: dict[str, Any] = {
        "since": START,
        "until": START + 7 * DAY_S,
        "limit": 100,
        "max_score": 0.5,
        "client_share": 1.0,
        "domain_share": 1.0,
        "features_version": 1,
        "seed": 42,
    }
    return store.sample_normal(**(wanted | changes))


def _days(sample: Sample) -> dict[int, int]:
    return dict(Counter(((sample.ts - START) // DAY_S).astype(int).tolist()))


def test_only_normal_queries_below_the_score_and_in_the_window(store: Store) -> None:
    _fill(store, 0, 20, "before", score=0.1)
    _fill(store, 1, 20, "good", score=0.1)
    _fill(store, 1, 20, "odd score", score=0.6, client="192.0.2.200")
    _fill(store, 1, 20, "high", score=0.1, severity=Severity.HIGH, client="192.0.2.201")
    _fill(store, 2, 20, "after", score=0.1)
    sample = _sample(store, since=START + DAY_S, until=START + 2 * DAY_S)
    assert len(sample) == 20
    assert not {"192.0.2.200", "192.0.2.201"} & set(sample.client)
    assert _days(sample) == {1: 20}
    assert sample.ts.tolist() == sorted(sample.ts.tolist())
    np.testing.assert_array_equal(sample.features[3], np.arange(75, 100, dtype=np.float32))
    assert sample.qname[3] == "h3.d3-example.com"
    assert sample.domain[3] == "d3-example.com"


def test_days_give_the_same_share_whatever_their_size(store: Store) -> None:
    _fill(store, 0, 2000, "big")
    _fill(store, 1, 200, "small")
    _fill(store, 2, 5, "tiny")
    days = _days(_sample(store, limit=105))
    assert days[2] == 5
    assert days[0] + days[1] == 100
    assert abs(days[0] - days[1]) <= 5


def test_a_64_has_one_share_however_many_addresses_it_has(store: Store) -> None:
    _fill(store, 0, 200, "many", client=[f"2001:db8:0:7::{i:x}" for i in range(200)])
    _fill(store, 0, 200, "others", client=[f"192.0.2.{i}" for i in range(200)])
    sample = _sample(store, client_share=0.1)
    assert sum(client.startswith("2001:") for client in sample.client) <= 10
    assert len(sample) == 100


@pytest.mark.parametrize(
    ("client", "home"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8::1:2", "2001:db8::"), ("fe80::1%eth0", "fe80::"), ("", ""), ("a:b", "a:b")],
)
def test_what_has_one_share(client: str, home: str) -> None:
    assert home_of(client) == home


def test_too_few_rows_give_all_of_them(store: Store) -> None:
    _fill(store, 0, 30, "b")
    assert len(_sample(store)) == 30


def test_an_empty_store_gives_an_empty_sample(store: Store) -> None:
    sample = _sample(store)
    assert len(sample) == 0
    assert sample.features.shape == (0, 0)


def test_caps_on_clients_and_domains_hold(store: Store) -> None:
    for day in range(3):
        _fill(store, day, 300, f"busy {day}", client="192.0.2.99")
        _fill(store, day, 300, f"others {day}")
    sample = _sample(store, client_share=0.1, domain_share=0.02)
    assert max(Counter(sample.client).values()) <= 10
    assert max(Counter(sample.domain).values()) <= 2
    assert len(sample) == 100
    busy = [ts for ts, client in zip(sample.ts, sample.client, strict=True) if client == "192.0.2.99"]
    assert len({(ts - START) // DAY_S for ts in busy}) == 3, "a busy client's share is spread over the days too"


def test_a_share_below_one_query_still_gives_one(store: Store) -> None:
    _fill(store, 0, 200, "b")
    assert set(Counter(_sample(store, limit=50, client_share=0.001).client).values()) == {1}


def test_the_same_seed_gives_the_same_sample_and_another_seed_another(store: Store) -> None:
    _fill(store, 0, 3000, "b")
    first, again, other = _sample(store), _sample(store), _sample(store, seed=43)
    assert first.qname == again.qname
    np.testing.assert_array_equal(first.features, again.features)
    assert first.qname != other.qname


def test_every_row_can_be_drawn(store: Store) -> None:
    """No bias to the beginning of the index: over seeds, each row comes up about as often."""
    _fill(store, 0, 200, "b")
    drawn: Counter[str] = Counter()
    for seed in range(100):
        drawn.update(_sample(store, limit=40, seed=seed).qname)
    assert len(drawn) >= 195
    assert max(drawn.values()) < 60, "20 on average"


def test_rows_of_an_older_feature_table_are_left_out(store: Store) -> None:
    """By their version, and not by their length: a feature may change its meaning alone."""
    names = [f"h{i}.example.com" for i in range(20)]
    day = verdicts(names, ts=[START + DAY_S + i for i in range(20)])
    _fill(store, 0, 20, "old")
    store.write(replace(day, features_version=2), "new")
    sample = _sample(store, features_version=2)
    assert sample.features.shape == (20, 25)
    assert _days(sample) == {1: 20}
    assert _days(_sample(store)) == {0: 20}
    assert len(_sample(store, features_version=3)) == 0


def _scans(url: str, index: str) -> tuple[int, int]:
    """Rows read without an index, and scans of the index of this name, as Postgres counts."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
    with engine.begin() as connection:
        whole = connection.execute(
            text("SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname ~ 'queries_day'")
        )
        ranged = connection.execute(
            text("SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname LIKE :name"), {"name": index}
        )
        counts = int(whole.scalar() or 0), int(ranged.scalar() or 0)
    engine.dispose()
    return counts


def test_few_of_many_are_read_by_the_index_and_not_by_the_table(postgres_url: str) -> None:
    store = open_store(postgres_url)
    store.migrate()
    _fill(store, 0, 20_000, "b")
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg2:"))
    with engine.begin() as connection:
        connection.execute(text("ANALYZE queries"))
    engine.dispose()
    before = _scans(postgres_url, "%day_rnd%")
    assert len(_sample(store)) == 100
    store.close()
    wait_until(lambda: _scans(postgres_url, "%day_rnd%")[1] >= before[1] + 2, 10)
    assert _scans(postgres_url, "%day_rnd%")[0] == before[0]


def test_what_the_index_does_not_hold_is_drawn_where_caps_refuse_the_rest(store: Store) -> None:
    """One client asked nearly all: the few others lie anywhere, and all of them are found."""
    clients = ["192.0.2.200" if i % 500 else f"192.0.2.{i // 500}" for i in range(20_000)]
    _fill(store, 0, 20_000, "b", client=clients)
    sample = _sample(store, limit=50, client_share=0.02)
    assert len(sample) >= 2, "the busy one gives its one query"
    assert max(Counter(sample.client).values()) == 1
    assert len(_sample(store, limit=1000, client_share=0.9).client) > 900


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=60),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 70),
)
def test_caps_are_those_of_a_plain_loop(
    rows: list[tuple[int, int]], client_max: int, domain_max: int, count: int
) -> None:
    clients, domains = np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.int64)
    left, taken = (np.full(5, client_max), np.full(5, domain_max)), np.zeros(len(rows), np.bool_)
    at, found = sampling_kernels.take_sample(clients, domains, 0, len(rows), count, *left, taken)
    seen: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    expected: list[int] = []
    for number, (client, domain) in enumerate(rows):
        if len(expected) < count and seen[0][client] < client_max and seen[1][domain] < domain_max:
            seen[0][client] += 1
            seen[1][domain] += 1
            expected.append(number)
    assert np.flatnonzero(taken).tolist() == expected
    assert found == len(expected)
    assert at == len(rows) if found < count else at == (expected[-1] + 1 if expected else 0)
