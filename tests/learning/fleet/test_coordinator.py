"""The coordinator before hostile sites: signatures, replays, sizes, numbers that are none, names smuggled in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import UsageError
from agents.core.protocols import FleetAnswer
from agents.learning.fleet.coordinator import Coordinator
from agents.learning.fleet.exchange import (
    AGE_MAX_S,
    BINS,
    SIGNATURE_HEADER,
    SITE_HEADER,
    TIME_HEADER,
    WEIGHTS,
    answer_signature,
    contribution_of,
    signature_of,
)
from agents.learning.fleet.forests import sent_trees
from agents.learning.fleet.options import SPEC
from agents.learning.loop.flow_hours import SCHEMA as FLOW_SCHEMA
from agents.learning.loop.flow_model import empty_flow_model
from agents.learning.loop.golden import golden_flow_hours
from agents.scoring.features import SCHEMA as NAME_SCHEMA
from tests.support.detecting import shipped_model

NOW = 1_795_000_000.0
PATH = "/fleet/round"


@dataclass
class Fleet:
    """A coordinator of three sites on a clock of its own."""

    folder: Path
    now: float = NOW
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        options = SPEC.factory(SPEC.values({"fleet_round_hours": 1.0}))
        self.desk = Coordinator(
            self.folder / "fleet", options, lambda: empty_flow_model(golden_flow_hours()[0]), lambda: self.now
        )
        self.keys = {site: self.desk.add(site) for site in ("one", "two", "three")}

    def ask(
        self, site: str, method: str = "GET", body: bytes = b"", at: float | None = None, key: str = ""
    ) -> FleetAnswer:
        text = str(int(self.now if at is None else at))
        signature = signature_of(key or self.keys[site], method, PATH, text, body)
        return self.desk.answer(method, PATH, {SITE_HEADER: site, TIME_HEADER: text, SIGNATURE_HEADER: signature}, body)

    def state(self, site: str = "one") -> dict[str, Any]:
        found = self.ask(site)
        assert found.status == 200, found.body
        state: dict[str, Any] = json.loads(found.body)
        return state

    def send(self, site: str, **changed: Any) -> FleetAnswer:
        return self.ask(site, "POST", json.dumps(contribution() | changed).encode())


def contribution() -> dict[str, Any]:
    return {
        "format": 1, "round": 1, "flow_schema": FLOW_SCHEMA, "name_schema": NAME_SCHEMA, "delta": [0.01] * WEIGHTS,
        "counts": [3] * BINS, "domains": ["0123456789abcdef"], "habits": [], "forest": None,
    }  # fmt: skip


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_a_round_ends_when_every_site_has_sent(fleet: Fleet) -> None:
    first = fleet.state()
    assert (first["round"], first["joined"], first["sent"]) == (1, 0, False)
    assert [fleet.send(site).status for site in ("one", "two")] == [200, 200]
    assert fleet.state()["sent"] is True
    assert fleet.send("three").status == 200
    after = fleet.state()
    assert (after["round"], after["joined"], after["sent"]) == (2, 3, False)
    assert after["weights"] == pytest.approx([one + 0.01 for one in first["weights"]])
    assert after["domains"] == ["0123456789abcdef"]
    assert sum(after["shares"]) == pytest.approx(1)


def test_a_site_that_is_cut_off_is_waited_for_until_the_deadline_and_no_longer(fleet: Fleet) -> None:
    fleet.keys["four"] = fleet.desk.add("four")
    for site in ("one", "two", "three"):
        assert fleet.send(site).status == 200
    assert fleet.state()["round"] == 1
    fleet.now += 3601
    assert fleet.state() | {"round": 2, "joined": 3} == fleet.state()
    late = fleet.send("four")
    assert (late.status, b"round 2 is open" in late.body) == (409, True)
    assert fleet.send("four", round=2).status == 200


def test_with_too_few_sites_a_round_waits_on(fleet: Fleet) -> None:
    assert [fleet.send(site).status for site in ("one", "two")] == [200, 200]
    fleet.now += 1e6
    assert fleet.state()["round"] == 1
    assert fleet.send("three").status == 200
    assert fleet.state()["round"] == 2


def test_strangers_old_requests_and_other_sites_keys_are_refused(fleet: Fleet) -> None:
    assert fleet.ask("one", key=fleet.keys["two"]).status == 401
    assert fleet.ask("nobody", key="k").status == 401
    assert [fleet.ask("one", at=NOW + s).status for s in (-AGE_MAX_S - 1, AGE_MAX_S + 2, -AGE_MAX_S + 1)] == [
        401,
        401,
        200,
    ]
    body = json.dumps(contribution()).encode()
    text, key = str(int(NOW)), fleet.keys["one"]
    signed = {SITE_HEADER: "one", TIME_HEADER: text, SIGNATURE_HEADER: signature_of(key, "POST", PATH, text, body)}
    assert fleet.desk.answer("POST", PATH, signed, body.replace(b"0.01", b"0.02")).status == 401
    assert fleet.desk.answer("GET", PATH, signed, body).status == 401
    assert fleet.desk.answer("POST", "/fleet/other", signed, body).status == 401
    for damage in ("", "é", "\udc80", "0" * 64):
        assert fleet.desk.answer("POST", PATH, signed | {SIGNATURE_HEADER: damage}, body).status == 401
    assert fleet.state("two")["sent"] is False
    with pytest.raises(UsageError, match="takes part already"):
        fleet.desk.add("one")
    fleet.desk.remove("one")
    assert fleet.ask("one").status == 401


def test_a_replayed_round_changes_nothing(fleet: Fleet) -> None:
    assert fleet.send("one").status == 200
    assert fleet.send("one").status == 200, "the same again: the answer had been lost"
    second = fleet.send("one", delta=[0.5] * WEIGHTS)
    assert (second.status, b"two contributions" in second.body) == (409, True)
    for site in ("two", "three"):
        fleet.send(site)
    replayed = fleet.send("one")
    assert (replayed.status, fleet.state()["sent"]) == (409, False)


def test_an_answer_belongs_to_its_request(fleet: Fleet) -> None:
    text = str(int(NOW))
    signature = signature_of(fleet.keys["one"], "GET", PATH, text, b"")
    found = fleet.ask("one")
    assert found.headers[SIGNATURE_HEADER] == answer_signature(fleet.keys["one"], signature, found.body)
    assert found.headers != fleet.ask("two").headers


def forest(**changed: Any) -> dict[str, Any]:
    part = sent_trees(shipped_model())
    assert part is not None
    return part.model_dump() | changed


@pytest.mark.parametrize(
    "change",
    [
        {"delta": [float("nan")] * WEIGHTS},
        {"delta": [1e300] * WEIGHTS},
        {"delta": [0.0] * (WEIGHTS + 1)},
        {"delta": ["evil.example"] * WEIGHTS},
        {"counts": [-1] * BINS},
        {"counts": [10**9] * BINS},
        {"counts": [1.5] * BINS},
        {"domains": ["secret.evil.example"]},
        {"domains": ["0123456789abcdeF"]},
        {"domains": ["0123456789abcdef"] * 20_001},
        {"habits": [{"hash": "0" * 16, "kind": "evil.example", "usual": 1, "clients": "0" * 1024}]},
        {"habits": [{"hash": "0" * 16, "kind": "", "usual": 1, "clients": "evil.example"}]},
        {"habits": [{"hash": "0" * 16, "kind": "", "usual": 1, "clients": "0" * 1024}] * 501},
        {"where": "evil.example"},
        {"name_schema": "evil.example"},
        {"name_schema": "0" * 16},
        {"round": "1"},
        {"format": 2},
        {"forest": {"trees": 1}},
        {"forest": forest(trees=63)},
        {"forest": forest(path="AAAA")},
        {"forest": forest(path="evil.example!")},
        {"forest": forest(names="evil.example")},
    ],
)
def test_what_is_no_contribution_is_refused_whole_and_nothing_of_it_is_said(
    fleet: Fleet, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = fleet.send("one", **change)
    assert found.status == 422
    assert fleet.state()["sent"] is False
    assert not any("evil" in text for text in (found.body.decode(), capsys.readouterr().out))


def test_trees_that_no_training_makes_are_refused(fleet: Fleet) -> None:
    import base64

    import numpy as np

    def coded(value: float, width: int, kind: str) -> str:
        return base64.b64encode(np.full((64, width), value, kind).tobytes()).decode()

    for changed in (
        {"path": coded(1e9, 256, "<f4")},
        {"path": coded(-1, 256, "<f4")},
        {"path": coded(np.nan, 256, "<f4")},
        {"threshold": coded(np.nan, 255, "<f4")},
        {"feature": coded(200, 255, "<u1")},
    ):
        assert fleet.send("one", forest=forest(**changed)).status == 422
    assert fleet.send("one", forest=forest()).status == 200


@pytest.mark.slow
@given(
    st.binary(max_size=400)
    | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(json.dumps).map(str.encode)
)
def test_nothing_comes_of_hostile_bytes(data: bytes) -> None:
    with pytest.raises(UsageError, match="cannot take the contribution"):
        contribution_of(data)


def test_without_sites_it_coordinates_nothing(tmp_path: Path) -> None:
    desk = Coordinator(tmp_path, SPEC.factory(SPEC.values({})), lambda: pytest.fail("nothing begins"))
    assert desk.answer("GET", PATH, {}, b"").status == 404
    with pytest.raises(UsageError):
        desk.add("../etc")
    with pytest.raises(UsageError, match="no site is called so"):
        desk.remove("../etc")


def test_keys_and_contributions_are_private(fleet: Fleet) -> None:
    fleet.send("one")
    files = list(fleet.folder.rglob("*.json"))
    assert {path.name for path in files} == {"sites.json", "round.json", "seen.json", "one.json"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)


def test_a_round_that_was_ended_twice_is_joined_once(fleet: Fleet) -> None:
    """Killed between the file of the new round and the removal of what was sent: the new round opens empty."""
    for site in ("one", "two", "three"):
        fleet.send(site)
    left = fleet.folder / "fleet" / "sent" / "1"
    left.mkdir(parents=True)
    (left / "one.json").write_text(json.dumps(contribution()))
    state = fleet.state()
    assert (state["round"], state["sent"]) == (2, False)
