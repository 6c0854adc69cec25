"""What a label costs: words little, random text what it carries, whatever somebody has the model learn."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.dns.name import from_text, split_domain
from agents.learning.baseline import benign_names
from agents.scoring.information import COMMON_LABELS, EDGE, SIZE, SYMBOLS, CharModel, learn
from agents.scoring.model import Model
from tests.support.plain_information import cost, encoded_bits

HEX, BASE32, DIGITS = "0123456789abcdef", "abcdefghijklmnopqrstuvwxyz234567", "0123456789"


@pytest.fixture(scope="module")
def benign() -> list[tuple[bytes, ...]]:
    return [split_domain(from_text(name))[0] for name in benign_names()[:6000]]


@pytest.fixture(scope="module")
def chars(benign: list[tuple[bytes, ...]]) -> CharModel:
    return learn(benign)


def token(alphabet: str, size: int, seed: int) -> bytes:
    return "".join(random.Random(seed).choices(alphabet, k=size)).encode()


@pytest.mark.parametrize("word", ["mail", "static", "download", "autodiscover", "notifications", "documentation"])
def test_words_are_cheaper_than_hex_of_the_same_length(model: Model, word: str) -> None:
    """Words that are in the dictionary cost next to nothing, others less than the 4 bits of a hex digit a letter."""
    for seed in range(20):
        random_text = token(HEX, len(word), seed)
        assert cost(model.chars, word.encode()).bits < cost(model.chars, random_text).bits
    assert not cost(model.chars, word.encode()).encoded


@pytest.mark.parametrize(("alphabet", "bits"), [(HEX, 4.0), (BASE32, 5.0), (DIGITS, np.log2(10))])
@pytest.mark.parametrize("size", [16, 32, 63])
def test_random_text_costs_what_it_carries(model: Model, alphabet: str, bits: float, size: int) -> None:
    costs = [cost(model.chars, token(alphabet, size, seed)) for seed in range(30)]
    assert max(one.bits for one in costs) <= size * bits + 1e-9
    assert np.mean([one.bits for one in costs]) > size * bits * 0.85


@pytest.mark.parametrize("alphabet", [HEX, BASE32])
def test_random_labels_read_as_encoded_and_benign_ones_do_not(
    model: Model, benign: list[tuple[bytes, ...]], alphabet: str
) -> None:
    random_ones = [cost(model.chars, token(alphabet, 32, seed)).encoded for seed in range(300)]
    assert np.mean(random_ones) > 0.99
    labels = sorted({label for labels in benign for label in labels})
    assert np.mean([cost(model.chars, label).encoded for label in labels]) < 0.05


def test_repetition_is_the_dictionarys_gain(chars: CharModel) -> None:
    assert cost(chars, b"www").bits < 8
    assert not cost(chars, b"www").encoded


@given(st.binary(min_size=1, max_size=63))
def test_any_label_has_a_finite_cost(label: bytes) -> None:
    found = cost(TINY, label.lower())
    assert 0 <= found.bits <= 7 * len(label)


TINY = learn([(b"www",), (b"mail",), (b"www",), (b"www",)])


def test_what_is_seen_often_is_learned_and_nothing_with_a_newline() -> None:
    found = learn([(b"hq-printer",)] * 3 + [(b"once",)] + [(b"a\nb",)] * 9)
    assert set(found.common) == {b"hq-printer"}
    assert found.bits.shape == (SIZE, SIZE, SIZE)
    assert np.isfinite(found.bits).all()


def test_the_dictionary_is_bounded() -> None:
    found = learn([(b"host%d" % number,) for number in range(COMMON_LABELS + 50)] * 3)
    assert len(found.common) == COMMON_LABELS


def test_learning_is_the_same_for_the_same_names() -> None:
    names = [(b"www",), (b"mail", b"eu"), (b"cdn",)] * 3
    assert learn(names).bits.tobytes() == learn(list(reversed(names))).bits.tobytes()
    assert learn(names).common == learn(list(reversed(names))).common


def test_ten_thousand_learned_hex_labels_do_not_make_hex_cheap(
    benign: list[tuple[bytes, ...]], chars: CharModel
) -> None:
    """A patient attacker's labels among those that are taken for normal; 32 digits each, and shorter ones."""
    for size in (32, 48):
        attack = [(hashlib.sha256(b"%d" % number).hexdigest()[:size].encode(),) for number in range(10_000)]
        poisoned = learn([*benign, *attack])
        fresh = [hashlib.sha256(b"fresh %d" % number).hexdigest()[:size].encode() for number in range(200)]
        before, after = (sum(cost(one, label).bits for label in fresh) for one in (chars, poisoned))
        assert after > 0.95 * before
        assert np.mean([cost(poisoned, label).encoded for label in fresh]) > 0.95


@pytest.mark.slow
def test_live_names_teach_words_and_no_alphabet(benign: list[tuple[bytes, ...]], chars: CharModel) -> None:
    """Letters alone look most like words: 200 random labels taken as trusted would make theirs cheap for good."""
    letters = "abcdefghijklmnop"
    attack = [(token(letters, 32, seed),) for seed in range(1000)]
    fresh = [token(letters, 32, seed) for seed in range(2000, 2100)]
    live = learn(benign, attack)
    assert np.mean([cost(live, label).encoded for label in fresh]) > 0.9
    assert np.mean([cost(learn([*benign, *attack]), label).encoded for label in fresh]) < 0.05
    words = [(b"buchhaltung-drucker-%d" % number,) for number in range(200)]
    known = learn(benign, words)
    assert cost(known, b"buchhaltung-drucker-777").bits < 0.7 * cost(chars, b"buchhaltung-drucker-777").bits


def below_the_margin(chars: CharModel, count: int, size: int = 24, seed: int = 1) -> list[bytes]:
    """Labels of letters that are as random as may be without reading as encoded, by somebody who has the model."""
    draw, out = np.random.default_rng(seed), set[bytes]()
    chances = np.exp2(-chars.bits[:, :, :26].astype(float) / 3)
    steps = np.cumsum(chances / chances.sum(axis=2, keepdims=True), axis=2)
    while len(out) < count:
        before, last, label = EDGE, EDGE, bytearray()
        for _ in range(size):
            letter = min(int(np.searchsorted(steps[before, last], draw.random())), 25)
            label.append(SYMBOLS[letter])
            before, last = last, letter
        out.add(bytes(label))
    found = sorted(out)
    return [label for label, encoded in zip(found, chars.encoded(found).tolist(), strict=True) if not encoded]


def test_labels_just_below_the_margin_do_not_drag_random_ones_below_it(
    benign: list[tuple[bytes, ...]], chars: CharModel
) -> None:
    """They pass as words, so a week of them is taken for normal; nine in ten random labels passed after that."""
    live = learn(benign, [(label,) for label in below_the_margin(chars, 6_000)])
    fresh = [token("abcdefghijklmnopqrstuvwxyz", 24, seed) for seed in range(1000)]
    assert chars.encoded(fresh).mean() > 0.98
    assert live.encoded(fresh).mean() > 0.93


def test_the_dictionary_takes_no_live_label_that_random_text_explains_better(
    benign: list[tuple[bytes, ...]], chars: CharModel
) -> None:
    key, word = b"q7x2kz9w4vbn8mty", b"buchhaltung"
    live = learn(benign, [(key, b"a"), (key, b"b"), (key, b"c"), (word, b"d"), (word, b"e"), (word, b"f")])
    assert word in live.common and key not in live.common
    assert key in learn([*benign, (key,), (key, b"x"), (key, b"y")]).common, "a trusted one is taken"


def test_a_label_learned_a_hundred_times_teaches_the_trigrams_once() -> None:
    once, often = learn([(b"zqxj",)]), learn([(b"zqxj",)] * 100)
    assert once.bits.tobytes() == often.bits.tobytes()
    assert b"zqxj" in often.common
    assert b"zqxj" not in once.common


def test_only_labels_that_read_as_encoded_count_as_data(model: Model) -> None:
    data = token(HEX, 32, 1)
    assert encoded_bits(model.chars, [b"www", b"mail"]) == 0
    assert encoded_bits(model.chars, [b"www", data]) == cost(model.chars, data).bits
