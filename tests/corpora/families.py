"""Sessions of malware and tools that nothing here was tuned to, laid over a benign client, and when they are found.

    python -m tests.corpora.families        prints the table of docs/detection-families.md

Each family asks as public reports say it does (tests/families_*.py), in two ways: beacons alone, and with something
to tell.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from agents.core.types import Incident, Row
from agents.dns.message import type_number
from agents.dns.name import domain_text, from_text, split_domain
from agents.scoring.model import Model
from tests.corpora.families_base import Family, domains_of
from tests.corpora.families_crime import CRIME
from tests.corpora.families_spies import SPIES
from tests.corpora.families_tools import TOOLS
from tests.corpora.lookalikes import ROLES, traffic
from tests.support.detecting import START, incidents_of, shipped_model
from tests.support.plain_information import cost

FAMILIES: tuple[Family, ...] = (*SPIES, *CRIME, *TOOLS)
BEACONS, TASKS = (25, 60), (60, 150)
"""Least and most queries of a session without and with something to tell."""
SEEDS = range(1, 6)
"""Sessions of each kind that the table tells of."""
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Session:
    """Queries of one implant in time order, and its domains."""

    family: Family
    task: bool
    domains: list[str]
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Found:
    """When a session was found; 0 queries where it was not."""

    session: Session
    queries: int
    seconds: float
    carried: float  # bytes of information in its names until then, or in all
    others: tuple[str, ...]  # incidents of domains that are not its own


def session_of(family: Family, task: bool, seed: int, client: str) -> Session:
    """One session, beginning in the client's morning."""
    rng = random.Random(f"{family.name} {task} {seed}")
    domains = domains_of(rng, family.domains)
    ts = START + rng.uniform(9, 11) * 3600
    rows: list[Row] = []
    for beat in islice(family.talk(rng, domains, task), rng.randint(*(TASKS if task else BEACONS))):
        ts += beat.after_s
        wire = from_text(beat.qname)
        size = len(wire) + 16 + beat.answer
        rows.append((ts, client, wire, type_number(beat.qtype), len(wire) + 17, 0, 1, size, 60, 30.0, beat.qtype))
    return Session(family, task, domains, rows)


@lru_cache(maxsize=8)
def office_day(seed: int) -> tuple[Row, ...]:
    """A day of one office PC."""
    return tuple(traffic(seed, (ROLES[0]._replace(clients=1),)))


def laid_over(session: Session, day: Sequence[Row]) -> list[Row]:
    """The session among its client's own queries, each of whose days is like the first."""
    days = int((session.rows[-1][0] - START) // DAY_S) + 1
    benign = [(row[0] + number * DAY_S, *row[1:]) for number in range(days) for row in day]
    return sorted([*benign, *session.rows], key=lambda row: row[:3])


def measured(family: Family, task: bool, seed: int = 1, model: Model | None = None) -> Found:
    """Find one session."""
    model, day = model or shipped_model(), office_day(seed)
    session = session_of(family, task, seed, day[0][1])
    incidents = incidents_of(laid_over(session, day), model)
    own = [one for one in incidents if one.domain in session.domains]
    others = tuple(one.domain for one in incidents if one not in own)
    return _found(session, own[0] if own else None, others, model)


def _found(session: Session, first: Incident | None, others: tuple[str, ...], model: Model) -> Found:
    until = first.detected_at if first else float("inf")
    before = [row for row in session.rows if row[0] <= until]
    new = {(domain_text(row[2]), label) for row in before for label in split_domain(row[2].lower())[0]}
    carried = sum(cost(model.chars, label).bits for _, label in new) / 8
    seconds = before[-1][0] - session.rows[0][0]
    return Found(session, len(before) if first else 0, seconds, carried, others)


def line_of(family: Family, task: bool, model: Model) -> tuple[str, float]:
    """A row of the table, and the share of the sessions that were found; the figures are medians of those."""
    sessions = [measured(family, task, seed, model) for seed in SEEDS]
    found = [one for one in sessions if one.queries]
    what = f"| {family.name.replace('_', ' ')} | {family.domains} | {'tasks' if task else 'beacons'} "
    if not found:
        most = max(len(one.session.rows) for one in sessions)
        carried = max(one.carried for one in sessions)
        return f"{what}| 0 of {len(SEEDS)} | none of {most} | | {carried:.0f} in all |", 0.0
    queries, seconds, carried = (
        statistics.median(values) for values in zip(*((o.queries, o.seconds, o.carried) for o in found), strict=True)
    )
    share = f"{len(found)} of {len(SEEDS)}"
    return f"{what}| {share} | {queries:.0f} | {_span(seconds)} | {carried:.0f} |", len(found) / len(SEEDS)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def main() -> None:
    lines = [
        "| family | domains | | found | queries | after | bytes |",
        "| --- | ---: | --- | --- | ---: | ---: | ---: |",
    ]
    model, shares = shipped_model(), []
    for family in FAMILIES:
        for task in (False, True):
            line, share = line_of(family, task, model)
            lines.append(line)
            if task or family.leaks:
                shares.append(share)
    lines += ["", f"{statistics.mean(shares):.1%} of the sessions that carry something, each kind alike"]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
