"""Addresses' names: whose they are, and what each says below its delegation."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.dns.name import from_text, split_domain, to_text
from agents.scoring.lexical import read_names
from agents.scoring.reverse_names import SHARE6, delegation_of, read_delegated, reverse_of
from tests.support.detecting import shipped_model

SITE = "7.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
"""2001:db8:7::/48."""


def delegation(name: str) -> str:
    found = delegation_of(from_text(name))
    return to_text(found) if found else ""


def bits(name: str) -> list[float]:
    found = reverse_of(from_text(name))
    return [carried for _, carried in found.parts] if found else []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".".join("0123456789abcdef0123") + "." + SITE, SITE),
        ("f." + SITE, SITE),
        (SITE, ""),
        ("4.3.2.198.in-addr.arpa", "2.198.in-addr.arpa"),
        ("3.2.198.in-addr.arpa", "2.198.in-addr.arpa"),
        ("2.198.in-addr.arpa", ""),
        ("5.4.3.2.198.in-addr.arpa", ""),
        ("4.3.2.1980.in-addr.arpa", ""),
        ("4.x.2.198.in-addr.arpa", ""),
        (".".join("g" * 20) + "." + SITE, ""),
        ("ab." + SITE, ""),
        (".".join("0" * 21) + "." + SITE, ""),
        ("www.ip6.arpa.example.com", ""),
        ("arpa", ""),
        (".", ""),
    ],
)
def test_a_name_belongs_to_the_holder_of_its_part(name: str, expected: str) -> None:
    assert delegation(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".".join("12345678123456784321") + "." + SITE, [16 * SHARE6, 64 * SHARE6]),
        (".".join("f2100000000000004321") + "." + SITE, [16 * SHARE6, 21 * SHARE6]),
        (".".join("0" * 16 + "4321") + "." + SITE, [16 * SHARE6, 9 * SHARE6]),
        ("1.2." + SITE, [8 * SHARE6]),
        ("4.3.2.198.in-addr.arpa", [8.0, 8.0]),
        ("4.003.2.198.in-addr.arpa", [10.0, 8.0]),
        ("999.3.2.198.in-addr.arpa", [8.0, 10.0]),
        ("3.2.198.in-addr.arpa", [8.0]),
    ],
)
def test_what_it_says_costs_what_the_choice_carries(name: str, expected: list[float]) -> None:
    assert bits(name) == expected


@settings(deadline=None)
@given(st.lists(st.sampled_from("0123456789abcdef"), min_size=1, max_size=20))
def test_names_cost_half_of_what_their_nibbles_carry_at_most(nibbles: list[str]) -> None:
    name = ".".join([*nibbles, SITE])
    assert 0 < sum(bits(name)) <= 4 * len(nibbles) * SHARE6
    found = reverse_of(from_text(name))
    assert found is not None
    assert len({text for text, _ in found.parts}) == len(found.parts)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=63), max_size=3), st.sampled_from([SITE, "2.198.in-addr.arpa", "arpa"]))
def test_any_bytes_are_read(labels: list[bytes], zone: str) -> None:
    wire = b"".join(bytes([len(one)]) + one.lower() for one in labels) + from_text(zone)
    found = reverse_of(wire)
    assert found is None or wire[found.cut :] == delegation_of(wire) != b""


def test_a_column_has_the_rows_of_addresses_alone() -> None:
    names = ["www.example.com", f"1.{SITE}", ".", "arpa", "4.3.2.198.in-addr.arpa", f"x.{SITE}"]
    read = read_names([from_text(name) for name in names], shipped_model(), (1, 2))
    found = read_delegated(read, (1, 2))
    assert found.rows.tolist() == [1, 4]
    assert found.is_six.tolist() == [True, False]
    assert found.part_starts.tolist() == [0, 1, 3]
    assert [to_text(name[cut:]) for name, cut in zip(found.names, found.cuts.tolist(), strict=True)] == [
        SITE,
        "2.198.in-addr.arpa",
    ]
    assert not set(found.name_key.tolist()) & set(read.name_key.tolist()), "else each would be known already"
    part = read_names([from_text("a." + SITE)], shipped_model(), (1, 2))
    assert split_domain(from_text(SITE))[1] != (), "its registered domain is another: a nibble below ip6.arpa"
    assert len(set(found.part_key.tolist())) == 3
    assert part.domain_key[0] not in found.domain_key.tolist()


def test_a_batch_without_such_names_has_none() -> None:
    found = read_delegated(read_names([from_text("www.example.com"), b""], shipped_model(), (0, 0)), (0, 0))
    assert len(found.rows) == len(found.names) == 0
    assert found.part_starts.tolist() == [0]
