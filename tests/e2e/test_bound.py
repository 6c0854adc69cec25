"""What docs/bound.md promises, measured: by an adversary who tries every known way, an organisation, and malware."""

from __future__ import annotations

import pytest

from agents.core.types import DAY_S
from agents.detection.network import network_bound
from tests.adversary.__main__ import CHANNELS, measured
from tests.adversary.measure import Run
from tests.corpora.families_matrix import outcomes
from tests.corpora.organisation import silence

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NOTHING_SPARED = 1.0
"""Factor on the limits."""
WIDE, WIDE_OUT = "addresses below an own /32 of ip6.arpa, a /48 each", 30_000
"""What counts in part has a bound of its own (docs/bound.md, "Addresses' names"): bytes a day of one client."""


def test_no_way_carries_more_than_the_bound_for_ever() -> None:
    bound = network_bound(NOTHING_SPARED)
    figures = measured([one for one in CHANNELS if one.kind not in ("one name", "beside the name")], paces=2)
    assert len(figures) >= 70
    found = {one.channel.what: a_day_at_most(one.ever) for one in figures if one.ever is not None}
    assert {what: out for what, out in found.items() if out > (WIDE_OUT if what == WIDE else bound.out_client)} == {}


def a_day_at_most(run: Run) -> float:
    """Bytes out a day of a run without an incident; what ended before a day was over is a day's."""
    return run.up / (max(run.seconds, DAY_S) / DAY_S)


def test_an_organisation_is_paged_three_times_a_week_at_most_and_its_attacker_is_found() -> None:
    found = silence(weeks=2, attacker=True)
    assert [week.paged for week in found.weeks if week.paged > 3] == []
    assert len({one.domain for one in found.caught}) == 2
    assert max(one.bytes_before_detection for one in found.caught) <= 1_000


def test_nearly_all_of_a_hundred_families_are_found_where_they_carry_something() -> None:
    carrying = [one for one in outcomes() if one.carries]
    assert len(carrying) >= 800
    assert sum(one.found for one in carrying) / len(carrying) >= 0.97
