"""Windows that survive a restart judge as if there had been none."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from agents.core.compression import zstd
from agents.core.npz import FormatError
from agents.core.types import Incident, QueryBatch
from agents.detection import snapshot
from agents.detection.counting.flow_kernels import CROWD_DOMAINS, dismiss_carriers
from agents.detection.counting.seen_kernels import EXACT_MAX
from agents.detection.flows import Flow, Flows
from agents.detection.limits import Scale, evidence_of
from agents.detection.state import FLOW, FLOW_SINCE, OLD_SUMS, OLD_WINDOWS, WINDOWS
from agents.dns.name import from_text
from agents.learning.baseline import asked_batch, golden_sessions, model_bytes
from agents.scoring.model import Model
from tests.support.detecting import fresh_detector
from tests.support.judged import Judged, ask
from tests.support.siphash import siphash
from tests.support.streams import STEPS, Step, stream

UNHURRIED = settings(deadline=None)
SHORT_LAYOUT = "796027074"
"""What files have as their layout that were written before answers were hashed."""


def halves(batch: QueryBatch) -> tuple[QueryBatch, QueryBatch]:
    middle = len(batch) // 2
    return _part(batch, slice(0, middle)), _part(batch, slice(middle, None))


def _part(batch: QueryBatch, rows: slice) -> QueryBatch:
    return QueryBatch(**{name: getattr(batch, name)[rows] for name in QueryBatch.__dataclass_fields__})


def found(incidents: tuple[Incident, ...]) -> list[tuple[float, int, float]]:
    return [(one.detected_at, one.queries_before_detection, one.bytes_before_detection) for one in incidents]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.from_bytes(model_bytes())


def slow_session() -> QueryBatch:
    """Twenty minutes apart: 40 encoded names over 13 hours, found by a long window alone."""
    rng = np.random.default_rng(5)
    names = [rng.bytes(10).hex() + ".slow.test" for _ in range(60)]
    return asked_batch([1_700_000_000 + 1200.0 * i for i in range(60)], ["192.0.2.1"] * 60, names, [1] * 60)


@pytest.mark.parametrize("session", [slow_session(), *list(golden_sessions().values())[:3]])
def test_a_restart_in_the_middle_changes_nothing(model: Model, session: QueryBatch) -> None:
    whole = fresh_detector(model, Scale())
    expected = found(whole.detect(session).incidents)
    first, second = halves(session)
    before = fresh_detector(model, Scale())
    early = before.detect(first).incidents
    after = fresh_detector(model, Scale())
    assert snapshot.load_flows(snapshot.dump_flows(before.flows), after.flows) == len(before.flows)
    after.restore(early)
    late = after.detect(second).incidents
    assert expected
    assert found(early or late) == expected


def flow_of(flows: Flows, client: str, domain: str) -> Flow:
    row = flows.find(client, siphash(from_text(domain), flows.key))
    assert row is not None
    return flows.view(row)


def loud(count: int) -> QueryBatch:
    rng = np.random.default_rng(6)
    names = [rng.bytes(8).hex() + ".loud.test" for _ in range(count)]
    return asked_batch([1e9 + i for i in range(count)], ["192.0.2.1"] * count, names, [1] * count)


def test_the_filter_of_a_loud_flow_survives(model: Model) -> None:
    session = loud(EXACT_MAX + 200)
    before, after = fresh_detector(model, Scale()), fresh_detector(model, Scale())
    before.detect(session)
    snapshot.load_flows(snapshot.dump_flows(before.flows), after.flows)
    known = flow_of(before.flows, "192.0.2.1", "loud.test")
    assert flow_of(after.flows, "192.0.2.1", "loud.test") == known
    after.detect(session)
    again = flow_of(after.flows, "192.0.2.1", "loud.test")
    assert (again.names, again.leaked_bytes) == (known.names, known.leaked_bytes), "none of it is new"
    assert again.queries == 2 * known.queries


@pytest.mark.slow
@UNHURRIED
@given(STEPS, STEPS)
def test_after_any_restart_flows_and_evidence_are_the_same(early: list[Step], late: list[Step]) -> None:
    whole, queries = Judged(), stream([*early, *late])
    whole.tell(queries[: len(early)])
    restored = Judged()
    assert snapshot.load_flows(snapshot.dump_flows(whole.flows), restored.flows) == len(whole.flows)
    snapshot.load_flows(snapshot.dump_flows(whole.flows.network), restored.flows.network)
    restored.flows.network.state.askers[:] = whole.flows.network.state.askers  # found anew as clients ask
    for one, other in ((restored.flows, whole.flows), (restored.flows.network, whole.flows.network)):
        for name in ("followers", "heard", "familiar", "siblings", "sibling_windows"):
            getattr(one.state, name)[:] = getattr(other.state, name)  # learnt anew as clients ask
    whole.flows.network.state.flows["watched"] = 0
    whole.flows.state.flows["watched"] = 0  # incidents are kept apart, and watch again what is theirs
    for flows in (whole.flows, whole.flows.network):
        dismiss_carriers(flows.state)
    expected, found = whole.tell(queries[len(early) :]), restored.tell(queries[len(early) :])
    assert found.counts.tolist() == expected.counts.tolist()
    for one, other in zip(found.evidence, expected.evidence, strict=True):
        assert evidence_of(one) == evidence_of(other)
    assert {(q.client, q.domain) for q in queries if restored.flows.find(q.client, q.domain) is not None} == {
        (q.client, q.domain) for q in queries if whole.flows.find(q.client, q.domain) is not None
    }
    for query in queries:
        row, other_row = (judged.flows.find(query.client, query.domain) for judged in (whole, restored))
        if row is not None and other_row is not None:
            assert whole.flows.view(row) == restored.flows.view(other_row)


def test_a_client_that_stands_for_many_is_the_same_after_a_restart() -> None:
    whole, restored = Judged(10_000, 10_000), Judged(10_000, 10_000)
    whole.tell([ask("www", domain=f"site{n}.com", encoded=False, bits=8.0) for n in range(3 * CROWD_DOMAINS)])
    snapshot.load_flows(snapshot.dump_flows(whole.flows), restored.flows)
    several = [ask(i, domain=f"{n}.com", bits=64.0) for n in range(12) for i in range(5)]
    assert restored.ask(*several) == whole.ask(*several)
    assert restored.ask(*several) != Judged().ask(*several)


def test_less_room_takes_those_that_leaked_most_and_their_clients() -> None:
    before, after = Judged(), Judged(5)
    for number in range(300):
        before.ask(ask("a", domain=f"{number}.com", client=f"192.0.2.{number}", bits=8.0 * (number + 1), encoded=False))
    assert snapshot.load_flows(snapshot.dump_flows(before.flows), after.flows) == 5
    known = [number for number in range(300) if after.knows(f"192.0.2.{number}", f"{number}.com")]
    assert known == [297, 298, 299], "the sums over domains of two of the clients took the other places"
    after.ask(ask("b", domain="299.com", client="192.0.2.299"))
    assert after.view("192.0.2.299", "299.com").names == 2
    assert len(after.flows) == 5
    assert after.flows.state.clients["held"].sum() == 5


DEEP = b"[" * 200_000 + b"\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing",
        zlib.compress(b"{}"),
        zlib.compress(b"{}\n"),
        zlib.compress(json.dumps({"format": 99}).encode()),
        zlib.compress(b"[1"),
        zlib.compress(b"[]\n"),
        zlib.compress(DEEP),
    ],
)
def test_a_damaged_file_is_refused_and_nothing_half_taken(data: bytes) -> None:
    refused(data)


def unpacked(data: bytes) -> tuple[dict[str, Any], bytes]:
    line, _, body = zstd.decompress(data).partition(b"\n")
    return json.loads(line), body


def repacked(head: dict[str, Any], body: bytes) -> bytes:
    return zstd.compress(json.dumps(head).encode() + b"\n" + body)


def refused(data: bytes) -> None:
    """The file is refused, and the flows are as they were: new ones, that can be used."""
    judged = Judged(10)
    with pytest.raises(FormatError):
        snapshot.load_flows(data, judged.flows)
    assert len(judged.flows) == 0 and judged.flows.key == (0, 0)
    assert not judged.flows.clients and not judged.flows.samples
    judged.ask(ask("a"))
    assert judged.view().names == 1


@pytest.fixture(scope="module")
def dumped(model: Model) -> bytes:
    detector = fresh_detector(model, Scale())
    detector.detect(slow_session())
    detector.detect(loud(EXACT_MAX + 100))
    return snapshot.dump_flows(detector.flows)


def test_a_cut_file_is_refused(dumped: bytes) -> None:
    for end in range(0, len(dumped), max(len(dumped) // 60, 1)):
        refused(dumped[:end])


def test_a_file_with_a_byte_changed_is_refused(dumped: bytes) -> None:
    for at in range(2, len(dumped), max(len(dumped) // 60, 1)):
        refused(dumped[:at] + bytes([dumped[at] ^ 0x55]) + dumped[at + 1 :])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", None), ("layout", "0"), ("key", [1]), ("key", [-1, 0]), ("key", ["a", 0]), ("key", 5),
        ("lengths", {}), ("lengths", []), ("clients", []), ("clients", 5), ("format", 5), ("format", 7),
        ("pasts", None), ("pasts", [[0, [1]]]), ("pasts", [[0, [*[0] * 8, [["a", 1]], 1, None]]]),
    ],
)  # fmt: skip
def test_a_whole_file_of_wrong_content_is_refused(dumped: bytes, field: str, value: object) -> None:
    head, body = unpacked(dumped)
    refused(repacked(head | {field: value}, body))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *(("flows", 1), ("windows", -1), ("details", 1), ("keys", -1), ("flows", -5), ("days", 3)),
        *(("sample_counts", 1), ("sample_sizes", -1), ("sample_qtypes", 1), ("sample_bytes", -2)),
    ],
)
def test_lengths_that_do_not_fit_are_refused(dumped: bytes, name: str, change: int) -> None:
    head, body = unpacked(dumped)
    head["lengths"][name] += change
    refused(repacked(head, body))


@pytest.mark.parametrize("name", ["sample_counts", "sample_sizes"])
def test_samples_that_do_not_fit_their_numbers_are_refused(dumped: bytes, name: str) -> None:
    head, body = unpacked(dumped)
    before = list(snapshot.ARRAYS)[: list(snapshot.ARRAYS).index(name)]
    at = sum(head["lengths"][one] * snapshot.ARRAYS[one].itemsize for one in before)
    refused(repacked(head, body[:at] + bytes([body[at] + 1]) + body[at + 1 :]))


def test_samples_come_back_as_they_were(model: Model) -> None:
    before, after = fresh_detector(model, Scale()), fresh_detector(model, Scale())
    for session in (slow_session(), *golden_sessions().values()):
        before.detect(session)
    snapshot.load_flows(snapshot.dump_flows(before.flows), after.flows)
    assert sorted(before.flows.samples.values()) == sorted(after.flows.samples.values()) != []


@pytest.mark.slow
def test_windows_of_before_answers_were_hashed_are_read(dumped: bytes) -> None:
    head, body = unpacked(dumped)
    count = head["lengths"]["flows"]
    flows = np.frombuffer(body[: count * FLOW.itemsize], FLOW)
    end = flows.nbytes + head["lengths"]["windows"] * WINDOWS.itemsize
    windows = np.frombuffer(body[flows.nbytes : end], WINDOWS)
    short, less = np.zeros(count, snapshot.SHORT_FLOW), np.zeros(len(windows), OLD_WINDOWS)
    for name in snapshot.SHORT_FLOW.names or ():
        short[name] = flows[name][:, :OLD_SUMS] if name == "single" else flows[name]
    for name in OLD_WINDOWS.names or ():
        less[name] = windows[name] if name == "bucket" else windows[name][:, :, :OLD_SUMS]
    assert set(FLOW.names or ()) - set(snapshot.SHORT_FLOW.names or ()) == set(FLOW_SINCE)
    before, now = Flows(1000), Flows(1000)
    data = repacked(head | {"layout": SHORT_LAYOUT}, short.tobytes() + less.tobytes() + body[end:])
    assert snapshot.load_flows(data, before) == snapshot.load_flows(dumped, now) == count > 0
    assert [before.view(row) for row in range(count)] == [now.view(row) for row in range(count)]
    assert not before.state.flows["first_answer"].any()
    assert len(windows) > 0
    was, is_ = (flows.state.windows[flows.state.flows["windows"][:count]] for flows in (before, now))
    assert (was["now"][:, :, :OLD_SUMS] == is_["now"][:, :, :OLD_SUMS]).all()
    assert not was["now"][:, :, OLD_SUMS:].any()
