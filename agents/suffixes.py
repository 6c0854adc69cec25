"""Names taken apart by the batch: where each registered domain begins. names.py is the definition."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.columns import Names, packed
from agents.kernels import COMPILED, suffix, table
from agents.names import labels_of, rules, split_domain, wire_of


class Rules(NamedTuple):
    """The public suffix rules for kernels/suffix: packed lower-case wire names, their kinds, and slots by hash."""

    rules: NDArray[np.uint8]
    starts: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    slots: NDArray[np.int32]


class Splits(NamedTuple):
    """Where n lower-case names fall apart."""

    part_starts: NDArray[np.int64]  # (n + 1,): running number of subdomain labels
    cuts: NDArray[np.int64]  # (n,): offset of the registered domain in its name


@lru_cache(maxsize=1)
def rule_table() -> Rules:
    """The rules of the bundled list, made once."""
    bits = {"e": suffix.EXCEPTION, "r": suffix.RULE, "w": suffix.WILDCARD}
    wires = [wire_of(name.split(b".")) for name in rules()]
    kinds = [sum({bits[letter] for letter in kind}) for kind in rules().values()]
    keys = packed(wires)
    return Rules(keys.array, keys.starts, np.array(kinds, np.uint8), table.slots_of(keys.array, keys.starts))


def split_names(names: Names) -> Splits:
    """Take n lower-case wire names apart as names.split_domain does. Raises NameFormatError for the first bad one."""
    found = Splits(np.empty(len(names) + 1, np.int64), np.empty(len(names), np.int64))
    if COMPILED:
        bad = suffix.split(names.array, names.starts, *rule_table(), *found)
        if bad >= 0:
            labels_of(names[bad])
        return found
    found.part_starts[0] = 0
    for i, name in enumerate(names):
        subdomain, _ = split_domain(name)
        found.part_starts[i + 1] = found.part_starts[i] + len(subdomain)
        found.cuts[i] = sum(map(len, subdomain)) + len(subdomain)
    return found
