"""Names that are answered here and never forwarded (RFC 6761): each has a setting, and all are on but two.

An upstream that UPSTREAMS names for such a name, or for a name below it, is asked all the same. Answers have no
records of authority, so that no client keeps a negative one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agents.core.protocols import Field, Spec
from agents.dns import message as wire
from agents.dns import name as names

_A, _PTR, _AAAA, _ANY = (wire.type_number(name) for name in ("A", "PTR", "AAAA", "ANY"))
TTL_S = 3600
"""Seconds that a client may keep the answers."""
_LOOPBACK6 = ipaddress.ip_address("::1").reverse_pointer
_LOCALHOST = names.from_text("localhost") + b"\0"


@dataclass(frozen=True)
class SpecialName:
    """A name and all names below it.

    own: records of the name itself, as (type, data); itself: whether it exists. known: names below it that exist, as
    labels in wire form, each with its records. exists: whether all others below it do; below: the records of those.
    """

    name: bytes
    own: tuple[tuple[int, bytes], ...] = ()
    itself: bool = True
    known: Mapping[bytes, tuple[tuple[int, bytes], ...]] | None = None
    exists: bool = False
    below: tuple[tuple[int, bytes], ...] = ()
    recorded: bool = True

    def reply(self, query: bytes, end: int) -> bytes:
        """The answer to a query for this name or one below it. end: offset behind its question."""
        qname = query[wire.HEADER_SIZE : end - 5].lower()
        prefix = qname[: len(qname) - len(self.name)]
        if not prefix:
            found = self.own if self.itself else None
        elif self.known and prefix in self.known:
            found = self.known[prefix]
        else:
            found = self.below if self.exists else None
        if found is None:
            return wire.error_reply(query, wire.NXDOMAIN, end)
        qtype, qclass = query[end - 4 : end - 2], query[end - 2 : end]
        asked = int.from_bytes(qtype)
        records = [one for one in found if qclass == b"\0\1" and asked in (one[0], _ANY)]
        empty = wire.error_reply(query, wire.NOERROR, end)
        body = b"".join(
            b"\xc0\x0c" + kind.to_bytes(2) + qclass + TTL_S.to_bytes(4) + len(data).to_bytes(2) + data
            for kind, data in records
        )
        return empty[:6] + len(records).to_bytes(2) + empty[8:end] + body + empty[end:]


_LOOPBACK = ((_A, ipaddress.ip_address("127.0.0.1").packed), (_AAAA, ipaddress.ip_address("::1").packed))
_TO_LOCALHOST = ((_PTR, _LOCALHOST),)


def _named(text: str, **rest: Any) -> SpecialName:
    return SpecialName(names.from_text(text), **rest)


_KINDS: tuple[tuple[str, bool, str, tuple[SpecialName, ...]], ...] = (
    (
        "localhost",
        True,
        "localhost and names below it are 127.0.0.1 and ::1 (RFC 6761 section 6.3)",
        (_named("localhost", own=_LOOPBACK, below=_LOOPBACK, exists=True),),
    ),
    (
        "loopback",
        True,
        "127.in-addr.arpa and the reverse name of ::1 (RFC 6303 sections 4.2 and 4.3)",
        (
            _named("127.in-addr.arpa", known={names.from_text("1.0.0"): _TO_LOCALHOST}),
            _named(_LOOPBACK6, own=_TO_LOCALHOST),
        ),
    ),
    ("invalid", True, "names below invalid do not exist (RFC 6761 section 6.4)", (_named("invalid", itself=False),)),
    ("onion", True, "names below onion do not exist: they are Tor's (RFC 7686)", (_named("onion", itself=False),)),
    ("alt", True, "names below alt do not exist: they are not DNS's (RFC 9476)", (_named("alt", itself=False),)),
    (
        "resolver_arpa",
        True,
        "resolver.arpa: no encrypted resolver is offered past this one (RFC 9462 section 6.4)",
        (_named("resolver.arpa", known={names.from_text("_dns"): ()}),),
    ),
    (
        "canary",
        True,
        "use-application-dns.net does not exist: browsers then keep asking here (Mozilla's canary domain)",
        (_named("use-application-dns.net", itself=False),),
    ),
    (
        "local",
        False,
        "names below local do not exist: they are for multicast DNS (RFC 6762 section 22.1)",
        (_named("local", itself=False),),
    ),
    ("test", False, "names below test do not exist (RFC 6761 section 6.2)", (_named("test", itself=False),)),
)
"""Kinds: the end of the setting's name, its default, what it does, and the names."""


def special_names(*choices: bool) -> list[SpecialName]:
    """The names to answer here. choices: one a setting, in the order of the Spec's fields."""
    return [name for (*_, found), chosen in zip(_KINDS, choices, strict=True) if chosen for name in found]


SPEC: Spec[list[SpecialName]] = Spec(
    "special_names",
    "names answered here and never forwarded",
    tuple(Field(f"answer_{name}", bool, default, description) for name, default, description, _ in _KINDS),
    lambda values: special_names(*values.values()),
)
