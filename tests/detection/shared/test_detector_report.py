"""A message of a detector is read as it was written, or refused whole: kernels read it without looking at bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agents.core.types import batch_of
from agents.detection.limits import Scale
from agents.detection.shared import detector_report
from agents.detection.shared.detector_report import DetectorReport, detector_report_of
from tests.support.detecting import START, query, shipped_model
from tests.support.several import Several

KINDS = detector_report._KINDS
ODD = (-1, -7, 1, 255, 1 << 31, -(1 << 31), 1 << 40, float("nan"), float("inf"), -float("inf"), 0, 3)
DRILLED = [START, "192.0.2.1", b"\x01a".hex(), 16, 30, 0, 0, 0, 0, float("nan"), "", 7, 8, 9]


@cache
def several() -> Several:
    return Several(shipped_model(), Scale(), 1)


@cache
def message() -> bytes:
    """What a detector says of some queries, with all that a message may have."""
    (part,) = several().parts
    names = [f"{n:04x}zq{n * 7919 % 65536:04x}.{'xyz'[n % 3]}.example" for n in range(12)]
    part.detect(batch_of([query(START + n, f"192.0.2.{n % 3}", name) for n, name in enumerate(names)]))
    said = part.take_report(7, [DRILLED])
    assert said is not None and said.roll is not None and len(said.roll.visits) and len(said.sent)
    windows, sent = np.zeros(1, said.windows.dtype), said.sent.copy()
    sent["windows"][0] = 0
    return replace(
        said,
        sent=sent,
        windows=windows,
        spent={"domains x.example": 3.5},
        habits=[(START, "x.example", 2.0, "plain")],
        peaks=[(START, "192.0.2.1", "x.example", 0.5)],
        mail=[("192.0.2.1", 20_000)],
    ).packed()


def in_range(said: DetectorReport) -> bool:
    """Whether all that indexes something has it."""
    count, asked = len(said.sent), said.asked
    ends = {"parts": (asked.parts, len(asked.key)), "starts": (said.names.starts, len(said.names.data))}
    steps = all(s[0] == 0 and s[-1] == end and (np.diff(s) >= 0).all() for s, end in ends.values())
    lengths = {
        len(getattr(asked, name)) for name in detector_report._ASKED if name not in ("parts", "key", "bits", "encoded")
    }
    by_row = lengths | {len(said.clients), len(said.domains), len(said.origin), len(asked.parts) - 1, len(said.names)}
    places = [
        (said.clients.codes, 0, len(said.clients.values)),
        (said.domains.codes, 0, len(said.domains.values)),
        (said.sent["windows"], -1, len(said.windows)),
        (asked.cell, 0, 64),
    ]
    if said.roll is not None:
        assert len(said.roll.days) == len(said.roll.clients)
        places.append((said.roll.visits["client"], 0, len(said.roll.clients)))
    within = all(((least <= place) & (place < end)).all() for place, least, end in places)
    return bool(
        steps and by_row == {count} and len({len(asked.key), len(asked.bits), len(asked.encoded)}) == 1 and within
    )


def read_or_refused(data: bytes) -> DetectorReport | None:
    """The message; None where ValueError refuses it."""
    try:
        said = detector_report_of(data)
    except ValueError:
        return None
    assert in_range(said)
    return said


def split(data: bytes) -> tuple[bytes, dict[str, Any], bytes]:
    mark, line, body = data.split(b"\n", 2)
    return mark, json.loads(line), body


def test_a_message_is_read_as_it_was_written() -> None:
    said = read_or_refused(message())
    assert said is not None and said.packed() == message()
    assert said.peaks == [(START, "192.0.2.1", "x.example", 0.5)]


def test_a_message_of_another_release_is_refused() -> None:
    """Of one before the mark, and of one with another layout."""
    mark, head, body = split(message())
    line = json.dumps(head).encode()
    for data in (
        b"\n".join([line, body]),
        b"\n".join([b"S" + b"0" * 16, line, body]),
        b"",
        b"\n",
        mark,
        mark + b"\n{}",
    ):
        assert read_or_refused(data) is None
    assert not [key for key in head if read_or_refused(_with_head({k: v for k, v in head.items() if k != key}))]


def _with_head(head: Any) -> bytes:
    mark, _, body = split(message())
    return b"\n".join([mark, json.dumps(head).encode(), body])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4))
def test_bytes_that_change_are_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(message())
    for at, value in changes:
        data[at % len(data)] = value
    read_or_refused(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 20), st.integers(0, 64), st.binary(max_size=64))
def test_a_message_that_is_cut_or_has_more_is_read_or_refused(at: int, drop: int, more: bytes) -> None:
    data = message()
    at %= len(data) + 1
    read_or_refused(data[:at] + more + data[at + drop :])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=4), each, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.data(), JSON)
def test_a_head_that_says_something_else_is_read_or_refused(data: st.DataObject, value: Any) -> None:
    _, head, _ = split(message())
    inside: Any = head
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(inside[key], dict | list) or not inside[key] or data.draw(st.booleans()):
            break
        inside = inside[key]
    inside[key] = value
    read_or_refused(_with_head(head))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 1 << 16), st.integers(0, 63), st.sampled_from(ODD))
@example("visits", 0, 3, 1 << 31)
@example("visits", 0, 3, 255)
@example("parts", 1, 0, 1 << 40)
@example("sent", 0, 4, 255)
@example("codes", 0, 0, -1)
@example("discount", 0, 0, 0)
def test_an_odd_number_in_an_array_is_read_or_refused(name: str, row: int, field: int, value: float) -> None:
    mark, head, body = split(message())
    at, sizes = 0, head["sizes"]
    for one, kind in KINDS.items():
        if one == name:
            break
        at += sizes[one] * kind.itemsize
    kind, end = KINDS[name], at + sizes[name] * KINDS[name].itemsize
    array = np.frombuffer(body[at:end], kind).copy()
    column = array[kind.names[field % len(kind.names)]] if kind.names else array
    with np.errstate(all="ignore"):
        column.reshape(-1)[row % column.size] = np.array(value).astype(column.dtype)
    said = read_or_refused(b"\n".join([mark, json.dumps(head).encode(), body[:at] + array.tobytes() + body[end:]]))
    if name == "visits" and kind.names and kind.names[field % len(kind.names)] == "client" and value == 255:
        assert said is None


def test_what_is_nested_without_end_is_refused() -> None:
    mark, _, body = split(message())
    assert read_or_refused(b"\n".join([mark, b"[" * 200_000, body])) is None
