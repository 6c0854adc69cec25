"""Flow-hours of the golden sessions and the golden traffic: what the online learner knows before anybody labels.

They are stored as labels, of a schema of their own (GOLDEN_SCHEMA), so that they are counted and shown as any other,
and made once: computing them takes seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agents.core.types import QueryBatch
from agents.detection.detector import TunnelDetector
from agents.detection.limits import Scale
from agents.learning.baseline import golden_sessions, golden_traffic, model_bytes
from agents.learning.loop.finite import hours_of
from agents.learning.loop.flow_hours import SCHEMA
from agents.scoring.model import Model
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.store.feedback.labels import Label, LabelStore
from agents.store.feedback.tables import LabelOrigin
from agents.store.sql import Database

GOLDEN_SCHEMA = -SCHEMA
"""Of stored golden flow-hours: never read together with what was seen here."""
GOLDEN_CLIENT = "golden"
GOLDEN_FLOWS_MAX = 65_536
"""Flows that a replay of golden queries watches at once: ten times those they have, so that none is forgotten."""
GOLDEN_QUIET_S = 3600.0
"""Seconds without queries after which an incident of such a replay is closed."""
CUTS = (10, 20, 50)
"""A golden session gives flow-hours after so many queries, too: most tunnels are slower than those."""


@lru_cache(maxsize=1)
def _shipped_model() -> Model:
    return Model.from_bytes(model_bytes())


def golden_detector() -> TunnelDetector:
    """A detector that has seen nothing, to replay golden queries with: of the shipped model and of fixed bounds.

    What it says depends on the release alone, not on settings, so it can be stored and compared between networks.
    """
    return TunnelDetector(_shipped_model(), GOLDEN_FLOWS_MAX, GOLDEN_QUIET_S, Scale())


@lru_cache(maxsize=1)
def golden_flow_hours() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Numbers of n golden flow-hours, and which of them are a tunnel's. Shapes (n, 35) and (n,)."""

    def numbers(traffic: QueryBatch, cuts: Sequence[int] = ()) -> list[NDArray[np.float32]]:
        return [rows.numbers for rows in hours_of(golden_detector(), [traffic], cuts)]

    tunnels = [rows for session in golden_sessions().values() for rows in numbers(session, CUTS)]
    benign = numbers(golden_traffic())
    counts = [sum(map(len, some)) for some in (tunnels, benign)]
    return np.concatenate([*tunnels, *benign]), np.repeat([True, False], counts)


def stored_golden(store: Database, now: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The golden flow-hours as they are stored; where they are not, or are those of another release, they are written.

    now: when they are labelled, Unix seconds. Shapes as of golden_flow_hours. Raises StoreError.
    """
    wanted = golden_domain()
    found = LabelStore(store).labelled(GOLDEN_SCHEMA)
    if len(found) and set(found.domain) == {wanted}:
        return found.numbers, found.tunnel
    numbers, tunnel = golden_flow_hours()
    count = len(tunnel)
    hours, names = np.arange(count, dtype=np.int64), [()] * count
    said = [str(Label.TUNNEL if one else Label.BENIGN) for one in tunnel.tolist()]
    made = FlowHours(GOLDEN_SCHEMA, hours, [GOLDEN_CLIENT] * count, [wanted] * count, names, numbers)
    FlowHourStore(store).replace(made, said, str(LabelOrigin.GOLDEN), now)
    return numbers, tunnel


@lru_cache(maxsize=1)
def golden_domain() -> str:
    """What stored golden flow-hours lie below: the hash of what they are made of, so that a release brings its own."""
    made_of = hashlib.sha256(model_bytes() + repr((CUTS, SCHEMA)).encode())
    for name, session in sorted(golden_sessions().items()):
        made_of.update(name.encode() + b"".join(session.qname))
    made_of.update(b"".join(golden_traffic().qname))
    return f"golden-{made_of.hexdigest()[:16]}"
