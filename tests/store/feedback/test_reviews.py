"""The review queue and people's decisions, on SQLite and on a real Postgres."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from agents.core.errors import AgentsError, StoreError, UsageError
from agents.core.text import NETWORK
from agents.core.types import Severity
from agents.detection.detector import empty_verdicts
from agents.learning.loop.flow_hours import SCHEMA
from agents.store import Store
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import Label, LabelledSpan, LabelStore
from agents.store.feedback.reviews import ReviewItem, ReviewState, ReviewStore
from agents.store.feedback.tables import LabelOrigin
from tests.support.flow_hours import HOUR, flow_hours
from tests.support.incidents import incident
from tests.support.verdicts import START, verdicts

pytestmark = pytest.mark.contract
WEEK_S = 7 * 86_400.0
ALL = (HOUR * 3600.0, (HOUR + 100) * 3600.0)


def item(domain: str, informativeness: float = 0.5) -> ReviewItem:
    return ReviewItem(domain, informativeness, "0.50 times a limit, 1 client", 1, (f"a.{domain}",))


def domains(reviews: ReviewStore, state: ReviewState | None = None) -> list[str]:
    return [one.domain for one in reviews.items(state)]


def test_the_most_informative_comes_first_and_no_more_than_a_weeks_worth(store: Store) -> None:
    reviews = ReviewStore(store)
    assert reviews.fill([item("a.example", 0.3), item("b.example", 0.9), item("c.example", 0.6)], 10.0, 2, WEEK_S) == 2
    assert domains(reviews) == ["b.example", "c.example"]
    assert reviews.fill([item("d.example", 0.5)], 20.0, 2, WEEK_S) == 0
    assert reviews.fill([item("e.example", 0.7), item("f.example", 0.65)], 30.0, 2, WEEK_S) == 1
    assert domains(reviews) == ["b.example", "e.example"], "the least informative one that nobody looked at goes"
    assert reviews.fill([item("g.example", 0.1)], 40.0 + WEEK_S, 2, WEEK_S) == 1, "another week"
    assert domains(reviews)[-1] == "g.example"


def test_what_a_person_looks_at_stays(store: Store) -> None:
    reviews = ReviewStore(store)
    reviews.fill([item("a.example", 0.3)], 10.0, 1, WEEK_S)
    reviews.take("a.example", "ann")
    assert reviews.fill([item("b.example", 0.9)], 20.0, 1, WEEK_S) == 0
    (one,) = reviews.items(ReviewState.IN_WORK)
    assert (one.domain, one.taken_by, one.names) == ("a.example", "ann", ("a.a.example",))


def test_a_decision_labels_closes_and_can_be_undone(store: Store) -> None:
    reviews, hours, labels = ReviewStore(store), FlowHourStore(store), LabelStore(store)
    hours.add(flow_hours(["a.example", "b.example"]))
    reviews.fill([item("a.example")], 10.0, 5, WEEK_S)
    made = reviews.decide(["a.example", "b.example"], Label.BENIGN, " our  own\nbackup ", "ann", 20.0)
    assert [(one.domain, one.label, one.reason) for one in made] == [
        ("a.example", Label.BENIGN, "our own backup"), ("b.example", Label.BENIGN, "our own backup"),
    ]  # fmt: skip
    assert domains(reviews) == []
    assert labels.counts(SCHEMA, *ALL) == [("benign", "a person", 2)]
    hours.add(flow_hours(["a.example"], hour=HOUR + 1))
    assert labels.counts(SCHEMA, *ALL) == [("benign", "a person", 3)], "later hours, too"
    undone = reviews.undo("a.example", "a mistake", "bob", 30.0)
    assert (undone.undone_at, undone.undone_by, undone.undone_why) == (30.0, "bob", "a mistake")
    assert domains(reviews, ReviewState.NEW) == ["a.example"]
    assert labels.counts(SCHEMA, *ALL) == [("benign", "a person", 1)]
    assert len(reviews.decisions()) == 2, "nothing is deleted"
    with pytest.raises(UsageError, match=r"^cannot undo: nothing is decided about a.example$"):
        reviews.undo("a.example", "again", "bob", 40.0)


def test_a_persons_label_wins_over_any_other_and_what_was_found_comes_back_when_it_is_undone(store: Store) -> None:
    reviews, labels = ReviewStore(store), LabelStore(store)
    FlowHourStore(store).add(flow_hours(["a.example"]))
    reviews.decide(["a.example"], Label.BENIGN, "ours", "ann", 5.0)
    span = LabelledSpan(None, "a.example", HOUR, HOUR, Label.TUNNEL, LabelOrigin.TOOL, 1.0)
    labels.mark([span], SCHEMA, 6.0)
    assert labels.counts(SCHEMA, *ALL) == [("benign", "a person", 1)]
    reviews.undo("a.example", "not ours", "ann", 7.0)
    assert labels.counts(SCHEMA, *ALL) == [("tunnel", "tool fingerprint", 1)]


def test_who_decides_again_undoes_the_decision_before(store: Store) -> None:
    reviews = ReviewStore(store)
    reviews.decide(["a.example"], Label.BENIGN, "ours", "ann", 5.0)
    reviews.decide(["a.example"], Label.TUNNEL, "it was not", "bob", 6.0)
    new, old = reviews.decisions()
    assert (new.label, new.undone_at) == (Label.TUNNEL, None)
    assert (old.label, old.undone_by) == (Label.BENIGN, "bob")
    assert [one.label for one in reviews.decisions(standing=True)] == [Label.TUNNEL]


@pytest.mark.parametrize(
    ("chosen", "reason", "author"),
    [
        ([], "r", "a"),
        (["a.example"], " ", "a"),
        (["a.example"], "r", ""),
        (["a.example"], "r" * 501, "a"),
        ([""], "r", "a"),
    ],
)
def test_a_decision_without_domain_reason_or_author_is_none(
    store: Store, chosen: list[str], reason: str, author: str
) -> None:
    with pytest.raises(UsageError, match=r"^cannot "):
        ReviewStore(store).decide(chosen, Label.TUNNEL, reason, author, 1.0)
    assert ReviewStore(store).decisions() == []


def test_several_people_at_once_leave_one_standing_decision(store: Store) -> None:
    def say(number: int) -> str:
        try:
            ReviewStore(store).decide(["a.example"], Label.TUNNEL, f"reason {number}", "ann", float(number))
        except StoreError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(say, range(8)))
    assert len(ReviewStore(store).decisions(standing=True)) == 1
    assert len(ReviewStore(store).decisions()) == said.count("")


def test_hostile_text_is_kept_as_it_is(store: Store) -> None:
    reviews, name = ReviewStore(store), "'); DROP TABLE review_items; --<script>"
    reviews.fill([item(name)], 1.0, 5, WEEK_S)
    reviews.decide([name], Label.IGNORE, "%s :x <b>", "=cmd()", 2.0)
    (one,) = reviews.decisions()
    assert (one.domain, one.reason, one.author) == (name, "%s :x <b>", "=cmd()")


def test_labelled_flows_leave_the_sample_of_normal(store: Store) -> None:
    """Decided and waiting domains for all clients, tunnels that rules found for their client alone."""
    names = ["w.decided.example", "w.waiting.example", "w.tunnel.example", "w.plain.example"]
    store.write(verdicts(names, client="192.0.2.7"), "one")
    store.write(verdicts(names, client="192.0.2.8"), "two")
    reviews = ReviewStore(store)
    reviews.decide(["decided.example"], Label.BENIGN, "ours", "ann", 5.0)
    reviews.fill([item("waiting.example")], 5.0, 5, WEEK_S)
    FlowHourStore(store).add(flow_hours(["tunnel.example"], client="192.0.2.8"))
    span = LabelledSpan("192.0.2.8", "tunnel.example", HOUR, HOUR, Label.TUNNEL, LabelOrigin.TOOL, 1.0)
    LabelStore(store).mark([span], SCHEMA, 6.0)

    def sampled() -> list[tuple[str, str]]:
        found = store.sample_normal(
            since=START - 1, until=START + 100, limit=100, max_score=0.5, client_share=1.0, domain_share=1.0,
            features_version=1, seed=1,
        )  # fmt: skip
        return sorted(zip(found.client, found.domain, strict=True))

    assert sampled() == [
        ("192.0.2.7", "plain.example"), ("192.0.2.7", "tunnel.example"), ("192.0.2.8", "plain.example"),
    ]  # fmt: skip
    reviews.undo("decided.example", "no", "ann", 7.0)
    assert ("192.0.2.7", "decided.example") in sampled()


def test_nothing_within_a_day_of_an_incident_of_its_client_is_learnt(store: Store) -> None:
    day = 86_400.0
    times = [START, START + 2 * day, START + 3.5 * day, START + 6 * day]
    for at, ts in enumerate(times):
        store.write(verdicts([f"a{at}.plain.example"], client="192.0.2.7", ts=[ts]), f"a{at}")
        store.write(verdicts([f"b{at}.plain.example"], client="192.0.2.8", ts=[ts]), f"b{at}")

    def when(client: str) -> list[int]:
        found = store.sample_normal(
            since=START - 1, until=START + 7 * day, limit=100, max_score=0.5, client_share=1.0, domain_share=1.0,
            features_version=1, seed=1,
        )  # fmt: skip
        pairs = zip(found.client, found.qname, strict=True)
        return sorted(int(name[1]) for one, name in pairs if one == client)

    loud = {"first_seen": START, "detected_at": START + 3 * day, "last_seen": START + 3 * day + 600, "closed_at": None}
    listed = incident(client="192.0.2.8", severity=Severity.SUSPICIOUS, **loud)
    replayed = incident(client="192.0.2.8", severity=Severity.CRITICAL, source="x.pcap", imported_at=1.0, **loud)
    store.write(empty_verdicts("m", (listed,)), "listed")
    store.write(empty_verdicts("m", (replayed,)), "replayed")
    store.write(empty_verdicts("m", (incident(client="192.0.2.7", severity=Severity.HIGH, **loud),)), "loud")
    assert when("192.0.2.7") == [0, 3]
    assert when("192.0.2.8") == [0, 1, 2, 3], "what is listed, or replayed, says nothing against a client"


def test_below_what_the_network_sent_together_nothing_is_learnt(store: Store) -> None:
    store.write(verdicts(["a.many.example", "a.plain.example"], client="192.0.2.7"), "a")
    when = {"first_seen": START, "detected_at": START, "last_seen": START + 50, "closed_at": None}
    together = incident(client=NETWORK, domain="many.example", severity=Severity.HIGH, **when)
    store.write(empty_verdicts("m", (together,)), "n")
    found = store.sample_normal(
        since=START - 1, until=START + 100, limit=100, max_score=0.5, client_share=1.0, domain_share=1.0,
        features_version=1, seed=1,
    )  # fmt: skip
    assert list(found.domain) == ["plain.example"]


def test_a_take_of_what_does_not_wait_is_refused(store: Store) -> None:
    with pytest.raises(AgentsError, match=r"^cannot take a.example: it does not wait in the review queue$"):
        ReviewStore(store).take("a.example", "ann")


def test_domains_are_kept_as_flows_have_them(store: Store) -> None:
    (made,) = ReviewStore(store).decide([" Files.Example. "], Label.BENIGN, "r", "a", 1.0)
    assert made.domain == "files.example"
    with pytest.raises(UsageError, match=r"cannot use www\.files\.example: flows are below files\.example"):
        ReviewStore(store).decide(["www.files.example"], Label.BENIGN, "r", "a", 1.0)
    with pytest.raises(UsageError, match=r"it is no domain"):
        ReviewStore(store).decide(["a" * 300], Label.BENIGN, "r", "a", 1.0)
