"""`doctor` beside processes that run: it asks them, and says where their settings are not those of its shell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.runtime import bootstrap
from agents.runtime.bootstrap import load_settings
from tests.support.commands import run_inside
from tests.support.listening import wait_until
from tests.support.live import Running, running

pytestmark = [pytest.mark.integration, pytest.mark.slow]
SLACK = "https://hooks.slack.example/services/T0/S3CRET"
PASSWORD = "postgresql://dns:hunter2@127.0.0.1:1/x"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("doctor")
    with running(
        folder, SLACK_WEBHOOK_URL=SLACK, RETRAIN_SCHEDULE="0 4 * * mon", BURN_IN_DAYS="7", COMPARE_TYPES="all"
    ) as made:
        wait_until(lambda: made.get("/health")["status"] == "ok", 60)
        yield made


def lines(one: Running, tmp_path: Path, **settings: str) -> dict[str, str]:
    """What doctor says, by mark and name."""
    done = run_inside(tmp_path, "--data-dir", one.folder, "doctor", **settings)
    found: dict[str, str] = {"code": str(done.code), "all": done.out}
    for line in done.out.splitlines():
        mark, name, text = line.split(maxsplit=2)
        key = f"{mark} {name}"
        found[key] = "\n".join(filter(None, [found.get(key), text]))
    return found


def test_with_the_settings_of_what_runs_nothing_differs(one: Running, tmp_path: Path) -> None:
    said = lines(one, tmp_path, **{name: value for name, value in one.settings.items() if name != "DATA_DIR"})
    assert "warn" not in said["all"], said["all"]
    assert said["ok port"] == "a listener runs on this DATA_DIR"
    assert said.get("ok api") == "it answers; /health says ok", said["all"]


def test_a_shell_without_its_settings_asks_what_runs(one: Running, tmp_path: Path) -> None:
    said = lines(one, tmp_path, LISTEN_PORT="5399")
    assert one.settings["UPSTREAMS"] in said["ok upstreams"]
    assert said["ok schedule"] == "0 4 * * mon (UTC)"
    assert said.get("ok api") == "it answers; /health says ok", said["all"]
    warned = said["warn listener"].splitlines()
    assert f"LISTEN_PORT is {one.dns_port} in what runs, and 5399 here; a restart takes it over" in warned
    assert f"UPSTREAMS is {one.settings['UPSTREAMS']} in what runs, and empty here; a restart takes it over" in warned
    assert "SLACK_WEBHOOK_URL is another in what runs, and not set here; a restart takes it over" in warned


@pytest.mark.slow
def test_no_secret_is_noted_or_shown(one: Running, tmp_path: Path) -> None:
    noted = list((one.folder / "data").glob("*_settings.json"))
    assert sorted(path.name for path in noted) == [
        "api_settings.json",
        "detector_settings.json",
        "scheduler_settings.json",
    ]
    said = lines(one, tmp_path, SLACK_WEBHOOK_URL=SLACK + "2", DATABASE_URL=PASSWORD)["all"]
    assert "SLACK_WEBHOOK_URL is another in what runs, and another here" in said
    assert "DATABASE_URL is not set in what runs, and another here" in said
    for text in (said, *(path.read_text() for path in noted)):
        assert "S3CRET" not in text and "hunter2" not in text
    assert {path.stat().st_mode & 0o777 for path in noted} == {0o600}


@pytest.mark.parametrize(
    "data", ["", "[]", "{}", '{"salt": 3}', '{"salt": "zz", "values": 1}', '{"salt": "00", "values": {}}']
)
def test_what_is_no_note_differs_in_nothing(data: str) -> None:
    noted = json.loads(data or "{}")
    assert bootstrap.differing_settings(load_settings(), noted if isinstance(noted, dict) else {}) == {}


def test_a_note_of_another_value_is_found(tmp_path: Path) -> None:
    before, after = load_settings(data_dir=tmp_path, listen_port=5300), load_settings(listen_port=5301)
    noted = json.loads(json.dumps(bootstrap.noted_settings(before)))
    assert bootstrap.differing_settings(before, noted) == {}
    assert bootstrap.differing_settings(after, noted) == {"listen_port": (5300, 5301)}
    assert bootstrap.as_noted(after, noted).listen_port == 5300
