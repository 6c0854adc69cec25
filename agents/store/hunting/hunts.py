"""Hunts that have a name: what an analyst asks of a span, in SQL that the engines of `HuntStore` understand alike."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from agents.core.errors import UsageError
from agents.core.text import printable
from agents.core.types import DAY_S, Severity
from agents.dns.message import rcode_number

_SPAN = "ts >= '{since}' AND ts < '{until}'"
_HOURS = "hour >= toStartOfHour(toDateTime64('{since}', 6, 'UTC')) AND hour < toDateTime64('{until}', 6, 'UTC')"
_LOUDEST = "CASE max({}) " + " ".join(f"WHEN {int(one)} THEN '{one.name}'" for one in Severity) + " END AS severity"
_FAILED = f"sum(CASE WHEN rcode = {rcode_number('NXDOMAIN')} THEN 1 ELSE 0 END)"
_BY_DOMAIN = (
    f"SELECT domain, count(DISTINCT client) AS clients, {_FAILED} AS failed, count(*) AS queries,"
    f" {_LOUDEST.format('level')}, min(ts) AS first_seen, max(ts) AS last_seen FROM queries WHERE "
)
_KEPT_BY_DOMAIN = (
    "SELECT domain, uniqCombinedMerge(d.clients) AS clients, sum(d.failed) AS failed, sum(d.queries) AS queries,"
    f" {_LOUDEST.format('d.level')}, min(d.first_seen) AS first_seen, max(d.last_seen) AS last_seen"
    f" FROM domain_hours AS d WHERE {_HOURS}"
)
_RAREST = " GROUP BY domain ORDER BY clients, queries, domain"
_NEWEST = " ORDER BY queries DESC, domain"
_FAILING = " ORDER BY failed DESC, queries, domain"
_LARGEST = (
    f"SELECT ts, client, qname, qtype, rlen, severity FROM queries WHERE {_SPAN} AND rlen IS NOT NULL"
    " ORDER BY rlen DESC, ts DESC"
)
_MOST = " GROUP BY client, domain ORDER BY names DESC, queries DESC, client, domain"


class NamedHunt(NamedTuple):
    """sql, kept: with {since} and {until} where the times of a span go; kept asks ClickHouse's sums, of whole hours."""

    words: str
    sql: str
    kept: str

    def of_span(self, since: float, until: float, dialect: str) -> str:
        """The SQL for since <= ts < until, Unix seconds."""
        text = self.kept if dialect == "clickhouse" else self.sql
        return text.format(since=time_text(since), until=time_text(until))


HUNTS = {
    "rarest-domains": NamedHunt(
        "domains below which the fewest clients asked",
        _BY_DOMAIN + _SPAN + _RAREST,
        _KEPT_BY_DOMAIN + _RAREST,
    ),
    "new-domains": NamedHunt(
        "domains that nobody had asked for before",
        _BY_DOMAIN + "ts < '{until}' GROUP BY domain HAVING min(ts) >= '{since}'" + _NEWEST,
        f"{_KEPT_BY_DOMAIN} AND domain IN (SELECT domain FROM domains_seen GROUP BY domain"
        " HAVING min(domains_seen.first_seen) >= toDateTime64('{since}', 6, 'UTC')) GROUP BY domain" + _NEWEST,
    ),
    "largest-answers": NamedHunt("queries with the largest answers", _LARGEST, _LARGEST),
    "failing-domains": NamedHunt(
        "domains below which most names do not exist, of those asked for ten times and more",
        f"{_BY_DOMAIN}{_SPAN} GROUP BY domain HAVING count(*) >= 10 AND {_FAILED} > 0{_FAILING}",
        f"{_KEPT_BY_DOMAIN} GROUP BY domain HAVING sum(d.queries) >= 10 AND sum(d.failed) > 0{_FAILING}",
    ),
    "most-names": NamedHunt(
        "clients and domains with the most different names; longest: characters of a name before the domain",
        "SELECT client, domain, count(DISTINCT lower(qname)) AS names, count(*) AS queries,"
        f" max(length(qname) - length(domain)) AS longest FROM queries WHERE {_SPAN}{_MOST}",
        "SELECT client, domain, uniqCombinedMerge(f.names) AS names, sum(f.queries) AS queries,"
        f" max(f.longest) AS longest FROM flow_hours AS f WHERE {_HOURS}{_MOST}",
    ),
}


def named_hunt(text: str) -> NamedHunt:
    """The hunt of that name, or of the one name that begins so. Raises UsageError."""
    found = [text] if text in HUNTS else [name for name in HUNTS if text and name.startswith(text)]
    if len(found) != 1:
        raise UsageError(f"cannot hunt {printable(text, 40)!r}: there are {', '.join(HUNTS)}, or write a SELECT")
    return HUNTS[found[0]]


@dataclass(frozen=True, slots=True)
class HuntQuestion:
    """A SELECT, or in place of it the name of a hunt. days: that a named one is about; closed: only those in files."""

    sql: str
    name: str = ""
    days: int = 1
    limit: int = 100
    seconds: float = 60.0
    closed: bool = False

    def sql_of(self, dialect: str) -> str:
        """What the engine is asked. Raises UsageError for a name that no hunt has."""
        if not self.name:
            return self.sql
        now = time.time()
        return named_hunt(self.name).of_span(now - self.days * DAY_S, now, dialect)


def time_text(at: float) -> str:
    """A time as SQL compares it with `ts`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S.%f}"
