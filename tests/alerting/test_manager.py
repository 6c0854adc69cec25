from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from agents.alerting.delivery import RetryPolicy
from agents.alerting.grouping import Event
from agents.alerting.manager import AlertManager
from agents.alerting.messages import incident_message
from agents.alerting.slack import SlackNotifier
from agents.core.errors import NotifyError, SettingsError
from agents.core.types import ChannelResult, Incident, Message, Severity
from agents.learning.messages import send_run
from agents.learning.report import write_report
from tests.support import run_samples
from tests.support.incidents import incident
from tests.support.patience import patient
from tests.support.webhook import webhook

pytestmark = pytest.mark.integration

FAST = RetryPolicy(attempts=2, base_s=0.01, timeout_s=patient(2.0))


class Channel:
    """A channel of the test: keeps messages, or fails."""

    def __init__(self, name: str = "slack", error: Exception | None = None) -> None:
        self.name, self.error = name, error
        self.got: list[Message] = []
        self.may_go = threading.Event()
        self.may_go.set()

    async def send(self, message: Message) -> None:
        while not self.may_go.is_set():
            await asyncio.sleep(0.005)
        if self.error:
            raise self.error
        self.got.append(message)


def sent(manager: AlertManager, one: Incident) -> tuple[ChannelResult, ...]:
    """The results of an incident that the manager takes; none where it is quiet."""
    return asyncio.run(manager.broadcast(incident_message(one))) if manager.claim(one) else ()


ONE_LINER = (
    "from agents.alerting.manager import AlertManager; import asyncio; am = AlertManager(); "
    "asyncio.run(am.send_slack_alert('test', '1.2.3.4', 0.9, 'HIGH', {}))"
)


def one_liner(folder: Path, env: str) -> subprocess.CompletedProcess[str]:
    (folder / ".env").write_text(env)
    root = str(Path(__file__).resolve().parents[2])
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLACK", "EMAIL", "TEAMS"))}
    command = [sys.executable, "-c", ONE_LINER]
    return subprocess.run(
        command, cwd=folder, env={**clean, "PYTHONPATH": root}, capture_output=True, text=True, check=False
    )


def test_the_one_line_test_of_the_document_sends_one_alert(tmp_path: Path) -> None:
    with webhook() as hook:
        done = one_liner(tmp_path, f"SLACK_WEBHOOK_URL={hook.url}\n")
    assert done.returncode == 0, done.stderr
    assert "alert_sent" in done.stdout
    assert "S3CRET" not in done.stdout + done.stderr
    (payload,) = hook.got
    text = json.dumps(payload)
    assert "1.2.3.4" in text
    assert "HIGH" in text
    assert "test" in text


def test_the_one_line_test_says_what_is_not_set(tmp_path: Path) -> None:
    done = one_liner(tmp_path, "")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith("cannot send to slack: SLACK_WEBHOOK_URL is not set")


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("send_slack_alert", "SLACK_WEBHOOK_URL"),
        ("send_email_alert", "EMAIL_SMTP_HOST"),
        ("send_teams_alert", "TEAMS_WEBHOOK_URL"),
    ],
)
def test_a_channel_that_is_not_set_up_is_named(method: str, setting: str) -> None:
    manager = AlertManager([])
    with pytest.raises(NotifyError, match=f"{setting} is not set"):
        asyncio.run(getattr(manager, method)("x", "1.2.3.4", 0.9, "HIGH", {}))


def test_mail_without_recipients_is_a_bad_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMAIL_SMTP_HOST", "mail.example")
    monkeypatch.setenv("EMAIL_FROM", "a@a.example")
    with pytest.raises(SettingsError, match="EMAIL_TO is not set"):
        AlertManager()


def test_without_arguments_the_quiet_time_is_the_settings_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INCIDENT_QUIET_S", "60")
    monkeypatch.setenv("SLACK_WEBHOOK_URL", "http://127.0.0.1:9/x")
    now = [1e9]
    manager = AlertManager(clock=lambda: now[0])
    assert manager.claim(incident())
    now[0] += 59
    assert not manager.claim(incident())
    now[0] += 2
    assert manager.claim(incident())


@pytest.mark.parametrize("name", [run_samples.HOSTILE, "a" * 5000, "\udc80\x00", "<!channel>", ""])
def test_any_query_can_be_alerted(name: str) -> None:
    with webhook() as hook:
        manager = AlertManager([SlackNotifier(hook.url, FAST)])
        assert asyncio.run(manager.send_slack_alert(name, name, 0.9, name, {name: name, "n": 3}))
    assert "<!channel" not in json.dumps(hook.got)


def test_one_dead_channel_stops_no_other() -> None:
    dead, bug, alive = (
        Channel("teams", NotifyError("cannot send to teams: dead")),
        Channel("email", KeyError("bug S3CRET")),
        Channel("slack"),
    )
    results = sent(AlertManager([dead, bug, alive]), incident())
    assert [(one.channel, one.ok, one.error) for one in results] == [
        ("teams", False, "cannot send to teams: dead"),
        ("email", False, "KeyError"),
        ("slack", True, ""),
    ]
    assert len(alive.got) == 1


def test_an_incident_alerts_once_per_quiet_period_and_again_when_it_rises() -> None:
    now = [1000.0]
    channel = Channel()
    manager = AlertManager([channel], quiet_s=3600, clock=lambda: now[0])

    def send(**changed: object) -> int:
        return len(sent(manager, incident(**changed)))

    assert send(severity=Severity.SUSPICIOUS) == 0
    assert [send(), send()] == [1, 0]
    assert send(client="192.0.2.8") == 1
    assert send(domain="other.example") == 1
    assert [send(severity=Severity.CRITICAL), send(severity=Severity.CRITICAL), send()] == [1, 0, 0]
    now[0] += 3601
    assert [send(), send()] == [1, 0]
    now[0] -= 86_400  # a clock that is set back must not bring a day of silence
    assert [send(), send()] == [1, 0]


def test_a_run_is_told_with_its_report(tmp_path: Path) -> None:
    html, _ = write_report(tmp_path, run_samples.rejected())
    run = replace(run_samples.rejected(), paths={"report": str(html)})
    channel = Channel()
    asyncio.run(send_run(AlertManager([channel]), "https://c.example", run))
    (message,) = channel.got
    assert message.link == f"https://c.example/reports/{html.name}"
    assert [(name, kind) for name, kind, _ in message.attachments] == [(html.name, "text/html")]
    assert "benign names NORMAL (0.9731 ≥ 0.99, missed by 0.0169)" in message.summary
    assert "REJECTED" in message.title


def test_an_incident_is_new_then_an_update_and_ends_once() -> None:
    manager = AlertManager([Channel()])
    ended = incident(closed_at=1_763_604_860.0)
    assert manager.claim(ended) is None, "nobody has heard of it"
    assert manager.claim(incident()) == Event.NEW
    assert manager.claim(incident(severity=Severity.CRITICAL)) == Event.UPDATE
    assert manager.claim(ended) == Event.ENDED
    assert manager.claim(ended) is None
    assert manager.claim(incident()) == Event.NEW


def test_what_was_alerted_before_a_restart_comes_again_only_when_it_rises() -> None:
    now = [1000.0]
    manager = AlertManager([Channel()], clock=lambda: now[0])
    manager.remember([incident()])
    assert not manager.claim(incident())
    assert manager.claim(incident(severity=Severity.CRITICAL))
    manager.remember([incident()])
    assert not manager.claim(incident(severity=Severity.CRITICAL)), "what this process sent counts more"
    assert manager.claim(incident(client="192.0.2.8"))
