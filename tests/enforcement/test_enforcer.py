"""A judge that enforces: a tunnel is blocked within a second or counted, brakes hold, hits are counted.

The listener's side is tests/sources/listener/test_blocked_listener.py.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.cli.upkeep.block import enforcement_text
from agents.core.errors import StoreError
from agents.core.types import Incident, Severity, Verdicts, batch_of
from agents.dns.blocks import BLOCKS_FILE, BlockList, read_blocks
from agents.dns.name import from_text
from agents.enforcement import enforcer as enforcer_module
from agents.enforcement.brakes import NeverBlock
from agents.enforcement.enforcer import Enforcer
from agents.enforcement.keeper import AUTOMATIC, HITS_FILE, BlockKeeper, read_hits
from agents.enforcement.options import EnforceMode, EnforceOptions
from agents.runtime.bootstrap import block_keeper_of, judge_parts, load_settings, make_folders, store_of
from agents.runtime.judging.judge import Judge
from agents.settings import Settings
from agents.store.feedback.blocks import BlockStore
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewStore
from tests.support.detecting import query
from tests.support.incidents import incident
from tests.support.listening import wait_until
from tests.support.verdicts import verdicts

pytestmark = pytest.mark.integration
CLIENT = "192.0.2.7"


def _news(one: Incident) -> Verdicts:
    return verdicts([], incidents=(one,))


def settings_for(folder: Path, **changed: Any) -> Settings:
    values = {"enforce": "on", "enforce_dry_days": 0, "burn_in_days": 0} | changed
    settings = load_settings(data_dir=folder, **values)
    make_folders(settings)
    return settings


@contextmanager
def judging(settings: Settings) -> Iterator[Judge]:
    judge = Judge(judge_parts(settings))
    judge.start()
    try:
        yield judge
    finally:
        judge.close()


def tunnel(judge: Judge, domain: str, client: str = CLIENT, count: int = 200) -> None:
    rng, now = random.Random(domain), time.time()
    names = [f"{rng.randbytes(30).hex()}.t.{domain}" for _ in range(count)]
    judge.consume(batch_of([query(now + i / 100, client, name) for i, name in enumerate(names)]))


def lasting(settings: Settings) -> BlockList:
    return read_blocks(settings.state_dir / BLOCKS_FILE)


def test_a_tunnel_is_blocked_told_counted_and_recorded(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, enforce_list_file=str(tmp_path / "list.txt"))
    with judging(settings) as judge:
        tunnel(judge, "exporttest.net")
        assert max(one.severity for one in judge.detector.open_incidents.values()) == Severity.CRITICAL
        wait_until(lambda: bool(lasting(settings).blocks), 3)
        (block,) = lasting(settings).in_force(time.time())
        assert (block.domain, block.client, block.author) == ("exporttest.net", CLIENT, AUTOMATIC)
        assert block.reason.startswith("CRITICAL: ") and 86_000 < block.until - time.time() < 86_500
        wait_until(lambda: (tmp_path / "list.txt").exists() and "exporttest" in (tmp_path / "list.txt").read_text())
        assert (tmp_path / "list.txt").read_text() == f"nxdomain\t{CLIENT}\texporttest.net\t{block.until:.0f}\n"
        wait_until(lambda: judge.health().enforcement["in_force"] == 1)
        tunnel(judge, "exporttest.net", count=5)
        tunnel(judge, "exporttest.net", "192.0.2.8", count=3)
        assert judge.health().enforcement["hits"] == 5, "another client's queries meet no block"
    assert read_hits(settings.state_dir / HITS_FILE) == {block.block_id: 5}
    with closing(store_of(settings)) as store:
        ((stored, hits),) = BlockStore(store).history()
        assert (stored, hits) == (block, 5)


def test_a_week_of_counting_blocks_nothing(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, enforce_dry_days=7)
    with judging(settings) as judge:
        tunnel(judge, "exporttest.net")
        wait_until(lambda: judge.health().enforcement["dry"] == 1, 3)
        tunnel(judge, "exporttest.net", count=4)
        state = judge.health().enforcement
        assert (state["in_force"], state["hits"], state["dry_hits"]) == (0, 0, 4)
        assert lasting(settings).in_force(time.time()) == []


def test_what_is_not_critical_waits_for_a_person(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with judging(settings) as judge:
        tunnel(judge, "exporttest.net", count=3)
        judge.exports.close()
        enforcer = judge.fanout.sinks[2]
        assert isinstance(enforcer, Enforcer)
        suspicious = incident(domain="unsure.net", severity=Severity.SUSPICIOUS)
        enforcer.accept(_news(suspicious))
        enforcer.accept(_news(incident(domain=".", severity=Severity.CRITICAL)))
        wait_until(lambda: enforcer.state()["held"] == 1)
        assert not lasting(settings).blocks
        with closing(store_of(settings)) as store:
            reviews = ReviewStore(store)
            reviews.decide(["unsure.net"], Label.TUNNEL, "seen", "ann", time.time())
        enforcer._confirmed_at = 0.0
        wait_until(lambda: bool(lasting(settings).blocks), 5)
        assert lasting(settings).blocks[0].reason == "a person has labelled it a tunnel"


@pytest.mark.parametrize("changed", [{"enforce_never": "exporttest.net"}, {"own_zones": "corp.exporttest.net"}])
def test_brakes_hold_the_machine(tmp_path: Path, changed: dict[str, str]) -> None:
    settings = settings_for(tmp_path, **changed)
    with judging(settings) as judge:
        tunnel(judge, "exporttest.net")
        wait_until(lambda: judge.health().enforcement["held"] == 1, 3)
        assert not lasting(settings).blocks


def test_a_popular_domain_is_held(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, enforce_popular=3)
    with judging(settings) as judge:
        now = time.time()
        judge.consume(batch_of([query(now, f"192.0.2.{n}", "www.exporttest.net") for n in range(10, 13)]), "a batch")
        tunnel(judge, "exporttest.net")
        wait_until(lambda: judge.health().enforcement["held"] == 1, 5)
        assert not lasting(settings).blocks


class Told(list[Any]):
    def __call__(self, message: Any) -> None:
        self.append(message)


def test_too_many_an_hour_stops_and_tells_once(tmp_path: Path) -> None:
    told = Told()
    keeper = BlockKeeper(tmp_path, EnforceOptions(EnforceMode.ON, dry_days=0, per_hour=2))
    enforcer = Enforcer(keeper, told)
    enforcer.start()
    try:
        for number in range(5):
            enforcer.accept(_news(incident(domain=f"evil{number}.net", severity=Severity.CRITICAL)))
        enforcer.accept(_news(incident(domain=".", severity=Severity.CRITICAL)))
        wait_until(lambda: enforcer.state()["held"] == 1)
        assert [one.title.partition(" is ")[0] for one in told[:2]] == [
            "DNS tunnel detector: evil0[.]net",
            "DNS tunnel detector: evil1[.]net",
        ]
        assert told[2].title == "DNS tunnel detector: no more blocks are made" and len(told) == 3
        assert ("Undo all", "undo-all") in [(name, text.split()[-1]) for name, text in told[2].facts]
        assert len(keeper.blocks().lasting(time.time())) == 2
        wait_until(lambda: enforcer.state()["paused"])
    finally:
        enforcer.close()


def test_a_dead_database_blocks_nothing_new_and_undoes_nothing(tmp_path: Path) -> None:
    def away(*_: Any) -> Any:
        raise StoreError("cannot reach the database")

    keeper = BlockKeeper(tmp_path, EnforceOptions(EnforceMode.ON, dry_days=0))
    there = keeper.add("there.net", reason="x", author="ann")
    object.__setattr__(keeper.never, "clients_since", away)
    enforcer = Enforcer(keeper, confirmed=away, record=away)
    enforcer.start()
    try:
        enforcer.accept(_news(incident(domain="evil.net", severity=Severity.CRITICAL)))
        wait_until(lambda: bool(enforcer.state()["error"]))
        assert keeper.blocks().lasting(time.time()) == [there] and enforcer.alive
        object.__setattr__(keeper.never, "clients_since", lambda domain, since: 0)
        enforcer._handled.clear()
        enforcer.accept(_news(incident(domain="evil.net", severity=Severity.CRITICAL)))
        wait_until(lambda: len(keeper.blocks().lasting(time.time())) == 2)
    finally:
        enforcer.close()


def test_what_failed_is_tried_again_and_said_until_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fault is not covered up by something else that went well; the list is written when it can be."""
    monkeypatch.setattr(enforcer_module, "LIST_AGAIN_S", 0.1)
    monkeypatch.setattr(enforcer_module, "SAVE_S", 0.1)
    monkeypatch.setattr(enforcer_module, "CONFIRMED_S", 0.1)
    folder = tmp_path / "there"
    folder.touch()  # a file, where a folder is to be
    keeper = BlockKeeper(tmp_path, EnforceOptions(EnforceMode.ON, dry_days=0, list_file=folder / "list.txt"))
    keeper.add("evil.net", reason="x", author="ann")
    saved = list[Any]()
    enforcer = Enforcer(keeper, record=lambda blocks, hits: saved.append(hits))
    enforcer.start()
    try:
        wait_until(lambda: bool(saved) and bool(enforcer.state()["error"]))
        enforcer._dirty = True
        wait_until(lambda: len(saved) > 1)
        assert "there" in enforcer.state()["error"]
        folder.unlink()
        wait_until(lambda: not enforcer.state()["error"] and "evil.net" in (folder / "list.txt").read_text())
    finally:
        enforcer.close()


def test_an_incident_that_the_database_could_not_judge_is_blocked_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforcer_module, "CONFIRMED_S", 0.1)
    away = [True]

    def clients(domain: str, since: float) -> int:
        if away:
            raise StoreError("cannot reach the database")
        return 0

    keeper = BlockKeeper(tmp_path, EnforceOptions(EnforceMode.ON, dry_days=0), NeverBlock(clients_since=clients))
    enforcer = Enforcer(keeper)
    enforcer.start()
    try:
        enforcer.accept(_news(incident(domain="evil.net", severity=Severity.CRITICAL)))
        wait_until(lambda: "cannot reach" in enforcer.state()["error"])
        away.clear()
        wait_until(lambda: bool(keeper.blocks().blocks) and not enforcer.state()["error"])
    finally:
        enforcer.close()


def test_hits_that_come_while_they_are_saved_are_kept(tmp_path: Path) -> None:
    keeper = BlockKeeper(tmp_path, EnforceOptions(EnforceMode.ON, dry_days=0))
    blocks = [keeper.add(f"evil{number}.net", reason="x", author="ann") for number in range(200)]
    enforcer = Enforcer(keeper)
    enforcer._take_file(time.time())
    before, done = sys.getswitchinterval(), threading.Event()

    def save() -> None:
        while not done.is_set():
            enforcer._dirty = True
            enforcer._save(time.time())

    thread = threading.Thread(target=save)
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(50):
            for one in blocks:
                enforcer._count_one(enforcer._table, CLIENT, from_text(f"a.{one.domain}"))
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(before)
    assert enforcer._hits == {one.block_id: 50 for one in blocks}


def test_where_clients_cannot_be_counted_people_alone_block(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, privacy="truncate")
    with judging(settings) as judge:
        tunnel(judge, "exporttest.net")
        wait_until(lambda: judge.health().enforcement["held"] >= 1)
        assert not lasting(settings).blocks
        with closing(store_of(settings)) as store:
            assert block_keeper_of(settings, store).add("exporttest.net", reason="x", author="ann").is_for_all
    assert "none is made without a person: PRIVACY=truncate" in enforcement_text(settings)


def test_off_starts_nothing_and_empties_the_list_of_others(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("nxdomain\t*\tevil.net\t9999999999\n")
    enforcer = Enforcer(BlockKeeper(tmp_path, EnforceOptions(list_file=path)))
    enforcer.start()
    enforcer.accept(_news(incident(severity=Severity.CRITICAL)))
    assert enforcer.state() == {"mode": "off"} and path.read_text() == "" and enforcer.alive
    enforcer.close()
    assert not (tmp_path / BLOCKS_FILE).exists()


def test_damaged_hits_begin_anew(tmp_path: Path) -> None:
    for damage in ("{", "[]", json.dumps({"a": -1, "b": "x", "c": 2})):
        (tmp_path / HITS_FILE).write_text(damage)
        assert read_hits(tmp_path / HITS_FILE) in ({}, {"c": 2})


def test_the_keeper_knows_zones_of_its_own(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, upstreams="corp.example.net=192.0.2.1")
    with closing(store_of(settings)) as store:
        assert "a zone of your own" in block_keeper_of(settings, store).never.always("example.net")
