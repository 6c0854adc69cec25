"""Kinds of service that put keys, hashes or addresses into names: the shape of such names, and a day's budget.

A shape can be imitated. So it explains an amount, never a domain, and only where this network's own data support it
(explainer.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from agents.core.text import OWN_ZONES
from agents.dns.message import type_number
from agents.dns.name import split_domain

FITTING_SHARE = 0.8
"""Of the names that are more than short words, so many must have the shape."""
WIDTHS = 2
"""Keys of a service have one width, or two."""
_PART = rb"(?:_?[a-z]{1,12}[0-9]{0,2})"
PLAIN = re.compile(rb"(?:" + _PART + rb"(?:[.-]" + _PART + rb"){0,5})?")
"""A name of short words, or none, says nothing for or against a kind."""


class Sign(Enum):
    """What this network's own data say for an explanation, in words."""

    CLIENTS = "several clients of this network ask below it"
    INSIDE = "nobody in public owns its top level"
    MAIL = "the client looks up the mail servers of many domains"
    TWICE = "the client asks for such names below another domain, too"
    BURST = "nearly all came within a minute, from a client that asks below many domains"
    REVERSE = "the client looks up the names of addresses, too"
    SAME = "the client asks for the same below other domains"
    FIXED = "the client asks for the same few names again and again"
    HABIT = "it carried as much while this network's habits were learnt"


@dataclass(frozen=True, slots=True)
class ServiceKind:
    """One kind.

    shape: of what stands left of the registered domain, in lower case; its group `key`, if any, has one width in all
    names of a service. budget: bytes that its names carry below one domain on a day. signs: one of them must support
    it. marks: one of the names has this shape, too.
    """

    name: str
    what: str
    shape: re.Pattern[bytes]
    types: frozenset[int]
    budget: float
    signs: tuple[Sign, ...]
    remedy: str = "dns-tunnel allow"
    marks: re.Pattern[bytes] | None = None


def _types(text: str) -> frozenset[int]:
    return frozenset(map(type_number, text.split()))


_OCTET = rb"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_TAIL = rb"(?:[.-][a-z0-9_-]{1,24}){0,4}"
_HOSTS = _types("A AAAA HTTPS CNAME")
KINDS = (
    ServiceKind(
        "directory",
        "hosts and services of a directory (MS-ADTS section 6.3.2)",
        re.compile(rb"(?s).{1,120}"),
        _types("A AAAA SRV CNAME SOA TXT HTTPS NS"),
        4_000.0,
        (Sign.CLIENTS, Sign.INSIDE),
        OWN_ZONES,
        re.compile(rb"(?:.+\.)?(?:_msdcs|_ldap\._tcp|_kerberos\._(?:tcp|udp)|_gc\._tcp)(?:\..*)?"),
    ),
    ServiceKind(
        "service discovery",
        "instances by service and host (RFC 6763)",
        re.compile(rb"(?:.+\.)?(?:_[a-z0-9-]{1,15}\._(?:tcp|udp)|node|addr|service|svc|pod|mesh)(?:\..+)?"),
        _types("A AAAA SRV PTR TXT HTTPS"),
        4_000.0,
        (Sign.CLIENTS, Sign.INSIDE),
        OWN_ZONES,
    ),
    ServiceKind(
        "certificate validation",
        "proofs of ownership for certificates (RFC 8555 section 8.4)",
        re.compile(rb"_acme-challenge(?:\..+)?|_[0-9a-f]{32}(?:\..+)?|[0-9a-f]{32}(?:\.[0-9a-z]{16,32}){1,2}"),
        _types("TXT CNAME A AAAA"),
        1_000.0,
        (Sign.CLIENTS, Sign.TWICE),
    ),
    ServiceKind(
        "mail signers' keys",
        "keys of those who sign mail, by selector (RFC 6376 section 3.6.2.1)",
        re.compile(rb"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63}){0,2}\._domainkey(?:\..+)?"),
        _types("TXT CNAME"),
        1_000.0,
        (Sign.MAIL,),
    ),
    ServiceKind(
        "sender policy macros",
        "address, host and domain of a mail's sender (RFC 7208 section 7)",
        re.compile(rb"(?:.+\.)?_?spf[0-9]{0,2}(?:\..+)?"),
        _types("A AAAA TXT"),
        4_000.0,
        (Sign.MAIL, Sign.CLIENTS),
    ),
    ServiceKind(
        "a test of the network",
        "a leak-test page, or another that tests or measures the network: new names within minutes, then never again",
        re.compile(rb"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,8}"),
        _HOSTS,
        900.0,
        (Sign.BURST,),
    ),
    ServiceKind(
        "addresses in names",
        "addresses: block lists (RFC 5782), a provider's hosts and lines",
        re.compile(
            rb"(?:[a-z0-9]{1,12}[.-]){0,3}(?:"
            + (rb"(?P<same>(?:" + _OCTET + rb"[.-]){3}" + _OCTET)
            + rb")|[a-z]{0,3}[0-9a-f]{8}|[0-9]{8,10}|(?:[0-9a-f]{1,4}-){7}[0-9a-f]{1,4}|(?:[0-9a-f]\.){15,31}[0-9a-f])"
            + _TAIL
        ),
        _types("A AAAA PTR TXT"),
        4_000.0,
        (Sign.MAIL, Sign.REVERSE, Sign.SAME, Sign.CLIENTS),
    ),
    ServiceKind(
        "peer-to-peer nodes",
        "a signed list of peer-to-peer nodes (EIP-1459)",
        re.compile(rb"(?P<key>[a-z2-7]{26})(?:\.[a-z0-9-]{1,16}){1,2}"),
        _types("TXT"),
        3_000.0,
        (Sign.TWICE, Sign.CLIENTS),
    ),
    ServiceKind(
        "reputation by hash",
        "look-ups by hash: reputation of files, links and senders",
        re.compile(
            rb"(?:[a-z0-9-]{1,12}\.){0,8}(?P<key>[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{56,63}|[a-z2-7]{26}|[a-z2-7]{32}|"
            rb"[a-z2-7]{39}|[a-z2-7]{51,56}|[0-9a-f]{32}\.[0-9a-f]{32})" + _TAIL
        ),
        _types("A AAAA TXT"),
        8_000.0,
        (Sign.MAIL, Sign.SAME, Sign.CLIENTS),
    ),
    ServiceKind(
        "content by hash",
        "pages and files named by the hash of their content",
        re.compile(rb"(?P<key>(?:baf[a-z]|k51|qm)[a-z0-9]{40,60}|[0-9a-f]{40,63})" + _TAIL),
        _HOSTS,
        2_000.0,
        (Sign.CLIENTS, Sign.TWICE),
    ),
    ServiceKind(
        "hosts with a key",
        "hosts with a key: measurement, delivery, a customer's or a page's own host",
        re.compile(rb"(?P<key>[a-z0-9]{1,40}(?:-{1,3}[a-z0-9]{1,24}){0,8})" + _TAIL),
        _HOSTS,
        3_000.0,
        (Sign.CLIENTS, Sign.FIXED),
    ),
)
"""In the order in which they are tried: the narrower shape first."""


def stem_of(wire: bytes) -> bytes:
    """What stands left of the registered domain of a wire name: lower-case labels, joined by dots."""
    return b".".join(split_domain(wire)[0])


def kinds_of(samples: Sequence[tuple[bytes, int]]) -> list[ServiceKind]:
    """The kinds whose shape and types the names fit, the narrowest first. samples: wire names, query types."""
    stems = [(stem_of(wire), qtype) for wire, qtype in samples]
    odd = [one for one in stems if not PLAIN.fullmatch(one[0])]
    return [kind for kind in KINDS if _fits(kind, odd, stems)] if odd else []


def _fits(kind: ServiceKind, odd: Sequence[tuple[bytes, int]], stems: Sequence[tuple[bytes, int]]) -> bool:
    if kind.marks is not None and not any(kind.marks.fullmatch(stem) for stem, _ in stems):
        return False
    return Likeness(kind).takes(odd)


def things_of(kind: ServiceKind, samples: Sequence[tuple[bytes, int]]) -> frozenset[bytes]:
    """What the names of a kind ask about: their keys, or addresses."""
    found = (kind.shape.fullmatch(stem_of(wire)) for wire, qtype in samples if qtype in kind.types)
    name = next(iter(kind.shape.groupindex), "")
    return frozenset(one[name] for one in found if one is not None and name and one[name])


@dataclass(slots=True)
class Likeness:
    """How many names of an incident have the shape of a kind, and how many have not."""

    kind: ServiceKind
    fits: int = 0
    misfits: int = 0
    widths: Counter[int] = field(default_factory=Counter)  # of keys, of the names that fit

    def takes(self, stems: Sequence[tuple[bytes, int]]) -> bool:
        """Count names, and say whether enough of all of them fit."""
        for stem, qtype in stems:
            found = self.kind.shape.fullmatch(stem) if qtype in self.kind.types else None
            if found is None:
                self.misfits += 1
                continue
            self.fits += 1
            if "key" in self.kind.shape.groupindex:
                self.widths[len(found["key"])] += 1
        return self.holds

    @property
    def holds(self) -> bool:
        """Whether enough names have the shape, and their keys one width or two."""
        enough = self.fits >= FITTING_SHARE * (self.fits + self.misfits)
        usual = sum(count for _, count in self.widths.most_common(WIDTHS))
        return enough and (not self.widths or usual >= FITTING_SHARE * self.fits)
