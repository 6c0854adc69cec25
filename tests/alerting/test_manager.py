from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.alerting.delivery import RetryPolicy
from agents.alerting.manager import RETRY_S, AlertManager, AlertSink
from agents.alerting.outbox import Outbox
from agents.alerting.slack import SlackNotifier
from agents.core.errors import NotifyError, SettingsError
from agents.core.types import ChannelResult, Incident, Message, QueryBatch, Severity, Verdicts
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


def verdicts(*incidents: Incident) -> Verdicts:
    none = np.zeros(0, np.float32)
    batch = QueryBatch(
        ts=np.zeros(0), client=[], qname=[], qtype=np.zeros(0, np.uint16), qlen=np.zeros(0, np.int32),
        rcode=np.zeros(0, np.int16), ancount=np.zeros(0, np.int32), rlen=np.zeros(0, np.int32),
        ttl_min=np.zeros(0, np.int64), rtt_ms=none, ans_types=[],
    )  # fmt: skip
    return Verdicts(batch, [], none.reshape(0, 1), none, np.zeros(0, np.uint8), [], "m", incidents)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end, "waited 10 s"
        time.sleep(0.005)


def sent(manager: AlertManager, one: Incident) -> tuple[ChannelResult, ...]:
    """The results of an incident that the manager takes; none where it is quiet."""
    return asyncio.run(manager.send_claimed(one)) if manager.claim(one) else ()


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


def test_an_alert_that_no_channel_took_comes_again_soon() -> None:
    now = [1000.0]
    channel = Channel(error=NotifyError("cannot send"))
    manager = AlertManager([channel], clock=lambda: now[0])
    assert [one.ok for one in sent(manager, incident())] == [False]
    channel.error = None
    assert sent(manager, incident()) == ()
    now[0] += RETRY_S
    assert [one.ok for one in sent(manager, incident())] == [True]


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


def test_the_sink_never_blocks_and_sends_from_its_own_thread(tmp_path: Path) -> None:
    channel = Channel()
    channel.may_go.clear()
    sink = AlertSink(AlertManager([channel]), Outbox(tmp_path), queue_max=2)
    begun = time.monotonic()
    for number in range(20):
        sink.accept(verdicts(incident(client=f"192.0.2.{number}"), incident(severity=Severity.SUSPICIOUS)))
    assert time.monotonic() - begun < 1
    assert sink.counts["dropped"] >= 17
    channel.may_go.set()
    sink.close()
    assert sink.counts["sent"] + sink.counts["dropped"] == 20
    assert len(channel.got) == sink.counts["sent"] >= 2


def test_the_sink_counts_what_it_suppressed_and_what_failed(tmp_path: Path) -> None:
    channel = Channel(error=NotifyError("cannot send"))
    sink = AlertSink(AlertManager([channel]), Outbox(tmp_path))
    sink.accept(verdicts(incident(), incident()))
    sink.close()
    assert sink.counts == {"suppressed": 1, "failed": 1}


def test_closing_does_not_wait_for_ever_for_a_hanging_channel(tmp_path: Path) -> None:
    channel = Channel()
    channel.may_go.clear()
    sink = AlertSink(AlertManager([channel]), Outbox(tmp_path), close_s=0.2)
    sink.accept(verdicts(incident(), incident(client="192.0.2.8")))
    until(lambda: sink.waiting == 1)
    begun = time.monotonic()
    sink.close()
    assert time.monotonic() - begun < 2
    assert sink.counts == {}
    shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("lock"))  # it is held until the end
    left = Outbox(tmp_path / "copy")
    assert [due.incident.client for due in left.found()] == ["192.0.2.7", "192.0.2.8"], "sent next time"
    left.close()
    channel.may_go.set()


def test_without_channels_nothing_is_queued(tmp_path: Path) -> None:
    sink = AlertSink(AlertManager([]), Outbox(tmp_path))
    sink.accept(verdicts(incident()))
    assert sink.waiting == 0
    sink.close()


def test_an_incident_that_closes_alerts_nobody(tmp_path: Path) -> None:
    channel = Channel()
    manager = AlertManager([channel])
    assert sent(manager, incident(closed_at=1_763_604_860.0)) == ()
    sink = AlertSink(manager, Outbox(tmp_path))
    sink.accept(verdicts(incident(closed_at=1_763_604_860.0, severity=Severity.CRITICAL)))
    sink.close()
    assert (channel.got, sink.counts) == ([], {})


def test_what_was_alerted_before_a_restart_comes_again_only_when_it_rises() -> None:
    now = [1000.0]
    manager = AlertManager([Channel()], clock=lambda: now[0])
    manager.remember([incident()])
    assert not manager.claim(incident())
    assert manager.claim(incident(severity=Severity.CRITICAL))
    manager.remember([incident()])
    assert not manager.claim(incident(severity=Severity.CRITICAL)), "what this process sent counts more"
    assert manager.claim(incident(client="192.0.2.8"))
