"""The spool with a store that is away when the test says so: order, bound, damage, restart."""

from __future__ import annotations

import errno
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agents.core.columns import packed
from agents.core.errors import BatchRefusedError, StoreError
from agents.core.types import FORWARDED, FROM_CACHE, FROM_CACHE_STALE, UNKNOWN, Severity, Verdicts
from agents.detection.limits import Scale
from agents.dns.name import wire_of
from agents.learning.baseline import asked_batch
from agents.runtime.bootstrap import FEATURES_AGAIN
from agents.store import SpoolingSink
from agents.store.codec import decode, encode
from tests.support.detecting import fresh_detector, shipped_model
from tests.support.verdicts import incident, verdicts

MEGABYTE = 1 << 20


class FakeStore:
    """Keeps batches in memory; `away` and `refuse` make it fail as a database does."""

    def __init__(self) -> None:
        self.away = False
        self.refuse = False
        self.away_after_commit = False
        self.attempts = self.transactions = 0
        self.refused: set[str] = set()
        self.batches: dict[str, Verdicts] = {}

    @property
    def order(self) -> list[str]:
        return [batch.client[0] for batch in (verdict.queries for verdict in self.batches.values())]

    def write(self, verdicts: Verdicts, batch_id: str) -> int:
        self.attempts += 1
        if self.away:
            raise StoreError("cannot write a batch: connection refused")
        if self.refuse:
            raise BatchRefusedError("cannot write a batch: value out of range")
        new = batch_id not in self.batches
        self.batches.setdefault(batch_id, verdicts)
        if self.away_after_commit:
            self.away_after_commit = False
            raise StoreError("cannot write a batch: server closed the connection unexpectedly")
        return len(verdicts) if new else 0

    def write_all(self, batches: Sequence[tuple[Verdicts, str]]) -> int:
        if any(verdicts.queries.client[0] in self.refused for verdicts, _ in batches):
            raise BatchRefusedError("cannot write a batch: value out of range")
        self.transactions += 1
        return sum(self.write(verdicts, batch_id) for verdicts, batch_id in batches)

    def rows_of_batch(self, batch_id: str, first: float, last: float) -> int:
        if self.away:
            raise StoreError("cannot count a batch: connection refused")
        ts = self.batches[batch_id].queries.ts if batch_id in self.batches else np.empty(0)
        return int(np.count_nonzero((first <= ts) & (ts <= last)))


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for it, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        threading.Event().wait(0.005)


def judged(names: list[str]) -> Verdicts:
    """Names as the detector judges them."""
    count = len(names)
    times = [1_763_604_800 + 0.01 * number for number in range(count)]
    clients = [f"192.0.2.{number % 20}" for number in range(count)]
    return fresh_detector(shipped_model(), Scale()).detect(asked_batch(times, clients, names, [1] * count))


def batch(client: str, count: int = 3) -> Verdicts:
    return verdicts([f"h{i}.example.com" for i in range(count)], client=client)


@pytest.fixture
def fake() -> FakeStore:
    return FakeStore()


@pytest.fixture
def sink(fake: FakeStore, tmp_path: Path) -> Iterator[SpoolingSink]:
    opened = SpoolingSink(fake, tmp_path / "spool", MEGABYTE, retry_s=0.02)
    yield opened
    opened.close()


def test_a_store_that_is_there_needs_no_disk(fake: FakeStore, sink: SpoolingSink, tmp_path: Path) -> None:
    sink.accept(batch("a"))
    assert (sink.counts.stored, sink.counts.spooled, sink.waiting) == (3, 0, 0)
    assert list((tmp_path / "spool").glob("*.npz")) == []


def test_what_waits_is_written_first_and_in_order(fake: FakeStore, sink: SpoolingSink) -> None:
    fake.away = True
    for client in "abc":
        sink.accept(batch(client))
    assert (sink.counts.spooled, sink.waiting) == (9, 3)
    fake.away = False
    sink.accept(batch("d"))
    until(lambda: sink.waiting == 0)
    sink.accept(batch("e"))
    assert fake.order == list("abcde")
    assert sink.counts.stored + sink.counts.replayed == 15
    assert sink.counts.lost == 0


def test_a_connection_lost_while_committing_makes_no_duplicate(fake: FakeStore, sink: SpoolingSink) -> None:
    fake.away_after_commit = True
    sink.accept(batch("a"))
    until(lambda: sink.waiting == 0)
    assert fake.attempts == 2
    assert len(fake.batches) == 1


def test_a_batch_waits_once_under_its_id_and_is_known(fake: FakeStore, tmp_path: Path) -> None:
    fake.away = True
    first = replace(batch("a"), batch_id="x")
    sink = SpoolingSink(fake, tmp_path / "spool", MEGABYTE, retry_s=3600)
    assert sink.held("x", first.queries.ts) == (0, 0)
    sink.accept(first)
    sink.accept(replace(batch("again", count=2), batch_id="x"))
    assert (sink.waiting, sink.held("x", first.queries.ts)) == (1, (0, 3))
    sink.close()
    (file,) = (tmp_path / "spool").glob("*.npz")
    file.with_name("0000000000000007-x.npz").write_bytes(file.read_bytes())  # as earlier releases left them
    fake.away = False
    sink = SpoolingSink(fake, tmp_path / "spool", MEGABYTE, retry_s=0.02)
    until(lambda: sink.waiting == 0)
    sink.close()
    assert fake.order == ["a"]
    assert (sink.held("x", first.queries.ts), sink.held("y", first.queries.ts)) == ((3, 0), (0, 0))
    assert list((tmp_path / "spool").glob("*.npz")) == []


def test_a_dead_store_costs_one_attempt_a_retry(fake: FakeStore, tmp_path: Path) -> None:
    fake.away = True
    sink = SpoolingSink(fake, tmp_path / "spool", MEGABYTE, retry_s=3600)
    for _ in range(20):
        sink.accept(batch("a"))
    sink.close()
    assert fake.attempts == 1


def test_a_store_that_is_away_is_logged_once_though_the_disk_takes_nothing(fake: FakeStore, tmp_path: Path) -> None:
    with capture_logs() as lines:
        sink = SpoolingSink(fake, tmp_path / "spool", 0, retry_s=3600)
        fake.away = True
        for _ in range(5):
            sink.accept(batch("a"))
        fake.away = False
        sink.accept(batch("a"))
        fake.away = True
        sink.accept(batch("a"))
        sink.close()
    assert [line["event"] for line in lines] == ["store_went_away", "verdicts_lost", "store_went_away"]


def test_files_of_an_earlier_process_are_written(fake: FakeStore, tmp_path: Path) -> None:
    fake.away = True
    first = SpoolingSink(fake, tmp_path / "spool", MEGABYTE, retry_s=3600)
    first.accept(batch("a"))
    first.accept(batch("b"))
    first.close()
    (tmp_path / "spool" / "0000000000000009-torn.tmp").write_bytes(b"torn")
    fake.away = False
    second = SpoolingSink(fake, tmp_path / "spool", MEGABYTE, retry_s=3600)
    second.accept(batch("c"))
    until(lambda: len(fake.batches) == 3 and second.waiting == 0)
    second.close()
    assert fake.order == list("abc")
    assert list((tmp_path / "spool").glob("*.tmp")) == []


def test_the_bound_holds_and_what_is_lost_is_counted(fake: FakeStore, tmp_path: Path) -> None:
    fake.away = True
    size = len(encode(batch("a")))
    sink = SpoolingSink(fake, tmp_path / "spool", 3 * size + 10, retry_s=3600)
    for _ in range(10):
        sink.accept(batch("a"))
    sink.close()
    assert (sink.counts.spooled, sink.counts.lost) == (9, 21)
    assert sum(path.stat().st_size for path in (tmp_path / "spool").iterdir()) <= 3 * size + 10


def test_a_full_disk_is_a_loss_and_not_a_crash(
    fake: FakeStore, sink: SpoolingSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    fake.away = True
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        sink.accept(batch("a"))
    assert (sink.counts.lost, sink.waiting) == (3, 0)
    assert list((tmp_path / "spool").glob("*.[nt]*")) == []
    sink.accept(batch("b"))
    assert sink.counts.spooled == 3


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 torn", bytes(300)])
def test_a_damaged_file_is_set_aside(fake: FakeStore, tmp_path: Path, damage: bytes) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "0000000000000001-bad.npz").write_bytes(damage)
    (folder / "0000000000000002-good.npz").write_bytes(encode(batch("good")))
    sink = SpoolingSink(fake, folder, MEGABYTE, retry_s=0.02)
    until(lambda: sink.waiting == 0)
    sink.close()
    assert list(fake.batches) == ["good"]
    assert sink.counts.damaged == 1
    assert (folder / "0000000000000001-bad.bad").read_bytes() == damage


def test_a_flipped_bit_is_noticed() -> None:
    whole = bytearray(encode(batch("a")))
    whole[whole.index(b"example") if b"example" in whole else len(whole) // 2] ^= 1
    with pytest.raises(StoreError, match="cannot read spooled batch"):
        decode(bytes(whole))


def test_a_refused_batch_does_not_block_the_others(fake: FakeStore, sink: SpoolingSink) -> None:
    fake.refuse = True
    sink.accept(batch("a"))
    assert (sink.counts.lost, sink.waiting) == (3, 0)
    fake.refuse, fake.away = False, True
    sink.accept(batch("b"))
    fake.refuse, fake.away = True, False
    until(lambda: sink.waiting == 0)
    assert sink.counts.damaged == 1


def test_two_processes_cannot_share_a_spool(sink: SpoolingSink, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="another process"):
        SpoolingSink(FakeStore(), tmp_path / "spool", MEGABYTE)


def test_foreign_files_are_left_alone(fake: FakeStore, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "notes.npz").write_bytes(b"mine")
    sink = SpoolingSink(fake, folder, MEGABYTE, retry_s=0.02)
    sink.accept(batch("a"))
    sink.close()
    assert (folder / "notes.npz").read_bytes() == b"mine"
    assert fake.order == ["a"]


def test_a_batch_of_an_older_release_is_read() -> None:
    """It had one text a row and no numbers."""
    before = batch("a")
    names = packed(before.queries.qname)
    columns = ("ts", "qtype", "qlen", "rcode", "ancount", "rlen", "ttl_min", "rtt_ms")
    arrays = {name: getattr(before.queries, name) for name in columns}
    arrays |= {name: getattr(before, name) for name in ("features", "score", "severity")}
    texts = {"client": ["a"] * 3, "ans_types": ["TXT"] * 3, "domain": ["example.com"] * 3, "reasons": [["x"], [], []]}
    whole = json.dumps(texts | {"model_id": "m", "incidents": []}).encode()
    arrays |= {"qname": names.array, "qname_len": np.diff(names.starts), "texts": np.frombuffer(whole, np.uint8)}
    out = io.BytesIO()
    np.savez(out, **arrays)
    after = decode(out.getvalue())
    assert list(after.queries.client) == list(before.queries.client)
    assert list(after.domain) == list(before.domain)
    assert list(after.reasons) == [("x",), (), ()]
    assert after.features_version == 1


@pytest.mark.slow
def test_many_small_batches_are_written_in_few_transactions(fake: FakeStore, sink: SpoolingSink) -> None:
    fake.away = True
    for number in range(300):
        sink.accept(batch(f"c{number}"))
    fake.away = False
    before = fake.transactions
    until(lambda: sink.waiting == 0)
    assert fake.order == [f"c{number}" for number in range(300)]
    assert fake.transactions - before <= 3


def test_a_refused_batch_is_set_aside_and_its_neighbours_are_written(fake: FakeStore, sink: SpoolingSink) -> None:
    fake.away, fake.refused = True, {"b"}
    for client in "abc":
        sink.accept(batch(client))
    fake.away = False
    until(lambda: sink.waiting == 0)
    until(lambda: (sink.counts.damaged, sink.counts.replayed) == (1, 6))
    assert fake.order == ["a", "c"]


def test_features_are_computed_again_and_take_no_room() -> None:
    names = [f"{host}-{number}.site{number % 40}.example{number % 7}.com" for number in range(1000) for host in "ab"]
    before = judged(names)
    small, large = encode(before, FEATURES_AGAIN), encode(before)
    after = decode(small, FEATURES_AGAIN)
    np.testing.assert_array_equal(after.features, before.features)
    np.testing.assert_array_equal(decode(large).features, before.features)
    assert after.features_version == before.features_version
    assert len(small) < len(large)
    assert len(small) / len(names) <= 90, "bytes a row"
    with pytest.raises(StoreError, match="features cannot be computed"):
        decode(small)
    older = replace(before, features_version=0)
    assert len(encode(older, FEATURES_AGAIN)) > len(small), "another version's features are kept"


@given(names=st.lists(st.lists(st.binary(min_size=1, max_size=63), max_size=3), max_size=5))
def test_a_batch_comes_back_from_disk_as_it_was(names: list[list[bytes]]) -> None:
    before = verdicts([wire_of(labels) for labels in names], client="\ud800\0", incidents=(incident(),))
    before = replace(before, features_version=7)
    after = decode(encode(before))
    assert list(after.queries.qname) == list(before.queries.qname)
    assert list(after.queries.client) == list(before.queries.client)
    assert list(after.domain) == list(before.domain)
    assert list(after.reasons) == list(before.reasons)
    assert after.incidents == before.incidents
    assert after.model_id == before.model_id
    assert after.features_version == 7
    for column in ("ts", "qtype", "qlen", "rcode", "ancount", "rlen", "ttl_min", "rtt_ms"):
        np.testing.assert_array_equal(getattr(after.queries, column), getattr(before.queries, column))
        assert getattr(after.queries, column).dtype == getattr(before.queries, column).dtype
    for column in ("features", "score", "severity"):
        np.testing.assert_array_equal(getattr(after, column), getattr(before, column))


def test_incidents_of_lost_batches_are_written_as_soon_as_there_is_room(
    fake: FakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    sink = SpoolingSink(fake, tmp_path / "spool", MEGABYTE, retry_s=3600)
    first, second = incident(domain="evil.test"), incident(domain="other.test")
    worse = replace(first, severity=Severity.CRITICAL)
    fake.away = True
    with monkeypatch.context() as patched:
        patched.setattr("agents.core.files.os.fsync", full)
        for number, found in enumerate(([first], [second], [worse])):
            sink.accept(replace(batch(str(number)), incidents=tuple(found)))
        assert sink.fault == "No space left on device"
        assert sink.counts.lost == 9
        sink.accept(replace(batch("x", 0), incidents=()))
        assert (sink.fault, sink.counts.lost) == ("No space left on device", 9), "nothing more is lost by asking"
    fake.away = False
    sink.accept(replace(batch("x", 0), incidents=()))
    assert sink.fault == ""
    (written,) = fake.batches.values()
    assert written.incidents == (second, worse)
    sink.accept(batch("y"))
    assert list(fake.batches.values())[-1].incidents == (), "once"
    sink.close()


CACHED = st.lists(st.sampled_from([UNKNOWN, FORWARDED, FROM_CACHE, FROM_CACHE_STALE]), min_size=1, max_size=40)


@settings(deadline=None)
@given(CACHED)
def test_whether_the_cache_answered_survives_the_spool(cached: list[int]) -> None:
    batch = verdicts([f"host{number}.test" for number in range(len(cached))])
    batch = replace(batch, queries=replace(batch.queries, cached=np.array(cached, np.int8)))
    again = decode(encode(batch)).queries.cached
    assert again.tolist() == cached
    assert again.dtype == np.int8


def test_whether_the_cache_answered_reaches_the_database_from_the_spool(tmp_path: Path) -> None:
    """Spooled while the database is away, and by a process that is followed by another, in merged batches."""
    store = FakeStore()
    store.away = True
    wanted = [[FORWARDED, FROM_CACHE, FROM_CACHE_STALE], [UNKNOWN] * 3, [FROM_CACHE] * 3]
    sink = SpoolingSink(store, tmp_path, MEGABYTE)
    for number, cached in enumerate(wanted):
        batch = verdicts([f"host{number}-{at}.test" for at in range(3)])
        queries = replace(batch.queries, cached=np.array(cached, np.int8))
        sink.accept(replace(batch, queries=queries, batch_id=f"b{number}"))
    sink.close()
    store.away = False
    sink = SpoolingSink(store, tmp_path, MEGABYTE)
    until(lambda: len(store.batches) == len(wanted))
    sink.close()
    assert [batch.queries.cached.tolist() for batch in store.batches.values()] == wanted
