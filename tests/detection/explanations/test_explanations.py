"""What a kind of benign service explains, as far as this network supports it, and what it never does."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.alerting.manager import is_paged
from agents.core.npz import FormatError
from agents.core.text import NETWORK
from agents.core.types import DAY_S, Incident, Row, Severity, batch_of
from agents.detection.detector import HABITS_FILE, TunnelDetector
from agents.detection.explanations import habits
from agents.detection.explanations.explainer import CLIENT_BYTES, TIMES_MAX, YOUNG_BYTES, Explainer, is_inside
from agents.detection.explanations.kinds import KINDS, PLAIN, Likeness, ServiceKind, kinds_of, stem_of
from agents.detection.flows import Flows
from agents.detection.limits import Scale
from agents.dns.message import type_number
from agents.dns.name import from_text
from tests.support.detecting import fresh_detector, query, shipped_model

START = 1_795_000_000.0 // DAY_S * DAY_S
MD5, SHA1, BASE32 = 32, 40, 26
CLIENT = "192.0.2.1"
A, TXT, MX = 1, 16, 15


def hashes(rng: random.Random, digits: int, alphabet: str = "0123456789abcdef") -> str:
    return "".join(rng.choices(alphabet, k=digits))


def day_of_lookups(day: int, count: int, client: str = CLIENT, zone: str = "bl.hash-lists.org") -> list[Row]:
    """So many reputation look-ups in working hours."""
    rng = random.Random(f"{client} {day} {zone}")
    return [
        query(START + day * DAY_S + 8 * 3600 + 60 * number, client, f"{hashes(rng, SHA1)}.{zone}", A)
        for number in range(count)
    ]


def senders(day: int, client: str = CLIENT) -> list[Row]:
    """A mail host looks up the mail servers of those it hears from."""
    return [query(START + day * DAY_S + 7 * 3600 + n, client, f"sender{n}-{day}.com", MX) for n in range(30)]


def browsing(client: str, ts: float) -> list[Row]:
    """A client that is at home: it asks below twelve domains."""
    return [query(ts + n, client, f"www.site{n}.com", A) for n in range(12)]


def told(detector: TunnelDetector, rows: list[Row]) -> dict[tuple[str, str], Incident]:
    """The last state of each incident, in a day's order."""
    found = {}
    for row in sorted(rows, key=lambda row: row[0]):
        for one in detector.detect(batch_of([row]), explain=False).incidents:
            found[one.client, one.domain] = one
    return found


@pytest.fixture
def detector() -> TunnelDetector:
    return fresh_detector(shipped_model(), Scale())


def test_a_mail_host_s_lookups_by_hash_are_listed_until_the_allowance_is_used_up(detector: TunnelDetector) -> None:
    found = told(detector, [*senders(0), *day_of_lookups(0, 20)])[CLIENT, "hash-lists.org"]
    assert (found.severity, is_paged(found)) == (Severity.SUSPICIOUS, False)
    said = found.evidence["explanation"]
    assert (said["kind"], said["listed"], said["budget"]) == ("reputation by hash", True, YOUNG_BYTES)
    assert said["sign"] == "the client looks up the mail servers of many domains"
    assert said["bytes_a_day"] == pytest.approx(found.leaked_bytes, abs=1)
    more = told(detector, day_of_lookups(0, 80)[20:])[CLIENT, "hash-lists.org"]
    assert more.severity >= Severity.HIGH and is_paged(more)
    assert more.leaked_bytes > YOUNG_BYTES
    assert more.bytes_before_detection == pytest.approx(YOUNG_BYTES, abs=25), "what left before it was HIGH"


def test_the_queries_of_a_listed_incident_are_below_high(detector: TunnelDetector) -> None:
    rows = sorted([*senders(0), *day_of_lookups(0, 20)], key=lambda row: row[0])
    severities = [int(detector.detect(batch_of([row]), explain=False).severity[0]) for row in rows]
    assert severities.count(Severity.SUSPICIOUS) > 5
    assert sum(severity >= Severity.HIGH for severity in severities) <= 1, "an odd name may be HIGH once a day"


def test_without_a_sign_in_this_network_it_pages_as_ever(detector: TunnelDetector) -> None:
    found = told(detector, day_of_lookups(0, 20))[CLIENT, "hash-lists.org"]
    assert found.severity >= Severity.HIGH
    assert (found.evidence["explanation"]["sign"], found.evidence["explanation"]["listed"]) == ("", False)


def test_several_clients_at_home_support_it_and_spoofed_ones_do_not(detector: TunnelDetector) -> None:
    clients = [f"192.0.2.{n}" for n in range(1, 6)]
    rng = random.Random(1)
    keys = [
        query(START + 9 * 3600 + 20 * n, client, f"{hashes(rng, 24)}.cust.metric-hosts.com", A)
        for n in range(15)
        for client in clients
    ]
    spoofed = told(fresh_detector(shipped_model(), Scale()), keys)
    assert all(one.severity >= Severity.HIGH for one in spoofed.values())
    home = [row for client in clients for row in browsing(client, START + 3600)]
    found = told(detector, [*home, *keys])
    assert found and all(one.severity == Severity.SUSPICIOUS for one in found.values())
    assert {one.evidence["explanation"]["sign"] for one in found.values()} == {
        "several clients of this network ask below it"
    }


def test_a_page_s_test_is_listed_for_a_browser_and_not_for_a_client_that_does_nothing_else(
    detector: TunnelDetector,
) -> None:
    rng = random.Random(2)
    names = [f"{hashes(rng, 8)}-{hashes(rng, 4)}-{hashes(rng, 12)}.test.leak-test.net" for _ in range(20)]
    burst = [query(START + 7200 + n, CLIENT, name, A) for n, name in enumerate(names)]
    assert told(fresh_detector(shipped_model(), Scale()), burst)[CLIENT, "leak-test.net"].severity >= Severity.HIGH
    found = told(detector, [*browsing(CLIENT, START), *burst])[CLIENT, "leak-test.net"]
    assert found.severity == Severity.SUSPICIOUS
    slow = [query(START + 20_000 + 700 * n, CLIENT, f"{hashes(rng, 24)}.slow-drip.net", A) for n in range(40)]
    assert told(detector, slow)[CLIENT, "slow-drip.net"].severity >= Severity.HIGH


def test_a_few_names_that_are_asked_for_again_and_again_are_listed(detector: TunnelDetector) -> None:
    rng = random.Random(6)
    names = [f"{hashes(rng, 24)}.hosts-of-a-cloud.net" for _ in range(40)]
    rows = [
        query(START + 1800 * n + 60 * again, CLIENT, name, A) for n, name in enumerate(names) for again in range(10)
    ]
    found = told(detector, rows)[CLIENT, "hosts-of-a-cloud.net"]
    assert found.severity == Severity.SUSPICIOUS
    assert found.evidence["explanation"]["sign"] == "the client asks for the same few names again and again"


def test_one_long_name_every_two_hours_is_no_burst(detector: TunnelDetector) -> None:
    rng = random.Random(8)
    rows = [row for hour in range(12) for row in browsing(CLIENT, START + 3600 * hour)]
    long = [f"{hashes(rng, 60)}.{hashes(rng, 60)}.{hashes(rng, 60)}.slow-and-long.net" for _ in range(6)]
    rows += [query(START + 7200 * n + 600, CLIENT, name, A) for n, name in enumerate(long)]
    found = told(detector, rows)[CLIENT, "slow-and-long.net"]
    assert found.severity >= Severity.HIGH and found.bytes_before_detection <= 500


def test_a_burst_that_goes_on_is_none(detector: TunnelDetector) -> None:
    rng = random.Random(7)
    rows = [query(START + 7200 + 4 * n, CLIENT, f"{hashes(rng, 50)}.goes-on.net", A) for n in range(60)]
    found = told(detector, [*browsing(CLIENT, START), *rows])[CLIENT, "goes-on.net"]
    assert found.severity >= Severity.HIGH and found.bytes_before_detection <= 950


def test_names_that_change_their_shape_end_the_explanation(detector: TunnelDetector) -> None:
    rows = [*senders(0), *day_of_lookups(0, 14)]
    rng = random.Random(3)
    odd = [
        query(START + 8 * 3600 + 60 * (14 + n), CLIENT, f"{hashes(rng, 20 + n, 'abcdefghijklmnop')}.hash-lists.org", A)
        for n in range(14)
    ]
    found = told(detector, [*rows, *odd])[CLIENT, "hash-lists.org"]
    assert found.severity >= Severity.HIGH and "explanation" not in found.evidence


def test_text_in_names_is_never_explained(detector: TunnelDetector) -> None:
    text = b"The quick brown fox jumps over the lazy dog and takes the customer list along with it, all of it."
    cut = [text[at : at + 16].ljust(16).hex() for at in range(0, len(text), 16)]
    rows = [query(START + 9 * 3600 + 60 * n, CLIENT, f"{part}.bl.hash-lists.org", A) for n, part in enumerate(cut)]
    found = told(detector, [*senders(0), *rows, *day_of_lookups(0, 10)])[CLIENT, "hash-lists.org"]
    assert found.severity >= Severity.HIGH
    assert found.evidence["preview"].startswith("hex: ") and "explanation" not in found.evidence


@pytest.mark.parametrize(("texts", "is_explained"), [(0, True), (1, True), (2, False), (6, False)])
def test_one_hash_that_happens_to_read_as_text_is_chance(
    detector: TunnelDetector, texts: int, is_explained: bool
) -> None:
    rng = random.Random(4)
    found = [bytes(rng.choices(b"abcdefghij klmnop", k=16)).hex() for _ in range(texts)]
    found += [rng.randbytes(16).hex() for _ in range(20 - texts)]
    account = detector.incidents.explainer.open([(from_text(f"{one}.bl.hash-lists.org"), 1) for one in found])
    assert (account.kind is not None) == is_explained


def test_nor_does_it_end_the_explanation_of_an_incident_that_is_open(detector: TunnelDetector) -> None:
    """What an incident shows as its names' text may be chance, too."""
    rows = day_of_lookups(0, 20)
    by_chance = b"uoFbIa%vds".hex().rjust(SHA1, "9")
    rows[3] = query(rows[3][0], CLIENT, f"{by_chance}.bl.hash-lists.org", A)
    found = told(detector, [*senders(0), *rows])[CLIENT, "hash-lists.org"]
    assert found.evidence["preview"] == "hex: uoFbIa%vds"
    assert found.severity == Severity.SUSPICIOUS and found.evidence["explanation"]["listed"]


def lists_of_three(day: int, times: Sequence[int]) -> list[Row]:
    """Three hosts that handle mail, and are not at home, look up a hash each at so many times of a day, below one
    list's domain."""
    rng, hosts = random.Random(f"{day} {times}"), [f"192.0.2.{n}" for n in range(1, 4)]
    rows = [row for host in hosts for row in senders(day, host)[:8]]
    for n in times:
        begin = START + day * DAY_S + 9 * 3600 + 3000 * n
        rows += [query(begin + at, host, f"{hashes(rng, 62)}.files.hash-lists.org", A) for at, host in enumerate(hosts)]
    return rows


def test_what_all_clients_carried_on_earlier_days_is_not_of_their_incident_s_day(detector: TunnelDetector) -> None:
    assert not told(detector, lists_of_three(0, range(7)))
    found = told(detector, lists_of_three(3, range(9)))[NETWORK, "hash-lists.org"]
    assert found.leaked_bytes > YOUNG_BYTES, "of both days"
    assert found.severity == Severity.SUSPICIOUS and found.evidence["explanation"]["listed"]
    assert 800 <= found.evidence["explanation"]["bytes_a_day"] <= YOUNG_BYTES
    more = told(detector, lists_of_three(3, range(9, 14)))[NETWORK, "hash-lists.org"]
    assert more.severity >= Severity.HIGH and more.evidence["explanation"]["bytes_a_day"] > YOUNG_BYTES


@pytest.mark.slow
def test_a_client_s_sum_is_bounded_whatever_number_of_domains_it_uses(detector: TunnelDetector) -> None:
    clients = [f"192.0.2.{n}" for n in range(1, 5)]
    rows = [row for client in clients for row in browsing(client, START + 3600)]
    rng = random.Random(4)
    for domain in range(12):
        for n in range(30):
            for client in clients[: 4 if n < 2 else 1]:
                name = f"{hashes(rng, 24)}.k.hosts-of-{domain}.net"
                rows.append(query(START + 9 * 3600 + 1800 * domain + 20 * n + int(client[-1]), client, name, A))
    found = told(detector, rows)
    listed = [one for one in found.values() if one.severity < Severity.HIGH and one.client == CLIENT]
    assert sum(one.leaked_bytes for one in listed) <= CLIENT_BYTES + YOUNG_BYTES
    assert any(one.severity >= Severity.HIGH for one in found.values())


@pytest.mark.slow
def test_what_was_usual_while_habits_were_learnt_is_listed_later_and_three_times_that_is_not() -> None:
    detector = fresh_detector(shipped_model(), Scale(), burn_in_days=7)
    early = [told(detector, [*senders(day), *day_of_lookups(day, 100)]) for day in range(7)]
    assert all(day[CLIENT, "hash-lists.org"].severity >= Severity.HIGH for day in early[:5])
    assert not any(is_paged(one) for day in early for one in day.values()), "likely, so nobody is called"
    usual = told(detector, [*senders(8), *day_of_lookups(8, 110)])[CLIENT, "hash-lists.org"]
    assert (usual.severity, "burn_in" in usual.evidence) == (Severity.SUSPICIOUS, False)
    assert usual.leaked_bytes > YOUNG_BYTES
    much = told(detector, [*senders(9), *day_of_lookups(9, 400)])[CLIENT, "hash-lists.org"]
    assert is_paged(much)


def test_while_habits_are_learnt_a_tunnel_pages_once_it_is_critical() -> None:
    detector = fresh_detector(shipped_model(), Scale(), burn_in_days=7)
    rng = random.Random(5)
    rows = [
        query(START + 60 * n, CLIENT, f"{hashes(rng, 50, 'abcdefghijklmnopqrstuvwxyz234567')}.drop.net", TXT)
        for n in range(60)
    ]
    first = told(detector, rows[:6])[CLIENT, "drop.net"]
    assert (first.severity, first.evidence["burn_in"], is_paged(first)) == (Severity.HIGH, True, False)
    last = told(detector, rows[6:])[CLIENT, "drop.net"]
    assert (last.severity, is_paged(last)) == (Severity.CRITICAL, True)


@pytest.mark.slow
def test_habits_and_sums_come_back_after_a_restart() -> None:
    one, other = (fresh_detector(shipped_model(), Scale(), burn_in_days=7) for _ in range(2))
    for day in range(7):
        told(one, [*senders(day), *day_of_lookups(day, 60)])
    kept = one.incidents.explainer.dump()
    other.load(HABITS_FILE, kept)
    assert other.incidents.explainer.dump() == kept and len(json.loads(kept)["habits"]) > 0
    assert other.incidents.explainer.handles_mail(START + 6.5 * DAY_S, CLIENT)


def test_a_restart_counts_nothing_twice(detector: TunnelDetector) -> None:
    rows = sorted([*senders(0), *day_of_lookups(0, 40)], key=lambda row: row[0])
    open_ = [one for one in told(detector, rows[:62]).values() if one.closed_at is None]
    assert [one.severity for one in open_] == [Severity.SUSPICIOUS]
    again = fresh_detector(shipped_model(), Scale())
    for name, data in detector.save(nullcontext()).items():
        again.load(name, data)
    again.restore(open_)
    found = told(again, rows[62:])[CLIENT, "hash-lists.org"]
    assert found.severity == Severity.SUSPICIOUS
    assert found.evidence["explanation"]["bytes_a_day"] == pytest.approx(found.leaked_bytes, abs=30)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b"{}",
        b'{"books": [], "habits": [], "mail": []}',
        b'{"books": [[1, {}, {}], [1, {}, {}], [1, {}, {"a": "b"}]], "habits": [], "mail": []}',
        b'{"books": [[1, {}, {}], [1, {}, {}], [1, {}, {}]], "habits": [["a", [[1]]]], "mail": []}',
        b'{"books": [[1, {}, {}], [1, {}, {}], [1, {}, {}]], "habits": [], "mail": [["a", 1, ["b"]]]}',
    ],
)
def test_damaged_habits_are_refused(damage: bytes) -> None:
    with pytest.raises(FormatError, match="habits"):
        Explainer(Flows(100)).load(damage)


def test_a_full_book_explains_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(habits, "SUMS_MAX", 2)
    book = habits.Book()
    assert [book.add(START, key, 10) for key in ("a", "b", "a", "c")] == [10, 10, 20, math.inf]
    assert book.add(START + 2 * DAY_S, "c", 5) == 5


@pytest.mark.slow
def test_a_flood_of_names_of_a_kind_is_looked_at_up_to_its_allowance(detector: TunnelDetector) -> None:
    """Measured before: each name was compared with every kind for ever, at seven times the cost of any other."""
    rng = random.Random(9)
    rows = [query(START + 7200 + n / 50, CLIENT, f"{hashes(rng, 40)}.flood.net", A) for n in range(6000)]
    told(detector, [*browsing(CLIENT, START), *rows[:100]])
    (account,) = [trail.account for trail in detector.incidents._trails.values() if trail.account is not None]
    for at in range(100, len(rows), 500):
        detector.detect(batch_of(rows[at : at + 500]), explain=False)
    seen = account.alike[0].fits + account.alike[0].misfits
    assert account.is_over and 100 < seen < 2500 and len(account.times) <= TIMES_MAX


@pytest.mark.parametrize(
    ("names", "handles"),
    [
        ([f"sender{n}.com" for n in range(6)], True),
        ([f"s{n}._domainkey.sender{n}.com" for n in range(6)], True),
        ([f"{n}7c1e.sender{n}.com" for n in range(60)], False),
    ],
    ids=["policies", "keys", "other texts"],
)
def test_texts_of_senders_are_of_mail_and_a_tunnels_are_not(
    detector: TunnelDetector, names: list[str], handles: bool
) -> None:
    told(detector, [query(START + n, CLIENT, name, TXT) for n, name in enumerate(names)])
    told(detector, browsing(CLIENT, START + 100))
    assert detector.incidents.explainer.handles_mail(START + 200, CLIENT) == handles


def test_siblings_are_not_explained_where_something_louder_is(detector: TunnelDetector) -> None:
    """A mail host's look-ups by hash, below six domains of nobody: what their sum alone would be, siblings are not."""
    rng = random.Random(3)
    rows = [
        query(START + 8 * 3600 + 20 * n, CLIENT, f"{hashes(rng, MD5)}.list{n % 6}-{n % 6}.net", TXT) for n in range(60)
    ]
    found = told(detector, [*senders(0), *rows])
    high = [one for one in found.values() if one.severity >= Severity.HIGH]
    assert high and any("one form" in reason or "same form" in reason for one in high for reason in one.reasons)


def test_who_handles_mail_is_forgotten_after_a_day(detector: TunnelDetector) -> None:
    told(detector, senders(0))
    explainer = detector.incidents.explainer
    assert explainer.handles_mail(START + 1.9 * DAY_S, CLIENT)
    assert not explainer.handles_mail(START + 2.1 * DAY_S, CLIENT)
    assert not explainer.handles_mail(START, "192.0.2.9") and not explainer.handles_mail(START, NETWORK)


@pytest.mark.parametrize(
    ("domain", "inside"),
    [("dc1.consul", True), ("corp.internal", True), ("example.com", False), (".", False), ("*", False)],
)
def test_whose_top_level_is_nobody_s(domain: str, inside: bool) -> None:
    assert is_inside(domain) is inside


SHAPES: dict[str, tuple[str, Callable[[random.Random], str]]] = {
    "reputation by hash": ("A", lambda rng: f"{hashes(rng, MD5)}.md5"),
    "peer-to-peer nodes": ("TXT", lambda rng: f"{hashes(rng, BASE32, 'abcdefghijklmnopqrstuvwxyz234567')}.all"),
    "addresses in names": ("A", lambda rng: f"ip-10-0-{rng.randrange(256)}-{rng.randrange(256)}"),
    "sender policy macros": ("TXT", lambda rng: f"_i.{rng.randrange(99)}.{rng.randrange(99)}._spf"),
    "certificate validation": ("CNAME", lambda rng: f"_{hashes(rng, MD5)}"),
    "content by hash": ("A", lambda rng: f"bafy{hashes(rng, 55, 'abcdefghijklmnopqrstuvwxyz234567')}.ipfs"),
    "service discovery": ("SRV", lambda rng: f"_{hashes(rng, 6, 'abcdef')}._tcp.x{hashes(rng, 8)}"),
    "a test of the network": ("A", lambda rng: f"{hashes(rng, 20)}-{rng.randrange(99)}"),
    "hosts with a key": ("HTTPS", lambda rng: f"{hashes(rng, 13)}.customer"),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_names_of_a_kind_have_its_shape_and_other_types_do_not(kind: str) -> None:
    rng, (qtype, make) = random.Random(kind), SHAPES[kind]
    names = [from_text(f"{make(rng)}.some-domain.net") for _ in range(20)]
    assert kind in {one.name for one in kinds_of([(name, type_number(qtype)) for name in names])}
    assert kinds_of([(name, type_number("NULL")) for name in names]) == []


def test_a_directory_has_one_of_its_own_names() -> None:
    rows = [from_text(f"{name}.corp.example.com") for name in ("pc-00ae41b2", "zgnjwdzgsm-q1", "x7f3a")]
    assert "directory" not in {one.name for one in kinds_of([(row, A) for row in rows])}
    rows.append(from_text("_ldap._tcp.dc._msdcs.corp.example.com"))
    assert kinds_of([(row, A) for row in rows])[0].name == "directory"


def labels() -> st.SearchStrategy[bytes]:
    return st.binary(min_size=1, max_size=63)


@given(st.lists(st.tuples(st.lists(labels(), max_size=3), st.integers(0, 65535)), max_size=12))
def test_any_names_can_be_compared(found: list[tuple[list[bytes], int]]) -> None:
    names = [
        (b"".join(bytes([len(one)]) + one for one in [*parts, b"example", b"com"]), qtype) for parts, qtype in found
    ]
    for kind in kinds_of(names):
        odd = [(stem_of(name), qtype) for name, qtype in names if not PLAIN.fullmatch(stem_of(name))]
        assert Likeness(kind).takes(odd)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_shape_takes_long_for_hostile_names(kind: ServiceKind) -> None:
    """A name has 253 bytes at most; a shape that backtracks would take for ever."""
    for piece in (b"a", b"1", b"a-", b"1.", b"_a", b"0-a.", b"spf.", b"1-1."):
        for end in (b"", b"!", b".", b"-"):
            kind.shape.fullmatch((piece * 250)[:250] + end)
