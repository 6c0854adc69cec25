"""Malware and tools after their public protocols are found while they tell little; what is not found is said so."""

from __future__ import annotations

import pytest

from agents.core.types import Severity
from tests.corpora.families import FAMILIES, laid_over, measured, office_day, session_of
from tests.corpora.families_base import Family
from tests.support.detecting import incidents_of

pytestmark = pytest.mark.integration

TOO_SLOW = {"sunburst", "shadowpad", "alma", "alina", "spread_of_ten"}
"""Beacons below the limits in some sessions or all: a few a day, four new digits each, three an hour or in all over
several domains."""
ANSWERED = {"morto"}
"""What it is told comes in answers of fixed names; nothing leaves."""
POLLING = {"godoh"}
"""What asks a fixed name for text again and again at a machine's pace is listed, with its period."""
QUERIES, BYTES = 60, 600
TELLING = [family for family in FAMILIES if family.name not in ANSWERED]
BEACONS = [family for family in FAMILIES if family.leaks and family.name not in TOO_SLOW]
SILENT = [family for family in FAMILIES if not family.leaks]


def _name(family: Family) -> str:
    return family.name


@pytest.mark.parametrize(
    ("family", "task"),
    [
        *(pytest.param(family, True, id=f"{family.name} with something to tell") for family in TELLING),
        *(pytest.param(family, False, id=f"{family.name} idle") for family in BEACONS),
    ],
)
def test_a_session_that_carries_something_new_is_found(family: Family, task: bool) -> None:
    found = measured(family, task)
    print(f"{family.name}: {found.queries} queries, {found.seconds:.0f} s, {found.carried:.0f} bytes")
    assert 0 < found.queries <= QUERIES
    assert found.carried <= BYTES


@pytest.mark.parametrize("family", SILENT, ids=_name)
def test_the_same_few_names_at_a_machines_clock_leak_nothing_and_are_listed_at_most(family: Family) -> None:
    found, day = measured(family, task=False), office_day(1)
    assert found.carried <= 60
    assert found.queries == 0 or family.name in POLLING
    own = [one for one in incidents_of(laid_over(found.session, day)) if one.domain in found.session.domains]
    assert all(one.severity < Severity.HIGH for one in own)


def test_a_session_is_the_same_every_time_and_its_incident_high_or_above() -> None:
    day = office_day(1)
    session = session_of(FAMILIES[0], True, 1, day[0][1])
    assert session == session_of(FAMILIES[0], True, 1, day[0][1])
    own = [one for one in incidents_of(laid_over(session, day)) if one.domain in session.domains]
    assert own and all(one.severity >= Severity.HIGH for one in own)
    assert len(FAMILIES) >= 40 and len({family.name for family in FAMILIES}) == len(FAMILIES)
