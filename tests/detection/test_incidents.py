"""The life of an incident: opened, updated, closed, taken over after a restart."""

from __future__ import annotations

from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.cli.output import incident_text
from agents.core import types
from agents.core.types import Incident, Row, Severity
from agents.detection import snapshot
from agents.detection.incidents import Incidents, Standing, spans
from agents.detection.limits import Evidence, Scale
from agents.dns.name import to_text
from agents.learning.baseline import asked_batch, model_bytes
from agents.scoring.model import Model
from tests.support.detecting import fresh_detector, query, shipped_model
from tests.support.judged import Judged, ask, key_of

START, QUIET_S = 1_700_000_000.0, 3600.0
CLIENT, DOMAIN = "192.0.2.7", "evil.com"


class Watched:
    """Incidents over real flows; a query is observed with where its flow stands."""

    def __init__(self) -> None:
        self.judged = Judged()
        self.incidents = Incidents(QUIET_S, Scale(), self.judged.flows)

    def standing(self, names: int, ts: float, domain: str) -> Standing:
        """So many names of a second each, below a domain, all told."""
        known = self.judged.view(CLIENT, domain).names if self.judged.knows(CLIENT, domain) else 0
        asked = [ask(f"{i:04}", ts + i - known, domain=domain, client=CLIENT) for i in range(known, names)]
        self.judged.ask(*asked)
        row, flow = self.judged.flows.find(CLIENT, key_of(domain)), self.judged.view(CLIENT, domain)
        assert row is not None
        return Standing(row, flow.first_seen, flow.queries, flow.names, flow.encoded_names, flow.leaked_bytes)

    def see(
        self, ratio: float, ts: float = START + 10, names: int = 10, domain: str = DOMAIN, began: float = START
    ) -> tuple[Incident, ...]:
        standing = self.standing(names, began, domain)
        self.incidents.observe(ts, CLIENT, domain, standing, Evidence(ratio, 60, 100 * ratio, 100, 10))
        return self.incidents.changes()


def test_below_a_limit_there_is_none() -> None:
    assert Watched().see(0.99) == ()


def test_a_limit_reached_opens_one_with_its_evidence() -> None:
    (found,) = Watched().see(1.0)
    assert (found.client, found.domain, found.severity) == (CLIENT, DOMAIN, Severity.HIGH)
    assert (found.first_seen, found.last_seen, found.detected_at) == (START, START + 10, START + 10)
    assert (found.queries, found.unique_names, found.leaked_bytes) == (10, 10, 100)
    assert (found.queries_before_detection, found.bytes_before_detection) == (10, 100)
    assert found.closed_at is None
    assert "unique names below evil.com" in found.reasons[0]
    assert found.sample_names[0] == "0000.evil.com"


def test_more_of_it_updates_the_one_and_never_lowers_it() -> None:
    watched = Watched()
    incidents = watched.incidents
    (first,) = watched.see(2.0)
    (second,) = watched.see(9.0, START + 60, 50)
    assert second.incident_id == first.incident_id
    assert second.severity is Severity.CRITICAL
    assert second.reasons != first.reasons
    assert (second.queries, second.queries_before_detection) == (50, 10)
    (third,) = watched.see(0.1, START + 70, 51)
    assert (third.severity, third.score, third.reasons) == (second.severity, second.score, second.reasons)
    assert third.queries == 51
    assert len(incidents.open) == 1


def test_quiet_closes_it_at_its_last_query() -> None:
    watched = Watched()
    incidents = watched.incidents
    watched.see(2.0)
    incidents.close_quiet(START + 10 + QUIET_S)
    assert incidents.changes() == ()
    incidents.close_quiet(START + 11 + QUIET_S)
    (closed,) = incidents.changes()
    assert closed.closed_at == closed.last_seen == START + 10
    assert not incidents.open
    assert incidents.changes() == (), "told once"


def test_a_query_after_the_quiet_closes_the_old_and_opens_a_new_only_on_evidence() -> None:
    watched = Watched()
    (first,) = watched.see(2.0)
    late = START + 2 * QUIET_S
    (closed,) = watched.see(0.5, late)
    assert (closed.incident_id, closed.closed_at) == (first.incident_id, START + 10)
    (again,) = watched.see(1.5, late + 5, names=20)
    assert again.incident_id != first.incident_id
    assert again.closed_at is None


def test_an_old_one_closed_and_a_new_one_opened_by_one_query_are_told_in_that_order() -> None:
    watched = Watched()
    (first,) = watched.see(2.0)
    closed, opened = watched.see(2.0, START + 2 * QUIET_S, names=20)
    assert (closed.incident_id, closed.closed_at) == (first.incident_id, START + 10)
    assert opened.closed_at is None


def test_one_incident_a_client_and_domain() -> None:
    watched = Watched()
    incidents = watched.incidents
    for number in range(3):
        watched.see(2.0, START + number)
        watched.see(2.0, START + number, domain="other.com")
    assert set(incidents.open) == {(CLIENT, DOMAIN), (CLIENT, "other.com")}


def test_what_was_open_at_a_stop_goes_on_after_it() -> None:
    (stored,) = Watched().see(2.0, names=40)
    watched = Watched()
    after = watched.incidents
    after.restore([stored])
    assert after.changes() == (), "restored is not changed"
    (updated,) = watched.see(0.2, START + 100, 3, began=START + 90)
    assert updated.incident_id == stored.incident_id
    assert updated.queries == 40, "a fresh flow knows less and takes nothing away"
    assert updated.last_seen == START + 100
    after.close_all()
    (closed,) = after.changes()
    assert closed.closed_at == START + 100


def test_the_end_of_input_closes_all() -> None:
    watched = Watched()
    incidents = watched.incidents
    watched.see(2.0)
    watched.see(2.0, domain="other.com")
    incidents.close_all()
    assert [one.closed_at for one in incidents.changes()] == [START + 10] * 2


def test_ids_are_the_same_in_every_run() -> None:
    assert Watched().see(2.0)[0].incident_id == Watched().see(7.0)[0].incident_id


def test_a_closed_incident_is_not_opened_again_by_what_it_was_about() -> None:
    model = Model.from_bytes(model_bytes())
    detector = fresh_detector(model, Scale())
    names = [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}.evil.test" for number in range(30)]
    start, day = 1_700_000_000.0, 86_400.0
    first = detector.detect(asked_batch([start + i for i in range(30)], ["192.0.2.1"] * 30, names, [1] * 30))
    assert len(first.incidents) == 1
    again = detector.detect(asked_batch([start + 8_000], ["192.0.2.1"], [names[0]], [1]))
    assert [one.closed_at is not None for one in again.incidents] == [True], "closed, and not opened anew"
    more = [f"{number * 0xC2B2AE3D27D4EB4F % 2**64:016x}.evil.test" for number in range(20)]
    later = detector.detect(asked_batch([start + 9_000 + i for i in range(20)], ["192.0.2.1"] * 20, more, [1] * 20))
    assert [one.closed_at for one in later.incidents] == [None], "new data leaves: a new incident"
    assert start + 9_000 <= later.incidents[0].detected_at < start + day


def test_a_restored_incident_that_closed_unseen_is_not_opened_again_by_a_repeat() -> None:
    model = Model.from_bytes(model_bytes())
    names = [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}.evil.test" for number in range(60)]
    before = fresh_detector(model, Scale())
    first = before.detect(asked_batch([START + i for i in range(60)], ["192.0.2.1"] * 60, names, [1] * 60))
    after = fresh_detector(model, Scale())
    snapshot.load_flows(snapshot.dump_flows(before.flows), after.flows)
    after.restore(first.incidents)
    closed = after.tick(START + 2 * QUIET_S)
    assert closed is not None and [one.closed_at is not None for one in closed.incidents] == [True]
    assert after.flows.rows(lambda flows: flows["watched"] == 1) == []
    again = after.detect(
        asked_batch([START + 2 * QUIET_S + 1] * 2, ["192.0.2.1"] * 2, [names[0], "www.evil.test"], [1] * 2)
    )
    assert again.incidents == ()
    assert list(again.severity) == [0, 0], "a query that brings nothing is no part of what is over"


def days_of(every: int) -> list[tuple[float, float | None]]:
    """When the incidents of a channel of bursts, two hours apart, were found and closed; so many queries a batch."""
    detector = fresh_detector(Model.from_bytes(model_bytes()), Scale())
    ts = [START + 7200 * burst + i for burst, size in enumerate((20, 3, 3, 20, 2)) for i in range(size)]
    names = [f"{(i + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}.evil.test" for i in range(len(ts))]
    found: dict[str, Incident] = {}
    for at in range(0, len(ts), every):
        size = len(ts[at : at + every])
        said = detector.detect(asked_batch(ts[at : at + every], [CLIENT] * size, names[at : at + every], [1] * size))
        found |= {one.incident_id: one for one in said.incidents}
    return [(one.detected_at, one.closed_at) for one in found.values()]


def test_after_one_was_closed_another_needs_as_much_again_however_queries_come_in_batches() -> None:
    first, second = days_of(1)
    assert START < first[0] < START + 20
    assert first[1] == START + 19
    assert START + 3 * 7200 < second[0] < START + 3 * 7200 + 19
    assert second[1] == START + 3 * 7200 + 19
    for every in (2, 7, 1000):
        assert days_of(every) == [first, second]


def test_scattered_names_that_were_open_at_a_stop_go_on_after_it() -> None:
    model = Model.from_bytes(model_bytes())
    names = [f"{i * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}.throwaway{i}.com" for i in range(1, 42)]
    before = fresh_detector(model, Scale())
    early = before.detect(asked_batch([START + 10 * i for i in range(40)], [CLIENT] * 40, names[:40], [1] * 40))
    assert [one.domain for one in early.incidents] == ["*"]
    after = fresh_detector(model, Scale())
    snapshot.load_flows(snapshot.dump_flows(before.flows), after.flows)
    after.restore(early.incidents)
    (late,) = after.detect(asked_batch([START + 500], [CLIENT], [names[40]], [1])).incidents
    assert (late.incident_id, late.unique_names) == (early.incidents[0].incident_id, 41)
    assert late.last_seen == START + 500


def test_scattered_names_that_close_unseen_after_a_stop_are_watched_no_longer() -> None:
    model = Model.from_bytes(model_bytes())
    names = [f"{i * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}.throwaway{i}.com" for i in range(1, 41)]
    before, after = fresh_detector(model, Scale()), fresh_detector(model, Scale())
    early = before.detect(asked_batch([START + 10 * i for i in range(40)], [CLIENT] * 40, names, [1] * 40))
    snapshot.load_flows(snapshot.dump_flows(before.flows), after.flows)
    after.restore(early.incidents)
    assert after.flows.rows(lambda flows: flows["watched"] == 1) != []
    assert after.tick(START + 2 * QUIET_S) is not None
    assert after.flows.rows(lambda flows: flows["watched"] == 1) == []


@given(st.lists(st.floats(0, 1e4), max_size=30), st.floats(0, 5e3))
def test_a_batch_is_cut_where_it_lasts_too_long_and_nowhere_else(times: list[float], span_s: float) -> None:
    whole = asked_batch(
        times, [f"192.0.2.{at}" for at in range(len(times))], ["example.com"] * len(times), [1] * len(times)
    )
    parts = list(spans(whole, span_s))
    assert [ts for part in parts for ts in part.ts.tolist()] == times
    assert [client for part in parts for client in part.client] == list(whole.client)
    assert all(0 <= np.ptp(part.ts) <= span_s for part in parts)
    for part, after in pairwise(parts):
        assert np.ptp([*part.ts, after.ts[0]]) > span_s


PAUSE_S = QUIET_S + 900.0


def tunnel(start: float, count: int, prefix: str, qtype: int = 1, domain: str = DOMAIN) -> list[Row]:
    """Encoded names of one flow, two seconds apart, none of them asked for before."""
    names = [f"{sha256(f'{prefix}{i}'.encode()).hexdigest()[:40]}.{domain}" for i in range(count)]
    return [query(start + 2 * i, CLIENT, name, qtype) for i, name in enumerate(names)]


def states(rows: list[Row], size: int, saved: float = np.inf) -> list[Incident]:
    """The last state of each incident, in order; at time `saved` the detector is another one, with the old windows."""
    detector, found = fresh_detector(shipped_model(), Scale(), quiet_s=QUIET_S), dict[str, Incident]()
    for at in range(0, len(rows), size):
        if rows[at][0] >= saved:
            data, saved = snapshot.dump_flows(detector.flows), np.inf
            is_open = list(detector.incidents.open.values())
            detector = fresh_detector(shipped_model(), Scale(), quiet_s=QUIET_S)
            snapshot.load_flows(data, detector.flows)
            detector.restore(is_open)
            detector.tick(rows[at][0])  # by the clock, before anything is asked
        found |= {one.incident_id: one for one in detector.detect(types.batch_of(rows[at : at + size])).incidents}
        detector.tick(rows[min(at + size, len(rows)) - 1][0])
    last = detector.flush()
    found |= {one.incident_id: one for one in (last.incidents if last else ())}
    return sorted(found.values(), key=lambda one: one.detected_at)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7, 5000])
@pytest.mark.parametrize("background", [0.0, 30.0])
def test_another_incident_of_a_flow_tells_of_itself_alone(size: int, background: float) -> None:
    second, third = START + 400 + PAUSE_S, START + 600 + 2 * PAUSE_S
    rows = [*tunnel(START, 200, "a"), *tunnel(second, 60, "b", 16), *tunnel(third, 30, "c")]
    times = np.arange(START, third, background or np.inf).tolist() if background else []
    rows = sorted([*rows, *(query(ts, "192.0.2.8", "www.example.com") for ts in times)])
    first, again, last = states(rows, size)
    assert (first.queries, first.first_seen, "before" in first.evidence) == (200, START, False)
    assert (again.queries, again.unique_names, again.first_seen) == (60, 60, second)
    assert again.queries_before_detection < 60
    assert again.bytes_before_detection < again.leaked_bytes < first.leaked_bytes / 2
    assert again.evidence["qtypes"] == {"TXT": 60}
    assert again.evidence["queries_per_minute"] == pytest.approx(60 / 118 * 60, abs=0.01)
    assert sum(row["queries"] for row in again.evidence["timeline"]) == 60
    assert sum(row["bytes"] for row in again.evidence["timeline"]) == pytest.approx(again.leaked_bytes, abs=1)
    assert again.evidence["timeline"][0]["at"] == second
    own = {to_text(row[2]) for row in rows if row[0] >= second}
    assert len(again.sample_names) == 8 and own.issuperset(again.sample_names)
    assert again.evidence["before"] == {"first_seen": START, "incidents": 1}
    assert "  seen before: 1 incident since 2023-11-14 22:13:20 UTC\n" in incident_text(again)
    assert (last.queries, last.first_seen) == (30, third)
    assert last.evidence["before"] == {"first_seen": START, "incidents": 2}


@pytest.mark.slow
def test_the_first_query_after_an_incident_is_when_the_next_began_though_it_is_found_later() -> None:
    begun = START + 400 + PAUSE_S
    rows = [*tunnel(START, 200, "a"), query(begun, CLIENT, f"www.{DOMAIN}"), *tunnel(begun + 1000, 60, "b")]
    _, again = states(rows, 1)
    assert again.first_seen == begun
    assert again.queries == 61
    assert states(rows, 5000)[1] == again


@pytest.mark.parametrize("saved", [100.0, 400 + PAUSE_S, 430 + PAUSE_S], ids=["first", "between", "second"])
@pytest.mark.slow
def test_a_restart_changes_nothing_of_what_the_next_incident_tells(saved: float) -> None:
    rows = [*tunnel(START, 200, "a"), *tunnel(START + 400 + PAUSE_S, 60, "b", 16)]
    fields = "first_seen queries unique_names leaked_bytes queries_before_detection bytes_before_detection".split()
    whole, split = (
        [{name: round(getattr(one, name)) for name in fields} | {"before": one.evidence.get("before")} for one in found]
        for found in (states(rows, 1), states(rows, 1, START + saved))
    )
    assert split == whole


@pytest.mark.slow
def test_names_over_many_domains_tell_of_one_incident_at_a_time() -> None:
    rows = [
        query(start + 2 * i, CLIENT, f"{sha256(f'{start}{i}'.encode()).hexdigest()[:40]}.x{i}{start:.0f}.com")
        for start in (START, START + 1200 + PAUSE_S)
        for i in range(400)
    ]
    found = [one for one in states(rows, 50) if one.domain == "*"]
    assert len(found) == 2
    assert found[1].queries <= 400 and found[1].unique_names <= 400
    assert found[0].last_seen < found[1].first_seen <= found[1].detected_at
    assert found[1].evidence["before"]["incidents"] == 1


def test_a_burst_of_a_second_is_told_as_what_it_was_in_a_minute() -> None:
    burst = [(START + i / 40, *row[1:]) for i, row in enumerate(tunnel(START, 40, "a"))]
    (found,) = states(burst, 5000)
    assert found.evidence["queries_per_minute"] == 40
