"""A network profile in force: what it allows, what it does not, and that it never allows more than the caps."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.alerting.manager import is_paged
from agents.core.npz import FormatError
from agents.core.types import Incident, Severity
from agents.detection.detector import TunnelDetector
from agents.detection.explanations.explainer import YOUNG_BYTES
from agents.detection.explanations.network_profile import (
    DomainHabit,
    DomainReach,
    FleetHabit,
    NetworkProfile,
    beyond_cap,
    domain_hash_of,
    is_profile_domain,
    load_profile,
)
from agents.detection.limits import Scale
from tests.detection.explanations.test_explanations import CLIENT, START, day_of_lookups, hashes, senders, told
from tests.support.detecting import fresh_detector, query, shipped_model

KIND = "reputation by hash"
USUAL = DomainHabit(domain="hash-lists.org", kind=KIND, usual=3000, clients=1, since="2026-10-01")
KNOWN = NetworkProfile(days=28, made="2026-11-15", habits=(USUAL,))


def changed(profile: NetworkProfile, **values: Any) -> NetworkProfile:
    return NetworkProfile(**dict(profile) | values)


def with_profile(profile: NetworkProfile | None, burn_in_days: float = 7) -> TunnelDetector:
    """A detector that has seen nothing yet, as after a restart without its state."""
    detector = fresh_detector(shipped_model(), Scale(), burn_in_days=burn_in_days)
    detector.reload_profile(profile)
    return detector


def after_lookups(detector: TunnelDetector, count: int) -> Incident:
    return told(detector, [*senders(0), *day_of_lookups(0, count)])[CLIENT, "hash-lists.org"]


@pytest.mark.slow
def test_a_restart_with_an_empty_state_takes_its_habits_from_the_profile() -> None:
    found = after_lookups(with_profile(KNOWN), 90)
    assert (found.severity, is_paged(found), "burn_in" in found.evidence) == (Severity.SUSPICIOUS, False, False)
    assert found.leaked_bytes > YOUNG_BYTES
    assert found.evidence["explanation"]["budget"] == 6000
    assert is_paged(after_lookups(with_profile(KNOWN), 400)), "twice what is usual, and no more"


@pytest.mark.slow
def test_what_the_profile_lacks_is_no_habit_whatever_was_learnt_since() -> None:
    detector = with_profile(NetworkProfile(days=28, made="2026-11-15"))
    for day in range(7):
        told(detector, [*senders(day), *day_of_lookups(day, 20)])
    habits = json.loads(detector.incidents.explainer.dump())
    assert habits["kinds"]["hash-lists.org"] == KIND, "learnt, for the next profile"
    found = told(detector, [*senders(8), *day_of_lookups(8, 110)])[CLIENT, "hash-lists.org"]
    assert is_paged(found)


def test_another_profile_is_used_from_the_next_batch_on() -> None:
    detector = with_profile(KNOWN)
    rows = day_of_lookups(0, 90)
    assert not is_paged(told(detector, [*senders(0), *rows[:60]])[CLIENT, "hash-lists.org"])
    detector.reload_profile(NetworkProfile(days=28, made="2026-11-15"))
    assert is_paged(told(detector, rows[60:])[CLIENT, "hash-lists.org"])


def test_no_profile_allows_more_than_the_caps_of_its_kind() -> None:
    much = changed(KNOWN, habits=(USUAL.model_copy(update={"usual": 1e9}),))
    found = after_lookups(with_profile(much), 90)
    assert found.evidence["explanation"]["budget"] == 24_000
    assert list(beyond_cap(much)) == ["hash-lists.org: 1,000,000,000 bytes a day as reputation by hash, at most 24,000"]
    assert list(beyond_cap(KNOWN)) == []


def test_no_profile_explains_a_tool_s_names() -> None:
    """Base32 in TXT is no kind of service: a habit below its domain changes nothing."""
    habit = USUAL.model_copy(update={"domain": "drop.net", "usual": 20_000})
    detector = with_profile(NetworkProfile(days=28, made="2026-11-15", habits=(habit,)))
    rng = random.Random(5)
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    names = [f"{hashes(rng, 50, alphabet)}.drop.net" for _ in range(60)]
    found = told(detector, [query(START + 60 * n, CLIENT, name, 16) for n, name in enumerate(names)])
    assert is_paged(found[CLIENT, "drop.net"])


def test_a_domain_that_the_profile_knows_is_explained_as_an_old_one() -> None:
    reach = (DomainReach(domain="hash-lists.org", clients=9, since="2026-01-01"),)
    known = NetworkProfile(days=28, made="2026-11-15", reach=reach)
    found = after_lookups(with_profile(known), 90)
    assert (found.severity, found.evidence["explanation"]["budget"]) == (Severity.SUSPICIOUS, 24_000)
    assert is_paged(after_lookups(with_profile(None, burn_in_days=0), 90))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"factor": 3.0}, "limits times 3, at most 2"),
        ({"habits": (USUAL.model_copy(update={"kind": "anything"}),)}, "no such kind"),
        ({"reach": (DomainReach(domain="a.org", clients=4, since="2026-01-01"),)}, "old and common with 4 clients"),
        ({"reach": (DomainReach(domain="a.org", clients=9, since="2026-11-14"),)}, "and 1 days"),
    ],
)
def test_what_is_beyond_a_cap_is_named(change: dict[str, object], said: str) -> None:
    (line,) = beyond_cap(changed(KNOWN, **change))
    assert said in line


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"habits": [{"domain": "www.vendor.org"} | USUAL.model_dump(exclude={"domain"})]},
        {"habits": [USUAL.model_dump() | {"usual": float("nan")}]},
        {"habits": [USUAL.model_dump() | {"usual": -1}]},
        {"habits": [USUAL.model_dump() | {"client": "10.0.0.1"}]},
        {"habits": [USUAL.model_dump() | {"since": "yesterday"}]},
        {"client": "10.0.0.1"},
        {"days": 1e300},
    ],
)
def test_a_damaged_profile_is_refused_and_its_names_are_not_said(change: dict[str, object]) -> None:
    data = json.dumps(KNOWN.model_dump() | change).encode()
    with pytest.raises(FormatError, match="cannot read profile") as raised:
        load_profile(data)
    assert not any(name in str(raised.value) for name in ("hash-lists", "vendor", "10.0.0.1", "yesterday"))


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
@pytest.mark.slow
def test_nothing_else_comes_of_hostile_bytes(data: bytes) -> None:
    try:
        load_profile(data)
    except ValueError as error:
        assert str(error).startswith("cannot read profile")


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("b.example", True),
        ("51.198.in-addr.arpa", True),
        ("7.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", True),
        ("a.b.example", False),
        ("1.51.198.in-addr.arpa", False),
        ("", False),
        ("a..example", False),
        ("x" * 300, False),
        (".".join(["1" * 60] * 4)[:229] + ".arpa", False),
    ],
)
def test_a_profile_names_registered_domains_and_delegations_and_nothing_else(name: str, may: bool) -> None:
    assert is_profile_domain(name) == may


def test_the_same_profile_gives_the_same_bytes() -> None:
    assert load_profile(KNOWN.to_bytes()) == KNOWN
    assert load_profile(KNOWN.to_bytes()).sha256 == KNOWN.sha256
    later = changed(KNOWN, made="2026-11-22")
    assert (later.summary()["learnt"], later.sha256 != KNOWN.sha256) == (KNOWN.summary()["learnt"], True)


SECRET = "what only the sites know"


def of_fleet(usual: float = 3000, **values: Any) -> NetworkProfile:
    """A new site's profile: nothing of its own, and what other sites say of hash-lists.org."""
    name = domain_hash_of(SECRET, "hash-lists.org")
    said = FleetHabit(hash=name, kind=KIND, usual=usual, clients=120, sites=3)
    return NetworkProfile(made="2026-11-15", fleet=(said,), **values)


@pytest.mark.slow
def test_a_new_site_starts_from_the_fleet_s_habits_and_from_none_without_the_secret() -> None:
    found = after_lookups(with_profile(of_fleet().keyed(SECRET), 0), 90)
    assert (found.severity, is_paged(found)) == (Severity.SUSPICIOUS, False)
    assert found.evidence["explanation"]["budget"] == 6000
    assert is_paged(after_lookups(with_profile(of_fleet().keyed(SECRET), 0), 400)), "twice what is usual, and no more"
    for other in (of_fleet(), of_fleet().keyed("another secret"), None):
        assert is_paged(after_lookups(with_profile(other, 0), 90))


def test_the_fleet_s_word_ends_at_the_kind_s_cap_too() -> None:
    much = of_fleet(1e9).keyed(SECRET)
    assert after_lookups(with_profile(much, 0), 90).evidence["explanation"]["budget"] == 24_000
    alone = of_fleet().fleet[0].model_copy(update={"sites": 1, "clients": 3})
    assert list(beyond_cap(much)) == ["a domain of the fleet: 1,000,000,000 bytes a day, at most 24,000"]
    assert list(beyond_cap(changed(much, fleet=(alone,)))) == ["a domain of the fleet: known at 1 site by 3 clients"]
    assert list(beyond_cap(of_fleet())) == []


def test_a_site_s_own_weeks_come_before_the_fleet_s_word() -> None:
    own = USUAL.model_copy(update={"usual": 600})
    assert of_fleet(habits=(own,), days=9).keyed(SECRET).usual("hash-lists.org") == 600
    assert of_fleet(days=9).keyed(SECRET).usual("hash-lists.org") == 3000


def test_a_profile_without_a_fleet_is_the_file_that_it_was() -> None:
    """Hashes of profiles made before stay true, and the secret is in no file."""
    assert b"fleet" not in KNOWN.to_bytes()
    assert SECRET.encode() not in of_fleet().keyed(SECRET).to_bytes()
    assert load_profile(of_fleet().to_bytes()) == of_fleet()
