from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from agents.alerting import slack, teams
from agents.alerting.delivery import RetryPolicy
from agents.alerting.manager import notifiers_from
from agents.alerting.messages import incident_message
from agents.alerting.slack import SlackNotifier
from agents.alerting.teams import TeamsNotifier
from agents.core.errors import NotifyError, SettingsError
from agents.core.types import Message, Severity
from agents.learning.messages import run_message
from agents.runtime.bootstrap import load_settings
from tests.support import run_samples
from tests.support.incidents import incident
from tests.support.patience import patient
from tests.support.webhook import webhook

pytestmark = pytest.mark.integration

FAST = RetryPolicy(attempts=3, base_s=0.01, wait_max_s=2.0, timeout_s=patient(2.0))
BOTH = pytest.mark.parametrize("kind", [SlackNotifier, TeamsNotifier])
MESSAGE = Message("A title", "A summary", [("Client", "192.0.2.1")], Severity.HIGH, link="https://c.example/r")


def check_slack(payload: dict[str, object]) -> None:
    blocks = payload["blocks"]
    assert isinstance(blocks, list)
    assert isinstance(payload["text"], str)
    assert 0 < len(blocks) <= 50
    assert len(json.dumps(payload)) < 13_000
    for block in blocks:
        assert block["type"] in {"header", "section"}
        if block["type"] == "header":
            assert block["text"]["type"] == "plain_text"
            assert len(block["text"]["text"]) <= 150
        for text in [block.get("text"), *block.get("fields", [])]:
            if text and text["type"] == "mrkdwn":
                assert text["verbatim"] is True
                assert 0 < len(text["text"]) <= 2000
        assert len(block.get("fields", [])) <= 10


def check_teams(payload: dict[str, object]) -> None:
    assert payload["type"] == "message"
    attachments = payload["attachments"]
    assert isinstance(attachments, list)
    assert attachments[0]["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert attachments[0]["contentUrl"] is None
    card = attachments[0]["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert card["msteams"] == {"width": "full"}
    assert len(json.dumps(payload).encode()) <= 20_000
    for block in card["body"]:
        assert block["type"] == "RichTextBlock"
        assert all(run["type"] == "TextRun" and run["text"] for run in block["inlines"])


@pytest.mark.parametrize(
    "message",
    [
        MESSAGE,
        run_message(run_samples.deployed(), "https://c.example"),
        run_message(run_samples.rejected(), "https://c.example"),
        run_message(run_samples.failed()),
        incident_message(incident(domain=run_samples.HOSTILE, sample_names=(run_samples.HOSTILE,) * 3)),
        Message("t" * 4000, "s" * 9000, [("k" * 900, "<&>" * 3000)] * 200, Severity.CRITICAL),
    ],
)
def test_payloads_arrive_in_the_shape_and_size_that_the_channels_take(message: Message) -> None:
    with webhook() as hook:
        asyncio.run(SlackNotifier(hook.url, FAST).send(message))
        asyncio.run(TeamsNotifier(hook.url, FAST).send(message))
    check_slack(hook.got[0])
    check_teams(hook.got[1])


def test_no_name_becomes_a_link_or_a_mention() -> None:
    evil = "<!channel> <https://evil.example|click> @here https://evil.example/"
    message = incident_message(incident(domain=evil, sample_names=(evil,), reasons=(evil,)))
    text = json.dumps(slack.payload(message))
    assert "<!" not in text
    assert "<https" not in text
    assert "://" not in text
    assert "evil.example" not in text
    card = json.dumps(teams.payload(message)).replace("http://adaptivecards.io", "")
    assert "://" not in card
    assert "evil.example" not in card


def test_the_report_is_linked_in_both() -> None:
    message = run_message(run_samples.deployed(), "")
    assert message.link is None
    linked = Message("t", "s", [], Severity.NORMAL, link="https://c.example/reports/a.html")
    assert "<https://c.example/reports/a.html|Open report>" in json.dumps(slack.payload(linked))
    action = teams.payload(linked)["attachments"][0]["content"]["actions"][0]
    assert action == {
        "type": "Action.OpenUrl",
        "title": "Open report",
        "url": "https://c.example/reports/a.html",
    }


@BOTH
def test_429_is_waited_out_as_asked(kind: type[SlackNotifier]) -> None:
    with webhook() as hook:
        hook.answers = [(429, {"Retry-After": "1"}), (503, {})]
        begun = time.monotonic()
        asyncio.run(kind(hook.url, FAST).send(MESSAGE))
        assert time.monotonic() - begun >= 1.0
    assert len(hook.got) == 3
    assert hook.got[0] == hook.got[2]


@BOTH
@pytest.mark.parametrize(("status", "requests"), [(400, 1), (404, 1), (302, 1), (500, 3), (429, 3)])
def test_giving_up_is_one_clear_error_without_the_address(
    kind: type[SlackNotifier], status: int, requests: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), webhook(status) as hook, pytest.raises(NotifyError) as caught:
        asyncio.run(kind(hook.url, FAST).send(MESSAGE))
    assert str(caught.value).startswith(f"cannot send to {kind.name}: it answered {status}")
    assert "S3CRET" not in str(caught.value) + caplog.text
    assert len(hook.got) == requests


@BOTH
def test_202_is_success(kind: type[SlackNotifier]) -> None:
    with webhook(202) as hook:
        asyncio.run(kind(hook.url, FAST).send(MESSAGE))
    assert len(hook.got) == 1


@BOTH
def test_a_dead_address_is_tried_again_and_never_shown(kind: type[SlackNotifier]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/S3CRET"
    with pytest.raises(NotifyError, match="tried 3 times") as caught:
        asyncio.run(kind(url, FAST).send(MESSAGE))
    assert "S3CRET" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("url", ["not-an-address-S3CRET", "ftp://x/S3CRET", "http://[S3CRET", ""])
def test_what_is_no_address_is_said_without_showing_it(url: str) -> None:
    with pytest.raises(NotifyError) as caught:
        asyncio.run(SlackNotifier(url, FAST).send(MESSAGE))
    assert "S3CRET" not in str(caught.value)


@BOTH
def test_a_redirect_takes_no_message_elsewhere(kind: type[SlackNotifier]) -> None:
    with webhook() as other, webhook() as hook:
        hook.answers = [(307, {"Location": other.url})]
        with pytest.raises(NotifyError, match="it answered 307"):
            asyncio.run(kind(hook.url, FAST).send(MESSAGE))
    assert other.got == []


@pytest.mark.parametrize(
    ("url", "plain", "refused"),
    [
        ("http://hooks.example/x", "off", True),
        ("http://192.0.2.1:8080/x", "off", True),
        ("http://hooks.example/x", "on", False),
        ("http://127.0.0.1:9/x", "off", False),
        ("http://[::1]:9/x", "off", False),
        ("http://localhost:9/x", "off", False),
        ("https://hooks.example/x", "off", False),
        ("http://localhost.example/x", "off", True),
    ],
)
@pytest.mark.parametrize("name", ["slack_webhook_url", "teams_webhook_url"])
def test_webhooks_in_the_clear_only_to_loopback(name: str, url: str, plain: str, refused: bool, tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, webhooks_plain_http=plain, **{name: url})
    if not refused:
        assert len(notifiers_from(settings)) == 1
        return
    with pytest.raises(SettingsError, match=f"cannot use setting {name.upper()}: http:// only to loopback") as caught:
        notifiers_from(settings)
    assert "hooks" not in str(caught.value)


def test_a_webhook_that_dribbles_is_left_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = threading.Event()

        def dribble() -> None:
            taken, _ = listening.accept()
            with taken, suppress(OSError):
                taken.sendall(b"HTTP/1.1 200 OK\r\n")
                while not done.wait(0.02):
                    taken.sendall(b"X: y\r\n")

        thread = threading.Thread(target=dribble)
        thread.start()
        hook = SlackNotifier(f"http://127.0.0.1:{listening.getsockname()[1]}/x", RetryPolicy(1, timeout_s=0.2))
        with pytest.raises(NotifyError, match=r"no answer within 0\.2 s"):
            asyncio.run(hook.send(MESSAGE))
        done.set()
        thread.join()
