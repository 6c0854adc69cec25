"""Packets of an interface: what the filter lets through, framings of mirrors, drops, and a reader that is replaced."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agents.core.errors import AgentsError
from agents.dns.name import to_text
from agents.sources.capture import frame_kernels as ll
from agents.sources.live import packets
from agents.sources.live.packet_filter import PORTS_MAX, program
from tests.sources.capture.test_frames import fragments4, fragments6
from tests.support.captures import CLIENT6, SERVER6, answer, ip4, ip6, question, tcp, to_client, udp
from tests.support.network_namespace import in_namespace
from tests.support.receiving import receiver_at
from tests.support.running import wait_for
from tests.support.tunnels import LINKED, TUNNELS, ethernet

pytestmark = pytest.mark.integration
FRAMES_DROPPED = {
    "arp": ethernet(bytes(28), 0x0806),
    "https": ethernet(ip4(tcp(bytes(40), 1, dport=443), proto=ll.TCP)),
    "other udp": ethernet(ip4(udp(bytes(40), 999, 999))),
    "esp": ethernet(ip4(bytes(40), proto=ll.ESP)),
    "mdns": ethernet(ip4(udp(question(), 5353, 5353))),
    "spanning tree": ethernet(b"\x42\x42\x03" + bytes(40), 38),
    "other udp6": ethernet(ip6(udp(bytes(40), 999, 999)), 0x86DD),
}


def open_packet_socket(interface: str, options: packets.PacketOptions, ports: Sequence[int]) -> socket.socket:
    """A socket that keeps packets of an interface from now on. Raises OSError or AgentsError."""
    sock = packets.new_packet_socket(interface, options)
    try:
        packets.capture_interface(sock, interface, options, ports)
    except (OSError, AgentsError):
        sock.close()
        raise
    return sock


def framings() -> dict[str, bytes]:
    """A query in every framing that Ethernet can carry, each for a name of its own."""
    made = dict[str, bytes]()
    for name, (link, around) in LINKED.items():
        if link == ll.ETHERNET:
            made[f"l{len(made)}.{name.replace(' ', '-')}.example"] = b""
            last = next(reversed(made))
            made[last] = around(ip4(udp(question(last))))
    for name, tunnel in TUNNELS.items():
        label = f"t{len(made)}.{name.replace(' ', '-')}.example"
        packet = tunnel(ip4(udp(question(label))))
        made[label] = ethernet(packet, 0x86DD if packet[0] >> 4 == 6 else 0x0800)
    made["tcp.example"] = ethernet(
        ip4(tcp(len(question("tcp.example")).to_bytes(2) + question("tcp.example"), 9), proto=ll.TCP)
    )
    made["six.example"] = ethernet(ip6(udp(question("six.example"))), 0x86DD)
    return made


def sender() -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind(("veth-a", 0))
    return sock


def test_every_framing_is_heard_and_nothing_else_passes_the_filter(tmp_path: Path) -> None:
    sent = framings()

    def work() -> tuple[list[str], int]:
        with receiver_at("packet://veth-b", state_dir=tmp_path) as heard, sender() as sock:
            for frame in (*FRAMES_DROPPED.values(), *sent.values()):
                sock.send(frame)
            batch = heard.batch(len(sent), 30.0)
            (reader, _), *_ = heard.receiver._readers
            reader.count()
            return [to_text(name) for name in batch.qname], reader.packets

    names, packets_kept = in_namespace(work)
    assert sorted(names) == sorted(sent)
    assert packets_kept == len(sent)


@pytest.mark.parametrize("make", [fragments4, fragments6])
def test_fragments_pass_and_are_put_together(tmp_path: Path, make: Callable[..., list[bytes]]) -> None:
    parts = make(udp(question("in-parts.example")), 16)
    kind = 0x86DD if make is fragments6 else 0x0800

    def work() -> list[str]:
        with receiver_at("packet://veth-b", state_dir=tmp_path) as heard, sender() as sock:
            for part in parts:
                sock.send(ethernet(part, kind))
            return [to_text(name) for name in heard.batch(1, 30.0).qname]

    assert in_namespace(work) == ["in-parts.example"]


def test_answers_are_joined_over_several_interfaces(tmp_path: Path) -> None:
    def work() -> list[int]:
        with receiver_at("packet://veth-b", "packet://lo", state_dir=tmp_path) as heard, sender() as sock:
            query = question("six.example")
            sock.send(ethernet(ip4(udp(question("four.example")))))
            sock.send(ethernet(to_client(answer(question("four.example"), 300))))
            sock.send(ethernet(ip6(udp(query)), 0x86DD))
            sock.send(ethernet(ip6(udp(answer(query, 60), 53, 40000), SERVER6, CLIENT6), 0x86DD))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.sendto(question("lo.example"), ("127.0.0.1", 53))
            return list(heard.batch(3, 30.0).rcode.tolist())

    assert sorted(in_namespace(work)) == [-1, 0, 0]


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@pytest.mark.slow
def test_an_interface_that_is_made_later_and_again_is_heard(tmp_path: Path) -> None:
    def work() -> list[str]:
        ip("link del veth-b")
        with receiver_at(address := "packet://veth-b", state_dir=tmp_path, later=True) as heard:
            wait_for(lambda: "no such interface" in heard.told(address).get("error", ""), "it says why")
            for number in range(2):
                for words in (
                    "link add veth-a type veth peer name veth-b",
                    "link set veth-a addrgenmode none up",
                    "link set veth-b addrgenmode none",
                ):
                    ip(words)
                wait_for(lambda: "down" in heard.told(address)["error"], "it is heard, but down")
                ip("link set veth-b up")
                wait_for(lambda: heard.told(address)["error"] == "", "all is well")
                with sender() as sock:
                    sock.send(ethernet(ip4(udp(question(f"made{number}.example")))))
                heard.records(number + 1, 30.0)
                ip("link del veth-b")
                wait_for(lambda: "no such interface" in heard.told(address)["error"], "it is gone")
            return [to_text(name) for name in heard.batch(2, 30.0).qname]

    assert in_namespace(work) == ["made0.example", "made1.example"]


def test_what_finds_no_room_is_counted(tmp_path: Path) -> None:
    def work() -> tuple[int, int, int]:
        options = packets.PacketOptions(True, 2 * packets.BLOCK)
        with open_packet_socket("veth-b", options, [53]) as sock, sender() as sending:
            reader = packets.PacketReader(sock, "veth-b", [53], options)
            frame = ethernet(ip4(udp(question() + bytes(1300))))
            for _ in range(4000):
                sending.send(frame)
            reader.count()
            rows = 0

            def put(found: object) -> None:
                nonlocal rows
                rows += len(found)  # type: ignore[arg-type]

            while reader.read(put):
                pass
            reader.close(put)
            return reader.packets, reader.dropped, rows

    came, dropped, rows = in_namespace(work)
    assert came == 4000
    assert 0 < dropped < 4000
    assert 0 < rows <= came - dropped


def test_a_new_reader_goes_on_where_the_last_one_was_killed() -> None:
    def work() -> list[int]:
        options, counts = packets.PacketOptions(False, 4 * packets.BLOCK), list[int]()
        with open_packet_socket("veth-b", options, [53]) as sock, sender() as sending:
            for part in range(3):
                reader, rows = packets.PacketReader(sock, "veth-b", [53], options), list[int]()
                for number in range(5):
                    sending.send(ethernet(ip4(udp(question(f"n{part}-{number}.example", ident=number)))))
                time.sleep(3 * packets.BLOCK_MS / 1000)
                while reader.read(lambda found: rows.append(len(found))):  # noqa: B023 - called at once
                    pass
                reader.close(lambda found: rows.append(len(found)))  # noqa: B023
                counts.append(sum(rows))
        return counts

    assert in_namespace(work) == [5, 5, 5]


def test_what_cannot_be_heard_is_said(tmp_path: Path) -> None:
    def work() -> None:
        options = packets.PacketOptions(True, 2 * packets.BLOCK)
        with pytest.raises(AgentsError, match="there is no such interface"):
            open_packet_socket("veth-c", options, [53])
        with pytest.raises(AgentsError, match="more than 32 ports"):
            open_packet_socket("veth-b", options, list(range(1, PORTS_MAX + 2)))

    in_namespace(work)


@pytest.mark.parametrize("link", [0, 14])
def test_jumps_of_the_filter_reach(link: int) -> None:
    code = program(list(range(1, PORTS_MAX + 1)), link)
    steps = list(struct.iter_unpack("HBBI", code))
    for at, (operation, yes, no, _) in enumerate(steps):
        if operation & 7 == 5:
            assert at + 1 + max(yes, no) < len(steps)
    assert steps[-1][0] == 0x06
