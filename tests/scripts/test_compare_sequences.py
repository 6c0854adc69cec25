"""The comparison of the recurrent network: what it learns, what sets its threshold and what judges it are apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.learning.sequences.gru import begun_network
from agents.learning.sequences.steps import Windows
from agents.scoring.types import padim
from scripts.maintainer.compare_sequences import joined_windows, network_beside, shares_of, types_beside
from tests.support.sequences import browsing, knocking, windows


def sessions() -> list[Windows]:
    """Two sessions of eight clients each; no client of one is a client of the other."""
    found = []
    for session in range(2):
        rows = [row for at in range(8) for row in browsing(f"s{session}p{at}", 60, 10 * session + at)]
        found.append(windows(rows))
    return found


def rows_of(some: Windows) -> set[bytes]:
    return {one.tobytes() for one in some.steps}


def test_no_client_is_in_two_shares() -> None:
    benign = sessions()
    learn, calibrate, judged = shares_of(benign)
    assert len(learn) and len(calibrate) and all(map(len, judged))
    parts = [learn, calibrate, joined_windows(judged)]
    assert sum(map(len, parts)) == sum(map(len, benign))
    clients = [set(part.client.tolist()) for part in parts]
    assert clients == [{0, 4}, {2, 6}, {1, 3, 5, 7}]


def test_the_network_learns_what_other_types_learn_and_its_training_is_clocked() -> None:
    learn, calibrate, judged = shares_of(sessions())
    seen: list[Windows] = []

    def train(some: Windows, epochs: int, params: Mapping[str, Any], seed: int) -> Mapping[str, NDArray[np.float64]]:
        seen.append(some)
        return begun_network(seed)

    tunnels = {"knocking": windows(knocking("m", 60))}
    whole = joined_windows(judged)
    found = network_beside(learn, calibrate, whole, tunnels, 5, train)
    assert found.fit_s > 0 and found.score_us > 0
    shown = types_beside(learn, calibrate, whole, tunnels, [(padim.SPEC, padim.SPEC.values({}))], 5, train)
    assert [rows_of(one) for one in seen] == [rows_of(learn)] * 2, "nothing that sets its threshold"
    lines = [line for line in shown.splitlines() if line.startswith("| recurrent network")]
    assert len(lines) == 1
    loud = network_beside(learn, tunnels["knocking"], whole, tunnels, 5, train)
    assert loud.by_tool["knocking"] <= 1 / len(tunnels["knocking"]), "its threshold is set by the second share"
    assert found.by_tool["knocking"] != loud.by_tool["knocking"]
