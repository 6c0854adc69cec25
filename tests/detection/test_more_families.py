"""The wider set of families: valid, its own in every way, the same every time; most of what carries something is
found."""

from __future__ import annotations

import pytest

from agents.core.types import UNKNOWN
from agents.dns.name import NAME_MAX
from tests.corpora import families_matrix
from tests.corpora.families import FAMILIES
from tests.corpora.families_base import Family
from tests.corpora.families_matrix import ALL, WAYS, Outcome, outcome, session_in, table

pytestmark = pytest.mark.integration

CLIENT = "10.20.0.1"
MORE = ALL[len(FAMILIES) :]


def _name(family: Family) -> str:
    return family.name


def test_there_are_a_hundred_families_and_each_names_its_report() -> None:
    assert len({family.name for family in ALL}) == len(ALL) >= 100
    assert len(MORE) >= 60
    assert all(len(family.talk.__doc__ or "") > 60 for family in MORE)
    assert {*families_matrix.QUIET} <= {family.name for family in ALL}


@pytest.mark.parametrize("family", ALL, ids=_name)
def test_every_way_of_a_family_is_a_session_that_can_be_sent(family: Family) -> None:
    for way in WAYS:
        for spread in (False, True):
            session = session_in(family, way, spread, 1, CLIENT)
            assert repr(session) == repr(session_in(family, way, spread, 1, CLIENT))  # NaN is unlike itself
            assert max(len(row[2]) for row in session.rows) <= NAME_MAX
            times = [row[0] for row in session.rows]
            assert times == sorted(times)
            unanswered = sum(row[5] == UNKNOWN for row in session.rows) / len(session.rows)
            assert 0.3 < unanswered < 0.7 if way == "unanswered" else unanswered == 0
            assert (len(session.domains) > 1) == (spread == (family.domains == 1))


def test_a_session_of_a_new_family_is_found_and_counted() -> None:
    (family,) = [one for one in MORE if one.name == "chachi"]
    found = outcome(family, "task", spread=False)
    assert found.carries and found.found and found.listed
    assert 0 < found.queries <= 10


def test_the_table_counts_what_carries_something_apart_and_names_who_was_missed() -> None:
    def made(family: str, way: str, carries: bool, found: bool) -> Outcome:
        return Outcome(family, way, False, carries, found, found, 5, 50)

    text = table(
        [made("one", "task", True, True), made("two_more", "task", True, False), made("one", "beacons", False, False)]
    )
    assert "| **all** | **50.0% of 2** | | |" in text
    assert "| two more | task |" in text
    assert "| one | task" not in text
