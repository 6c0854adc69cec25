"""A hundred families in four ways each, over their own domains and over several: which sessions are found.

python -m tests.corpora.families_matrix [--only TEXT] [--seeds N] [--json PATH|-]

Ways: beacons of an idle implant; a task with its output; a download, whose answers bring a module; and a task of which
half the queries get no answer. A session counts as found with an incident HIGH or above of its client; as listed with
any incident. Beacons that carry nothing new, and what only comes in for them, stand in columns of their own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from agents.core.types import UNKNOWN, Row, Severity
from agents.detection.limits import SCATTERED
from agents.dns.message import type_number
from agents.dns.name import from_text
from tests.corpora.families import BEACONS, FAMILIES, TASKS, Session, laid_over, office_day
from tests.corpora.families_backdoors import BACKDOORS
from tests.corpora.families_base import Beat, Family, about, domains_of
from tests.corpora.families_frameworks import FRAMEWORKS
from tests.corpora.families_theft import SILENT, THEFT
from tests.support.detecting import START, incidents_of, shipped_model

ALL: tuple[Family, ...] = (*FAMILIES, *BACKDOORS, *THEFT, *FRAMEWORKS)
WAYS = ("beacons", "task", "download", "unanswered")
SPREAD = 6
"""Domains of the second form of a family that has one; a family that has several keeps to one in it."""
QUIET = SILENT | {"morto", "dnslivery", "power_dns", "dns_stager", "karkoff_check"}
"""Families whose names carry nothing out: their tasks count only by what comes in."""
FETCHED = {"TXT": 250, "NULL": 250, "AAAA": 28 * 4, "CNAME": 80, "MX": 60, "SRV": 60, "NS": 60, "HTTPS": 120}
"""Bytes of the records that bring a piece of a module, by type; an address brings four."""
RECORD_HEAD, ADDRESS = 12, 4
"""Bytes of a record before its data, its owner compressed (RFC 1035 section 4.1.3), and of an A record's data."""
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether one session was found, and after how many queries."""

    family: str
    way: str
    spread: bool
    carries: bool
    found: bool
    listed: bool
    queries: int
    of: int


def carries(family: Family, way: str) -> bool:
    """Whether a session of this way carries something new, out or in."""
    if way == "beacons":
        return family.leaks
    return way == "download" or family.name not in QUIET


def session_in(family: Family, way: str, spread: bool, seed: int, client: str) -> Session:
    """One session, beginning in the client's morning."""
    rng = random.Random(f"{family.name} {way} {spread} {seed}")
    several = spread == (family.domains == 1)
    zones = domains_of(rng, max(family.domains, SPREAD) if several else 1)
    own = (zones * family.domains)[: max(family.domains, len(zones))] if family.domains > 1 else zones[:1]
    task = way in ("task", "unanswered")
    beats = islice(family.talk(rng, own, task), rng.randint(*(BEACONS if way == "beacons" else TASKS)))
    ts, rows = START + rng.uniform(9, 11) * 3600, list[Row]()
    for number, beat in enumerate(beats):
        one = _fetching(rng, beat) if way == "download" else beat
        ts += one.after_s
        name = one.qname
        if several and family.domains == 1:  # the same protocol over several domains in turn
            name = name.removesuffix(own[0]) + zones[number % len(zones)]
        answered = way != "unanswered" or rng.random() < 0.5
        rows.append(_row(ts, client, name, one, answered, piece=number if way == "download" else 0))
    return Session(family, task, zones, rows)


def _fetching(rng: random.Random, beat: Beat) -> Beat:
    """The same question as it fetches a piece: sooner, and with as much in the answer as its type holds."""
    return beat._replace(after_s=min(beat.after_s, about(rng, 3)), answer=FETCHED.get(beat.qtype, beat.answer))


def _row(ts: float, client: str, name: str, beat: Beat, answered: bool, piece: int) -> Row:
    """One exchange. piece: which of a module's its answer brings; the answers of one piece are all the same."""
    wire, number = from_text(name), type_number(beat.qtype)
    if not answered:
        return (ts, client, wire, number, len(wire) + 17, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, float("nan"), "")
    size = len(wire) + 16 + beat.answer
    data = 1 + piece, max(beat.answer - RECORD_HEAD, ADDRESS), UNKNOWN
    return (ts, client, wire, number, len(wire) + 17, 0, 1, size, 60, 30.0, beat.qtype, *data)


def outcome(family: Family, way: str, spread: bool, seed: int = 1) -> Outcome:
    """Lay one session over its client's day, and look for it."""
    day = office_day(seed)
    session = session_in(family, way, spread, seed, day[0][1])
    incidents = [one for one in incidents_of(laid_over(session, day)) if one.domain in {*session.domains, SCATTERED}]
    loud = [one for one in incidents if one.severity >= Severity.HIGH]
    until = loud[0].detected_at if loud else float("-inf")
    queries = sum(row[0] <= until for row in session.rows)
    return Outcome(
        family.name, way, spread, carries(family, way), bool(loud), bool(incidents), queries, len(session.rows)
    )


def _outcomes(number: int, seeds: int) -> list[Outcome]:
    return [
        outcome(ALL[number], way, spread, seed)
        for way in WAYS
        for spread in (False, True)
        for seed in range(1, seeds + 1)
    ]


def outcomes(families: Sequence[Family] = ALL, seeds: int = 1, workers: int = WORKERS) -> list[Outcome]:
    """All ways of the families."""
    shipped_model()
    numbers = [ALL.index(family) for family in families]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
        return [one for many in pool.map(_outcomes, numbers, [seeds] * len(numbers)) for one in many]


def _share(found: Iterable[Outcome]) -> str:
    made = list(found)
    return f"{sum(one.found for one in made) / len(made):.1%} of {len(made)}" if made else "none"


def table(found: Sequence[Outcome]) -> str:
    """Shares by way, then every family of which a session that carries something was not found, as Markdown."""
    lines = ["| way | carries something: found | carries nothing new: found | listed |", "| --- | ---: | ---: | ---: |"]
    for way in WAYS:
        mine = [one for one in found if one.way == way]
        silent = [one for one in mine if not one.carries]
        listed = f"{sum(one.listed for one in silent)} of {len(silent)}"
        lines.append(f"| {way} | {_share(one for one in mine if one.carries)} | {_share(silent)} | {listed} |")
    for spread, what in ((False, "in its own form"), (True, "one domain for several, or several for one")):
        lines.append(f"| {what} | {_share(one for one in found if one.carries and one.spread == spread)} | | |")
    lines.append(f"| **all** | **{_share(one for one in found if one.carries)}** | | |")
    lines += ["", "| family | not found, of what carries something |", "| --- | --- |"]
    for family in dict.fromkeys(one.family for one in found):
        missed = [one for one in found if one.family == family and one.carries and not one.found]
        if missed:
            said = ", ".join(dict.fromkeys(f"{one.way}{' (other domains)' if one.spread else ''}" for one in missed))
            lines.append(f"| {family.replace('_', ' ')} | {said} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.corpora.families_matrix", description="Who is found.")
    parser.add_argument("--only", default="", metavar="TEXT", help="families whose name holds this")
    parser.add_argument("--seeds", type=int, default=1, help="sessions of each way and form (1)")
    parser.add_argument("--json", metavar="PATH", help="write JSON there, - = standard output instead of the table")
    options = parser.parse_args(arguments)
    chosen = [family for family in ALL if options.only in family.name]
    if not chosen:
        parser.error(f"cannot measure {options.only!r}: no family's name holds it")
    found = outcomes(chosen, options.seeds)
    text = json.dumps([asdict(one) for one in found], indent=1) + "\n"
    if options.json == "-":
        sys.stdout.write(text)
        return 0
    if options.json:
        Path(options.json).write_text(text, "utf-8")
    print(f"{len(chosen)} families, {len(found)} sessions\n\n{table(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
