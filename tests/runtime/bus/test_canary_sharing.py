"""Canaries over a real nats-server: begun and ended where models are deployed, followed by hosts that judge, summed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from agents.core.errors import AgentsError
from agents.core.npz import FormatError
from agents.detection.rollout.canary import CanaryCounts
from agents.learning.baseline import model_bytes
from agents.learning.registry import ModelRegistry
from agents.learning.release.canary import CanaryTerms, summed_counts
from agents.learning.release.transitions import Author
from agents.runtime.bus.canary_sharing import (
    CANARY,
    CanarySender,
    CanaryTaker,
    doubt_of_sum,
    key_of_counts,
    names_of_canary,
)
from agents.runtime.bus.model_sharing import ModelSender, ModelTaker
from agents.scoring.model import Model
from agents.stream.bus.link import BusLink, newest_of
from tests.runtime.bus.test_bus_damage import options_of
from tests.support.bus import NatsServer
from tests.support.carrier import LOOSE, TIGHT, with_factor
from tests.support.listening import wait_until
from tests.support.patience import patient

pytestmark = pytest.mark.integration
TERMS = asdict(CanaryTerms(hours=2.0))
ANNA = Author("anna", "by hand")


def models(folder: Path) -> ModelRegistry[Model]:
    folder.mkdir(parents=True, exist_ok=True)
    return ModelRegistry(folder, Model.from_bytes, model_bytes())


class Hosts:
    """A host that deploys, and one that judges, as their threads see the bus."""

    def __init__(self, folder: Path, url: str) -> None:
        self.link = BusLink(options_of(url), "test")
        self.deploys, self.judges = models(folder / "a"), models(folder / "b")
        self.counts = folder / "a" / "canary.json"
        self.folder = folder
        self.senders = (
            ModelSender(lambda: self.link, self.deploys, "a", folder / "a"),
            CanarySender(lambda: self.link, self.deploys, "a", self.counts),
        )
        self.deploys.save_candidate(with_factor(LOOSE))
        self.deploys.promote(with_factor(LOOSE).model_id)

    def send(self) -> None:
        for one in self.senders:
            one.look(self.link)

    def take_models(self) -> None:
        ModelTaker(lambda: self.link, self.judges, Model.from_bytes, "b", self.folder / "b", lambda: {"slots": 1}).look(
            self.link
        )

    def take_canary(self) -> None:
        """What a process that begins now takes."""
        CanaryTaker(lambda: self.link, self.judges, Model.from_bytes, self.folder / "b").look(self.link)

    def restart(self) -> None:
        """The process that sends canaries begins anew."""
        self.senders = self.senders[0], CanarySender(lambda: self.link, self.deploys, "a", self.counts)

    def begin(self, factor: float = TIGHT, at: float = 1000.5, terms: dict[str, object] = TERMS) -> str:
        model = with_factor(factor)
        self.deploys.save_candidate(model)
        self.deploys.begin_canary(model.model_id, terms, at)
        return model.model_id

    def everywhere(self) -> None:
        self.send()
        self.take_models()
        self.take_canary()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    server = NatsServer(tmp_path / "nats")
    made = Hosts(tmp_path, server.url)
    try:
        yield made
    finally:
        made.link.close()
        server.kill()


def began(registry: ModelRegistry[Model]) -> tuple[str, float] | None:
    row = registry.canary()
    return None if row is None else (row["model_id"], row["begun_at"])


def test_a_canary_begins_with_its_terms_begins_anew_and_is_turned_down_on_the_other_host(hosts: Hosts) -> None:
    hosts.everywhere()
    assert hosts.judges.canary() is None
    candidate = hosts.begin()
    hosts.everywhere()
    row, here = hosts.judges.canary(), hosts.deploys.canary()
    assert row is not None and row == here
    assert hosts.judges.get(candidate).model_id == candidate
    assert set(names_of_canary(hosts.link)) == {f"model-{candidate}"}
    hosts.deploys.restart_canary(2000.25)
    hosts.everywhere()
    assert began(hosts.judges) == (candidate, 2000.25)
    revision = hosts.link.value(CANARY).revision
    hosts.everywhere()
    assert hosts.link.value(CANARY).revision == revision, "it is sent once"
    hosts.deploys.end_canary(False, ANNA, 3000.0)
    hosts.everywhere()
    assert hosts.judges.canary() is None and hosts.judges.current().model_id == with_factor(LOOSE).model_id
    last = hosts.judges.transitions()[-1]
    assert (last.action, last.by) == ("stop canary", "the bus")
    assert names_of_canary(hosts.link) == []


def test_a_promoted_one_is_the_model_in_use_there_and_no_end_comes_before(hosts: Hosts) -> None:
    candidate = hosts.begin()
    hosts.everywhere()
    hosts.deploys.end_canary(True, ANNA, 3000.0)
    hosts.senders[1].look(hosts.link)
    hosts.take_canary()
    assert began(hosts.judges) == (candidate, 1000.5), "the model is not on the bus yet, nor is the end"
    hosts.send()
    hosts.take_canary()
    assert began(hosts.judges) == (candidate, 1000.5), "the model is on the bus, and not taken yet"
    hosts.take_models()
    hosts.take_canary()
    assert hosts.judges.canary() is None and hosts.judges.current().model_id == candidate
    assert [one.action for one in hosts.judges.transitions()][-2:] == ["begin canary", "deploy"]


def test_the_next_one_waits_for_the_model_that_it_is_compared_with(hosts: Hosts) -> None:
    first = hosts.begin()
    hosts.everywhere()
    hosts.deploys.end_canary(True, ANNA, 3000.0)
    second = hosts.begin(2.0, at=3001.0)
    hosts.send()
    hosts.take_canary()
    assert began(hosts.judges) == (first, 1000.5)
    hosts.take_models()
    hosts.take_canary()
    assert began(hosts.judges) == (second, 3001.0)
    hosts.judges = models(hosts.folder / "new")
    (hosts.folder / "b" / "canary_of_bus").unlink()
    with pytest.raises(AgentsError, match="is in use here, not"):
        hosts.take_canary()


def test_a_pinned_host_begins_none_and_says_so(hosts: Hosts) -> None:
    hosts.everywhere()
    hosts.judges.pin(ANNA)
    hosts.begin()
    hosts.send()
    for _ in range(2):
        with pytest.raises(AgentsError, match="was pinned"):
            hosts.take_canary()
    hosts.judges.unpin(ANNA)
    hosts.take_canary()
    assert hosts.judges.canary() is not None


def test_one_that_was_begun_on_the_host_itself_is_left_alone(hosts: Hosts) -> None:
    hosts.everywhere()
    own = with_factor(3.0)
    hosts.judges.save_candidate(own)
    hosts.judges.begin_canary(own.model_id, TERMS, 5.0)
    hosts.begin()
    hosts.send()
    with pytest.raises(AgentsError, match="was begun here"):
        hosts.take_canary()
    assert began(hosts.judges) == (own.model_id, 5.0)
    hosts.judges.end_canary(False, ANNA, 6.0)
    hosts.take_canary()
    assert began(hosts.judges) == (with_factor(TIGHT).model_id, 1000.5)


def test_two_hosts_of_one_folder_do_not_end_what_the_other_began(hosts: Hosts) -> None:
    hosts.judges = models(hosts.folder / "a")
    first = hosts.begin()
    hosts.everywhere()
    hosts.deploys.end_canary(False, ANNA, 2.0)
    hosts.send()
    second = hosts.begin(2.0, at=3001.0)
    hosts.take_canary()
    assert began(hosts.judges) == (second, 3001.0) != (first, 1000.5)


def test_another_host_that_deploys_and_has_none_leaves_it(hosts: Hosts) -> None:
    candidate = hosts.begin()
    hosts.send()
    other = models(hosts.folder / "c")
    CanarySender(lambda: hosts.link, other, "c", hosts.folder / "c" / "canary.json").look(hosts.link)
    hosts.take_models()
    hosts.take_canary()
    assert began(hosts.judges) == (candidate, 1000.5)


def test_one_that_people_have_ended_on_a_host_does_not_begin_there_again_when_schedule_starts_anew(
    hosts: Hosts,
) -> None:
    hosts.begin()
    hosts.everywhere()
    hosts.judges.reject(with_factor(TIGHT).model_id, ANNA)
    hosts.restart()
    hosts.everywhere()
    assert hosts.judges.canary() is None


def test_its_end_is_sent_though_the_bus_has_a_champion_of_another_host(hosts: Hosts) -> None:
    hosts.begin()
    hosts.everywhere()
    other = models(hosts.folder / "c")
    other.save_candidate(with_factor(3.0))
    other.promote(with_factor(3.0).model_id)
    ModelSender(lambda: hosts.link, other, "c", hosts.folder / "c").look(hosts.link)
    hosts.deploys.end_canary(False, ANNA, 3000.0)
    hosts.everywhere()
    assert hosts.judges.canary() is None


def test_its_end_is_sent_to_a_bus_that_was_made_anew_meanwhile(hosts: Hosts) -> None:
    hosts.begin()
    hosts.everywhere()
    hosts.deploys.end_canary(False, ANNA, 3000.0)
    hosts.link.close()
    made_at = time.time()
    wait_until(lambda: time.time() > made_at + 1, 10)  # which bus it is follows from the second in which it was made
    anew = NatsServer(hosts.folder / "new")
    hosts.link = BusLink(options_of(anew.url), "test")
    try:
        hosts.everywhere()
        assert hosts.judges.canary() is None
    finally:
        anew.kill()


def test_it_ends_where_people_have_decided_since_so_that_the_promoted_one_is_not_taken(hosts: Hosts) -> None:
    candidate = hosts.begin()
    hosts.everywhere()
    hosts.deploys.end_canary(True, ANNA, 3000.0)
    hosts.send()
    hosts.judges.pin(ANNA)
    hosts.judges.unpin(ANNA)
    hosts.take_models()
    assert began(hosts.judges) == (candidate, 1000.5)
    hosts.take_canary()
    assert hosts.judges.canary() is None and hosts.judges.current().model_id == with_factor(LOOSE).model_id


def test_a_host_that_deploys_sends_none_that_it_has_from_the_bus(hosts: Hosts) -> None:
    hosts.begin()
    hosts.everywhere()
    CanarySender(lambda: hosts.link, hosts.judges, "b", hosts.folder / "b" / "canary.json").look(hosts.link)
    hosts.deploys.end_canary(False, ANNA, 3000.0)
    hosts.everywhere()
    assert hosts.judges.canary() is None


@pytest.mark.parametrize("damage", [b"", b"x", b"[]", b'{"candidate": 1}'])
def test_what_cannot_be_read_is_said_once_and_replaced(hosts: Hosts, damage: bytes) -> None:
    candidate = hosts.begin()
    hosts.send()
    hosts.take_models()
    hosts.link.put_value(CANARY, damage, hosts.link.value(CANARY).revision)
    taker = CanaryTaker(lambda: hosts.link, hosts.judges, Model.from_bytes, hosts.folder / "b")
    with pytest.raises(FormatError):
        taker.look(hosts.link)
    taker.look(hosts.link)
    hosts.send()
    taker.look(hosts.link)
    assert began(hosts.judges) == (candidate, 1000.5)


def test_a_model_whose_content_is_another_is_not_begun(hosts: Hosts) -> None:
    candidate = hosts.begin()
    hosts.send()
    hosts.take_models()
    hosts.link.put_object(f"model-{candidate}", with_factor(9.0).to_bytes())
    with pytest.raises(AgentsError, match="its content is another"):
        hosts.take_canary()
    assert hosts.judges.canary() is None


def test_what_slots_counted_is_summed_once_whoever_counted_it(hosts: Hosts) -> None:
    """A process with an older lease puts nothing over what the next one has; what is of another canary is left out."""
    candidate = hosts.begin()

    def put(slot: int, token: int, queries: int, model_id: str = candidate) -> bool:
        alerts = {f"{slot}{number}" for number in range(3)} | {"of both"}
        counts = CanaryCounts(model_id, 1000.5, queries, candidate_alerts=alerts, hours={7, slot})
        data = json.dumps(counts.to_json()).encode()
        return hosts.link.put_newest(key_of_counts(slot), token, data).result(patient(10))

    done = [put(0, 5, 100), put(0, 5, 150), put(0, 6, 120), put(0, 5, 170), put(1, 9, 30), put(2, 9, 50, "0" * 16)]
    assert done == [True, True, True, False, True, True]
    assert newest_of(hosts.link.value(key_of_counts(0)).data)[0] == 6
    hosts.link.put_value(key_of_counts(3), b"no counts", 0)
    assert doubt_of_sum(hosts.counts), "nothing was summed yet"
    hosts.send()
    found = summed_counts(hosts.counts, candidate, 1000.5)
    assert (found.queries, len(found.candidate_alerts), found.hours) == (150, 7, {0, 1, 7})
    assert doubt_of_sum(hosts.counts) == ""
    os.utime(hosts.counts, (1, 1))
    assert "was not read" in doubt_of_sum(hosts.counts)
