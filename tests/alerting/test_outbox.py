"""Alerts that are due outlive the process that was sending them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agents.alerting.delivery import RetryPolicy
from agents.alerting.manager import AlertManager, AlertSink
from agents.alerting.outbox import BEGUN_MAX, Outbox
from agents.alerting.slack import SlackNotifier
from tests.support.incidents import incident
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.stubs import StubServer
from tests.support.supervised import Load, Supervised
from tests.support.verdicts import verdicts
from tests.support.webhook import webhook

pytestmark = pytest.mark.integration

FAST = RetryPolicy(attempts=2, base_s=0.01)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lock")


def leaking(number: int) -> str:
    """Names of two tunnels, one after the other."""
    return f"{hashlib.sha256(str(number).encode()).hexdigest()[:50]}.{'first' if number < 150 else 'second'}.test"


def told(hook: Any, since: int) -> list[str]:
    """Which domain each message names, in order."""
    return ["first" if "first" in json.dumps(one) else "second" for one in hook.got[since:]]


@pytest.mark.timeout(180)
def test_kill_9_while_alerts_are_tried_loses_none_and_repeats_none(tmp_path: Path) -> None:
    outbox = tmp_path / "data" / "outbox"
    with webhook(503) as hook, StubServer() as upstream:
        one = Supervised(tmp_path, upstream, SLACK_WEBHOOK_URL=hook.url)
        one.wait_ready()
        load = Load(one.port, leaking)
        wait_until(lambda: outbox.exists() and len(files(outbox)) == 2 and bool(hook.got), 60)
        os.kill(one.process.pid, signal.SIGKILL)
        one.process.wait(patient(30))
        load.stop()
        assert set(told(hook, 0)) == {"first"}, "it was being tried"
        tried, hook.status = len(hook.got), 200
        one = Supervised(tmp_path, upstream, SLACK_WEBHOOK_URL=hook.url)
        one.wait_ready()
        wait_until(lambda: len(hook.got) == tried + 2, 30)
        wait_until(lambda: files(outbox) == [], 30)
        assert one.stop() == 0
        one = Supervised(tmp_path, upstream, SLACK_WEBHOOK_URL=hook.url)
        one.wait_ready()
        one.next_state()
        assert one.stop() == 0
        assert told(hook, tried) == ["first", "second"], "oldest first, each once"


def test_kill_9_after_a_delivery_repeats_it_once(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    assert list(outbox.found()) == []
    assert outbox.begin(outbox.put(incident())), "sent, and then killed"
    outbox.close()
    with webhook() as hook:
        for _ in range(2):
            sink = AlertSink(AlertManager([SlackNotifier(hook.url, FAST)]), Outbox(tmp_path))
            sink.accept(verdicts([], incidents=(incident(),)))
            sink.close()
            assert sink.counts["sent"] + sink.counts["failed"] == 1
        assert len(hook.got) == 2, "once because of the kill, once because the second sink knows nothing of it"
    assert files(tmp_path) == []


def test_an_alert_that_ends_each_process_is_given_up_with_one_line(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    list(outbox.found())
    outbox.put(incident())
    outbox.put(incident(domain="next.test"))
    outbox.close()
    for _ in range(BEGUN_MAX):
        again = Outbox(tmp_path)
        assert again.begin(next(again.found()))
        again.close()
    with webhook() as hook, capture_logs() as lines:
        sink = AlertSink(AlertManager([SlackNotifier(hook.url, FAST)]), Outbox(tmp_path))
        sink.close()
        assert ["next" in json.dumps(one) for one in hook.got] == [True]
    assert [(line["event"], line["domain"]) for line in lines] == [("alert_given_up", "evil.com")]
    assert sink.counts == {"failed": 1, "sent": 1}
    assert files(tmp_path) == []


def test_what_no_channel_takes_does_not_stay(tmp_path: Path) -> None:
    with webhook(500) as hook:
        sink = AlertSink(AlertManager([SlackNotifier(hook.url, FAST)]), Outbox(tmp_path))
        sink.accept(verdicts([], incidents=(incident(),)))
        sink.close()
        assert len(hook.got) == FAST.attempts
    assert (sink.counts, files(tmp_path)) == ({"failed": 1}, [])


def test_a_disk_that_takes_nothing_does_not_keep_an_alert_from_going_out(tmp_path: Path) -> None:
    with webhook() as hook, capture_logs() as lines:
        sink = AlertSink(AlertManager([SlackNotifier(hook.url, FAST)]), Outbox(tmp_path / "box"))
        shutil.rmtree(tmp_path / "box")
        (tmp_path / "box").write_text("a file")
        sink.accept(verdicts([], incidents=(incident(),)))
        sink.close()
        assert len(hook.got) == 1
    assert [line["event"] for line in lines] == ["alert_not_kept"]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.one_of(st.binary(max_size=40), st.sampled_from([b"[]", b"{}", b"null", b'{"severity": 9}', b"\xff"])))
def test_damaged_files_are_told_and_set_aside(tmp_path: Path, content: bytes) -> None:
    outbox = Outbox(tmp_path)
    list(outbox.found())
    outbox.put(incident())
    outbox.close()
    (tmp_path / "0000000000000007-0.json").write_bytes(content)
    (tmp_path / "notes.json").write_bytes(content)
    (tmp_path / "0000000000000008-0.tmp").write_bytes(content)
    with capture_logs() as lines:
        outbox = Outbox(tmp_path)
        found = list(outbox.found())
    assert [due.incident for due in found] == [incident()]
    assert [line["event"] for line in lines] == ["alert_unreadable"]
    assert (tmp_path / "notes.json").exists()
    outbox.done(found[0])
    outbox.close()
    assert files(tmp_path) == ["0000000000000007-0.bad", "notes.json"]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(reason=st.text(), score=st.floats(0, 1))
def test_an_incident_comes_back_as_it_was_and_in_order(tmp_path: Path, reason: str, score: float) -> None:
    outbox = Outbox(tmp_path)
    list(outbox.found())
    put = [incident(reasons=(reason,), score=score, client=f"192.0.2.{number}") for number in range(12)]
    for one in put:
        outbox.put(one)
    outbox.close()
    outbox = Outbox(tmp_path)
    found = list(outbox.found())
    assert [due.incident for due in found] == put
    for due in found:
        outbox.done(due)
    outbox.close()
