"""Domain names: presentation and wire form, registered domain, defanging. Safe for any byte.

Wire form here: length-prefixed labels (RFC 1035 section 3.1) without the final root byte. Presentation form:
RFC 1035 section 5.1, with `\\DDD` for bytes outside printable ASCII and `\\.`, `\\` for those two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

from agents.core.errors import NameFormatError

MAX_NAME = 254
"""Longest wire name without the root byte (RFC 1035 section 2.3.4: 255 octets with it)."""
MAX_LABEL = 63
"""RFC 1035 section 2.3.4."""
TOP_LEVEL_MAX = 24
"""Longer last labels are no top level; the root zone's longest is 24 bytes, an A-label."""
ROOT = "."
"""Presentation form of the root."""

_ESCAPED = {i: f"\\{i:03d}" for i in range(256) if not 0x21 <= i <= 0x7E} | {0x2E: "\\.", 0x5C: "\\\\"}
_LABEL_TEXT = [_ESCAPED.get(i, chr(i)) for i in range(256)]
_SIZE_BYTE = [bytes((size,)) for size in range(256)]
_DECIMALS = re.compile(rb"\\(25[0-5]|2[0-4][0-9]|[01][0-9]{2})")

_PLAIN = bytes(set(range(0x21, 0x7F)) - {0x2E, 0x5C})


def labels_of(wire: bytes) -> tuple[bytes, ...]:
    """Split a wire name into raw labels, leftmost first. Raises NameFormatError."""
    labels = []
    at, end = 0, len(wire)
    while at < end:
        size = wire[at]
        if not 0 < size <= MAX_LABEL or at + 1 + size > end:
            raise NameFormatError(f"cannot split wire name: bad label length {size} at byte {at}")
        labels.append(wire[at + 1 : at + 1 + size])
        at += 1 + size
    return tuple(labels)


def wire_of(labels: Sequence[bytes]) -> bytes:
    """Join raw labels into a wire name."""
    return b"".join([_SIZE_BYTE[len(label)] + label for label in labels])


def label_text(label: bytes) -> str:
    """Presentation form of one label."""
    if not label.translate(None, _PLAIN):
        return label.decode("ascii")
    return "".join([_LABEL_TEXT[byte] for byte in label])


def to_text(wire: bytes) -> str:
    """Presentation form of a wire name, no final dot; the root is "."."""
    return ".".join([label_text(label) for label in labels_of(wire)]) or ROOT


def from_text(text: str) -> bytes:
    """Wire form of a presentation name (a final dot is allowed). Raises NameFormatError."""
    return _checked(_split_text(text), text)


def _split_text(text: str) -> list[bytes]:
    if "\\" in text or not text.isascii():
        return _parse_escaped(text)
    body = text[:-1] if text.endswith(".") else text
    return body.encode("ascii").split(b".") if body else []


def _checked(labels: Sequence[bytes], text: str) -> bytes:
    if b"" in labels or max(map(len, labels), default=0) > MAX_LABEL:
        raise NameFormatError(f"cannot parse name {text[:80]!r}: a label is empty or longer than {MAX_LABEL} bytes")
    wire = wire_of(labels)
    if len(wire) > MAX_NAME:
        raise NameFormatError(f"cannot parse name {text[:80]!r}: longer than 255 octets")
    return wire


def from_text_folded(text: str) -> bytes:
    """As from_text, but a label too long for the wire is cut into pieces of 63 bytes, as an encoder would send it.

    For names that people write down to be scored; a 64-digit hash is the usual one.
    """
    labels = _split_text(text)
    if max(map(len, labels), default=0) <= MAX_LABEL:
        return _checked(labels, text)
    folded = [label[i : i + MAX_LABEL] for label in labels for i in range(0, max(len(label), 1), MAX_LABEL)]
    return _checked(folded, text)


def _decimal(match: re.Match[bytes]) -> bytes:
    return _SIZE_BYTE[int(match[1])]


def _parse_escaped(text: str) -> list[bytes]:
    try:
        raw = text.encode("utf-8", "surrogateescape")  # bytes of a command line or file that are no UTF-8
    except UnicodeEncodeError:
        raise NameFormatError(f"cannot parse name {text[:80]!r}: it is not Unicode") from None
    if raw.count(b"\\") == len(_DECIMALS.findall(raw)):
        # Only \DDD, as tunnels' binary names have them: no escape can hide a dot or another escape.
        body = raw[:-1] if raw.endswith(b".") else raw
        return [_DECIMALS.sub(_decimal, label) if b"\\" in label else label for label in body.split(b".")]
    labels, label, at = [], bytearray(), 0
    while at < len(raw):
        byte = raw[at]
        if byte == 0x5C:
            digits = raw[at + 1 : at + 4]
            if len(digits) == 3 and digits.isdigit():
                if int(digits) > 255:
                    raise NameFormatError(f"cannot parse name {text[:80]!r}: \\{digits.decode()} is no byte")
                label.append(int(digits))
                at += 4
            elif at + 1 < len(raw):
                label.append(raw[at + 1])
                at += 2
            else:
                raise NameFormatError(f"cannot parse name {text[:80]!r}: it ends in a backslash")
        elif byte == 0x2E:
            labels.append(bytes(label))
            label = bytearray()
            at += 1
        else:
            label.append(byte)
            at += 1
    if label or not raw.endswith(b"."):
        labels.append(bytes(label))
    return labels


@lru_cache(maxsize=1)
def rules() -> dict[bytes, str]:
    """Rules of the bundled public suffix list by lower-case dotted A-label suffix.

    The value is a set of letters: "r" rule, "w" a wildcard below, "e" exception, "" only a parent of rules.
    """
    found: dict[bytes, str] = {}
    text = resources.files("agents.dns").joinpath("baseline/public_suffix_list.dat").read_text("utf-8")
    for line in text.splitlines():
        if not line.strip() or line.startswith("//"):
            continue
        rule = line.split()[0].lower()
        kind = {"!": "e", "*": "w"}.get(rule[0], "r")
        name = rule.lstrip("!").removeprefix("*.").encode("idna")
        found[name] = found.get(name, "") + kind
        while b"." in name:
            name = name.partition(b".")[2]
            found.setdefault(name, "")
    return found


def suffix_length(labels: Sequence[bytes]) -> int:
    """Number of labels in the public suffix of lower-case raw labels (publicsuffix.org/list, "Algorithm").

    An unlisted top level counts as a suffix of one label, as the algorithm's default rule `*` says.
    """
    listed = rules()
    best, name = 1, b""
    for taken, label in enumerate(reversed(labels), start=1):
        if b"." in label:
            break
        name = label + b"." + name if name else label
        kind = listed.get(name)
        if kind is None:
            break
        if "e" in kind:
            return taken - 1
        if "r" in kind:
            best = taken
        if "w" in kind:
            best = taken + 1
    return min(best, len(labels))


@lru_cache(maxsize=65536)
def split_domain(wire: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Split a wire name into (subdomain labels, registered-domain labels), both lower case.

    The registered domain is the public suffix and one label more; a name that is itself a public suffix, or the
    root, is its own registered domain. A name that ends in what no top level can be (data sent straight to a
    server, without any domain) has none: all its labels are subdomain.
    """
    labels = labels_of(wire.lower())
    if labels and not _could_be_top(labels[-1]):
        return labels, ()
    keep = min(suffix_length(labels) + 1, len(labels)) if labels else 0
    cut = len(labels) - keep
    return labels[:cut], labels[cut:]


def _could_be_top(label: bytes) -> bool:
    """Top levels are alphabetic (RFC 3696 section 2) or A-labels; the longest alphabetic one has 18 letters."""
    return label.startswith(b"xn--") or (label.isalpha() and len(label) <= TOP_LEVEL_MAX)


def domain_text(wire: bytes) -> str:
    """Registered domain of a wire name, lower-case presentation form; "." where there is none."""
    return ".".join([label_text(label) for label in split_domain(wire)[1]]) or ROOT
