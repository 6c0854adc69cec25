"""The cache of answers by itself, with a clock of the test's own."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.dns import message as wire
from agents.sources.listener.cache import AnswerCache, CacheFind, CacheLimits
from agents.sources.listener.cache_kernels import (
    EXPIRED,
    FAILURE_S,
    HIT,
    KEEP_MAX_S,
    MISS,
    NEGATIVE_MAX_S,
    STALE_HIT,
    STALE_TTL_S,
)
from agents.stream.counters import Counters
from tests.support.plain_answer import parse_answer

SOA = "ns.example. host.example. 1 7200 3600 1209600 {minimum}"


class Clocked:
    """A cache, its counters, and the time that it sees."""

    def __init__(self, size: int = 1 << 20, **limits: float) -> None:
        self.ns, self.counters = 10**15, Counters()
        self.cache = AnswerCache(CacheLimits(size, **limits), self.counters, lambda: self.ns)  # type: ignore[arg-type]

    def later(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)

    def find(self, query: dns.message.Message) -> CacheFind:
        data = query.to_wire()
        return self.cache.look_up(data, wire.question_end(data))

    def keep(self, answer: dns.message.Message | bytes, query: dns.message.Message) -> bool:
        found = self.find(query)
        data = answer if isinstance(answer, bytes) else answer.to_wire()
        return found.bits >= 0 and self.cache.store(data, wire.question_end(data), found.bits)


def asked(name: str = "www.example.com.", kind: str = "A", **options: object) -> dns.message.Message:
    return dns.message.make_query(name, kind, **options)  # type: ignore[arg-type]


def answered(
    query: dns.message.Message,
    ttl: int = 300,
    records: tuple[tuple[str, str], ...] = (("A", "192.0.2.1"),),
    rcode: int = 0,
    soa: tuple[int, int] | None = None,
) -> dns.message.Message:
    answer = dns.message.make_response(query, recursion_available=True)
    answer.set_rcode(rcode)  # type: ignore[arg-type]
    name = query.question[0].name
    for kind, data in records:
        answer.answer.append(dns.rrset.from_text(name, ttl, "IN", kind, data))
    if soa:
        answer.authority.append(dns.rrset.from_text("example.com.", soa[0], "IN", "SOA", SOA.format(minimum=soa[1])))
    return answer


def lifetime(query: dns.message.Message, answer: dns.message.Message | bytes) -> int:
    """Whole seconds that an answer is a hit."""
    one = Clocked(stale_max_s=0.0)
    if not one.keep(answer, query):
        return 0
    low, high = 0, 2 * KEEP_MAX_S
    start = one.ns
    while high - low > 1:
        middle = (low + high) // 2
        one.ns = start + middle * 10**9 - 1
        low, high = (middle, high) if one.find(query).outcome == HIT else (low, middle)
    return low


def test_an_answer_is_used_until_its_lowest_ttl_and_ttls_count_down() -> None:
    one, query = Clocked(stale_max_s=0.0), asked()
    answer = answered(query, 300)
    answer.additional.append(dns.rrset.from_text("ns.example.com.", 100, "IN", "A", "192.0.2.9"))
    assert one.keep(answer, query)
    one.later(40.5)
    found = dns.message.from_wire(one.find(query).answer)
    assert [found.answer[0].ttl, found.additional[0].ttl] == [260, 60]
    one.later(59.4)
    assert one.find(query).outcome == HIT
    one.later(0.2)
    assert one.find(query).outcome == MISS


@pytest.mark.parametrize(
    ("soa", "rcode", "wanted"),
    [
        ((300, 60), 3, 60),
        ((60, 300), 3, 60),
        ((300, 60), 0, 60),
        ((90_000, 90_000), 3, NEGATIVE_MAX_S),
        ((0x80000000, 60), 3, 0),
        ((300, 0), 0, 0),
        (None, 3, 0),
        (None, 0, 0),
    ],
)
def test_negative_answers_last_as_their_soa_says(soa: tuple[int, int] | None, rcode: int, wanted: int) -> None:
    query = asked()
    assert lifetime(query, answered(query, records=(), rcode=rcode, soa=soa)) == wanted


def test_an_alias_without_an_address_is_a_negative_answer() -> None:
    query = asked()
    assert lifetime(query, answered(query, 900, (("CNAME", "a.example."),), soa=(300, 60))) == 60
    assert lifetime(query, answered(query, 900, (("CNAME", "a.example."),))) == 0


def test_a_long_ttl_is_capped_and_a_ttl_of_zero_is_not_kept() -> None:
    query = asked()
    assert lifetime(query, answered(query, 10 * KEEP_MAX_S)) == KEEP_MAX_S
    assert lifetime(query, answered(query, 0)) == 0


def test_every_failure_is_kept_shortly() -> None:
    query = asked()
    assert 1 <= FAILURE_S <= 300, "RFC 9520 section 3.2"
    for rcode in range(16):
        wanted = {0: 300, 3: 0}.get(rcode, FAILURE_S)
        assert lifetime(query, answered(query, 300, (("A", "192.0.2.1"),), rcode)) == wanted, dns.rcode.to_text(rcode)  # type: ignore[arg-type]


def test_truncated_signed_damaged_and_network_specific_answers_are_not_kept() -> None:
    query = asked(use_edns=0)
    plain = answered(query)
    truncated = answered(query)
    truncated.flags |= dns.flags.TC
    subnet = answered(query)
    subnet.use_edns(0, options=[dns.edns.ECSOption("192.0.2.0", 24, 24)])
    extended = answered(query)
    extended.use_edns(0, ednsflags=1 << 24)
    signed = plain.to_wire()
    signed = signed[:10] + b"\0\2" + signed[12:] + b"\0\0\xfa\0\xff\0\0\0\0\0\0"
    assert lifetime(query, plain) == 300
    for bad in (truncated, subnet, extended, signed, plain.to_wire() + b"\0", plain.to_wire()[:-1]):
        assert lifetime(query, bad) == 0


def test_only_queries_alike_share_an_answer() -> None:
    one, query = Clocked(), asked()
    assert one.keep(answered(query), query)
    unlike = [asked("ww.example.com."), asked(kind="ANY"), asked(use_edns=0), asked(want_dnssec=True), asked()]
    unlike += [asked(), asked(), asked(rdclass="CH")]
    unlike[4].flags |= dns.flags.CD
    unlike[5].flags |= dns.flags.AD
    unlike[6].flags &= ~dns.flags.RD
    for other in unlike:
        assert one.find(other).outcome == MISS
        assert one.keep(answered(other), other)
    assert one.counters.cache_entries == 9
    assert all(one.find(each).outcome == HIT for each in (query, *unlike))


def test_a_query_with_options_or_odd_flags_is_not_cached() -> None:
    one = Clocked()
    with_subnet = asked(use_edns=0, options=[dns.edns.ECSOption("192.0.2.0", 24)])
    odd = asked()
    odd.flags |= dns.flags.AA
    for query in (with_subnet, odd, asked(use_edns=0, ednsflags=1)):
        assert one.find(query).bits == -1
    assert one.counters.cache_misses == 0


def test_options_between_neighbours_are_not_kept() -> None:
    one, query = Clocked(), asked(use_edns=0)
    answer = answered(query)
    other = dns.edns.GenericOption(dns.edns.OptionType.make(15), b"\0\x04")
    answer.use_edns(
        0,
        options=[
            dns.edns.GenericOption(dns.edns.OptionType.make(10), b"c" * 16),
            other,
            dns.edns.GenericOption(dns.edns.OptionType.make(12), b"\0" * 9),
        ],
    )
    assert one.keep(answer, query)
    assert [option.otype for option in dns.message.from_wire(one.find(query).answer).options] == [15]


def test_the_clients_own_letters_and_id_come_back() -> None:
    one, query = Clocked(), asked("wWw.exAMple.com.")
    assert one.keep(answered(query), query)
    other = asked("WWW.eXample.COM.")
    found = dns.message.from_wire(one.find(other).answer)
    assert (found.id, str(found.question[0].name)) == (other.id, "WWW.eXample.COM.")
    assert str(found.answer[0].name) == "WWW.eXample.COM."


NAMES = st.lists(st.text("abcdefghijABCDEFGHIJ-0123", min_size=1, max_size=20), min_size=1, max_size=6).map(
    lambda labels: ".".join(labels) + "."
)
RECORDS = st.lists(
    st.one_of(
        st.tuples(st.just("A"), st.ip_addresses(v=4).map(str)),
        st.tuples(st.just("CNAME"), NAMES),
        st.tuples(st.just("TXT"), st.text("abc", min_size=1, max_size=200)),
    ),
    min_size=1,
    max_size=8,
)


UNHURRIED = settings(deadline=None, max_examples=60)


@UNHURRIED
@given(NAMES, RECORDS, st.integers(2, 10**9), st.floats(0, 1), st.booleans(), st.randoms())
def test_a_cached_answer_is_the_forwarded_one_but_for_id_letters_and_ttl(  # type: ignore[no-untyped-def]
    name: str, records: list[tuple[str, str]], ttl: int, share: float, edns: bool, random
) -> None:
    query = asked(name, "ANY", use_edns=0 if edns else None)
    answer = answered(query, ttl, tuple(records))
    one = Clocked()
    assert one.keep(answer, query)
    seconds = int(share * (min(ttl, KEEP_MAX_S) - 1))
    one.later(seconds)
    again = asked("".join(random.choice([c.lower(), c.upper()]) for c in name), "ANY", use_edns=0 if edns else None)
    found = one.find(again)
    wanted = dns.message.from_wire(answered(again, ttl - seconds, tuple(records)).to_wire())
    assert found.outcome == HIT and dns.message.from_wire(found.answer) == wanted
    assert [each.ttl for each in dns.message.from_wire(found.answer).answer] == [each.ttl for each in wanted.answer]
    assert found.answer[:2] == again.to_wire()[:2] and len(found.answer) == len(answer.to_wire())


@UNHURRIED
@given(st.binary(max_size=300), st.binary(max_size=80))
def test_any_bytes_are_kept_whole_or_not_at_all(tail: bytes, head: bytes) -> None:
    one, query = Clocked(), asked(use_edns=0)
    data = query.to_wire()
    end = wire.question_end(data)
    answer = data[:2] + (head[:10] if len(head) >= 10 else b"\x81\x80\0\1\0\1\0\0\0\0") + data[12:end] + tail
    if one.keep(answer, query):
        parsed = parse_answer(answer, question_end=end)
        assert parsed.rcode in (0, 2, 3) and not parsed.truncated
        assert len(one.find(query).answer) <= len(answer)
    else:
        assert one.find(query).outcome == MISS


def test_an_expired_answer_is_for_when_upstreams_fail() -> None:
    one, query = Clocked(stale_max_s=1000.0), asked()
    assert one.keep(answered(query, 60), query)
    one.later(61)
    found = one.find(query)
    assert (found.outcome, found.answer) == (EXPIRED, b"")
    stale = dns.message.from_wire(one.cache.expired(query.to_wire(), 33, found.bits).answer)
    assert stale.answer[0].ttl == STALE_TTL_S
    assert one.find(query).outcome == STALE_HIT, "upstreams are not asked again at once"
    one.later(31)
    assert one.find(query).outcome == EXPIRED
    one.later(1000)
    assert one.find(query).outcome == MISS
    assert one.counters.cache_stale == 2


def test_a_failure_takes_no_answers_place_that_may_still_be_used() -> None:
    one, query = Clocked(stale_max_s=1000.0), asked()
    assert one.keep(answered(query, 60), query)
    one.later(61)
    assert not one.keep(answered(query, records=(), rcode=2), query)
    assert one.find(query).outcome == EXPIRED
    assert one.keep(answered(query, 60), query) and one.find(query).outcome == HIT


def test_a_popular_answer_is_asked_for_anew_once_before_it_expires() -> None:
    one, query = Clocked(), asked()
    assert one.keep(answered(query, 100), query)
    one.later(95)
    assert [one.find(query).due for _ in range(2)] == [False, False], "it is not popular yet"
    assert [one.find(query).due for _ in range(3)] == [True, False, False]
    assert one.keep(answered(query, 100), query)
    assert not any(one.find(query).due for _ in range(9)), "it has time left"
    off = Clocked(prefetch_percent=0)
    assert off.keep(answered(query, 100), query)
    off.later(99.999)
    assert not any(off.find(query).due for _ in range(9))


@pytest.mark.slow
def test_random_names_do_not_evict_what_is_asked_twice() -> None:
    one = Clocked(size=256 << 10)
    wanted = [asked(f"n{number}.example.com.") for number in range(200)]
    for query in wanted:
        assert one.keep(answered(query), query)
        assert one.find(query).outcome == HIT
    for number in range(5000):
        query = asked(f"r{number}.random.example.")
        assert one.keep(answered(query), query)
    assert one.counters.cache_evicted > 3000
    assert sum(one.find(query).outcome == HIT for query in wanted) >= 190
    assert 0 < one.counters.cache_bytes <= 256 << 10


@UNHURRIED
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 900), st.booleans()), max_size=300))
def test_memory_is_bounded_and_no_answer_is_another_ones(steps: list[tuple[int, int, bool]]) -> None:
    one = Clocked(size=64 << 10)
    for number, size, store in steps:
        query = asked(f"n{number}.example.com.", "TXT")
        found = one.find(query)
        if found.outcome == HIT:
            text = dns.message.from_wire(found.answer).answer[0][0].strings[0].decode()
            assert text.startswith(f"{number}-")
        if store:
            strings = " ".join([f'"{number}-{"x" * (size % 200)}"', *['"y"' * 1] * (size // 8)])
            one.keep(answered(query, 300, (("TXT", strings),)), query)
            assert one.find(query).outcome == HIT
    assert 0 <= one.counters.cache_bytes <= 64 << 10
    assert one.counters.cache_entries <= 61


def test_the_hash_has_a_key_of_its_own() -> None:
    keys = {int(Clocked().cache.state.cells["low"][0]) for _ in range(4)}
    assert len(keys) == 4
