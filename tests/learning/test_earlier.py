"""Which earlier versions of what cycles learn are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.core.types import DAY_S
from agents.learning.earlier import NEWEST_KEPT, drop_versions, version_file
from agents.learning.sequences.learning import SequenceModels
from tests.support.sequences import untrained_model

NOW = 1_772_323_200.0
"""2026-03-01, 00:00 UTC."""


def kept_of(folder: Path, times: list[float], newest: int, days: int) -> list[float]:
    for ts in times:
        version_file(folder, ts, "abc").touch()
        drop_versions(sorted(folder.glob("*.npz")), newest, days, ts)
    return [float(path.name[:10]) for path in sorted(folder.glob("*.npz"))]


@pytest.mark.slow
def test_of_hourly_versions_the_newest_stay_and_the_last_of_each_day_for_eight_weeks(tmp_path: Path) -> None:
    times = [NOW + 3600.0 * hour for hour in range(24 * 70)]
    kept = kept_of(tmp_path, times, 30, 56)
    assert kept[-30:] == times[-30:]
    days = [int((ts - NOW) // DAY_S) for ts in kept[:-30]]
    assert days == list(range(70 - 56, 68)), "one a day; the last two days are among the newest"
    assert all((ts - NOW) % DAY_S == 23 * 3600 for ts in kept[:-30])


def test_rare_versions_stay_however_old_they_are(tmp_path: Path) -> None:
    times = [NOW + 30 * DAY_S * month for month in range(5)]
    assert kept_of(tmp_path, times, 3, 56) == times[-3:]


@pytest.mark.slow
def test_sequence_models_of_before_are_kept_for_the_days_that_are_set(tmp_path: Path) -> None:
    models = SequenceModels(tmp_path, days=14)
    for day in range(40):
        models.deploy(untrained_model(1.0), NOW + day * DAY_S)
        models.deploy(untrained_model(2.0), NOW + day * DAY_S + 60)
    assert len(models.earlier()) == 14 + 2, "of two days both, which are among the newest five"
    assert len(SequenceModels(tmp_path, days=0).earlier()) == 16
    SequenceModels(tmp_path, days=0).deploy(untrained_model(1.0), NOW + 41 * DAY_S)
    assert len(models.earlier()) == NEWEST_KEPT


def test_versions_of_one_second_are_in_the_order_in_which_they_were_replaced(tmp_path: Path) -> None:
    files = [version_file(tmp_path, NOW + 0.001 * at, named) for at, named in enumerate("zyx")]
    assert sorted(files) == files
