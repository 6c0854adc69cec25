"""Benign traffic that looks like exfiltration: clients with roles, a day's clock, and answers.

`traffic(seed)` gives a day of 58 clients, with WIDE_ROLES of 124; the kinds of asking are in lookalike_kinds.py,
lookalike_hosts.py and lookalike_services.py.
"""

from __future__ import annotations

import random
from binascii import crc32
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

from agents.core.types import UNKNOWN, Row
from agents.dns.message import type_number
from agents.dns.name import from_text
from tests.corpora import lookalike_hosts as hosts
from tests.corpora import lookalike_kinds as kinds
from tests.corpora import lookalike_services as services
from tests.corpora.lookalike_kinds import Ask, Kind

START, DAY_S = 1_767_571_200.0, 86_400  # 2026-01-05, a Monday


class Role(NamedTuple):
    """A sort of client: how many there are, and how often a day each kind of asking happens to one."""

    clients: int
    rates: dict[Kind, int]


OFFICE_PC: dict[Kind, int] = {
    kinds.page: 40,
    kinds.antivirus: 12,
    kinds.directory: 12,
    kinds.suffixed: 8,
    kinds.probes: 5,
    kinds.telemetry: 12,
    kinds.video: 1,
    hosts.shards: 15,
    hosts.tenants: 10,
    hosts.updates: 12,
    hosts.meetings: 4,
}
ROLES = (
    Role(26, OFFICE_PC),
    Role(
        8,
        {
            kinds.page: 60,
            kinds.multicast: 20,
            kinds.video: 6,
            kinds.games: 15,
            kinds.telemetry: 8,
            kinds.probes: 2,
            hosts.shards: 40,
        },
    ),
    Role(3, {kinds.mail: 1000, kinds.certificates: 2, kinds.delivery: 1000}),
    Role(2, {kinds.validating: 2000}),
    Role(1, {kinds.monitoring: 1}),
    Role(2, {kinds.pods: 350, kinds.certificates: 8, kinds.cloud: 150}),
    Role(1, {kinds.reverse_logs: 100}),
    Role(1, {kinds.reverse_sweep: 12, kinds.directory: 4}),
    Role(4, {kinds.things: 150, kinds.multicast: 30}),
    Role(2, {kinds.games: 40, kinds.video: 20, kinds.page: 20, hosts.shards: 30, hosts.updates: 30}),
    Role(2, {hosts.fleet: 60, hosts.scaled: 40}),
    Role(1, {hosts.subscribers: 150}),
    Role(
        5, {kinds.page: 30, hosts.previews: 15, hosts.scaled: 20, hosts.tenants: 15, hosts.meetings: 5, kinds.cloud: 30}
    ),
)
MORE_ROLES = (
    Role(3, {services.partners: 8, kinds.directory: 8}),
    Role(
        4,
        {
            kinds.mail: 200,
            kinds.delivery: 100,
            services.block_lists: 100,
            services.hashed_lists: 4,
            services.spf_macros: 40,
            services.dial_up: 60,
            services.large_text: 20,
        },
    ),
    Role(2, {services.zone_keys: 100, services.visitors: 40}),
    Role(6, {services.cloud_hosts: 60, kinds.cloud: 10}),
    Role(6, {services.containers: 8, services.discovery: 40, kinds.pods: 60}),
    Role(14, OFFICE_PC | {services.keyed_metrics: 2, services.keyed_hosts: 10, services.own_certificates: 1}),
    Role(1, {services.scan: 1, kinds.page: 10, services.keyed_hosts: 10}),
    Role(4, {kinds.page: 10, services.keyed_hosts: 10}),
    Role(5, {kinds.page: 20, services.experiments: 1, services.audience: 4, services.latency_probes: 3}),
    Role(3, {kinds.page: 20, services.audience: 4, services.latency_probes: 3}),
    Role(4, {kinds.page: 10, services.city_hosts: 3, services.audience: 3, services.speed_test: 1}),
    Role(1, {kinds.page: 10, services.leak_test: 1, services.speed_test: 1}),
    Role(2, {kinds.page: 10, services.speed_test: 1}),
    Role(1, {services.node_lists: 1, services.content_addressed: 2, kinds.page: 10}),
    Role(1, {services.content_addressed: 2, kinds.page: 10}),
    Role(4, {services.peer_video: 1, services.media_server: 3, kinds.video: 3}),
    Role(5, {services.printers_and_cameras: 40, kinds.things: 20}),
)
"""What organisations and homes have by default, and what a careless detector pages for. Services that no list names are
asked for as much as a kind explains below a young domain in a day, 1 kB of all clients (docs/bound.md)."""
WIDE_ROLES = (*ROLES, *MORE_ROLES)


def _day(rng: random.Random, client: str, role: Role) -> Iterator[tuple[Row, str]]:
    for kind, often in role.rates.items():
        for _ in range(often):
            ts = START + _time_of_day(rng)
            for ask in kind(rng):
                ts += ask.after_s
                yield _row(rng, ts, client, ask), kind.__name__


def _time_of_day(rng: random.Random) -> float:
    """Seconds: most of it by day."""
    return min(max(rng.gauss(13, 3.5) if rng.random() < 0.8 else rng.uniform(0, 24), 0.0), 23.9) * 3600


def _row(rng: random.Random, ts: float, client: str, ask: Ask) -> Row:
    wire = from_text(ask.qname)
    found = ask.answer not in ("", "NX")
    count = ask.answer.count(",") + rng.choice((1, 1, 2, 4)) if found else 0
    size = len(wire) + 18 + count * rng.choice((16, 16, 28, 40)) + (80 if not found else 0)
    if ask.size:
        size = len(wire) + 18 + ask.size
    ttl = rng.choice((20, 60, 300, 3600)) if found else -1
    rtt_ms = rng.lognormvariate(2.5, 1)
    rcode, types = (3 if ask.answer == "NX" else 0), ask.answer if found else ""
    data = _data(ts, wire, ask, count, ttl) if found else (0, 0, NEGATIVE_TTLS_S[crc32(wire) % len(NEGATIVE_TTLS_S)])
    return (ts, client, wire, type_number(ask.qtype), len(wire) + 17, rcode, count, size, ttl, rtt_ms, types, *data)


NEGATIVE_TTLS_S = (30, 60, 300, 900, 3600)
DATA_BYTES = {
    "A": 4,
    "AAAA": 16,
    "CNAME": 30,
    "MX": 20,
    "PTR": 25,
    "SRV": 30,
    "TXT": 60,
    "HTTPS": 60,
    "NS": 20,
    "DS": 36,
}
"""Bytes of one record's data, names in it compressed; other types: OTHER_BYTES."""
OTHER_BYTES = 60
ADDRESSES = ("A", "AAAA")
ROTATIONS, BALANCED = (1, 1, 1, 4), (1, 8, 40, 1 << 30)
"""How many different answers a name has in turn, one each TTL: most names, and those of content networks and load
balancers, behind an alias. The last of these draws from so many addresses that no answer comes twice."""


def _data(ts: float, wire: bytes, ask: Ask, count: int, ttl: int) -> tuple[int, int, int]:
    """Hash and bytes of an answer's data, by name and time alone; it has records."""
    kinds = ask.answer.split(",")
    rotations = (BALANCED if kinds[0] == "CNAME" else ROTATIONS)[crc32(wire) % 4] if kinds[-1] in ADDRESSES else 1
    turn = crc32(str(ts // ttl).encode()) % rotations
    size = ask.size or sum(DATA_BYTES.get(kind, OTHER_BYTES) for kind in kinds[:-1])
    size += 0 if ask.size else DATA_BYTES.get(kinds[-1], OTHER_BYTES) * (count - len(kinds) + 1)
    text = b"%s/%s/%d" % (wire.lower(), ask.qtype.encode(), turn)
    return int.from_bytes(blake2b(text, digest_size=7).digest()), size, UNKNOWN


def rows(seed: int, roles: tuple[Role, ...] = ROLES) -> list[tuple[Row, str]]:
    """A day of all roles' clients in time order, each row with the kind that asked it."""
    made: list[tuple[Row, str]] = []
    number = 0
    for role in roles:
        for _ in range(role.clients):
            number += 1
            address = f"10.20.{number // 256}.{number % 256}"
            made += _day(random.Random(f"{seed}/{number}"), address, role)
    return sorted(made, key=lambda pair: pair[0][:3])


def week(seed: int, roles: tuple[Role, ...] = ROLES) -> Iterator[Row]:
    """Seven days of all roles' clients, a day at a time in memory."""
    late: list[Row] = []
    for day in range(7):
        made = ((row[0] + day * DAY_S, *row[1:]) for row in traffic(7 * seed + day, roles))
        both = sorted([*late, *made], key=lambda row: row[:3])
        end = START + (day + 1) * DAY_S
        yield from (row for row in both if row[0] < end)
        late = [row for row in both if row[0] >= end]
    yield from late


def traffic(seed: int, roles: tuple[Role, ...] = ROLES) -> list[Row]:
    """A day of all roles' clients."""
    return [row for row, _ in rows(seed, roles)]
