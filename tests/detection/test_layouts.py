"""The judging kernel is made for one layout of its arguments: another would be compiled in the middle of the work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agents.core.columns import coded
from agents.core.types import batch_of
from agents.detection.limits import Scale
from agents.detection.network import cells_of
from agents.detection.state import Asked
from tests.support.detecting import START, fresh_detector, query, shipped_model


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_cells_have_one_layout_whatever_the_number_of_rows(rows: int) -> None:
    cells = cells_of(coded([f"192.0.2.{row}" for row in range(rows)]), (1, 2))
    assert cells.shape == (2, rows)
    assert all(one.flags.c_contiguous for one in cells)


@pytest.mark.parametrize(
    "names",
    [
        ["www.example.com"],
        ["www.example.com", "b.example.com"],
        ["x.tenant.github.io"],
        ["x.tenant.github.io", "a.com"],
    ],
    ids=["one", "two", "one below a shared suffix", "two, one of them there"],
)
def test_what_is_judged_has_one_layout(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    detector = fresh_detector(shipped_model(), Scale())
    rows = [query(START + at, "192.0.2.1", name) for at, name in enumerate(names)]
    judged: list[Asked] = []
    judge = detector.flows.judge

    def look(asked: Asked, *rest: Any) -> Any:
        judged.append(asked)
        return judge(asked, *rest)

    monkeypatch.setattr(detector.flows, "judge", look)
    detector.detect(batch_of(rows))
    (asked,) = judged
    assert [name for name, column in asked._asdict().items() if not column.flags.c_contiguous] == []
    assert [name for name, column in asked._asdict().items() if not column.flags.writeable] == []
    assert len({np.dtype(column.dtype) for column in asked}) > 3
