"""Hunts that have a name: what an analyst asks of a span, in SQL that the engines of `HuntStore` understand alike."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from agents.core.errors import UsageError
from agents.core.text import printable
from agents.core.types import Severity
from agents.dns.message import rcode_number

_SPAN = "ts >= '{since}' AND ts < '{until}'"
_LOUDEST = "CASE max(level) " + " ".join(f"WHEN {int(one)} THEN '{one.name}'" for one in Severity) + " END AS severity"
_FAILED = f"sum(CASE WHEN rcode = {rcode_number('NXDOMAIN')} THEN 1 ELSE 0 END)"
_BY_DOMAIN = (
    f"SELECT domain, count(DISTINCT client) AS clients, {_FAILED} AS failed, count(*) AS queries, {_LOUDEST},"
    " min(ts) AS first_seen, max(ts) AS last_seen FROM queries WHERE {where} GROUP BY domain"
)  # fmt: skip


class NamedHunt(NamedTuple):
    """sql: with {since} and {until} where the times of a span go."""

    words: str
    sql: str

    def of_span(self, since: float, until: float) -> str:
        """The SQL for since <= ts < until, Unix seconds."""
        return self.sql.format(since=time_text(since), until=time_text(until))


HUNTS = {
    "rarest-domains": NamedHunt(
        "domains below which the fewest clients asked",
        _BY_DOMAIN.format(where=_SPAN) + " ORDER BY clients, queries, domain",
    ),
    "new-domains": NamedHunt(
        "domains that nobody had asked for before",
        _BY_DOMAIN.format(where="ts < '{until}'") + " HAVING min(ts) >= '{since}' ORDER BY queries DESC, domain",
    ),
    "largest-answers": NamedHunt(
        "queries with the largest answers",
        f"SELECT ts, client, qname, qtype, rlen, severity FROM queries WHERE {_SPAN} AND rlen IS NOT NULL"
        " ORDER BY rlen DESC, ts DESC",
    ),
    "failing-domains": NamedHunt(
        "domains below which most names do not exist, of those asked for ten times and more",
        _BY_DOMAIN.format(where=_SPAN)
        + f" HAVING count(*) >= 10 AND {_FAILED} > 0 ORDER BY failed DESC, queries, domain",
    ),
    "most-names": NamedHunt(
        "clients and domains with the most different names, and how many characters these have below the domain",
        "SELECT client, domain, count(*) AS names, sum(length(name) - length(domain)) AS characters"
        f" FROM (SELECT DISTINCT client, domain, lower(qname) AS name FROM queries WHERE {_SPAN}) AS different"
        " GROUP BY client, domain ORDER BY names DESC, characters DESC, client, domain",
    ),
}  # fmt: skip


def named_hunt(text: str) -> NamedHunt:
    """The hunt of that name, or of the one name that begins so. Raises UsageError."""
    found = [text] if text in HUNTS else [name for name in HUNTS if text and name.startswith(text)]
    if len(found) != 1:
        raise UsageError(f"cannot hunt {printable(text, 40)!r}: there are {', '.join(HUNTS)}, or write a SELECT")
    return HUNTS[found[0]]


def time_text(at: float) -> str:
    """A time as SQL compares it with `ts`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S.%f}"
