"""`dns-tunnel collect` at addresses of live intakes: judged over kills, said by doctor, refused in one line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agents.alerting.intake_losses import IntakeLosses
from agents.core.types import DAY_S, Message
from agents.runtime.health import ProcessHealth
from agents.sources.collector import RECEIVED
from agents.sources.heard_days import queries_by_intake
from agents.sources.live.addresses import is_live, parse_live
from agents.sources.live.loss import losing_intakes
from tests.runtime.test_collecting import Logged, state, stored
from tests.support.commands import Inside, environment, is_one_line
from tests.support.frames import client_frame
from tests.support.log_lines import answer_of
from tests.support.patience import patient
from tests.support.receiving import FrameSender
from tests.support.resolvers import question_of
from tests.support.running import free_port, process, wait_for

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def hearing(folder: Path, *arguments: str, **values: str) -> Iterator[subprocess.Popen[bytes]]:
    """`dns-tunnel` with these arguments on a folder; it hears when the block begins."""
    log = folder.with_name("process.log")
    command = [sys.executable, "-m", "agents", "--data-dir", str(folder), *arguments]
    with process(command, log, environment(UPSTREAMS="127.0.0.1:9", **values)) as started:
        wait_for(lambda: b"receiver_started" in log.read_bytes() or started.poll() is not None, "it starts")
        assert started.poll() is None, log.read_text()
        yield started


def connected(path: Path) -> FrameSender:
    """A sender, as soon as somebody accepts."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return FrameSender(sock)


def ask(sender: FrameSender, *names: str) -> None:
    for number, name in enumerate(names):
        now = time.time()
        sender.send(client_frame(5, question_of(name, "TXT", number), now))
        answer = number.to_bytes(2) + answer_of(name, "TXT")[2:]
        sender.send(client_frame(6, answer, None, now))


@pytest.mark.slow
def test_a_tunnel_over_dnstap_is_an_incident_over_a_kill_of_the_receiver(tmp_path: Path, inside: Inside) -> None:
    folder, path = tmp_path / "data", tmp_path / "tap.sock"
    names = [f"{os.urandom(30).hex()}.t.bad-example.com" for _ in range(60)]
    with hearing(folder, "collect", f"dnstap+unix://{path}", "--format", "auto") as running:
        ask(connected(path), *names[:20])
        wait_for(lambda: len(stored(folder)) == 20, "they are stored")
        wait_for(lambda: "receiver" in state(folder), "its pid is known")
        os.kill(state(folder)["receiver"]["pid"], signal.SIGKILL)
        ask(connected(path), *names[20:])
        wait_for(lambda: stored(folder) == sorted(names), "each once")
        wait_for(lambda: inside("explain", "192.0.2.7", "bad-example.com").code == 0, "there is an incident")
        told = wait_for(lambda: (out := inside("doctor").out) and "60 queries in 1 h" in out and out, "counts go on")
        assert f"dnstap+unix://{path}: dnstap, live; 60 queries in 1 h" in told
        running.terminate()
        assert running.wait(patient(30)) == 0
    assert not path.exists()


def explained(inside: Inside, domain: str) -> str:
    """What `explain` says of an incident; "" where there is none."""
    done = inside("explain", "192.0.2.7", domain)
    return "" if done.code else done.out


@pytest.mark.slow
def test_each_incident_names_what_heard_it_and_what_that_does_not_keep(tmp_path: Path, inside: Inside) -> None:
    logged = Logged(tmp_path / "queries.log")
    logged.ask_many("before", 3)
    folder, path, taps = tmp_path / "data", tmp_path / "tap.sock", {"tapped-example.com", "both-example.com"}
    with hearing(folder, "collect", f"dnstap+unix://{path}", str(logged.path), "--from-start"):
        sender = connected(path)
        for domain in ("tapped-example.com", "logged-example.com", "both-example.com"):
            names = [f"{os.urandom(30).hex()}.t.{domain}" for _ in range(90)]
            if domain != "tapped-example.com":
                logged.ask(*names[:45], client="192.0.2.7")
            if domain in taps:
                ask(sender, *names[45:])
        wait_for(lambda: inside("explain", "192.0.2.7", "both-example.com").out.count(str(path)), "both heard it")
        tapped, noted = (
            wait_for(partial(explained, inside, domain), domain)
            for domain in ("tapped-example.com", "logged-example.com")
        )
        both = wait_for(
            lambda: f"{logged.path}, " in (out := inside("explain", "192.0.2.7", "both-example.com").out) and out,
            "both",
        )
    assert f"heard by    dnstap+unix://{path}\n" in tapped
    assert "not known" not in tapped
    assert f"heard by    {logged.path}\n" in noted
    assert "not known   answers: none: data in answers is not seen" in noted
    assert f"heard by    {logged.path}, dnstap+unix://{path}\n" in both
    assert "not known   a query log of BIND: answers: none" in both


BAD = {
    "dnstap+unix://relative": "absolute path",
    "dnstap+udp://127.0.0.1:6000": "dnstap+ is followed by unix, tcp, tls",
    "dnstap+tcp://127.0.0.1": "HOST:PORT",
    "dnstap+tcp://127.0.0.1:99999": "cannot use intake",
    "syslog+tcp://127.0.0.1:5514?format=pcap": "?format=",
    "dnstap+tcp://127.0.0.1:6000?format=bind": "?format=",
    "dnstap+tls://127.0.0.1:6001": "RECEIVE_TLS_CERTIFICATE is empty",
    "packet://a/b": "packet://eth0",
}


@pytest.mark.parametrize("address", BAD)
def test_an_address_that_is_none_is_one_line(address: str, inside: Inside) -> None:
    done = inside("collect", address, UPSTREAMS="127.0.0.1:9")
    assert (done.code, is_one_line(done)) == (2, True), done.err
    assert BAD[address] in done.err


def test_what_cannot_be_opened_is_one_line(tmp_path: Path, inside: Inside) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for address, why in (
            (f"dnstap+tcp://127.0.0.1:{port}", "address already in use"),
            ("dnstap+tcp://192.0.2.1:6000", "cannot assign"),
            (f"dnstap+unix://{tmp_path}/nowhere/tap.sock", "no such file"),
            ("packet://nosuchinterface", "no such interface" if os.geteuid() == 0 else "CAP_NET_RAW"),
        ):
            done = inside("collect", address, UPSTREAMS="127.0.0.1:9")
            assert (done.code, is_one_line(done), why in done.err.lower()) == (1, True, True), done.err
    certificate = tmp_path / "nothing.pem"
    done = inside(
        "collect", "dnstap+tls://127.0.0.1:6001", UPSTREAMS="127.0.0.1:9", RECEIVE_TLS_CERTIFICATE=str(certificate)
    )
    assert (done.code, is_one_line(done), str(certificate) in done.err) == (2, True, True), done.err


@pytest.mark.slow
def test_a_listener_answers_whatever_state_its_live_intakes_are_in(tmp_path: Path, inside: Inside) -> None:
    folder, path, port = tmp_path / "data", tmp_path / "later" / "tap.sock", free_port()
    intakes = f"dnstap+unix://{path},packet://nosuchinterface"
    values = {"LISTEN_HOST": "127.0.0.1", "LISTEN_PORT": str(port), "COLLECT_FILES": intakes}
    with hearing(folder, "listen", **values) as running:
        with socket.socket(type=socket.SOCK_DGRAM) as asking:
            asking.settimeout(patient(10.0))
            asking.sendto(question_of("a.localhost", "A", 7), ("127.0.0.1", port))
            assert asking.recv(512)[:2] == (7).to_bytes(2)
        line = wait_for(lambda: next((line for line in inside("doctor").out.splitlines() if " logs " in line), ""), "")
        assert line.startswith("BAD") and "no such file" in line and "packet://nosuchinterface" in line
        path.parent.mkdir()
        wait_for(path.exists, "it is opened when it can be")
        ask(connected(path), "late.example")
        wait_for(lambda: stored(folder) == ["a.localhost", "late.example"], "it is heard")
        running.terminate()
        assert running.wait(patient(30)) == 0
    assert not path.exists()
    names = ("listener", f"dnstap+unix://{path}", "packet://nosuchinterface")
    assert queries_by_intake(folder / "data", 7) == dict(zip(names, (1, 1, 0), strict=True))


def test_addresses_are_told_from_paths() -> None:
    for name in ("dnstap+unix:///run/x.sock", "packet://eth0", "syslog+udp://[::]:514", "powerdns+tls://h:1"):
        assert is_live(name)
        assert parse_live(name).name == name
    for name in ("/var/log/x", "https://pi.hole", "dnstap.log", "packet:eth0"):
        assert not is_live(name)


def heard(**more: Any) -> dict[str, Any]:
    hour = str(int(time.time() // 3600))
    return {"kind": "dnstap", "hours": {hour: 7}, "queries": 7, "senders": {}, **more}


def test_an_intake_that_loses_is_in_health_metrics_doctor_and_a_message(tmp_path: Path, inside: Inside) -> None:
    folder = tmp_path / "data" / "data"
    folder.mkdir(parents=True)
    senders = {"ns1 (unix)": {"known": True, "lost": 0.02, "unanswered": 0.0}}
    states = {"dnstap+unix:///a": heard(senders=senders), "dnstap+unix:///b": heard(hours={}, senders={})}
    (folder / RECEIVED).write_text(json.dumps(states))
    health = ProcessHealth(folder, None)._intakes()["intakes"]  # type: ignore[arg-type]
    assert (health["ok"], health["queries_1h"], health["silent_1h"]) == (False, 7, 1)
    assert health["error"] == "1 lose queries: see dns-tunnel doctor"
    losing = losing_intakes(folder)
    assert losing == {"dnstap+unix:///a": 0.02}
    said, now = list[Message](), [float(DAY_S)]
    losses = IntakeLosses(said.append, lambda: now[0])
    for later in (0.0, 60.0, DAY_S):
        now[0] = DAY_S + later
        losses.note(losing)
    assert len(said) == 2
    assert said[0].facts == [("dnstap+unix:///a", "2.00% lost in the last minute")]
    line = next(line for line in inside("doctor").out.splitlines() if " logs " in line)
    assert line.startswith("BAD")
    assert "ns1 (unix): 2.00% lost" in line
