"""All rows of one client, on SQLite and on a real Postgres: read, and erased."""

from __future__ import annotations

import random

import pytest

from agents.core.text import NETWORK
from agents.core.types import batch_of
from agents.detection.detector import empty_verdicts
from agents.detection.limits import Scale
from agents.learning.loop.flow_hours import SCHEMA
from agents.store import Store
from agents.store.console import ConsoleStore
from agents.store.console.triage import Change
from agents.store.feedback.clients import ClientRecords
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import Label, LabelStore
from tests.support.detecting import fresh_detector, query, shipped_model
from tests.support.flow_hours import flow_hours
from tests.support.incidents import incident

pytestmark = pytest.mark.contract
MINE, OTHER, NOW = "192.0.2.7", "192.0.2.70", 1_767_571_200.0


@pytest.fixture
def filled(store: Store) -> Store:
    detector, draw = fresh_detector(shipped_model(), Scale()), random.Random(3)
    rows = [
        query(NOW + i, client, f"{draw.randbytes(20).hex()}.t{client[-1]}.example", 16)
        for i in range(60)
        for client in (MINE, OTHER)
    ]
    store.write(detector.detect(batch_of(rows)), "a")
    evidence = {"clients": {"count": 2, "loudest": [OTHER, MINE]}}
    store.write(empty_verdicts("m", (incident(client=NETWORK, domain="many.example", evidence=evidence),)), "b")
    hours = FlowHourStore(store)
    for client in (MINE, OTHER):
        hours.add(flow_hours(["a.example"], client=client))
    found = hours.read(SCHEMA)
    LabelStore(store).put([int(one) for one in found.id], [Label.TUNNEL] * 2, [0.99] * 2, NOW)
    return store


def test_all_rows_of_a_client_are_read(filled: Store) -> None:
    found = list(ClientRecords(filled).rows(MINE))
    kinds = [row["type"] for row in found]
    assert {kind: kinds.count(kind) for kind in kinds} == {"incident": 1, "flow-hour": 1, "query": 60}
    assert {row["client"] for row in found if row["type"] != "flow-hour"} == {MINE}
    assert not list(ClientRecords(filled).rows("192.0.2"))


def test_a_client_is_erased_and_nobody_else(filled: Store) -> None:
    records, console = ClientRecords(filled), ConsoleStore(filled)
    others = list(records.rows(OTHER))
    ids = [filled.incidents(client=one, limit=1)[0].incident_id for one in (MINE, OTHER)]
    console.triage.change(ids, Change(comment="who is it?"), "ann", "API")
    for name, client in (("mine", MINE), ("theirs", OTHER), ("both", f"{OTHER}+{MINE}")):
        console.views.save(name, f"/console/incidents?q={client}&state=new", "ann", "API")
    assert records.erase(MINE) == {"queries": 60, "flow-hours": 1, "incidents": 1, "sums": 0}
    assert not list(records.rows(MINE))
    assert list(records.rows(OTHER)) == others
    assert [len(console.triage.history(one)) for one in ids] == [0, 1]
    assert [one.name for one in console.views.all()] == ["theirs"]
    (together,) = filled.incidents(client=NETWORK, limit=9)
    assert together.evidence["clients"] == {"count": 2, "loudest": [OTHER]}
    assert [label for label, _, count in LabelStore(filled).counts(SCHEMA, 0, 1e10) for _ in range(count)] == ["tunnel"]
    assert records.erase(MINE) == {"queries": 0, "flow-hours": 0, "incidents": 0, "sums": 0}


@pytest.mark.parametrize("client", ["", "%", "a'; drop table queries; --", "\\x00", "192.0.2.7%"])
def test_an_odd_client_erases_nothing(filled: Store, client: str) -> None:
    ClientRecords(filled).erase(client)
    assert len(list(ClientRecords(filled).rows(MINE))) == 62
