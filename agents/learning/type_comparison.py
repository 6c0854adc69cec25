"""Detector types side by side on the same rows: what each finds at the same share of false alarms, and what it costs.

A scene is one kind of rows: names, flow-hours, or images of flows. Every type learns from the same rows, its threshold
is set on the same others, and both are measured on rows that it has not seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.core.errors import TrainingError
from agents.core.protocols import Spec
from agents.core.types import QueryBatch, Sample
from agents.detection.runner import FlowDetector
from agents.learning.baseline import benign_sample, golden_names, golden_sessions, golden_traffic, sample_of
from agents.learning.loop.finite import hours_of
from agents.learning.loop.flow_hours import NUMBERS
from agents.learning.loop.flow_images import SLICES, image_rows, vector_rows
from agents.learning.run import TypeResult
from agents.scoring.features import extract
from agents.scoring.types.base import DECADES_MAX, OutlierScorer, Rows, tail
from agents.store.feedback.flow_hours import FlowHours

NAMES_MAX = 3_000
"""Names that a type learns from, and that its threshold is set on, each: enough to rank types, in seconds."""
HOURS_MIN = 400
"""Fewer flow-hours of this network are not learned from: those of the golden traffic take their place."""
CLOCK_ROWS = 1_000
"""Rows whose scoring is timed."""

_log = structlog.get_logger()

TypeParams = tuple[Spec[OutlierScorer], Mapping[str, Any]]
"""A detector type with its params."""


@dataclass(frozen=True)
class Scene:
    """Rows of one kind: to learn from, to set thresholds on, benign ones, and those of each tool, to measure on.

    places: of a row, side by side (agents.scoring.types.padim); 1 where a row is no image.
    """

    name: str
    learn: Rows
    calibrate: Rows
    benign: Rows
    tunnels: Mapping[str, Rows]
    places: int = 1


def compare_types(
    scenes: Sequence[Scene],
    types: Sequence[TypeParams],
    share: float,
    seed: int,
) -> tuple[TypeResult, ...]:
    """Each type with its params in each scene, with `share` of the calibration rows above the threshold."""
    return tuple(_measured(scene, spec, params, share, seed) for scene in scenes for spec, params in types)


def _measured(
    scene: Scene, spec: Spec[OutlierScorer], params: Mapping[str, Any], share: float, seed: int
) -> TypeResult:
    try:
        return _fitted_and_measured(scene, spec, params, share, seed)
    except TrainingError as error:
        return TypeResult(scene.name, spec.name, problem=str(error))
    except MemoryError:
        _log.error("type_not_compared", type=spec.name, scene=scene.name, error="out of memory")
        return TypeResult(scene.name, spec.name, problem="cannot train: out of memory")


def _fitted_and_measured(
    scene: Scene, spec: Spec[OutlierScorer], params: Mapping[str, Any], share: float, seed: int
) -> TypeResult:
    began = time.perf_counter()
    scorer = spec.factory({**params, "places": scene.places}).fit(scene.learn, seed)
    fit_s = time.perf_counter() - began
    knots, decades = tail(scorer.score(scene.calibrate))
    threshold = float(np.interp(min(-np.log10(share), DECADES_MAX), decades, knots))
    by_tool = {tool: float((scorer.score(rows) > threshold).mean()) for tool, rows in sorted(scene.tunnels.items())}
    return TypeResult(
        scene=scene.name,
        type=spec.name,
        false_alarms=float((scorer.score(scene.benign) > threshold).mean()),
        found=float(np.mean(list(by_tool.values()))),
        by_tool=by_tool,
        fit_s=fit_s,
        score_us=_clocked(scorer, scene.benign[:CLOCK_ROWS]),
    )


def _clocked(scorer: OutlierScorer, rows: Rows) -> float:
    """Microseconds a row: the fastest of three tries, since other processes disturb."""
    spent = []
    for _ in range(3):
        began = time.perf_counter()
        scorer.score(rows)
        spent.append(time.perf_counter() - began)
    return min(spent) / max(len(rows), 1) * 1e6


def name_scene(sample: Sample, seed: int) -> Scene:
    """A run's sample, shipped names for the threshold, golden names and golden tunnels to measure on."""
    sessions = golden_sessions()
    tools = sorted({_tool(session) for session in sessions})
    tunnels = {
        tool: extract([qname.lower() for name, one in sessions.items() if _tool(name) == tool for qname in one.qname])
        for tool in tools
    }
    draw = np.random.default_rng(seed)
    rows = np.sort(draw.permutation(len(sample))[:NAMES_MAX])
    calibrate = benign_sample(NAMES_MAX, seed + 1).features
    return Scene("names", sample.features[rows], calibrate, sample_of(golden_names()).features, tunnels)


def quiet_hours(rows: FlowHours) -> FlowHours:
    """Those that came no nearer to a limit than half of it: to be learned from as ordinary."""
    if not len(rows):
        return rows
    nearest = rows.numbers[:, [at for at, name in enumerate(NUMBERS) if name.startswith(("ratio_", "peak_"))]]
    kept = np.flatnonzero(nearest.max(axis=1, initial=0.0) < 0.5)
    return picked_hours(rows, kept.tolist())


def flow_scenes(own: FlowHours | None, fresh: Callable[[], FlowDetector], seed: int) -> list[Scene]:
    """Flow-hours and images of flows: this network's, or the golden traffic's; golden sessions to measure on.

    fresh: makes detectors that have seen nothing.
    """
    golden = flow_hours_of(fresh(), [golden_traffic()])
    sessions: dict[str, list[FlowHours]] = {}
    for name, batch in golden_sessions().items():
        sessions.setdefault(_tool(name), []).append(flow_hours_of(fresh(), [batch]))
    return scenes_of_flows(own if own is not None and len(own) >= HOURS_MIN else golden, golden, sessions, seed)


def scenes_of_flows(
    own: FlowHours, benign: FlowHours, tunnels: Mapping[str, Sequence[FlowHours]], seed: int
) -> list[Scene]:
    """Flow-hours, and images of flows. Half of `own` is learned from, by chance; the other half sets the threshold.

    Where `own` and `benign` are the same rows, a third each is learned from, sets the threshold, and is measured on.
    """
    scenes = []
    kinds: tuple[tuple[str, int, Callable[[FlowHours, NDArray[np.int64] | None], Rows]], ...] = (
        ("flow-hours", 1, lambda rows, chosen: vector_rows(rows)[slice(None) if chosen is None else chosen]),
        ("flow images", SLICES, lambda rows, chosen: image_rows(rows, chosen=chosen)),
    )
    order = np.random.default_rng(seed).permutation(len(own))
    order = order if own is benign else order[: 2 * NAMES_MAX]  # an image is large: of no more rows than are used
    for name, places, rows_of in kinds:
        odd = {tool: np.concatenate([rows_of(one, None) for one in each]) for tool, each in tunnels.items()}
        odd = {tool: rows for tool, rows in odd.items() if len(rows)}
        mine = rows_of(own, order)
        if own is benign:
            learn, calibrate, usual = (mine[part::3] for part in range(3))
        else:
            learn, calibrate, usual = mine[::2], mine[1::2], rows_of(benign, None)
        scenes.append(Scene(name, learn[:NAMES_MAX], calibrate[:NAMES_MAX], usual, odd, places))
    return scenes


def flow_hours_of(detector: FlowDetector, batches: Iterable[QueryBatch]) -> FlowHours:
    """The flow-hours of traffic in time order, which is not empty. detector: one that has seen nothing."""
    return joined_hours(list(hours_of(detector, batches)))


def picked_hours(rows: FlowHours, at: Sequence[int]) -> FlowHours:
    """The flow-hours at these places."""
    return FlowHours(
        schema=rows.schema,
        hour=rows.hour[at],
        client=[rows.client[row] for row in at],
        domain=[rows.domain[row] for row in at],
        names=[rows.names[row] for row in at],
        numbers=rows.numbers[at],
    )


def joined_hours(parts: Sequence[FlowHours]) -> FlowHours:
    """All flow-hours of parts of one schema, of which there is one at least."""
    return FlowHours(
        schema=parts[0].schema,
        hour=np.concatenate([one.hour for one in parts]),
        client=[client for one in parts for client in one.client],
        domain=[domain for one in parts for domain in one.domain],
        names=[names for one in parts for names in one.names],
        numbers=np.concatenate([one.numbers for one in parts]),
    )


def _tool(session: str) -> str:
    """The tool of a golden session, by its name: via-unbound-dns2tcp is dns2tcp."""
    return session.removeprefix("via-unbound-").partition("-")[0]
