"""Habits of domains between sites: who is told of, how sketches of clients join, and how little one site moves."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.detection.explanations.kinds import KINDS
from agents.detection.explanations.network_profile import (
    DomainHabit,
    DomainReach,
    FleetHabit,
    NetworkProfile,
    domain_hash_of,
    kind_cap,
)
from agents.learning.fleet.habits import HabitPart, joined_habits, kinds_seen, site_habits
from agents.learning.fleet.sketches import (
    RANK_MAX,
    REGISTERS,
    SKETCH_PATTERN,
    client_place,
    estimated,
    joined_estimate,
    registers_of,
    sketch_of,
    sketch_text,
)
from agents.store.feedback.flow_hours import FlowHours
from tests.support.flow_hours import HOUR, flow_hours

SECRET = "what only the sites know"
KIND, OTHER = "reputation by hash", next(kind.name for kind in KINDS if kind.name != "reputation by hash")
PROFILE = NetworkProfile(
    days=28,
    made="2026-11-15",
    habits=(DomainHabit(domain="vendor.com", kind=KIND, usual=1500, clients=9, since="2026-03-02"),),
    reach=(DomainReach(domain="common.org", clients=9, since="2026-03-02"),),
)


def sketch(clients: Iterable[int], number: int = 1) -> np.ndarray:
    return sketch_of(client_place(SECRET, number, f"192.0.2.{one}") for one in clients)


def part(usual: int, clients: Iterable[int], kind: str = KIND, name: str = "0" * 16) -> HabitPart:
    return HabitPart(hash=name, kind=kind, usual=usual, clients=sketch_text(sketch(clients)))


def asked(clients: int, domains: Iterable[str]) -> FlowHours:
    """Hours in which so many clients ask below domains."""
    rows = [(domain, f"192.0.2.{client}") for domain in domains for client in range(clients)]
    hours = flow_hours([domain for domain, _ in rows], HOUR)
    object.__setattr__(hours, "client", [client for _, client in rows])
    return hours


@pytest.mark.parametrize("count", [0, 1, 5, 100, 1_000, 3_000, 20_000])
def test_a_sketch_tells_how_many_there_were(count: int) -> None:
    """Within four standard errors of 1.04 / sqrt(1024); small counts are nearly exact."""
    assert estimated(sketch(range(count))) == pytest.approx(count, rel=4 * 1.04 / 32, abs=0.5)


def test_who_is_seen_by_two_sites_counts_once_and_a_sum_would_count_twice() -> None:
    """A pair of resolvers of one network."""
    assert joined_estimate([sketch(range(300))] * 2) == pytest.approx(300, rel=0.1)
    assert joined_estimate([sketch(range(300)), sketch(range(300, 600))]) == pytest.approx(600, rel=0.1)
    assert joined_estimate([sketch(range(300))]) == 0, "one site's say alone"


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, RANK_MAX), min_size=16, max_size=16),
    st.integers(0, 400),
    st.integers(1, 3),
)
def test_an_inflated_sketch_adds_no_more_than_another_site_has(hostile: list[int], first: int, sites: int) -> None:
    """Whatever its registers are, the union of the others and the largest of them bound what comes out."""
    honest = [sketch(range(first * at, first * at + 40 * (at + 1))) for at in range(sites)]
    evil = np.tile(np.array(hostile, np.uint8), REGISTERS // 16)
    most = max(map(estimated, honest))
    assert joined_estimate([*honest, evil]) <= estimated(np.maximum.reduce(honest)) + most + 1e-6
    assert joined_estimate([evil, *honest]) == pytest.approx(joined_estimate([*honest, evil]))


@given(st.lists(st.integers(0, RANK_MAX), min_size=REGISTERS, max_size=REGISTERS))
@settings(deadline=None, max_examples=20)
def test_a_sketch_is_a_letter_a_register(ranks: list[int]) -> None:
    registers = np.array(ranks, np.uint8)
    text = sketch_text(registers)
    assert re.fullmatch(SKETCH_PATTERN, text)
    assert (registers_of(text) == registers).all()


def test_a_client_s_place_is_another_in_each_round_and_without_the_secret() -> None:
    places = {client_place(secret, number, "192.0.2.7") for secret in (SECRET, "another") for number in (1, 2)}
    assert len(places) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "evil.example"},
        {"hash": "evil.example"},
        {"usual": -1},
        {"usual": 10**7},
        {"usual": 1.5},
        {"clients": "0" * (REGISTERS - 1)},
        {"clients": "z" * REGISTERS},
        {"clients": "evil.example"},
        {"domain": "evil.example"},
    ],
)
def test_what_no_site_says_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        HabitPart.model_validate(part(1, [1]).model_dump() | change)


def test_a_site_says_nothing_of_domains_of_fewer_than_five_clients_and_names_nobody() -> None:
    assert site_habits(PROFILE, asked(4, ["vendor.com", "common.org"]), SECRET, 1) == []
    assert site_habits(PROFILE, asked(5, ["vendor.com"]), "", 1) == []
    assert site_habits(None, asked(5, ["vendor.com"]), SECRET, 1) == []
    found = site_habits(PROFILE, asked(5, ["vendor.com", "common.org", "unknown.org"]), SECRET, 1)
    said = {one.hash: (one.kind, one.usual, round(estimated(registers_of(one.clients)))) for one in found}
    assert said == {
        domain_hash_of(SECRET, "vendor.com"): (KIND, 1500, 5),
        domain_hash_of(SECRET, "common.org"): ("", 0, 5),
    }
    assert "vendor" not in str(found) and "192.0.2" not in str(found)


def test_what_a_site_took_from_the_fleet_it_does_not_say_again() -> None:
    said = FleetHabit(hash=domain_hash_of(SECRET, "far.org"), kind=KIND, usual=900, clients=40, sites=3)
    taken = PROFILE.model_copy(update={"fleet": (said,)}).keyed(SECRET)
    assert taken.fleet_usual("far.org") == 900
    names = {one.hash for one in site_habits(taken, asked(9, ["far.org", "vendor.com"]), SECRET, 1)}
    assert names == {domain_hash_of(SECRET, "vendor.com")}


def test_two_sites_give_the_lesser_amount_and_three_the_middle_one() -> None:
    two = [[part(1500, range(10))], [part(2000, range(10, 20))]]
    (found,) = joined_habits(two)
    assert (found.kind, found.usual, found.sites) == (KIND, 1500, 2)
    assert found.clients == pytest.approx(20, abs=1)
    (three,) = joined_habits([*two, [part(9000, range(20, 30))]])
    assert (three.usual, three.sites) == (2000, 3)
    assert three.clients == pytest.approx(30, abs=1)
    assert kinds_seen([three]) == {KIND: 1}


def test_one_site_s_say_alone_or_five_clients_behind_two_resolvers_are_nothing() -> None:
    assert joined_habits([[part(1500, range(90))] * 3, [], []]) == []
    assert joined_habits([[part(1500, range(5))], [part(1500, range(5))]]) == []
    assert joined_habits([[part(1500, range(90))], [part(1500, ())]]) == []


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 1_000_000),
    st.integers(0, REGISTERS),
    st.sampled_from(["", KIND, OTHER]),
    st.lists(st.integers(0, 20_000), min_size=1, max_size=3),
)
def test_a_hostile_site_raises_no_habit_above_what_the_others_say(
    usual: int, clients: int, kind: str, amounts: list[int]
) -> None:
    """Nor the clients above twice theirs, nor anything above its kind's cap, nor a domain of its own into being."""
    honest = [[part(amount, range(20 * at, 20 * at + 20))] for at, amount in enumerate(amounts)]
    hostile = [part(usual, range(clients), kind), part(usual, range(clients), kind, "f" * 16)]
    for one in joined_habits([*honest, hostile]):
        assert one.hash == "0" * 16
        assert one.usual <= min(max(amounts), kind_cap(KIND))
        assert one.kind in ("", KIND)
        assert one.clients <= 1.2 * (20 * len(amounts) + 20)


def test_an_amount_ends_at_its_kind_s_cap_whatever_the_sites_say() -> None:
    (found,) = joined_habits([[part(1_000_000, range(at, at + 9))] for at in (0, 9, 18)])
    assert found.usual == kind_cap(KIND)


def test_sites_that_agree_on_no_kind_tell_of_clients_alone() -> None:
    (found,) = joined_habits([[part(900, range(9))], [part(900, range(9, 18), OTHER)]])
    assert (found.kind, found.usual, found.clients) == ("", 0, 18)
