"""The hot flow: the same traffic gives the same verdicts, however it is cut; models change between batches."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import pytest

from agents.core.types import DAY_S, Incident, QueryBatch, Severity, Verdicts
from agents.detection.detector import TunnelDetector, empty_verdicts
from agents.detection.limits import Scale
from agents.learning.baseline import asked_batch, benign_names, benign_sample, golden_sessions
from agents.scoring.features import FEATURES, extract
from agents.scoring.model import Model
from agents.scoring.training import TrainConfig, train

START, QUIET_S = 1_700_000_000.0, 3600.0
CLIENT = "192.0.2.7"


def fresh(model: Model, keys_max: int = 1000, scale: Scale | None = None) -> TunnelDetector:
    scale = scale or Scale()
    return TunnelDetector(model, keys_max, QUIET_S, scale)


def cut(batch: QueryBatch, start: int, end: int) -> QueryBatch:
    return QueryBatch(*(getattr(batch, field.name)[start:end] for field in fields(QueryBatch)))


def traffic() -> QueryBatch:
    """A tunnel session among a day of benign names of ten clients."""
    session = golden_sessions()["iodine-txt-base32"]
    shift = START + 30_000 - float(session.ts[0])
    rows = [(START + i * 40.0, f"192.0.2.{i % 10}", i) for i in range(2000)]
    rows += [(float(ts) + shift, "192.0.2.3", 2000 + i) for i, ts in enumerate(session.ts)]
    names = list(benign_names()[:2000])
    benign = asked_batch([0.0] * 2000, [""] * 2000, names, [1] * 2000)
    wires = [*benign.qname, *session.qname]
    rows.sort()
    made = asked_batch([r[0] for r in rows], [r[1] for r in rows], ["."] * len(rows), [1] * len(rows))
    return replace(made, qname=[wires[r[2]] for r in rows])


def run(detector: TunnelDetector, batch: QueryBatch, size: int) -> tuple[list[Verdicts], dict[str, Incident]]:
    parts = [detector.detect(cut(batch, at, at + size)) for at in range(0, len(batch), size)]
    last = detector.flush()
    found = {one.incident_id: one for part in (*parts, *([last] if last else [])) for one in part.incidents}
    return parts, found


@pytest.mark.slow
def test_the_same_capture_in_other_batch_sizes_gives_the_same(model: Model) -> None:
    whole = traffic()
    (first,), incidents = run(fresh(model), whole, len(whole))
    assert [one.client for one in incidents.values()] == ["192.0.2.3"]
    for size in (1, 7, 1024):
        parts, found = run(fresh(model), whole, size)
        assert found == incidents
        assert np.array_equal(np.concatenate([part.score for part in parts]), first.score)
        assert np.array_equal(np.concatenate([part.severity for part in parts]), first.severity)
        assert [reason for part in parts for reason in part.reasons] == list(first.reasons)


def ask(names: Sequence[str], ts: float = START, gap_s: float = 1.0, client: str = CLIENT) -> QueryBatch:
    return asked_batch([ts + i * gap_s for i in range(len(names))], [client] * len(names), names, [1] * len(names))


HEX = [hashlib.sha256(b"%d" % number).hexdigest()[:14] for number in range(200)]


def test_a_verdict_has_all_its_columns(model: Model) -> None:
    batch = ask(["www.google.com", "x\\000.evil.com", "."])
    found = fresh(model).detect(batch)
    assert found.queries is batch
    assert list(found.domain) == ["google.com", "evil.com", "."]
    assert np.array_equal(found.features, extract(batch.qname))
    assert found.model_id == model.model_id
    assert found.score.dtype == np.float32
    assert [bool(reasons) for reasons in found.reasons] == [bool(level) for level in found.severity]
    assert found.incidents == ()


def test_one_odd_name_is_high_and_opens_no_incident(model: Model) -> None:
    detector = fresh(model)
    odd = "f0e1d2c3b4a5968778695a4b3c2d1e0ff0e1d2c3b4a5968778695a4b3c2d1e0.evil.com"
    for repeat in range(50):
        found = detector.detect(ask([odd], START + repeat))
        assert (found.severity[0] >= Severity.HIGH) == (repeat == 0), "once a day"
        assert found.severity[0] >= Severity.SUSPICIOUS
        assert found.incidents == ()
    assert detector.detect(ask([odd], START + DAY_S)).severity[0] >= Severity.HIGH
    assert detector.flush() is None


def test_what_is_not_to_be_explained_says_no_reason_but_for_incidents(model: Model) -> None:
    odd = [f"{hashlib.sha256(label.encode()).hexdigest()[:40]}.d{n}.com" for n, label in enumerate(HEX[:4])]
    batch = ask([*(f"{label}.evil.com" for label in HEX), *odd])
    whole, short = (fresh(model).detect(batch, explain=explain) for explain in (True, False))
    assert short.severity.tolist() == whole.severity.tolist() and short.severity[-1] > 0
    assert short.incidents == whole.incidents and [one.domain for one in short.incidents] == ["evil.com"]
    known = [domain == "evil.com" for domain in whole.domain]
    assert list(short.reasons) == [why if kept else () for why, kept in zip(whole.reasons, known, strict=True)]
    assert all(whole.reasons[-4:]) and any(short.reasons)


def test_many_unlike_names_below_one_domain_open_one_and_repeats_add_nothing(model: Model) -> None:
    detector = fresh(model)
    found = detector.detect(ask([f"{label}.evil.com" for label in HEX]))
    (opened,) = found.incidents
    assert (opened.client, opened.domain) == (CLIENT, "evil.com")
    assert opened.queries_before_detection < 40
    assert opened.bytes_before_detection < 250
    again = detector.detect(ask([f"{label}.evil.com" for label in HEX], START + 300))
    assert [one.leaked_bytes for one in again.incidents] == [opened.leaked_bytes]
    assert [one.queries for one in again.incidents] == [400]


def test_case_does_not_make_a_name_new(model: Model) -> None:
    detector = fresh(model)
    detector.detect(ask(["aBcDef12.evil.com", "AbCdEF12.EVIL.com", "abcdef12.evil.com"]))
    flow = detector.flows.view(0)
    assert len(detector.flows) == 1 + 1, "and the client's sum over domains"
    assert (flow.queries, flow.names) == (3, 1)


def test_the_same_names_asked_by_many_are_many_flows_and_no_tunnel(model: Model) -> None:
    detector = fresh(model)
    for number in range(40):
        found = detector.detect(ask([f"{HEX[0]}.cdn-example.com"], START + number, client=f"192.0.2.{number}"))
        assert found.incidents == ()
    assert len(detector.flows.rows(lambda flows: flows["scattered"] == 0)) == 40


def test_a_model_that_was_reloaded_scores_the_next_batch_and_no_evidence_is_lost(model: Model) -> None:
    other = train(benign_sample(300, 1), benign_sample(300, 2), TrainConfig(n_estimators=3), {})
    detector = fresh(model)
    names = [f"{label}.evil.com" for label in HEX[:10]]
    assert detector.detect(ask(names)).model_id == model.model_id
    detector.reload(other)
    assert detector.model is model, "not in the middle of anything"
    found = detector.detect(ask(names, START + 60))
    assert found.model_id == other.model_id
    assert np.array_equal(other.score(extract(found.queries.qname), found.queries.qname) <= found.score, [True] * 10)
    assert detector.flows.view(0).queries == 20


def test_quiet_is_noticed_by_a_tick_and_the_end_by_flush(model: Model) -> None:
    detector = fresh(model)
    (opened,) = detector.detect(ask([f"{label}.evil.com" for label in HEX])).incidents
    assert detector.tick(opened.last_seen + QUIET_S) is None
    closed = detector.tick(opened.last_seen + QUIET_S + 1)
    assert closed is not None
    assert len(closed) == 0
    assert [one.closed_at for one in closed.incidents] == [opened.last_seen]
    assert detector.flush() is None
    detector.detect(ask([f"{label}.other.com" for label in HEX]))
    last = detector.flush()
    assert last is not None
    assert last.incidents[0].domain == "other.com"
    assert last.features.shape == (0, len(FEATURES))


def test_a_query_of_somebody_else_closes_what_is_quiet(model: Model) -> None:
    detector = fresh(model)
    (opened,) = detector.detect(ask([f"{label}.evil.com" for label in HEX])).incidents
    later = detector.detect(ask(["www.example.com"], opened.last_seen + QUIET_S + 1, client="192.0.2.99"))
    assert [one.closed_at for one in later.incidents] == [opened.last_seen]


def test_at_the_cap_queries_are_still_scored_by_their_names(model: Model) -> None:
    detector = fresh(model, keys_max=1)
    detector.detect(ask(["www.example.com"]))
    found = detector.detect(
        ask([f"{label}{other}{other}.evil.com" for label, other in zip(HEX, HEX[100:130], strict=False)], START + 1)
    )
    assert (found.severity > Severity.NORMAL).all()
    assert [one.domain for one in found.incidents] == ["evil.com"]


def test_names_without_subdomain_or_domain_are_no_flow_or_one(model: Model) -> None:
    detector = fresh(model)
    detector.detect(ask([".", "com", "example.com"]))
    assert len(detector.flows) == 0
    found = detector.detect(ask([f"{label}.{label}" for label in HEX], START + 10))
    assert [one.domain for one in found.incidents] == ["."], "data sent straight to a server, without any domain"


def test_known_services_get_a_larger_budget_and_their_neighbours_none(model: Model) -> None:
    names = [f"{label}.avqs.mcafee.com" for label in HEX[:60]]
    assert fresh(model).detect(ask(names)).incidents == ()
    assert fresh(model).detect(ask([name.replace("mcafee", "evilmcafee") for name in names])).incidents != ()


def test_carriers_that_make_room_in_the_batch_that_told_of_them_are_no_crash(model: Model) -> None:
    coded = [base64.b32encode(hashlib.sha256(b"%d" % i).digest()).decode().lower()[:9] for i in range(60)]
    parts = [f"{label}.part{i // 3}.org" for i, label in enumerate(coded[:36])]
    detector = fresh(model, keys_max=13)
    early, late = ask(parts, gap_s=20.0), ask([f"www.shop{i}.com" for i in range(40)], START + 9000)
    rows = [*zip(early.ts.tolist(), early.qname, strict=True), *zip(late.ts.tolist(), late.qname, strict=True)]
    whole = asked_batch([ts for ts, _ in rows], [CLIENT] * len(rows), ["."] * len(rows), [1] * len(rows))
    found = detector.detect(replace(whole, qname=[wire for _, wire in rows]))
    told = [one for one in found.incidents if any("domains" in reason for reason in one.reasons)]
    assert told, "the sum over domains was found"
    assert detector.flows.rows(lambda flows: flows["first_seen"] > START + 8000), "and later ones took their room"
    assert len(detector.flows) <= 13


def test_an_empty_batch_is_nothing(model: Model) -> None:
    found = fresh(model).detect(empty_verdicts("", ()).queries)
    assert len(found) == 0
    assert found.incidents == ()


@pytest.mark.parametrize("session", sorted(golden_sessions()))
def test_every_golden_session_is_found_before_500_bytes(model: Model, session: str) -> None:
    _, incidents = run(fresh(model), golden_sessions()[session], 1024)
    assert incidents
    assert min(one.bytes_before_detection for one in incidents.values()) < 500
