"""Windows that survive a restart judge as if there had been none."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest

from agents import snapshot
from agents.flows import Flows
from agents.model import Model
from agents.policy import Scale
from agents.seen import EXACT_MAX
from agents.shipped import batch_of, golden_sessions, model_bytes
from agents.types import Incident, QueryBatch
from agents.validation import fresh_detector


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
    return batch_of([1_700_000_000 + 1200.0 * i for i in range(60)], ["192.0.2.1"] * 60, names, [1] * 60)


@pytest.mark.parametrize("session", [slow_session(), *list(golden_sessions().values())[:3]])
def test_a_restart_in_the_middle_changes_nothing(model: Model, session: QueryBatch) -> None:
    whole = fresh_detector(model, Scale())
    expected = found(whole.detect(session).incidents)
    first, second = halves(session)
    before = fresh_detector(model, Scale())
    early = before.detect(first).incidents
    after = fresh_detector(model, Scale())
    assert snapshot.load(snapshot.dump(before.flows), after.flows) == len(before.flows)
    after.incidents.restore(early)
    late = after.detect(second).incidents
    assert expected
    assert found(early or late) == expected


def test_the_sketch_of_a_loud_flow_survives(model: Model) -> None:
    rng = np.random.default_rng(6)
    count = EXACT_MAX + 200
    names = [rng.bytes(8).hex() + ".loud.test" for _ in range(count)]
    batch = batch_of([1e9 + i for i in range(count)], ["192.0.2.1"] * count, names, [1] * count)
    before = fresh_detector(model, Scale())
    before.detect(batch)
    flows = Flows(10)
    snapshot.load(snapshot.dump(before.flows), flows)
    kept, known = flows.flows["192.0.2.1", "loud.test"], before.flows.flows["192.0.2.1", "loud.test"]
    assert kept.memory.sketch == known.memory.sketch is not None
    assert kept.leaked_bytes == known.leaked_bytes


@pytest.mark.parametrize(
    "data",
    [b"", b"nothing", zlib.compress(b"{}"), zlib.compress(json.dumps({"format": 99}).encode()), zlib.compress(b"[1")],
)
def test_a_damaged_file_is_refused_and_nothing_half_taken(data: bytes) -> None:
    flows = Flows(10)
    with pytest.raises(ValueError):
        snapshot.load(data, flows)
    assert not flows.flows


def test_a_cut_file_is_refused(model: Model) -> None:
    detector = fresh_detector(model, Scale())
    detector.detect(slow_session())
    data = snapshot.dump(detector.flows)
    for end in range(0, len(data), 97):
        with pytest.raises(ValueError):
            snapshot.load(data[:end], Flows(10))
