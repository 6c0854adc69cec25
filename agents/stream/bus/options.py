"""Settings of the bus: STREAM and what goes with it."""

from __future__ import annotations

import base64
import binascii
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agents.core.npz import FormatError
from agents.core.protocols import Field, Spec, Within
from agents.stream.bus.protocol import SITE_NAME
from agents.stream.slot_kernels import SLOTS

MAIN_SITE = "main"
"""The site of hosts that name none."""
MESSAGE_MAX = 32 << 10
"""Bytes of the longest message of queries, with its headers: servers count messages of a site, not bytes."""
SITE_SHARE, KEEP_LEAST = 4, 8
"""One site may hold this part of a stream, and so many messages of the longest in any case."""


def nats_address(text: str) -> None:
    """A check of a setting: one server, or several with commas between them. Raises ValueError."""
    for one in text.split(",") if text else ():
        parsed = urlsplit(one.strip())
        if parsed.scheme not in ("nats", "tls") or not parsed.hostname:
            raise ValueError("an address is nats://[USER:PASSWORD@]HOST:4222, or tls://…")


def _site(name: str) -> None:
    if name and not SITE_NAME.fullmatch(name):
        raise ValueError("a site is named by up to 32 lower-case letters, digits and -")
    if name == MAIN_SITE:
        raise ValueError(f"{MAIN_SITE} is where no site is set")


def _readable(path: str) -> None:
    if path and not Path(path).is_file():
        raise ValueError("no such file")


_SEED = re.compile(rb"(?P<seed>SU[A-Z2-7]{56})")
_CREDENTIALS = re.compile(
    rb"-----BEGIN NATS USER JWT-----\n[\w.-]+\n-+END NATS USER JWT-+\n.*"
    rb"-----BEGIN USER NKEY SEED-----\n(?P<seed>SU[A-Z2-7]{56})\n-+END USER NKEY SEED-+",
    re.DOTALL,
)
"""A file .creds, as `nsc` writes it and as the client reads it."""


def _is_seed(data: bytes) -> bool:
    return data.strip().startswith(b"SU")


def seed_of(path: Path) -> bytes:
    """The seed in a file of credentials. Raises OSError, FormatError."""
    data = path.read_bytes()
    match = _SEED.fullmatch(data.strip()) or _CREDENTIALS.search(data)
    if match is None:
        raise FormatError("it has no credentials")
    seed: bytes = match["seed"]
    raw = base64.b32decode(seed + b"=" * (-len(seed) % 8))
    if binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little") != raw[-2:]:  # the client does not look
        raise FormatError("its seed is damaged")
    return seed


def _slots(count: int) -> None:
    if not 1 <= count <= SLOTS or count & (count - 1):
        raise ValueError(f"it must be a power of two, at most {SLOTS}")


@dataclass(frozen=True, slots=True)
class BusOptions:
    """The settings STREAM_…. servers: none = there is no bus. Times in seconds. keep_bytes: of each stream.
    keep_messages: of one site in a stream.

    site: "" = a host that makes streams and buckets; others only use what is there, and have subjects of their own.
    """

    servers: tuple[str, ...]
    slots: int
    lease_s: float
    snapshot_s: float
    replicas: int
    creds: str
    token: str
    ca: str
    spool_bytes: int
    keep_hours: float
    keep_bytes: int
    keep_messages: int
    name: str
    site: str

    @property
    def sending_site(self) -> str:
        """The site that queries of this host are sent for."""
        return self.site or MAIN_SITE

    @property
    def connecting(self) -> dict[str, Any]:
        """Arguments for the client's connection. Raises OSError for files that cannot be read."""
        found: dict[str, Any] = {"servers": list(self.servers)}
        if self.creds:
            found["nkeys_seed" if _is_seed(Path(self.creds).read_bytes()) else "user_credentials"] = self.creds
        if self.token:
            found["token"] = self.token
        if any(one.startswith("tls://") for one in self.servers):
            found["tls"] = ssl.create_default_context(cafile=self.ca or None)
        return found

    @property
    def shown(self) -> str:
        """The servers for people, without passwords."""
        return ", ".join(f"{urlsplit(one).hostname}:{urlsplit(one).port or 4222}" for one in self.servers)


def _made(values: Mapping[str, Any]) -> BusOptions:
    keep_bytes = (values["stream_keep_mb"] << 20) // (values["stream_slots"] + 1)
    servers = tuple(one.strip() for one in str(values["stream"]).split(",") if one.strip())
    return BusOptions(
        servers,
        values["stream_slots"],
        values["stream_lease_s"],
        values["stream_snapshot_s"],
        values["stream_replicas"],
        values["stream_creds"],
        str(values["stream_token"]),
        values["stream_ca"],
        values["stream_spool_mb"] << 20,
        values["stream_keep_hours"],
        keep_bytes,
        max(keep_bytes // SITE_SHARE // MESSAGE_MAX, KEEP_LEAST),
        values["stream_name"] or socket.gethostname(),
        str(values["stream_site"]),
    )


SPEC: Spec[BusOptions] = Spec(
    "stream",
    "queries to detectors on other machines, over NATS JetStream (extra nats)",
    (
        Field(
            "stream",
            str,
            "",
            'nats://[USER:PASSWORD@]HOST:4222 or tls://…, several with commas; "" = queries are judged where they are '
            "heard",
            nats_address,
            secret=True,
        ),
        Field("stream_slots", int, SLOTS, "parts of the clients, a power of two; for good the same everywhere", _slots),
        Field(
            "stream_lease_s",
            float,
            8.0,
            "a detector that has been silent for so long is followed by others; it must be longer than the election of "
            "a server, seconds",
            Within(1, 120),
        ),
        Field(
            "stream_snapshot_s",
            float,
            60.0,
            "state of each slot is saved on the bus so often: a detector that follows reads again what came since, "
            "seconds",
            Within(0.5, 3600),
        ),
        Field("stream_replicas", int, 1, "servers that keep each message: 1, or 3 of a cluster", Within(1, 5)),
        Field(
            "stream_creds",
            str,
            "",
            "file of NATS credentials: .creds, or the seed of an nkey alone",
            _readable,
        ),
        Field("stream_token", str, "", "token, instead of a user", secret=True),
        Field("stream_ca", str, "", "file of certificates to trust instead of the system's", _readable),
        Field(
            "stream_spool_mb",
            int,
            1024,
            "disk of a listener's host for queries that no detector has saved yet, megabytes",
            Within(1, 1 << 20),
        ),
        Field(
            "stream_keep_hours",
            float,
            24.0,
            "messages that no saved state has counted are kept on the bus for so long, hours",
            Within(0.1, 720),
        ),
        Field(
            "stream_keep_mb",
            int,
            4096,
            "… and so many megabytes of them in all, which a server sets aside at once; a quarter of them one site",
            Within(1, 1 << 24),
        ),
        Field(
            "stream_site",
            str,
            "",
            "name of this site, which sends queries from an account of its own (docs/cluster.md); "
            '"" = a host of the main site',
            _site,
        ),
        Field("stream_name", str, "", 'name of this host where hosts are listed; "" = the machine\'s'),
    ),
    _made,
)
