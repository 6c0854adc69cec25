"""Text encoded in names: a readable preview, and secrets in a single name."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from agents.scoring.access_tokens import TOKENS
from agents.scoring.lexical_kernels import SECRET_BYTES

PREVIEW_BYTES = 80
READABLE_RUN = 10
"""Decoded data is shown if it has at least this many printable bytes in a row."""
_RUN = re.compile(rb"[\x20-\x7e\t\n\r]{%d,}" % READABLE_RUN)
_HEX, _BASE32, _BASE64, _BASE64URL = (
    re.compile(b"[%s]+" % letters) for letters in (rb"0-9a-f", rb"a-z2-7", rb"A-Za-z0-9+/", rb"A-Za-z0-9_-")
)
_TEXT = re.compile(rb"[\x20-\x7e\t\n\r]+")

OAST = (
    "interact.sh oast.pro oast.live oast.site oast.online oast.fun oast.me oastify.com burpcollaborator.net dnslog.cn "
    "ceye.io requestrepo.com zhack.ca bxss.me eyes.sh"
).split()
"""Domains of call-back services for out-of-band security testing, as of 2026-11-20."""
_OAST = frozenset(tuple(domain.encode().split(b".")) for domain in OAST)


@dataclass(frozen=True, slots=True)
class Decoded:
    """One reading of a name's payload."""

    code: str  # hex, base32, base64, base64url
    data: bytes


def decodings(payload: bytes) -> Iterator[Decoded]:
    """All readings of a payload (labels joined) that its alphabet allows (RFC 4648)."""
    body = payload.rstrip(b"=")
    if len(body) < SECRET_BYTES:
        return
    lower = body.lower()
    if len(lower) % 2 == 0 and _HEX.fullmatch(lower):
        yield Decoded("hex", binascii.unhexlify(lower))
    if len(lower) % 8 in (0, 2, 4, 5, 7) and _BASE32.fullmatch(lower):
        yield Decoded("base32", base64.b32decode(lower.upper() + b"=" * (-len(lower) % 8)))
    if len(body) % 4 != 1 and _BASE64.fullmatch(body):
        yield Decoded("base64", base64.b64decode(body + b"=" * (-len(body) % 4)))
    elif len(body) % 4 != 1 and _BASE64URL.fullmatch(body):
        yield Decoded("base64url", base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))


def preview(payloads: Sequence[Sequence[bytes]]) -> str:
    """The longest readable text that one of the payloads (labels each) decodes to, with its code; "" if none."""
    best = ("", b"")
    for labels in payloads:
        for joined in (b"".join(labels), *labels):
            for decoded in decodings(joined):
                runs = _RUN.findall(decoded.data)
                longest = max(runs, key=len, default=b"")
                if len(longest) > len(best[1]) and (len(runs) > 0 and len(longest) * 2 >= min(len(decoded.data), 40)):
                    best = (decoded.code, longest)
    return f"{best[0]}: {best[1][:PREVIEW_BYTES].decode('ascii')}" if best[1] else ""


_USER, _HOST = rb"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?", rb"[A-Za-z0-9][A-Za-z0-9.-]{0,62}"
_PATH = rb"(?:/(?:etc|home|root|tmp|opt|srv|var|usr|Users)/[^\s:|;,]|~/[^\s:|;,]|[A-Za-z]:\\[^\s:|;,])"
_BETWEEN = rb"[:|;,\t\n ]{1,2}"
_KEY = rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
_MARKS: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("a private key or certificate", re.compile(rb"-----BEGIN [A-Z ]+-----")),
    ("a cloud access key", re.compile(_KEY + rb"|AWS_(?:SECRET|ACCESS|SESSION)[A-Z_]*\s*[=:]")),
    ("a JSON Web Token", re.compile(rb'\{"(?:alg|typ|kid)"\s*:')),
    (
        "a password or token",
        re.compile(
            rb"(?i)(?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key|credential|auth)[a-z0-9_.-]{0,24}\s*[=:]\s*\S{3,}"
        ),
    ),
    ("a line of a password file", re.compile(rb"[a-z_][a-z0-9_-]{0,31}:[^:\s]{0,128}:\d{1,6}:\d{1,6}:")),
    ("a setting or field", re.compile(rb"(?:^|[\s;&,])[A-Za-z_][A-Za-z0-9_.]{2,40}=[^\s=]{4,}")),
    ("a JSON object", re.compile(rb'\{\s*"[A-Za-z0-9_]{2,40}"\s*:\s*\S')),
    ("a user, a host and a path", re.compile(rb"^%b(?:@|%b)%b%b%b" % (_USER, _BETWEEN, _HOST, _BETWEEN, _PATH))),
    ("a user of a domain", re.compile(rb"(?:^|[|;, ])[A-Z][A-Z0-9-]{1,14}\\[A-Za-z][A-Za-z0-9_.$-]{1,30}(?:$|[|;, ])")),
    (
        "a path of a user or of the system",
        re.compile(
            rb"^(?![A-Za-z]+://)[^/\\]{0,40}(?:/(?:etc|root)/[a-z][\w.-]+|/(?:home|Users)/[\w.-]+/[\w.-]"
            rb"|[A-Za-z]:\\(?:Users|Windows|ProgramData|Documents and Settings)\\)"
        ),
    ),
)
_PLAIN: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("a JSON Web Token", re.compile(rb"(?i)(?:^|\.)eyJ(?:hbGci|0eXAi|raWQi)[A-Za-z0-9_-]{6,}")),
    ("a cloud access key", re.compile(rb"(?:^|[.=_-])(?:AKIA|ASIA)[0-9A-Z]{16}(?:$|[.=_-])")),
    (
        "a password or token",
        re.compile(rb"(?i)(?:^|\.)(?:pass(?:word|wd)?|secret|token|api[_-]?key|aws_[a-z_]+)=[^.]{3,}"),
    ),
)
_TOKENS = re.compile(
    "|".join(f"(?P<t{n}>(?<![a-z0-9]){re.escape(one.begins)}{one.rest})" for n, one in enumerate(TOKENS)).encode(),
    re.IGNORECASE,
)
_OTHER_TOKENS: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("Telegram", re.compile(rb"(?i)(?<![0-9a-z])[0-9]{8,10}:AA[a-z0-9_-]{33}")),
    ("Discord", re.compile(rb"(?<![A-Za-z0-9])[MNO][A-Za-z0-9_-]{22,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}")),
    ("Slack", re.compile(rb"(?i)services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{24}")),
    ("Discord", re.compile(rb"(?i)api/webhooks/[0-9]{17,20}/[A-Za-z0-9_-]{60,}")),
    ("Azure", re.compile(rb"(?i)(?<![a-z0-9_~.-])[a-z0-9_~.-]{3}[0-9]q~[a-z0-9_~.-]{31,34}")),
)
"""Tokens that do not begin with letters of their own."""
_HASH = re.compile(rb"(?i)[0-9a-f]{32}")
"""What begins with so many hex digits is the hash of something, whatever its first letters are."""
CHANGES_MIN = 3
"""Changes between letters and digits, or between cases, that a token has at least: words and numbers have fewer."""


def _provider_in(text: bytes) -> str:
    """The provider of the access token in a text, letters of any case, or ""."""
    for found in _TOKENS.finditer(text):
        token = TOKENS[int((found.lastgroup or "t0")[1:])]
        if changes_in(found[0][len(token.begins) :]) >= CHANGES_MIN and not _HASH.match(found[0]):
            return token.provider
    return next((provider for provider, pattern in _OTHER_TOKENS if pattern.search(text)), "")


def changes_in(text: bytes) -> int:
    """Changes between letters and digits, or between cases, in a text."""
    kinds = [(byte in b"0123456789") * 2 + (65 <= byte <= 90) for byte in text if byte not in b"-_."]
    return sum(one != other for one, other in pairwise(kinds))


def secret_in(subdomain: Sequence[bytes], domain: Sequence[bytes]) -> str:
    """The secret in a single name, in words, or "". Both arguments are raw labels in the case they were sent."""
    if subdomain and tuple(label.lower() for label in domain) in _OAST:
        return f"a call-back name of {b'.'.join(domain).decode('ascii').lower()}, a service for out-of-band tests"
    text = b".".join(subdomain)
    if len(text) < SECRET_BYTES:
        return ""
    for what, mark in _PLAIN:
        if mark.search(text):
            return f"{what} in plain text"
    joined = (b"".join(subdomain[at:]) for at in range(len(subdomain)))  # a token may be cut into labels
    if provider := next(filter(None, map(_provider_in, (text, *joined))), ""):
        return f"an access token ({provider}) in plain text"
    for payload in _payloads(subdomain):
        for decoded in decodings(payload):
            found = _secret_text(decoded.data)
            if found:
                return f"{found} in {decoded.code}"
    return ""


def _payloads(subdomain: Sequence[bytes]) -> Iterator[bytes]:
    """Parts of a name that may hold one encoded text: all labels joined, all but the last ones, each long label."""
    joined = b"".join(subdomain)
    for end in range(len(subdomain) - 1, -1, -1):
        if len(joined) < SECRET_BYTES:
            break
        yield joined
        joined = joined[: len(joined) - len(subdomain[end])]
    yield from (label for label in subdomain[1:] if len(label) >= 2 * SECRET_BYTES)


def _secret_text(data: bytes) -> str:
    if len(data) < SECRET_BYTES or not _TEXT.fullmatch(data):
        return ""
    if provider := _provider_in(data):
        return f"an access token ({provider})"
    return next((what for what, mark in _MARKS if mark.search(data)), "")
