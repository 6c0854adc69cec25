"""How contributions become one, and how little one hostile site changes of that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.detection.explanations.network_profile import domain_hash_of
from agents.learning.fleet.counts import client_counts, counts_of_week, discrete_laplace, domain_hashes, noisy
from agents.learning.fleet.exchange import BINS, WEIGHTS
from agents.learning.fleet.forests import sent_trees
from agents.learning.fleet.joining import (
    CLIP_NORM,
    clipped,
    joined_delta,
    joined_domains,
    joined_forest,
    joined_shares,
    quantile_bin,
)
from agents.learning.profile.making import Reach
from tests.support.detecting import shipped_model
from tests.support.flow_hours import HOUR, flow_hours

WEEK = HOUR // 168 * 168 * 3600.0
numbers = st.floats(-1e6, 1e6)


@given(st.lists(numbers, min_size=WEIGHTS, max_size=WEIGHTS))
def test_one_hostile_site_of_three_moves_no_weight_beyond_what_the_others_sent(hostile: list[float]) -> None:
    draw = np.random.default_rng(1)
    honest = [draw.normal(0, 0.05, WEIGHTS) for _ in range(2)]
    found = joined_delta([*honest, np.array(hostile)])
    assert (found <= np.maximum(*honest) + 1e-12).all() and (found >= np.minimum(*honest) - 1e-12).all()


@given(st.lists(numbers, min_size=WEIGHTS, max_size=WEIGHTS))
def test_a_change_is_never_longer_than_the_clip(delta: list[float]) -> None:
    assert np.linalg.norm(clipped(np.array(delta))) <= CLIP_NORM * (1 + 1e-9)


def test_inflated_counts_move_the_shares_by_one_site_s_part() -> None:
    honest = [[100 if at == 9 else 0 for at in range(BINS)] for _ in range(2)]
    inflated = [10_000_000 if at == 23 else 0 for at in range(BINS)]
    shares = joined_shares([*honest, inflated])
    assert shares[23] == pytest.approx(1 / 3) and shares[9] == pytest.approx(2 / 3)
    assert quantile_bin(shares.tolist(), 0.5) == 9
    assert joined_shares([[0] * BINS] * 3).tolist() == [0.0] * BINS


def test_a_domain_needs_two_sites_however_often_one_sends_it() -> None:
    assert joined_domains([["a" * 16] * 50 + ["b" * 16], ["b" * 16], []]) == ["b" * 16]


def test_each_site_has_as_many_trees_in_the_joined_forest() -> None:
    part = sent_trees(shipped_model())
    assert part is not None and part.trees == 64
    few = sent_trees(shipped_model())
    joined = joined_forest([part] * 3)
    assert few is not None and joined is not None
    assert joined.trees == 192
    assert joined_forest([]) is None


def test_noise_is_that_of_the_discrete_laplace_distribution() -> None:
    """Of P(k) ~ exp(-epsilon |k|) the deviation is sqrt(2 a) / (1 - a), a = exp(-epsilon)."""
    drawn = np.array([discrete_laplace(1.0) for _ in range(20_000)])
    a = np.exp(-1.0)
    assert abs(drawn.mean()) < 0.06
    assert drawn.std() == pytest.approx(np.sqrt(2 * a) / (1 - a), rel=0.05)
    assert (drawn == 0).mean() == pytest.approx((1 - a) / (1 + a), abs=0.02)
    assert min(noisy(np.zeros(2000, np.int64), 0.1)) == 0


def test_a_client_counts_once_whatever_it_does() -> None:
    rows = flow_hours([f"d{n}.org" for n in range(500)], HOUR, information_bytes=3.0)
    assert client_counts(rows).tolist() == [0] * 10 + [1] + [0] * (BINS - 11), "1,500 bytes on one day, of one client"


def test_the_noise_of_a_week_is_drawn_once(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    rows = flow_hours(["d.org"], HOUR, information_bytes=3.0)
    first = counts_of_week(path, rows, 0.1, WEEK)
    assert [counts_of_week(path, rows, 0.1, WEEK + at) for at in (10.0, 6 * 86400.0)] == [first] * 2
    assert path.stat().st_mode & 0o777 == 0o600
    later = [counts_of_week(path, rows, 0.1, WEEK + week * 7 * 86400.0) for week in range(1, 6)]
    assert any(one != first for one in later)
    path.write_bytes(b"[]")
    assert len(counts_of_week(path, rows, 0.1, WEEK)) == BINS


def test_domains_of_fewer_than_five_clients_or_under_review_are_not_sent() -> None:
    reach = {"a.org": Reach(5, 1), "b.org": Reach(4, 1), "c.org": Reach(9, 1)}
    secret = "a secret of the sites"
    assert domain_hashes(reach, secret, {"c.org"}) == [domain_hash_of(secret, "a.org")]
    assert domain_hashes(reach, "", set()) == []
    assert domain_hash_of(secret, "a.org") != domain_hash_of(secret + "!", "a.org")
