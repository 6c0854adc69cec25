"""Privacy: what clients are called in all that is kept, shown or sent, and which queried names are kept."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import structlog
from pydantic import BaseModel

from agents.core.columns import Coded, coded
from agents.core.errors import AgentsError
from agents.core.files import PRIVATE_MODE, heirs_of, locked, make_private_folder, write_atomic
from agents.core.protocols import Field, Spec, Within
from agents.core.text import NETWORK, ip_of
from agents.core.types import DAY_S, Incident, Severity, Verdicts
from agents.detection.reasons import STRICT_REASON
from agents.dns.name import from_text

KEPT_V4, KEPT_V6 = 24, 48
"""Bits of an address that `truncate` keeps."""
KNOWN_MAX = 65_536
"""Clients whose name is remembered; at this number the memory is dropped, since sources can be forged."""
KEY_BYTES = 32
PSEUDONYM = 0xFD
"""First byte of a pseudonym: that of locally assigned addresses (RFC 4193 section 3.1)."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PrivacyOptions:
    """The settings PRIVACY, PRIVACY_ROTATE_DAYS and STORE_NAMES."""

    mode: str
    rotate_days: int
    names: str


SPEC: Spec[PrivacyOptions] = Spec(
    "privacy",
    "what clients are called in all that is kept, shown or sent, and which names are kept",
    (
        Field(
            "privacy",
            Literal["off", "truncate", "pseudonymise"],
            "off",
            "clients by address, by its /24 or /48 (truncate), or by a keyed hash (pseudonymise)",
        ),
        Field(
            "privacy_rotate_days",
            int,
            30,
            "days after which pseudonyms change and the old key is gone; 0 = never",
            Within(0, 3650),
        ),
        Field(
            "store_names",
            Literal["all", "suspicious", "none"],
            "all",
            "queried names that are kept; of other queries only the registered domain is",
        ),
    ),
    lambda values: PrivacyOptions(values["privacy"], values["privacy_rotate_days"], values["store_names"]),
)


class _Kept(BaseModel):
    """The key's file. made_at: Unix seconds; key: hexadecimal digits."""

    made_at: float
    key: str


class PrivacyKey:
    """The key of pseudonyms, in a file that its owner alone can read. It changes every `rotate_days` days.

    reads_only: for a command beside what judges, which alone makes keys.
    """

    def __init__(
        self, path: Path, rotate_days: int, clock: Callable[[], float] = time.time, reads_only: bool = False
    ) -> None:
        self._path, self._rotate_days, self._clock, self._reads_only = path, rotate_days, clock, reads_only
        self._kept: _Kept | None = None

    def now(self) -> bytes:
        """The key in force. Raises AgentsError where the file holds none, or there is none and this may not make it."""
        kept = self._kept if self._is_fresh(self._kept) else self._read()
        if not self._is_fresh(kept):
            kept = self._of_file(kept) if self._reads_only else self._made()
        assert kept is not None
        self._kept = kept
        return bytes.fromhex(kept.key)

    def _of_file(self, kept: _Kept | None) -> _Kept:
        if kept is None:
            raise AgentsError(f"cannot name clients: there is no {self._path} yet; what judges makes it")
        return kept

    def _is_fresh(self, kept: _Kept | None) -> bool:
        """Whether a key is used on. One of a clock that was far ahead is not."""
        if kept is None:
            return False
        age = self._clock() - kept.made_at
        return not self._rotate_days or -DAY_S <= age < self._rotate_days * DAY_S

    def _read(self) -> _Kept | None:
        try:
            kept = _Kept.model_validate_json(self._path.read_bytes())
            bytes.fromhex(kept.key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise AgentsError(
                f"cannot use {self._path}: there is no key in it; remove it, and another is made"
            ) from None
        return kept

    def _made(self) -> _Kept:
        """A new key, unless another process has made one by now. Where it cannot be kept, names change at a restart."""
        made = _Kept(made_at=self._clock(), key=secrets.token_hex(KEY_BYTES))
        try:
            make_private_folder(self._path.parent)
            heirs, lock = heirs_of(self._path), Path(f"{self._path}.lock")
            with locked(lock, wait=True):
                if heirs is not None:
                    os.chown(lock, *heirs)
                kept = self._read()
                if kept is not None and self._is_fresh(kept):
                    return kept
                write_atomic(self._path, made.model_dump_json().encode(), mode=PRIVATE_MODE, owner=heirs)
        except OSError as error:
            _log.warning("privacy_key_not_kept", path=str(self._path), error=str(error))
        return made


class ClientVeil:
    """Gives clients the names under which they are kept.

    truncate: addresses lose their last 8 (IPv4) or 80 bits (IPv6), so a network is one client. pseudonymise: an
    address of fd00::/8 by keyed hash; clients of one /64 share the /64 of their pseudonyms. Unknown clients and the
    network as a whole keep their names; what is no address is hashed, too.
    """

    def __init__(self, mode: str, key: PrivacyKey) -> None:
        self._mode, self._key = mode, key
        self._known: dict[str, str] = {}
        self._known_key = b""

    def column(self, clients: Coded) -> Coded:
        """n clients by their names."""
        shown = coded(self.names(clients.values))
        return Coded(shown.codes[clients.codes] if len(clients.values) else np.empty(0, np.int32), shown.values)

    def names(self, clients: Sequence[str]) -> list[str]:
        """What clients are called."""
        key = self._key.now() if self._mode == "pseudonymise" else b""
        if key != self._known_key or len(self._known) >= KNOWN_MAX:
            self._known, self._known_key = {}, key
        return [self._known.get(client) or self._named(client, key) for client in clients]

    def _named(self, client: str, key: bytes) -> str:
        name = client if client in ("", NETWORK) else _truncated(client) if not key else _pseudonym(client, key)
        self._known[client] = name
        return name


@dataclass(frozen=True, slots=True)
class Privacy:
    """veil: gives clients their names; None = their addresses. names: of which queries the names are kept."""

    veil: ClientVeil | None = None
    names: str = "all"

    @property
    def keeps_names(self) -> bool:
        """Whether names of NORMAL queries are kept."""
        return self.names == "all"


def _address(client: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ip_of(client)
    except ValueError:
        return None


def _truncated(client: str) -> str:
    """The network of an address; "" (unknown) for what is none."""
    address = _address(client)
    if address is None:
        return ""
    kept = KEPT_V4 if address.version == 4 else KEPT_V6
    return str(ipaddress.ip_network(f"{address}/{kept}", strict=False).network_address)


def _pseudonym(client: str, key: bytes) -> str:
    address = _address(client)
    text = str(address or client)
    home = str(ipaddress.ip_network(f"{address}/64", strict=False)) if address and address.version == 6 else text
    first, last = (hmac.digest(key, part.encode("utf-8", "surrogatepass"), hashlib.sha256) for part in (home, text))
    return str(ipaddress.IPv6Address(bytes([PSEUDONYM]) + first[:7] + last[8:16]))


def without_names(verdicts: Verdicts, kept: str) -> Verdicts:
    """The verdicts as they are kept. kept: "all"; "suspicious": names of NORMAL queries give way to their domain;
    "none": all do, and incidents lose their samples and what was decoded from them."""
    if kept == "all":
        return verdicts
    hidden = np.ones(len(verdicts), np.bool_) if kept == "none" else np.asarray(verdicts.severity) == Severity.NORMAL
    domains = coded(verdicts.domain)
    wires = [b"" if domain == "." else from_text(domain) for domain in domains.values]
    names = [
        wires[code] if hide else name
        for hide, code, name in zip(hidden.tolist(), domains.codes.tolist(), verdicts.queries.qname, strict=True)
    ]
    queries = replace(verdicts.queries, qname=names)
    if kept == "suspicious":
        return replace(verdicts, queries=queries)
    reasons = [_nameless_reasons(some) for some in verdicts.reasons]
    return replace(verdicts, queries=queries, reasons=reasons, incidents=tuple(map(_nameless, verdicts.incidents)))


def _nameless(incident: Incident) -> Incident:
    evidence = {name: "" if name == "preview" else value for name, value in incident.evidence.items()}
    return replace(incident, sample_names=(), reasons=_nameless_reasons(incident.reasons), evidence=evidence)


def _nameless_reasons(reasons: tuple[str, ...]) -> tuple[str, ...]:
    """Reasons without the name that a strict group's list does not have."""
    if not any(one.startswith(STRICT_REASON) for one in reasons):
        return reasons
    said = f"{STRICT_REASON} and asked for a name that its list does not have"
    return tuple(said if one.startswith(STRICT_REASON) else one for one in reasons)
