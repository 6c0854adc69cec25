"""Sums over all clients: who changes his address, or fills the room of one, carries no more than one client."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterable
from contextlib import nullcontext

import pytest

from agents.core.text import NETWORK
from agents.core.types import Incident, Row, Severity, batch_of
from agents.detection.detector import TunnelDetector
from agents.detection.judge_kernels import BY_THEMSELVES_MAX
from agents.detection.limits import Scale
from agents.detection.network import prefix_of
from tests.support.detecting import BATCH, START, fresh_detector, incidents_of, query, shipped_model


def data(rng: random.Random, size: int) -> str:
    return base64.b32encode(rng.randbytes(size)).decode().lower().rstrip("=")


def sent(clients: Iterable[str], every_s: float, size: int = 20, domain: str = "evil.example") -> list[Row]:
    """New names below one domain, each by the next client."""
    rng = random.Random(1)
    return [
        query(START + number * every_s, client, f"{data(rng, size)}.{domain}") for number, client in enumerate(clients)
    ]


ADDRESSES = {
    "another address of one IPv6 network each time": [f"2001:db8::{number:x}" for number in range(400)],
    "another one every third name": [f"2001:db8::{number // 3:x}" for number in range(400)],
    "another one every tenth name": [f"10.0.{number // 10}.7" for number in range(400)],
    "thirty clients in turn": [f"10.0.0.{number % 30}" for number in range(400)],
    "another IPv4 address each time": [f"10.{number // 200}.7.{number % 200}" for number in range(400)],
}


@pytest.mark.parametrize("clients", ADDRESSES.values(), ids=ADDRESSES)
@pytest.mark.parametrize(("every_s", "size"), [(0.5, 25), (60, 20), (600, 9)])
def test_one_channel_of_many_addresses_is_one_incident(clients: list[str], every_s: float, size: int) -> None:
    found = incidents_of(sent(clients, every_s, size))
    assert {incident.domain for incident in found} == {"evil.example"}
    assert found[0].bytes_before_detection <= 900
    of_network = [incident for incident in found if incident.client == NETWORK]
    assert len(found) <= BY_THEMSELVES_MAX + 10, "not one a client"
    assert of_network and of_network[0].severity >= Severity.HIGH
    assert of_network[0].evidence["clients"]["count"] > 1
    assert set(of_network[0].evidence["clients"]["loudest"]) <= set(clients)


def test_one_client_alone_is_its_own_incident() -> None:
    (found,) = incidents_of(sent(["10.0.0.7"] * 200, 5))
    assert (found.client, found.domain) == ("10.0.0.7", "evil.example")


def test_a_client_s_own_incident_takes_no_more_from_the_sum_of_all_than_it_had_there() -> None:
    """Of 40 clients at home each byte counts a tenth for all together: so it does when one is judged by itself."""
    rng, clients = random.Random(7), [f"10.0.0.{n}" for n in range(1, 41)]
    home = [query(START + n, client, f"www.site{n}.com") for client in clients for n in range(12)]
    names = [
        query(START + 3600 * (1 + n), client, f"{data(rng, 20)}.evil.example") for n in range(12) for client in clients
    ]
    loud = [
        query(START + 3600 * 5.5 + 5 * n, client, f"{data(rng, 30)}.{data(rng, 30)}.{data(rng, 30)}.evil.example")
        for client in ("10.0.0.98", "10.0.0.99")
        for n in range(6)
    ]
    found = incidents_of(sorted([*home, *names, *loud], key=lambda row: row[0]))
    assert {one.client for one in found} == {"10.0.0.98", "10.0.0.99", NETWORK}
    assert next(one for one in found if one.client == NETWORK).severity >= Severity.HIGH


def test_a_name_that_the_network_has_asked_for_counts_once() -> None:
    rng = random.Random(2)
    names = [f"{data(rng, 9)}.cdn.example" for _ in range(5)]
    rows = [
        query(START + 60 * client + number, f"10.0.0.{client}", name)
        for client in range(60)
        for number, name in enumerate(names)
    ]
    assert incidents_of(rows) == []


def test_clients_at_home_raise_the_limits_of_a_domain_and_made_up_addresses_do_not() -> None:
    """Each of 30 clients carries 30 bytes: at home they may, but not as addresses that ask for nothing else."""

    def incidents(own_domains: int) -> list[Incident]:
        rng, rows = random.Random(3), []
        for client in range(30):
            at = START + 1000 * client
            rows += [query(at + n, f"10.0.0.{client}", f"www.site{n}.example") for n in range(own_domains)]
            rows += [query(at + 100 + n, f"10.0.0.{client}", f"{data(rng, 10)}.metric.example") for n in range(3)]
        return incidents_of(rows)

    assert incidents(own_domains=12) == []
    assert [incident.client for incident in incidents(own_domains=1)] == [NETWORK]


# Full tables.


def judged(detector: TunnelDetector, rows: list[Row]) -> dict[tuple[str, str], Incident]:
    found: dict[tuple[str, str], Incident] = {}
    for at in range(0, len(rows), BATCH):
        for incident in detector.detect(batch_of(rows[at : at + BATCH])).incidents:
            found[incident.client, incident.domain] = incident
    return found


def carried(found: dict[tuple[str, str], Incident], domain: str = "evil.example") -> float:
    """Bytes before the first incident of the domain; all of them where there is none."""
    return min((one.bytes_before_detection for key, one in found.items() if key[1] == domain), default=float("inf"))


FILLERS = {
    "one client with words": lambda n: query(START + n * 0.1, "10.0.0.7", f"www.shop{n}.example"),
    "spoofed addresses": lambda n: query(START + n * 0.1, f"10.{n >> 8}.{n & 255}.7", f"www.shop{n}.example"),
    "spoofed addresses with long names": lambda n: query(
        START + n * 0.1, f"10.{n >> 8}.{n & 255}.7", f"some-long-words-in-a-name-{n * 7919}.shop{n}.example"
    ),
}


@pytest.mark.parametrize("fill", FILLERS.values(), ids=FILLERS)
@pytest.mark.parametrize("client", ["10.0.0.7", "10.0.0.8"])
def test_a_full_table_hides_nobody(fill, client: str) -> None:  # type: ignore[no-untyped-def]
    detector, rng = fresh_detector(shipped_model(), Scale(), keys_max=800), random.Random(4)
    judged(detector, [fill(number) for number in range(3000)])
    begun = START + 400
    rows = [fill(number) for number in range(3000, 4000)]
    rows += [query(begun + n * 0.2, client, f"{data(rng, 20)}.evil.example") for n in range(300)]
    found = judged(detector, sorted(rows, key=lambda row: row[0]))
    assert carried(found) <= (950 if client == "10.0.0.7" else 450), "one that browses may test the network: 900 bytes"


def test_more_addresses_than_the_table_has_clients_hide_nobody() -> None:
    detector = fresh_detector(shipped_model(), Scale(), keys_max=100)
    rows = sent([f"2001:db8::{number:x}" for number in range(2000)], 0.01)
    assert carried(judged(detector, rows)) <= 450


def test_bytes_below_a_throw_away_domain_count_in_one_of_the_sums() -> None:
    """Ninety-five bytes below each domain, and then one short name: that took them out of the client's sum."""
    rng, rows = random.Random(5), []
    for number in range(60):
        at = START + 600 * number
        names = [data(rng, 25), data(rng, 25), "abcd"]
        rows += [query(at + n, "10.0.0.7", f"{name}.away{number}.example") for n, name in enumerate(names)]
    found = incidents_of(rows)
    assert found and found[0].bytes_before_detection <= 1000


# Suffixes whose operators give names to strangers.


@pytest.mark.parametrize("suffix", ["github.io", "cloudfront.net", "herokuapp.com", "s3.amazonaws.com"])
def test_labels_directly_below_a_private_suffix_count(suffix: str) -> None:
    found = incidents_of(sent(["10.0.0.7"] * 300, 30, 15, suffix))
    assert [incident.domain for incident in found] == [suffix]
    assert found[0].bytes_before_detection <= 1000


def test_a_tenant_stays_a_flow_of_its_own() -> None:
    (found,) = incidents_of(sent(["10.0.0.7"] * 100, 10, 20, "user.github.io"))
    assert found.domain == "user.github.io"


@pytest.mark.parametrize(
    ("client", "prefix"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("", ""),
        ("not:an address", "not:an address"),
    ],
)
def test_an_ipv6_client_is_its_network(client: str, prefix: str) -> None:
    assert prefix_of(client) == prefix


def test_what_the_network_carried_survives_a_restart() -> None:
    rows = sent([f"2001:db8::{number:x}" for number in range(60)], 1200, 20)
    detector = fresh_detector(shipped_model(), Scale())
    assert judged(detector, rows[:30]) == {}
    again = fresh_detector(shipped_model(), Scale())
    for name, content in detector.save(nullcontext()).items():
        again.load(name, content)
    assert set(judged(again, rows[30:])) == set(judged(detector, rows[30:])) != set()


def test_windows_of_another_time_are_not_restored() -> None:
    one, other = (TunnelDetector(shipped_model(), 100, 3600.0, Scale(), key=(number, 1)) for number in (1, 2))
    saved = one.save(nullcontext())
    with pytest.raises(ValueError, match="cannot restore windows: written at another time"):
        other.load("network.snapshot", saved["network.snapshot"])
    assert len(other.flows.network) == 0
