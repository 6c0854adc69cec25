"""The life of an incident: opened, updated, closed, taken over after a restart."""

from __future__ import annotations

from agents import snapshot
from agents.incidents import Incidents
from agents.model import Model
from agents.policy import Evidence, Scale
from agents.seen import key_of
from agents.shipped import batch_of, model_bytes
from agents.types import Incident, Severity
from agents.validation import fresh_detector
from agents.windows import Flow, Part

START, QUIET_S = 1_700_000_000.0, 3600.0
CLIENT, DOMAIN = "192.0.2.7", "evil.com"


def flow_of(names: int, ts: float = START) -> Flow:
    flow = Flow(ts)
    for number in range(names):
        label = b"\x04%04d" % number
        flow.add(ts + number, (label, 1, -1), key_of(label), (Part(key_of(b"." + label), 80.0, True),), 1.0)
    return flow


def seen(
    incidents: Incidents, ratio: float, ts: float = START + 10, flow: Flow | None = None, domain: str = DOMAIN
) -> tuple[Incident, ...]:
    incidents.observe(ts, CLIENT, domain, flow or flow_of(10), Evidence(ratio, 60, 100 * ratio, 100, 10), {})
    return incidents.changes()


def make() -> Incidents:
    return Incidents(QUIET_S, Scale())


def test_below_a_limit_there_is_none() -> None:
    assert seen(make(), 0.99) == ()


def test_a_limit_reached_opens_one_with_its_evidence() -> None:
    (found,) = seen(make(), 1.0)
    assert (found.client, found.domain, found.severity) == (CLIENT, DOMAIN, Severity.HIGH)
    assert (found.first_seen, found.last_seen, found.detected_at) == (START, START + 10, START + 10)
    assert (found.queries, found.unique_names, found.leaked_bytes) == (10, 10, 100)
    assert (found.queries_before_detection, found.bytes_before_detection) == (10, 100)
    assert found.closed_at is None
    assert "unique names below evil.com" in found.reasons[0]
    assert found.sample_names[0] == "0000"


def test_more_of_it_updates_the_one_and_never_lowers_it() -> None:
    incidents = make()
    (first,) = seen(incidents, 2.0)
    (second,) = seen(incidents, 9.0, START + 60, flow_of(50))
    assert second.incident_id == first.incident_id
    assert second.severity is Severity.CRITICAL
    assert second.reasons != first.reasons
    assert (second.queries, second.queries_before_detection) == (50, 10)
    (third,) = seen(incidents, 0.1, START + 70, flow_of(51))
    assert (third.severity, third.score, third.reasons) == (second.severity, second.score, second.reasons)
    assert third.queries == 51
    assert len(incidents.open) == 1


def test_quiet_closes_it_at_its_last_query() -> None:
    incidents = make()
    seen(incidents, 2.0)
    incidents.close_quiet(START + 10 + QUIET_S)
    assert incidents.changes() == ()
    incidents.close_quiet(START + 11 + QUIET_S)
    (closed,) = incidents.changes()
    assert closed.closed_at == closed.last_seen == START + 10
    assert not incidents.open
    assert incidents.changes() == (), "told once"


def test_a_query_after_the_quiet_closes_the_old_and_opens_a_new_only_on_evidence() -> None:
    incidents = make()
    (first,) = seen(incidents, 2.0)
    late = START + 2 * QUIET_S
    (closed,) = seen(incidents, 0.5, late)
    assert (closed.incident_id, closed.closed_at) == (first.incident_id, START + 10)
    (again,) = seen(incidents, 1.5, late + 5)
    assert again.incident_id != first.incident_id
    assert again.closed_at is None


def test_an_old_one_closed_and_a_new_one_opened_by_one_query_are_told_in_that_order() -> None:
    incidents = make()
    (first,) = seen(incidents, 2.0)
    closed, opened = seen(incidents, 2.0, START + 2 * QUIET_S)
    assert (closed.incident_id, closed.closed_at) == (first.incident_id, START + 10)
    assert opened.closed_at is None


def test_one_incident_a_client_and_domain() -> None:
    incidents = make()
    for number in range(3):
        seen(incidents, 2.0, START + number)
        seen(incidents, 2.0, START + number, domain="other.com")
    assert set(incidents.open) == {(CLIENT, DOMAIN), (CLIENT, "other.com")}


def test_what_was_open_at_a_stop_goes_on_after_it() -> None:
    before = make()
    (stored,) = seen(before, 2.0, flow=flow_of(40))
    after = make()
    after.restore([stored])
    assert after.changes() == (), "restored is not changed"
    (updated,) = seen(after, 0.2, START + 100, flow_of(3, START + 90))
    assert updated.incident_id == stored.incident_id
    assert updated.queries == 40, "a fresh flow knows less and takes nothing away"
    assert updated.last_seen == START + 100
    after.close_all()
    (closed,) = after.changes()
    assert closed.closed_at == START + 100


def test_the_end_of_input_closes_all() -> None:
    incidents = make()
    seen(incidents, 2.0)
    seen(incidents, 2.0, domain="other.com")
    incidents.close_all()
    assert [one.closed_at for one in incidents.changes()] == [START + 10] * 2


def test_ids_are_the_same_in_every_run() -> None:
    assert seen(make(), 2.0)[0].incident_id == seen(make(), 7.0)[0].incident_id


def test_a_closed_incident_is_not_opened_again_by_what_it_was_about() -> None:
    model = Model.from_bytes(model_bytes())
    detector = fresh_detector(model, Scale())
    names = [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}.evil.test" for number in range(30)]
    start, day = 1_700_000_000.0, 86_400.0
    first = detector.detect(batch_of([start + i for i in range(30)], ["192.0.2.1"] * 30, names, [1] * 30))
    assert len(first.incidents) == 1
    again = detector.detect(batch_of([start + 8_000], ["192.0.2.1"], [names[0]], [1]))
    assert [one.closed_at is not None for one in again.incidents] == [True], "closed, and not opened anew"
    more = [f"{number * 0xC2B2AE3D27D4EB4F % 2**64:016x}.evil.test" for number in range(20)]
    later = detector.detect(batch_of([start + 9_000 + i for i in range(20)], ["192.0.2.1"] * 20, more, [1] * 20))
    assert [one.closed_at for one in later.incidents] == [None], "new data leaves: a new incident"
    assert start + 9_000 <= later.incidents[0].detected_at < start + day


def test_a_restored_incident_that_closed_unseen_is_not_opened_again_by_a_repeat() -> None:
    model = Model.from_bytes(model_bytes())
    names = [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}.evil.test" for number in range(60)]
    before = fresh_detector(model, Scale())
    first = before.detect(batch_of([START + i for i in range(60)], ["192.0.2.1"] * 60, names, [1] * 60))
    after = fresh_detector(model, Scale())
    snapshot.load(snapshot.dump(before.flows), after.flows)
    after.incidents.restore(first.incidents)
    closed = after.tick(START + 2 * QUIET_S)
    assert closed is not None and [one.closed_at is not None for one in closed.incidents] == [True]
    again = after.detect(
        batch_of([START + 2 * QUIET_S + 1] * 2, ["192.0.2.1"] * 2, [names[0], "www.evil.test"], [1] * 2)
    )
    assert again.incidents == ()
    assert list(again.severity) == [0, 0], "a query that brings nothing is no part of what is over"
