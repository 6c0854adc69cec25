"""What a published streaming detector costs a name, compiled as ours is, to stand beside our scorer.

Information-based heavy hitters (Ozery, Nadler, Shabtai, NDSS 2024): a table of k registered domains, each with a
HyperLogLog of 2^p registers that counts the different subdomains weighted by their length; when the table is full, a
new domain takes the place of the one whose sampling seed is largest, if its own is smaller. Written after the paper's
description with its k = 1000 and p = 12; windows of 120 s, which only empty the table, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from agents.core.columns import Names
from agents.core.jit import kernel
from agents.dns.name import split_names
from agents.scoring.lexical_kernels import identities

KEPT, PRECISION = 1_000, 12
_SLOTS = 4_096
_UNIT = 2.0**-64


@kernel
def follow(
    domains: Any, names: Any, weights: Any, slots: Any, keys: Any, seeds: Any, sums: Any, registers: Any, used: Any
) -> None:
    """Take up n queries: domains, names u64[n] identities, weights f64[n] bytes. The other arrays are the table.

    slots i32[_SLOTS] finds a domain's row by its identity, -1 = free; a row that is replaced rebuilds them.
    """
    for i in range(len(domains)):
        at = np.int64(domains[i] % np.uint64(_SLOTS))
        while slots[at] >= 0 and keys[slots[at]] != domains[i]:
            at = (at + 1) % _SLOTS
        row = slots[at]
        # Weighted distinct sampling: the smallest of the seeds of a domain's names, exponential at the name's weight.
        seed = -math.log((float(names[i]) + 1.0) * _UNIT) / weights[i]
        if row < 0:
            if used[0] < KEPT:
                row = used[0]
                used[0] += 1
                slots[at] = row
            else:
                row = np.argmax(seeds)
                if seed >= seeds[row]:
                    continue
                registers[row] = 0
                sums[row] = 0.0
            keys[row], seeds[row] = domains[i], np.inf
            if used[0] == KEPT:
                slots[:] = -1
                for other in range(KEPT):
                    place = np.int64(keys[other] % np.uint64(_SLOTS))
                    while slots[place] >= 0:
                        place = (place + 1) % _SLOTS
                    slots[place] = other
        seeds[row] = min(seeds[row], seed)
        register = np.int64(names[i] >> np.uint64(64 - PRECISION))
        rest, rank = names[i] << np.uint64(PRECISION), 1
        while rank < 64 - PRECISION and not rest >> np.uint64(63):
            rest <<= np.uint64(1)
            rank += 1
        rank += int(math.log2(weights[i]))
        if rank > registers[row, register]:
            sums[row] += 2.0**-rank - 2.0 ** -np.int64(registers[row, register])
            registers[row, register] = rank


class HeavyHitters:
    """The table, empty."""

    def __init__(self) -> None:
        self._table = (
            np.full(_SLOTS, -1, np.int32),
            np.zeros(KEPT, np.uint64),
            np.full(KEPT, np.inf),
            np.zeros(KEPT),
            np.zeros((KEPT, 1 << PRECISION), np.uint8),
            np.zeros(1, np.int64),
        )

    def add_all(self, batches: Sequence[Names]) -> None:
        """Take up all of them."""
        for names in batches:
            self.add(names)

    def add(self, names: Names) -> None:
        """Take up a batch of lower-case wire names: registered domains, identities, table."""
        splits = split_names(names)
        _, of_names, domains = identities(names, splits, (1, 2))
        follow(domains, of_names, np.maximum(splits.cuts, 1).astype(np.float64), *self._table)
