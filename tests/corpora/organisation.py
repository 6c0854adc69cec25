"""Weeks of an ordinary organisation of 300 clients, and how loud the shipped detector is about them.

python -m tests.corpora.organisation [--weeks 4] [--seed N] [--lookalikes] [--attacker] [--json PATH|-]

Offices by working hours, phones, devices, mail, directories, clouds, containers. Printed: incidents HIGH and CRITICAL
a week, verdicts HIGH and above that belong to no incident, what is listed below HIGH, and which kind of asking each
comes from. --lookalikes measures the wide look-alike suite instead, --attacker lets data leave during the first week.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from heapq import merge
from pathlib import Path
from typing import Any

import numpy as np

from agents.alerting.manager import is_paged
from agents.core.text import NETWORK
from agents.core.types import DAY_S, Incident, Row, Severity, batch_of
from agents.detection.limits import Scale
from agents.learning.evaluation import encoded
from tests.corpora import lookalike_hosts as hosts
from tests.corpora import lookalike_kinds as kinds
from tests.corpora import lookalike_services as services
from tests.corpora.lookalikes import START, WIDE_ROLES, Role, rows
from tests.support.detecting import fresh_detector, query, shipped_model

WEEK_DAYS, WORKING_DAYS = 7, 5
BATCH = 2048
ATTACKER = "attacker"
"""The kind of the queries of `attack`."""

OFFICE: Role = Role(
    128,
    {
        kinds.page: 9,
        kinds.directory: 2,
        kinds.suffixed: 1,
        kinds.probes: 1,
        kinds.telemetry: 4,
        kinds.antivirus: 2,
        hosts.shards: 3,
        hosts.tenants: 2,
        hosts.updates: 3,
        hosts.meetings: 1,
        services.keyed_hosts: 3,
        services.latency_probes: 1,
    },
)
WORKING = (
    OFFICE,
    Role(20, OFFICE.rates | {services.audience: 3, services.keyed_metrics: 1, services.city_hosts: 1}),
    Role(6, OFFICE.rates | {services.experiments: 1, services.speed_test: 1}),
    Role(4, OFFICE.rates | {services.scan: 1}),
    Role(1, OFFICE.rates | {services.leak_test: 1}),
    Role(
        10,
        {
            kinds.page: 10,
            hosts.previews: 6,
            hosts.scaled: 6,
            kinds.cloud: 10,
            services.own_certificates: 1,
            services.content_addressed: 1,
        },
    ),
    Role(1, {services.node_lists: 2, kinds.page: 5}),
)
"""Who is there on working days."""
ALWAYS = (
    Role(4, {services.partners: 24, kinds.directory: 10}),
    Role(
        4,
        {
            kinds.mail: 90,
            kinds.delivery: 40,
            services.block_lists: 90,
            services.hashed_lists: 30,
            services.spf_macros: 40,
            services.dial_up: 60,
            services.large_text: 5,
        },
    ),
    Role(2, {kinds.validating: 100, services.zone_keys: 30}),
    Role(1, {services.visitors: 40, hosts.subscribers: 20}),
    Role(1, {hosts.fleet: 10, kinds.reverse_sweep: 1}),
    Role(16, {services.cloud_hosts: 20, kinds.cloud: 3}),
    Role(18, {services.containers: 4, services.discovery: 10, kinds.pods: 8, kinds.certificates: 1}),
    Role(46, {kinds.page: 3, kinds.multicast: 3, services.keyed_hosts: 4, kinds.games: 2, kinds.video: 1}),
    Role(6, {services.peer_video: 2, services.media_server: 3, kinds.video: 2}),
    Role(32, {services.printers_and_cameras: 4, kinds.things: 3}),
)
"""Who is there every day."""
CLIENTS = sum(role.clients for role in (*WORKING, *ALWAYS))


@dataclass
class Heard:
    """What the detector said of a week: numbers of incidents, of verdicts, and of both by kind of asking."""

    incidents: Counter[str] = field(default_factory=Counter)
    paged: int = 0
    outside: Counter[str] = field(default_factory=Counter)
    listed: int = 0
    clients: set[str] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)
    outside_kinds: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"clients": sorted(self.clients)}


@dataclass
class Silence:
    """All weeks of a suite, and the incidents of the attacker."""

    queries: int
    weeks: list[Heard]
    examples: dict[str, str]
    caught: list[Incident]


Kinded = tuple[Row, str]


def day_of(seed: int, day: int, lookalikes: bool = False) -> list[Kinded]:
    """One day's queries in time order, and what asked them."""
    if lookalikes:
        made = rows(WEEK_DAYS * seed + day, WIDE_ROLES)
    else:
        nobody = tuple(role._replace(rates={}) for role in WORKING)
        made = rows(1000 * seed + day, (*(WORKING if day % WEEK_DAYS < WORKING_DAYS else nobody), *ALWAYS))
    return [((row[0] + day * DAY_S, *row[1:]), kind) for row, kind in made]


def attack(days: Sequence[int] = (1, 3), client: str = "10.20.0.40") -> list[Kinded]:
    """Two slow tunnels of an office PC in the first week: thirty bytes each ten minutes, five hours of a morning."""
    rng = random.Random("attack")
    return [
        (query(START + day * DAY_S + 8 * 3600 + step * 600, client, f"{encoded(rng, 30)}.{zone}"), ATTACKER)
        for day, zone in zip(days, ("quiet-harbour-sync.net", "paper-lantern-docs.com"), strict=True)
        for step in range(30)
    ]


def traffic(seed: int, days: int, lookalikes: bool = False, more: Sequence[Kinded] = ()) -> Iterator[list[Kinded]]:
    """Slices in time order; the next days are made by another process meanwhile."""
    late: list[Kinded] = []
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        made = pool.map(day_of, [seed] * days, range(days), [lookalikes] * days)
        for day, today in enumerate(made):
            both = list(merge(late, today, key=lambda one: one[0][0]))
            end = START + (day + 1) * DAY_S
            own = [one for one in more if end - DAY_S <= one[0][0] < end]
            late = [one for one in both if one[0][0] >= end]
            both = sorted([*both[: len(both) - len(late)], *own], key=lambda one: one[0][:3])
            yield from (both[at : at + BATCH] for at in range(0, len(both), BATCH))


def silence(seed: int = 1, weeks: int = 4, lookalikes: bool = False, attacker: bool = False) -> Silence:
    """Judge the weeks, and count what is loud."""
    detector = fresh_detector(shipped_model(), Scale(), burn_in_days=WEEK_DAYS)
    incidents: dict[str, Incident] = {}
    loud: Counter[tuple[int, str, str, str]] = Counter()
    samples: dict[str, str] = {}
    queries = 0
    for part in traffic(seed, weeks * WEEK_DAYS, lookalikes, attack() if attacker else ()):
        said = detector.detect(batch_of([row for row, _ in part]), explain=False)
        queries += len(part)
        incidents |= {one.incident_id: one for one in said.incidents}
        for at in np.flatnonzero(said.severity >= Severity.HIGH).tolist():
            row, kind = part[at]
            loud[_week(row[0]), row[1], said.domain[at], kind] += 1
            samples.setdefault(kind, said.domain[at])
    last = detector.flush()
    incidents |= {one.incident_id: one for one in (last.incidents if last else ())}
    return _counted(queries, weeks, list(incidents.values()), loud, samples)


def _week(ts: float) -> int:
    return int((ts - START) // (WEEK_DAYS * DAY_S))


def _counted(
    queries: int,
    weeks: int,
    incidents: Sequence[Incident],
    loud: Counter[tuple[int, str, str, str]],
    samples: dict[str, str],
) -> Silence:
    heard = [Heard() for _ in range(weeks)]
    attacked = {(client, domain) for _, client, domain, kind in loud if kind == ATTACKER}
    attackers = {client for client, _ in attacked}
    asked = {(client, domain): kind for _, client, domain, kind in loud}
    pairs = {(one.client, one.domain) for one in incidents if one.severity >= Severity.HIGH}
    caught = []
    for one in incidents:
        here = heard[min(_week(one.detected_at), weeks - 1)]
        if one.severity < Severity.HIGH:
            here.listed += 1
        elif (one.client, one.domain) in attacked or (one.client in attackers and one.domain == "*"):
            caught.append(one)
        else:
            here.paged += is_paged(one)
            here.incidents[one.severity.name] += 1
            here.clients.add(one.client)
            whose = {kind for (_, domain), kind in asked.items() if one.client == NETWORK and domain == one.domain}
            here.kinds[asked.get((one.client, one.domain)) or min(whose, default="several domains")] += 1
    for (week, client, domain, kind), count in loud.items():
        here = heard[min(week, weeks - 1)]
        if kind != ATTACKER and not {(client, domain), (client, "*"), (NETWORK, domain), (NETWORK, "*")} & pairs:
            here.outside["verdicts"] += count
            here.outside_kinds[kind] += count
    return Silence(queries, heard, samples, caught)


def table(found: Silence) -> str:
    """As Markdown."""
    lines = [
        "| week | paged | HIGH | CRITICAL | of clients | verdicts HIGH and above outside | listed below HIGH |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for number, week in enumerate(found.weeks, 1):
        high, critical = week.incidents["HIGH"], week.incidents["CRITICAL"]
        cells = week.paged, high, critical, len(week.clients), week.outside["verdicts"], week.listed
        lines.append(f"| {number} | {' | '.join(map(str, cells))} |")
    kinds_ = sum((one.kinds for one in found.weeks), Counter[str]())
    outside = sum((one.outside_kinds for one in found.weeks), Counter[str]())
    lines += ["", "| kind of asking | incidents | verdicts outside | an example |", "| --- | ---: | ---: | --- |"]
    for kind in sorted({*kinds_, *outside}, key=lambda one: (-kinds_[one], -outside[one], one)):
        shown = found.examples.get(kind, "")
        lines.append(f"| {kind.replace('_', ' ')} | {kinds_[kind]} | {outside[kind]} | {shown} |")
    for one in found.caught:
        amount = f"{one.queries_before_detection} queries, {one.bytes_before_detection:.0f} bytes"
        lines += ["", f"The attacker below {one.domain}: {one.severity.name} after {amount}."]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.corpora.organisation", description="How loud it is.")
    parser.add_argument("--weeks", type=int, default=4, help="how many (4)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is made up (1)")
    parser.add_argument("--lookalikes", action="store_true", help="the wide look-alike suite instead")
    parser.add_argument("--attacker", action="store_true", help="data leaves during the first week")
    parser.add_argument("--json", metavar="PATH", help="write JSON there, - = standard output instead of the table")
    options = parser.parse_args(arguments)
    found = silence(options.seed, options.weeks, options.lookalikes, options.attacker)
    text = json.dumps([one.to_json() for one in found.weeks], indent=1) + "\n"
    if options.json == "-":
        sys.stdout.write(text)
        return 0
    if options.json:
        Path(options.json).write_text(text, "utf-8")
    clients = sum(role.clients for role in WIDE_ROLES) if options.lookalikes else CLIENTS
    print(f"{clients} clients, {found.queries:,} queries\n\n{table(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
