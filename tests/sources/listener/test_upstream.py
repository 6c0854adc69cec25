"""Zones, resolv.conf, random numbers and the access list."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from agents.core.errors import SettingsError
from agents.dns import name as names
from agents.sources.listener.traffic import AccessList
from agents.sources.listener.upstream import (
    FAILURES_BEFORE_SWITCH,
    Random16,
    Routes,
    Zone,
    parse_upstreams,
    search_domains,
    system_resolvers,
)

TEXT = "corp.example=10.0.0.53,192.0.2.1,sub.corp.example=[2001:db8::1]:5353,192.0.2.2"


def first(routes: Routes, name: str) -> str | None:
    zone = routes.find(names.from_text(name))
    return zone.upstreams[0].host if isinstance(zone, Zone) else None


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("corp.example", "10.0.0.53"),
        ("a.b.CORP.Example", "10.0.0.53"),
        ("x.sub.corp.example", "2001:db8::1"),
        ("mycorp.example", "192.0.2.1"),
        ("example", "192.0.2.1"),
        (".", "192.0.2.1"),
        (r"a\.corp.example", "192.0.2.1"),
    ],
)
def test_the_longest_zone_at_a_label_boundary(name: str, host: str) -> None:
    routes = Routes(parse_upstreams(TEXT))
    assert first(routes, name) == host
    assert len(routes.upstreams) == 4


def test_no_default_means_no_zone() -> None:
    assert first(Routes(parse_upstreams("a.example=192.0.2.1")), "b.example") is None


def test_a_zone_that_is_no_name() -> None:
    with pytest.raises(SettingsError, match=r"^cannot use upstream zone"):
        Routes([("a..b", [("192.0.2.1", 53)])])


def test_the_preferred_upstream_changes_after_time_outs_in_a_row_only() -> None:
    zone = Routes(parse_upstreams("192.0.2.1,192.0.2.2")).find(b"")
    assert isinstance(zone, Zone)
    for _ in range(FAILURES_BEFORE_SWITCH - 1):
        zone.note_failure(0)
    zone.note_failure(1)
    assert zone.preferred[0] == 0
    zone.note_failure(0)
    assert zone.preferred[0] == 1


def test_resolv_conf(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    servers = [" nameserver 192.0.2.1 # c", "nameserver", "nameserver localhost", "nameserver 2001:db8::1"]
    file.write_text("\n".join(["# c", "search x", *servers, "options a"]))
    assert [one[:2] for one in system_resolvers(file)] == [("192.0.2.1", 53), ("2001:db8::1", 53)]
    assert system_resolvers(tmp_path / "none") == []


def test_the_domains_that_names_are_completed_with(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("domain old.example\n# search no.example\nsearch corp.example lab.corp.example\n", "utf-8")
    assert search_domains(file) == ["corp.example", "lab.corp.example"], "the last line counts"
    file.write_text("nameserver 192.0.2.1\nsearch\n", "utf-8")
    assert search_domains(file) == search_domains(tmp_path / "none") == []


def test_random_numbers_cover_the_range_and_do_not_repeat_in_order() -> None:
    random = Random16()
    drawn = [random.draw() for _ in range(20_000)]
    assert 0 <= min(drawn) < 50
    assert 65_485 < max(drawn) <= 65_535
    assert max(Counter(drawn).values()) < 10
    assert drawn[:2048] != drawn[2048:4096]


def test_access_list() -> None:
    access = AccessList(["10.0.0.0/8", " 192.0.2.7", "2001:db8::/32"])
    for _ in range(2):
        assert access.allows("10.255.0.1")
        assert access.allows("192.0.2.7")
        assert access.allows("2001:db8:1::5")
        assert not access.allows("192.0.2.8")
        assert not access.allows("2001:db9::")
        assert not access.allows("11.0.0.1")
