"""A token that is added while `run` runs, and a strict group: one query each, and both are stored and incidents."""

from __future__ import annotations

from pathlib import Path

import pytest
from dns.rcode import Rcode

from tests.support.commands import run_inside
from tests.support.listening import wait_until
from tests.support.live import running

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TOKEN = "kX9vQ2mT7pLw4RzB8nYc"


@pytest.mark.parametrize("compiled", ["auto", "off"])
def test_they_are_incidents_at_the_first_query(compiled: str, tmp_path: Path) -> None:
    (tmp_path / "allow.txt").write_text("listed.example\n")
    with running(tmp_path, STRICT_CLIENTS="127.0.0.0/8=allow.txt", COMPILED=compiled) as one:
        assert one.ask("www.listed.example").answer
        assert one.ask("www.evil.example").rcode() == Rcode.NXDOMAIN
        wait_until(lambda: len(one.get("/incidents")["incidents"]) == 1, 20)
        (found,) = one.get("/incidents")["incidents"]
        assert (found["domain"], found["severity"]) == ("evil.example", "HIGH")
        assert found["reasons"][0].startswith("the client is in a strict group and asked for www.evil.example")

        assert run_inside(tmp_path, "--data-dir", tmp_path, "secrets", "add", "db", "--text", TOKEN).code == 0
        names = (f"{n}.{TOKEN}.listed.example" for n in range(1000))
        wait_until(lambda: bool(one.ask(next(names)).answer) and len(one.get("/incidents")["incidents"]) == 2, 20)
        (critical,) = [row for row in one.get("/incidents")["incidents"] if row["domain"] == "listed.example"]
        assert critical["severity"] == "CRITICAL" and "the honeytoken db in plain text" in critical["reasons"][0]

        (tmp_path / "allow.txt").write_text("listed.example\nevil.example\n")
        wait_until(lambda: bool(one.ask("www.evil.example").answer), 20)
        rows = one.get("/queries", limit=100)["queries"]
        refused = [row for row in rows if row["qname"] == "www.evil.example" and row["rcode"] == Rcode.NXDOMAIN]
        assert refused and refused[-1]["severity"] == "HIGH"
