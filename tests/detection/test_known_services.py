"""The list of known services: label borders, shapes, and no discount for those that only look alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agents.core.columns import coded, packed
from agents.core.text import NETWORK
from agents.detection.known_services import (
    Entry,
    KnownServices,
    entry_of,
    load_entries,
    save_entries,
    services,
    services_at,
    with_entry,
)
from agents.dns.name import from_text
from tests.support.verdicts import incident


def factor(name: str) -> float:
    return KnownServices().factor(from_text(name).lower())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("4z9p5tjmcbnblehp4557z1d136.avqs.mcafee.com", 30),
        ("x.avqs.mcafee.com", 30),
        ("avqs.mcafee.com", 30),
        ("X.AVQS.McAfee.com", 30),
        ("x.avqs.evilmcafee.com", 1),
        ("x.evilmcafee.com", 1),
        ("mcafee.com.evil.com", 1),
        ("avqs.mcafee.com.evil.net", 1),
        ("avqs.mcafee.co", 1),
        ("mcafee\\.com", 1),
        ("com", 1),
        (".", 1),
        ("2.0.0.127.zen.spamhaus.org", 30),
        ("deadbeef.data.zen.spamhaus.org", 1),
        ("1.2.3.4.in-addr.arpa", 12),
        ("1.2.3.four.in-addr.arpa", 1),
        ("4a6f4a6f.ip6.arpa", 1),
        ("b.a.9.8.7.ip6.arpa", 12),
    ],
)
def test_who_gets_a_larger_budget(name: str, expected: float) -> None:
    assert factor(name) == expected


def test_the_longest_suffix_decides_and_its_shape_cannot_be_evaded_by_a_shorter_one() -> None:
    listed = services()
    for labels, service in listed.items():
        shorter = [listed.get(labels[cut:]) for cut in range(1, len(labels))]
        assert service.shape is None or not any(other and other.shape is None for other in shorter), service.suffix


def test_the_list_is_sound() -> None:
    assert len(services()) > 80
    for labels, service in services().items():
        assert labels
        assert all(re.fullmatch(rb"[a-z0-9_-]+", label) for label in labels), service.suffix
        assert 1 < service.factor <= 100, "never a free pass"
        assert service.what


def entry(suffix: str, client: str = "", factor: str = "100") -> Entry:
    row = {"suffix": suffix, "factor": factor, "reason": "ours", "author": "ann", "added": "2026-01-01"}
    return entry_of(row | {"expires": "2026-12-31", "client": client})


def test_an_entry_for_some_clients_raises_their_budget_alone() -> None:
    entries = [entry("vendor.example", "10.0.0.0/24"), entry(".", "10.0.0.25", "50"), entry("all.example", factor="7")]
    known = services_at(entries, 1_767_571_200.0)
    asked = [
        ("10.0.0.7", "x.vendor.example", 100), ("10.0.1.7", "x.vendor.example", 1), ("10.0.0.7", "x.evil.example", 1),
        ("10.0.0.25", "x.evil.example", 50), ("10.0.0.25", "x.vendor.example", 100), ("10.0.0.7", "x.all.example", 7),
        ("10.0.0.7", "xvendor.example", 1), ("client-7", "x.vendor.example", 1), ("fd00::7", "x.vendor.example", 1),
    ]  # fmt: skip
    names = packed([from_text(name).lower() for _, name, _ in asked])
    found = known.raised(known.factors(names), names, coded([client for client, _, _ in asked]))
    assert found.tolist() == [expected for _, _, expected in asked]


def test_an_entry_for_a_client_covers_its_incidents_alone() -> None:
    one = entry(".", "10.0.0.0/24")
    names = ("a.evil.example", "b.other.example")
    for client, covered in (("10.0.0.7", True), ("10.0.1.7", False), (NETWORK, False)):
        assert one.covers(incident(client=client, sample_names=names)) == covered
    assert not entry("evil.example", "10.0.0.7").covers(incident(client="10.0.0.7", sample_names=names))


@pytest.mark.parametrize(
    ("suffix", "client", "factor"),
    [
        (".", "", "10"),
        (".", "10.0.0.7", "own"),
        ("com", "", "10"),
        ("a.example", "10.0.0.300", "10"),
        ("a.example", "x", "2"),
    ],
)
def test_an_entry_that_would_silence_too_much_is_refused(suffix: str, client: str, factor: str) -> None:
    with pytest.raises(ValueError, match=r"needed|public suffix|neither an address"):
        entry(suffix, client, factor)


def test_the_file_has_clients_where_an_entry_names_one_and_old_files_are_read(tmp_path: Path) -> None:
    path, plain = tmp_path / "known.csv", entry("vendor.example")
    save_entries(path, [plain])
    assert path.read_text().splitlines()[0] == "suffix,factor,reason,author,added,expires"
    assert load_entries(path) == [plain]
    both = with_entry([plain], entry("vendor.example", "10.0.0.7"))
    assert len(both) == 2, "one for all, and one for a client, stand beside each other"
    save_entries(path, both)
    assert load_entries(path) == both
