"""Detector types side by side: the same rows, thresholds and tools for all; images of flows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.core.errors import TrainingError
from agents.core.protocols import Spec
from agents.detection.limits import Scale
from agents.learning.baseline import benign_sample, golden_sessions, golden_traffic
from agents.learning.loop.flow_hours import NUMBERS
from agents.learning.loop.flow_images import image_rows, vector_rows
from agents.learning.type_comparison import (
    HOURS_MIN,
    Scene,
    TypeParams,
    compare_types,
    flow_hours_of,
    flow_scenes,
    name_scene,
    quiet_hours,
)
from agents.scoring.model import Model
from agents.scoring.types.base import OutlierScorer, Rows, Values
from tests.support.detecting import fresh_detector
from tests.support.flow_hours import HOUR, flow_hours


class Length(OutlierScorer):
    """The first column is the score."""

    algorithm = "length"
    shapes: Mapping[str, tuple[str, int]] = {}  # type: ignore[misc]

    def score(self, rows: Rows) -> Values:
        return rows[:, 0].astype(np.float64)

    def _fitted(self, rows: Rows, seed: int) -> dict[str, NDArray[Any]]:
        return {}

    def _check(self, width: int) -> None:
        raise AssertionError


class Missing(Length):
    def _fitted(self, rows: Rows, seed: int) -> dict[str, NDArray[Any]]:
        raise TrainingError("cannot train: the extra is not installed")


def column(*values: float) -> Rows:
    return np.array(values, np.float32)[:, None]


def test_a_threshold_leaves_the_share_above_and_everybody_has_the_same() -> None:
    calibrate = np.arange(1000, dtype=np.float32)[:, None]
    scene = Scene(
        "names", column(1, 2), calibrate, column(*[0] * 90, *[2000] * 10), {"a": column(990, 1), "b": column(5000)}
    )
    specs: list[TypeParams] = [
        (Spec("length", "length", (), Length), {}),
        (Spec("missing", "missing", (), Missing), {}),
    ]
    one, missing = compare_types([scene], specs, 0.05, 1)
    assert one.by_tool == {"a": 0.5, "b": 1.0}
    found = [one.false_alarms, one.found, one.missed, one.accuracy]
    assert found == pytest.approx([0.1, 0.75, 0.25, (0.75 + 0.9) / 2])
    assert one.score_us > 0
    assert (missing.type, missing.problem) == ("missing", "cannot train: the extra is not installed")


def test_names_of_a_run_are_one_scene() -> None:
    scene = name_scene(benign_sample(500, 3), 7)
    assert len(scene.learn) == 500
    assert sorted(scene.tunnels) == ["dns2tcp", "iodine"]
    assert len({rows.shape[1] for rows in (scene.learn, scene.calibrate, scene.benign, *scene.tunnels.values())}) == 1
    again = name_scene(benign_sample(500, 3), 7)
    assert np.array_equal(scene.learn, again.learn)


def test_an_image_has_an_hour_a_slice_and_zeros_where_nobody_asked() -> None:
    rows = flow_hours(["a.com"] * 3 + ["b.com"], hour=[HOUR, HOUR + 1, HOUR + 3, HOUR + 3])
    rows.numbers[:, 0] = [1, 3, 7, 15]
    images = image_rows(rows, slices=4).reshape(4, 4, len(NUMBERS))
    log = np.log1p([1, 3, 7, 15]).astype(np.float32)
    assert images[:, :, 0].tolist() == [
        [0, 0, 0, log[0]],
        [0, 0, log[0], log[1]],
        [log[0], log[1], 0, log[2]],
        [0, 0, 0, log[3]],
    ]
    assert np.array_equal(images[:, -1], vector_rows(rows))


def test_flow_hours_of_traffic_are_those_of_each_hour(model: Model) -> None:
    session = next(iter(golden_sessions().values()))
    found = flow_hours_of(fresh_detector(model, Scale()), [session])
    assert sum(found.numbers[:, 0]) == len(session)
    whole = golden_traffic()
    day = flow_hours_of(fresh_detector(model, Scale()), [whole])
    assert 0.8 * len(whole) < day.numbers[:, 0].sum() <= len(whole), "a name without subdomain has no flow"
    assert len(set(day.hour.tolist())) == 24 + (whole.ts[0] % 3600 > 0)
    assert len(day.hour) == len(day.client) == len(day.domain) == len(day.numbers)


def test_what_came_near_a_limit_is_not_learned_from() -> None:
    rows = flow_hours(["a.com", "b.com", "c.com"])
    rows.numbers[:, NUMBERS.index("ratio_encoded")] = [0.1, 0.9, 0.0]
    rows.numbers[:, NUMBERS.index("peak_today")] = [0.1, 0.0, 2.0]
    assert list(quiet_hours(rows).domain) == ["a.com"]
    assert len(quiet_hours(flow_hours([]))) == 0


@pytest.mark.parametrize("count", [0, HOURS_MIN])
def test_this_networks_flow_hours_are_learned_from_where_there_are_enough(count: int, model: Model) -> None:
    own = flow_hours([f"d{number}.com" for number in range(count)], queries=3.0)
    vectors, images = flow_scenes(own, lambda: fresh_detector(model, Scale()), 1)
    assert (vectors.name, images.name, images.places) == ("flow-hours", "flow images", 7)
    assert images.learn.shape[1] == 7 * vectors.learn.shape[1]
    assert (len(vectors.learn) == HOURS_MIN // 2) == bool(count)
    parts = [{row.tobytes() for row in rows} for rows in (images.learn, images.benign)]
    assert len(vectors.benign) > 100
    assert len(parts[0]) > 1 or count
