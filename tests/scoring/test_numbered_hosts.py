"""Numbered hosts carry their digits; ids and encodings are no numbers of hosts."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.columns import lowered
from agents.dns.name import from_text, split_domain, split_names, wire_of
from agents.scoring.lexical_kernels import numbered_hosts
from tests.corpora.lookalike_kinds import HEX, token
from tests.support.detecting import incidents_of, paced
from tests.support.judged import START, Judged, ask
from tests.support.plain_numbered import packed_digits, shape_of
from tests.support.siphash import siphash
from tests.support.wire_names import wire_names

KEY = (3, 2**63 + 5)
DIGIT_BITS = math.log2(10)
HOSTS = st.from_regex(rb"(?:[a-z]{0,3}[0-9]{0,5}[-_.a-f]){1,6}[a-z0-9]{0,5}", fullmatch=True)


@pytest.mark.parametrize(
    ("name", "shape", "digits"),
    [
        ("ip-10-0-3-17", b"#ip-00-0-0-00.", b"100317"),
        ("h123", b"#h000.", b"123"),
        ("10-0-0-17", b"#00-0-0-00.", b"100017"),
        ("node0042.rack07", b"#node0000.rack00.", b"004207"),
        ("p1234.dip", b"#p0000.dip.", b"1234"),
        ("rr3---web_9", b"#rr0---web_0.", b"39"),
    ],
)
def test_numbers_of_hosts_have_a_shape(name: str, shape: bytes, digits: bytes) -> None:
    assert shape_of([label.encode() for label in name.split(".")]) == (shape, digits)


WORDS = "www 4f8a2c1b mail.123456 node12345 0042 1a a_b=c1 h1.4f8a 0x9f 1-2-3-4-5-6-7-8-9.10.11.12.13"


@pytest.mark.parametrize("name", WORDS.split())
def test_words_ids_and_encodings_have_none(name: str) -> None:
    assert shape_of([label.encode() for label in name.split(".")]) is None


@settings(deadline=None)
@given(
    st.lists(
        wire_names() | HOSTS.map(lambda text: wire_of([*filter(None, text.split(b".")), b"example", b"com"])),
        max_size=30,
    )
)
@pytest.mark.slow
def test_kernels_find_the_shapes_that_plain_python_finds(names: list[bytes]) -> None:
    low = lowered(names)
    shapes, digits = numbered_hosts(low, split_names(low).cuts, KEY)
    for i, name in enumerate(low):
        expected = shape_of(split_domain(name)[0])
        assert (int(shapes[i]), int(digits[i])) == (
            (siphash(expected[0], KEY), packed_digits(expected[1])) if expected else (0, 0)
        )


def leaked(*digits: str) -> float:
    """Bits that the last of these numbered names added, each new and worth 80 bits without its shape."""
    judged, before = Judged(), 0.0
    for number, text in enumerate(digits):
        before = judged.view().leaked_bytes if number else 0.0
        judged.ask(ask(f"h{number}", START + number, numbered=(len(text), text)))
    return 8 * (judged.view().leaked_bytes - before)


def test_a_number_costs_the_digits_that_changed_and_which_they_are() -> None:
    assert leaked("0041") == pytest.approx(80), "the first of its shape is a name like any other"
    assert leaked("0041", "0042") == pytest.approx(DIGIT_BITS + 2)
    assert leaked("0041", "7789") == pytest.approx(4 * DIGIT_BITS), "never more than all of them"
    assert leaked("99", "100") == pytest.approx(80), "another shape: how digits fall into numbers is no free choice"
    assert leaked("99", "100", "98") == pytest.approx(2 * DIGIT_BITS + 2), "which of the shapes comes next is none"


def test_numbered_names_do_not_read_as_encoded() -> None:
    judged = Judged()
    judged.ask(*(ask(f"h{i}", START + i, numbered=(7, f"{i:03}")) for i in range(30)))
    assert judged.view().encoded_names == 1
    judged.ask(*(ask(f"x{i}", START + i) for i in range(3)))
    assert judged.view().encoded_names == 4


@pytest.mark.parametrize(
    "pattern", ["ip-10-0-{}-{}", "10-0-{}-{}", "dhcp-192-168-{}-{}", "static-84-12-{}-{}", "n{}-h{}"]
)
def test_a_fleet_that_is_asked_for_in_a_row_is_none(pattern: str) -> None:
    names = [f"{pattern.format(number // 250, number % 250)}.fleet.com" for number in range(400)]
    assert incidents_of(paced(names, 3.0)) == []


def test_a_tunnel_in_the_digits_of_host_numbers_is_found_by_its_bytes() -> None:
    rng = random.Random(4)
    names = ["-".join(["h", *(f"{rng.randrange(1000):03}" for _ in range(5))]) + ".evil.com" for _ in range(400)]
    (found,) = incidents_of(paced(names, 3.0))
    sent = 15 * DIGIT_BITS / 8 * sum(1 for row in paced(names, 3.0) if row[0] <= found.detected_at)
    print(f"{sent:.0f} bytes out, {found.bytes_before_detection:.0f} counted")
    assert sent <= 1200


def test_a_hex_tunnel_gains_nothing() -> None:
    rng = random.Random(5)
    for size in (4, 6, 8):
        names = [f"{token(rng, HEX, size)}.evil.com" for _ in range(60)]
        assert [shape_of(split_domain(from_text(name))[0]) for name in names].count(None) >= 40
        assert incidents_of(paced(names, 30.0)), size
