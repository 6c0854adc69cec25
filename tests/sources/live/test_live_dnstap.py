"""dnstap as it is sent: handshakes, several senders, damage, and the servers of this machine."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from pathlib import Path

import fstrm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import AgentsError, SettingsError
from agents.dns.message import type_number
from agents.dns.name import from_text, to_text
from agents.sources.collector import RECEIVED
from agents.sources.dnstap import DNSTAP
from agents.sources.dnstap.merging_kernels import SENDERS
from agents.sources.live import frame_protocol
from agents.sources.live import receiver as live_receiver
from agents.sources.live.frame_protocol import (
    ACCEPT,
    FINISH,
    READY,
    BadStreamError,
    control_frame,
    read_control,
)
from agents.sources.live.loss import SenderLoss
from agents.sources.live.receiver import LiveReceiver
from agents.sources.live.sockets import LiveSocket
from agents.stream.rings import Rings
from tests.support.frames import client_frame
from tests.support.log_lines import answer_of
from tests.support.patience import patient
from tests.support.receiving import FrameSender, framed, receiver_at, receiving_of
from tests.support.resolvers import ODD, TAPS, ask, question_of, resolver
from tests.support.running import free_port, wait_for

ASKED = [(from_text(qname), type_number(qtype)) for qname, qtype in ODD]


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


def exchange(name: str, at: float, answer: bool = True) -> list[bytes]:
    frames = [client_frame(5, question_of(name, "TXT", 7), at)]
    return [*frames, client_frame(6, answer_of(name, "TXT"), None, at + 0.01)] if answer else frames


def told(state_dir: Path, **wanted: int) -> dict[str, object]:
    """The state of the one intake, once it says what is wanted."""
    end = time.monotonic() + patient(10.0)
    while True:
        try:
            (found,) = json.loads((state_dir / RECEIVED).read_bytes()).values()
        except (FileNotFoundError, ValueError):
            found = {}
        if all(found.get(name) == value for name, value in wanted.items()):
            return dict(found)
        assert time.monotonic() < end, found
        time.sleep(0.02)


def test_control_frames_are_those_of_the_library() -> None:
    codec = fstrm.FstrmCodec()
    for kind in (READY, ACCEPT, 2):
        assert control_frame(kind, DNSTAP) == codec.encode(kind, [DNSTAP])
    for kind in (3, FINISH):
        assert control_frame(kind) == codec.encode(kind)
    assert read_control(control_frame(READY, DNSTAP)[8:]) == (READY, [DNSTAP])


@given(st.binary(max_size=60))
def test_no_control_frame_does_anything_but_be_refused(noise: bytes) -> None:
    try:
        kind, types = read_control(noise)
    except BadStreamError:
        return
    assert kind == int.from_bytes(noise[:4])
    assert sum(8 + len(one) for one in types) <= len(noise)


@pytest.mark.integration
@pytest.mark.parametrize("both_ways", [True, False])
def test_a_sender_shakes_hands_or_begins_at_once(tmp_path: Path, both_ways: bool) -> None:
    path = tmp_path / "tap.sock"
    with receiver_at(f"dnstap+unix://{path}", state_dir=tmp_path) as heard:
        sender = FrameSender(connected(path), both_ways)
        if both_ways:
            assert read_control(sender.accepted) == (ACCEPT, [DNSTAP])
        now = time.time()
        sender.send(*exchange("one.example", now), *exchange("two.example", now + 0.001, answer=False))
        ended = sender.stop()
        assert ended == (FINISH.to_bytes(4) if both_ways else b"")
        batch = heard.batch(2)
    assert [to_text(name) for name in batch.qname] == ["one.example", "two.example"]
    assert batch.rcode.tolist() == [0, -1]
    assert time.time() - now > 2.0, "rows are held, since senders flush late"


@pytest.mark.integration
def test_several_senders_and_several_connections_of_each_are_one_stream_in_order_of_time(tmp_path: Path) -> None:
    path, port = tmp_path / "tap.sock", free_port()
    names = (f"dnstap+unix://{path}", f"dnstap+tcp://127.0.0.1:{port}")
    with receiver_at(*names, state_dir=tmp_path) as heard:
        now = time.time()
        senders = [FrameSender(connected(path)) for _ in range(3)]
        senders += [FrameSender(socket.create_connection(("127.0.0.1", port))) for _ in range(2)]
        for number in range(100):
            query, answer = exchange(f"n{number}.example", now - number / 1000)
            senders[number % 5].send(query)
            senders[(number + 1) % 5].send(answer)
        again = FrameSender(connected(path))
        again.send(*exchange("again.example", now + 0.1))
        batch = heard.batch(101)
        assert len(batch) == 101
        assert (np.diff(batch.ts) > -0.011).all(), "but for what answers take that came before their queries"
        assert (batch.rcode == 0).all()


@pytest.mark.integration
def test_frames_come_in_any_pieces(tmp_path: Path) -> None:
    path = tmp_path / "tap.sock"
    with receiver_at(f"dnstap+unix://{path}", state_dir=tmp_path) as heard:
        sender = FrameSender(connected(path))
        data = framed(
            *exchange("one.example", time.time()), client_frame(6, answer_of("two.example", "A"), time.time())
        )
        for at in range(len(data)):
            sender.sock.sendall(data[at : at + 1])
        assert len(heard.batch(2)) == 2


BAD_BEGINNINGS = {
    "a data frame first": framed(b"abc"),
    "another content": control_frame(READY, b"protobuf:other"),
    "another content, one-way": control_frame(2, b"protobuf:other"),
    "a stop first": control_frame(3),
    "a control frame that is too long": bytes(4) + (1 << 20).to_bytes(4),
    "a field that is cut off": bytes(4) + (10).to_bytes(4) + (2).to_bytes(4) + bytes(6),
    "a frame that is too long": control_frame(2, DNSTAP) + (1 << 30).to_bytes(4) + bytes(100),
    "a second start": control_frame(2, DNSTAP) * 2,
}


@pytest.mark.integration
def test_what_is_no_stream_of_dnstap_is_ended_and_nobody_else_notices(tmp_path: Path) -> None:
    path = tmp_path / "tap.sock"
    with receiver_at(f"dnstap+unix://{path}", state_dir=tmp_path) as heard:
        good = FrameSender(connected(path))
        for begins in BAD_BEGINNINGS.values():
            bad = connected(path)
            bad.settimeout(patient(10.0))
            bad.sendall(begins)
            while bad.recv(100):
                pass
            bad.close()
        odd = FrameSender(connected(path))
        odd.send(b"\xff" * 30, *exchange("beside.example", time.time()))
        good.send(*exchange("one.example", time.time()))
        assert len(heard.batch(2)) == 2
        told(tmp_path, refused=len(BAD_BEGINNINGS), malformed=1, connections=2)


@pytest.mark.integration
def test_too_many_and_strangers_are_not_let_in(tmp_path: Path) -> None:
    port = free_port()
    address = f"dnstap+tcp://127.0.0.1:{port}"
    with receiver_at(address, state_dir=tmp_path, receive_connections_max=1):
        first = FrameSender(socket.create_connection(("127.0.0.1", port)))
        second = socket.create_connection(("127.0.0.1", port))
        assert not second.recv(1)
        first.stop()
        told(tmp_path, refused=1, connections=0)
        FrameSender(socket.create_connection(("127.0.0.1", port))).stop()
    with receiver_at(address, state_dir=tmp_path, receive_allowed="192.0.2.0/24"):
        stranger = socket.create_connection(("127.0.0.1", port))
        assert not stranger.recv(1)


@pytest.mark.integration
def test_who_says_nothing_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_protocol, "HANDSHAKE_S", 0.2)
    path = tmp_path / "tap.sock"
    with receiver_at(f"dnstap+unix://{path}", state_dir=tmp_path):
        for says in (b"", control_frame(READY, DNSTAP), bytes(3)):
            silent = connected(path)
            silent.settimeout(patient(10.0))
            silent.sendall(says)
            while silent.recv(100):
                pass
            silent.close()
        told(tmp_path, refused=3, connections=0)


@pytest.mark.integration
def test_senders_without_end_are_counted_once_and_nothing_grows(tmp_path: Path) -> None:
    path, names = tmp_path / "tap.sock", SENDERS + 50
    other = f"dnstap+unix://{tmp_path}/other.sock"
    with receiver_at(f"dnstap+unix://{path}", other, state_dir=tmp_path, receive_connections_max=1000) as heard:
        now = time.time()
        for number in range(names):
            sender = FrameSender(connected(path), both_ways=False)
            identity = f"ns{number}-{chr(0x10348) * 20}".encode()
            query = client_frame(5, question_of(f"n{number}.example", "TXT", 7), now)
            sender.send(b"\x0a" + bytes([len(identity)]) + identity + query)
            sender.sock.close()
        assert len(heard.batch(names)) == names
    told = heard.told(f"dnstap+unix://{path}")
    assert told["queries"] == names
    assert len(told["senders"]) == frame_protocol.NAMES_MAX + 1
    assert heard.told(other)["queries"] == 0


def test_a_state_that_is_too_long_for_the_note_is_told_without_senders(tmp_path: Path) -> None:
    names = [f"dnstap+unix://{tmp_path}/{number}.sock" for number in range(40)]
    receiving = receiving_of(names, tmp_path)
    sockets = [LiveSocket(address) for address in receiving.addresses]
    ring = Rings(memoryview(bytearray(Rings.size_of(1, 1 << 10))), 1 << 10)
    receiver = LiveReceiver(receiving, sockets, ring)
    for heard in receiver._heard.values():
        for number in range(200):
            heard.losses[f"{number} {'x' * 60}"] = SenderLoss()
    receiver._note()
    assert json.loads(receiving.note.read())[names[0]]["senders"] == {}


@pytest.mark.integration
def test_what_is_not_there_at_the_start_is_opened_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_receiver, "RETRY_S", 0.05)
    path = tmp_path / "later" / "tap.sock"
    with receiver_at(address := f"dnstap+unix://{path}", state_dir=tmp_path, later=True) as heard:
        wait_for(lambda: "no such file" in heard.told(address).get("error", ""), "it says why")
        path.parent.mkdir()
        wait_for(path.exists, "it is opened")
        sender = FrameSender(connected(path))
        sender.send(*exchange("late.example", time.time()))
        assert len(heard.batch(1)) == 1
        wait_for(lambda: heard.told(address)["error"] == "", "all is well")
    assert not path.exists()


@pytest.mark.integration
def test_a_full_ring_holds_up_no_sender(tmp_path: Path) -> None:
    path, count = tmp_path / "tap.sock", 20_000
    with receiver_at(f"dnstap+unix://{path}", state_dir=tmp_path, capacity=100) as heard:
        sender, now = FrameSender(connected(path)), time.time()
        sender.send(*(client_frame(6, answer_of(f"n{number}.example", "A"), None, now) for number in range(count)))
        assert sender.stop() == FINISH.to_bytes(4)
        told(tmp_path, queries=count)
    assert heard.ring.head + heard.ring.dropped == count
    assert heard.ring.head <= 100


def test_a_socket_has_the_mode_that_is_set_and_is_taken_over_from_a_dead_process(tmp_path: Path) -> None:
    path = tmp_path / "tap.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with receiver_at(f"dnstap+unix://{path}", state_dir=tmp_path, receive_socket_mode="0606"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o606
        with (
            pytest.raises(AgentsError, match="another process listens there"),
            receiver_at(f"dnstap+unix://{path}", state_dir=tmp_path),
        ):
            pass
    assert not path.exists()
    path.write_text("precious")
    with (
        pytest.raises(AgentsError, match="a file that is no socket"),
        receiver_at(f"dnstap+unix://{path}", state_dir=tmp_path),
    ):
        pass
    assert path.read_text() == "precious"
    with (
        pytest.raises(SettingsError, match="no such group"),
        receiver_at(f"dnstap+unix://{tmp_path}/b", state_dir=tmp_path, receive_socket_group="nobody-has-this"),
    ):
        pass


@pytest.mark.integration
@pytest.mark.parametrize("name", TAPS)
def test_what_this_machines_servers_send_is_what_they_were_asked(name: str, tmp_path: Path) -> None:
    path = tmp_path / "tap.sock"
    began = time.time()
    with (
        receiver_at(f"dnstap+unix://{path}", state_dir=tmp_path, receive_socket_mode="0666") as heard,
        resolver(TAPS[name], tmp_path) as (port, _),
    ):
        tmp_path.chmod(0o755)
        ask(port, ODD)
        batch = heard.batch(len(ODD), 30.0)
        state = told(tmp_path, queries=len(ODD))
    found = list(zip(batch.qname, batch.qtype.tolist(), strict=True))
    assert sorted(found) == sorted(ASKED)
    assert (batch.rcode >= 0).all()
    assert began - 0.1 <= batch.ts.min() <= batch.ts.max() <= time.time()
    assert (state["malformed"], state["refused"]) == (0, 0)
    assert [one.split(" ")[0] for one in state["senders"]] == [f"{name}-test"]  # type: ignore[attr-defined]


def test_answers_without_their_queries_are_an_alarm() -> None:
    loss = SenderLoss()
    assert not loss.look([0, 0, 0, 0], 100.0)
    assert loss.look([10_000, 10_000, 11, 50], 160.0)
    assert loss.to_json() == {"known": True, "lost": 0.0011, "unanswered": 0.005}
    assert not loss.look([20_000, 20_000, 20, 50], 221.0), "a share of 0.0009"
    assert not loss.look([20_010, 20_010, 22, 50], 282.0), "two are chance"
    assert not loss.look([20_010, 30_010, 10_022, 50], 343.0), "a sender of answers alone"
    assert not loss.known


def test_drops_of_the_kernel_are_an_alarm() -> None:
    loss = SenderLoss()
    assert not loss.look_at_drops(0, 0, 100.0)
    assert not loss.look_at_drops(100_000, 90, 161.0)
    assert loss.look_at_drops(200_000, 300, 222.0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket to another group")
def test_a_socket_gets_the_group_that_is_set(tmp_path: Path) -> None:
    path = tmp_path / "tap.sock"
    with receiver_at(f"dnstap+unix://{path}", state_dir=tmp_path, receive_socket_group="daemon"):
        assert path.group() == "daemon"
