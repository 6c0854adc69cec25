"""Known services whose names look like exfiltration and are none: they get a larger byte budget, never a free pass.

The list is `baseline/services.csv`: suffix, factor (how many times more its names may carry), shape (a regular
expression that the rest of the name must match, empty = any), and what it is. A name below a listed suffix that
does not have the shape gets no discount.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType

from agents.names import from_text, labels_of


@dataclass(frozen=True, slots=True)
class Service:
    """One entry of the list."""

    suffix: str
    factor: float
    shape: re.Pattern[bytes] | None
    what: str


@lru_cache(maxsize=1)
def services() -> dict[tuple[bytes, ...], Service]:
    """The shipped list by suffix labels."""
    text = resources.files("agents").joinpath("baseline/services.csv").read_text("utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {labels_of(from_text(row["suffix"])): _service(row) for row in rows}


def _service(row: dict[str, str]) -> Service:
    shape = re.compile(row["shape"].encode()) if row["shape"] else None
    return Service(row["suffix"], float(row["factor"]), shape, row["what"])


class Services:
    """The shipped list with an operator's own entries (by suffix labels), which win over shipped ones."""

    def __init__(self, own: Mapping[tuple[bytes, ...], Service] = MappingProxyType({})) -> None:
        self._listed = {**services(), **own}

    def of(self, wire: bytes) -> Service | None:
        """The service that a lower-case wire name belongs to: longest suffix at label boundaries, shape fitting."""
        labels = labels_of(wire)
        for cut in range(len(labels)):
            found = self._listed.get(labels[cut:])
            if found is not None:
                rest = b".".join(labels[:cut])
                return found if found.shape is None or found.shape.fullmatch(rest) else None
        return None
