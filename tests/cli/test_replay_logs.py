"""The same traffic as a capture and as logs: the same incidents; what a log does not have is said, not made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agents.dns.message import type_name
from agents.dns.name import to_text
from agents.sources import open_source
from tests.support.commands import Inside
from tests.support.log_lines import ZEEK_HEAD

pytestmark = pytest.mark.integration

DEMO = Path(__file__).parents[1] / "data" / "demo.pcap.gz"
Line = Callable[[float, str, str, str], str]


def stamp(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def as_bind(ts: float, client: str, qname: str, qtype: str) -> str:
    return f"{stamp(ts)[:-3]}Z queries: info: client @0x7f {client}#53 ({qname}): query: {qname} IN {qtype} + (::1)"


def as_dnsdist(ts: float, client: str, qname: str, qtype: str) -> str:
    return f"[{int(ts)}.{int(ts % 1 * 1e9)}] Packet from {client}:53 for {qname}. {qtype} with id 1"


def as_zeek(ts: float, client: str, qname: str, qtype: str) -> str:
    return f"{ts:.6f}\tC\t{client}\t53\t{qname.lower()}\t-\t{qtype}\t-\t-\t-\t-"


def as_eve(ts: float, client: str, qname: str, qtype: str) -> str:
    dns = {"version": 3, "type": "request", "queries": [{"rrname": qname, "rrtype": qtype}]}
    record = {"timestamp": f"{stamp(ts)}+0000", "event_type": "dns", "src_ip": client, "dest_port": 53, "dns": dns}
    return json.dumps(record)


FORMATS: dict[str, tuple[str, Line]] = {
    "bind": ("", as_bind),
    "dnsdist": ("", as_dnsdist),
    "suricata": ("", as_eve),
    "zeek": (ZEEK_HEAD, as_zeek),
}


@pytest.fixture(scope="module")
def asked() -> list[tuple[float, str, str, str]]:
    return [
        (float(ts), client, to_text(qname), type_name(int(qtype)))
        for batch in open_source([DEMO]).batches(1000)
        for ts, client, qname, qtype in zip(batch.ts, batch.client, batch.qname, batch.qtype, strict=True)
    ]


def essence(rows: list[dict[str, Any]]) -> list[tuple[str, str, str, str, int]]:
    names = ("client", "domain", "severity", "tool", "unique_names")
    return [tuple(row[name] for name in names) for row in rows if row["type"] == "incident"]


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_a_log_gives_the_incidents_of_the_capture(
    kind: str, asked: list[tuple[float, str, str, str]], tmp_path: Path, inside: Inside
) -> None:
    head, line = FORMATS[kind]
    (tmp_path / "queries.log").write_text(head + "".join(line(*row) + "\n" for row in asked))
    of_log = inside("replay", "queries.log", "--json", "-")
    of_capture = inside("replay", str(DEMO), "--json", "-")
    assert essence(of_log.rows) == essence(of_capture.rows) != []
    (incident,) = [row for row in of_log.rows if row["type"] == "incident"]
    assert any("answers: " in text for text in incident["evidence"]["losses"])
    (plain,) = [row for row in of_capture.rows if row["type"] == "incident"]
    assert "losses" not in plain["evidence"]
    assert abs(incident["leaked_bytes"] - plain["leaked_bytes"]) < 0.05 * plain["leaked_bytes"]
    assert of_log.err.startswith("dns-tunnel: queries.log is read as ")


def test_explain_and_store_keep_what_is_not_known(
    asked: list[tuple[float, str, str, str]], tmp_path: Path, inside: Inside
) -> None:
    (tmp_path / "queries.log").write_text("".join(as_bind(*row) + "\n" for row in asked))
    found = inside("replay", "queries.log", "--json", "-", "--store", "--source", "")
    (incident,) = [row for row in found.rows if row["type"] == "incident"]
    shown = inside("explain", incident["client"], incident["domain"])
    assert "came in     not known" in shown.out
    assert "not known   answers: none: data in answers is not seen" in shown.out
