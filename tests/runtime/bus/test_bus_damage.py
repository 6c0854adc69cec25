"""What is on the bus and cannot be read, or was said only in part, stops nothing that comes after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

import nats
import numpy as np
import pytest

from agents.core.npz import FormatError
from agents.detection.shared.detector_report import empty_report
from agents.runtime.bus.network_mirror import MessageParts
from agents.stream.bus import options as bus_options
from agents.stream.bus.faults import LINES_MAX
from agents.stream.bus.jetstream import NETWORK_SUBJECT, Bus, subject_of
from agents.stream.bus.link import PART_BYTES, SAY, BusLink
from agents.stream.bus.messages import packed_records
from agents.stream.bus.options import BusOptions
from agents.stream.bus.protocol import MessageLabel, StreamPosition
from agents.stream.bus.reading import Received, StreamReader
from agents.stream.record import RECORD, client_bytes, packed_record
from agents.stream.slots import slot_of_client
from tests.support.bus import SLOTS, NatsServer, cluster
from tests.support.listening import wait_until
from tests.support.patience import patient

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
CLIENT, RUN = "192.0.2.7", "main." + "ab" * 8
Sent = tuple[str, bytes, str]  # subject, body, label


def options_of(url: str) -> BusOptions:
    return bus_options.SPEC.factory(bus_options.SPEC.values({"stream": url, "stream_slots": SLOTS}))


def publish(url: str, messages: Iterable[Sent]) -> None:
    async def send() -> None:
        bus = Bus(options_of(url))
        await bus.open("test")
        for subject, body, label in messages:
            site = "" if subject == NETWORK_SUBJECT else "main"
            await bus.publish(subject, body, label, f"{subject}-{label}", site)
        await bus.close()

    asyncio.run(send())


def body(name: bytes) -> bytes:
    wire = bytes([len(name)]) + name + b"\x04test"
    record = packed_record(time.time() - 5, client_bytes(CLIENT), wire, 1, 40, 0, 1, 60, 60, 1.0, (1,))
    return packed_records(np.frombuffer(record, RECORD))


@pytest.mark.slow
def test_messages_behind_one_that_cannot_be_read_are_judged(tmp_path: Path) -> None:
    slot = slot_of_client(CLIENT) % SLOTS
    with cluster(tmp_path) as bus:
        host = bus.detecting("d1")
        host.wait_ready()
        wait_until(lambda: len(host.slots) == SLOTS, 60)
        bodies = [body(b"first"), body(b"lost")[:-3], body(b"third"), b"", body(b"fifth")]
        labels = [MessageLabel(RUN, number, 1).text() for number in range(1, 6)]
        said = [
            (NETWORK_SUBJECT, empty_report().packed()[:-1], f"{SAY} x-{slot}-1 0 1"),
            (NETWORK_SUBJECT, b"", "none"),
        ]
        sent = [(subject_of(slot), data, label) for data, label in zip(bodies, labels, strict=True)]
        flood = [(subject_of(slot), body(b"sixth"), f"none {number}") for number in range(LINES_MAX + 7)]
        publish(bus.server.url, [*said, *sent, *flood])
        wait_until(lambda: bus.stored() == 3, 30)
        wait_until(lambda: host.state().get("lost") == 2 and host.waiting == 0, 30)
        assert host.state()["judging"] and host.state()["bus"]["early"] == 0
        assert host.stop() == 0
        log = host.log.read_text()
        assert log.count("message_lost") == 2 and log.count("message_not_read") == 2 + LINES_MAX + 1
        assert [one["left_out"] for one in host.events("message_not_read") if "left_out" in one] == [7]


@pytest.mark.parametrize("status", ["404", "408", "409", "100", "503", "999", "no number"])
def test_a_message_that_the_client_takes_for_the_server_s_word_holds_up_nobody(tmp_path: Path, status: str) -> None:
    server = NatsServer(tmp_path)

    async def read() -> list[tuple[int, bytes]]:
        bus, heard = Bus(options_of(server.url)), list[Received]()
        await bus.open("test")
        connection = await nats.connect(server.url)
        for data, headers in ((b"one", None), (b"two", {"Status": status}), (b"three", None)):
            await connection.jetstream().publish(f"{subject_of(1)}.berlin", data, headers=headers)
        reader = StreamReader(bus, subject_of(1), 1, StreamPosition(), heard.append, lambda error: None)
        work = asyncio.create_task(reader.run())
        end = time.monotonic() + patient(15)
        while len(heard) < 3 and time.monotonic() < end:
            await asyncio.sleep(0.01)
        work.cancel()
        await connection.close()
        await bus.close()
        assert reader.gaps < 10
        return [(one.position.sequence, one.data) for one in heard]

    try:
        assert asyncio.run(read()) == [(1, b"one"), (2, b"two"), (3, b"three")]
    finally:
        server.kill()


def received(label: str, data: bytes) -> Received:
    return Received(NETWORK_SUBJECT, 1, StreamPosition("e", 1), label, "", data, 1)


def test_parts_of_a_sender_that_died_halfway_are_not_joined_with_those_of_another(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    try:
        options, data = options_of(server.url), [bytes([65 + at]) * (PART_BYTES + 1) for at in range(2)]
        links = [BusLink(options, "detector-1") for _ in range(2)]
        for link, one in zip(links, data, strict=True):
            link.send("3", SAY, one, "3-7")
            wait_until(lambda link=link: link.has_sent("3"), 30)  # type: ignore[misc]
        links[0].read(NETWORK_SUBJECT, StreamPosition())
        found = [come for _ in range(4) if (come := links[0].received(30)) is not None]
        for link in links:
            link.close()
    finally:
        server.kill()
    assert len(found) == 4 and [len(one.data) for one in found] == [PART_BYTES, 1] * 2
    parts = MessageParts()
    assert [parts.whole(one) for one in (found[0], found[2])] == [None, None] and parts.pending
    assert parts.whole(found[3]) == (SAY, data[1])
    assert parts.pending and parts.whole(found[1]) == (SAY, data[0]) and not parts.pending


def test_parts_come_whole_in_order_and_once() -> None:
    parts = MessageParts()
    labels = ["say a 0 3", "say b 0 1", "say a 1 3", "say a 1 3", "say a 0 3", "say a 2 3"]
    whole = [parts.whole(received(label, label[6:7].encode())) for label in labels]
    assert whole == [None, ("say", b"0"), None, None, None, ("say", b"012")] and not parts.pending
    for label in ("", "say a 0", "say a x 3", "say a 0 y"):
        with pytest.raises(FormatError):
            parts.whole(received(label, b""))
