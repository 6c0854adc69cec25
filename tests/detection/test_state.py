"""The kernels count and judge as plain Python does, compiled or not, in any batches."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agents.core import jit
from agents.detection.counting import seen_kernels
from agents.detection.counting.flow_kernels import CROWD_DOMAINS
from agents.detection.limits import evidence_of
from agents.detection.state import CLIENT, FLOW, NONE, ROOM_SIZE, Kind, Room, Told
from tests.support.judged import START, Judged, ask
from tests.support.patience import patient
from tests.support.plain_flow import Memory, Query
from tests.support.plain_state import Event, State
from tests.support.streams import STEPS, Step, steps_of, stream

UNHURRIED = settings(deadline=None)
"""The first call compiles."""
WITHIN = 1e-5
QUIET_S = 3600.0


def events_of(judged: Judged, said: Told, queries: list[Query], before: int) -> list[Event]:
    """What the kernels told of, in plain Python."""
    flows = judged.flows.state.flows
    found = []
    for event in said.events[: said.counts[0]]:
        if event["network"]:
            continue
        evidence = evidence_of(event["evidence"])
        sharing = event["sharing"].tolist() if evidence.kind in (Kind.SPREAD, Kind.SPREAD_FRESH) else []
        found.append(
            Event(
                query=before + int(event["row"]),
                client=queries[int(event["row"])].client,
                scattered=bool(flows[int(event["flow"])]["scattered"]),
                evidence=evidence,
                fresh=bool(event["fresh"]),
                secret=bool(event["secret"]),
                queries=int(event["queries"]),
                names=int(event["names"]),
                leaked=float(event["leaked"]),
                sharing=tuple(int(flows[row]["domain"]) for row in sharing if row != NONE),
            )
        )
    return found


def alike(found: object, expected: object) -> bool:
    """Equal, but for the last digits of numbers."""
    if isinstance(expected, float):
        return found == pytest.approx(expected, rel=WITHIN, abs=1e-9)
    if isinstance(expected, tuple | list):
        assert isinstance(found, tuple | list)
        return len(found) == len(expected) and all(map(alike, found, expected))
    if hasattr(expected, "__dataclass_fields__"):
        return all(alike(getattr(found, name), getattr(expected, name)) for name in expected.__dataclass_fields__)
    return found == expected


def compare(steps: list[Step], cuts: list[int], keys_max: int, client_max: int, factor: float) -> None:
    judge_both(stream(steps), cuts, keys_max, client_max, factor)


def pauses(queries: list[Query]) -> list[int]:
    """Where a batch must end for none to be longer than an incident's quiet, as the detector cuts them."""
    ends, first = [0], 0
    for at in range(len(queries)):
        times = [one.ts for one in queries[first : at + 1]]
        if max(times) - min(times) > QUIET_S:
            ends, first = [*ends, at], at
    return ends


def judge_both(queries: list[Query], cuts: list[int], keys_max: int, client_max: int, factor: float) -> None:
    judged, plain = Judged(keys_max, client_max, factor), State(keys_max, client_max, factor)
    ends = sorted({*(cut % len(queries) for cut in cuts), *pauses(queries), len(queries)} - {0})
    start = 0
    for end in ends:
        batch, events, peaks = queries[start:end], len(plain.events), len(plain.peaks)
        expected = [plain.judge(query) for query in batch]
        said = judged.tell(batch)
        assert alike([evidence_of(row) for row in said.evidence], expected)
        assert alike(events_of(judged, said, batch, start), plain.events[events:])
        found = [(start + r, bool(s), x) for r, s, x in said.peaks[: said.counts[2]].tolist()]
        assert alike(found, plain.peaks[peaks:])
        start = end
    assert judged.flows.refused == plain.refused
    assert len(judged.flows) == len(plain.flows) + len(plain.scattered)
    rows = {(client, key): judged.flows.find(client, key) for client, key in plain.flows}
    for key, flow in plain.flows.items():
        row = rows[key]
        assert row is not None
        assert alike(judged.flows.view(row), flow.view())
    clients = judged.flows.clients
    for client, flow in plain.scattered.items():
        row = int(judged.flows.state.clients[clients[client]]["scattered"])
        assert alike(judged.flows.view(row), flow.view())


CUTS = st.lists(st.integers(0, 1000), max_size=5)


@pytest.mark.slow
@UNHURRIED
@given(STEPS, CUTS, st.sampled_from([0.5, 1.0, 2.0]))
def test_kernels_judge_as_plain_python_does(steps: list[Step], cuts: list[int], factor: float) -> None:
    compare(steps, cuts, 1000, 125, factor)


def test_a_first_name_has_aged_where_the_clock_is_set_back_before_the_second() -> None:
    first, again, back = (500, 2788, 1, 1, 0, 0), (0, 0, 0, 0, 953, 0), (0, 0, 0, 0, 644, 0)
    compare([first, again, first, back, (254, 65536, 0, 1, 0, 0)], [], 1000, 1000, 1.0)


@UNHURRIED
@given(STEPS, CUTS, st.integers(6, 12), st.integers(2, 12))
def test_and_at_the_caps(steps: list[Step], cuts: list[int], keys_max: int, client_max: int) -> None:
    compare(steps, cuts, keys_max, min(client_max, keys_max), 1.0)


@pytest.mark.parametrize("seed", range(6))
def test_and_over_long_streams(seed: int) -> None:
    rng = random.Random(seed)
    compare(steps_of(seed, 1500), [rng.randrange(1500) for _ in range(4)], *((1000, 125), (30, 9))[seed % 2], 1.0)


def test_and_where_a_client_is_many() -> None:
    asked = [ask("www", START + n, domain=f"site{n}.example", encoded=False) for n in range(3 * CROWD_DOMAINS // 2)]
    asked += [ask(f"{n}", START + 2000 + n, domain=f"few{n % 9}.example") for n in range(200)]
    asked += [ask("once", START + 3000 + n, domain=f"away{n}.example") for n in range(60)]
    judge_both(asked, [700, 900, 1000], 2000, 2000, 1.0)


def test_and_where_nothing_changes_but_the_record_type() -> None:
    rng = random.Random(7)
    steps = [(0, 0, 0, 0 if number % 5 else 1, 2, rng.randrange(8, 28)) for number in range(600)]
    plain = State(1000, 125)
    for query in stream(steps):
        plain.judge(query)
    assert {event.evidence.kind for event in plain.events} == {Kind.CHOICE}
    compare(steps, [100, 300], 1000, 125, 1.0)


@pytest.mark.parametrize("domains", [2, 3, 6])
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_and_where_names_of_one_form_are_asked_below_several_domains(domains: int, factor: float) -> None:
    asked = [ask(n, START + 1500 * n, domain=f"d{n % domains}.example", bits=40.0, form=7) for n in range(120)]
    plain = State(1000, 125, factor)
    for query in asked:
        plain.judge(query)
    kinds = {event.evidence.kind for event in plain.events}
    assert (Kind.SIBLINGS in kinds) == (domains > 2)
    judge_both(asked, [40, 70], 1000, 125, factor)


def kernel_memory(words: int) -> tuple[np.void, np.void, NDArray[np.uint64], NDArray[np.int64]]:
    flow = np.zeros(1, FLOW)[0]
    flow["seen_at"] = flow["older_at"] = NONE
    room = np.zeros(ROOM_SIZE, np.int64)
    room[Room.FREE_KEYS :], room[[Room.POOL_MAX, Room.SHARE]] = NONE, words
    return flow, np.zeros(1, CLIENT)[0], np.zeros(words, np.uint64), room


@UNHURRIED
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 20), max_size=300), st.integers(1, 40))
def test_a_memory_remembers_as_the_plain_one_does(keys: list[int], times: int) -> None:
    """Keys in the neighbourhood of each other, too, so that a filter and its doubling are reached."""
    flow, client, pool, room = kernel_memory(4 << seen_kernels.SKETCH)
    plain = Memory()
    with np.errstate(over="ignore"):
        for shift in range(times):
            for key in keys:
                key = (key + shift * 0x9E3779B97F4A7C15) % 2**64
                assert seen_kernels.remember(flow, client, pool, room, np.uint64(key)) == plain.add(key)


def test_and_through_generations_of_its_filter() -> None:
    flow, client, pool, room = kernel_memory(8 << seen_kernels.SKETCH)
    plain, rng = Memory(), random.Random(3)
    recent: list[int] = []
    for _ in range(70_000):
        key = rng.choice(recent) if recent and rng.random() < 0.2 else rng.randrange(2**64)
        recent = [*recent[-50:], key]
        assert seen_kernels.remember(flow, client, pool, room, np.uint64(key)) == plain.add(key)
    assert plain.older, "two generations were used"


@UNHURRIED
@given(
    st.lists(st.tuples(st.integers(seen_kernels.SIZE_MIN, seen_kernels.SKETCH), st.booleans()), max_size=60),
    st.integers(0, 300),
)
def test_pieces_of_the_pool_lie_apart_and_the_smallest_are_set_aside(
    steps: list[tuple[int, bool]], keys_max: int
) -> None:
    _, _, pool, room = kernel_memory(4 << seen_kernels.SKETCH)
    room[Room.KEYS_MAX] = keys_max
    held: list[tuple[int, int]] = []
    for size, back in steps:
        if back and held:
            seen_kernels.give_piece(pool, room, *held.pop(size % len(held)))
        elif (at := seen_kernels.take_piece(pool, room, size)) != NONE:
            assert not pool[at : at + (1 << size)].any()
            pool[at : at + (1 << size)] = 1
            held.append((at, size))
    small = sum(size == seen_kernels.SIZE_MIN for _, size in held)
    held += [
        (seen_kernels.take_piece(pool, room, seen_kernels.SIZE_MIN), seen_kernels.SIZE_MIN)
        for _ in range(keys_max - small)
    ]
    places = sorted((at, at + (1 << size)) for at, size in held)
    assert all(at >= 0 and end <= len(pool) for at, end in places)
    assert all(end <= at for (_, end), (at, _) in pairwise(places))


SHOWN = """
import sys, numpy as np
from agents.core import jit
from tests.support.judged import START, Judged, ask
from tests.support.streams import steps_of, stream
judged = Judged(40, 12)
queries = stream(steps_of(11, 1200))
said = [judged.tell(queries[at:at + 300]) for at in range(0, len(queries), 300)]
flows = judged.flows.state.flows[: judged.flows.state.room[0]]
np.savez(
    sys.argv[1],
    compiled=jit.COMPILED,
    flows=flows,
    pool=judged.flows.state.pool,
    windows=judged.flows.state.windows,
    room=judged.flows.state.room,
    evidence=np.concatenate([one.evidence for one in said]),
    events=np.concatenate([one.events[: one.counts[0]] for one in said]),
    peaks=np.concatenate([one.peaks[: one.counts[2]] for one in said]),
)
"""


def leaves(array: NDArray[Any]) -> list[NDArray[Any]]:
    """The plain columns of a structured array."""
    if array.dtype.names is None:
        return [array]
    return [leaf for name in array.dtype.names for leaf in leaves(array[name])]


@pytest.mark.slow
@pytest.mark.skipif(not jit.COMPILED, reason="kernels are off")
def test_without_kernels_it_is_the_same(tmp_path: Path) -> None:
    found = {}
    for mode in ("on", "off"):
        path = tmp_path / f"{mode}.npz"
        subprocess.run(
            [sys.executable, "-c", SHOWN, str(path)],
            env={**os.environ, "COMPILED": mode},
            check=True,
            timeout=patient(100),
        )
        found[mode] = dict(np.load(path))
    assert (bool(found["on"].pop("compiled")), bool(found["off"].pop("compiled"))) == (True, False)
    for name, array in found["off"].items():
        for one, other in zip(leaves(array), leaves(found["on"][name]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6 if one.dtype.kind == "f" else 0, atol=0, err_msg=name)
    assert len(found["on"]["events"]) > 50 and found["on"]["room"][Room.REFUSED] > 0, (
        "the stream reaches limits and caps"
    )


QUIET = """
from agents.detection import snapshot
from agents.detection.flows import Flows
from agents.detection.limits import Scale
from agents.learning.baseline import asked_batch
from tests.support.detecting import fresh_detector
from tests.support.detecting import shipped_model
fresh_detector(shipped_model(), Scale()).detect(asked_batch([1e9], ["192.0.2.1"], ["a1b2c3d4e5.example.com"], [16]))
flows, other = Flows(100, (2**64 - 1, 3)), Flows(100)
for n in range(40):
    flows.watch(1e9, f"192.0.2.{n}", 2**64 - 1 - n)
    assert flows.find(f"192.0.2.{n}", 2**64 - 1 - n) is not None
flows.forget(flows.find("192.0.2.7", 2**64 - 8))
assert snapshot.load_flows(snapshot.dump_flows(flows), other) == 39
"""


@pytest.mark.slow
def test_without_kernels_there_is_no_warning() -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "-c", QUIET],
        env={**os.environ, "COMPILED": "off"},
        check=True,
        timeout=patient(60),
    )
