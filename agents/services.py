"""Known services whose names look like exfiltration and are none: they get a larger byte budget, never a free pass.

The list is `baseline/services.csv`: suffix, factor (how many times more its names may carry), shape (a regular
expression that the rest of the name must match, empty = any), and what it is. A name below a listed suffix that
does not have the shape gets no discount.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from agents.columns import Names
from agents.kernels.listed import listed
from agents.names import from_text, labels_of, wire_of
from agents.siphash import siphash

FACTORS_MAX = 65_536
"""Names whose factor is remembered; at the bound all are forgotten."""


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
        self._all = list(self._listed.values())
        self._keys, self._numbers = _places([wire_of(labels) for labels in self._listed])
        self._plain = np.array([1.0 if one.shape else one.factor for one in self._all])
        self._shaped = np.array([one.shape is not None for one in self._all])
        self._factors: dict[bytes, float] = {}

    def of(self, wire: bytes) -> Service | None:
        """The service that a lower-case wire name belongs to: longest suffix at label boundaries, shape fitting."""
        labels = labels_of(wire)
        for cut in range(len(labels)):
            found = self._listed.get(labels[cut:])
            if found is not None:
                rest = b".".join(labels[:cut])
                return found if found.shape is None or found.shape.fullmatch(rest) else None
        return None

    def factor(self, wire: bytes) -> float:
        """How many times more a lower-case wire name may carry than one of no service; remembered for a while."""
        found = self._factors.get(wire)
        if found is None:
            if len(self._factors) >= FACTORS_MAX:
                self._factors.clear()
            service = self.of(wire)
            found = self._factors[wire] = service.factor if service else 1.0
        return found

    def factors(self, names: Names) -> NDArray[np.float64]:
        """`factor` of n lower-case wire names; only those of a service with a shape are looked at one by one."""
        which = np.empty(len(names), np.int32)
        if not listed(names.array, names.starts, self._keys, self._numbers, which):
            nothing = np.empty(len(names))
            nothing.fill(1.0)
            return nothing
        found = np.where(which < 0, 1.0, self._plain[which])
        for row in np.flatnonzero((which >= 0) & self._shaped[which]).tolist():
            found[row] = self.factor(names[row])
        return found


def _places(suffixes: Sequence[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Open addressing of the suffixes' hashes, as kernels/listed.py reads it, and the number of each."""
    size = 1 << (4 * len(suffixes) + 1).bit_length()
    keys, numbers = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    for number, suffix in enumerate(suffixes):
        key = siphash(suffix, (0, 0))
        place = key & (size - 1)
        while keys[place]:
            place = (place + 1) & (size - 1)
        keys[place], numbers[place] = key, number
    return keys, numbers
