"""Three servers, two hosts that hear queries and three that judge them, while all that can fail does, under load.

FAULTS_S (60) is how many seconds the load lasts at least, and FAULTS_PER_S (1000) how many queries come in each. What
was met with is printed: `FAULTS_S=300 FAULTS_PER_S=5000 pytest -s tests/e2e/test_bus.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from agents.core.text import NETWORK, defang
from agents.stream.bus.jetstream import KEYS, stream_name, subject_of
from agents.stream.slots import slot_of_client
from tests.chaos.surroundings import WallClock
from tests.e2e.crowd import CARRIER, PATIENCE_S, Crowd
from tests.e2e.overload import fast_upstream
from tests.runtime.several.test_several_live import ask, names_of
from tests.support.bus import SLOTS, Cluster, Detecting, cluster, sent_by
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.places import HUB, Place, hub
from tests.support.supervised import Supervised
from tests.support.webhook import Webhook, webhook

LOAD_S, PER_S = float(os.environ.get("FAULTS_S", "60")), int(os.environ.get("FAULTS_PER_S", "1000"))
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900 + 5 * LOAD_S)]
LEASE_S = 8.0
TAKEN_OVER_S = LEASE_S + 2
CUT_S = 60.0
"""For so long nothing of a place comes through."""
MENDED_S = 10.0
"""After that its queries are sent again within so many seconds."""
OFF_S = 30
"""Seconds by which the clock of a listener is off: ahead first, then behind."""
NARROW_KBIT = 200
"""Kilobits a second that a detector's line is left: a part of what it needs for its share."""
STEADY_S = 4.0
"""For so long nothing of the bus must have failed before a host dies: else all get the time of a lease once more."""


def leader_of(bus: Cluster, stream: str) -> int:
    """The number of the server that leads a stream, once there is one: while servers elect one, there is none."""
    import nats

    async def found() -> str:
        client = await nats.connect([one.url for one in bus.servers if one.process.poll() is None])
        try:
            of = (await client.jetstream(timeout=patient(5)).stream_info(stream)).cluster
            return "" if of is None or of.leader is None else of.leader
        finally:
            await client.close()

    leader: list[str] = []

    def is_led() -> bool:
        with contextlib.suppress(nats.errors.Error, OSError):
            leader[:] = [asyncio.run(found())]
        return any(leader)

    wait_until(is_led, 60)
    return int(leader[0][1:])


def has_stored(bus: Cluster, count: int) -> bool:
    return bus.stored() > count


@dataclass
class Trial:
    """What runs, and what has been asked."""

    bus: Cluster
    hub: Supervised
    site: Supervised
    judging: list[Detecting]
    cut_off: Place
    tunnels: list[tuple[str, str]] = field(default_factory=list)  # client and domain
    asked: int = 0
    free: Iterator[int] = field(default_factory=lambda: iter(range(100, 200)))

    def tunnel(self, ways: Sequence[str], domain: str, slots: Sequence[int] = range(SLOTS)) -> None:
        """A client of one of these slots asks for 60 names with data, an equal part of them at each of `ways`."""
        client = next(one for at in self.free if slot_of_client(one := f"127.0.0.{at}") % SLOTS in slots)
        names = names_of(len(self.tunnels), 60, domain)
        self.tunnels.append((client, domain))
        for number, way in enumerate(ways):
            part, port = names[number :: len(ways)], (self.site if way == "site" else self.hub).port
            with self.cut_off.here() if way == "site" else contextlib.nullcontext():
                answered = ask(port, client, part, PATIENCE_S)
            assert answered == len(part), f"{way} answered {answered} of {len(part)} queries below {domain}"
            self.asked += answered

    def is_spread(self) -> bool:
        """Whether each host that judges has its share of the slots."""
        return sorted(len(one.slots) for one in self.judging) == [2, 3, 3]

    def goes_on(self, count: int = PER_S) -> None:
        """So many more queries are stored."""
        wait_until(partial(has_stored, self.bus, self.bus.stored() + count), 120)


def _servers_die(trial: Trial) -> None:
    """The leader of a stream is killed, and that of the keys; then two of three, when nothing can be stored."""
    servers = trial.bus.servers
    for stream in (stream_name(subject_of(0)), f"KV_{KEYS}"):
        victim = servers[leader_of(trial.bus, stream)]
        victim.kill()
        trial.goes_on()
        victim.start()
    for victim in servers[1:]:
        victim.kill()
    trial.tunnel(["hub"], "down.test")
    for victim in servers[1:]:
        victim.start()
    trial.goes_on()


def _slow_consumer(trial: Trial, slow: Detecting, line: Place) -> None:
    """What one detector reads comes more slowly than it is sent, until much waits for it; then it makes up for it."""
    before = slow.waiting
    line.narrow(NARROW_KBIT)
    try:
        wait_until(lambda: slow.waiting > before + 3 * SLOTS or not slow.slots, 60)
    finally:
        line.widen()


def _is_steady(trial: Trial) -> None:
    """What waited has been sent, everybody has reached the bus for a while, and each host that judges has its slots."""
    hosts = (trial.hub, trial.site, *trial.judging)
    seen: list[tuple[float, object]] = [(time.monotonic(), None)]

    def rests() -> bool:
        said = [host.state()["bus"] for host in hosts]
        now = [(one["failures"], one["error"], one.get("unsent", 0) > PER_S) for one in said]
        state = now, [one.slots for one in trial.judging]
        if state != seen[-1][1]:
            seen.append((time.monotonic(), state))
        is_well = trial.is_spread() and not any(error or late for _, error, late in now)
        return is_well and time.monotonic() - seen[-1][0] > STEADY_S

    wait_until(rests, 120 + LOAD_S)


def _detector_dies(trial: Trial, victim: Detecting) -> float:
    """kill -9 of a host while it judges a tunnel; the seconds until others have its slots, all of them."""
    lost, others = victim.slots, [one for one in trial.judging if one is not victim]
    assert lost
    before = {one.folder: len(one.events("slot_taken")) for one in others}
    trial.tunnel(["hub", "site"], "dies.test", sorted(lost))
    victim.kill_all()
    begun = time.monotonic()

    def taken() -> bool:
        news = [event for one in others for event in one.events("slot_taken")[before[one.folder] :]]
        return lost <= {event["slot"] for event in news}

    wait_until(taken, TAKEN_OVER_S)
    return time.monotonic() - begun


def shed_by(heard: Sequence[Supervised]) -> int:
    """Queries that hosts have left out, as they say in their newest sign of life."""
    return sum(int(host.state()["queue_dropped"]) for host in heard)


def all_is_stored_once(bus: Cluster, heard: Sequence[Supervised], sent: int, timeout_s: float = 120) -> None:
    """What was sent is stored or counted as shed; nothing is stored twice, and nothing waits any more."""
    wait_until(lambda: bus.stored() >= sent - shed_by(heard), timeout_s)
    wait_until(lambda: sum(sent_by(host)["kept"] for host in heard) == 0, 60)
    assert bus.stored() == sent - shed_by(heard)
    assert bus.rows("SELECT count(DISTINCT qname) FROM queries") == [(sent - shed_by(heard),)]


def _are_told_once(trial: Trial, hook: Webhook) -> None:
    """Each tunnel, and what all clients carry below one domain, is one incident and one message."""
    wanted = sorted([*trial.tunnels, (NETWORK, CARRIER)])

    def found() -> list[tuple[str, str]]:
        return sorted(trial.bus.rows("SELECT client, domain FROM incidents"))

    wait_until(lambda: set(wanted) <= set(found()), 60)
    assert len(found()) == len(set(found())), found()
    assert [one for one in found() if one[1] != CARRIER or one[0] == NETWORK] == wanted

    def messages(domain: str) -> int:
        return sum(f"data through {defang(domain)}:" in str(one["text"]) for one in hook.got)

    wait_until(lambda: all(messages(domain) for _, domain in wanted), 60)
    assert [messages(domain) for _, domain in wanted] == [1] * len(wanted) == [1] * len(hook.got), hook.got


@pytest.fixture
def network() -> Iterator[tuple[Place, Place]]:
    """The test is in a network of its own; two more places."""
    with hub():
        places = Place(1), Place(2)
        yield places
        for one in places:
            one.close()


@contextlib.contextmanager
def running(folder: Path, clock: WallClock, hook: Webhook, site: Place, line: Place) -> Iterator[Trial]:
    """All processes, ready: d3 is behind `line`, and b at `site`; a has a clock of its own."""
    with cluster(folder, 3, HUB) as bus, contextlib.ExitStack() as upstreams:
        alerts = {"SLACK_WEBHOOK_URL": hook.url.replace("127.0.0.1", HUB), "WEBHOOKS_PLAIN_HTTP": "on"}
        bus.settings |= {"STREAM_LEASE_S": str(LEASE_S), **alerts}
        here = upstreams.enter_context(fast_upstream())
        heard = bus.listening("a", UPSTREAMS=f"127.0.0.1:{here.port}", **clock.settings)
        judging = [bus.detecting("d1"), bus.detecting("d2")]
        with line.here():
            judging.append(bus.detecting("d3"))
        with site.here():
            there = upstreams.enter_context(fast_upstream())
            away = bus.listening("b", UPSTREAMS=f"127.0.0.1:{there.port}")
        for host in (heard, away, *judging):
            host.wait_ready()
        trial = Trial(bus, heard, away, judging, site)
        wait_until(trial.is_spread, 120)
        yield trial


def test_nothing_is_lost_or_doubled_whatever_fails(tmp_path: Path, network: tuple[Place, Place]) -> None:
    pytest.importorskip("nats")
    if shutil.which("cc") is None:
        pytest.skip("a clock of its own needs a C compiler")
    site, line = network
    clock = WallClock(tmp_path)
    clock.set_ahead(OFF_S)
    with webhook(at=(HUB, 0)) as hook, running(tmp_path, clock, hook, site, line) as trial:
        begun = time.monotonic()
        crowds = [Crowd(trial.hub.port, "a", "127.0.1.1", PER_S // 2)]
        with site.here():
            crowds.append(Crowd(trial.site.port, "b", "127.0.2.1", PER_S // 2))
        trial.goes_on()
        trial.tunnel(["hub"], "ahead.test")
        site.cut()
        cut_at = time.monotonic()
        trial.tunnel(["site"], "cut.test")
        _slow_consumer(trial, trial.judging[2], line)
        _servers_die(trial)
        clock.set_ahead(-OFF_S)
        trial.tunnel(["hub"], "behind.test")
        wait_until(lambda: time.monotonic() - cut_at > CUT_S, 2 * CUT_S)
        site.mend()
        wait_until(lambda: bool(sent_by(trial.site)["connected"]), MENDED_S)
        trial.tunnel(["hub", "site"], "both.test")
        _is_steady(trial)
        took_s = _detector_dies(trial, trial.judging[0])
        wait_until(lambda: time.monotonic() - begun > LOAD_S, 2 * LOAD_S)
        met = [one.stop() for one in crowds]
        assert all(one["answered"] == one["sent"] for one in met), met
        ended = time.monotonic()
        sent = int(sum(one["sent"] for one in met))
        heard = (trial.hub, trial.site)
        all_is_stored_once(trial.bus, heard, sent + trial.asked, 120 + 2 * LOAD_S)
        _are_told_once(trial, hook)
        worst_s, late_s = max(one["worst_s"] for one in met), time.monotonic() - ended
        print(
            f"{sent} queries in {met[0]['asked_s']:.0f} s, all answered, the slowest after {worst_s:.2f} s; "
            f"{shed_by(heard)} shed; taken over in {took_s:.1f} s; all stored, {late_s:.0f} s after the last"
        )
        assert [host.stop() for host in (*heard, *trial.judging[1:])] == [0, 0, 0, 0]
