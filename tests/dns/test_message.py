"""Parsing of DNS messages, with dnspython and dnslib as the oracles."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from dnslib import DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import MessageError
from agents.dns import message as wire
from agents.dns import name as names
from tests.support.plain_answer import Answer, parse_answer

labels = st.lists(st.binary(min_size=1, max_size=63), max_size=4).filter(lambda parts: sum(map(len, parts)) < 245)
types = st.integers(1, 65535).filter(lambda number: number not in (41, 249, 250))


@given(labels, types, st.integers(0, 65535), st.booleans(), st.booleans())
def test_question_agrees_with_dnspython(parts: list[bytes], qtype: int, ident: int, edns: bool, cd: bool) -> None:
    name = dns.name.Name([*parts, b""])
    query = dns.message.make_query(name, dns.rdatatype.RdataType.make(qtype), id=ident, use_edns=edns)
    query.flags |= dns.flags.CD if cd else 0
    message = query.to_wire()
    question = wire.parse_question(message)
    assert names.labels_of(question.qname) == tuple(parts)
    assert (question.id, question.qtype, question.qclass) == (ident, qtype, 1)
    assert (question.flags, question.opcode) == (int(query.flags), 0)
    assert question.end == len(message) - (11 if edns else 0)
    opt = wire.find_opt(message, question.end)
    assert (opt.udp_size if opt else None) == (max(query.payload, 512) if edns else None)


def example_answer(**edns: int) -> dns.message.Message:
    query = dns.message.make_query("www.example.com", "A", use_edns=bool(edns))
    answer = dns.message.make_response(query, our_payload=1232)
    answer.answer = [
        dns.rrset.from_text("www.example.com.", 300, "IN", "CNAME", "b.example.com."),
        dns.rrset.from_text("b.example.com.", 20, "IN", "A", "192.0.2.1", "192.0.2.2"),
        dns.rrset.from_text("b.example.com.", 99, "IN", "TYPE65280", r"\# 2 abcd"),
    ]
    answer.authority = [dns.rrset.from_text("example.com.", 5, "IN", "NS", "ns.example.com.")]
    return answer


def test_answer_facts() -> None:
    facts = parse_answer(example_answer().to_wire())
    assert facts == Answer(0, 4, (5, 1, 65280), 20, False)


def test_extended_rcode_and_truncation_flag() -> None:
    answer = example_answer(edns=1)
    answer.set_rcode(dns.rcode.BADCOOKIE)
    answer.flags |= dns.flags.TC
    facts = parse_answer(answer.to_wire())
    assert (facts.rcode, facts.truncated) == (23, True)


def test_ttl_with_the_top_bit_counts_as_zero_and_none_is_unknown() -> None:
    message = b"\0\1\x81\x80\0\0\0\1\0\0\0\0" + b"\0\0\1\0\1\xff\xff\xff\xff\0\4abcd"
    assert parse_answer(message).ttl_min == 0
    assert parse_answer(b"\0\1\x81\x83" + bytes(8)) == Answer(3, 0, (), -1, False)


def test_agrees_with_dnslib_on_a_compressed_answer() -> None:
    message = example_answer().to_wire()
    assert len(DNSRecord.parse(message).rr) == parse_answer(message).ancount


@pytest.mark.parametrize("cut", range(12, 110))
def test_partial_answers_keep_what_is_whole(cut: int) -> None:
    message = example_answer().to_wire()
    whole = parse_answer(message)
    assert len(message) > 110
    with pytest.raises(MessageError):
        parse_answer(message[:cut])
    if cut >= wire.parse_question(message).end:
        facts = parse_answer(message[:cut], partial=True)
        assert (facts.rcode, facts.ancount) == (whole.rcode, whole.ancount)
        assert whole.types[: len(facts.types)] == facts.types


@pytest.mark.parametrize(
    "name",
    [
        b"\xc0\x0c",
        b"\3www\xc0\x0c",
        b"\xc0\xff",
        b"\xc0",
        b"\x40a\0",
        b"\x80a\0",
        b"\3ww",
        b"",
        (b"\1a" * 128) + b"\0",
    ],
    ids=repr,
)
def test_bad_question_names(name: bytes) -> None:
    with pytest.raises(MessageError, match=r"^cannot "):
        wire.parse_question(b"\0\1\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1")


def test_longest_name_is_taken() -> None:
    name = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61
    assert wire.parse_question(b"\0\1\1\0\0\1" + bytes(6) + name + b"\0\0\1\0\1").qname == name


def test_pointers_must_point_backwards() -> None:
    question = b"\0\1\x81\x80\0\1\0\1\0\0\0\0" + b"\1a\0\0\1\0\1"
    record = b"\0\1\0\1\0\0\0\1\0\0"
    assert parse_answer(question + b"\xc0\x0c" + record).types == (1,)
    for target in (19, 20, 200):
        with pytest.raises(MessageError, match=r"backwards"):
            parse_answer(question + bytes((0xC0, target)) + record)


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(message: bytes) -> None:
    for call in (
        wire.parse_question,
        parse_answer,
        wire.header,
        lambda m: wire.error_reply(m, wire.FORMERR),
    ):
        try:
            call(message)
        except MessageError as error:
            assert str(error).startswith("cannot ")


@given(st.data())
def test_damaged_answers_raise_nothing_else(data: st.DataObject) -> None:
    message = bytearray(example_answer(edns=1).to_wire())
    for _ in range(data.draw(st.integers(1, 5))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(message[: data.draw(st.integers(0, len(message)))])
    for partial in (False, True):
        try:
            parse_answer(damaged, partial=partial)
        except MessageError:
            continue
    if len(damaged) >= 40:
        opt = wire.find_opt(damaged, 33)
        assert opt is None or opt.udp_size >= 512
        assert len(wire.truncate(damaged, 33)) <= len(damaged) + 12


def test_truncated_answer_is_valid_and_keeps_edns() -> None:
    message = example_answer(edns=1).to_wire()
    short = dns.message.from_wire(wire.truncate(message, wire.parse_question(message).end))
    assert short.flags & dns.flags.TC
    assert (short.answer, short.authority) == ([], [])
    assert short.question == example_answer().question
    assert (short.edns, short.payload) == (0, 1232)


@pytest.mark.parametrize("rcode", [wire.FORMERR, wire.SERVFAIL, wire.NOTIMP, wire.REFUSED])
def test_error_replies_are_responses_to_their_query(rcode: int) -> None:
    query = dns.message.make_query("example.com", "TXT", use_edns=True)
    query.flags |= dns.flags.CD | dns.flags.AD
    message = query.to_wire()
    reply = dns.message.from_wire(wire.error_reply(message, rcode, wire.parse_question(message).end))
    assert query.is_response(reply)
    assert reply.rcode() == rcode
    assert reply.flags & dns.flags.RD
    assert reply.flags & dns.flags.CD
    assert not reply.flags & dns.flags.AD


def test_type_names_agree_with_dnspython() -> None:
    for number, name in wire.TYPE_NAMES.items():
        assert wire.type_number(name) == number
        theirs = dns.rdatatype.to_text(dns.rdatatype.RdataType.make(number))
        assert name == theirs or theirs == f"TYPE{number}" or number == 65399


@pytest.mark.parametrize(
    ("text", "number"), [("txt", 16), ("TYPE65399", 65399), ("65399", 65399), ("PRIVATE", 65399), ("*", 255)]
)
def test_type_numbers(text: str, number: int) -> None:
    assert wire.type_number(text) == number


@pytest.mark.parametrize("text", ["", "TYPE", "TYPE65536", "NOSUCH", "-1", "TYPE٣", "1" * 5000])
def test_bad_type_names(text: str) -> None:
    with pytest.raises(MessageError, match=r"^cannot read record type"):
        wire.type_number(text)


def test_unknown_types_have_the_generic_name() -> None:
    assert wire.type_name(65280) == "TYPE65280"


def test_a_large_answer_of_thousands_of_types_keeps_the_first_few() -> None:
    count = 5_300
    records = b"".join(
        b"\0" + number.to_bytes(2) + b"\0\1" + (9_000 - number % 7).to_bytes(4) + b"\0\0"
        for number in range(1000, 1000 + count)
    )
    message = b"\0\1\x81\x80\0\0" + count.to_bytes(2) + bytes(4) + records
    facts = parse_answer(message)
    assert facts.types == tuple(range(1000, 1000 + wire.ANSWER_TYPES_MAX))
    assert (len(message) > 58_000, facts.ancount, facts.ttl_min) == (True, count, 8_994)
