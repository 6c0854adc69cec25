"""Windows and their memory: against a naive oracle, and at every bound."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.flows import EVIDENCE_BYTES, IDLE_S, SPREAD_DOMAINS, SPREAD_NAMES, Flows
from agents.seen import EXACT_MAX, Memory, key_of
from agents.windows import SAMPLES, WINDOWS_S, Flow, Part, Window

START = 1_700_000_000.0
EVENTS = st.lists(st.tuples(st.floats(0, 300), st.floats(0, 100)), min_size=1, max_size=60)


def part(label: bytes, bits: float = 80.0, encoded: bool = True) -> Part:
    return Part(key_of(b"." + label), bits, encoded)


def add(flow: Flow, number: int, ts: float = START, bits: float = 80.0) -> tuple[float, float]:
    label = b"%d" % number
    return flow.add(ts, (label, 1, -1), key_of(label), (part(label, bits),), 1.0)


@given(EVENTS)
@settings(max_examples=200)
def test_a_windows_sum_is_its_bucket_and_its_share_of_the_one_before(events: list[tuple[float, float]]) -> None:
    window, ts = Window(60), START
    buckets: defaultdict[int, float] = defaultdict(float)
    for gap, amount in events:
        ts += gap
        window.add(ts, amount, amount / 2, 1, 1)
        buckets[int(ts // 60)] += amount
        now = int(ts // 60)
        expected = buckets[now] + (1 - (ts / 60 - now)) * buckets[now - 1]
        information, encoded, names, encoded_names, answers = window.sums(ts)
        assert information == pytest.approx(expected)
        assert encoded == pytest.approx(expected / 2)
        assert names == encoded_names <= len(events)
        assert answers == 0


@given(EVENTS)
@settings(max_examples=200)
def test_a_window_sees_half_of_what_was_sent_within_its_length_and_nothing_twice_as_old(
    events: list[tuple[float, float]],
) -> None:
    """The bound that two buckets cost: never more than 2 windows are in it, never less than the bucket's part."""
    window, ts, sent = Window(60), START, []
    for gap, amount in events:
        ts += gap
        sent.append((ts, amount))
        window.add(ts, amount, 0, 1, 0)
        found = window.sums(ts)[0]
        assert found <= sum(amount for at, amount in sent if at > ts - 120) + 1e-6
        assert found >= sum(amount for at, amount in sent if int(at // 60) == int(ts // 60)) - 1e-6


def test_a_steady_sender_cannot_hide_between_buckets() -> None:
    window, least = Window(60), math.inf
    for second in range(600):
        window.add(START + second, 1.0, 0.0, 1, 0)
        if second > 120:
            least = min(least, window.sums(START + second)[0])
    assert least >= 59


def test_sums_fall_to_nothing_once_all_is_old() -> None:
    window = Window(60)
    window.add(START, 10.0, 5.0, 1, 1)
    assert window.sums(START)[0] == 10
    assert window.sums(START + 61)[0] <= 10
    assert window.sums(START + 181) == pytest.approx((0, 0, 0, 0, 0))


@given(st.lists(st.integers(0, 30), max_size=120))
def test_a_flows_sums_are_those_of_its_first_occurrences(numbers: list[int]) -> None:
    flow, seen = Flow(START), set()
    for number in numbers:
        information, encoded = add(flow, number)
        assert (information, encoded) == ((0, 0) if number in seen else (10, 10))
        seen.add(number)
    assert flow.queries == len(numbers)
    assert flow.names == flow.encoded_names == len(seen)
    assert flow.leaked_bytes == flow.encoded_bytes == 10 * len(seen)
    assert all(window.sums(START)[0] == 10 * len(seen) for window in flow.windows)


def test_a_known_label_below_a_new_name_carries_only_which_one_it_is() -> None:
    flow = Flow(START)
    first = flow.add(START, (b"a", 1, -1), key_of(b"a.x"), (part(b"a"), part(b"x", 40.0)), 1.0)
    again = flow.add(START, (b"b", 1, -1), key_of(b"b.x"), (part(b"b"), part(b"x", 40.0)), 1.0)
    assert first == (15, 15)
    assert again[0] == pytest.approx((80 + math.log2(1 + 2)) / 8)
    assert again[1] == 10
    assert flow.add(START, (b"", 1, -1), key_of(b""), (), 1.0) == (0, 0), "the domain itself carries nothing"


def test_a_discount_divides_what_counts_and_not_what_left() -> None:
    flow = Flow(START)
    assert flow.add(START, (b"a", 1, -1), 1, (part(b"a"),), 20.0) == (10, 10)
    assert flow.leaked_bytes == flow.encoded_bytes == 10
    for window in flow.windows:
        assert tuple(window.sums(START)[:2]) == (0.5, 0.5)


def test_samples_are_bounded() -> None:
    flow = Flow(START)
    for number in range(100):
        add(flow, number)
    assert [name for name, _ in flow.samples] == [b"%d" % number for number in range(SAMPLES)]


def test_time_that_goes_backwards_is_no_crash() -> None:
    flow = Flow(START)
    add(flow, 1)
    add(flow, 2, START - 5000)
    assert flow.last_seen == START
    assert flow.leaked_bytes == 20


def test_memory_beyond_its_exact_part_is_a_filter_that_knows_all_it_saw() -> None:
    memory = Memory()
    keys = [key_of(b"%d" % number) for number in range(4 * EXACT_MAX)]
    new = [memory.add(key) for key in keys]
    assert all(new[:EXACT_MAX])
    assert memory.sketch is not None
    assert not memory.exact, "the exact part is given up"
    assert sum(new) > 0.98 * len(keys), "few new ones are overlooked"
    assert not any(memory.add(key) for key in keys), "none that was seen is new"


def test_a_tunnel_of_many_names_is_still_counted_in_the_sketch() -> None:
    flow = Flow(START)
    for number in range(3 * EXACT_MAX):
        add(flow, number)
    assert flow.leaked_bytes > 0.95 * 10 * 3 * EXACT_MAX


def test_the_cap_refuses_counts_and_evicts_no_evidence() -> None:
    flows = Flows(3)
    for name in ("a", "b", "c"):
        flow = flows.flow(START, "client", name)
        assert flow is not None
        add(flow, 1, bits=8 * EVIDENCE_BYTES if name == "b" else 8.0)
    assert flows.flow(START + 1, "client", "d") is None
    assert flows.refused == 1
    assert flows.flow(START + 1, "client", "a") is not None, "known ones go on"
    late = START + IDLE_S + 100
    assert flows.flow(late, "client", "d") is not None
    assert set(flows.flows) == {("client", "b"), ("client", "d")}


def test_a_flood_of_keys_is_refused_and_the_tunnel_stays() -> None:
    flows = Flows(100)
    tunnel = flows.flow(START, "client", "tunnel.example")
    assert tunnel is not None
    for number in range(50):
        add(tunnel, number)
    for number in range(10_000):
        flows.flow(START + number, "client", f"{number}.example")
    assert len(flows) <= 100
    assert flows.refused > 0
    assert flows.flow(START + 10_000, "client", "tunnel.example") is tunnel


def test_one_client_cannot_take_the_room_of_the_others() -> None:
    flows = Flows(8000)
    watched = flows.flow(START, "flooder", "tunnel.example")
    assert watched is not None
    for number in range(50):
        add(watched, number)
    for number in range(20_000):
        flows.flow(START + number / 1000, "flooder", f"{number}.example")
    assert flows.refused > 0
    assert len(flows) <= 8000 // 8
    assert flows.flow(START + 20, "somebody", "evil.example") is not None
    assert flows.flow(START + 120, "flooder", "later.example") is not None, "its oldest flows made room"
    assert flows.flow(START + 120, "flooder", "tunnel.example") is watched, "but none that holds evidence"


def test_a_clock_that_was_set_back_freezes_nothing() -> None:
    window = Window(3600)
    window.add(START + 400 * 86_400, 500.0, 500.0, 1, 1)
    window.add(START, 1.0, 0.0, 1, 0)
    assert window.sums(START + 3 * 3600)[0] == 0


def test_memory_of_a_loud_flow_does_not_fill_up() -> None:
    memory = Memory()
    new = [memory.add(key_of(b"%d" % number)) for number in range(150_000)]
    late = new[-20_000:]
    assert sum(late) > 0.85 * len(late), "what is new late is still seen as new"
    assert not any(memory.add(key_of(b"%d" % number)) for number in range(149_000, 150_000)), (
        "and what was just seen is not"
    )


def test_what_is_older_than_all_windows_goes_even_with_evidence() -> None:
    flows = Flows(1)
    flow = flows.flow(START, "client", "a")
    assert flow is not None
    add(flow, 1, bits=8000.0)
    assert flows.flow(START + WINDOWS_S[-1] - 10, "client", "b") is None
    assert flows.flow(START + WINDOWS_S[-1] + 100, "client", "b") is not None
    assert list(flows.flows) == [("client", "b")]


def carrier(flows: Flows, client: str, domain: str, names: int, ts: float = START) -> Mapping[str, Flow]:
    flow = flows.flow(ts, client, domain)
    assert flow is not None
    for number in range(names):
        add(flow, number, ts)
    return flows.carriers(client, domain, flow)


def test_a_domain_with_several_encoded_names_is_a_carrier_of_its_client() -> None:
    flows = Flows(1000)
    assert not carrier(flows, "client", "one-hash.example", SPREAD_NAMES - 1)
    for number in range(5):
        found = carrier(flows, "client", f"{number}.example", SPREAD_NAMES + 2)
    assert set(found) == {f"{number}.example" for number in range(5)}
    assert set(carrier(flows, "other", "0.example", SPREAD_NAMES)) == {"0.example"}


def test_a_clients_list_of_carriers_is_bounded_and_keeps_the_loudest() -> None:
    flows = Flows(1000)
    carrier(flows, "client", "loud.example", SPREAD_NAMES + 5)
    for number in range(SPREAD_DOMAINS + 20):
        found = carrier(flows, "client", f"{number}.example", SPREAD_NAMES)
    assert len(found) == SPREAD_DOMAINS
    assert "loud.example" in found


def test_what_is_forgotten_is_no_carrier() -> None:
    flows = Flows(1000)
    carrier(flows, "client", "a.example", SPREAD_NAMES)
    flows.forget("client", "a.example")
    assert not flows.flows
    assert set(carrier(flows, "client", "b.example", SPREAD_NAMES)) == {"b.example"}


def test_keys_are_the_same_in_every_process() -> None:
    assert key_of(b"www.example.com") == 0xB1133C35BAB1904A
