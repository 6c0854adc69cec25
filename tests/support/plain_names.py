"""Names taken apart and written out label by label: the oracle of what dns/name.py does by the column."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

from agents.dns.name import ROOT, labels_of
from agents.dns.name_kernels import TOP_LEVEL_MAX

_ESCAPED = {i: f"\\{i:03d}" for i in range(256) if not 0x21 <= i <= 0x7E} | {0x2E: "\\.", 0x5C: "\\\\"}
_LABEL_TEXT = [_ESCAPED.get(i, chr(i)) for i in range(256)]


def label_text(label: bytes) -> str:
    """Presentation form of one label."""
    return "".join([_LABEL_TEXT[byte] for byte in label])


def to_text(wire: bytes) -> str:
    """Presentation form of a wire name, no final dot; the root is "."."""
    return ".".join([label_text(label) for label in labels_of(wire)]) or ROOT


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
