"""The settings of the zone's server."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agents.core.errors import NameFormatError
from agents.core.protocols import Field, Spec
from agents.dns.name import from_text

ALGORITHMS = ("hmac-sha256", "hmac-sha384", "hmac-sha512")
"""Of TSIG (RFC 8945 section 6); older ones are not taken."""
KEY_BYTES_MIN = 16
"""Bytes of a key, at least."""
STANDARD_PORT = 53
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class TsigKey:
    """A shared key (RFC 8945). secret: base64."""

    name: str
    algorithm: str
    secret: str


@dataclass(frozen=True, slots=True)
class RpzOptions:
    """Where the zone is served, to whom, and who is told of changes."""

    listen: tuple[tuple[str, int], ...] = ()
    zone: str = "dns-tunnel.rpz"
    clients: tuple[Network, ...] = ()
    unsigned: tuple[Network, ...] = ()
    key: TsigKey | None = None
    notify: tuple[tuple[str, int], ...] = ()


def endpoints_of(text: str) -> tuple[tuple[str, int], ...]:
    """Addresses with ports, comma-separated; port 53 where none is named. Raises ValueError."""
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        bare = part.count(":") > 1 and not part.startswith("[")
        parsed = urlsplit(f"//[{part}]" if bare else f"//{part}")
        if parsed.path or parsed.query or parsed.username is not None or not parsed.hostname:
            raise ValueError(f"{part[:80]!r} is no address: 192.0.2.1, 192.0.2.1:5300 or [2001:db8::1]:5300")
        found.append((str(ipaddress.ip_address(parsed.hostname)), parsed.port or STANDARD_PORT))
    return tuple(found)


def key_of(text: str) -> TsigKey | None:
    """A key as NAME:ALGORITHM:BASE64; None for "". Raises ValueError, which does not show the secret."""
    if not text:
        return None
    name, _, rest = text.partition(":")
    algorithm, _, secret = rest.partition(":")
    if algorithm.lower() not in ALGORITHMS or not name:
        raise ValueError(f"a key is NAME:ALGORITHM:BASE64, with one of {', '.join(ALGORITHMS)}")
    try:
        from_text(name)
        size = len(base64.b64decode(secret, validate=True))
    except (NameFormatError, binascii.Error):
        raise ValueError("its name is no domain name, or its secret no base64") from None
    if size < KEY_BYTES_MIN:
        raise ValueError(f"its secret is shorter than {KEY_BYTES_MIN} bytes (openssl rand -base64 32 makes one)")
    return TsigKey(name.rstrip(".").lower(), algorithm.lower(), secret)


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(one.strip(), strict=False) for one in text.split(",") if one.strip())


def _zone(text: str) -> None:
    try:
        if not from_text(text.rstrip(".")):
            raise ValueError("a zone's name is needed")
    except NameFormatError as error:
        raise ValueError(str(error)) from None


def _made(values: Mapping[str, Any]) -> RpzOptions:
    return RpzOptions(
        listen=endpoints_of(values["rpz_listen"]),
        zone=values["rpz_zone"].rstrip(".").lower(),
        clients=_networks(values["rpz_clients"]),
        unsigned=_networks(values["rpz_unsigned"]),
        key=key_of(values["rpz_tsig"]),
        notify=endpoints_of(values["rpz_notify"]),
    )


SPEC: Spec[RpzOptions] = Spec(
    name="rpz",
    summary="blocks for other resolvers, as a response policy zone",
    fields=(
        Field(
            "rpz_listen",
            str,
            "",
            "addresses, with ports, at which resolvers get the zone of all blocks; empty = none",
            endpoints_of,
        ),
        Field("rpz_zone", str, "dns-tunnel.rpz", "its name", _zone),
        Field("rpz_clients", str, "127.0.0.0/8,::1/128", "networks that may have it, comma-separated", _networks),
        Field("rpz_tsig", str, "", "NAME:ALGORITHM:BASE64 of the key that resolvers sign with", key_of, secret=True),
        Field("rpz_unsigned", str, "", "networks that need not sign, though there is a key (unbound)", _networks),
        Field("rpz_notify", str, "", "addresses of resolvers that are told of each change at once", endpoints_of),
    ),
    factory=_made,
)
