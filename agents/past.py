"""What flows had shown when their last incident was over: the next one tells of itself alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from agents.kernels.state import Asked
from agents.windows import Flow

NUMBERS = [one.name for one in fields(Flow) if one.name not in ("samples", "qtypes")]
MIX = np.uint64(0x9E3779B97F4A7C15)
"""Spreads client rows over 64 bits, so that a client and a domain are one number."""


@dataclass(slots=True)
class Past:
    """What a flow had shown when its last incident was over."""

    flow: Flow  # as it was then, without samples
    incidents: int  # that are over
    begun: float | None = None  # its first query since, Unix seconds; None = none is known

    def since(self, flow: Flow) -> Flow:
        """What a flow showed since; its samples are the first ones still."""
        was = self.flow
        return replace(
            flow,
            first_seen=flow.last_seen if self.begun is None else self.begun,
            queries=flow.queries - was.queries,
            names=flow.names - was.names,
            encoded_names=flow.encoded_names - was.encoded_names,
            leaked_bytes=flow.leaked_bytes - was.leaked_bytes,
            encoded_bytes=flow.encoded_bytes - was.encoded_bytes,
            bytes_in=flow.bytes_in - was.bytes_in,
            qtypes={kind: more for kind, n in flow.qtypes.items() if (more := n - was.qtypes.get(kind, 0)) > 0},
        )

    def to_json(self) -> dict[str, Any]:
        """What an incident tells of those before it."""
        return {"first_seen": self.flow.first_seen, "incidents": self.incidents}


def packed(past: Past) -> list[Any]:
    """A past as JSON values."""
    flow = past.flow
    numbers = [getattr(flow, name) for name in NUMBERS]
    return [*numbers, sorted(flow.qtypes.items()), past.incidents, past.begun]


def unpacked(row: list[Any]) -> Past:
    """The same back. Raises TypeError or ValueError for what is no past."""
    *numbers, qtypes, incidents, begun = row
    kinds = (float, float, int, int, int, float, float, int)
    values = {name: kind(number) for name, kind, number in zip(NUMBERS, kinds, numbers, strict=True)}
    types = {int(kind): int(count) for kind, count in qtypes}
    return Past(Flow(**values, qtypes=types), int(incidents), None if begun is None else float(begun))


class Pasts:
    """The past of each flow that has one, by its row of Flows."""

    def __init__(self) -> None:
        self._rows: dict[int, Past] = {}
        self._waiting: dict[int, int] = {}  # by client and domain: rows that were not asked below since
        self._marks: dict[int, int] = {}  # the other way round
        self._last = np.empty(0), np.empty(0, np.uint64)  # of the last batch: times, clients and domains

    def of(self, row: int) -> Past | None:
        """The past of a flow, None where no incident of it is over."""
        return self._rows.get(row)

    def see(self, asked: Asked) -> None:
        """Take note of which flows are asked below again."""
        self._last = asked.ts, asked.domain ^ (asked.client.astype(np.uint64) * MIX)
        if not self._waiting:
            return
        ts, marks = self._last
        waiting = np.fromiter(self._waiting, np.uint64, len(self._waiting))
        for i in np.flatnonzero(np.isin(marks, waiting)).tolist():
            row = self._waiting.pop(int(marks[i]), None)
            if row is not None:
                del self._marks[row]
                self._rows[row].begun = float(ts[i])

    def end(self, row: int, kept: Any, flow: Flow) -> None:
        """An incident of a flow is over. kept: its row of Flows; flow: as it was at its last query."""
        self.put(
            row, kept, Past(replace(flow, samples=()), 1 + (self._rows[row].incidents if row in self._rows else 0))
        )

    def put(self, row: int, kept: Any, past: Past) -> None:
        """Let this be the past of a flow; it may have been asked below again in the last batch."""
        self.drop([row])
        self._rows[row] = past
        if past.begun is not None or kept["scattered"]:
            return
        mark = int(kept["domain"] ^ (np.array([kept["client"]]).astype(np.uint64) * MIX)[0])
        ts, marks = self._last
        again = np.flatnonzero((marks == np.uint64(mark)) & (ts > past.flow.last_seen))
        if len(again):
            past.begun = float(ts[again[0]])
        else:
            self._waiting[mark], self._marks[row] = row, mark

    def drop(self, rows: Iterable[int]) -> None:
        """Forget flows that are gone."""
        for row in rows if self._rows else ():
            self._rows.pop(row, None)
            mark = self._marks.pop(row, None)
            if mark is not None:
                self._waiting.pop(mark, None)
