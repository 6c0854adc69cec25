"""From incidents to channels: what shares a message, and what a channel that hangs or fails does to the others."""

from __future__ import annotations

import asyncio
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agents.alerting.delivery import RetryPolicy
from agents.alerting.grouping import LISTED_MAX, Groups
from agents.alerting.manager import AlertManager
from agents.alerting.outbox import Letters, Outbox
from agents.alerting.sink import AlertSink
from agents.alerting.slack import SlackNotifier
from agents.alerting.teams import TeamsNotifier
from agents.core.errors import NotifyError
from agents.core.types import Incident, Message, Severity
from agents.runtime.bootstrap import judge_parts, load_settings
from tests.support.incidents import incident
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.verdicts import verdicts
from tests.support.webhook import Webhook, webhook

pytestmark = pytest.mark.integration

ONCE = RetryPolicy(attempts=1, base_s=0.01, timeout_s=patient(60.0))


class Channel:
    """A channel of the test: keeps messages, or fails."""

    def __init__(self, error: Exception | None = None, name: str = "slack") -> None:
        self.name, self.error = name, error
        self.got: list[Message] = []
        self.tried = 0
        self.may_go = threading.Event()
        self.may_go.set()

    async def send(self, message: Message) -> None:
        self.tried += 1
        while not self.may_go.is_set():
            await asyncio.sleep(0.005)
        if self.error:
            raise self.error
        self.got.append(message)


@contextmanager
def sink(folder: Path, *channels: Any, groups: Groups | None = None, **options: Any) -> Iterator[AlertSink]:
    options = {"pace_s": 0.0, "pause_s": 0.02, **options}
    one = AlertSink(AlertManager(channels), Outbox(folder), groups or Groups(0.0, 3600), **options)
    try:
        yield one
    finally:
        for channel in channels:
            if isinstance(channel, Channel):
                channel.may_go.set()
        one.close()


def give(one: AlertSink, *incidents: Incident) -> None:
    one.accept(verdicts([], incidents=incidents))


def test_a_webhook_that_never_answers_holds_no_other_channel(tmp_path: Path) -> None:
    with webhook() as hanging, webhook() as working:
        hanging.hold.clear()
        channels = SlackNotifier(hanging.url, ONCE), TeamsNotifier(working.url, ONCE)
        with sink(tmp_path, *channels, close_s=0.2) as one:
            for number in range(5):
                give(one, incident(client=f"192.0.2.{number}"))
            wait_until(lambda: len(working.got) == 5)
            assert one.channels()["slack"]["waiting"] == 4
            wait_until(lambda: one.counts == {"sent": 5})


def test_a_channel_that_dribbles_is_left_at_its_deadline(tmp_path: Path) -> None:
    slow = Channel()
    slow.may_go.clear()
    with sink(tmp_path, slow, send_s=0.05, close_s=0.2) as one:
        give(one, incident())
        wait_until(lambda: slow.tried >= 2)
        wait_until(lambda: one.channels()["slack"]["error"] == "cannot send to slack: no answer within 0.05 s")
        slow.may_go.set()
        wait_until(lambda: one.counts["sent"] == 1)
        wait_until(lambda: one.channels()["slack"] == {"waiting": 0, "failures": 0, "error": ""})


def test_the_gravest_is_sent_first(tmp_path: Path) -> None:
    channel = Channel()
    channel.may_go.clear()
    with sink(tmp_path, channel) as one:
        give(one, incident(client="192.0.2.1"))
        wait_until(lambda: channel.tried == 1)
        for number in range(2, 5):
            give(one, incident(client=f"192.0.2.{number}"))
        give(one, incident(client="192.0.2.9", severity=Severity.CRITICAL))
        wait_until(lambda: one.channels()["slack"]["waiting"] == 4)
        channel.may_go.set()
        wait_until(lambda: len(channel.got) == 5)
    assert "192.0.2.9" in channel.got[1].title


def test_a_channel_that_cannot_be_reached_gets_its_messages_later(tmp_path: Path) -> None:
    away = Channel(NotifyError("cannot send to slack: it answered 503"))
    with sink(tmp_path, away) as one:
        give(one, incident())
        wait_until(lambda: away.tried >= 3)
        assert one.counts == {}
        assert one.channels()["slack"]["error"] == "cannot send to slack: it answered 503"
        away.error = None
        wait_until(lambda: len(away.got) == 1)


def test_what_a_channel_did_not_take_is_sent_by_the_next_process(tmp_path: Path) -> None:
    away, after, other = Channel(NotifyError("cannot send")), Channel(), Channel(name="teams")
    with sink(tmp_path, away, other) as one:
        give(one, incident())
        wait_until(lambda: away.tried >= 1 and len(other.got) == 1)
    with sink(tmp_path, after, other):
        wait_until(lambda: len(after.got) == 1)
    assert len(other.got) == 1, "it had its message"


def test_closing_does_not_wait_for_ever_for_a_hanging_channel(tmp_path: Path) -> None:
    channel = Channel()
    channel.may_go.clear()
    one = AlertSink(AlertManager([channel]), Outbox(tmp_path), close_s=0.2)
    give(one, incident(), incident(client="192.0.2.8"))
    wait_until(lambda: one.channels()["slack"]["waiting"] == 1)
    begun = time.monotonic()
    one.close()
    assert time.monotonic() - begun < patient(2)
    assert one.counts == {}
    assert len(list((tmp_path / "slack").glob("*.json"))) == 2, "sent next time"
    channel.may_go.set()


def test_channels_that_all_hang_hold_the_end_no_longer_than_one(tmp_path: Path) -> None:
    channels = [Channel(name=name) for name in ("slack", "email", "teams", "pager", "siren")]
    for channel in channels:
        channel.may_go.clear()
    one = AlertSink(AlertManager(channels), Outbox(tmp_path), close_s=1.0)
    give(one, incident())
    wait_until(lambda: all(channel.tried for channel in channels))
    begun = time.monotonic()
    one.close()
    assert time.monotonic() - begun < patient(2.5)
    for channel in channels:
        assert len(list((tmp_path / channel.name).glob("*.json"))) == 1, "sent next time"
        channel.may_go.set()


def test_without_channels_nothing_is_queued(tmp_path: Path) -> None:
    with sink(tmp_path) as one:
        give(one, incident())
        assert one.waiting == 0


@pytest.mark.slow
def test_many_domains_of_one_client_make_two_messages(tmp_path: Path) -> None:
    now = [1000.0]
    channel = Channel()
    with sink(tmp_path, channel, groups=Groups(300, 30, lambda: now[0])) as one:
        give(one, incident(domain="d0.example"))
        wait_until(lambda: len(channel.got) == 1)
        for number in range(1, 1300):
            severity = Severity.CRITICAL if number == 900 else Severity.HIGH
            give(one, incident(domain=f"d{number}.example", severity=severity))
        give(one, incident(domain="last.example"))
        assert one.waiting == 1300
        assert len(list(tmp_path.glob("*.json"))) == LISTED_MAX
        now[0] += 301
        give(one)
        wait_until(lambda: len(channel.got) == 2)
    second = channel.got[1]
    assert second.title == "CRITICAL: 192.0.2.7 sends data through 1,300 domains"
    assert second.facts[0][0] == "d900[.]example"
    assert ("And", "1,290 more incidents, see the console") in second.facts
    assert list(tmp_path.glob("*.json")) == []
    assert one.counts["dropped"] == 0


def test_many_clients_make_a_digest_and_no_more_than_the_ceiling(tmp_path: Path) -> None:
    now = [1000.0]
    channel = Channel()
    with sink(tmp_path, channel, groups=Groups(300, 10, lambda: now[0])) as one:
        for number in range(200):
            give(one, incident(client=f"10.0.0.{number}"))
        give(one, incident(client="10.0.9.9", severity=Severity.CRITICAL))
        wait_until(lambda: len(channel.got) == 5)
        for _ in range(60):
            now[0] += 60
            give(one, incident(client="10.0.0.0", severity=Severity.SUSPICIOUS))
            wait_until(lambda: one.channels()["slack"]["waiting"] == 0)
        wait_until(lambda: one.waiting == 0)
        assert len(channel.got) <= 10
    digest = next(one for one in channel.got if "10.0.9.9" in dict(one.facts))
    assert digest.facts[0][0] == "10.0.9.9"
    assert digest.severity == Severity.CRITICAL


def test_high_and_critical_of_one_incident_are_one_alert_an_update_and_an_end(tmp_path: Path) -> None:
    channel = Channel()
    with sink(tmp_path, channel) as one:
        give(one, incident())
        wait_until(lambda: len(channel.got) == 1)
        give(one, incident(severity=Severity.CRITICAL, queries=200))
        wait_until(lambda: len(channel.got) == 2)
        give(one, incident(severity=Severity.CRITICAL, queries=999, closed_at=1_763_604_860.0))
        wait_until(lambda: len(channel.got) == 3)
    assert [message.title for message in channel.got] == [
        "HIGH: 192.0.2.7 sends data through evil[.]com",
        "Update: now CRITICAL: 192.0.2.7 sends data through evil[.]com",
        "Ended: 192.0.2.7 no longer sends data through evil[.]com",
    ]
    assert "999 queries" in channel.got[2].summary
    assert len({message.thread_id for message in channel.got}) == 1


def test_an_incident_that_ended_before_its_message_is_still_alerted(tmp_path: Path) -> None:
    now = [1000.0]
    channel = Channel()
    with sink(tmp_path, channel, groups=Groups(300, 30, lambda: now[0])) as one:
        give(one, incident(domain="first.example"))
        wait_until(lambda: len(channel.got) == 1)
        give(one, incident(domain="short.example"), incident(domain="short.example", closed_at=1.8e9, queries=777))
        now[0] += 301
        give(one, incident(severity=Severity.SUSPICIOUS))
        wait_until(lambda: len(channel.got) == 2)
    assert channel.got[1].title == "HIGH: 192.0.2.7 sends data through short[.]example"
    assert "777 queries" in channel.got[1].summary


def test_the_message_links_the_incident_and_its_commands_work_in_a_shell(tmp_path: Path) -> None:
    channel = Channel()
    manager = AlertManager([channel], link_base="https://c.example")
    one = AlertSink(manager, Outbox(tmp_path), Groups(0.0, 3600), pace_s=0)
    hostile = incident(domain="a;reboot$(id)'.evil.com")
    give(one, hostile)
    one.close()
    (message,) = channel.got
    assert message.link == f"https://c.example/console/incidents/{hostile.incident_id}"
    words = shlex.split(dict(message.facts)["Look"])
    assert words[-3:] == ["explain", "192.0.2.7", "a;reboot$(id)'[.]evil[.]com"]
    assert shlex.split(dict(message.facts)["If it is wanted"])[-3:-1] == ["allow", "preview"]


def test_a_message_about_no_incident_reaches_every_channel(tmp_path: Path) -> None:
    first, second = Channel(), Channel(name="teams")
    with sink(tmp_path, first, second) as one:
        one.send(Message("The disk is full", "", [], Severity.CRITICAL))
        wait_until(lambda: bool(first.got and second.got))


def test_a_channel_keeps_its_pace(tmp_path: Path) -> None:
    channel, times = Channel(), []

    async def send(message: Message) -> None:
        times.append(time.monotonic())

    channel.send = send  # type: ignore[method-assign]
    with sink(tmp_path, channel, pace_s=0.2) as one:
        give(one, *(incident(client=f"192.0.2.{number}") for number in range(3)))
        wait_until(lambda: len(times) == 3)
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.19


def has(hook: Webhook, messages: int) -> bool:
    return len(hook.got) == messages


@pytest.mark.parametrize(("setting", "messages"), [({"alert_interval_s": 1e6}, 1), ({"alert_interval_s": 0.01}, 3)])
def test_a_setting_says_how_long_messages_about_one_client_are_apart(
    tmp_path: Path, setting: dict[str, float], messages: int
) -> None:
    with webhook() as hook:
        parts = judge_parts(load_settings(data_dir=tmp_path, slack_webhook_url=hook.url, **setting))
        try:
            for number in range(3):
                give(parts.alerts, incident(domain=f"d{number}.example"))
                wait_until(partial(has, hook, min(number + 1, messages)))
            assert parts.alerts.waiting == 3 - messages
        finally:
            parts.alerts.close()
            parts.spool.close()


@pytest.mark.parametrize("content", [b"[]", b"{}", b"\xff", b'{"title": 3}', b'{"at": "x"}'])
def test_damaged_messages_are_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0000000000000001--0.json").write_bytes(content)
    letters = Letters(tmp_path)
    assert list(letters.found()) == []
    letters.close()
    assert [path.name for path in tmp_path.glob("*.bad")] == ["0000000000000001--0.bad"]
