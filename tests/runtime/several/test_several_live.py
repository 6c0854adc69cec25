"""Real processes: several detectors on one host, killed, started again, and started with another number of them."""

from __future__ import annotations

import base64
import contextlib
import random
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agents.core.text import NETWORK
from agents.dns.name import from_text
from agents.stream.slots import detector_for
from tests.support.commands import Inside, is_one_line
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.stubs import StubServer
from tests.support.supervised import Supervised, assert_adds_up, supervised

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CLIENTS = [f"127.0.0.{number}" for number in range(10, 30)]
TUNNEL = next(client for client in CLIENTS if detector_for(client, 2) == 1)


def names_of(seed: int, count: int, domain: str, size: int = 25) -> list[str]:
    rng = random.Random(seed)
    return [f"{base64.b32encode(rng.randbytes(size)).decode().lower().rstrip('=')}.{domain}" for _ in range(count)]


def ask(port: int, client: str, names: list[str]) -> int:
    """One client asks for these names, one after the other; how many were answered."""
    answered = 0
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((client, 0))
        sock.connect(("127.0.0.1", port))
        sock.settimeout(patient(3))
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


def test_names_of_clients_need_one_detector(inside: Inside) -> None:
    done = inside("listen", UPSTREAMS="127.0.0.1:9", DETECTOR_PROCESSES="2", PRIVACY="truncate")
    assert (done.code, is_one_line(done), "PRIVACY=off" in done.err) == (2, True, True)


def test_a_canary_needs_one_detector(inside: Inside) -> None:
    done = inside("listen", UPSTREAMS="127.0.0.1:9", DETECTOR_PROCESSES="2", DEPLOY="canary")
    assert (done.code, is_one_line(done), "DEPLOY=canary" in done.err) == (2, True, True)
