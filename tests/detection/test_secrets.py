"""What names decode to: previews for people, and secrets that one name gives away."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.detection.secrets import decodings, preview, secret_in
from agents.learning.baseline import benign_names, golden_names, lookalike_names

EVIL = (b"evil", b"test")
SECRETS = {
    b"AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY": "a cloud access key",
    b"password=correct horse": "a password or token",
    b"root:x:0:0:root:/root:/bin/sh": "a line of a password file",
    b"-----BEGIN RSA PRIVATE KEY-----\nMIIE": "a private key or certificate",
    b'{"alg":"HS256","typ":"JWT"}': "a JSON Web Token",
    b"DB_HOST=10.0.0.5;DB_NAME=shop": "a setting or field",
    b'{"card": "4111111111111111"}': "a JSON object",
}
CODES: dict[str, Callable[[bytes], str]] = {
    "hex": bytes.hex,
    "base32": lambda data: base64.b32encode(data).decode().rstrip("=").lower(),
    "base64": lambda data: base64.b64encode(data).decode().rstrip("="),
    "base64url": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
}


def labels(text: str) -> list[bytes]:
    return [text[at : at + 60].encode() for at in range(0, len(text), 60)]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("data", SECRETS)
def test_a_secret_in_one_name_is_told(data: bytes, code: str) -> None:
    assert secret_in(labels(CODES[code](data)), EVIL).startswith(f"{SECRETS[data]} in ")


def test_plain_secrets_and_call_backs() -> None:
    assert "JSON Web Token" in secret_in([b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"], EVIL)
    assert "access key" in secret_in([b"AKIAIOSFODNN7EXAMPLE"], EVIL)
    assert "password" in secret_in([b"password=hunter2"], EVIL)
    assert "call-back" in secret_in([b"c59h2k"], (b"oastify", b"com"))
    assert secret_in([], (b"oastify", b"com")) == ""


def test_no_benign_name_gives_a_secret_away() -> None:
    for name in (*benign_names(), *golden_names(), *lookalike_names()):
        parts = name.encode().split(b".")
        assert secret_in(parts[:-2], parts[-2:]) == "", name


def test_random_names_seldom_do() -> None:
    rng = random.Random(1)
    told = sum(bool(secret_in(labels(CODES["base64url"](rng.randbytes(45))), EVIL)) for _ in range(20_000))
    assert told == 0


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=4))
def test_any_bytes_are_judged(parts: list[bytes]) -> None:
    assert isinstance(secret_in(parts, EVIL), str)
    assert preview([parts]).isascii()


@given(st.binary(min_size=8, max_size=60))
def test_each_code_reads_what_it_wrote(data: bytes) -> None:
    for code, encode in CODES.items():
        found = {decoded.data for decoded in decodings(encode(data).encode())}
        assert data in found or code == "base64"  # base64 that spells base64url's alphabet is read as either


def test_a_preview_shows_what_can_be_read() -> None:
    payload = CODES["hex"](b"\x00\x01session console (sirvimes)\x00").encode()
    assert preview([[payload]]) == "hex: session console (sirvimes)"
    assert preview([[b"www"], [b"mail"]]) == ""
