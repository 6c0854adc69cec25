"""Whether a message of a detector fits together: kernels read it without looking at bounds, in each process `network`.

A message comes from another machine, which may run another release. All that indexes something is in its range
then, and no number is one that arithmetic stops at; whether what it says is true, nobody can tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.npz import FormatError
from agents.detection.counting.flow_kernels import CELLS
from agents.detection.explanations.explainer import SHARED_BOOKS
from agents.detection.state import NONE, SENT, TS_MAX, Left, Scope

BY_LABEL = ("key", "bits", "encoded")
"""Columns of state.Asked with a row a label; the others but `parts` have one a query."""
_WHOLE_MAX = 1 << 62
_BELOW = {"left": len(Left), "scoped": len(Scope), "secret": 2, "encoded": 2, "cell": CELLS, "home_cell": CELLS}
_ROWS = {
    "habits": (float, str, float, str),
    "peaks": (float, str, str, float),
    "mail": (str, int),
}
_DRILLED = (float, str, str, int, int, int, int, int, int, float, str)  # types.Row, its name as digits of base 16
assert SENT.fields is not None
_HEX = re.compile("(?:[0-9a-fA-F]{2})*", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")
_FLAGS = [at for kind, at, *_ in SENT.fields.values() if kind == np.uint8]
assert np.ptp(_FLAGS) == len(_FLAGS) - 1  # one beside the other


def check_head(head: Any, arrays: Sequence[str]) -> None:
    """Raise FormatError for a first line that `DetectorReport.packed` would not write. arrays: names of the others."""
    _need("roll" in head)
    sizes, roll = head.get("sizes"), head["roll"]
    _need(isinstance(sizes, dict) and list(sizes) == list(arrays))
    _need(all(_is(int, size) and size >= 0 for size in sizes.values()))
    _need(_is(str, head.get("detector")) and _is(int, head.get("number")) and head["number"] >= 0)
    texts = [head["detector"]]
    for found in (head.get("clients"), head.get("domains"), [] if roll is None else roll):
        _need(isinstance(found, list) and all(type(text) is str for text in found))
        texts += found
    spent = head.get("spent")
    _need(isinstance(spent, dict) and all(_is(float, amount) for amount in spent.values()))
    _need(all(name.partition(" ")[0] in SHARED_BOOKS for name in spent))
    texts += spent
    for name, kinds in _ROWS.items():
        _need_rows(head.get(name), kinds)
        texts += [text for row in head[name] for text in row if type(text) is str]
        _need(all(abs(row[0]) <= TS_MAX for row in head[name] if kinds[0] is float))
    _need_rows(head.get("drilled"), _DRILLED, more=int)
    _need(all(_HEX.fullmatch(row[2]) for row in head["drilled"]))
    texts += [text for row in head["drilled"] for text in (row[1], row[10])]
    _need(not any(map(_SURROGATE.search, texts)))  # half of a surrogate pair is no text


def _need(holds: bool) -> None:
    if not holds:
        raise FormatError("cannot read what a detector says: it does not fit together")


def _is(kind: type, value: Any) -> bool:
    """Whether a value of JSON is text, a number (float), or a whole one (int); NaN is none."""
    if kind is str:
        return type(value) is str
    whole = type(value) is int and abs(value) <= _WHOLE_MAX
    return whole or (kind is float and type(value) is float and value == value)


def _need_rows(rows: Any, kinds: Sequence[type], more: type | None = None) -> None:
    """Lists of values of these kinds; more: of those that may follow."""
    _need(isinstance(rows, list))
    for row in rows:
        _need(isinstance(row, list) and (len(row) >= len(kinds) if more else len(row) == len(kinds)))
        nan_too = [more is not None and type(one) is float for one in row]  # an answer's time may be unknown
        _need(all(free or _is(kind, one) for free, kind, one in zip(nan_too, kinds, row, strict=False)))
        _need(more is None or all(_is(more, one) for one in row[len(kinds) :]))


def check_arrays(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], names: int) -> None:
    """Raise FormatError where arrays do not go with each other or with the texts. names: bytes of the names."""
    sent, parts, starts = arrays["sent"], arrays["parts"], arrays["starts"]
    count = len(sent)
    _need(len(parts) == len(starts) == count + 1)
    _need_steps(starts, names)
    _need_steps(parts, len(arrays["key"]))
    for name, array in arrays.items():
        if name in BY_LABEL:
            _need(len(array) == len(arrays["key"]))
        elif name not in ("parts", "starts", "windows", "visits", "days"):
            _need(len(array) == count)
        if name in _BELOW:
            _need(not (array >= _BELOW[name]).any())
    _need_below(arrays["codes"], 0, len(head["clients"]))
    _need_below(arrays["domain_codes"], 0, len(head["domains"]))
    _need_below(sent["windows"], NONE, len(arrays["windows"]))
    flags = sent.view(np.uint8).reshape(count, SENT.itemsize)[:, min(_FLAGS) : max(_FLAGS) + 1]
    _need(not (flags > 1).any())
    _need_times(arrays["ts"])
    discount = arrays["discount"]
    _need(bool(((discount > 0) & (discount < np.inf)).all()))
    for numbers in (arrays["bits"], sent["ordered"], sent["chosen"], sent["leaked"], sent["own_since"]):
        _need(not np.isnan(numbers).any())
    _need(not np.isnan(arrays["windows"]["now"]).any() and not np.isnan(arrays["windows"]["before"]).any())
    _check_roll(arrays["visits"], arrays["days"], len(head["roll"] or ()))


def _check_roll(visits: NDArray[Any], days: NDArray[np.int32], clients: int) -> None:
    _need(len(days) == 3 * clients)
    if len(visits):
        _need_below(visits["client"], 0, clients)
        _need_times(visits["first_seen"])
        _need_times(visits["last_seen"])
        _need(int(visits["names"].min()) >= 0)


def _need_below(places: NDArray[Any], least: int, end: int) -> None:
    _need(not len(places) or (int(places.min()) >= least and int(places.max()) < end))


def _need_times(seconds: NDArray[np.float64]) -> None:
    _need(bool((np.abs(seconds) <= TS_MAX).all()))  # NaN is not


def _need_steps(starts: NDArray[np.int64], end: int) -> None:
    _need(int(starts[0]) == 0 and int(starts[-1]) == end and bool((starts[1:] >= starts[:-1]).all()))
