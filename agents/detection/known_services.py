"""Known services: benign names that look like exfiltration get a larger byte budget, never an unlimited one."""

from __future__ import annotations

import csv
import io
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, date, datetime
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import slots_of
from agents.core.columns import Coded, Names, packed
from agents.core.errors import NameFormatError, SettingsError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.text import ip_of, network_text, printable
from agents.core.types import Incident
from agents.detection.limits import Scale
from agents.dns.name import from_text, is_listed, is_public_suffix, labels_of, to_text, wire_of
from agents.dns.name_kernels import longest_listed

FACTORS_MAX = 65_536
"""Names whose factor is cached, at most; at this bound the cache is emptied."""


@dataclass(frozen=True, slots=True)
class Service:
    """One entry of the list."""

    suffix: str
    factor: float
    shape: re.Pattern[bytes] | None
    what: str


@lru_cache(maxsize=1)
def services() -> dict[tuple[bytes, ...], Service]:
    """The shipped list by suffix labels."""
    text = resources.files("agents.detection").joinpath("baseline/services.csv").read_text("utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {labels_of(from_text(row["suffix"])): _service(row) for row in rows}


def _service(row: dict[str, str]) -> Service:
    shape = re.compile(row["shape"].encode()) if row["shape"] else None
    return Service(row["suffix"], float(row["factor"]), shape, row["what"])


_OF_ALL = frozenset(map(from_text, ("in-addr.arpa", "ip6.arpa")))
"""The zones of all addresses, whose parts belong to their holders."""


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ClientRule(NamedTuple):
    """A larger budget of some clients. labels: () = of all names."""

    network: Network
    labels: tuple[bytes, ...]
    factor: float


class KnownServices:
    """The shipped list with an operator's own entries (by suffix labels), which replace shipped entries.

    rules: entries that are for some clients alone; they only raise what the list gives.
    """

    def __init__(
        self, own: Mapping[tuple[bytes, ...], Service] = MappingProxyType({}), rules: Sequence[ClientRule] = ()
    ) -> None:
        listed = {**services(), **own}
        self._all = list(listed.values())
        self._suffixes = packed([wire_of(labels) for labels in listed])
        self._slots = slots_of(self._suffixes.array, self._suffixes.starts)
        self._plain = np.array([1.0 if one.shape else one.factor for one in self._all])
        self._shaped = np.array([one.shape is not None for one in self._all])
        self._of_all = np.array([wire_of(labels) in _OF_ALL for labels in listed])
        self._remembered: dict[bytes, float] = {}
        self._rules, self._by_client = rules, dict[str, list[ClientRule]]()

    def factors(self, names: Names) -> NDArray[np.float64]:
        """How many times more each of n lower-case wire names may carry than a name of an unknown service.

        The longest listed suffix at label boundaries decides. A name without that service's shape gets factor 1.
        """
        which, table = np.empty(len(names), np.int32), (self._suffixes.array, self._suffixes.starts, self._slots)
        if not longest_listed(names.array, names.starts, *table, which):
            return np.ones(len(names))
        found = np.where(which < 0, 1.0, self._plain[which])
        for row in np.flatnonzero((which >= 0) & self._shaped[which]).tolist():
            found[row] = self._factor_by_shape(names[row], int(which[row]))
        return found

    def factors_delegated(self, names: Names) -> NDArray[np.float64]:
        """`factors` of addresses' names below their delegations, each a domain like any other: the zones of all
        addresses do not count as listed."""
        which = np.empty(len(names), np.int32)
        table = (self._suffixes.array, self._suffixes.starts, self._slots)
        longest_listed(names.array, names.starts, *table, which)
        found = self.factors(names)
        return np.where((which >= 0) & ~self._of_all[which], found, 1.0)

    def raised(self, factors: NDArray[np.float64], names: Names, clients: Coded) -> NDArray[np.float64]:
        """The n factors of n lower-case wire names, larger where an entry is for the client that asks for the name."""
        if not self._rules:
            return factors
        out = factors.copy()
        for code in np.unique(clients.codes).tolist():
            for rule in self._rules_of(clients.values[code]):
                rows = np.flatnonzero(clients.codes == code)
                if rule.labels:
                    rows = rows[[labels_of(names[row])[-len(rule.labels) :] == rule.labels for row in rows.tolist()]]
                out[rows] = np.maximum(out[rows], rule.factor)
        return out

    def _rules_of(self, client: str) -> list[ClientRule]:
        """Entries that are for a client, cached."""
        found = self._by_client.get(client)
        if found is None:
            if len(self._by_client) >= FACTORS_MAX:
                self._by_client.clear()
            found = self._by_client[client] = [rule for rule in self._rules if is_within(client, rule.network)]
        return found

    def factor(self, wire: bytes) -> float:
        """The factor of one name, see `factors`."""
        return float(self.factors(packed([wire]))[0])

    def _factor_by_shape(self, wire: bytes, number: int) -> float:
        """The factor of a name below a listed suffix, cached."""
        found = self._remembered.get(wire)
        if found is None:
            if len(self._remembered) >= FACTORS_MAX:
                self._remembered.clear()
            service = self._all[number]
            rest = wire[: len(wire) - len(self._suffixes[number])]
            fits = service.shape is None or service.shape.fullmatch(b".".join(labels_of(rest)))
            found = self._remembered[wire] = service.factor if fits else 1.0
        return found


FACTOR_MAX = 1000.0
OWN = "own"
"""The factor of a zone of this network's own, as it is written."""
OWN_ZONE_FACTOR = 1e12
"""What stays inside is no leak: no limit is ever reached below a zone of this network's own."""
ENTRIES_MAX = 1000


def is_within(client: str, network: Network) -> bool:
    """Whether a client's address lies in a network; one that is no address lies in none."""
    try:
        return ip_of(client) in network
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the allowlist. Dates are YYYY-MM-DD in UTC; the entry is valid until the end of its expiry day.

    client: an address or a network, whose clients alone it is for; "" = all. For some clients alone the suffix may be
    the root, "."."""

    suffix: str
    factor: float
    reason: str
    author: str
    added: str
    expires: str
    client: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What there is one entry of."""
        return self.suffix, self.client

    @property
    def shown(self) -> str:
        """Its names and clients, in words."""
        return f"{self.suffix} for {self.client}" if self.client else self.suffix

    @property
    def is_own(self) -> bool:
        """Whether it is a zone of this network's own, below which everything may be carried."""
        return self.factor == OWN_ZONE_FACTOR

    @property
    def labels(self) -> tuple[bytes, ...]:
        """The suffix as raw lower-case labels."""
        return labels_of(from_text(self.suffix).lower())

    def holds(self, now: float) -> bool:
        """Whether the entry is still valid at Unix time `now`."""
        return datetime.fromtimestamp(now, UTC).date() <= date.fromisoformat(self.expires)

    def covers(self, incident: Incident) -> bool:
        """Whether all names of an incident lie below the suffix, at label boundaries, and its client is meant."""
        if self.client and not is_within(incident.client, ipaddress.ip_network(self.client)):
            return False
        names = incident.sample_names or (incident.domain,)
        return all(_below(name, self.labels) for name in names)

    def silences(self, incident: Incident, scale: Scale) -> bool:
        """Whether this entry's budget would have kept the incident from opening."""
        return self.covers(incident) and scale.ratio(incident.score) < self.factor


def factor_needed(incident: Incident, scale: Scale) -> int:
    """The least whole factor of an entry that would have kept the incident from opening."""
    return int(scale.ratio(incident.score)) + 1


def _below(name: str, suffix: tuple[bytes, ...]) -> bool:
    try:
        labels = labels_of(from_text(name).lower())
    except NameFormatError:
        return False
    return labels[len(labels) - len(suffix) :] == suffix


FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes for a formula at the beginning of a cell (OWASP, CSV Injection)."""


def suffix_of(text: str) -> str:
    """A suffix as entries hold it: lower case, in presentation form (RFC 1035 section 5.1). Raises NameFormatError."""
    return to_text(from_text(text.strip().rstrip(".").lower()))


def entry_of(row: dict[str, str]) -> Entry:
    """A checked entry; a row without a client is for all. Raises ValueError that names the fault."""
    row = {"client": ""} | row
    if None in row.values() or set(row) != {field.name for field in fields(Entry)}:
        raise ValueError("a line has suffix, factor, reason, author, added, expires, and maybe client")
    if not row["reason"].strip() or not row["author"].strip():
        raise ValueError("a reason and an author are needed")
    try:
        factor = OWN_ZONE_FACTOR if row["factor"] == OWN else _number(row["factor"])
        for name in ("added", "expires"):
            _must_be_a_date(row[name])
        suffix = suffix_of(row["suffix"])
        labels, client = labels_of(from_text(suffix)), entry_client(row["client"])
        if not labels and (not client or row["factor"] == OWN):
            raise ValueError("a suffix is needed")
        if is_public_suffix(labels) and not client:
            raise ValueError("names of strangers end in it: it is a public suffix, or a top level")
    except NameFormatError as error:
        raise ValueError(str(error)) from None
    if row["factor"] == OWN:
        own_zone(suffix)
    elif not 1 < factor <= FACTOR_MAX:
        raise ValueError(f"a factor is more than 1 and at most {FACTOR_MAX:g}, or {OWN!r} for a zone of this network")
    return Entry(suffix, factor, row["reason"].strip(), row["author"].strip(), row["added"], row["expires"], client)


def entry_client(text: str) -> str:
    """The clients of an entry as it holds them: an address or a network, "" = all. Raises ValueError."""
    try:
        return network_text(text) if text.strip() else ""
    except ValueError:
        raise ValueError(f"{printable(text, 60)!r} is neither an address nor a network") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"the factor {text!r} is no number") from None


def _must_be_a_date(text: str) -> None:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no day: YYYY-MM-DD is needed, for example 2026-12-31") from None


def load_entries(path: Path) -> list[Entry]:
    """The entries in a file; an empty list if the file does not exist. Raises SettingsError naming the line."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    entries = []
    reader = csv.DictReader(io.StringIO(text, newline=""))
    for row in reader:
        try:
            entries.append(entry_of({name: _unquoted(text) if text else text for name, text in row.items()}))
        except ValueError as error:
            raise SettingsError(f"cannot read {path}, line {reader.line_num}: {error}") from None
    return entries


def save_entries(path: Path, entries: Sequence[Entry]) -> None:
    """Write the list in one step. Raises OSError."""
    out = io.StringIO(newline="")
    names = [field.name for field in fields(Entry)]
    if not any(entry.client for entry in entries):  # as releases before 0.2 read it
        names.remove("client")
    writer = csv.DictWriter(out, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for entry in entries:
        writer.writerow({name: _quoted(value) for name, value in row_of_entry(entry).items()})
    write_atomic(path, out.getvalue().encode(), PRIVATE_MODE)


def row_of_entry(entry: Entry) -> dict[str, str]:
    """An entry as `entry_of` reads it."""
    return asdict(entry) | {"factor": OWN if entry.is_own else f"{entry.factor:.12g}"}


def _quoted(value: object) -> object:
    """A text that neither a spreadsheet nor a terminal runs: one that looks like a formula gets an apostrophe first."""
    if not isinstance(value, str):
        return value
    text = printable(value, len(value) * 4 + 2)
    return f"'{text}" if text.lstrip("'").startswith(FORMULA) else text


def _unquoted(text: str) -> str:
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA) else text


def with_entry(entries: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The list with a new entry, which replaces an entry of the same suffix and client. Raises SettingsError at
    ENTRIES_MAX."""
    kept = [one for one in entries if one.key != entry.key]
    if len(kept) >= ENTRIES_MAX:
        raise SettingsError(f"cannot add {entry.suffix}: the list holds {ENTRIES_MAX} entries")
    return sorted([*kept, entry], key=lambda one: one.key)


def own_zone(text: str) -> str:
    """A zone as a suffix. Raises ValueError for one below which strangers have names."""
    try:
        zone = suffix_of(text)
        labels = labels_of(from_text(zone))
    except NameFormatError as error:
        raise ValueError(str(error)) from None
    if not labels or is_listed(labels) or (len(labels) > 1 and is_public_suffix(labels)):
        raise ValueError(f"{printable(text, 60)!r} is nobody's own: strangers have names below it")
    return zone


def services_at(entries: Iterable[Entry], now: float, own_zones: Iterable[str] = ()) -> KnownServices:
    """The shipped list with the entries that are valid at Unix time `now`, and with zones of this network's own."""
    holding = [entry for entry in entries if entry.holds(now)]
    own = {one.labels: Service(one.suffix, one.factor, None, one.reason) for one in holding if not one.client}
    rules = [ClientRule(ipaddress.ip_network(one.client), one.labels, one.factor) for one in holding if one.client]
    zones = {labels_of(from_text(zone)): Service(zone, OWN_ZONE_FACTOR, None, "own zone") for zone in own_zones}
    return KnownServices(zones | own, rules)


def closed_by(incident: Incident, entry: Entry, now: float) -> Incident:
    """The incident, closed by an entry of the allowlist."""
    return replace(incident, closed_at=incident.closed_at or now, reasons=(*incident.reasons, _why_closed(entry)))


def opened_again(incident: Incident, entry: Entry, at: float) -> Incident | None:
    """An incident as it was before `closed_by` at that time; None where that did not close it."""
    why = _why_closed(entry)
    if why not in incident.reasons:
        return None
    reasons = tuple(one for one in incident.reasons if one != why)
    return replace(incident, closed_at=None if incident.closed_at == at else incident.closed_at, reasons=reasons)


def _why_closed(entry: Entry) -> str:
    return f"closed as known: {entry.shown}, {entry.reason} ({entry.author}, until {entry.expires})"
