"""The organisation and the wide look-alike suite: the same every time, large enough, and measured by what they ask."""

from __future__ import annotations

from collections import Counter

import pytest

from agents.core.types import Severity
from agents.dns.name import NAME_MAX
from tests.corpora import lookalikes, organisation
from tests.corpora.lookalikes import MORE_ROLES, WIDE_ROLES

pytestmark = pytest.mark.integration


def test_the_wide_suite_has_120_clients_and_every_kind_that_organisations_have() -> None:
    assert sum(role.clients for role in WIDE_ROLES) >= 120
    few = tuple(role._replace(clients=1) for role in MORE_ROLES)
    day = lookalikes.rows(7, few)
    assert day == lookalikes.rows(7, few)
    kinds = Counter(kind for _, kind in day)
    services = {kind.__name__ for role in MORE_ROLES for kind in role.rates if kind.__module__.endswith("services")}
    assert len(services) >= 24
    assert services <= set(kinds)
    assert max(len(row[2]) for row, _ in day) <= NAME_MAX


@pytest.mark.slow
def test_an_organisation_has_300_clients_that_rest_at_the_week_end() -> None:
    assert organisation.CLIENTS == 300
    friday, saturday = organisation.day_of(3, 4), organisation.day_of(3, 5)
    assert saturday == organisation.day_of(3, 5)
    assert len(saturday) < len(friday) / 2
    assert 200 < len({row[1] for row, _ in friday}) <= 300
    assert min(row[0] for row, _ in saturday) >= lookalikes.START + 5 * 86_400
    addresses = {kind: {row[1] for row, found in friday if found == kind} for kind in ("partners", "spf_macros")}
    assert len(addresses["partners"]) == 4 == len(addresses["spf_macros"])
    assert {row[1] for row, found in saturday if found == "partners"} == addresses["partners"]


@pytest.mark.slow
def test_slices_are_in_time_order_and_hold_the_attackers_queries() -> None:
    slices = list(organisation.traffic(2, 2, more=organisation.attack()))
    times = [row[0] for part in slices for row, _ in part]
    assert times == sorted(times)
    assert sum(kind == organisation.ATTACKER for part in slices for _, kind in part) == 30
    assert max(map(len, slices)) <= organisation.BATCH


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_loud_is_counted_by_kind_and_the_attacker_is_told_apart() -> None:
    found = organisation.silence(seed=5, weeks=1, attacker=True)
    (week,) = found.weeks
    assert {one.domain for one in found.caught} == {"quiet-harbour-sync.net", "paper-lantern-docs.com"}
    assert all(one.severity >= Severity.HIGH for one in found.caught)
    assert sum(week.kinds.values()) == week.incidents.total()
    assert organisation.ATTACKER not in {*week.kinds, *week.outside_kinds}
    print(organisation.table(found))
