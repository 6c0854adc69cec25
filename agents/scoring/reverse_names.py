"""Names of addresses (RFC 1035 section 3.5, RFC 3596 section 2.5) below what one owner holds, and what each says there.

Whoever holds a network may have its part of `in-addr.arpa` or `ip6.arpa` delegated, and chooses what is asked below it.
A name counts below its delegation: 48 bits of IPv6, what one site gets (RFC 6177), and 16 bits of IPv4. Of IPv4 the
smallest part that is delegated whole has 24 bits, and 256 names in all: many of them have to add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import Key, keyed_hash
from agents.core.columns import Names, packed
from agents.dns.name import labels_of, wire_of
from agents.scoring.features import HEX
from agents.scoring.lexical import Lexical, Tenants, read_tenants
from agents.scoring.model import Model

ARPA = b"arpa"
ZONE4, ZONE6 = (b"in-addr", ARPA), (b"ip6", ARPA)
OCTETS, NIBBLES = 4, 32
DELEGATED4, DELEGATED6 = 2, 12
"""Octets and nibbles of a delegation."""
SUBNET = 4
"""Nibbles that number the networks of a site; the others are an interface's (RFC 4291 section 2.5.1)."""
OCTET_BITS, WRITTEN_BITS, NIBBLE_BITS = 8.0, 10.0, 4.0
"""What an octet, three digits that are no octet, and a nibble carry."""
RUN_BITS = 9.0
"""What a run of zero nibbles carries: whether there is one, where it begins and how long it is."""
SHARE6 = 1 / 4
"""How much of what a name of IPv6 carries counts: mail servers and log analysers look up the hosts of strangers."""


class Reverse(NamedTuple):
    """What one name says below its delegation. cut: offset of the delegation; parts: text and bits of each part."""

    cut: int
    is_six: bool
    parts: tuple[tuple[bytes, float], ...]


@lru_cache(maxsize=65_536)
def reverse_of(wire: bytes) -> Reverse | None:
    """Read a lower-case wire name; None for any that is no address's, or says nothing below its delegation."""
    labels = labels_of(wire)
    rest = labels[:-2]
    if (
        labels[-2:] == ZONE6
        and DELEGATED6 < len(rest) <= NIBBLES
        and all(len(one) == 1 and one[0] in HEX for one in rest)
    ):
        return Reverse(_cut(wire, len(rest) - DELEGATED6), True, _parts6(rest[: len(rest) - DELEGATED6]))
    if (
        labels[-2:] == ZONE4
        and DELEGATED4 < len(rest) <= OCTETS
        and all(one.isdigit() and len(one) <= 3 for one in rest)
    ):
        parts = tuple((b"%d.%b" % (at, one), _octet_bits(one)) for at, one in enumerate(rest[-DELEGATED4 - 1 :: -1]))
        return Reverse(_cut(wire, len(rest) - DELEGATED4), False, parts)
    return None


def _cut(wire: bytes, count: int) -> int:
    """Offset of what follows so many labels."""
    at = 0
    for _ in range(count):
        at += 1 + wire[at]
    return at


def _octet_bits(text: bytes) -> float:
    return OCTET_BITS if int(text) <= 255 and text == b"%d" % int(text) else WRITTEN_BITS


def _parts6(labels: tuple[bytes, ...]) -> tuple[tuple[bytes, float], ...]:
    """The number of the site's network, and the interface's in it."""
    nibbles = b"".join(reversed(labels))
    subnet, host = nibbles[:SUBNET], nibbles[SUBNET:]
    plain = NIBBLE_BITS * len(host)
    zeros = max((len(list(run)) for nibble, run in groupby(host) if nibble == ord("0")), default=0)
    bits = min(plain, plain - NIBBLE_BITS * zeros + RUN_BITS)
    parts = (
        ((b"/" + subnet, NIBBLE_BITS * len(subnet)), (b":" + host, bits))
        if host
        else ((b"/" + subnet, NIBBLE_BITS * len(subnet)),)
    )
    return tuple((text, SHARE6 * carried) for text, carried in parts)


def delegation_of(wire: bytes) -> bytes:
    """The delegation that a lower-case wire name of an address lies below, as a wire name; b"" for any other."""
    found = reverse_of(wire)
    return wire[found.cut :] if found is not None else b""


@dataclass(frozen=True, slots=True)
class Delegated:
    """The names of addresses among n names, d of them, and the p parts of what they say below their delegations."""

    rows: NDArray[np.int64]  # (d,): of the names
    names: Names  # (d,)
    cuts: NDArray[np.int64]  # (d,): offset of the delegation in the name
    is_six: NDArray[np.bool_]  # (d,)
    part_starts: NDArray[np.int64]  # (d + 1,)
    part_key: NDArray[np.uint64]  # (p,)
    part_bits: NDArray[np.float64]  # (p,)
    name_key: NDArray[np.uint64]  # (d,): another than the name has itself, which is asked for below a domain, too
    domain_key: NDArray[np.uint64]  # (d,): hash of the delegation's wire form


def read_below(found: Lexical, model: Model, key: Key) -> tuple[Tenants, Delegated]:
    """What n names carry beside what they carry below their domains; identities are keyed with `key`."""
    return read_tenants(found, model, key), read_delegated(found, key)


def read_delegated(found: Lexical, key: Key) -> Delegated:
    """Read the names of addresses; identities are keyed with `key`."""
    rows = _rows_below(found.names, wire_of((ARPA,)))
    names = [found.names[row] for row in rows.tolist()]
    read = [reverse_of(name) for name in names]
    kept = [at for at, one in enumerate(read) if one is not None]
    whole = [one for one in read if one is not None]
    rows, names = rows[kept], [names[at] for at in kept]
    parts = [part for one in whole for part in one.parts]
    domains = np.array([keyed_hash(name[one.cut :], key) for name, one in zip(names, whole, strict=True)], np.uint64)
    return Delegated(
        rows=rows,
        names=packed(names),
        cuts=np.array([one.cut for one in whole], np.int64),
        is_six=np.array([one.is_six for one in whole], np.bool_),
        part_starts=np.cumsum([0, *(len(one.parts) for one in whole)]),
        part_key=np.array([keyed_hash(text, key) for text, _ in parts], np.uint64),
        part_bits=np.array([bits for _, bits in parts], np.float64),
        name_key=found.name_key[rows] ^ domains,
        domain_key=domains,
    )


def _rows_below(names: Names, suffix: bytes) -> NDArray[np.int64]:
    """The rows of the names that end with these bytes."""
    rows = np.flatnonzero(np.diff(names.starts) >= len(suffix))
    for at, byte in enumerate(reversed(suffix), 1):
        rows = rows[names.array[names.starts[rows + 1] - at] == byte]
    return rows
