"""What a profile is made of, how two differ, which gate refuses one, and where profiles are kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agents.core.types import DAY_S
from agents.detection.explanations.habits import Usual
from agents.detection.explanations.network_profile import DomainHabit, DomainReach, NetworkProfile
from agents.detection.limits import BudgetChoice
from agents.learning.profile.difference import NO_PROFILE, change_lines, profile_changes, profile_gates
from agents.learning.profile.making import Known, Reach, make_profile, reach_of
from agents.learning.release.profiles import ProfileFolder
from tests.support.flow_hours import HOUR, flow_hours

DAY = 20_780
NOW = DAY * DAY_S + 3600.0
KIND = "reputation by hash"
CHOICE = BudgetChoice(1.2, 28, 3.0, ())


def habit(domain: str, usual: float, clients: int = 41, since: str = "2026-03-02") -> DomainHabit:
    return DomainHabit(domain=domain, kind=KIND, usual=usual, clients=clients, since=since)


def made(*habits: Usual, left_out: frozenset[str] = frozenset(), **more: object) -> NetworkProfile:
    reach = {"vendor.com": Reach(41, DAY - 20), "corp.internal": Reach(12, DAY - 2), "own.lan": Reach(9, DAY - 9)}
    values = {"reach": reach, "before": None, "own": ["own.lan"]} | more
    return make_profile(Known(habits=habits, choice=CHOICE, left_out=left_out, now=NOW, **values))  # type: ignore[arg-type]


def test_a_profile_has_one_habit_a_domain_and_no_client() -> None:
    found = made(
        Usual("vendor.com", 1471.0, DAY - 9, KIND),
        Usual("192.0.2.7 vendor.com", 900.0, DAY - 12, KIND),
        Usual("* vendor.com", 1200.0, DAY - 1, KIND),
        Usual("192.0.2.7 *", 5000.0, DAY - 9, KIND),
        Usual("old-release.example", 5000.0, DAY - 9, ""),
    )
    assert found.habits == (habit("vendor.com", 1500, since="2026-11-03"),)
    assert (found.days, found.factor, found.kinds) == (28, 1.2, {KIND: 1})
    assert b"192.0.2" not in found.to_bytes()


def test_what_people_look_at_teaches_nothing() -> None:
    left_out = frozenset({"vendor.com"})
    found = made(Usual("vendor.com", 1471.0, DAY - 9, KIND), left_out=left_out)
    assert (found.habits, [one.domain for one in found.reach]) == ((), ["own.lan"])


def test_a_domain_is_common_after_a_week_with_five_clients_and_known_since_then() -> None:
    reach = {"a.org": Reach(5, DAY - 7), "b.org": Reach(4, DAY - 90), "c.org": Reach(90, DAY - 6)}
    found = made(reach=reach)
    assert [(one.domain, one.clients, one.since) for one in found.reach] == [("a.org", 5, "2026-11-16")]
    before = NetworkProfile(reach=(DomainReach(domain="a.org", clients=5, since="2025-01-01"),))
    assert made(reach=reach, before=before).reach[0].since == "2025-01-01"


def test_own_zones_are_proposed_and_those_that_are_taken_are_not() -> None:
    assert [one.zone for one in made().own_zones] == ["corp.internal"]
    directory = Usual("corp.com", 900.0, DAY - 9, "directory")
    found = made(
        directory,
        reach={"corp.com": Reach(30, DAY - 9), "few.internal": Reach(2, DAY - 9), "a.b.c.org": Reach(9, 1)},
    )
    assert [(one.zone, one.why) for one in found.own_zones] == [("corp.com", "its names are those of a directory")]


def test_reach_counts_clients_of_a_day_and_of_ipv6_prefixes() -> None:
    parts = [flow_hours(["a.org"], HOUR, client=f"2001:db8::{n:x}") for n in range(1, 9)]
    parts += [flow_hours(["a.org"], HOUR + 24, client=f"192.0.2.{n}") for n in range(3)]
    hours = parts[0]
    for one in parts[1:]:
        hours = flow_hours([*hours.domain, *one.domain], [*hours.hour.tolist(), *one.hour.tolist()])
    clients = [client for one in parts for client in one.client]
    object.__setattr__(hours, "client", clients)
    assert reach_of(hours) == {"a.org": Reach(3, HOUR // 24)}


def test_a_difference_says_what_would_be_allowed_to_whom_since_when() -> None:
    old = NetworkProfile(habits=(habit("less.example", 2000), habit("gone.example", 700)))
    new = made()
    new = NetworkProfile(**dict(new) | {"habits": (habit("vendor.com", 1500), habit("less.example", 900))})
    lines = change_lines(profile_changes(old, new))
    assert lines[:3] == [
        "would now allow 3 kB a day to vendor.com: 41 clients, since March 2026, as reputation by hash",
        "would no longer allow 1.4 kB a day to gone.example",
        "would no longer allow 4 kB a day to less.example: 1.8 kB are left",
    ]
    assert "would take vendor.com for old and common here: 41 clients, since November 2026" in lines
    proposed = (
        "proposes OWN_ZONES=corp.internal: 12 clients, nobody in public owns its top level; only a person takes it"
    )
    assert proposed in lines
    assert profile_changes(new, new) == () == profile_changes(None, NO_PROFILE)


def test_a_profile_beyond_the_bound_is_refused_and_what_it_loosens_is_named() -> None:
    (gate,) = profile_gates(NetworkProfile(habits=(habit("vendor.com", 24_001), habit("b.example", 24_000))))
    assert (gate.passed, gate.value) == (False, 1)
    assert gate.detail == "vendor.com: 24,001 bytes a day as reputation by hash, at most 24,000"
    (fine,) = profile_gates(made(Usual("vendor.com", 900.0, DAY, KIND)))
    assert fine.passed
    assert profile_gates(None) == ()


def test_profiles_are_kept_by_their_hash_and_a_changed_one_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, profile = ProfileFolder(tmp_path), made(Usual("vendor.com", 900.0, DAY, KIND))
    folder.save(profile)
    manifest = {"profile": profile.summary()}
    assert folder.of(manifest) == profile
    assert folder.of({}) is None is folder.of({"profile": {"sha256": "../../etc/passwd"}})
    path = tmp_path / f"{profile.sha256}.json"
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(path.read_bytes().replace(b"900.0", b"9000.0"))
    assert folder.of(manifest) is None
    assert "profile_not_used" in capsys.readouterr().out


def test_profiles_that_no_model_names_go_when_they_are_old(tmp_path: Path) -> None:
    folder = ProfileFolder(tmp_path)
    kept, gone, young = (NetworkProfile(days=days) for days in (1, 2, 3))
    for one in (kept, gone, young):
        folder.save(one)
    for one in (kept, gone):
        os.utime(tmp_path / f"{one.sha256}.json", (1000, 1000))
    folder.prune({kept.sha256}, 2000.0)
    assert {path.stem for path in tmp_path.glob("*.json")} == {kept.sha256, young.sha256}
