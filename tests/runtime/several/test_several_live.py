"""Real processes: several detectors on one host, killed, started again, and started with another number of them."""

from __future__ import annotations

import base64
import contextlib
import random
import socket
import sqlite3
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agents.core.text import NETWORK
from agents.dns.name import from_text
from agents.learning.release.canary import CanaryTerms
from agents.runtime.bootstrap import load_settings, make_folders, model_desk_of, registry_of, rollout_of, store_of
from agents.settings import Settings
from agents.stream.slots import detector_for
from tests.support.carrier import LOOSE, TIGHT, carried, with_factor
from tests.support.commands import Inside, is_one_line
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.stubs import StubServer
from tests.support.supervised import Supervised, assert_adds_up, supervised

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CLIENTS = [f"127.0.0.{number}" for number in range(10, 30)]
RESOLVER = "127.0.0.53"
TUNNEL = next(client for client in CLIENTS if detector_for(client, 2) == 1)


def names_of(seed: int, count: int, domain: str, size: int = 25) -> list[str]:
    rng = random.Random(seed)
    return [f"{base64.b32encode(rng.randbytes(size)).decode().lower().rstrip('=')}.{domain}" for _ in range(count)]


def ask(port: int, client: str, names: list[str], patience_s: float = 3) -> int:
    """One client asks for these names, one after the other; how many were answered in time."""
    answered = 0
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((client, 0))
        sock.connect(("127.0.0.1", port))
        sock.settimeout(patient(patience_s))
        for number, name in enumerate(names):
            sock.send(number.to_bytes(2) + b"\1\0\0\1\0\0\0\0\0\0" + from_text(name) + b"\0\0\1\0\1")
            with contextlib.suppress(TimeoutError):
                sock.recv(4096)
                answered += 1
    return answered


def incidents(one: Supervised) -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(one.folder / "data" / "dns-tunnel.db")) as database:
        return sorted(database.execute("SELECT client, domain FROM incidents").fetchall())


def judged(one: Supervised, asked: int) -> dict[str, Any]:
    """The state once so many queries are judged and stored; that is all there were."""
    wait_until(lambda: one.state()["scored"] >= asked and one.state()["spool_waiting"] == 0, 60)
    state = one.next_state()
    assert state["scored"] == asked == sum(each["scored"] for each in state["detectors"].values())
    assert_adds_up(state)
    return state


@pytest.mark.slow
def test_two_detectors_judge_each_query_once_and_one_dies_alone(tmp_path: Path) -> None:
    with supervised(tmp_path, DETECTOR_PROCESSES="2", HANG_S="60") as one:
        asked = sum(ask(one.port, client, [f"www.site{n}.c{client[8:]}.test" for n in range(20)]) for client in CLIENTS)
        asked += ask(one.port, TUNNEL, names_of(1, 60, "evil.test"))
        state = judged(one, asked)
        assert all(each["scored"] >= 100 for each in state["detectors"].values())
        assert (TUNNEL, "evil.test") in incidents(one)
        assert state["judging"] and {"detector-1", "detector-2", "network"} <= set(state["processes"])

        one.kill("detector-2")
        for at in range(40):  # one channel of all clients, a name each in turn, while detector-2 starts
            asked += ask(one.port, CLIENTS[at % len(CLIENTS)], names_of(100 + at, 1, "spread.test", 35))
        judged(one, asked)
        assert len(one.sqlite_names()) == asked
        wait_until(lambda: (NETWORK, "spread.test") in incidents(one), 20)

        one.kill("network")
        asked += ask(one.port, CLIENTS[0], names_of(7, 30, "late.test"))
        judged(one, asked)
        assert one.stop() == 0
    assert {path.name for path in (tmp_path / "data").glob("detector-*-of-2")} == {
        "detector-1-of-2",
        "detector-2-of-2",
    }


@pytest.mark.slow
def test_another_number_of_detectors_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    """Thirty bytes before each restart, and seventy at the end: 140 in ten minutes are an incident."""
    with StubServer() as upstream:
        names = names_of(3, 16, "slow.test", 10)
        for start, detectors in enumerate(("1", "2", "3", "1")):
            one = Supervised(tmp_path, upstream, DETECTOR_PROCESSES=detectors, LISTENER_PROCESSES="1", HANG_S="60")
            try:
                one.wait_ready()
                assert start == 0 or incidents(one) == []
                mine = names[3 * start : 3 * start + (7 if start == 3 else 3)]
                assert ask(one.port, TUNNEL, mine) == len(mine)
                one.rested()
            finally:
                assert one.stop() == 0
            one.log.unlink()
        assert incidents(one) == [(TUNNEL, "slow.test")]


def _has_sum(one: Supervised) -> bool:
    return (RESOLVER, "*") in incidents(one)


@pytest.mark.slow
def test_one_address_that_stands_for_many_is_judged_by_all_and_its_domains_are_one_sum(tmp_path: Path) -> None:
    """Twelve throw-away domains before each restart with another number: more than a client may have in an hour."""
    with StubServer() as upstream:
        names = [names_of(40 + at, 1, f"away{at}.test", 10)[0] for at in range(36)]
        for start, detectors in enumerate(("2", "3", "2")):
            more = {"DETECTOR_PROCESSES": detectors, "LISTENER_PROCESSES": "1", "HANG_S": "60"}
            one = Supervised(tmp_path, upstream, SHARED_CLIENTS=RESOLVER, **more)
            try:
                one.wait_ready()
                mine = names[12 * start : 12 * start + 12]
                assert ask(one.port, RESOLVER, mine) == len(mine)
                assert ask(one.port, CLIENTS[0], [f"www.site{at}.test" for at in range(12)]) == 12
                state = judged(one, 24)
                parts = sorted(each["scored"] for each in state["detectors"].values())
                assert parts[0] > 0 and state["busy"] == {CLIENTS[0]: 0.5}
                if start == 2:
                    wait_until(partial(_has_sum, one), 20)
                assert start == 2 or incidents(one) == []
            finally:
                assert one.stop() == 0
            one.log.unlink()


def test_names_of_clients_need_one_detector(inside: Inside) -> None:
    done = inside("listen", UPSTREAMS="127.0.0.1:9", DETECTOR_PROCESSES="2", PRIVACY="truncate")
    assert (done.code, is_one_line(done), "PRIVACY=off" in done.err) == (2, True, True)


@pytest.mark.slow
def test_each_detector_runs_the_canary_for_its_clients_and_its_end_is_that_of_all(tmp_path: Path) -> None:
    """Each of two detectors finds a slow channel by the candidate alone; what they have seen is summed up."""
    settings = load_settings(data_dir=tmp_path)
    make_folders(settings)
    registry = registry_of(settings)
    for factor in (LOOSE, TIGHT):
        registry.save_candidate(with_factor(factor))
    registry.promote(with_factor(LOOSE).model_id)
    terms = CanaryTerms(share=1.0, hours=1.0, queries_min=40, alert_rise=1.0)
    registry.begin_canary(with_factor(TIGHT).model_id, asdict(terms), time.time() - 60)
    other = next(client for client in CLIENTS if detector_for(client, 2) == 0)
    with supervised(tmp_path, DETECTOR_PROCESSES="2", HANG_S="60") as one:
        wait_until(lambda: len(one.events("canary_begun")) == 2, 30)
        asked = sum(ask(one.port, client, list(carried("slow.test", 3))[:10]) for client in (TUNNEL, other))
        wait_until(lambda: seen_of(settings)["queries"] == asked == 20, 40)
        one.kill("detector-2")
        wait_until(lambda: len(one.events("canary_begun")) == 3, 30)
        assert seen_of(settings)["queries"] == 20, "what was seen is kept"
        asked += sum(ask(one.port, client, list(carried("slow.test", 3))[10:]) for client in (TUNNEL, other))
        wait_until(lambda: incidents(one) == [(client, "slow.test") for client in sorted((TUNNEL, other))], 30)
        wait_until(lambda: seen_of(settings)["queries"] == asked == 40, 40)
        seen = seen_of(settings)
        assert (seen["champion_alerts"], seen["candidate_alerts"], seen["candidate_alone"]) == (0, 2, 2)

        with contextlib.closing(store_of(settings)) as store:
            rollout = rollout_of(settings, store)
            assert rollout.look() is None
            made = replace(rollout, clock=lambda: time.time() + 3600).look()
        assert made is not None and made.action == "promote canary", made
        wait_until(lambda: len(one.events("canary_ended")) == 2, 30)
        wait_until(lambda: one.state()["model_id"] == with_factor(TIGHT).model_id, 30)
        assert one.stop() == 0


def seen_of(settings: Settings) -> dict[str, Any]:
    """What all detectors have seen of the canary."""
    state = model_desk_of(settings).canary()
    assert state is not None
    found: dict[str, Any] = state["seen"]
    return found
