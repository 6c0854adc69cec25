"""Formats by the word of others: real syslog-ng, the library of STIX, the models of OCSF."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.alerting.delivery import RetryPolicy
from agents.alerting.grouping import Event
from agents.core.types import Severity
from agents.export.formats import BY_NAME, rfc5424
from agents.export.formats.ocsf import finding
from agents.export.formats.stix import bundle
from agents.export.outputs.syslog import SyslogOutput
from agents.export.record import Record
from tests.support.incidents import incident
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.running import free_port, process

FAST = RetryPolicy(attempts=3, base_s=0.05, timeout_s=patient(5.0))
TEXTS = st.text(max_size=60)
RECORDS = st.builds(
    lambda domain, tool, names, reason, event, severity: Record(
        incident(domain=domain or "x", tool=tool, sample_names=tuple(names), reasons=(reason,), severity=severity),
        event,
        1_763_604_900.0,
    ),
    *(TEXTS, st.none() | TEXTS, st.lists(TEXTS, max_size=3), TEXTS, st.sampled_from(list(Event))),
    st.sampled_from([Severity.SUSPICIOUS, Severity.HIGH, Severity.CRITICAL]),
)


@pytest.mark.slow
@settings(deadline=None)  # the library is loaded at the first
@given(RECORDS)
def test_stix_is_what_the_library_reads(record: Record) -> None:
    stix2 = pytest.importorskip("stix2")
    found = stix2.parse(json.loads(BY_NAME["stix"].render(record)))
    assert {one.type for one in found.objects} >= {"identity"}
    indicators = [one for one in found.objects if one.type == "indicator"]
    assert len(indicators) == bool(record.registered)
    assert [one["id"] for one in bundle(record)["objects"]] == [one.id for one in found.objects]


@settings(deadline=None)  # the library is loaded at the first
@given(RECORDS)
def test_a_detection_finding_is_what_the_models_of_ocsf_read(record: Record) -> None:
    models = pytest.importorskip("py_ocsf_models.events.findings.detection_finding")
    sent = finding(record)
    found = models.DetectionFinding.model_validate(sent)
    assert (int(found.class_uid), int(found.type_uid)) == (2004, sent["type_uid"])
    assert found.finding_info.uid == record.incident.incident_id and int(found.severity_id) == sent["severity_id"]


@contextmanager
def syslog_ng(folder: Path) -> Iterator[tuple[int, Path, Path]]:
    """A collector over TLS: its port, the file of what it understood, the certificate to trust."""
    if shutil.which("syslog-ng") is None:
        pytest.skip("syslog-ng is not installed")
    made = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout {folder}/key -out {folder}/cert"
    subprocess.run(shlex.split(made), check=True, capture_output=True)
    port, out = free_port(), folder / "understood"
    (folder / "syslog-ng.conf").write_text(
        f"""@version: 3.35
        options {{ keep-hostname(yes); log-msg-size(262144); }};
        source s {{ syslog(ip(127.0.0.1) port({port}) transport("tls")
          tls(key-file("{folder}/key") cert-file("{folder}/cert") peer-verify(optional-untrusted))); }};
        destination d {{ file("{out}" template("$(format-json --key .SDATA.* --key MESSAGE \
          --key FACILITY --key MSGID --key PROGRAM)\\n")); }};
        log {{ source(s); destination(d); }};\n"""
    )
    files = [f"--{name}={folder / name}" for name in ("persist-file", "control", "pidfile")]
    command = ["syslog-ng", "-F", "-f", str(folder / "syslog-ng.conf"), *files, "--no-caps"]
    with process(command, folder / "log"):
        wait_until(lambda: _answers(port), 20)
        yield port, out, folder / "cert"


def _answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def params(found: dict[str, Any]) -> dict[str, str]:
    """The parameters of our structured data."""
    data = found.get("_SDATA", found.get(".SDATA", {}))
    values: dict[str, str] = data["incident@32473"]
    return values


@pytest.mark.slow
@pytest.mark.integration
def test_syslog_ng_understands_hostile_names_over_tls(tmp_path: Path) -> None:
    samples: list[Record] = []

    @given(st.lists(RECORDS, min_size=40, max_size=40))
    def gather(records: list[Record]) -> None:
        samples.extend(records)

    gather()
    chosen = [one for one in samples if one.domain.strip() == one.domain][:: max(len(samples) // 60, 1)]
    chosen.append(Record(incident(domain='a"b]c\\d[e=f' + "\u00fc\n\x00\x1b[31m"), Event.NEW, 1_763_604_900.0))
    with syslog_ng(tmp_path) as (port, out, cert):
        output = SyslogOutput(f"tls://localhost:{port}", "rfc5424", str(cert), FAST)
        for one in chosen:
            asyncio.run(output.send(one))
        wait_until(lambda: out.exists() and out.read_bytes().count(b"\n") >= len(chosen), 30)
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(rows) == len(chosen)
    for record, row in zip(chosen, rows, strict=True):
        values = params(row)
        assert values["domain"] == record.domain and values["client"] == record.client
        assert values["id"] == record.incident.incident_id
        assert row["MESSAGE"].lstrip("\ufeff") == rfc5424.sentence(record)
        assert (row["PROGRAM"], row["MSGID"], row["FACILITY"]) == ("dns-tunnel", "incident", "local0")
