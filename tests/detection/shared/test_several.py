"""Several detectors, each of some clients, find what one detector of all clients finds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest

from agents.core.npz import FormatError
from agents.core.text import NETWORK
from agents.core.types import QueryBatch, Row, Severity, Verdicts, batch_of
from agents.detection.detector import HABITS_FILE, WINDOWS_FILE
from agents.detection.incidents import domain_hash
from agents.detection.limits import Scale
from agents.detection.shared.detector_report import detector_report_of
from agents.detection.shared.part import PartDetector, TrialPartDetector
from agents.detection.shared.view import NetworkView, facts_of, known_tables
from agents.learning.baseline import golden_sessions, golden_traffic
from agents.stream.slots import SLOTS, detector_for, slot_of_client
from tests.corpora import organisation
from tests.corpora.evasions import EVASIONS
from tests.corpora.families import FAMILIES, office_day, session_of
from tests.corpora.lookalikes import ROLES, traffic
from tests.detection.test_network import ADDRESSES, data, sent
from tests.support.detecting import BATCH, KEYS_MAX, QUIET_S, START, fresh_detector, incidents_of, query, shipped_model
from tests.support.several import Several, Told, incidents_of_several, incidents_of_slices, told

MANY = (1, 2, 5)
EVASION_ROWS = 400
SOME_FAMILIES = FAMILIES[::4]
LAG_S = 1.0
"""Seconds after which a detector knows what others said: more than live ones take."""
ADDRESSED = [f"192.0.2.{number}" for number in range(1, 60)]
SLOTS_SEEN = [27, 0, 26, 26, 44]


def rows_of(batch: QueryBatch) -> list[Row]:
    columns = (batch.ts, batch.client, batch.qname, batch.qtype, batch.qlen, batch.rcode, batch.ancount, batch.rlen)
    more = batch.ttl_min, batch.rtt_ms, batch.ans_types, batch.ans_hash, batch.ans_bytes, batch.negative_ttl
    listed = [one.tolist() if isinstance(one, np.ndarray) else one for one in (*columns, *more)]
    return list(zip(*listed, strict=True))


def families() -> list[Row]:
    """The same day on each PC of an office, minutes later than on the one before, and a session of a family on each."""
    rows = []
    for number, family in enumerate(SOME_FAMILIES):
        client = f"10.1.{number}.9"
        rows += [(row[0] + 97 * number, client, *row[2:]) for row in office_day(1)]
        rows += session_of(family, True, 1, client).rows
    return sorted(rows, key=lambda row: row[:3])


def evasions() -> list[Row]:
    """The first queries of each evasion, each by another client."""
    rows = []
    for number, evasion in enumerate(EVASIONS):
        ts = START
        for _, one in zip(range(EVASION_ROWS), evasion.send(random.Random(number)), strict=False):
            ts += 20
            own = one.name.replace("evil-tunnel", f"evil-tunnel{number}") if isinstance(one.name, str) else one.name
            rows.append(query(ts, f"10.2.{number}.9", own))
    return sorted(rows, key=lambda row: row[:3])


def golden() -> list[Row]:
    """Real tunnels at once, each of another client, over a day of ordinary names."""
    day = rows_of(golden_traffic())
    for number, batch in enumerate(golden_sessions().values()):
        rows = rows_of(batch)
        day += [(row[0] - rows[0][0] + 600 * number, f"10.3.{number}.9", *row[2:]) for row in rows]
    return sorted(day, key=lambda row: row[:3])


def many_domains() -> list[Row]:
    """Forty clients carry data below domains of their own, a little below each."""
    rng, rows = random.Random(3), []
    for step in range(1500):
        client = f"10.4.{step % 40}.9"
        rows.append(query(START + 40 * step, client, f"{data(rng, 9)}.away{step // 3}.example"))
    return rows


def lookalikes() -> list[Row]:
    return list(traffic(1, tuple(role._replace(clients=2) for role in ROLES[::6])))


def office(days: int) -> list[Row]:
    return [row for part in organisation.traffic(5, days, more=organisation.attack()) for row, _ in part]


CAPTURES: dict[str, Callable[[], Sequence[Row]]] = {
    **{f"{name}, {size} bytes each {every_s} s": lambda c=clients, e=every_s, s=size: sent(c, e, s)  # type: ignore[misc]
       for name, clients in ADDRESSES.items() for every_s, size in ((2, 25), (60, 20), (600, 9))},
    "forty clients, many domains": many_domains,
    "evasions": evasions,
    "golden tunnels": golden,
    "look-alikes": lookalikes,
}  # fmt: skip


LONG = {"evasions": 2, "golden tunnels": 5, "look-alikes": 2}
"""Captures that take a minute, and the number of detectors with which each is tried."""
PAIRS = [(name, one) for name in CAPTURES for one in MANY if one == LONG.get(name, one)]


RESOLVER = "10.0.0.53"
PARTED_CAPTURES = ["forty clients, many domains"]


def behind(resolver: str, rows: Sequence[Row]) -> list[Row]:
    """The rows as a listener hears them from a resolver that forwards them all."""
    return [(row[0], resolver, *row[2:]) for row in rows]


def same(rows: Sequence[Row], detectors: int, lag_s: float = LAG_S) -> tuple[list[Told], list[Told]]:
    """What one detector finds, and what several do, without clients' own incidents beside one of all clients that one
    detector has, too: while a message is under way, both may open."""
    alone = told(incidents_of_slices(rows, shipped_model(), lag_s=lag_s))
    found = told(incidents_of_several(rows, shipped_model(), detectors, lag_s=lag_s))
    of_all = {domain for domain, client, *_ in set(alone) & set(found) if client == NETWORK}
    return alone, [one for one in found if one in alone or one[0] not in of_all]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("capture", "detectors"), PAIRS)
def test_any_number_of_detectors_finds_what_one_finds(capture: str, detectors: int) -> None:
    alone, found = same(CAPTURES[capture](), detectors)
    assert found == alone


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("capture", "detectors"), [(name, one) for name in PARTED_CAPTURES for one in MANY])
def test_any_number_finds_what_one_finds_behind_one_address(capture: str, detectors: int) -> None:
    """All clients of a capture behind a resolver, whose queries all detectors judge."""
    rows = behind(RESOLVER, CAPTURES[capture]())
    alone = told(incidents_of_slices(rows, shipped_model(), lag_s=LAG_S))
    found = told(incidents_of_several(rows, shipped_model(), detectors, lag_s=LAG_S, parted=RESOLVER))
    assert found == alone != []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("detectors", [5])
def test_any_number_finds_each_family_in_an_office(detectors: int) -> None:
    alone, found = same(families(), detectors, lag_s=10)
    assert len(alone) >= len(SOME_FAMILIES) and found == alone


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("detectors", [2])
def test_an_organisation_hears_of_the_same_though_messages_are_a_minute_late(detectors: int) -> None:
    """Names that others made known within the minute are dearer: one incident more in a hundred may open, none less."""
    alone, found = same(office(2), detectors, lag_s=60)
    assert {domain for domain, *_ in alone} >= {"quiet-harbour-sync.net"}
    assert set(alone) <= set(found)
    assert len(found) <= len(alone) * 1.02


@pytest.mark.slow
def test_a_channel_of_many_clients_is_found_within_the_bound_though_messages_are_a_minute_late() -> None:
    """What five detectors do not know of each other yet makes names dearer: X holds, and a minute's bytes."""
    rows = sent([f"10.0.0.{number % 50}" for number in range(2000)], 10, 9)
    (alone,) = [one for one in incidents_of(rows) if one.client == NETWORK]
    late = incidents_of_several(rows, shipped_model(), 5, lag_s=60)
    (found,) = [one for one in late if one.client == NETWORK]
    a_minute = 60 / 10 * 9
    assert found.bytes_before_detection <= alone.bytes_before_detection + a_minute
    assert found.severity == alone.severity >= Severity.HIGH


def test_names_that_detectors_do_not_know_of_each_other_yet_are_dearer_never_cheaper() -> None:
    """Two clients of different slots ask for the same names within the minute, and then a minute later."""
    first, second = (next(one for one in ADDRESSED if detector_for(one, 2) == number) for number in (0, 1))
    rng = random.Random(4)
    names = [f"{data(rng, 9)}.cdn.example" for _ in range(8)]

    def leaked(later_s: float, alone: bool = False) -> float:
        several = Several(shipped_model(), Scale(), 2, lag_s=60)
        part = fresh_detector(shipped_model(), Scale()) if alone else several.parts[1]
        rows = [query(START + n, first, name) for n, name in enumerate(names)]
        rows += [query(START + later_s + n, second, name) for n, name in enumerate(names)]
        (part if alone else several).detect(batch_of(rows))
        row = part.flows.find(second, domain_hash("cdn.example", part.flows))
        assert row is not None
        return part.flows.view(row).leaked_bytes

    assert leaked(10, alone=True) == leaked(60, alone=True) == leaked(60) < leaked(10)


def test_what_is_a_services_own_is_counted_for_all_clients_once() -> None:
    """Each of thirty clients carries a little below one domain: no detector may explain it as if it were alone."""
    tables = known_tables()
    facts = [facts_of(b"{}")]
    one, other = (NetworkView(name, tables, lambda: facts[0]) for name in ("a", "b"))
    assert one.spend("domains", "evil.example", 300.0) == 300.0
    assert other.spend("domains", "evil.example", 100.0) == 100.0
    one.sending(1)
    other.sending(1)
    facts[0] = facts_of(b'{"spent": {"domains evil.example": 300.0}, "acked": {"a": 1}}')
    one.refresh()
    other.refresh()
    assert one.spend("domains", "evil.example", 0.0) == 300.0, "its own, once"
    assert other.spend("domains", "evil.example", 0.0) == 400.0, "what is under way counts, too"


def test_a_message_survives_its_bytes_and_counts_once() -> None:
    several = Several(shipped_model(), Scale(), 2)
    part = several.parts[0]
    client = next(one for one in ADDRESSED if detector_for(one, 2) == 0)
    part.detect(batch_of([query(START + n, client, name) for n, name in enumerate(["a.x.example", "b.x.example"])]))
    said = part.take_report(7)
    assert said is not None
    again = detector_report_of(said.packed())
    assert list(again.names) == list(said.names) and again.clients == said.clients and again.number == 7
    for _ in range(2):
        several.together.count_reports([again])
    network = several.together.flows.network
    row = network.find(NETWORK, domain_hash("x.example", network))
    assert row is not None and network.view(row).queries == 2
    assert several.together.acked(part._view.name) == 7


def test_clients_have_slots_for_good() -> None:
    """These numbers must never change: saved state is found by them."""
    assert [slot_of_client(one) for one in ("192.0.2.1", "10.0.0.7", "2001:db8::1", "2001:db8::2", "")] == SLOTS_SEEN
    assert {slot_of_client(f"10.7.{n >> 8}.{n & 255}") for n in range(2000)} == set(range(SLOTS))
    assert all(detector_for(one, 1) == 0 for one in ADDRESSED)


def _moves(client: str, of: tuple[int, int], to: tuple[int, int]) -> bool:
    """Whether a client was one detector's, and is another's now: number, of how many."""
    return detector_for(client, of[1]) == of[0] and detector_for(client, to[1]) == to[0]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2), (5, 1)])
def test_saved_windows_are_gone_on_from_by_any_number(before: int, after: int) -> None:
    """Ninety bytes of each of twelve clients; then all are saved, and others go on: 140 in ten minutes are too many."""
    rng = random.Random(9)
    rows = [query(START + n, ADDRESSED[n % 12], f"{data(rng, 18)}.own{n % 12}.example") for n in range(12 * 9)]
    half = 12 * 5
    first = Several(shipped_model(), Scale(), before)
    assert first.detect(batch_of(rows[:half])) == []
    saved = [part.save(nullcontext()) for part in first.parts]
    second = Several(shipped_model(), Scale(), after)
    for number, part in enumerate(second.parts):
        files = [
            (name, contents[name], partial(_moves, of=(of, before), to=(number, after)))
            for of, contents in enumerate(saved)
            for name in (WINDOWS_FILE, HABITS_FILE)
        ]
        part.load_files(files)
    assert sum(len(part.flows) for part in second.parts) == sum(len(part.flows) for part in first.parts) > 0
    second.detect(batch_of(rows[half:]))
    fresh = Several(shipped_model(), Scale(), after)
    fresh.detect(batch_of(rows[half:]))
    assert [len(part.open_incidents) for part in fresh.parts] == [0] * after
    assert sum(len(part.open_incidents) for part in second.parts) == 12


def test_windows_of_other_detectors_are_not_taken_over() -> None:
    tables = known_tables()
    made = [
        PartDetector(
            shipped_model(),
            KEYS_MAX,
            QUIET_S,
            Scale(),
            key=(n, 1),
            view=NetworkView("a", tables, lambda: facts_of(b"")),
        )
        for n in (1, 2)
    ]
    made[0].detect(batch_of([query(START, "192.0.2.1", "a.b.example")]))
    saved = made[0].save(nullcontext())[WINDOWS_FILE]
    with pytest.raises(FormatError, match="cannot restore windows: written by detectors that shared nothing"):
        made[1].load_files([(WINDOWS_FILE, saved, lambda client: True)])
    assert len(made[1].flows) == 0


@pytest.mark.slow
def test_a_candidate_beside_each_detector_finds_what_that_finds_and_reports_nothing() -> None:
    """With the same model: so what a canary of several detectors finds alone is the candidate's doing."""
    found: dict[str, set[tuple[str, str]]] = {"in use": set(), "candidate": set()}

    def see(number: int, verdicts: Verdicts) -> None:
        mine = beside[number].detect(verdicts.queries)
        assert mine.severity.tolist() == verdicts.severity.tolist()
        for side, one in (("in use", verdicts), ("candidate", mine)):
            found[side] |= {(each.client, each.domain) for each in one.incidents}

    several = Several(shipped_model(), Scale(), 2, lag_s=LAG_S, see=see)
    views = [NetworkView(part._view.name, part._view.tables, several._read) for part in several.parts]
    beside = [TrialPartDetector(shipped_model(), KEYS_MAX, QUIET_S, Scale(), view=view) for view in views]
    rows = families()
    for at in range(0, len(rows), BATCH):
        several.detect(batch_of(rows[at : at + BATCH]))
    assert found["candidate"] == found["in use"] != set()
    for one in beside:
        said = one.take_report(1)
        assert said is None or (len(said.sent), said.habits, said.mail, said.peaks) == (0, (), (), ())
