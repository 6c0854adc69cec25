"""Drills where several detectors judge: each takes a drill's rows out of its batches, and passes them on to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.core.columns import packed
from agents.core.types import QueryBatch, Row, Verdicts
from agents.dns.drill import DRILL_REQUEST, DRILL_WIRE, drill_names, drill_of, requested
from agents.runtime.drill.drill import COPIES_MAX, KEPT_DRILLS, part_of

RELAYED = ("ts", "client", "qname", "qtype", "qlen", "rcode", "ancount", "rlen", "ttl_min", "rtt_ms", "ans_types")
"""Columns that are passed on: those of a Row."""


class DrillRelay:
    """Takes the place of a Drill in a detector; the Drill itself runs in another process. state_dir: where it asks."""

    def __init__(self, state_dir: Path) -> None:
        self._request = state_dir / DRILL_REQUEST
        self._expected: dict[str, dict[bytes, int]] = {}  # of the last drills, by name: how often it may still come
        self._rows: list[list[Any]] = []

    alive, expects = True, True

    def start(self, keep: Callable[[Verdicts], bool]) -> None:
        """Nothing runs by itself."""

    def close(self) -> None:
        """Nothing runs by itself."""

    def state(self) -> Mapping[str, Any]:
        """Nothing: the process that drills says how it went."""
        return {}

    def split(self, batch: QueryBatch) -> QueryBatch:
        """The batch without rows of drills."""
        names = packed(batch.qname)
        if DRILL_WIRE not in names.data.lower():
            return batch
        drilled = np.array([self._is_expected(bytes(name).lower()) for name in names], np.bool_)
        if not drilled.any():
            return batch
        taken = part_of(batch, drilled)
        columns = [getattr(taken, name) for name in RELAYED]
        self._rows += [
            [one.hex() if isinstance(one, bytes) else one for one in row]
            for row in zip(*(c.tolist() if isinstance(c, np.ndarray) else c for c in columns), strict=True)
        ]
        return part_of(batch, ~drilled)

    def take(self) -> list[list[Any]]:
        """Rows since the last call, as JSON values."""
        rows, self._rows = self._rows, []
        return rows

    def _is_expected(self, name: bytes) -> bool:
        found = drill_of(name)
        if found is None:
            return False
        drill, intake = found
        if drill not in self._expected and drill == requested(self._request):
            self._expected[drill] = {}
            for old in list(self._expected)[:-KEPT_DRILLS]:
                del self._expected[old]
        left = self._expected.get(drill)
        if left is None:
            return False
        if name not in left and name in drill_names(drill, intake):
            left[name] = COPIES_MAX
        if left.get(name, 0) <= 0:
            return False
        left[name] -= 1
        return True


def relayed_rows(rows: Sequence[Sequence[Any]]) -> list[Row]:
    """The rows that a relay passed on."""
    return [(ts, client, bytes.fromhex(qname), *rest) for ts, client, qname, *rest in rows]
