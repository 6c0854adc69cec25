"""Real processes on a real bus: hosts that hear queries, hosts that judge them, and what dies among them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agents.learning.release.transitions import Author
from agents.runtime.health import metrics_of
from agents.runtime.heartbeat import detector_health
from agents.runtime.listener_process import KEY_LOOK_S
from agents.stream.bus.jetstream import BusError
from agents.stream.bus.link import BusLink
from agents.stream.bus.options import SPEC
from agents.stream.bus.protocol import Committed
from agents.stream.slots import slot_of_client
from tests.runtime.several.test_several_live import ask, names_of
from tests.support.bus import LEASE_S, SLOTS, Cluster, Detecting, NatsServer, cluster, sent_by
from tests.support.commands import Inside, environment, is_one_line
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.supervised import Load, Supervised, supervised

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
CLIENTS = [f"127.0.0.{number}" for number in range(10, 40)]


def plain_names(host: str, client: str, count: int) -> list[str]:
    return [f"www.site{number}.{host}{client[8:]}.test" for number in range(count)]


def asked_by_all(host: Supervised, count: int) -> int:
    return sum(ask(host.port, client, plain_names(host.folder.name, client, count)) for client in CLIENTS)


def two_detectors(bus: Cluster) -> tuple[Detecting, Detecting]:
    """Two hosts that judge, each with half of the slots."""
    one, two = bus.detecting("d1"), bus.detecting("d2")
    one.wait_ready()
    two.wait_ready()
    wait_until(lambda: len(one.slots) == len(two.slots) == SLOTS // 2, 60)
    assert one.slots | two.slots == set(range(SLOTS))
    return one, two


def one_of_each(bus: Cluster) -> tuple[Supervised, Detecting]:
    """A host that hears, and one that judges all slots."""
    host, judging = bus.listening("a"), bus.detecting("d1")
    host.wait_ready()
    judging.wait_ready()
    wait_until(lambda: len(judging.slots) == SLOTS, 60)
    return host, judging


def stored_once(bus: Cluster, asked: int, distinct: int | None = None) -> None:
    """All that was asked is in the database, once each. distinct: pairs of name and client, where some came again."""
    wait_until(lambda: bus.stored() >= asked, 60)
    assert bus.stored() == asked
    assert bus.rows("SELECT count(DISTINCT qname || client) FROM queries") == [(distinct or asked,)]


def command_said(host: Supervised, command: str) -> str:
    """What a command says on a host."""
    env = environment(**host.settings)
    return subprocess.run(
        [sys.executable, "-m", "agents", command], cwd=host.folder, env=env, capture_output=True, text=True, check=False
    ).stdout


@pytest.mark.slow
def test_two_hosts_judge_what_two_others_hear_and_each_may_die(tmp_path: Path) -> None:
    with cluster(tmp_path) as bus:
        heard = [bus.listening("a"), bus.listening("b")]
        one, two = two_detectors(bus)
        for host in heard:
            host.wait_ready()
        asked = sum(asked_by_all(host, 10) for host in heard)
        asked += ask(heard[0].port, CLIENTS[3], names_of(1, 60, "evil.test"))
        stored_once(bus, asked)
        assert (CLIENTS[3], "evil.test") in bus.rows("SELECT client, domain FROM incidents")

        metrics = {one.name: one.value for one in metrics_of(detector_health(two.folder / "data")[1])}
        assert metrics["stream_slots"] == SLOTS // 2 and "stream_lag" in metrics
        begun = time.monotonic()
        one.kill_all()
        wait_until(lambda: two.slots == set(range(SLOTS)), 60)
        took_s = time.monotonic() - begun
        assert took_s < patient(LEASE_S + 2 + 2)  # and a heartbeat, which tells
        asked += sum(asked_by_all(host, 5) for host in heard[::-1])
        asked += ask(heard[1].port, CLIENTS[3], names_of(2, 30, "evil.test"))
        wait_until(lambda: bus.stored() >= asked, 60)
        assert bus.stored() == asked
        wait_until(lambda: sum(sent_by(host)["kept"] for host in heard) == 0, 30)
        assert bus.rows("SELECT count(*) FROM incidents WHERE domain = 'evil.test'") == [(1,)]
        assert [host.stop() for host in heard] == [0, 0] and two.stop() == 0


@pytest.mark.slow
def test_sigterm_hands_over_at_once_and_saved_state_is_gone_on_from(tmp_path: Path) -> None:
    """Fifty bytes of a slow channel before the detector ends, and as many after: together they are an incident."""
    with cluster(tmp_path) as bus:
        bus.settings["STREAM_LEASE_S"] = "60"  # nobody is followed by time
        host, one = one_of_each(bus)
        names = names_of(3, 16, "slow.test", 10)
        assert ask(host.port, CLIENTS[0], names[:7]) == 7
        wait_until(lambda: bus.stored() == 7, 30)
        two = bus.detecting("d2")
        two.wait_ready()
        os.kill(one.process.pid, signal.SIGTERM)
        wait_until(lambda: two.slots == set(range(SLOTS)), 20)
        assert one.process.wait(patient(20)) == 0
        assert bus.rows("SELECT client FROM incidents") == []
        assert ask(host.port, CLIENTS[0], names[7:]) == 9
        stored_once(bus, 16)
        wait_until(lambda: bus.rows("SELECT client, domain FROM incidents") == [(CLIENTS[0], "slow.test")], 20)


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back_costs_nothing(tmp_path: Path) -> None:
    with cluster(tmp_path) as bus:
        host, judging = one_of_each(bus)
        says = [command_said(one, "doctor") for one in (host, judging)]
        assert ["kept until a detector" in says[0], f"{SLOTS} slots of {SLOTS}" in says[1]] == [True, True], says
        load = Load(host.port, per_s=200)
        wait_until(lambda: bus.stored() > 100, 60)
        bus.server.kill()
        load.wait_answered(300)
        wait_until(lambda: not sent_by(host)["connected"], 30)
        bus.server.start()
        load.wait_answered(200)
        load.stop()
        assert len(load.answered) == load.sent
        wait_until(lambda: bus.stored() >= load.sent, 60)
        names = [row[0] for row in bus.rows("SELECT qname FROM queries")]
        assert len(names) == len(set(names)) == load.sent
        wait_until(lambda: sent_by(host)["kept"] == 0 and sent_by(host)["connected"], 30)
        assert host.next_state()["judging"] and host.stop() == 0 and judging.stop() == 0


@pytest.mark.slow
def test_one_name_or_one_answer_at_two_listeners_counts_once_also_after_a_restart(tmp_path: Path) -> None:
    """Names: half a slow channel, the same half at another listener, and only then its rest, which is an incident."""
    with cluster(tmp_path) as bus:
        heard = [bus.listening("a"), bus.listening("b")]
        for host in heard:
            host.wait_ready()
        keys = [host.folder / "data" / "answer_key.json" for host in heard]
        wait_until(lambda: keys[0].read_bytes() == keys[1].read_bytes(), 30)
        time.sleep(patient(KEY_LOOK_S))  # which key a listener uses is seen by what it hashes alone
        names = names_of(3, 16, "slow.test", 10)
        asked = sum(ask(host.port, CLIENTS[0], names[:7]) for host in heard)
        assert heard[0].stop() == 0
        wait_until(lambda: sent_by(heard[1])["sent"] > 0 == sent_by(heard[1])["unsent"], 30)
        heard[0].log.unlink()
        again = bus.listening("a", STREAM="nats://127.0.0.1:9")  # the bus is away where it starts
        again.wait_ready()
        asked += ask(again.port, CLIENTS[0], names[:7])
        assert again.stop() == 0
        again.log.unlink()
        again = bus.listening("a")
        again.wait_ready()  # and sends what it heard meanwhile
        wait_until(lambda: sent_by(again).get("sent", 0) > 0 == sent_by(again)["unsent"], 30)
        records = bus.records(slot_of_client(CLIENTS[0]) % SLOTS)
        assert len(records) >= asked and (records["ans_hash"] > 0).all()  # what nobody had counted was sent twice
        assert len(set(records["ans_hash"].tolist())) == 1
        judging = bus.detecting("d1")
        judging.wait_ready()
        stored_once(bus, asked, distinct=7)
        assert bus.rows("SELECT client FROM incidents") == []
        assert ask(heard[1].port, CLIENTS[0], names[7:]) == 9
        wait_until(lambda: bus.rows("SELECT client, domain FROM incidents") == [(CLIENTS[0], "slow.test")], 30)


@pytest.mark.slow
def test_each_process_may_be_killed_under_load(tmp_path: Path) -> None:
    with cluster(tmp_path) as bus:
        host, judging = bus.listening("a"), bus.detecting("d1")
        host.wait_ready()
        judging.wait_ready()
        load = Load(host.port, per_s=200)
        wait_until(lambda: bus.stored() > 100, 60)
        for one, name in ((host, "publisher"), (judging, "detector-1"), (judging, "network")):
            one.kill(name)
            load.wait_answered(100)
        load.stop()
        assert len(load.answered) == load.sent
        wait_until(lambda: bus.stored() >= load.sent, 60)
        names = [row[0] for row in bus.rows("SELECT qname FROM queries")]
        assert len(names) == len(set(names)) == load.sent
        wait_until(lambda: sent_by(host)["kept"] == 0, 30)
        assert host.stop() == 0 and judging.stop() == 0


@pytest.mark.slow
def test_streams_that_are_lost_are_sent_again(tmp_path: Path) -> None:
    """The server loses all of its files while queries wait in it that no detector has judged."""
    with cluster(tmp_path) as bus:
        host = bus.listening("a")
        host.wait_ready()
        asked = asked_by_all(host, 10)
        wait_until(lambda: sent_by(host)["sent"] > 0 == sent_by(host)["unsent"], 30)
        bus.server.kill()
        shutil.rmtree(bus.server.folder / "js")
        bus.server.start()
        judging = bus.detecting("d1")
        judging.wait_ready()
        stored_once(bus, asked)
        wait_until(lambda: sent_by(host)["kept"] == 0, 30)
        assert sent_by(host)["resent"] > 0


@pytest.mark.slow
def test_a_bus_that_is_not_there_is_said_in_one_line_and_dns_is_answered(tmp_path: Path, inside: Inside) -> None:
    done = inside("detect", UPSTREAMS="127.0.0.1:9", STREAM="nats://127.0.0.1:9")
    assert (done.code, "cannot use STREAM at 127.0.0.1:9: " in done.err) == (1, True), done
    with supervised(tmp_path / "l", STREAM="nats://127.0.0.1:9", LISTENER_PROCESSES="1") as host:
        assert ask(host.port, CLIENTS[0], plain_names("x", CLIENTS[0], 20)) == 20
        wait_until(lambda: sent_by(host).get("kept", 0) > 0 and not sent_by(host)["connected"], 30)
        wait_until(lambda: bool(host.events("stream_is_away")), 20)
        assert host.stop() == 0


def test_what_cannot_be_used_is_said_in_one_line(inside: Inside) -> None:
    for command, word, settings in (
        ("listen", "nats://", {"STREAM": "http://127.0.0.1"}),
        ("listen", "PRIVACY=off", {"STREAM": "nats://127.0.0.1:9", "PRIVACY": "truncate"}),
        ("listen", "power of two", {"STREAM": "nats://127.0.0.1:9", "STREAM_SLOTS": "12"}),
        ("run", "listen", {"STREAM": "nats://127.0.0.1:9"}),
        ("detect", "STREAM_CREDS", {"STREAM": "nats://127.0.0.1:9", "STREAM_CREDS": "/etc/hostname"}),
        ("detect", "STREAM", {}),
    ):
        done = inside(command, UPSTREAMS="127.0.0.1:9", **settings)
        assert (done.code, is_one_line(done), word in done.err) == (2, True, True), done


@pytest.mark.slow
def test_a_model_that_is_deployed_is_on_all_hosts_soon_and_a_roll_back_too(tmp_path: Path) -> None:
    """A host that joins later has it as well; what a host has taken it does not take again; each says what it runs."""
    with cluster(tmp_path) as bus:
        deploying, one = bus.deploying("s"), bus.detecting("d1")
        one.wait_ready()
        first = deploying.deploy(1)
        wait_until(lambda: one.state()["model_id"] == first, 60)
        two = bus.detecting("d2")
        two.wait_ready()
        second = deploying.deploy(2)
        for running in (one, two):
            wait_until(lambda running=running: running.state()["model_id"] == second, 60)  # type: ignore[misc]
        deploying.registry.rollback(Author("anna", "too loud"))
        wait_until(lambda: deploying.running() == {"d1": first, "d2": first}, 60)
        says = command_said(deploying, "doctor")
        assert f"model {first} is in force on 2 of 2 hosts" in says, says
        assert one.stop() == 0
        one.registry.pin(Author("anna", "this host keeps it"))
        third = deploying.deploy(3)
        again = bus.detecting("d1")
        again.wait_ready()
        wait_until(lambda: bool(again.events("models_not_shared")), 60)
        wait_until(lambda: deploying.running() == {"d1": first, "d2": third}, 60)
        assert deploying.stop() == 0 and again.stop() == 0 and two.stop() == 0


@pytest.mark.slow
def test_a_bus_that_loses_all_it_has_while_detectors_run_is_filled_again(tmp_path: Path) -> None:
    """Keys, tokens and saved state are gone: detectors begin anew, and what is asked later is judged, stored, found."""
    with cluster(tmp_path) as bus:
        host, _ = one_of_each(bus)
        asked = asked_by_all(host, 4)
        wait_until(lambda: bus.stored() == asked and sent_by(host)["kept"] == 0, 60)
        bus.server.kill()
        shutil.rmtree(bus.server.folder / "js")
        bus.server.start()
        asked += ask(host.port, CLIENTS[3], names_of(4, 60, "later.test"))
        wait_until(lambda: bus.stored() >= asked, 90)
        assert bus.stored() == asked
        assert (CLIENTS[3], "later.test") in bus.rows("SELECT client, domain FROM incidents")
        wait_until(lambda: sent_by(host)["kept"] == 0, 60)


def test_objects_that_no_key_names_are_swept_when_they_are_old(tmp_path: Path) -> None:
    """And those that one names, or that are young, are not; nothing of their names is left."""
    server = NatsServer(tmp_path)
    try:
        options = SPEC.factory(SPEC.values({"stream": server.url, "stream_slots": 2}))
        link = BusLink(options, "sweeper")
        link.commit("0", Committed(1, name="in-force"), 0, b"state").result(patient(10))
        for name in ("left", "model"):
            link.put_object(name, b"something")
        assert link.sweep(["0", "1"], ["model"]).result(patient(10)) == 0, "all are young"
        assert link.sweep(["0", "1"], ["model"], older_s=-60).result(patient(10)) == 1
        assert link.object("model") == b"something" and link.load("0").state == b"state"
        with pytest.raises(BusError):
            link.object("left")
        link.close()
    finally:
        server.kill()


@pytest.mark.slow
def test_saved_state_that_is_damaged_or_missing_holds_up_nobody(tmp_path: Path) -> None:
    """Its windows begin anew, and what has been counted is not counted again."""
    with cluster(tmp_path) as bus:
        host, one = one_of_each(bus)
        asked = asked_by_all(host, 4)
        wait_until(lambda: bus.stored() == asked and sent_by(host)["kept"] == 0, 60)
        assert one.stop() == 0
        names = bus.spoil_objects()
        assert len(names) > SLOTS // 2
        two = bus.detecting("d2")
        two.wait_ready()
        wait_until(lambda: len(two.slots) == SLOTS, 60)
        asked += asked_by_all(host, 3)
        wait_until(lambda: bus.stored() >= asked, 60)
        assert bus.stored() == asked
        assert two.events("saved_state_missing") and two.events("state_not_restored")
        assert two.stop() == 0
