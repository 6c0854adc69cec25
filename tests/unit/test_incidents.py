"""The life of an incident: opened, updated, closed, taken over after a restart."""

from __future__ import annotations

from agents import snapshot
from agents.incidents import Incidents, Standing
from agents.model import Model
from agents.policy import Evidence, Scale
from agents.shipped import batch_of, model_bytes
from agents.types import Incident, Severity
from agents.validation import fresh_detector
from tests.judged import Judged, ask, key_of

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
    after.restore(first.incidents)
    closed = after.tick(START + 2 * QUIET_S)
    assert closed is not None and [one.closed_at is not None for one in closed.incidents] == [True]
    assert after.flows.rows(lambda flows: flows["watched"] == 1) == []
    again = after.detect(
        batch_of([START + 2 * QUIET_S + 1] * 2, ["192.0.2.1"] * 2, [names[0], "www.evil.test"], [1] * 2)
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
        said = detector.detect(batch_of(ts[at : at + every], [CLIENT] * size, names[at : at + every], [1] * size))
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
    early = before.detect(batch_of([START + 10 * i for i in range(40)], [CLIENT] * 40, names[:40], [1] * 40))
    assert [one.domain for one in early.incidents] == ["*"]
    after = fresh_detector(model, Scale())
    snapshot.load(snapshot.dump(before.flows), after.flows)
    after.restore(early.incidents)
    (late,) = after.detect(batch_of([START + 500], [CLIENT], [names[40]], [1])).incidents
    assert (late.incident_id, late.unique_names) == (early.incidents[0].incident_id, 41)
    assert late.last_seen == START + 500


def test_scattered_names_that_close_unseen_after_a_stop_are_watched_no_longer() -> None:
    model = Model.from_bytes(model_bytes())
    names = [f"{i * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}.throwaway{i}.com" for i in range(1, 41)]
    before, after = fresh_detector(model, Scale()), fresh_detector(model, Scale())
    early = before.detect(batch_of([START + 10 * i for i in range(40)], [CLIENT] * 40, names, [1] * 40))
    snapshot.load(snapshot.dump(before.flows), after.flows)
    after.restore(early.incidents)
    assert after.flows.rows(lambda flows: flows["watched"] == 1) != []
    assert after.tick(START + 2 * QUIET_S) is not None
    assert after.flows.rows(lambda flows: flows["watched"] == 1) == []
