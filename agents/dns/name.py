"""Single domain names and columns of them: wire and presentation form, registered domain. Safe for any byte.

Wire form here: length-prefixed labels (RFC 1035 section 3.1) without the final root byte. Presentation form:
RFC 1035 section 5.1, with `\\DDD` for bytes outside printable ASCII, `\\.` for a dot and `\\\\` for a backslash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import resources
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import slots_of
from agents.core.columns import Names, lowered, packed
from agents.core.errors import NameFormatError
from agents.dns import name_kernels
from agents.dns.name_kernels import LABEL_MAX

NAME_MAX = 254
"""Longest wire name without the root byte (RFC 1035 section 2.3.4: 255 octets with it)."""
ROOT = "."
"""Presentation form of the root."""

_SIZE_BYTE = [bytes((size,)) for size in range(256)]
_DECIMALS = re.compile(rb"\\(25[0-5]|2[0-4][0-9]|[01][0-9]{2})")


def labels_of(wire: bytes) -> tuple[bytes, ...]:
    """Split a wire name into raw labels, leftmost first. Raises NameFormatError."""
    labels = []
    at, end = 0, len(wire)
    while at < end:
        size = wire[at]
        if not 0 < size <= LABEL_MAX or at + 1 + size > end:
            raise NameFormatError(f"cannot split wire name: bad label length {size} at byte {at}")
        labels.append(wire[at + 1 : at + 1 + size])
        at += 1 + size
    return tuple(labels)


def wire_of(labels: Sequence[bytes]) -> bytes:
    """Join raw labels into a wire name."""
    return b"".join([_SIZE_BYTE[len(label)] + label for label in labels])


def from_text(text: str) -> bytes:
    """Wire form of a presentation name (a final dot is allowed). Raises NameFormatError."""
    return _checked(_split_text(text), text)


def _split_text(text: str) -> list[bytes]:
    if "\\" in text or not text.isascii():
        return _parse_escaped(text)
    body = text[:-1] if text.endswith(".") else text
    return body.encode("ascii").split(b".") if body else []


def _checked(labels: Sequence[bytes], text: str) -> bytes:
    if b"" in labels or max(map(len, labels), default=0) > LABEL_MAX:
        raise NameFormatError(f"cannot parse name {text[:80]!r}: a label is empty or longer than {LABEL_MAX} bytes")
    wire = wire_of(labels)
    if len(wire) > NAME_MAX:
        raise NameFormatError(f"cannot parse name {text[:80]!r}: longer than 255 octets")
    return wire


def from_text_folded(text: str) -> bytes:
    """Like from_text, but a label too long for the wire is cut into labels of 63 bytes, as an encoder would send it.

    For names that people enter to be scored; a hash of 64 digits is the usual case.
    """
    labels = _split_text(text)
    if max(map(len, labels), default=0) <= LABEL_MAX:
        return _checked(labels, text)
    folded = [label[i : i + LABEL_MAX] for label in labels for i in range(0, max(len(label), 1), LABEL_MAX)]
    return _checked(folded, text)


def _decimal(match: re.Match[bytes]) -> bytes:
    return _SIZE_BYTE[int(match[1])]


def _parse_escaped(text: str) -> list[bytes]:
    try:
        raw = text.encode("utf-8", "surrogateescape")  # bytes of a command line or file that are not UTF-8
    except UnicodeEncodeError:
        raise NameFormatError(f"cannot parse name {text[:80]!r}: it is not Unicode") from None
    if raw.count(b"\\") == len(_DECIMALS.findall(raw)):
        # All escapes are \DDD, as in tunnels' binary names: they cannot hide a dot or another escape.
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


def to_text(wire: bytes) -> str:
    """Presentation form of a wire name without a final dot; the root is ".". Raises NameFormatError."""
    return texts(packed([wire]))[0]


def packed_texts(names: Names, cuts: NDArray[np.int64] | None = None) -> Names:
    """The texts of n wire names as one packed column of ASCII, each from its cuts[i]-th byte on (default: all).

    A cut is the beginning of a label, or the name's length for the root. Raises NameFormatError.
    """
    if cuts is None:
        cuts = np.zeros(len(names), np.int64)
    starts = np.empty(len(names) + 1, np.int64)
    bad = name_kernels.sizes(names.array, names.starts, cuts, starts)
    if bad >= 0:
        labels_of(names[bad][cuts[bad] :])
    out = np.empty(starts[-1], np.uint8)
    name_kernels.write_texts(names.array, names.starts, cuts, out)
    return Names(out.tobytes(), starts)


def texts(names: Names, cuts: NDArray[np.int64] | None = None) -> list[str]:
    """Like packed_texts, as one string a name."""
    column = packed_texts(names, cuts)
    text = column.data.decode("ascii")
    return [text[start:end] for start, end in pairwise(column.starts.tolist())]


def wires_of(texts: Sequence[str]) -> Names:
    """The wire forms of n presentation names as one packed column. Raises NameFormatError for the first bad one."""
    text = "".join(["." + one for one in texts])
    if "\\" in text or ".." in text or text.endswith(".") or not text.isascii():  # escapes; final dots, empty labels
        return packed([from_text(one) for one in texts])
    data = np.frombuffer(text.encode("ascii"), np.uint8).copy()
    starts = np.fromiter(accumulate((len(one) + 1 for one in texts), initial=0), np.int64, len(texts) + 1)
    dots = np.flatnonzero(data == ord("."))
    sizes = np.diff(dots, append=len(data)) - 1
    if np.max(sizes, initial=0) > LABEL_MAX or np.max(np.diff(starts), initial=0) > NAME_MAX:
        return packed([from_text(one) for one in texts])
    data[dots] = sizes  # each label has one dot before it, in the place of its length
    return Names(data.tobytes(), starts)


class Rules(NamedTuple):
    """The public suffix list: packed lower-case wire names in a look-up table, and their kinds (name_kernels)."""

    rules: NDArray[np.uint8]
    starts: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    slots: NDArray[np.int32]


class Splits(NamedTuple):
    """The places where n lower-case names are split."""

    part_starts: NDArray[np.int64]  # (n + 1,): running number of subdomain labels
    cuts: NDArray[np.int64]  # (n,): offset of the registered domain in its name


@lru_cache(maxsize=1)
def rule_table() -> Rules:
    """The rules of the shipped list; its first lines have its date."""
    found: dict[bytes, int] = {}
    for line in _list_lines():
        kind = {"!": name_kernels.EXCEPTION, "*": name_kernels.WILDCARD}.get(line[0], name_kernels.RULE)
        suffix = _suffix_in(line)
        found[suffix] = found.get(suffix, 0) | kind
        while b"." in suffix:
            suffix = suffix.partition(b".")[2]
            found.setdefault(suffix, 0)
    keys = packed([wire_of(suffix.split(b".")) for suffix in found])
    return Rules(keys.array, keys.starts, np.array(list(found.values()), np.uint8), slots_of(keys.array, keys.starts))


def _list_lines(after: str = "") -> Iterator[str]:
    """The rules of the shipped list that follow a line."""
    text = resources.files("agents.dns").joinpath("baseline/public_suffix_list.dat").read_text("utf-8")
    return (line for line in text[text.index(after) :].splitlines() if line and not line.startswith("//"))


def _suffix_in(line: str) -> bytes:
    return line.lower().lstrip("!").removeprefix("*.").encode("idna")


@lru_cache(maxsize=1)
def _private_suffixes() -> frozenset[bytes]:
    """Suffixes of the list's private section in wire form; of a wildcard rule what follows the asterisk."""
    lines = [line for line in _list_lines("// ===BEGIN PRIVATE DOMAINS===") if not line.startswith("!")]
    return frozenset(wire_of(_suffix_in(line).split(b".")) for line in lines)


def private_suffix(domain: bytes) -> int:
    """Offset of the suffix in a registered domain, if an operator lets strangers have names below it; else 0.

    domain: lower-case wire form. The suffix is one of the list's private section (publicsuffix.org/list, "Divisions").
    """
    suffix = domain[1 + domain[0] :] if domain else b""
    listed = _private_suffixes()
    if suffix in listed or (suffix and suffix[1 + suffix[0] :] in listed):
        return len(domain) - len(suffix)
    return 0


def split_names(names: Names) -> Splits:
    """Find the registered domains of n lower-case wire names. Raises NameFormatError for the first bad one.

    The registered domain is the public suffix and one more label; a name that is itself a public suffix, or the root,
    is its own registered domain. A name whose last label cannot be a top level (data sent straight to a server, without
    any domain) has no registered domain: all its labels are subdomain.
    """
    found = Splits(np.empty(len(names) + 1, np.int64), np.empty(len(names), np.int64))
    bad = name_kernels.split(names.array, names.starts, *rule_table(), *found)
    if bad >= 0:
        labels_of(names[bad])
        raise NameFormatError("cannot split wire name: too many labels")
    return found


@lru_cache(maxsize=65536)
def split_domain(wire: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Split a wire name into (subdomain labels, registered-domain labels), both lower case; see split_names."""
    name = lowered([wire])
    labels, subdomain = labels_of(name[0]), int(split_names(name).part_starts[1])
    return labels[:subdomain], labels[subdomain:]


def domain_text(wire: bytes) -> str:
    """Registered domain of a wire name, lower-case presentation form; "." if there is none."""
    return to_text(wire_of(split_domain(wire)[1]))


def is_listed(labels: Sequence[bytes]) -> bool:
    """Whether lower-case raw labels are a suffix in the public suffix list itself, as `com` is, and not `lan`."""
    return wire_of(labels) in _listed_suffixes()


@lru_cache(maxsize=1)
def _listed_suffixes() -> frozenset[bytes]:
    return frozenset(wire_of(_suffix_in(line).split(b".")) for line in _list_lines())


def is_public_suffix(labels: Sequence[bytes]) -> bool:
    """Whether lower-case raw labels are a public suffix: names of unrelated owners end in it."""
    subdomain, domain = split_domain(wire_of((b"a", *labels)))
    return len(labels) == 1 or (not subdomain and len(domain) == len(labels) + 1)
