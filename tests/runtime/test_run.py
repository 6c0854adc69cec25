"""`dns-tunnel run` from outside: real DNS queries, the API, retraining under load, signals, crashes."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import dns.rcode
import pytest

from agents.core.text import defang
from agents.dns.name import NAME_MAX, to_text, wire_of
from agents.learning.baseline import golden_sessions
from tests.support.commands import BASE, environment, free_port, is_one_line, run_inside
from tests.support.filled import fill
from tests.support.listening import wait_until
from tests.support.live import Running, running
from tests.support.patience import patient
from tests.support.running import process
from tests.support.supervised import libraries
from tests.support.webhook import webhook

pytestmark = pytest.mark.integration

FILLED = 300
TUNNEL = [to_text(qname) for qname in golden_sessions()["iodine-txt-base32"].qname]
HOSTILE = wire_of(
    [b"<img/src=x onerror=alert(1)>'", b"\x00\x1b[31m\r\n\xff", b"'; DROP TABLE queries--", b"evil", b"com"]
)
LONG = wire_of([b"\\" * 63, b"<" * 63, b"\x80" * 63, b"&" * 52, b"evil", b"com"])


def send_tunnel(process: Running) -> None:
    for name in TUNNEL:
        process.ask(name, "TXT")


@pytest.mark.slow
def test_a_query_is_answered_scored_and_shown_and_sigterm_ends_it(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        answer = process.ask("www.example.com")
        assert answer.rcode() == dns.rcode.NOERROR
        assert answer.answer[0][0].to_text() == "192.0.2.1"
        wait_until(lambda: process.stored() == 1)
        (row,) = process.get("/queries")["queries"]
        assert (row["qname"], row["domain"], row["severity"]) == ("www.example.com", "example.com", "NORMAL")
        assert (row["rcode"], row["ancount"], row["ans_types"]) == (0, 1, "A")
        assert row["rtt_ms"] >= 0
        assert process.client.get("/queries", headers={"Authorization": "Bearer wrong"}).status_code == 401
        wait_until(lambda: process.get("/health")["status"] == "ok")
        assert process.get("/health")["components"]["model"]["origin"] == "baseline"
        assert (tmp_path / "data" / "api_token").stat().st_mode & 0o777 == 0o600
        assert process.stop() == 0
    log = process.log.read_text()
    assert "answering DNS" in log
    assert "Traceback" not in log
    assert log.count('"stopping"') == 1
    token = process.client.headers["Authorization"].split()[1]
    assert token not in log


def processes(folder: Path) -> dict[str, dict[str, int]]:
    """Those of the newest sign of life."""
    found: dict[str, dict[str, int]] = json.loads((folder / "data" / "detector.json").read_bytes())["processes"]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what a process has loaded is told by Linux")
def test_no_process_loads_scikit_learn_not_even_to_retrain(tmp_path: Path) -> None:
    fill(tmp_path, FILLED)
    with running(tmp_path) as process:
        process.ask("www.example.com")
        wait_until(lambda: process.stored() == 301)
        wait_until(lambda: all(child["up"] for child in processes(tmp_path).values()))
        process.client.post("/retrain")
        wait_until(lambda: len(process.get("/reports")["reports"]) == 1, 60)
        loaded = {name: libraries(child["pid"]) for name, child in processes(tmp_path).items()}
        assert process.stop() == 0
    assert {"listener-1", "detector", "console"} <= set(loaded)
    for name, packages in loaded.items():
        assert "numpy" in packages, name
        assert "sklearn" not in packages, name


@pytest.mark.slow
def test_a_tunnel_is_one_incident_and_one_alert_a_severity(tmp_path: Path) -> None:
    with webhook() as hook, running(tmp_path, SLACK_WEBHOOK_URL=hook.url) as process:
        send_tunnel(process)
        wait_until(lambda: process.stored() == len(TUNNEL))
        send_tunnel(process)
        wait_until(lambda: hook.arrived.is_set())
        (incident,) = process.get("/incidents")["incidents"]
        assert process.stop() == 0
    titles = [one["text"].split(": About")[0] for one in hook.got]
    assert len(titles) == len(set(titles)) <= 2
    assert titles[-1].endswith(f"{incident['severity']}: 127.0.0.1 sends data through {defang(incident['domain'])}")
    assert hook.url not in process.log.read_text()
    assert "S3CRET" not in process.log.read_text()


@pytest.mark.slow
def test_an_open_incident_is_taken_over_after_kill_9(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        send_tunnel(process)
        wait_until(lambda: process.stored() == len(TUNNEL))
        wait_until(lambda: process.get("/incidents")["incidents"][0]["queries"] == len(TUNNEL))
        (before,) = process.get("/incidents", open=True)["incidents"]
        assert (before["client"], before["severity"]) in [("127.0.0.1", "HIGH"), ("127.0.0.1", "CRITICAL")]
        process.kill()
        process.restart()
        wait_until(lambda: process.get("/health")["components"]["listener"]["incidents_open"] == 1)
        process.ask(f"still-here.{before['domain']}", "TXT")
        wait_until(lambda: process.get("/incidents")["incidents"][0]["last_seen"] > before["last_seen"])
        (after,) = process.get("/incidents", open=True)["incidents"]
        assert after["incident_id"] == before["incident_id"]
        assert after["reasons"] == before["reasons"]
        assert process.stop() == 0


@pytest.mark.slow
def test_retraining_by_the_api_swaps_the_model_and_loses_no_query(tmp_path: Path) -> None:
    fill(tmp_path, FILLED)
    with running(tmp_path, RETRAIN_SAMPLES="2000") as process:
        old = process.get("/health")["components"]["listener"]["model_id"]
        done, sent, failed = threading.Event(), [0], [0]

        def ask_on() -> None:
            while not done.is_set():
                sent[0] += 1
                failed[0] += process.ask(f"host{sent[0]}.example.com").rcode() != dns.rcode.NOERROR
                done.wait(0.02)

        asking = threading.Thread(target=ask_on)
        asking.start()
        try:
            started = process.client.post("/retrain")
            assert started.status_code == 202
            assert process.client.post("/retrain").status_code == 409
            wait_until(lambda: process.get("/health")["components"]["listener"]["model_id"] != old, 60)
        finally:
            done.set()
            asking.join()
        assert failed[0] == 0
        health = process.get("/health")["components"]
        assert health["model"] == {"ok": True, "model_id": health["listener"]["model_id"], "origin": "champion"}
        wait_until(lambda: len(process.get("/reports")["reports"]) == 1)
        report = process.get("/reports")["reports"][0]["name"]
        assert started.json()["run_id"] in report
        assert "DEPLOYED" in process.client.get(f"/reports/{report}").text
        wait_until(lambda: process.stored() == min(FILLED + sent[0], 1000))
        process.ask("after.example.com")
        wait_until(lambda: process.get("/queries", limit=1)["queries"][0]["qname"] == "after.example.com")
        assert process.get("/queries", limit=1)["queries"][0]["model_id"] == health["model"]["model_id"]
        assert process.stop() == 0


@pytest.mark.slow
def test_an_unreadable_model_gives_way_to_the_shipped_one_and_health_says_so(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "isolation_forest.npz").write_bytes(b"PK\x03\x04 no model")
    with running(tmp_path) as process:
        health = process.get("/health")
        assert health["status"] == "degraded"
        assert health["components"]["model"]["origin"] == "baseline"
        assert "cannot use model" in health["components"]["model"]["error"]
        assert process.ask("www.example.com").rcode() == dns.rcode.NOERROR
        wait_until(lambda: process.stored() == 1)
        assert (tmp_path / "models" / "isolation_forest.npz").read_bytes() == b"PK\x03\x04 no model"
        assert process.stop() == 0


def test_a_port_that_is_taken_is_one_line_and_nothing_stays_behind(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name, other in (("API_PORT", "LISTEN_PORT"), ("LISTEN_PORT", "API_PORT")):
            settings: dict[str, Any] = {name: port, other: str(free_port())}
            done = run_inside(tmp_path, "run", UPSTREAMS="127.0.0.1:9", **settings)
            assert done.code == 1
            assert done.err.splitlines()[-1].startswith("dns-tunnel: cannot "), done.err
            assert port in done.err.splitlines()[-1]


@pytest.mark.slow
def test_a_second_one_on_the_same_folder_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with running(folder) as first:
        wait_until(lambda: first.get("/health")["components"]["scheduler"].get("next_run"))
        same: dict[str, Any] = {name: first.settings[name] for name in ("LISTEN_PORT", "API_PORT", "UPSTREAMS")}
        other = same | {"LISTEN_PORT": str(free_port())}
        for command, settings, why in (
            ("run", same, f"cannot listen on 127.0.0.1:{first.dns_port}: address already in use"),
            ("run", other, f"cannot use spool {folder}/data/spool: another process holds it (listen or run)"),
            ("api", other, f"cannot listen on 127.0.0.1:{first.api_port}: address already in use"),
            ("schedule", other, f"cannot schedule: another scheduler runs on {folder} (dns-tunnel schedule or run)"),
        ):
            done = run_inside(tmp_path, command, **settings)
            assert (done.code, done.err) == (1, f"dns-tunnel: {why}\n")
        assert first.get("/health")["status"] == "ok"
        assert first.stop() == 0
    with process([*BASE, "--data-dir", str(folder), "schedule"], tmp_path / "log", environment()) as alone:
        wait_until(lambda: "scheduler_started" in (tmp_path / "log").read_text(), 20)
        alone.terminate()
        assert alone.wait(patient(20)) == 0
    assert (tmp_path / "log").read_text().count('"stopping"') == 1


def test_a_bad_setting_opens_no_socket(tmp_path: Path) -> None:
    done = run_inside(tmp_path, "run", RETRAIN_TIMEZONE="Mars/Olympus")
    assert (done.code, is_one_line(done)) == (2, True)
    assert not (tmp_path / "data" / "data" / "detector.json").exists()


@pytest.mark.parametrize("wire", [HOSTILE, LONG], ids=["html, sql and control bytes", "255 octets"])
@pytest.mark.slow
def test_a_hostile_name_comes_out_escaped_everywhere(tmp_path: Path, wire: bytes) -> None:
    """Listener, store, API, console, Slack, log; the report has its own test."""
    text = to_text(wire)
    assert len(LONG) == NAME_MAX
    with webhook() as hook, running(tmp_path, SLACK_WEBHOOK_URL=hook.url) as process:
        assert process.ask(wire, "TXT").question[0].name.to_wire() == wire + b"\0"
        send_hostile_tunnel(process)
        wait_until(lambda: hook.arrived.is_set())
        wait_until(lambda: any(row["qname"] == text for row in process.get("/queries", limit=1000)["queries"]))
        raw = process.client.get("/queries", params={"limit": 1000}).content
        page = console(process)
        assert process.stop() == 0
    for produced in (raw, page.encode(), json.dumps(hook.got).encode(), process.log.read_bytes()):
        for byte in (b"\x00", b"\x1b", b"\x80", b"\xff"):
            assert byte not in produced
    for bad in ("<img", "<script>", "onerror=alert(1)>"):
        assert bad not in page
    assert "evil[.]com" in json.dumps(hook.got[0])
    assert "<img" not in json.dumps(hook.got[0]), "Slack's own escapes"
    assert all(json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{"))


def send_hostile_tunnel(process: Running) -> None:
    """Names of random bytes with markup in them, below evil.com: the incident's samples are hostile too."""
    for number in range(60):
        data = b"<img/src=x>" + bytes((number * 37 + i * 101) % 256 for i in range(30))
        process.ask(bytes((len(data),)) + data + b"\x04evil\x03com", "TXT")


def console(process: Running) -> str:
    """The page that a person sees, and the incident's own page."""
    token = (process.folder / "data" / "api_token").read_text().strip()
    login = process.client.post("/login", data={"password": token}, headers={"Origin": str(process.client.base_url)})
    assert login.status_code in (200, 303), login.text
    html = {"Accept": "text/html"}
    incident = process.get("/incidents")["incidents"][0]["incident_id"]
    pages = [process.client.get(path, headers=html) for path in ("/", f"/console/incidents/{incident}")]
    assert all(page.status_code == 200 for page in pages)
    return "".join(page.text for page in pages)


def test_the_environment_of_the_tests_reaches_no_process() -> None:
    assert "SLACK_WEBHOOK_URL" not in environment()
