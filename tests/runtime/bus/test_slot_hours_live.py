"""Flow-hours of hosts on a bus: each once and whole, whichever of them judged the hour; the learner's host has them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from agents.core.types import HOUR_S
from agents.dns.name import from_text
from agents.stream.bus.jetstream import subject_of
from agents.stream.bus.messages import packed_records
from agents.stream.bus.protocol import MessageLabel
from agents.stream.record import RECORD, client_bytes, packed_record
from agents.stream.slots import slot_of_client
from tests.runtime.bus.test_bus_damage import RUN, publish
from tests.runtime.several.test_several_live import names_of
from tests.support.bus import SLOTS, Cluster, Detecting, cluster
from tests.support.commands import environment
from tests.support.listening import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
CLIENT = "192.0.2.7"
SLOT = slot_of_client(CLIENT) % SLOTS

QUEUED = "SELECT domain FROM review_items"


def message(names: Iterable[str], at: float) -> bytes:
    """A message of the slot: these names, asked a second apart."""
    records = [
        packed_record(at + number, client_bytes(CLIENT), from_text(name), 1, 60, 0, 1, 60, 60, 1.0, (1,))
        for number, name in enumerate(names)
    ]
    return packed_records(np.frombuffer(b"".join(records), RECORD))


def send(bus: Cluster, first: int, bodies: Sequence[bytes]) -> None:
    """Messages of the slot, numbered from `first` on."""
    labels = [MessageLabel(RUN, number, 1).text() for number in range(first, first + len(bodies))]
    publish(bus.server.url, [(subject_of(SLOT), body, label) for body, label in zip(bodies, labels, strict=True)])


def joined(bus: Cluster, name: str) -> Detecting:
    """A host that judges all slots."""
    host = bus.detecting(name)
    host.wait_ready()
    wait_until(lambda: len(host.slots) == SLOTS, 60)
    return host


def hours_of(bus: Cluster) -> list[tuple[str, str, int, float]]:
    """Client, domain, hour and queries of each flow-hour of this network."""
    rows = bus.rows("SELECT client, domain, hour, numbers FROM flow_hours WHERE schema > 0 ORDER BY domain, hour")
    return [(client, domain, hour, struct.unpack_from("<f", numbers)[0]) for client, domain, hour, numbers in rows]


def said_by(folder: Path, bus: Cluster, *command: str) -> str:
    """What a command says on a host that judges nothing."""
    env = environment(**bus.settings | {"DATA_DIR": str(folder)})
    ran = [sys.executable, "-m", "agents", *command]
    return subprocess.run(ran, cwd=folder.parent, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("saved", [True, False])
def test_an_hour_that_several_hosts_judge_is_written_once_and_whole(tmp_path: Path, saved: bool) -> None:
    """saved: whether a host that dies has saved its slots; else the next one judges all of it again."""
    with cluster(tmp_path) as bus:
        bus.settings["STREAM_SNAPSHOT_S"] = "1" if saved else "600"
        now = time.time()
        hour, at = int(now // HOUR_S) - 1, (now // HOUR_S - 1) * HOUR_S + 600
        shop, evil = [f"w{number}.shop.test" for number in range(5)], names_of(1, 240, "evil.test")
        hosts = [joined(bus, "d1")]
        send(bus, 1, [message([*shop, *evil[:120]], at), message(evil[120:], at + 125)])
        wait_until(lambda: bus.stored() == 245, 60)
        if saved:
            wait_until(lambda: hosts[-1].waiting == 0, 30)
        hosts[-1].kill_all()

        hosts.append(joined(bus, "d2"))
        send(bus, 3, [message(shop[:4], at + 900), message(["w1.shop.test"], now - 5)])
        whole = [(CLIENT, "evil.test", hour, 240.0), (CLIENT, "shop.test", hour, 9.0)]
        wait_until(lambda: hours_of(bus) == whole, 60)
        wait_until(lambda: bus.rows(QUEUED) == [("evil.test",)], 30)
        hosts[-1].kill_all()

        hosts.append(joined(bus, "d3"))
        send(bus, 5, [message(["w2.shop.test"], now - 4)])
        wait_until(lambda: bus.stored() == 251, 60)
        wait_until(lambda: hosts[-1].waiting == 0 or not saved, 30)
        assert hours_of(bus) == whole
        assert json.loads(said_by(tmp_path / "schedule", bus, "learn", "store"))["flow_hours"] == 2
        assert hosts[-1].stop() == 0
