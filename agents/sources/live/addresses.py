"""Addresses of live intakes, as COLLECT_FILES and `dns-tunnel collect` take them, and the settings of all of them."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from agents.core.errors import SettingsError
from agents.core.protocols import Field, Spec, Within
from agents.core.text import printable
from agents.sources.intake import Fidelity

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
TRANSPORTS = {
    "dnstap": ("unix", "tcp", "tls"),
    "powerdns": ("tcp", "tls"),
    "syslog": ("udp", "tcp", "tls"),
}
"""Kinds of live intakes with an address, and the transports of each."""
PACKET = "packet"
_SCHEME = re.compile(rf"(?:{'|'.join(TRANSPORTS)})\+[a-z]*://|{PACKET}://")
_INTERFACE = re.compile(r"[^/\s:]{1,15}")
"""Name of an interface (dev_valid_name of Linux): below IFNAMSIZ bytes, without slash, colon and blanks."""
UNIX_PATH_MAX = 107
"""Bytes of a socket's path (unix(7))."""


def read_networks(text: str) -> list[Network]:
    """Networks, comma-separated. Raises ValueError."""
    return [ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()]


def _mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ValueError(f"{text[:20]!r} is no mode like 0660")
    return int(text, 8)


def _on_or_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError("it must be on or off")
    return text == "on"


RECEIVE = Spec(
    "receive",
    "live intakes: dnstap, PowerDNS protobuf, syslog, packets",
    (
        Field(
            "receive_allowed",
            str,
            "",
            "networks that may send to live intakes, comma-separated; empty = ALLOWED_CLIENTS",
            read_networks,
        ),
        Field(
            "receive_connections_max",
            int,
            256,
            "connections of senders at once, of all live intakes",
            Within(1, 10_000),
        ),
        Field("receive_socket_mode", str, "0660", "mode of unix sockets that are made for senders", _mode),
        Field("receive_socket_group", str, "", "group of these sockets, for example unbound or bind; empty = as it is"),
        Field("receive_tls_certificate", str, "", "PEM file with the certificate of …+tls:// intakes, and its chain"),
        Field("receive_tls_key", str, "", "PEM file with its key; empty = it is in the same file"),
        Field(
            "receive_tls_client_ca", str, "", "PEM file; senders need a certificate of these authorities; empty = none"
        ),
        Field(
            "packet_promiscuous",
            str,
            "on",
            "packet://: hear packets to other machines, as of a mirror port; on or off",
            _on_or_off,
        ),
        Field(
            "packet_buffer_mb",
            int,
            32,
            "packet://: MB of packets that the kernel keeps for each interface",
            Within(1, 4096),
        ),
    ),
    lambda values: values,
)
"""The settings of live intakes."""

FIDELITIES = {
    "dnstap": Fidelity(),
    "powerdns": Fidelity(answers="their number and data are not known; types and TTLs are those of exportTypes"),
    "syslog": Fidelity(),
    PACKET: Fidelity(),
}
"""What each kind loses; of syslog it is what its lines lose."""


class LiveAddress(NamedTuple):
    """One live intake. name: as it was written. host: or an interface; path: of a unix socket. format: of syslog's
    lines, "" = as COLLECT_FORMAT says."""

    name: str
    kind: str
    transport: str = ""
    host: str = ""
    port: int = 0
    path: str = ""
    format: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether what is sent can be read and made by others on its way."""
        return self.transport in ("udp", "tcp")


def is_live(name: str) -> bool:
    """Whether a name is the address of a live intake, not a path."""
    return _SCHEME.match(name) is not None


def parse_live(name: str, formats: tuple[str, ...] = ()) -> LiveAddress:
    """The intake of an address. formats: of lines. Raises SettingsError."""
    kind, _, transport = name.partition("://")[0].partition("+")
    try:
        found = urlsplit(name)
        port = found.port
    except ValueError as error:
        raise _bad(name, str(error)) from None
    if kind == PACKET:
        interface = name.partition("://")[2]
        if not _INTERFACE.fullmatch(interface):
            raise _bad(name, "an interface is named like packet://eth0")
        return LiveAddress(name, kind, host=interface)
    if transport not in TRANSPORTS[kind]:
        raise _bad(name, f"{kind}+ is followed by {', '.join(TRANSPORTS[kind])}")
    if transport == "unix":
        path = name.partition("://")[2]
        if not path.startswith("/") or len(path.encode()) > UNIX_PATH_MAX:
            raise _bad(name, f"a socket has an absolute path of {UNIX_PATH_MAX} bytes at most")
        return LiveAddress(name, kind, transport, path=path)
    if not found.hostname or port is None or not 0 < port < 1 << 16 or found.path not in ("", "/") or found.username:
        raise _bad(name, f"an address is {kind}+{transport}://HOST:PORT")
    more = dict(parse_qsl(found.query))
    format = more.pop("format", "")
    if more or (format and (kind != "syslog" or format not in formats)):
        raise _bad(name, "?format= of syslog names the kind of its lines; nothing else can be set there")
    return LiveAddress(name, kind, transport, found.hostname, port, format=format)


def _bad(name: str, why: str) -> SettingsError:
    return SettingsError(f"cannot use intake {printable(name)}: {why}")


def tls_context(values: Mapping[str, Any]) -> ssl.SSLContext:
    """The server's side of TLS (RFC 8446) as the settings have it. Raises SettingsError."""
    certificate, key, authorities = (str(values[f"receive_tls_{one}"]) for one in ("certificate", "key", "client_ca"))
    if not certificate:
        raise SettingsError("cannot use …+tls:// intakes: RECEIVE_TLS_CERTIFICATE is empty")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key or None, password=_no_password)
        if authorities:
            context.load_verify_locations(authorities)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(filter(None, (certificate, key, authorities)))
        raise SettingsError(f"cannot use setting RECEIVE_TLS_…: {named}: {error.strerror or error}") from None
    return context


def _no_password() -> str:
    """A key with a password cannot be used: nobody is there to type it."""
    return ""
