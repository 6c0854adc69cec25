"""Three servers, two hosts that hear queries and two that judge them, under load, while servers and a detector die."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from agents.stream.bus.jetstream import KEYS, stream_name, subject_of
from tests.runtime.several.test_several_live import ask, names_of
from tests.support.bus import SLOTS, Cluster, cluster, sent_by
from tests.support.listening import wait_until
from tests.support.supervised import Load

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def leader_of(bus: Cluster, stream: str) -> int:
    """The number of the server that leads a stream."""
    import nats

    async def found() -> str:
        client = await nats.connect([one.url for one in bus.servers if one.process.poll() is None])
        try:
            of = (await client.jetstream().stream_info(stream)).cluster
            return "" if of is None or of.leader is None else of.leader
        finally:
            await client.close()

    return int(asyncio.run(found())[1:])


def name_of(host: str, number: int) -> str:
    return f"h{number}.{host}.load.test"


def has_stored(bus: Cluster, count: int) -> bool:
    return bus.stored() > count


def test_nothing_is_lost_or_stored_twice_while_leaders_and_a_detector_die(tmp_path: Path) -> None:
    pytest.importorskip("nats")
    with cluster(tmp_path, servers=3) as bus:
        bus.settings["STREAM_LEASE_S"] = "8"
        heard = [bus.listening("a"), bus.listening("b")]
        judging = [bus.detecting("d1"), bus.detecting("d2")]
        for host in (*heard, *judging):
            host.wait_ready()
        wait_until(lambda: [len(one.slots) for one in judging] == [SLOTS // 2] * 2, 90)
        loads = [Load(host.port, partial(name_of, host.folder.name), 100) for host in heard]
        wait_until(lambda: bus.stored() > 200, 60)
        for stream in (stream_name(subject_of(0)), f"KV_{KEYS}"):
            victim = bus.servers[leader_of(bus, stream)]
            wanted = bus.stored() + 1000
            victim.kill()
            wait_until(partial(has_stored, bus, wanted), 90)
            victim.start()
        judging[0].kill_all()
        wait_until(lambda: judging[1].slots == set(range(SLOTS)), 60)
        tunnelled = ask(heard[0].port, "127.0.0.77", names_of(9, 60, "evil.test"))
        for load in loads:
            load.stop()
        assert [len(load.answered) for load in loads] == [load.sent for load in loads]
        sent = sum(load.sent for load in loads) + tunnelled
        shed = sum(host.state()["queue_dropped"] for host in heard)
        wait_until(lambda: bus.stored() >= sent - shed, 120)
        assert bus.stored() == sent - shed
        assert bus.rows("SELECT count(DISTINCT qname) FROM queries") == [(sent - shed,)]
        wait_until(lambda: bus.rows("SELECT count(*) FROM incidents WHERE domain = 'evil.test'") == [(1,)], 30)
        wait_until(lambda: sum(sent_by(host)["kept"] for host in heard) == 0, 60)
        assert [host.stop() for host in (*heard, judging[1])] == [0, 0, 0]
