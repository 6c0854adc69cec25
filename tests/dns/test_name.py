"""Names of any bytes: presentation and wire form, registered domains by the list's own test vectors."""

from __future__ import annotations

import re
from importlib import resources

import dns.exception
import dns.name
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agents.core.errors import NameFormatError
from agents.core.text import defang
from agents.dns.name import (
    domain_text,
    from_text,
    from_text_folded,
    is_public_suffix,
    labels_of,
    split_domain,
    to_text,
    wire_of,
)
from tests.support import plain_names

LABELS = st.lists(st.binary(min_size=1, max_size=63), max_size=12).filter(lambda ls: sum(map(len, ls)) + len(ls) <= 254)
PRESENTATION = st.text(alphabet="ab0129.\\é-", max_size=40)


@given(LABELS)
@example([b"\x00\xff", b"a.b", b"\\", b" ", b"\\046"])
@example([b"x" * 63] * 3 + [b"y" * 61])
def test_any_name_survives_the_round_trip(labels: list[bytes]) -> None:
    wire = wire_of(labels)
    text = to_text(wire)
    assert from_text(text) == wire
    assert not labels or from_text(text + ".") == wire
    assert labels_of(wire) == tuple(labels)
    assert text.isascii() and text.isprintable()


@given(PRESENTATION)
@example("a\\.")
@example("a\\046.b")
@example("\\\\046.b")
@example("a.b\\\\.")
def test_what_dnspython_reads_is_read_alike(text: str) -> None:
    try:
        theirs = dns.name.from_text(text.encode() if text.isascii() else text, origin=None)
    except (dns.exception.DNSException, UnicodeError):
        return
    assume(text.isascii() and text not in ("", "."))
    assert labels_of(from_text(text)) == tuple(label for label in theirs.labels if label)


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=300))
@example("\ud800.com")
def test_any_text_is_a_name_or_a_named_error(text: str) -> None:
    for read in (from_text, from_text_folded):
        try:
            labels_of(read(text))
        except NameFormatError as error:
            assert str(error).startswith("cannot parse name")
            assert "\n" not in str(error)


@given(st.binary(max_size=300))
def test_any_bytes_are_wire_form_or_a_named_error(wire: bytes) -> None:
    try:
        labels = labels_of(wire)
    except NameFormatError as error:
        assert str(error).startswith("cannot split wire name")
    else:
        assert wire_of(labels) == wire


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a..b", "empty"),
        (".a", "empty"),
        ("a" * 64 + ".com", "longer than 63"),
        ("\\256.com", "no byte"),
        ("a\\", "ends in a backslash"),
        (".".join(["a" * 49] * 6), "255 octets"),
        ("\\097..b", "empty"),
        ("a\\..\\.", ""),
    ],
)
def test_what_is_no_name(text: str, why: str) -> None:
    if not why:
        assert labels_of(from_text(text)) == (b"a.", b".")
        return
    with pytest.raises(NameFormatError, match=why):
        from_text(text)


def test_bytes_and_lone_surrogates_from_a_command_line_are_no_crash() -> None:
    assert labels_of(from_text(b"caf\xe9.com".decode("utf-8", "surrogateescape"))) == (b"caf\xe9", b"com")


def test_folding_cuts_what_the_wire_cannot_hold() -> None:
    assert [len(label) for label in labels_of(from_text_folded("f" * 64 + ".evil.com"))] == [63, 1, 4, 3]
    assert from_text_folded("www.evil.com.") == from_text("www.evil.com")
    with pytest.raises(NameFormatError, match="255 octets"):
        from_text_folded("f" * 300)
    with pytest.raises(NameFormatError, match="empty"):
        from_text_folded("a..b")


def test_every_top_level_of_the_list_could_be_one() -> None:
    text = resources.files("agents.dns").joinpath("baseline/public_suffix_list.dat").read_text("utf-8")
    rules = [line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith("//")]
    for top in {rule.rpartition(".")[2] for rule in rules}:
        name = f"example.{ascii_form(top)}"
        assert domain_text(from_text(name)) in (name, f"x.{name}"), name


def vectors() -> list[tuple[str, str | None]]:
    text = resources.files("publicsuffixlist").joinpath("test_psl.txt").read_text("utf-8")
    found = re.findall(r"^checkPublicSuffix\('([^']+)', (?:null|'([^']+)')\);", text, re.MULTILINE)
    return [(name, domain or None) for name, domain in found]


def ascii_form(name: str) -> str:
    return name.lower().encode("idna").decode("ascii")


def test_the_lists_own_vectors_hold() -> None:
    checked = 0
    for name, domain in vectors():
        if name.startswith("."):
            with pytest.raises(NameFormatError):
                from_text(name)
            continue
        wire = from_text(name if name.isascii() else ascii_form(name))
        assert domain_text(wire) == ascii_form(domain or name), name
        assert is_public_suffix(labels_of(wire.lower())) == (domain is None), name
        checked += 1
    assert checked > 60


@given(LABELS)
def test_domain_and_subdomain_are_the_name(labels: list[bytes]) -> None:
    wire = wire_of(labels)
    subdomain, domain = split_domain(wire)
    assert wire_of([*subdomain, *domain]) == wire.lower()
    assert len(domain) <= plain_names.suffix_length([label.lower() for label in labels]) + 1
    assert (subdomain, domain) == plain_names.split_domain(wire)


@pytest.mark.parametrize("name", ["4a6f.9999", "data.chunk.0x1", "a.b." + "z" * 25, "a.\\255", "x.-", "a.b\\.com"])
def test_a_name_without_any_possible_top_level_has_no_domain(name: str) -> None:
    assert domain_text(from_text(name)) == "."
    assert split_domain(from_text(name))[0] == labels_of(from_text(name).lower())


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("a.b.evil.com", "evil.com"),
        ("EVIL.Com", "evil.com"),
        ("com", "com"),
        (".", "."),
        ("a.b.lan", "b.lan"),
        ("x.co.uk", "x.co.uk"),
        ("a.xn--p1ai", "a.xn--p1ai"),
        ("a\\.b.com", "a\\.b.com"),
        ("www.a\\.b.com", "a\\.b.com"),
        ("deep.city.kobe.jp", "city.kobe.jp"),
    ],
)
def test_registered_domains(name: str, domain: str) -> None:
    assert domain_text(from_text(name)) == domain


def test_a_dot_inside_a_label_is_no_border() -> None:
    """b"co.uk" as one label must not pass for the suffix co.uk."""
    assert domain_text(wire_of([b"a", b"b", b"co.uk"])) == "."
    assert domain_text(wire_of([b"a", b"x.co", b"uk"])) == "x\\.co.uk"


def test_defanged_names_are_no_links() -> None:
    assert defang("a.evil.com") == "a[.]evil[.]com"
    assert defang("x.9news.com.au") == "x.9news[.]com[.]au"
    assert defang("a.xn--p1ai") == "a[.]xn--p1ai"
    assert defang("b.\u0440\u0444") == "b[.]\u0440\u0444"


def test_numbers_and_addresses_are_not_defanged() -> None:
    text = "10.53.0.11 sent 20041 bytes, 200.4 times the limit of 70.0."
    assert defang(text) == text
