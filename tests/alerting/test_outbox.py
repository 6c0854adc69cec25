"""Alerts that are due outlive the process that was sending them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agents.alerting.channel_queue import ChannelQueue
from agents.alerting.delivery import RetryPolicy
from agents.alerting.grouping import Event
from agents.alerting.manager import AlertManager
from agents.alerting.outbox import BEGUN_MAX, Letters, Outbox
from agents.alerting.sink import AlertSink
from agents.alerting.slack import SlackNotifier
from agents.core.types import Message, Severity
from tests.support.incidents import incident
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.stubs import StubServer
from tests.support.supervised import Load, Supervised
from tests.support.verdicts import verdicts
from tests.support.webhook import webhook

pytestmark = pytest.mark.integration

FAST = RetryPolicy(attempts=2, base_s=0.01)
EMPTY = b'{"incident": {}}'
MESSAGE = Message(
    "A title", "A summary", [("Client", "192.0.2.1")], Severity.HIGH, thread_id="t", link="https://c.example/"
)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.*")) if folder.exists() else []


def waiting(outbox: Path) -> str:
    """The incidents that wait for a message."""
    found = ""
    for path in outbox.glob("*.json"):
        with suppress(FileNotFoundError):
            found += path.read_text()
    return found


def leaking(number: int) -> str:
    """Names of two tunnels, one after the other."""
    return f"{hashlib.sha256(str(number).encode()).hexdigest()[:50]}.{'first' if number < 150 else 'second'}.test"


def told(hook: Any, since: int) -> list[str]:
    """Which domain is the new one in each message, in order."""
    return ["second" if "second" in json.dumps(one) else "first" for one in hook.got[since:]]


@pytest.mark.timeout(180)
@pytest.mark.slow
def test_kill_9_while_alerts_are_tried_loses_none_and_repeats_none(tmp_path: Path) -> None:
    outbox = tmp_path / "data" / "outbox"
    slack = outbox / "slack"
    with webhook(503) as hook, StubServer() as upstream:
        one = Supervised(tmp_path, upstream, SLACK_WEBHOOK_URL=hook.url)
        one.wait_ready()
        load = Load(one.port, leaking)
        wait_until(lambda: bool(files(slack)) and "second" in waiting(outbox) and bool(hook.got), 60)
        os.kill(one.process.pid, signal.SIGKILL)
        one.process.wait(patient(30))
        load.stop()
        assert set(told(hook, 0)) == {"first"}, "it was being tried"
        tried, hook.status = len(hook.got), 200
        one = Supervised(tmp_path, upstream, SLACK_WEBHOOK_URL=hook.url)
        one.wait_ready()
        wait_until(lambda: len(hook.got) == tried + 2, 30)
        wait_until(lambda: files(outbox) + files(slack) == [], 30)
        assert one.stop() == 0
        one = Supervised(tmp_path, upstream, SLACK_WEBHOOK_URL=hook.url)
        one.wait_ready()
        one.next_state()
        assert one.stop() == 0
        assert told(hook, tried) == ["first", "second"], "each once"


def test_kill_9_after_a_delivery_repeats_it_once(tmp_path: Path) -> None:
    letters = Outbox(tmp_path).letters("slack")
    assert letters.begin(letters.put((MESSAGE, time.time()))), "sent, and then killed"
    letters.close()
    with webhook() as hook:
        for _ in range(2):
            letters = Letters(tmp_path / "slack")
            sending = ChannelQueue(SlackNotifier(hook.url, FAST), letters, lambda name: None, pace_s=0)
            sending.end()
            sending.join(patient(10))
    assert len(hook.got) == 1
    assert files(tmp_path / "slack") == []


def test_a_message_that_ends_each_process_is_given_up_with_one_line(tmp_path: Path) -> None:
    for number in range(BEGUN_MAX):
        letters = Letters(tmp_path)
        file = next((file for _, file in letters.found()), None) or letters.put((MESSAGE, time.time()))
        assert file is not None and file.attempts == number
        assert letters.begin(file)
        letters.close()
    counts: Counter[str] = Counter()
    with webhook() as hook, capture_logs() as lines:
        sending = ChannelQueue(SlackNotifier(hook.url, FAST), Letters(tmp_path), lambda name: counts.update([name]))
        sending.put(replace(MESSAGE, title="next"))
        sending.end()
        sending.join(patient(10))
    assert [("next" in json.dumps(one)) for one in hook.got] == [True]
    assert [(line["event"], line["title"]) for line in lines] == [("alert_given_up", MESSAGE.title)]
    assert (counts, files(tmp_path)) == ({"failed": 1, "sent": 1}, ["0000000000000001--3.bad"])


def test_a_clock_that_is_set_ahead_gives_no_waiting_message_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()
    with webhook(503) as hook:
        sending = ChannelQueue(
            SlackNotifier(hook.url, FAST), Letters(tmp_path), lambda name: counts.update([name]), pace_s=0, pause_s=0.05
        )
        sending.put(MESSAGE)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 400 * 86_400)
        wait_until(lambda: sending.state()["failures"] > 2)
        hook.status = 200
        wait_until(lambda: counts["sent"] == 1)
        sending.end()
        sending.join(patient(10))
    assert (counts, files(tmp_path)) == ({"sent": 1}, [])


def test_a_message_that_a_channel_does_not_take_for_too_long_is_given_up(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    with webhook(503) as hook:
        sending = ChannelQueue(
            SlackNotifier(hook.url, FAST), Letters(tmp_path), lambda name: counts.update([name]),
            pace_s=0, pause_s=0.05, give_up_s=0.5,
        )  # fmt: skip
        sending.put(MESSAGE)
        wait_until(lambda: counts["failed"] == 1)
        sending.end()
        sending.join(patient(10))
    assert len(hook.got) > 1 and files(tmp_path) == ["0000000000000001--1.bad"], "kept for a person"


def test_a_message_that_is_refused_is_not_tried_again(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    with webhook(400) as hook:
        sending = ChannelQueue(SlackNotifier(hook.url, FAST), Letters(tmp_path), lambda name: counts.update([name]))
        sending.put(MESSAGE)
        sending.end()
        sending.join(patient(10))
        assert len(hook.got) == 1
    assert (counts, files(tmp_path)) == ({"failed": 1}, ["0000000000000001--1.bad"])


def test_a_disk_that_takes_nothing_does_not_keep_an_alert_from_going_out(tmp_path: Path) -> None:
    with webhook() as hook, capture_logs() as lines:
        sink = AlertSink(AlertManager([SlackNotifier(hook.url, FAST)]), Outbox(tmp_path / "box"))
        shutil.rmtree(tmp_path / "box")
        (tmp_path / "box").write_text("a file")
        sink.accept(verdicts([], incidents=(incident(),)))
        sink.close()
        assert len(hook.got) == 1
    assert {line["event"] for line in lines} == {"alert_not_kept"}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"[]", b"{}", b"null", b'{"severity": 9}', b"\xff", EMPTY]),
    )
)
def test_damaged_files_are_told_and_set_aside(tmp_path: Path, content: bytes) -> None:
    outbox = Outbox(tmp_path)
    list(outbox.found())
    outbox.store(incident(), Event.NEW)
    outbox.close()
    (tmp_path / "0000000000000007-0.json").write_bytes(content)
    (tmp_path / "notes.json").write_bytes(content)
    (tmp_path / "0000000000000008-0.tmp").write_bytes(content)
    with capture_logs() as lines:
        outbox = Outbox(tmp_path)
        found = list(outbox.found())
    assert [content for content, _ in found] == [(incident(), Event.NEW)]
    assert [line["event"] for line in lines] == ["alert_unreadable"]
    assert (tmp_path / "notes.json").exists()
    outbox.done(found[0][1])
    outbox.close()
    assert files(tmp_path) == ["0000000000000007-0.bad", "notes.json"]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(reason=st.text(), score=st.floats(0, 1))
def test_an_incident_comes_back_as_it_was_and_in_order(tmp_path: Path, reason: str, score: float) -> None:
    outbox = Outbox(tmp_path)
    list(outbox.found())
    put = [incident(reasons=(reason,), score=score, client=f"192.0.2.{number}") for number in range(12)]
    for one in put:
        outbox.store(one, Event.UPDATE)
    outbox.close()
    outbox = Outbox(tmp_path)
    found = list(outbox.found())
    assert [content for content, _ in found] == [(one, Event.UPDATE) for one in put]
    for _, file in found:
        outbox.done(file)
    outbox.close()
