"""What names decode to: previews for people, and secrets that one name gives away."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.detection.secrets import CHANGES_MIN, changes_in, decodings, preview, secret_in
from agents.learning.baseline import benign_names, golden_names, lookalike_names
from agents.scoring.access_tokens import TOKENS, Token
from tests.support.prefilter import may

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


PLACES = [
    (b"alice@build-7:/home/alice", "a user, a host and a path"),
    (b"root|web01|/etc/passwd", "a user, a host and a path"),
    (b"svc-ci;runner3;~/.ssh/id_rsa", "a user, a host and a path"),
    (rb"bob,WS-0017,C:\Users\bob", "a user, a host and a path"),
    (rb"C:\Users\bob\Documents", "a path of a user or of the system"),
    (b"/etc/shadow", "a path of a user or of the system"),
    (b"/home/alice/.aws", "a path of a user or of the system"),
    (rb"CORP\svc_backup", "a user of a domain"),
    (rb"WS-17|CORP\bob", "a user of a domain"),
]
NO_PLACES = [
    b"https://example.com/home/alice/x",
    b"example.com/index.html",
    b"alice@example.com",
    b"1/2/2026 10:30",
    b"a\\b",
]


def token(form: Token, rng: random.Random) -> str:
    """A made-up token of a form: each class of characters of its pattern, as often as it says or once more."""
    text = re.sub(r"\[([^]]+)\]\{(\d+),?\}", lambda found: _drawn(found[1], int(found[2]), rng), form.rest)
    return form.begins + re.sub(r"\[([^]]+)\]", lambda found: _drawn(found[1], 1, rng), text.replace(r"\.?", "."))


def _drawn(characters: str, count: int, rng: random.Random) -> str:
    """Letters and digits of a class."""
    spans = re.findall(r"(\w)-(\w)", characters)
    letters = [chr(code) for first, last in spans for code in range(ord(first), ord(last) + 1)]
    mixed = [letter.upper() if characters.startswith("a-z") and rng.random() < 0.4 else letter for letter in letters]
    return "".join(rng.choice(mixed) for _ in range(count))


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


@pytest.mark.parametrize("form", TOKENS, ids=lambda form: form.begins)
@pytest.mark.parametrize("fold", [str, str.lower, str.upper])
def test_an_access_token_is_known_in_any_case_cut_anywhere(form: Token, fold: Callable[[str], str]) -> None:
    rng = random.Random(form.begins)
    for _ in range(5):
        folded = (
            token(form, rng) if form.begins == "hf_" else fold(token(form, rng))
        )  # letters alone, in one case: words
        if changes_in(folded[len(form.begins) :].encode()) < CHANGES_MIN:  # as words have; few tokens are so
            continue
        size = rng.randrange(5, 63)
        cut = [folded[at : at + size].encode() for at in range(0, len(folded), size)]
        for one in ([b"x1", *cut], [part.encode() for part in folded.split(".") if len(part) < 64], labels(folded)):
            if one:
                said = secret_in(one, EVIL)
                assert said in (f"an access token ({form.provider}) in plain text", "a cloud access key in plain text")
                assert may(one)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("form", TOKENS, ids=lambda form: form.begins)
def test_and_encoded(form: Token, code: str) -> None:
    coded = labels(CODES[code](token(form, random.Random(1)).encode()))
    assert f"({form.provider})" in secret_in(coded, EVIL) and may(coded)


@pytest.mark.parametrize(
    ("text", "provider"),
    [
        ("7312345678:AAH" + "k3J-9x" * 5 + "Zb", "Telegram"),
        ("MTA4" + "k3J9x" * 4 + "." + "Gx1_aB" + "." + "k3J-9x" * 5, "Discord"),
        ("https://hooks.slack.com/services/T01ABCDEF/B02ABCDEF/" + "k3J9xz" * 4, "Slack"),
        ("a1B8Q~" + "k3J9x." * 5 + "Zb", "Azure"),
    ],
)
def test_tokens_without_letters_of_their_own(text: str, provider: str) -> None:
    for one in (labels(text), labels(text.encode().hex()), [part.encode() for part in text.split(".") if part]):
        if max(map(len, one)) < 64:
            assert provider in secret_in(one, EVIL) and may(one)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(("data", "what"), PLACES)
def test_users_hosts_and_paths_are_told(data: bytes, what: str, code: str) -> None:
    coded = labels(CODES[code](data))
    assert secret_in(coded, EVIL).startswith(f"{what} in ") and may(coded)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("data", NO_PLACES)
def test_addresses_of_pages_and_people_are_not(data: bytes, code: str) -> None:
    assert secret_in(labels(CODES[code](data)), EVIL) == ""


@pytest.mark.parametrize(
    "name",
    [
        "asia-northeast1-docker.pkg.dev.example.com", "asiapacificsoutheastregional.example.com",
        "task-scheduler-production-eu-central.example.com", "key-management-service-frontend.example.com",
        "disk-encryption-sets-westeurope-01.example.com", "npm_packages_mirror_internal_registry_1.example.com",
        "sg.prod-cache-0001-eu-west-1a.example.com", "dapiserver-production-canary-01.example.com",
    ],
)  # fmt: skip
def test_words_that_begin_like_a_token_are_none(name: str) -> None:
    parts = name.encode().split(b".")
    assert secret_in(parts[:-2], parts[-2:]) == ""


@pytest.mark.parametrize("form", [form for form in TOKENS if set(form.begins) <= set("0123456789abcdef")])
def test_the_hash_of_something_is_no_token(form: Token) -> None:
    rng = random.Random(form.begins)
    for _ in range(50):
        code = f"{form.begins}{rng.randbytes(32).hex()}"[: len(form.begins) + 58]
        assert secret_in([code.encode(), b"files"], EVIL) == ""


@pytest.mark.slow
def test_no_benign_name_gives_a_secret_away() -> None:
    for name in (*benign_names(), *golden_names(), *lookalike_names()):
        parts = name.encode().split(b".")
        assert secret_in(parts[:-2], parts[-2:]) == "", name


@pytest.mark.slow
def test_random_names_seldom_do() -> None:
    rng = random.Random(1)
    told = sum(bool(secret_in(labels(CODES["base64url"](rng.randbytes(45))), EVIL)) for _ in range(5_000))
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
