"""Which detector judges a query: of clients that stand for many by their domains, of all others by their address."""

from __future__ import annotations

import ipaddress
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import SettingsError
from agents.dns.name import from_text, split_domain, wire_of
from agents.runtime.bootstrap import load_settings
from agents.runtime.bootstrap.among import check_several
from agents.stream.record import RECORD, client_bytes, packed_record
from agents.stream.rings import Rings
from agents.stream.slots import NO_PARTED, SLOTS, PartedClients, owners_of, slot_of_client

PARTED = "10.0.0.53, 10.9.0.0/24, 2001:db8:5::/48, 2001:db8:6::53"
SUFFIXES = [b"com", b"de", b"local", b"co.uk", b"github.io", b"s3.amazonaws.com", b"2.0.192.in-addr.arpa", b"ip6.arpa"]
LABEL = st.binary(min_size=1, max_size=12)
LABELS = st.lists(LABEL, max_size=4)
CLIENTS = st.one_of(
    st.sampled_from(
        ["10.0.0.53", "10.0.0.54", "10.9.0.0", "10.9.0.255", "10.9.1.0", "2001:db8:5:9::1", "2001:db8:6::53"]
    ),
    st.ip_addresses().map(str),
)
NETWORKS = [ipaddress.ip_network(one.strip()) for one in PARTED.split(",")]


def record(client: str, name: bytes) -> bytes:
    return packed_record(0.0, client_bytes(client), name, 1, 40, 0, 1, 60, 60, 1.0, (1,))


def slot_in_a_record(client: str, name: bytes, parted: PartedClients) -> int:
    (slot,) = owners_of(np.frombuffer(record(client, name), RECORD), SLOTS, parted.ranges).tolist()
    return int(slot)


@settings(deadline=None)
@given(LABELS, LABELS, LABEL, st.sampled_from(SUFFIXES), CLIENTS)
def test_names_of_one_registered_domain_have_one_slot(
    first: list[bytes], other: list[bytes], own: bytes, suffix: bytes, client: str
) -> None:
    """Whatever stands before it, in whatever case; and a record says the same as the text of client and domain."""
    parted, end = PartedClients(PARTED), suffix.split(b".")
    names = [wire_of([*labels, own, *end]) for labels in (first, other)]
    (domain,) = {wire_of(split_domain(name.lower())[1]) for name in names}
    slots = {slot_in_a_record(client, name, parted) for name in (*names, names[0].upper(), names[1].lower(), domain)}
    assert slots == {parted.slot_of(client, domain)}
    if not any(ipaddress.ip_address(client) in one for one in NETWORKS):
        assert slots == {slot_of_client(client)} and not parted.has(client)


@settings(deadline=None)
@given(st.binary(max_size=40), CLIENTS)
def test_any_bytes_have_a_slot(name: bytes, client: str) -> None:
    """A site may send what is no name."""
    assert 0 <= slot_in_a_record(client, name, PartedClients(PARTED)) < SLOTS


def test_domains_of_one_client_are_spread_evenly_and_for_good() -> None:
    parted = PartedClients("10.0.0.53")
    count = Counter(parted.slot_of("10.0.0.53", from_text(f"site{number}.com")) for number in range(6400))
    assert len(count) == SLOTS and max(count.values()) < 150
    names = "example.com", "www.example.com", "a.co.uk", ""
    seen = [parted.slot_of("10.0.0.53", from_text(name)) for name in names]
    assert seen == [1, 1, 63, 13], "saved state is found by these numbers"


def test_rings_part_one_client_and_no_other() -> None:
    bells = (-1, -1, -1, -1)
    parted = PartedClients("10.0.0.53")
    rings = Rings(memoryview(bytearray(Rings.size_of(4, 512))), 512, bells, parted.ranges)
    names = [from_text(f"a.site{number}.com") for number in range(200)]
    assert rings.put(b"".join([record("10.0.0.53", name) for name in names])) == 200
    assert min(ring.waiting for ring in rings.rings) > 20
    other = Rings(memoryview(bytearray(Rings.size_of(4, 512))), 512, bells, parted.ranges)
    other.put(b"".join([record("10.0.0.54", name) for name in names]))
    assert sorted(ring.waiting for ring in other.rings) == [0, 0, 0, 200]


def test_no_network_parts_nobody() -> None:
    assert not PartedClients("") and not PartedClients(" , ") and PartedClients().ranges is NO_PARTED
    assert not PartedClients("").has("10.0.0.53")
    parted = PartedClients("0.0.0.0/0")
    assert parted.has("255.255.255.255") and not parted.has("2001:db8::1") and not parted.has("a client")


@pytest.mark.parametrize("text", ["10.0.0.300", "10.0.0.0/33", "resolver.example", "10.0.0.1;10.0.0.2"])
def test_what_is_no_network_is_said_in_one_line(text: str) -> None:
    with pytest.raises(SettingsError, match="SHARED_CLIENTS") as found:
        load_settings(shared_clients=text)
    assert "\n" not in str(found.value)


def test_a_bus_parts_nobody() -> None:
    given_ = load_settings(shared_clients="10.0.0.53", stream="nats://127.0.0.1:4222")
    with pytest.raises(SettingsError, match="cannot use setting SHARED_CLIENTS with STREAM"):
        check_several(given_)
