"""Data that come in: what is new in answers counts by its bytes, of every type below a young or rare domain."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from agents.core.types import DAY_S, UNKNOWN, Row, Severity, batch_of
from agents.dns.message import type_number
from agents.dns.name import from_text
from tests.support.detecting import START, incidents_of
from tests.support.judged import Judged, ask

ZONE = "evil-tunnel.net"
DAY_BYTES = 6_000


def answered(
    ts: float, data: int, size: int, *, name: str = f"www.{ZONE}", qtype: str = "A", client: str = "10.9.0.9"
) -> Row:
    """A query, and an answer whose data have this hash and so many bytes."""
    wire = from_text(name)
    head = (ts, client, wire, type_number(qtype), len(wire) + 17, 0, 1, len(wire) + 16 + size, 60, 12.0, qtype)
    return (*head, data, size, UNKNOWN)


def loud(rows: Iterable[Row]) -> list[str]:
    """Domains with an incident HIGH or above."""
    return [one.domain for one in incidents_of(rows) if one.severity >= Severity.HIGH]


def until_loud(rows: list[Row]) -> int:
    """Bytes that had come in when the first incident opened."""
    found = [one for one in incidents_of(rows) if one.severity >= Severity.HIGH]
    assert found, "there is an incident"
    came = [row for row in rows if row[0] <= found[0].detected_at]
    return int(batch_of(came).ans_bytes.sum())


@pytest.mark.parametrize(
    ("qtype", "size"),
    [("A", 4), ("A", 80), ("AAAA", 960), ("HTTPS", 207), ("SVCB", 207), ("CAA", 67), ("MX", 13), ("SRV", 12)],
)
@pytest.mark.parametrize("name", [f"www.{ZONE}", ZONE])
def test_one_name_brings_in_at_most_the_limit_of_a_day_and_one_answer(qtype: str, size: int, name: str) -> None:
    every_s = DAY_S * size / (2 * DAY_BYTES)
    rows = [
        answered(START + number * every_s, number + 1, size, name=name, qtype=qtype)
        for number in range(3 * DAY_BYTES // size)
    ]
    assert until_loud(rows) <= DAY_BYTES + 2 * size  # one answer is left out, and one reaches the limit
    assert set(loud(rows)) == {ZONE}


@pytest.mark.parametrize("qtype", ["A", "HTTPS", "TXT"])
def test_the_same_data_again_bring_nothing(qtype: str) -> None:
    rows = [answered(START + number * 10, 1 + number % 3, 400, qtype=qtype) for number in range(2_000)]
    assert loud(rows) == []


def test_no_single_answer_opens_an_incident() -> None:
    small = [answered(START + number, number + 1, 16, name=f"{number}.{ZONE}") for number in range(8)]
    proofs = answered(START + 20, 99, 60_000, name=ZONE, qtype="TXT")
    assert loud([*small, proofs]) == []
    assert loud([*small, proofs, answered(START + 30, 100, 60_000, name=ZONE, qtype="TXT")]) == [ZONE]


def test_addresses_that_rotate_each_minute_are_quiet() -> None:
    rows = [answered(START + number * 60, number + 1, 8) for number in range(0, 1440, 2)]
    assert loud(rows) == []


def test_below_an_old_and_common_domain_only_text_and_names_count_and_less() -> None:
    known = [
        answered(START + day * DAY_S + client, 1, 16, client=f"10.9.1.{client}")
        for day in (0, 8)
        for client in range(6)
    ]
    later = START + 9 * DAY_S
    addresses = [answered(later + number * 20, number + 10, 80, client="10.9.1.1") for number in range(2_000)]
    assert loud([*known, *addresses]) == []
    texts = [answered(later + number * 20, number + 10, 80, qtype="TXT", client="10.9.1.1") for number in range(2_000)]
    assert loud([*known, *texts]) == [ZONE]
    assert until_loud([*known, *texts]) > 2 * DAY_BYTES


def test_clients_that_share_what_comes_in_are_one_channel() -> None:
    rows = [answered(START + n * 5, n + 1, 200, qtype="HTTPS", client=f"10.9.1.{n % 50}") for n in range(1_500)]
    assert loud(rows) == [ZONE]


def test_where_data_are_unknown_name_type_and_size_stand_for_them() -> None:
    judged = Judged()
    judged.ask(*(ask("a", 10.0 * n, qtype=16, rlen=400) for n in range(1, 100)))
    size = 400 - len(from_text("a.evil.com")) - 30
    assert judged.view().bytes_in == size
    judged.ask(*(ask("a", 10.0 * n, qtype=1, rlen=400 + n) for n in range(100, 120)))
    assert judged.view().bytes_in == size
    judged.ask(*(ask("a", 10.0 * n, qtype=16, rlen=400 + n) for n in range(120, 125)))
    assert judged.view().bytes_in > 5 * size
