"""What the kernels pass by is never what the plain rules would have found: secrets, listed services; and numbering."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agents.core.column_kernels import numbered
from agents.core.columns import lowered
from agents.detection.known_services import KnownServices, services
from agents.detection.secrets import OAST, secret_in
from agents.dns.name import NAME_MAX, labels_of, split_domain, wire_of
from agents.dns.name_kernels import LABEL_MAX
from tests.support.prefilter import DOMAIN, may
from tests.support.wire_names import LABELS, LONGEST, wire_names

UNHURRIED = settings(deadline=None)


SAMPLES = [
    b"password=hunter22", b"api_key: 0123456789abcdef", b"-----BEGIN PRIVATE KEY-----", b"AKIAIOSFODNN7EXAMPLE",
    b'{"alg":"HS256"}', b"root:x:0:0:root:/root:/bin/bash", b"DB_HOST=10.0.0.5", b'{"user": "ann"}',
    b"AWS_SECRET_ACCESS_KEY=abcdefgh", b"secret=1", b"token = abc", b"root|web01|/etc/passwd", rb"CORP\svc_backup",
    b"ghp_" + b"k3J9xZ" * 6, b"sk-ant-" + b"k3J9xZ" * 6, b"ya29." + b"k3J9xZ" * 6, b"sg." + b"k3J9xZ" * 11,
    b"hvs." + b"k3J9xZ" * 5, b"r8_" + b"k3J9xZ" * 7, b"7312345678:AAH" + b"k3J9xZ" * 6,
]  # fmt: skip
CODES: dict[str, Callable[[bytes], bytes]] = {
    "hex": lambda data: data.hex().encode(),
    "HEX": lambda data: data.hex().upper().encode(),
    "base32": lambda data: base64.b32encode(data).rstrip(b"=").lower(),
    "BASE32": lambda data: base64.b32encode(data).rstrip(b"="),
    "padded": lambda data: base64.b32encode(data),
    "base64": lambda data: base64.b64encode(data).rstrip(b"="),
    "base64url": lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
    "plain": lambda data: data,
}
TEXT = st.text(string.printable, max_size=30).map(lambda text: text.encode("ascii"))


@st.composite
def secrets(draw: st.DrawFn) -> list[bytes]:
    """A secret among other text, in some code, cut into labels, other labels before and behind."""
    data = draw(st.sampled_from(SAMPLES))
    if draw(st.booleans()):
        data = draw(TEXT) + draw(st.sampled_from([b" ", b"\n", b";", b""])) + data + draw(TEXT)
    coded = draw(st.sampled_from(sorted(CODES)).map(CODES.__getitem__))(data)[: NAME_MAX - 60]
    size = draw(st.integers(1, LABEL_MAX))
    cut = [coded[at : at + size] for at in range(0, len(coded), size)]
    before, behind = draw(st.lists(LABELS, max_size=1)), draw(st.lists(LABELS, max_size=2))
    return [*before, *cut, *behind]


@settings(deadline=None, max_examples=600)
@given(secrets())
@example([b"eyJhbGciOiJIUzI1NiJ9"])
@example([b"x", b"AKIAIOSFODNN7EXAMPLE"])
@example([b"token=abc"])
@pytest.mark.slow
def test_no_secret_is_passed_by(subdomain: list[bytes]) -> None:
    if secret_in(subdomain, DOMAIN):
        assert may(subdomain)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(wire_names())
def test_nor_in_any_name(name: bytes) -> None:
    labels = labels_of(name)
    subdomain = labels[: len(split_domain(name)[0])]
    if secret_in(subdomain, DOMAIN):
        assert may(subdomain)


def test_every_secret_of_its_own_is_looked_at() -> None:
    """And the rules do find them: the property above holds for something."""
    found = 0
    for data in SAMPLES:
        for code in CODES.values():
            coded = code(data)
            labels = [coded[at : at + 50] for at in range(0, len(coded), 50)]
            if secret_in(labels, DOMAIN):
                found += 1
                assert may(labels) and may([b"x", *labels]) >= bool(secret_in([b"x", *labels], DOMAIN))
    assert found > 50


def test_few_ordinary_names_are_looked_at() -> None:
    rng = random.Random(1)
    names = [rng.choice(["www", "mail", "static-cdn", "img", "api"]) + str(rng.randrange(99)) for _ in range(500)]
    codes = [base64.b32encode(rng.randbytes(25)).decode().lower() for _ in range(500)]
    assert sum(may([name.encode()]) for name in names) == 0
    assert sum(may([code.encode()]) for code in codes) < 25, "random data is no text"


def test_call_back_domains_are_domains() -> None:
    """The detector tells them by the registered domain: each must be one."""
    for domain in OAST:
        labels = domain.encode().split(b".")
        assert split_domain(wire_of([b"x1", *labels]))[1] == tuple(labels)


LISTED = sorted(services())


@st.composite
def near_services(draw: st.DrawFn) -> bytes:
    """Names below listed suffixes, and those that only look like it."""
    suffix = list(draw(st.sampled_from(LISTED)))
    change = draw(st.integers(0, 4))
    if change == 1:
        suffix[0] = b"x" + suffix[0]
    elif change == 2:
        suffix = suffix[1:]
    elif change == 3:
        suffix.append(b"com")
    labels = [*draw(st.lists(LABELS, max_size=3)), *suffix]
    while len(wire_of(labels)) > NAME_MAX:
        labels.pop(0)
    return wire_of(labels).lower()


@pytest.mark.slow
@UNHURRIED
@given(st.lists(st.one_of(near_services(), wire_names()), max_size=20))
@example(LONGEST)
def test_every_listed_service_is_found(names: list[bytes]) -> None:
    column = lowered(names)
    assert KnownServices().factors(column).tolist() == [plain_factor(name) for name in column]


def plain_factor(name: bytes) -> float:
    """The longest listed suffix at label boundaries decides, if the rest has its shape."""
    labels, listed = labels_of(name), services()
    for cut in range(len(labels)):
        found = listed.get(labels[cut:])
        if found is not None:
            rest = b".".join(labels[:cut])
            return found.factor if found.shape is None or found.shape.fullmatch(rest) else 1.0
    return 1.0


@UNHURRIED
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=200))
def test_keys_are_numbered_in_the_order_of_their_first_row(keys: list[int]) -> None:
    count = len(keys)
    codes, firsts = np.empty(count, np.int32), np.empty(count, np.int64)
    slots = np.full(1 << max(2 * count, 1).bit_length(), -1, np.int32)
    differ = numbered(np.array(keys, np.uint64), slots, codes, firsts)
    order = list(dict.fromkeys(keys))
    assert differ == len(order)
    assert codes.tolist() == [order.index(key) for key in keys]
    assert [keys[row] for row in firsts[:differ].tolist()] == order
    assert firsts[:differ].tolist() == [keys.index(key) for key in order]
