"""Flow-hours of traffic whose hours are known."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.npz import FormatError
from agents.core.types import Row, batch_of
from agents.detection.limits import Scale, limits_of
from agents.detection.state import Kind
from agents.learning.baseline import golden_sessions
from agents.learning.loop.collector import HourCollector
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA, CounterReading, load_reading
from agents.learning.loop.flow_images import SLICES
from agents.learning.loop.golden import GOLDEN_SCHEMA
from agents.learning.loop.online import CycleState, OnlineLearner
from agents.learning.loop.options import SPEC
from agents.store import open_store
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.stream.slots import detector_for
from tests.support.detecting import domain_key, query, shipped_model
from tests.support.flow_hours import HOUR, HOUR_S, Collecting, collecting
from tests.support.several import Several

BEGIN = HOUR * float(HOUR_S)


def value(rows: FlowHours, name: str, row: int = 0) -> float:
    return float(rows.numbers[row, NUMBERS.index(name)])


def labels(count: int, seed: int = 1) -> list[str]:
    """Labels that read as encoded."""
    draw = np.random.default_rng(seed)
    return ["".join(draw.choice(list("abcdefghijklmnopqrstuvwxyz234567"), 24)) for _ in range(count)]


def traffic(hours: int, an_hour: int) -> list[Row]:
    """Two clients below two domains: one new encoded name each, and one plain name, so often an hour."""
    rows = []
    for number, label in enumerate(labels(hours * an_hour)):
        ts = BEGIN + number * HOUR_S / an_hour + 1
        rows.append(query(ts, "192.0.2.7", f"{label}.evil.example", 16))
        rows.append(query(ts + 1, "192.0.2.8", "www.shop.example"))
    return rows


def collected(tmp_path: Path, rows: list[Row]) -> FlowHours:
    """The flow-hours of rows, and of the hour in which they end."""
    store = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    store.migrate()
    with collecting(store, tmp_path) as one:
        one.ask(rows)
        one.collector.turn(rows[-1][0] + HOUR_S)
    return one.hours.read(SCHEMA)


def test_each_hour_of_a_flow_is_counted_by_itself(tmp_path: Path) -> None:
    found = collected(tmp_path, traffic(3, 6))
    key = sorted(zip(found.hour.tolist(), found.domain, range(len(found)), strict=True))
    assert [(hour - HOUR, domain) for hour, domain, _ in key] == [
        (hour, domain) for hour in range(3) for domain in ("evil.example", "shop.example")
    ]
    for hour, domain, row in key:
        assert value(found, "queries", row) == 6, (hour, domain)
        assert value(found, "domain_clients", row) == 1
        assert found.client[row] == ("192.0.2.7" if domain == "evil.example" else "192.0.2.8")
        if domain == "evil.example":
            assert value(found, "names", row) == value(found, "encoded_names", row) == 6
            assert 50 < value(found, "information_bytes", row) < 150
            assert value(found, "encoded_share", row) == pytest.approx(1)
            assert value(found, "new_share", row) == 1
            assert value(found, "carrying_share", row) > 0.8, "TXT"
            assert found.names[row][0].endswith(".evil.example")
        else:
            assert value(found, "names", row) == (1 if hour == HOUR else 0)
            assert value(found, "new_share", row) == pytest.approx(1 / 6 if hour == HOUR else 0)
    assert value(found, "domain_age_days", key[-1][2]) == pytest.approx(3 / 24, abs=0.01)


def test_an_hour_without_a_query_has_no_flow_hour(tmp_path: Path) -> None:
    rows = [query(BEGIN + 5, "192.0.2.7", "a.one.example"), query(BEGIN + HOUR_S + 5, "192.0.2.7", "a.two.example")]
    found = collected(tmp_path, rows)
    assert sorted(zip(found.hour.tolist(), found.domain, strict=True)) == [
        (HOUR, "one.example"), (HOUR + 1, "two.example"),
    ]  # fmt: skip


def test_the_distance_to_a_limit_is_the_one_that_judges(tmp_path: Path) -> None:
    """The worst of a flow-hour's ratios is what the kernel says of the flow at the end of the hour."""
    rows = traffic(1, 30)
    store = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    store.migrate()
    with collecting(store, tmp_path) as one:
        one.ask(rows[:-1])
        end = BEGIN + HOUR_S
        flows = one.detector.flows
        row = flows.find("192.0.2.7", domain_key(one.detector, "evil.example"))
        assert row is not None
        flows.state.flows["last_seen"][row] = end - 1e-6
        limits = limits_of(one.detector.model.limit_factor)
        expected = flows.ratio(row, limits.table, limits.rules)
        flows.state.flows["last_seen"][row] = rows[-2][0]
        one.collector.turn(end)
    found = one.hours.read(SCHEMA, domain="evil.example")
    ratios = [value(found, f"ratio_{kind.name.lower()}") for kind in (Kind.INFORMATION, Kind.ENCODED, Kind.YOUNG)]
    fresh = value(found, "ratio_fresh")
    assert max(*ratios, fresh) == pytest.approx(expected, rel=1e-4)
    assert expected > 0.5


def test_a_restart_goes_on_with_the_hour(tmp_path: Path) -> None:
    """Kill after half of the second hour: what the snapshot has counts for the hour as if nothing had happened."""
    rows = traffic(2, 8)
    store = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    store.migrate()
    with collecting(store, tmp_path) as first:
        first.ask(rows[:24])  # an hour and a half
        files = first.detector.save(nullcontext())
    again = Collecting(store, tmp_path)
    for name, data in files.items():
        again.detector.load(name, data)
    again.collector.start()
    again.ask(rows[24:])
    again.collector.turn(BEGIN + 2 * HOUR_S)
    again.collector.close(60)
    found = again.hours.read(SCHEMA, domain="evil.example")
    assert {int(hour): value(found, "queries", row) for row, hour in enumerate(found.hour)} == {HOUR: 8, HOUR + 1: 8}


def test_a_flow_that_asks_nothing_after_a_restart_still_has_its_hour(tmp_path: Path) -> None:
    """Its sample names say below which domain it asked; one without samples carried nothing, and is left out."""
    store = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    store.migrate()
    with collecting(store, tmp_path) as first:
        first.ask(traffic(1, 8))
        files = first.detector.save(nullcontext())
    again = Collecting(store, tmp_path)
    for name, data in files.items():
        again.detector.load(name, data)
    again.collector.start()
    again.collector.turn(BEGIN + HOUR_S)
    again.collector.close(60)
    found = again.hours.read(SCHEMA)
    assert list(found.domain) == ["evil.example"]
    assert value(found, "queries") == 8


def test_lifetime_counters_are_not_taken_for_an_hour_where_the_reading_is_gone(tmp_path: Path) -> None:
    rows = traffic(2, 8)
    store = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    store.migrate()
    with collecting(store, tmp_path) as first:
        first.ask(rows[:24])
    (tmp_path / "flow_hours.npz").write_bytes(b"PK damaged")
    again = Collecting(store, tmp_path)
    again.detector = first.detector
    again.collector._detector = first.detector
    again.collector.start()
    again.ask(rows[24:])
    again.collector.turn(BEGIN + 2 * HOUR_S)
    again.collector.close(60)
    found = again.hours.read(SCHEMA, since=HOUR + 1, domain="evil.example")
    assert value(found, "queries") == 4, "what came after the restart"


def test_a_clock_that_is_set_back_begins_the_hour_anew(tmp_path: Path) -> None:
    rows = traffic(3, 4)
    found = collected(tmp_path, [*rows[16:], query(BEGIN + 20, "192.0.2.9", "a.back.example")])
    assert set(found.hour.tolist()) == {HOUR}, "the hour ahead was broken off"
    assert "back.example" in found.domain


def test_a_tunnel_stands_out(tmp_path: Path) -> None:
    session = golden_sessions()["iodine-txt-base32"]
    rows = [query(BEGIN + i, "192.0.2.7", name, 16) for i, name in enumerate(session.qname[:300])]
    found = collected(tmp_path, rows)
    assert value(found, "peak_today") > 1


def sums_by_hour(found: FlowHours) -> Counter[int]:
    counts: Counter[int] = Counter()
    for hour, numbers in zip(found.hour.tolist(), found.numbers, strict=True):
        counts[hour] += int(numbers[0])
    return counts


def test_no_query_is_counted_twice_or_lost(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    ts = BEGIN + np.sort(draw.uniform(0, 4 * HOUR_S, 300))
    rows = [
        query(float(at), f"192.0.2.{draw.integers(5)}", f"n{draw.integers(9)}.d{draw.integers(7)}.example") for at in ts
    ]
    found = sums_by_hour(collected(tmp_path, rows))
    assert found == Counter(int(at // HOUR_S) for at in ts)


def hours_of_two(tmp_path: Path, rows: list[Row]) -> FlowHours:
    """The flow-hours of rows as two detectors share their clients, each with a collector."""
    store = open_store(f"sqlite:///{tmp_path / 'two.db'}")
    store.migrate()
    hours = FlowHourStore(store)
    several = Several(shipped_model(), Scale(), 2, see=lambda number, verdicts: collectors[number].see(verdicts))
    collectors = [HourCollector(part, hours, tmp_path / f"{at}.npz") for at, part in enumerate(several.parts)]
    for one in collectors:
        one.start()
    for row in rows:
        for one in collectors:
            one.turn(row[0])
        several.detect(batch_of([row]))
    for one in collectors:
        one.turn(rows[-1][0] + HOUR_S)
        one.close(60)
    return hours.read(SCHEMA)


@pytest.mark.slow
def test_two_detectors_give_the_flow_hours_that_one_gives(tmp_path: Path) -> None:
    """Clients below a domain, and its age, are the network's: the second half of the clients comes an hour later."""
    rows = [
        query(BEGIN + HOUR_S * (client // 10) + 60 * client + 7 * at, f"192.0.2.{client}", f"n{at}.d{at % 3}.example")
        for client in range(20)
        for at in range(8)
    ]
    rows.sort(key=lambda row: row[0])
    one, two = collected(tmp_path, rows), hours_of_two(tmp_path, rows)
    places = [
        dict(zip(zip(found.hour.tolist(), found.client, found.domain, strict=True), found.numbers, strict=True))
        for found in (one, two)
    ]
    assert len({detector_for(client, 2) for client in two.client}) == 2
    assert places[0].keys() == places[1].keys()
    for key, numbers in places[0].items():
        assert dict(zip(NUMBERS, places[1][key].tolist(), strict=True)) == dict(
            zip(NUMBERS, numbers.tolist(), strict=True)
        ), key
    assert max(numbers[NUMBERS.index("domain_clients")] for numbers in places[1].values()) == 20


@given(st.binary(max_size=300))
def test_other_bytes_are_no_reading(data: bytes) -> None:
    with pytest.raises(FormatError):
        load_reading(data)


def test_a_reading_is_read_as_it_was() -> None:
    one = CounterReading(HOUR, np.array([3, 9], np.uint64), np.arange(12.0).reshape(2, 6))
    found = load_reading(one.dump())
    assert found.hour == HOUR
    assert found.marks.tolist() == [3, 9]
    assert found.counters.tolist() == one.counters.tolist()
    with pytest.raises(FormatError, match="no reading"):
        load_reading(one._replace(counters=np.zeros((3, 6))).dump())


def test_each_ratio_of_a_flow_hour_is_that_of_a_kind_of_limit() -> None:
    """A new kind may wait for the next schema: until then no model learns from it, and rows keep their meaning."""
    ratios = [name.removeprefix("ratio_") for name in NUMBERS if name.startswith("ratio_")]
    assert len(ratios) == len(set(ratios)) >= 15 and {*ratios} < {kind.name.lower() for kind in Kind}


def test_a_forest_can_name_each_column_of_an_image() -> None:
    assert SLICES * len(NUMBERS) <= np.iinfo(np.uint8).max + 1


def test_what_a_client_sends_over_domains_is_told_with_each_domain_that_has_a_part(tmp_path: Path) -> None:
    """Ten encoded names below each of six domains, one each below twenty others; another client browses."""
    drawn = iter(labels(80))
    below = [f"d{at % 6}.example" for at in range(60)] + [f"e{at}.example" for at in range(20)]
    rows = [query(BEGIN + 40 * at, "192.0.2.7", f"{next(drawn)}.{domain}", 16) for at, domain in enumerate(below)]
    rows += [query(BEGIN + 40 * at + 1, "192.0.2.8", f"www.shop{at % 5}.example") for at in range(80)]
    found = collected(tmp_path, sorted(rows, key=lambda row: row[0]))
    by_domain = {domain: row for row, domain in enumerate(found.domain)}
    kinds = ("spread", "spread_fresh", "scattered", "words", "first", "siblings")

    def told(domain: str) -> dict[str, float]:
        return {kind: round(value(found, f"ratio_{kind}", by_domain[domain]), 3) for kind in kinds}

    one, other, browsed = told("d0.example"), told("d5.example"), told("shop0.example")
    assert one == other, "sums of one client"
    assert all(one[kind] > 0 for kind in kinds), one
    assert not any(browsed[kind] for kind in ("spread", "spread_fresh", "scattered", "siblings")), browsed
    assert value(found, "ratio_encoded", by_domain["d0.example"]) > 0


@pytest.mark.parametrize(("every_s", "told"), [(60.0, True), (1.0, False)])
def test_names_at_a_machines_pace_are_told_by_the_hour(tmp_path: Path, every_s: float, told: bool) -> None:
    rows = [query(BEGIN + at * every_s, "192.0.2.7", f"task{at * at}.beacon.example", 16) for at in range(12)]
    found = collected(tmp_path, rows)
    (row,) = [at for at, domain in enumerate(found.domain) if domain == "beacon.example"]
    beacon, polls = (value(found, f"ratio_{kind}", row) for kind in ("beacon", "polls"))
    assert (beacon > 0) is told and (polls > 0) is told
    assert beacon <= 12 / 20 + 0.05 and polls <= 12 / 20, "limits are twenty"


@pytest.mark.slow
def test_an_upgrade_leaves_rows_of_the_schema_before_unread_and_begins_a_new_flow_model(tmp_path: Path) -> None:
    """Release 0.1 had 26 numbers; its rows stay, labelled or not, until there is no room or their time is over."""
    store = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    store.migrate()
    hours, width = FlowHourStore(store), 26
    old = FlowHours(1, np.array([HOUR]), ["192.0.2.7"], ["old.example"], [()], np.ones((1, width), np.float32))
    hours.add(old)
    shipped = FlowHours(-1, np.array([0]), ["golden"], ["golden-1"], [()], np.ones((1, width), np.float32))
    hours.replace(shipped, ["tunnel"], "golden session", BEGIN)
    learner = OnlineLearner(store, tmp_path / "flow", SPEC.factory(SPEC.values({})), lambda: BEGIN)
    learner.folder.mkdir()
    arrays = {name: np.ones(width) for name in ("mean", "scale", "weights")} | {"bias": np.zeros(1)}
    np.savez(learner.path, manifest=np.frombuffer(b'{"schema": 1}', np.uint8), **arrays)  # type: ignore[arg-type]
    assert learner.usable_model() is None, "it is of another schema"
    with collecting(store, tmp_path) as one:
        one.ask([query(BEGIN + 1, "192.0.2.7", "www.new.example")])
        one.collector.turn(BEGIN + HOUR_S)
    assert (list(hours.read(1).domain), list(hours.read(SCHEMA).domain)) == (["old.example"], ["new.example"])
    assert hours.read(1).numbers.shape == (1, width) and hours.read(SCHEMA).numbers.shape == (1, len(NUMBERS))
    assert learner.cycle()["state"] == CycleState.DEPLOYED
    model = learner.model()
    assert model is not None and model.weights.shape == (len(NUMBERS),)
    assert len(hours.read(-1)) == 0 and len(hours.read(GOLDEN_SCHEMA)) > 100, "shipped rows are those of this release"
