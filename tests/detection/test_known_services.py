"""The list of known services: label borders, shapes, and no discount for those that only look alike."""

from __future__ import annotations

import re

import pytest

from agents.detection.known_services import KnownServices, services
from agents.dns.name import from_text


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
