from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import structlog

from agents.core import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_machines_get_json() -> None:
    out = io.StringIO()
    logs.setup("info", out)
    structlog.get_logger().info("batch_stored", rows=3, name="\n\x1b[31m")
    structlog.get_logger().debug("unseen")
    logging.getLogger("somebody.else").warning("from %s", "elsewhere")
    first, second = [json.loads(line) for line in out.getvalue().splitlines()]
    assert (first["event"], first["rows"], first["level"]) == ("batch_stored", 3, "info")
    assert first["name"] == "\n\x1b[31m"
    assert (second["event"], second["level"]) == ("from elsewhere", "warning")


def test_people_get_a_pretty_line() -> None:
    out = Terminal()
    logs.setup("debug", out)
    structlog.get_logger().debug("batch_stored", rows=3)
    assert "batch_stored" in out.getvalue()
    assert not out.getvalue().startswith("{")


def test_httpx_shows_no_addresses() -> None:
    out = io.StringIO()
    logs.setup("debug", out)
    logging.getLogger("httpx").info("HTTP Request: POST https://hooks.example/S3CRET")
    assert out.getvalue() == ""


def test_a_retraining_goes_to_its_file_too_and_only_while_it_runs(tmp_path: Path) -> None:
    out = io.StringIO()
    logs.setup("info", out)
    path = tmp_path / "logs" / "retraining.log"
    log = structlog.get_logger(logs.RETRAINING_LOGGER)
    with logs.retraining_file(path):
        log.info("retraining_started", run="r1", text="two\nlines")
        structlog.get_logger().info("batch_stored")
    log.info("retraining_finished")
    (line,) = path.read_text().splitlines()
    assert "event=retraining_started" in line
    assert "run=r1" in line
    assert len(out.getvalue().splitlines()) == 3
    with logs.retraining_file(path):
        log.info("retraining_started", run="r2")
    assert len(path.read_text().splitlines()) == 2


def test_the_file_gets_every_step_even_if_only_errors_are_shown(tmp_path: Path) -> None:
    out = io.StringIO()
    logs.setup("error", out)
    with logs.retraining_file(tmp_path / "retraining.log"):
        structlog.get_logger(logs.RETRAINING_LOGGER).info("retraining_started")
    assert "retraining_started" in (tmp_path / "retraining.log").read_text()
    assert out.getvalue() == ""
