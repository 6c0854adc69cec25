"""Each feature by examples, all of them on any name."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.dns.name import from_text, wire_of
from agents.scoring.features import FEATURES, SCHEMA, VERSION, Feature, extract, schema_of, view_of

WIRE = st.lists(st.binary(min_size=1, max_size=63), max_size=9).map(wire_of).filter(lambda wire: len(wire) <= 254)
BY_NAME = {feature.name: feature for feature in FEATURES}


def value(feature: str, name: str) -> float:
    return BY_NAME[feature].function(view_of(from_text(name)))


@pytest.mark.parametrize(
    ("feature", "name", "expected"),
    [
        ("name_length", "www.google.com", 15),
        ("name_length", ".", 0),
        ("subdomain_length", "www.google.com", 3),
        ("subdomain_length", "a.bc.evil.co.uk", 3),
        ("subdomain_length", "google.com", 0),
        ("subdomain_labels", "a.bc.evil.co.uk", 2),
        ("longest_label", "a.bcd.ef.evil.com", 3),
        ("longest_label", "evil.com", 0),
        ("repeats", "aabb.www.evil.com", 2),
        ("full_labels", "a" * 41 + "." + "b" * 40 + ".evil.com", 1),
        ("text_entropy", "abcd.evil.com", 2),
        ("text_entropy", "aaaa.evil.com", 0),
        ("longest_label_entropy", "abcd.zz.evil.com", 2),
        ("information", "abcdabcd.evil.com", 2),
        ("distinct_bytes", "abcd.abe.evil.com", 5),
        ("digit_share", "ab12.34.evil.com", 4 / 6),
        ("hex_share", "0af9.xyz.evil.com", 1),
        ("longest_hex_run", "zz0af9zz.12.evil.com", 4),
        ("longest_digit_run", "a123b45.evil.com", 3),
        ("vowel_share", "abcd.evil.com", 0.25),
        ("vowel_share", "b1.evil.com", 0.4),
        ("longest_consonant_run", "astrng.www.evil.com", 5),
        ("alternations", "a1b2.c3.evil.com", 4),
        ("repeat_share", "aabb.evil.com", 2 / 3),
        ("repeat_share", "www.evil.com", 0),
        ("longest_repeat", "abbbc.www.evil.com", 3),
        ("rare_pairs", "qzthjx.evil.com", 4),
        ("rare_pair_share", "theinan.evil.com", 0),
        ("hyphens", "a-b._c.evil.com", 2),
        ("strange_bytes", "a\\000\\255+.evil.com", 3),
        ("domain_length", "www.google.co.uk", 6),
        ("domain_length", "data.999", 0),
        ("distinct_share", "aaaabbbb.evil.com", 0.25),
        ("distinct_share", "abc.evil.com", 0.7),
    ],
)
def test_documented_examples(feature: str, name: str, expected: float) -> None:
    assert value(feature, name) == pytest.approx(expected)


def test_every_feature_has_an_example() -> None:
    marks = test_documented_examples.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(BY_NAME)


@given(st.lists(WIRE, max_size=5))
def test_every_value_is_finite_and_case_carries_nothing(names: list[bytes]) -> None:
    found = extract(names)
    assert found.shape == (len(names), len(FEATURES))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.array_equal(found, extract([name.upper() for name in names]))
    assert np.array_equal(found, extract([name.swapcase() for name in names]))


@given(WIRE)
def test_shares_are_shares_and_counts_are_whole(name: bytes) -> None:
    for feature, found in zip(FEATURES, extract([name])[0].tolist(), strict=True):
        assert found >= 0, feature.name
        if feature.unit == "share":
            assert found <= 1, feature.name
        elif feature.unit != "bits per byte" and feature.name != "information":
            assert found == int(found), feature.name


def test_a_column_is_its_function() -> None:
    names = [from_text(name) for name in ("www.google.com", "4a6f.t.evil.co.uk", ".", "\\001\\255.evil.com")]
    found = extract(names)
    for column, feature in enumerate(FEATURES):
        alone = np.array([feature.function(view_of(name)) for name in names], dtype=np.float32)
        assert np.array_equal(found[:, column], alone), feature.name


def test_the_table_is_what_models_were_made_for() -> None:
    assert 20 <= len(FEATURES) <= 30
    assert len(BY_NAME) == len(FEATURES)
    assert all(isinstance(one, Feature) and one.unit and one.function.__doc__ for one in FEATURES)
    assert hashlib.sha256(",".join(one.name for one in FEATURES).encode()).hexdigest()[:16] == SCHEMA


def test_no_names_give_no_rows() -> None:
    assert extract([]).shape == (0, len(FEATURES))


PINNED = {1: "e2c2a9e5090bce22"}
"""Digest of the features of `fixed_names` by version. Values that change need a new VERSION and a new line here."""


def fixed_names() -> list[bytes]:
    """Names of many kinds, the same for ever."""
    texts = ["", "com", "www.google.com", "a1b2.c3.evil.co.uk", "_dmarc.mail-1.example.org", "x" * 63 + ".evil.com"]
    digests = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(40)]
    texts += [f"{digest[:size]}.{digest[size:]}.t.example.net" for size, digest in enumerate(digests, start=2)]
    words = ["static", "cdn", "images", "login", "api", "update", "telemetry", "aabbcc"]
    texts += [f"{one}-{i}.{words[i % 3]}.example.com" for i, one in enumerate(words)]
    return [from_text(text) for text in texts] + [b"\x04\x00\xff+/\x04evil\x03com"]


def test_features_that_mean_something_else_have_a_new_version() -> None:
    rounded = np.round(extract(fixed_names()).astype(np.float64), 3) + 0.0
    assert hashlib.sha256(rounded.tobytes()).hexdigest()[:16] == PINNED[VERSION]


def test_a_version_is_part_of_the_schema_but_for_the_first() -> None:
    names = [one.name for one in FEATURES]
    assert schema_of(1, names) == hashlib.sha256(",".join(names).encode()).hexdigest()[:16] == "37dbc586d14a92f5"
    assert len({schema_of(version, names) for version in range(1, 5)}) == 4
    assert schema_of(VERSION, names) == SCHEMA
