"""Addresses' names below one holder's part of ip6.arpa or in-addr.arpa, and of strangers by thousands."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from agents.core.types import DAY_S, Incident, Row, Severity, batch_of
from agents.detection.detector import TunnelDetector
from agents.detection.explanations.explainer import YOUNG_BYTES
from agents.detection.known_services import Entry, services_at
from agents.detection.limits import FIRST_BYTES, Scale
from agents.dns.message import type_number
from agents.scoring.reverse_names import SHARE6
from tests.corpora.lookalike_kinds import HEX, octets, token
from tests.support.detecting import START, fresh_detector, incidents_of, query, shipped_model

PTR = type_number("PTR")
SITE = "7.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
CLIENT = "10.9.0.9"


def asked(names: Iterator[str], every_s: float, count: int) -> list[Row]:
    return [query(START + number * every_s, CLIENT, next(names), PTR) for number in range(count)]


def below(zone: str, nibbles: int, seed: int = 1) -> Iterator[str]:
    rng = random.Random(seed)
    while True:
        yield ".".join([*token(rng, HEX, nibbles), zone])


def loud(rows: list[Row]) -> list[Incident]:
    return [one for one in incidents_of(rows) if one.severity >= Severity.HIGH]


def carried(found: Incident, each: float) -> float:
    return found.queries_before_detection * each


def test_a_site_of_an_attackers_own_carries_no_more_than_a_young_domain() -> None:
    found = incidents_of(asked(below(SITE, 20), 10, 1_000))
    assert {one.domain for one in found} == {SITE}
    assert carried(found[0], 10) <= YOUNG_BYTES / SHARE6 + 10, "listed after less, as a mail server may be"
    assert max(one.severity for one in found) >= Severity.HIGH


def test_a_new_site_for_each_name_does_not_help() -> None:
    """Ten bytes below each of two thousand sites a day."""
    found = loud(asked(below("8.b.d.0.1.0.0.2.ip6.arpa", 24), DAY_S / 2_400, 2_400))
    assert found
    assert carried(found[0], 10) <= FIRST_BYTES[DAY_S] / SHARE6 * 1.1
    assert found[0].domain == "*"


def test_a_network_of_ipv4_carries_its_own_limit_alone() -> None:
    rng = random.Random(4)
    names = (f"{rng.randrange(256)}.{rng.randrange(256)}.51.198.in-addr.arpa" for _ in range(10_000))
    found = incidents_of(asked(names, 17, 5_000))
    assert found[0].domain == "51.198.in-addr.arpa"
    assert carried(found[0], 2) <= 6_000


def strangers(count: int, every_s: float) -> list[Row]:
    """Hosts of strangers, as a mail server looks them up: of IPv4, and of IPv6 one in five."""
    rng = random.Random(5)
    prefixes = ["".join(["2", *token(rng, HEX, 7)]) for _ in range(40)]
    rows = []
    for number in range(count):
        six = rng.choice(prefixes) + token(rng, HEX, 8) + token(rng, HEX, 16)
        name = f"{octets(rng)}.in-addr.arpa" if number % 5 else ".".join([*reversed(six), "ip6.arpa"])
        rows.append(query(START + number * every_s, CLIENT, name, PTR))
    return rows


def test_strangers_by_thousands_are_silent() -> None:
    assert incidents_of(strangers(3_000, DAY_S / 3_000)) == []


def test_private_addresses_are_nobodys_outside() -> None:
    names = (f"{last}.{third}.20.10.in-addr.arpa" for third in range(40) for last in range(256))
    assert incidents_of(asked(names, 0.2, 10_000)) == []


def test_addresses_are_no_domains_that_a_client_visits() -> None:
    detector = fresh_detector(shipped_model(), Scale())
    detector.detect(batch_of(strangers(600, 60)), explain=False)
    client = detector.flows.state.clients[detector.flows.clients[CLIENT]]
    assert client["held"] > 300
    assert client["today"] <= 256, "first octets, and first nibbles"


def entry(suffix: str, factor: float) -> Entry:
    return Entry(suffix, factor, "our tunnel broker", "test", "2025-01-01", "2027-01-01")


@pytest.mark.parametrize("factor", [6.0, 40.0])
def test_what_a_person_allows_below_a_site_holds_there(factor: float) -> None:
    rows = asked(below(SITE, 20), 10, 340)
    assert incidents_of(rows)
    allowed = services_at([entry(SITE, factor)], START)
    detector = TunnelDetector(shipped_model(), 1_000, 3600.0, Scale(), services=allowed)
    assert detector.detect(batch_of(rows)).incidents == ()


def test_allowing_a_site_closes_its_incident() -> None:
    rows = asked(below(SITE, 20), 10, 340)
    detector = fresh_detector(shipped_model(), Scale())
    assert [one.domain for one in detector.detect(batch_of(rows)).incidents] == [SITE]
    detector.reload_services(services_at([entry(SITE, 30.0)], START))
    detector.tick(START + 200 * 10)
    assert not detector.open_incidents
