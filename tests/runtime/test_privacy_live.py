"""With PRIVACY set no file, log, message or page holds a client's address; and a client can be erased."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import pytest

from agents.core.archive import MAGIC, unpack
from tests.support.commands import Inside
from tests.support.listening import wait_until
from tests.support.live import Running, running
from tests.support.patience import patient

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ADDRESS = "127.9.87.65"
"""Loopback as others are, and nobody else's."""


def ask(live: Running, count: int = 60, seed: int = 1) -> None:
    """A tunnel of one client."""
    draw = random.Random(seed)
    for _ in range(count):
        question = dns.message.make_query(f"{draw.randbytes(25).hex()}.t.privacytest.net", "TXT")
        dns.query.udp(question, "127.0.0.1", port=live.dns_port, source=ADDRESS, timeout=patient(5))


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Each file, unpacked where it is packed."""
    for path in filter(Path.is_file, folder.rglob("*")):
        data = path.read_bytes()
        if data.startswith(MAGIC):
            archive = unpack(data, 1 << 30)
            data = archive.line + bytes(archive.body)
        yield path, gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def holding(folder: Path, text: str) -> list[str]:
    """Names of files that hold a text."""
    return [str(path.relative_to(folder)) for path, data in contents(folder) if text.encode() in data]


def tunnel_found(live: Running) -> list[dict[str, object]]:
    wait_until(lambda: live.stored() >= 60 and bool(live.get("/incidents")["incidents"]), 30)
    found: list[dict[str, object]] = live.get("/incidents")["incidents"]
    return found


@pytest.mark.parametrize("mode", ["truncate", "pseudonymise"])
def test_no_file_holds_the_address(tmp_path: Path, mode: str) -> None:
    exported = tmp_path / "incidents.ndjson"
    # Nobody listens at the webhook, so its messages wait in the outbox.
    more = {"SLACK_WEBHOOK_URL": "http://127.0.0.1:9/x", "EXPORT_FILE": str(exported), "RETRAIN_SCHEDULE": "0 2 * * 0"}
    with running(tmp_path, PRIVACY=mode, **more) as live:
        ask(live)
        (found,) = tunnel_found(live)
        wait_until(lambda: any((tmp_path / "data").rglob("outbox/*/*.json")))
        wait_until(exported.exists)
        pages = [live.client.get(path).text for path in ("/", "/incidents", "/queries", "/metrics", "/health")]
        assert live.stop() == 0
    assert found["client"] != ADDRESS
    assert str(found["client"]) in exported.read_text()
    assert holding(tmp_path, ADDRESS) == []
    assert not any(ADDRESS in page for page in pages)


def test_without_a_database_what_waits_does_not_hold_it_either(tmp_path: Path) -> None:
    with running(tmp_path, PRIVACY="pseudonymise") as live:
        ask(live, 1)
        wait_until(lambda: live.stored() >= 1)
        (tmp_path / "data" / "dns-tunnel.db").rename(tmp_path / "data" / "away.db")
        ask(live, 60, 2)
        wait_until(lambda: any((tmp_path / "data" / "spool").glob("*.npz")))
        assert holding(tmp_path, ADDRESS) == []


@pytest.mark.parametrize(("kept", "shown"), [("suspicious", True), ("none", False)])
def test_names_are_kept_as_told(tmp_path: Path, kept: str, shown: bool) -> None:
    with running(tmp_path, STORE_NAMES=kept) as live:
        live.ask("private.shop.privacytest.org")
        ask(live)
        (found,) = tunnel_found(live)
        wait_until(lambda: live.stored() >= 61)
        stored = live.get("/queries", limit=1000)["queries"]
        assert live.stop() == 0
    assert bool(found["sample_names"]) is shown
    assert holding(tmp_path / "data", "private.shop") == []
    assert {row["qname"] for row in stored if row["severity"] == "NORMAL"} <= {"privacytest.org", "privacytest.net"}
    assert any(len(row["qname"]) > 40 for row in stored) is shown


@pytest.mark.parametrize("alive", [True, False])
def test_a_client_is_exported_and_erased(tmp_path: Path, inside: Inside, alive: bool) -> None:
    with running(tmp_path, PRIVACY="off") as live:
        ask(live)
        live.ask("www.shop.privacytest.org")
        tunnel_found(live)
        if not alive:
            assert live.stop() == 0
        at = ("--data-dir", str(tmp_path), "client")
        rows = [json.loads(line) for line in inside(*at, "export", ADDRESS).out.splitlines()]
        assert {row["type"] for row in rows} == {"incident", "query"}
        refused = inside(*at, "erase", ADDRESS)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        done = inside(*at, "erase", ADDRESS, "--yes")
        assert done.code == 0, done.err
        assert done.out.startswith("60 queries, 0 sums, 0 flow-hours, 1 incidents")
        assert inside(*at, "export", ADDRESS).out == ""
        if alive:
            assert live.stop() == 0
    left = [name for name in holding(tmp_path, ADDRESS) if not name.endswith(".log")]
    assert left == [], "neither database, windows nor messages"
