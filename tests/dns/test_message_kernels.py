"""Kernels that read DNS messages do what their definitions in Python do."""

from __future__ import annotations

import ipaddress
import socket

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agents.core.errors import MessageError
from agents.dns import message as wire
from agents.dns.message_kernels import (
    ANCOUNT,
    ANS_BYTES,
    ANS_HASH,
    FACTS,
    NEGATIVE_TTL,
    OPT_CLASS,
    OPT_END,
    OPT_START,
    OPT_TTL,
    RCODE,
    TTL_MIN,
    TYPES,
    answer_facts,
    new_facts,
    normalise,
    question_end,
    uint64,
)
from agents.sources.listener.datapath import peer_of, sockaddr, zone_names
from agents.sources.listener.datapath_kernels import DROP, FORWARD, allowed, decide, make_error, zone_of
from agents.sources.listener.traffic import AccessList
from agents.sources.listener.upstream import Routes
from tests.support.mutations import Mutation, mutations
from tests.support.plain_answer import answer_data, parse_answer

compiling = settings(deadline=None)
"""The first call compiles."""

labels = st.lists(st.binary(min_size=1, max_size=20), max_size=6)
wire_names = labels.map(lambda parts: b"".join(bytes([len(part)]) + part for part in parts))
headers = st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.sampled_from([1, 1, 1, 1, 0, 2]))


def number16(number: int) -> bytes:
    return number.to_bytes(2)


@st.composite
def questions(draw: st.DrawFn) -> bytes:
    ident, flags, count = draw(headers)
    qtype = draw(st.sampled_from([1, 16, 28, 251, 252, 65]))
    name = draw(wire_names)
    return number16(ident) + number16(flags) + number16(count) + bytes(6) + name + b"\0" + number16(qtype) + b"\0\1"


@st.composite
def records(draw: st.DrawFn) -> bytes:
    name = draw(st.one_of(st.just(b"\xc0\x0c"), st.just(b"\0"), wire_names.map(lambda name: name + b"\0")))
    kind = draw(st.sampled_from([1, 1, 5, 6, 6, 16, 28, 41, 41, *range(60, 70)]))
    ttl, data = draw(st.integers(0, 2**32 - 1)), draw(st.binary(max_size=30))
    kind_class = draw(st.sampled_from([1, 0, 512, 1232, 4096]))
    return name + number16(kind) + number16(kind_class) + ttl.to_bytes(4) + number16(len(data)) + data


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    question = draw(questions())
    parts = draw(st.lists(records(), max_size=12))
    counts = draw(st.permutations([len(parts), 0, 0]) | st.lists(st.integers(0, 9), min_size=3, max_size=3))
    message = question[:6] + b"".join(map(number16, counts)) + question[12:] + b"".join(parts)
    return message[: draw(st.sampled_from([len(message)] * 3 + [max(12, len(message) - 7)]))]


@st.composite
def damaged(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """A message with a few bytes changed, or cut off."""
    message = bytearray(draw(messages))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, len(message) - 1), st.integers(0, 255)), max_size=4)):
        message[at] = byte
    return bytes(message[: draw(st.integers(0, len(message)))]) if draw(st.booleans()) else bytes(message)


any_message = st.one_of(st.binary(max_size=80), questions(), damaged(questions()), answers(), damaged(answers()))


def padded(message: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """As in a receive buffer: what stands behind the message must not matter."""
    return np.frombuffer(message + b"\1\2\3\0\0\1\0\1" * 40, np.uint8).copy()


def end_in_python(message: bytes) -> int:
    try:
        return wire.parse_question(message).end
    except MessageError:
        return 0


@compiling
@given(any_message)
@example(bytes(5) + b"\1" + bytes(6) + b"\xc0\x0c\0\1\0\1")
@example(bytes(5) + b"\1" + bytes(6) + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1")
@example(bytes(5) + b"\1" + bytes(6) + (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0\0\1\0\1")
def test_question(message: bytes) -> None:
    assert question_end(padded(message), 0, len(message)) == end_in_python(message)
    before = padded(b"\xff" * 3 + message)
    assert question_end(before, 3, 3 + len(message)) == (end_in_python(message) and 3 + end_in_python(message))


@compiling
@given(st.one_of(answers(), damaged(answers())))
@example(bytes(5) + b"\1" + b"\0\1\0\0\0\0" + b"\0\0\1\0\1" + b"\xc0\x11" + bytes(20))
@example(bytes(5) + b"\1" + b"\xff\xff" * 3 + b"\0\0\1\0\1" + b"\0\0\1\0\1\0\0\0\1\0\0" * 300)
def test_facts(message: bytes) -> None:
    end = end_in_python(message)
    if not end:
        return
    facts = np.full(FACTS, 7, np.int64)
    answer_facts(padded(message), 0, end, len(message), facts)
    expected = parse_answer(message, question_end=end, partial=True)
    kinds = tuple(kind for kind in facts[TYPES : TYPES + wire.ANSWER_TYPES_MAX].tolist() if kind)
    found = (facts[RCODE], facts[ANCOUNT], kinds, facts[TTL_MIN])
    assert found == (expected.rcode, expected.ancount, expected.types, expected.ttl_min)
    record = wire.find_opt(message, end)
    assert max(512, int(facts[OPT_CLASS])) == (record.udp_size if record else 512)
    data = answer_data(message, end)
    assert (facts[ANS_BYTES], facts[NEGATIVE_TTL]) == (data.size, data.negative_ttl)
    assert (facts[ANS_HASH] > 0) == bool(data.records)
    further = np.full(FACTS, 7, np.int64)
    answer_facts(padded(b"\xff" * 3 + message), 3, 3 + end, 3 + len(message), further)
    assert (further - facts).tolist() == [
        3 * (place in (OPT_START, OPT_END) and facts[OPT_START] > 0) for place in range(FACTS)
    ]
    opt = message[facts[OPT_START] : facts[OPT_END]]
    assert wire.truncate(message, end)[end:] == opt


def hash_of(records: list[tuple[int, bytes]], ttl: int = 60, owner: bytes = b"\xc0\x0c", key: int = 5) -> int:
    """ANS_HASH of an answer with these records; the authority section holds one more."""
    question = b"\3www\7example\3com\0\0\1\0\1"
    head = bytes(4) + b"\0\1" + number16(len(records)) + b"\0\1\0\0"
    parts = [owner + number16(kind) + b"\0\1" + ttl.to_bytes(4) + number16(len(data)) + data for kind, data in records]
    message = head + question + b"".join(parts) + b"\0\0\2\0\1\0\0\0\1\0\2ab"
    facts = new_facts((key, key))
    answer_facts(padded(message), 0, 12 + len(question), len(message), facts)
    return int(facts[ANS_HASH])


@compiling
@given(st.lists(st.tuples(st.integers(1, 300), st.binary(max_size=40)), min_size=1, max_size=8), st.data())
def test_the_hash_of_an_answer_is_that_of_its_types_and_data(
    records: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    found = hash_of(records)
    assert found == hash_of(data.draw(st.permutations(records)), ttl=0, owner=b"\4mail\0")
    assert found != hash_of(records, key=6) and found != hash_of(records[1:])
    kind, text = records[0]
    assert found != hash_of([(kind, text + b"\0"), *records[1:]]) and found != hash_of([(kind + 1, text), *records[1:]])
    assert 0 < found < 2**63


networks = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda n: ipaddress.IPv4Network(n, strict=False)),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)).map(lambda n: ipaddress.IPv6Network(n, strict=False)),
)


@compiling
@given(st.lists(networks, max_size=8), st.data())
def test_access_list(allow: list[ipaddress.IPv4Network | ipaddress.IPv6Network], data: st.DataObject) -> None:
    access = AccessList(map(str, allow))
    edges = [
        str(type(network.network_address)(number % 2**network.max_prefixlen))
        for network in allow
        for base in (int(network.network_address), int(network.broadcast_address))
        for number in (base - 1, base, base + 1)
    ]
    text = data.draw(st.sampled_from(edges) | st.ip_addresses().map(str) if edges else st.ip_addresses().map(str))
    address = ipaddress.ip_address(text)
    high, low = uint64(int(address) >> 64), uint64(int(address) & 2**64 - 1)
    assert bool(allowed(high, low, access.ranges(address.version))) == access.allows(text)


zone_texts = st.lists(st.sampled_from(["", "example", "corp.example", "lab.corp.example", "x.y", "A.b"]), unique=True)


zone_labels = st.lists(st.sampled_from(b"lab CORP corp example x y a B".split()), max_size=5)


@compiling
@given(zone_texts, zone_labels)
def test_zones(zones: list[str], parts: list[bytes]) -> None:
    routes = Routes([(zone, [("192.0.2.1", 53)]) for zone in zones])
    name = b"".join(bytes([len(part)]) + part for part in parts)
    message = bytes(12) + name + b"\0\0\1\0\1"
    number = zone_of(padded(message), 12, 12 + len(name), zone_names(routes))
    assert routes.find(name) is (list(routes.zones.values())[number] if number >= 0 else None)


def decided(message: bytes, client: str, access: AccessList, routes: Routes) -> tuple[str, bytes]:
    """What Listener._handle does of it, in its order."""
    if len(message) < 12 or message[2] & 0x80:
        return "drop", b""
    if not access.allows(client):
        return "reply", wire.error_reply(message, wire.REFUSED, wire.question_end(message) or 12)
    if message[2] & 0x78:
        return "reply", wire.error_reply(message, wire.NOTIMP, wire.question_end(message) or 12)
    try:
        question = wire.parse_question(message)
    except MessageError:
        return "reply", wire.error_reply(message, wire.FORMERR)
    if question.qtype in (wire.AXFR, wire.IXFR):
        return "reply", wire.error_reply(message, wire.NOTIMP, question.end)
    if routes.find(question.qname) is None:
        return "reply", wire.error_reply(message, wire.SERVFAIL, question.end)
    return "forward", b""


@compiling
@given(any_message, st.sampled_from(["192.0.2.1", "198.51.100.1", "2001:db8::1", "::1"]), st.booleans())
def test_decisions_and_error_replies(message: bytes, client: str, default: bool) -> None:
    access = AccessList(["192.0.2.0/24", "2001:db8::/32"])
    routes = Routes([("" if default else "example", [("192.0.2.1", 53)])])
    address = ipaddress.ip_address(client)
    high, low = uint64(int(address) >> 64), uint64(int(address) & 2**64 - 1)
    buffer = padded(message)
    ranges, zones = access.ranges(address.version), zone_names(routes)
    verdict, end, _ = decide(buffer, len(message), high, low, ranges, zones)
    if verdict == DROP:
        found = "drop", b""
    elif verdict == FORWARD:
        found = "forward", b""
    else:
        size = make_error(buffer, len(message), verdict, end, np.zeros(FACTS, np.int64))
        found = "reply", buffer[:size].tobytes()
    assert found == decided(message, client, access, routes)


@pytest.mark.parametrize("host", ["192.0.2.1", "::1", "2001:db8::1"])
def test_socket_addresses_are_the_kernels(host: str) -> None:
    packed = sockaddr(host, 5353)
    assert peer_of(packed)[:2] == (host, 5353)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    assert int.from_bytes(packed[:2], "little") == family


@compiling
@given(mutations(b"\4data\7example", 16), st.integers(0, 32), st.integers(0, 128))
def test_a_query_is_normalised_as_its_definition_says(mutation: Mutation, prefix4: int, prefix6: int) -> None:
    message = mutation.message
    end, facts = wire.question_end(message), np.zeros(FACTS, np.int64)
    data = np.zeros(len(message) + 40, np.uint8)
    data[: len(message)] = np.frombuffer(message, np.uint8)
    answer_facts(data, 0, end, len(message), facts)
    start, stop, ttl = (int(facts[place]) for place in (OPT_START, OPT_END, OPT_TTL))
    size = normalise(data, end, start, stop, ttl, prefix4, prefix6)
    expected = wire.normalised(message, end, wire.find_opt(message, end), (prefix4, prefix6))
    assert data[:size].tobytes() == expected
