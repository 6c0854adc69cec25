"""Text for people: printable, harmless in messages, amounts and times in words."""

from __future__ import annotations

import ipaddress
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents.core.errors import UsageError
from agents.core.types import clean

PROGRAM = "dns-tunnel"
TEXT_MAX = 200
NETWORK = "*"
"""The client of an incident that is not one client's."""
_NOBODY = {"": "unknown", NETWORK: "several clients"}

_given: list[str] = []
MAPPED = bytes(10) + b"\xff\xff"
"""The 12 bytes before an IPv4 address that make it an IPv6 one (RFC 4291 section 2.5.5.2)."""


def ip_of(text: str | bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address, from text (an interface after % is left out) or its 4 or 16 bytes; a mapped one (RFC 4291 section
    2.5.5.2) as the IPv4 address that it is. Raises ValueError."""
    found = ipaddress.ip_address(text.partition("%")[0] if isinstance(text, str) else text)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def network_text(text: str) -> str:
    """An address, or a network in CIDR form, as it is kept; a network of one address is that. Raises ValueError."""
    network = ipaddress.ip_network(text.strip(), strict=False)
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def printable(text: object, size: int = TEXT_MAX) -> str:
    """Text of at most `size` characters; unprintable characters are written as \\DDD or \\uXXXX."""
    out = "".join(char if char.isprintable() else _escaped(ord(char)) for char in str(text)[: size + 1])
    return out if len(out) <= size else out[: size - 1] + "…"


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8 (surrogateescape)
        code -= 0xDC00
    return f"\\{code:03d}" if code < 256 else f"\\u{code:04x}"


OWN_ZONES = "OWN_ZONES"
"""The setting that is the remedy for incidents below a zone of this network's own."""


def who(client: str, size: int = TEXT_MAX) -> str:
    """A client for people: its address, or that it is unknown, or several."""
    return _NOBODY.get(client) or printable(client, size)


def senders_text(clients: Mapping[str, Any]) -> str:
    """Who sent queries of an incident that is not one client's. clients: its evidence (count, loudest)."""
    shown = ", ".join(who(client, 60) for client in clients["loudest"])
    more = " …" if clients["count"] > len(clients["loudest"]) else ""
    return f"{counted(clients['count'], 'client')}: {shown}{more}"


def explanation_text(found: Mapping[str, Any]) -> str:
    """Which kind of benign service an incident may be, what supports that, and up to which amount. found: its evidence
    (kind, what, sign, bytes_a_day, budget, listed)."""
    said = f"{found['kind']}: {found['what']}; "
    if not found["sign"]:
        return said + "nothing else in this network supports it"
    spent = f"{counted(found['bytes_a_day'], 'byte')} in a day, {found['budget']:,.0f} are explained"
    beyond = "" if found["listed"] else ", unless the sum of all that is explained is used up"
    return f"{said}{found['sign']}; {spent}{beyond}"


def came_in(evidence: Mapping[str, Any]) -> str:
    """Bytes of data that came in, of an incident's evidence; not known where its sources do not have answers."""
    found = evidence.get("bytes_in", 0)
    if not found and any("answers: " in text for text in evidence.get("losses", ())):
        return "not known"
    return counted(found, "byte")


def harmless(text: object, size: int = TEXT_MAX) -> str:
    """Printable text that chat and mail clients do not turn into links."""
    return defang(printable(text, size)).replace("://", "[:]//").replace("@", "[@]")


def web_address(text: str) -> str:
    """The text, if it is empty or begins like a web address. Raises ValueError."""
    if text and not text.startswith(("http://", "https://")):
        raise ValueError("an address begins with https:// or http://")
    return text


def utc(seconds: float) -> str:
    """A time for people, always with its zone."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def given(*options: str) -> None:
    """Set the global options of this invocation; suggested commands must repeat them."""
    _given[:] = options


def command(arguments: str) -> str:
    """A dns-tunnel command that works in a shell here.

    It has the options of `given`, and the path of the program beside this Python if PATH does not lead to it.
    """
    told = shlex.join((*_given, *shlex.split(arguments)))
    installed, found = Path(sys.executable).with_name(PROGRAM), shutil.which(PROGRAM)
    if not installed.exists() or (found and installed.samefile(found)):
        return f"{PROGRAM} {told}"
    here = installed.relative_to(Path.cwd()) if installed.is_relative_to(Path.cwd()) else installed
    return f"{shlex.quote(str(here))} {told}"


def counted(number: float, noun: str) -> str:
    """A number of things: "1 byte", "2,400 bytes", "1 query"."""
    many = noun[:-1] + "ies" if noun.endswith("y") and noun != "day" else noun + "s"
    return f"{number:,.0f} {noun if round(number) == 1 else many}"


def amount_text(count: float) -> str:
    """Bytes with a unit that is read at once: "400 bytes", "1.23 kB", "3 MB"."""
    if count < 999.5:
        return counted(count, "byte")
    if count < 999_500:
        return f"{count / 1_000:.3g} kB"
    return f"{count / 1_000_000:.3g} MB" if count < 999_500_000 else f"{count / 1_000_000_000:,.1f} GB"


def refang(text: str) -> str:
    """A name that `harmless` changed, as it was."""
    return text.replace("[.]", ".").replace("[@]", "@")


_LINKING_DOT = re.compile(r"\.(?=[^\W\d_])")


def defang(text: str) -> str:
    """Make names harmless in messages, so that chat clients do not turn them into links.

    Top levels never begin with a digit (RFC 3696 section 2), so numbers and IPv4 addresses stay as they are.
    """
    return _LINKING_DOT.sub("[.]", text)


def said_text(text: str, what: str, size: int) -> str:
    """A person's text as it is kept, in one line. Raises UsageError for none, or for more than `size` characters."""
    text = clean(" ".join(text.split()))
    if not 0 < len(text) <= size:
        raise UsageError(f"cannot keep this without {what} of 1 to {size} characters")
    return text
