"""Alerts that one process writes and another sends: each letter once, whatever ends the sender."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agents.alerting import handover
from agents.alerting.handover import HANDED, HandOver, Sender, letters_in
from agents.alerting.manager import CHANNELS
from agents.core.errors import NotifyError
from agents.core.files import locked
from agents.core.types import Message, Severity
from agents.runtime.health import UNSENT_S, ProcessHealth
from agents.runtime.heartbeat import OUTBOX
from tests.alerting.test_outbox import leaking
from tests.support.commands import BASE, environment
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.running import ROOT
from tests.support.supervised import Load, supervised
from tests.support.webhook import Webhook, webhook

pytestmark = pytest.mark.integration

SENDING = """
import sys, time
from pathlib import Path
from agents.alerting.delivery import RetryPolicy
from agents.alerting.handover import Sender
from agents.alerting.slack import SlackNotifier
one = Sender([SlackNotifier(sys.argv[2], RetryPolicy(1, 0.01))], Path(sys.argv[1]), pace_s=0.0, pause_s=0.05)
one.start()
sys.stdin.read()
one.stop()
"""


def hand_over(outbox: Path, *titles: str, severity: Severity = Severity.HIGH) -> None:
    for title in titles:
        asyncio.run(HandOver(outbox).send(Message(title, "A summary", [("Client", "192.0.2.1")], severity)))


def titles(hook: Webhook, since: int = 0) -> Counter[str]:
    """How often each letter came; one request shows its title more than once."""
    return Counter(title for one in hook.got[since:] for title in set(re.findall(r"letter-\d+", json.dumps(one))))


@contextmanager
def sending(outbox: Path, hook: Webhook) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", SENDING, str(outbox), hook.url]
    one = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment(), cwd=ROOT)
    try:
        yield one
    finally:
        one.kill()
        one.wait()


def owner(outbox: Path) -> int:
    """The process that sends."""
    try:
        return int((outbox / "sender.lock").read_text() or 0)
    except FileNotFoundError:
        return 0


class Channel:
    """A channel of the test that keeps what it gets."""

    name = "slack"

    def __init__(self) -> None:
        self.got: list[Message] = []

    async def send(self, message: Message) -> None:
        self.got.append(message)


@pytest.mark.slow
def test_two_senders_send_each_letter_once_and_one_follows_the_other(tmp_path: Path) -> None:
    with webhook() as hook, sending(tmp_path, hook) as first, sending(tmp_path, hook) as second:
        hand_over(tmp_path, *(f"letter-{number}" for number in range(20)))
        wait_until(lambda: len(titles(hook)) == 20 and not list(tmp_path.rglob("*.json")))
        running = {one.pid: one for one in (first, second)}
        running.pop(owner(tmp_path)).kill()
        (left,) = running
        wait_until(lambda: owner(tmp_path) == left)
        hand_over(tmp_path, *(f"letter-{number}" for number in range(20, 30)))
        wait_until(lambda: len(titles(hook)) == 30)
        wait_until(lambda: not list(tmp_path.rglob("*.json")))
        assert set(titles(hook).values()) == {1}


@pytest.mark.slow
def test_kill_9_while_a_channel_is_away_loses_no_letter_and_repeats_none(tmp_path: Path) -> None:
    names = [f"letter-{number}" for number in range(10)]
    with webhook(503) as hook:
        hand_over(tmp_path, *names)
        with sending(tmp_path, hook) as one:
            wait_until(lambda: bool(hook.got) and not letters_in(tmp_path))
            os.kill(one.pid, signal.SIGKILL)
            one.wait()
        tried, hook.status = len(hook.got), 200
        with sending(tmp_path, hook):
            wait_until(lambda: not list(tmp_path.rglob("*.json")))
        assert titles(hook, tried) == dict.fromkeys(names, 1)


def test_a_letter_that_a_killed_sender_had_moved_is_sent_once(tmp_path: Path) -> None:
    hand_over(tmp_path, "letter-1")
    (path,) = letters_in(tmp_path)
    data, away = path.read_bytes(), Channel()
    away.send = lambda message: _raise(NotifyError("cannot send"))  # type: ignore[method-assign]
    one = Sender([away], tmp_path, pause_s=60.0)
    one.start()
    wait_until(lambda: bool(one.state().get("channels", {}).get("slack", {}).get("failures")))
    one.stop()
    path.write_bytes(data)  # the process was killed before it could remove the letter
    after = Channel()
    two = Sender([after], tmp_path, pace_s=0.0)
    two.start()
    wait_until(lambda: not list(tmp_path.rglob("*.json")))
    two.stop()
    assert [message.title for message in after.got] == ["letter-1"]


async def _raise(error: Exception) -> None:
    raise error


def test_letters_that_waited_for_a_sender_go_out_the_gravest_first(tmp_path: Path) -> None:
    hand_over(tmp_path, "high")
    hand_over(tmp_path, "critical", severity=Severity.CRITICAL)
    channel = Channel()
    one = Sender([channel], tmp_path, pace_s=0.0)
    one.start()
    wait_until(lambda: len(channel.got) == 2)
    one.stop()
    assert [message.title for message in channel.got] == ["critical", "high"]
    assert channel.got[0].facts == [("Client", "192.0.2.1")]


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"title": 3}', b"\xff\xfe"])
def test_what_is_no_letter_is_set_aside_and_told(tmp_path: Path, data: bytes) -> None:
    hand_over(tmp_path, "letter-1")
    (tmp_path / HANDED / "0.json").write_bytes(data)
    channel = Channel()
    with capture_logs() as lines:
        one = Sender([channel], tmp_path, pace_s=0.0)
        one.start()
        wait_until(lambda: len(channel.got) == 1)
        one.stop()
    assert [line["file"] for line in lines if line["event"] == "alert_unreadable"] == ["0.json"]
    assert [path.name for path in (tmp_path / HANDED).glob("*.bad")] == ["0.bad"]


def test_without_a_sender_letters_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "QUEUE_MAX", 2)
    hand_over(tmp_path, "letter-1", "letter-2")
    with pytest.raises(NotifyError, match="cannot hand over a message: 2 wait, no process sends them"):
        hand_over(tmp_path, "letter-3")
    assert len(letters_in(tmp_path)) == 2


def test_a_disk_that_takes_no_letter_is_a_channel_that_is_away(tmp_path: Path) -> None:
    (tmp_path / HANDED).write_text("a file stands where the folder is to be")
    with pytest.raises(NotifyError, match="cannot hand over a message: "):
        hand_over(tmp_path, "letter-1")


def test_while_another_process_owns_a_channel_nothing_is_sent(tmp_path: Path) -> None:
    hand_over(tmp_path, "letter-1")
    channel = Channel()
    other = locked(tmp_path / "slack" / "lock")
    one = Sender([channel], tmp_path)
    with capture_logs() as lines:
        one.start()
        wait_until(lambda: bool(lines))
        assert one.state() == {}
        assert channel.got == []
        other.close()
        wait_until(lambda: len(channel.got) == 1)
        one.stop()
    assert [line["event"] for line in lines] == ["alerts_sent_elsewhere"], "once"


def test_health_says_that_no_process_sends(tmp_path: Path) -> None:
    hand_over(tmp_path / OUTBOX, "letter-1")
    (letter,) = letters_in(tmp_path / OUTBOX)
    health = ProcessHealth(tmp_path, None)  # type: ignore[arg-type]
    health._model.state = lambda: {"ok": True}  # type: ignore[method-assign]
    assert health.components()["channels"] == {"ok": True}
    at = letter.stat().st_mtime - UNSENT_S
    os.utime(letter, (at, at))
    channels = health.components()["channels"]
    assert not channels["ok"]
    assert re.fullmatch(r"cannot send alerts: no scheduler has taken them for 6\d s", channels["error"])


@pytest.mark.slow
def test_a_listener_without_secrets_alerts_through_the_scheduler(tmp_path: Path) -> None:
    """Two services on one DATA_DIR, as compose runs them."""

    def found() -> dict[str, Any]:
        health = ProcessHealth(tmp_path / "data", None)  # type: ignore[arg-type]
        health._model.state = lambda: {"ok": True}  # type: ignore[method-assign]
        return {**health.components(), "metrics": {one.name: one.value for one in health.metrics()}}

    def scheduler(**settings: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "scheduler.log").open("ab") as log:
            env = environment(DATA_DIR=str(tmp_path), ALERTS_SENT_BY="scheduler", **settings)
            return subprocess.Popen([*BASE, "schedule"], cwd=tmp_path, env=env, stdout=log, stderr=log)

    with webhook() as hook, supervised(tmp_path, ALERTS_SENT_BY="scheduler") as one:
        load = Load(one.port, leaking)
        wait_until(lambda: bool(letters_in(tmp_path / "data" / OUTBOX)), 60)
        sender = scheduler(SLACK_WEBHOOK_URL=hook.url)
        try:
            wait_until(lambda: bool(hook.got), 60)
            load.stop()
            assert "127.0.0.1" in json.dumps(hook.got)
            wait_until(lambda: found()["channels"] == {"ok": True, "handover": 0, "slack": 0}, 30)
            wait_until(lambda: found()["metrics"]["alerts_sent_total"] == len(hook.got), 30)
            assert "channels" not in found()["scheduler"]
            assert found()["metrics"]["channel_slack_waiting"] == 0
        finally:
            sender.terminate()
            assert sender.wait(patient(30)) == 0


def test_composes_listener_gets_no_secret_but_the_databases() -> None:
    """What docker-compose.yml blanks; tests/e2e looks into the container."""
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    (listener,) = re.findall(r"\n  listener:\n(.*?)\n  \w+:\n", compose, re.DOTALL)
    blank = set(re.findall(r'^      ([A-Z_]+): ""', listener, re.MULTILINE))
    secrets = {field.name.upper() for spec in CHANNELS for field in spec.fields if field.secret}
    assert blank == secrets | {"API_TOKEN", "OIDC_CLIENT_SECRET"}
