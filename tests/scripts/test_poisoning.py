"""The command that measures poisoning: what lets every candidate fail is refused, and told with who."""

from __future__ import annotations

import pytest

from scripts.maintainer.poisoning import blocking, run, week_of
from tests.support.detecting import shipped_model

pytestmark = pytest.mark.slow


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_client_that_lets_every_candidate_fail_is_told_and_the_model_in_use_stays() -> None:
    _, share, deployed, gates, told, words, tunnels = cells(run("blocking", blocking, 3))
    assert (share, deployed, gates) == ("10%", "0 of 3", "creep of what normal carries 3")
    assert told.startswith("week 3: of the names that carry most of its sample") and "came from 10.0.0.66" in told
    assert float(words.removesuffix("%")) < 1 and float(tunnels.removesuffix("%")) > 60, "it judges as it did"


def test_before_a_first_deployment_the_first_week_sets_the_measure() -> None:
    _, _, deployed, gates, told, words, tunnels = cells(run("blocking", blocking, 2, first=True))
    assert (deployed, gates, told) == ("2 of 2", "none", "nobody"), "nothing of this network to compare with"
    assert float(words.removesuffix("%")) < 1 and float(tunnels.removesuffix("%")) > 60


def test_one_client_has_its_share_and_others_have_names_of_their_own() -> None:
    sample, share = week_of(blocking, 1, shipped_model())
    assert share == 0.1 and sample.client.count("10.0.0.66") == len(sample) // 10
    assert len(set(sample.client)) > 100
