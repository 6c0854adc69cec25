"""What domains carry that are new or rare here: below each, below all, in known names, in types, and at a pace."""

from __future__ import annotations

import random

import pytest

from agents.core.types import DAY_S, Incident, Row, Severity
from agents.detection.counting.flow_kernels import FAMILIAR_CLIENTS, KNOWN_NAMES_MIN
from agents.detection.evidence_kernels import NUMBERED_SHARE
from agents.detection.limits import (
    BEACON_NAMES,
    CHOICE_BYTES,
    FIRST_BYTES,
    ORDERED_BYTES,
    POLLS,
    YOUNG_INFORMATION_BYTES,
)
from agents.detection.state import INFORMATION, WINDOWS_S, Kind, Left
from agents.dns.message import type_number
from agents.learning.evaluation import encoded
from tests.support.detecting import incidents_of, query
from tests.support.judged import CLIENT, START, Judged, ask

OTHER = "192.0.2.8"
ZONE = "evil-tunnel.net"


def loudest(judged: Judged, queries: list[object]) -> dict[Kind, float]:
    """The highest ratio of each kind."""
    best: dict[Kind, float] = {}
    for one in judged.ask(*queries):  # type: ignore[arg-type]
        best[one.kind] = max(best.get(one.kind, 0.0), one.ratio)
    return best


# What each domain and all of them carry


def test_a_few_bytes_below_each_of_many_domains_add_up() -> None:
    """Ten bytes of words a domain, two domains a minute: none is spared."""
    queries = [ask("w", START + 30 * n, domain=f"d{n}.example", bits=80.0, encoded=False) for n in range(480)]
    found = [one.kind == Kind.FIRST and one.ratio >= 1 for one in Judged(20_000).ask(*queries)]
    assert found.index(True) == pytest.approx(FIRST_BYTES[DAY_S] / 10, rel=0.1)


def test_old_and_common_domains_do_not_add_up() -> None:
    """The same queries are beyond the limit where the domains are new."""
    later = [
        ask("w", START + 9 * DAY_S + 60 * n, domain=f"d{n}.example", bits=120.0, encoded=False) for n in range(400)
    ]
    assert Kind.FIRST in loudest(Judged(keys_max=20_000), [*later])
    judged = Judged(keys_max=20_000)
    clients = [f"192.0.2.{100 + n}" for n in range(FAMILIAR_CLIENTS)]
    for day in (0, 8):
        for client in clients:
            judged.ask(*(ask(day, START + day * DAY_S + n, domain=f"d{n}.example", client=client) for n in range(400)))
    assert Kind.FIRST not in loudest(judged, [*later])


@pytest.mark.parametrize(("names", "window_s"), [(600, 7 * DAY_S), (4000, DAY_S)])
def test_a_young_domain_has_less_than_an_old_one(names: int, window_s: int) -> None:
    queries = [ask(n, START + n * 3 * DAY_S / names, bits=56.0, encoded=False) for n in range(names)]
    found = [one.kind == Kind.YOUNG and one.ratio >= 1 for one in Judged().ask(*queries)]
    assert found.index(True) * 7 == pytest.approx(YOUNG_INFORMATION_BYTES[window_s], rel=0.1)


@pytest.mark.parametrize(("shared", "counted"), [(False, 7 - 3.32 / 8), (True, None)])
def test_a_digit_beside_words_does_not_make_a_name_a_number(shared: bool, counted: float | None) -> None:
    """Words with a digit each are no numbered hosts: all but the digit counts. Numbers of one shape are."""
    queries = [
        ask(
            n,
            START + n * DAY_S / 2_000,
            bits=56.0,
            encoded=False,
            numbered=(7, f"{n * 7919 % 10**8:08}") if shared else (n + 1, "7"),
        )
        for n in range(1_000)
    ]
    found = [one.kind == Kind.YOUNG and one.ratio >= 1 for one in Judged().ask(*queries)]
    if counted is None:
        assert True not in found
    else:
        assert found.index(True) * counted == pytest.approx(YOUNG_INFORMATION_BYTES[DAY_S], rel=0.1)


# Names that the network knows


def test_a_name_that_another_client_asked_for_costs_what_points_at_it() -> None:
    judged, names = Judged(), [ask(n, START + 60 * n, bits=200.0) for n in range(10)]
    judged.ask(*names)
    judged.ask(*(ask(n, START + 7 + 60 * n, bits=200.0, client=OTHER) for n in range(10)))
    first, second = judged.view(CLIENT), judged.view(OTHER)
    assert first.leaked_bytes == 10 * 25
    assert second.leaked_bytes == pytest.approx(10 * 6 / 8, rel=0.01), KNOWN_NAMES_MIN
    assert (first.encoded_names, second.encoded_names) == (10, 0)
    assert first.names == second.names == 10


def test_it_costs_more_where_many_are_known() -> None:
    judged = Judged()
    judged.ask(*(ask(n, START + n, bits=200.0) for n in range(1022)))
    judged.ask(ask(5, START + 2000, bits=200.0, client=OTHER))
    assert judged.view(OTHER).leaked_bytes == 10 / 8


# The choice of types, and of known names below several domains


def types_at_random(types: str, count: int, **more: object) -> list[object]:
    rng, numbers = random.Random(types), [type_number(one) for one in types.split()]
    return [ask("www", START + n, bits=8.0, encoded=False, qtype=rng.choice(numbers), **more) for n in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("types", ["A AAAA HTTPS", "A AAAA HTTPS TXT MX NS SRV"])
def test_types_at_random_are_a_choice(types: str) -> None:
    best = loudest(Judged(), types_at_random(types, 3_600))
    assert best[Kind.CHOICE] >= 1
    assert best[Kind.CHOICE] * CHOICE_BYTES[3600] <= 3_600 * 2.9 / 8


@pytest.mark.parametrize("types", ["A AAAA HTTPS", "A AAAA HTTPS TXT MX NS SRV"])
def test_types_in_turn_are_none_nor_is_what_a_cache_answers(types: str) -> None:
    numbers = [type_number(one) for one in types.split()]
    turn = [ask("www", START + n, bits=8.0, encoded=False, qtype=numbers[n % len(numbers)]) for n in range(3_600)]
    assert loudest(Judged(), [*turn]).get(Kind.CHOICE, 0.0) < 0.1
    assert Kind.CHOICE not in loudest(Judged(), types_at_random(types, 3_600, left=Left.STAYED))


def test_the_order_of_known_names_below_many_domains_adds_up() -> None:
    """Fifty bytes an hour below each of twelve domains."""
    rng, queries = random.Random(3), []
    for n in range(12 * 200):
        domain = f"d{n % 12}.example"
        name = n // 12 if n < 12 * 16 else rng.randrange(16)
        queries.append(ask(name, START + 1.5 * n, domain=domain, bits=8.0, encoded=False, left=Left.UNKEPT))
    found = Judged().ask(*queries)
    assert max((one.ratio for one in found if one.kind == Kind.ORDERED), default=0.0) >= 1
    assert max((one.amount for one in found if one.kind == Kind.CHOICE), default=0.0) < ORDERED_BYTES[3600] / 4


# A machine's pace


def knocks(gaps: list[float], qtype: str = "A", data: int = 4, answers: int = 1, client: str = "10.9.0.9") -> list[Row]:
    """Names of two characters, each after its gap; answers with so many bytes of data, of so many different ones."""
    rng, ts = random.Random(5), START
    rows: list[Row] = []
    for number, gap in enumerate(gaps):
        ts += gap
        row = query(ts, client, f"{encoded(rng, 1)}{number:03}.{ZONE}", type_number(qtype))
        rows.append((*row, 1 + number % answers, data, -1))
    return rows


def of(rows: list[Row]) -> list[Incident]:
    return [one for one in incidents_of(rows) if one.domain == ZONE]


EVERY_MINUTE = [60.0 + n % 7 for n in range(40)]
AT_LEISURE = [(1.5, 300.0, 20.0, 4.0, 90.0)[n * 7 % 5] for n in range(60)]


def test_a_machines_pace_alone_is_listed_with_its_period() -> None:
    (found,) = of(knocks(EVERY_MINUTE))
    assert found.severity == Severity.SUSPICIOUS
    assert found.queries_before_detection == BEACON_NAMES[3600]
    assert found.reasons[:2] == (f"20 unique names below {ZONE} in 1 h", "one every 63 s, as a program asks")


@pytest.mark.parametrize(
    ("rows", "sign"),
    [
        (knocks(EVERY_MINUTE, "TXT", 12), "its record types carry text"),
        (knocks(EVERY_MINUTE, "A", 0), "its answers are empty"),
        (knocks(EVERY_MINUTE, "A", 4, answers=100), "its answers differ"),
    ],
)
def test_a_second_sign_makes_it_high(rows: list[Row], sign: str) -> None:
    (found,) = of(rows)
    assert (found.severity, found.reasons[-1]) == (Severity.HIGH, sign)


def test_who_asks_at_leisure_is_no_machine() -> None:
    assert of(knocks(AT_LEISURE)) == []


def test_nor_is_a_pace_below_a_domain_that_several_clients_know() -> None:
    rows = [query(START - 100 + n, f"10.9.1.{n}", f"www.{ZONE}") for n in range(FAMILIAR_CLIENTS)]
    assert of([*rows, *knocks(EVERY_MINUTE)]) == []


def test_after_a_listed_pace_a_pause_forgets_nothing() -> None:
    """Thirty names of twenty bytes in half an hour, then two hours of quiet: below every limit of an hour."""
    queries = [
        ask(f"{turn}-{n}", START + turn * 9_000 + 60 * n, bits=160.0, encoded=False)
        for turn in range(4)
        for n in range(30)
    ]
    best = loudest(Judged(), [*queries])
    assert best[Kind.BEACON] >= 1
    assert best[Kind.YOUNG] >= 1


# An implant that waits for a task


def polls(
    gaps: list[float], qtype: str = "TXT", names: tuple[str, ...] = ("c",), client: str = "10.9.0.9", ttl: int = 60
) -> list[Row]:
    """The same few names again and again, each after its gap; the answer is always the same."""
    ts, rows = START, list[Row]()
    for number, gap in enumerate(gaps):
        ts += gap
        row = query(ts, client, f"{names[number % len(names)]}.{ZONE}", type_number(qtype))
        rows.append((*row, 1, 40, -1))
    return rows


POLLING = {every: [every * (0.9 + n * 7 % 5 / 20) for n in range(40)] for every in (5.0, 60.0, 900.0)}


@pytest.mark.parametrize("every", POLLING)
def test_who_polls_for_text_is_listed_with_its_period(every: float) -> None:
    (found,) = of(polls(POLLING[every]))
    assert found.severity == Severity.SUSPICIOUS
    assert found.queries_before_detection == POLLS[DAY_S] + 1
    assert found.reasons[0] == f"asked 20 times in a row for text below {ZONE}"
    assert found.reasons[1].startswith("once every ") and found.reasons[1].endswith(" s, as a program asks")
    assert abs(float(found.reasons[1].split()[2]) - every) <= every / 10


def test_and_several_names_in_turn() -> None:
    assert [one.severity for one in of(polls(POLLING[60.0], names=("a", "www", "mail")))] == [Severity.SUSPICIOUS]


@pytest.mark.parametrize("qtype", ["A", "AAAA", "HTTPS", "SRV", "MX"])
def test_what_programs_poll_for_is_no_text(qtype: str) -> None:
    assert of(polls(POLLING[60.0], qtype)) == []


def test_nor_is_who_asks_for_text_at_leisure_or_at_once_or_a_few_times_on_each_day() -> None:
    assert of(polls(AT_LEISURE)) == []
    assert of(polls([0.3] * 60)) == []
    assert of(polls(([7_000.0] + [60.0] * 15) * 3)) == []


def test_nor_below_a_domain_that_several_clients_know() -> None:
    rows = [query(START - 100 + n, f"10.9.1.{n}", f"www.{ZONE}") for n in range(FAMILIAR_CLIENTS)]
    assert of([*rows, *polls(POLLING[60.0])]) == []


# Numbers of hosts


def test_numbers_below_many_young_domains_add_up() -> None:
    """Four bytes of digits a name, ten names a domain: the first bytes in full."""
    queries = [
        ask(
            n,
            START + 20 * n,
            domain=f"d{n % 300}.example",
            bits=40.0,
            encoded=False,
            numbered=(7, f"{n * 7919 % 10**8:08}"),
        )
        for n in range(3_000)
    ]
    found = [one.kind == Kind.FIRST and one.ratio >= 1 for one in Judged(20_000).ask(*queries)]
    assert True in found
    assert found.index(True) * 3.33 <= FIRST_BYTES[DAY_S] * 1.5


def test_beyond_the_first_bytes_they_count_an_eighth() -> None:
    queries = [
        ask(
            n,
            START + 8 * n,
            domain=f"d{n % 8}.example",
            bits=40.0,
            encoded=False,
            numbered=(7, f"{n * 7919 % 10**8:08}"),
        )
        for n in range(4_000)
    ]
    judged = Judged(20_000)
    judged.ask(*queries)
    state = judged.flows.state
    sum_ = state.flows[int(state.clients[judged.flows.clients[CLIENT]]["scattered"])]
    counted = float(state.windows[int(sum_["windows"])]["now"][WINDOWS_S.index(7 * DAY_S), INFORMATION])
    carried = sum(judged.view(domain=f"d{n}.example").leaked_bytes for n in range(8))
    assert counted == pytest.approx((carried - 800) * NUMBERED_SHARE, rel=0.02)
