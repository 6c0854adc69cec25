"""A judge with an export set up: a tunnel's incident is in the file, with the settings' severity, and in health."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from agents.core.types import batch_of
from agents.runtime.bootstrap import judge_parts, load_settings, make_folders
from agents.runtime.judging.judge import Judge
from tests.support.detecting import query
from tests.support.listening import wait_until

pytestmark = pytest.mark.integration


def test_an_incident_is_written_for_a_log_shipper(tmp_path: Path) -> None:
    path = tmp_path / "incidents.ndjson"
    settings = load_settings(data_dir=tmp_path, export_file=str(path), export_severity="HIGH")
    make_folders(settings)
    judge = Judge(judge_parts(settings))
    judge.start()
    try:
        rng, now = random.Random(1), time.time()
        names = [f"{rng.randbytes(30).hex()}.t.exporttest.net" for _ in range(40)]
        judge.consume(batch_of([query(now + i / 10, "192.0.2.7", name) for i, name in enumerate(names)]))
        wait_until(lambda: path.exists() and b"\n" in path.read_bytes())
        wait_until(lambda: judge.health().exports["sent"] >= 1)
        assert judge.health().channels["export_file"]["failures"] == 0
    finally:
        judge.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found[0]["event"]["action"] == "dns-tunnel-new" and found[0]["source"]["ip"] == "192.0.2.7"
    assert found[0]["dns"]["question"]["registered_domain"] == "exporttest.net"
