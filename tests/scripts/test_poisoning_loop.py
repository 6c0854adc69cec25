"""The command that measures what an attacker gains by what profile and online learner learn."""

from __future__ import annotations

import numpy as np
import pytest

from agents.detection.explanations.network_profile import kind_cap
from scripts.maintainer.poisoning_loop import (
    KIND,
    attackers,
    between,
    browsing,
    his_flow_hours,
    his_steps,
    learnt_of,
    profile_row,
    windows_of,
)


def test_a_habit_that_grows_as_fast_as_it_can_ends_at_the_bounds_cap() -> None:
    cap = f"{kind_cap(KIND):,.0f}"
    for attack in ("a flood of one domain", "ten colluding clients"):
        row = profile_row(attack, 6)
        assert f"→ {cap} bytes, the bound's cap is {cap}" in row and "| 6 of 6 | none |" in row
    slow = profile_row("a client that grows by 5 % a week", 3)
    assert f"→ {cap} bytes" not in slow


@pytest.mark.slow
def test_his_flow_hours_lie_between_ordinary_ones_and_a_tunnels() -> None:
    carried = [float(np.log1p(between(share, 1)[:, 3]).mean()) for share in (0.0, 0.5, 1.0)]
    assert carried == sorted(carried) and carried[0] < carried[2]
    assert len(set(his_flow_hours("a flood of one domain", 1, 0.2).domain)) == 1
    assert len(attackers("ten colluding clients")) == 10


@pytest.mark.slow
def test_the_online_learner_keeps_the_golden_tunnels() -> None:
    from scripts.maintainer.poisoning_loop import flow_row

    assert "golden tunnels found 100.0% → 100.0%" in flow_row("a flood of one domain", 2)


def test_a_cycle_of_the_sequence_model_learns_a_share_of_his_windows() -> None:
    rows = [*browsing(1, clients=10), *his_steps("a flood of one domain", 1)]
    ordinary, everything, learnt = (
        len(one) for one in (windows_of(browsing(1, clients=10)), windows_of(rows), learnt_of(rows))
    )
    his = learnt - ordinary
    assert everything - ordinary > 200, "he sends more than half of it"
    assert his <= max(0.02 * everything, 4), "a fiftieth, or a fifth of what a cycle needs"
