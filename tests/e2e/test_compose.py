"""docker compose, for real: image, four services, Postgres. The commands are those that the manual names."""

from __future__ import annotations

import hashlib
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dns.rcode import Rcode

from tests.e2e.stack import PASSWORD, Stack, engine, stack
from tests.support.running import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if missing := engine():
        pytest.skip(f"the compose tests need a Docker engine: {missing}")
    taken = subprocess.run(["docker", "inspect", "dns-tunnel-api"], capture_output=True, check=False)
    if taken.returncode == 0:
        pytest.skip("a container dns-tunnel-api is here already")
    with stack(Stack(tmp_path_factory.mktemp("compose"))) as made:
        yield made


def test_a_query_is_answered_scored_and_stored(running: Stack) -> None:
    name = "a3f8b2c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8.stored.test"
    for tcp in (False, True):
        assert running.ask(name, tcp=tcp).answer[0][0].to_text() == "192.0.2.1"
    rows = wait_for(lambda: len(found := running.queries("stored.test")) == 2 and found, "both queries are stored")
    assert {(row["qname"], row["rcode"], row["ancount"]) for row in rows} == {(name, 0, 1)}
    loud = [row for row in rows if row["severity"] in {"HIGH", "CRITICAL"}]
    assert len(loud) == 1 and loud[0]["score"] > 0.7, "an odd name is HIGH by itself once a day"
    assert all(row["severity"] != "NORMAL" and row["reasons"] for row in rows)
    assert running.statement("SELECT count(*) FROM queries WHERE domain = 'stored.test'") == "2"
    assert running.get("/queries", token="wrong").status_code == 401


def test_what_no_zone_claims_goes_to_dockers_own_resolver(running: Stack) -> None:
    answer = running.ask("postgres")
    assert answer.rcode() == Rcode.NOERROR
    assert answer.answer[0][0].to_text() in running.exec("getent", "hosts", "postgres")


def test_folders_and_log_are_there_before_any_run(running: Stack) -> None:
    assert "total" in running.exec("ls", "-lh", "/app/models/backups/")
    assert "total" in running.exec("ls", "-lh", "/app/reports/training_reports/")
    assert running.compose("exec", "-T", "api", "cat", "/app/logs/retraining.log").strip() == ""
    assert "retraining.log" not in running.compose(
        "exec", "-T", "api", "timeout", "1", "tail", "-f", "/app/logs/retraining.log", check=False
    )


def test_nothing_runs_as_root_or_can_write_to_the_image(running: Stack) -> None:
    for service in ("api", "listener", "scheduler"):
        status = running.exec("cat", "/proc/1/status", "/proc/self/status", service=service)
        assert re.findall(r"Uid:\s+(\d+)", status) == ["10001", "10001"]
        assert set(re.findall(r"Cap(?:Eff|Prm|Bnd):\s+(\w+)", status)) == {"0" * 16}
        assert set(re.findall(r"NoNewPrivs:\s+(\d)", status)) == {"1"}
        assert "Read-only file system" in running.compose("exec", "-T", service, "touch", "/app/x", check=False)


def test_the_listener_holds_no_secret_but_the_databases(running: Stack) -> None:
    for service, held in (("listener", 0), ("scheduler", 1), ("api", 1)):
        environment = running.exec("env", service=service)
        assert len(re.findall(r"^SLACK_WEBHOOK_URL=http", environment, re.MULTILINE)) == held, service
        assert len(re.findall(r"^API_TOKEN=.+", environment, re.MULTILINE)) == (service == "api"), service
        assert PASSWORD in environment


def test_the_scheduler_sends_the_alerts_of_the_listener(running: Stack) -> None:
    for number in range(300):
        label = hashlib.sha256(str(number).encode()).hexdigest()[:50]
        running.ask(f"{label}.alerted.test")

    def sent() -> bool:
        (line,) = re.findall(r"^dns_tunnel_alerts_sent_total (\S+)", running.get("/metrics").text, re.MULTILINE)
        return float(line) >= 1

    wait_for(sent, "the channel has taken a message")
    assert running.component("channels") == {"ok": True, "handover": 0, "slack": 0}
    assert "alert_failed" not in running.compose("logs", "scheduler", "listener")


def test_kernels_are_warm_in_the_image(running: Stack) -> None:
    said = running.compose("logs", "listener")
    assert "listener_started" in said
    assert "kernels_compiling" not in said


def test_the_weekly_training_is_the_schedulers_work(running: Stack) -> None:
    said = running.exec("/app/scripts/setup_weekly_training.sh")
    assert "'scheduler' already retrains on '0 2 * * sun'" in said
    assert "0 2 * * sun dns-tunnel retrain" in running.exec("crontab", "-l")
    assert "cron is running" in running.exec("service", "cron", "status")
    assert running.component("scheduler")["next_run"] > time.time()


def test_a_retraining_deploys_and_the_listener_takes_the_new_model(running: Stack, tmp_path: Path) -> None:
    for number in range(100):
        running.ask(f"www{number}.everyday.test")
    wait_for(lambda: len(running.queries("everyday.test")) == 100, "there is something to learn from")
    running.statement("DELETE FROM incidents")  # all clients are one here, and near its incidents nothing is learnt
    before, started = running.component("listener")["model_id"], _started(running)
    said = running.exec("python", "scripts/automated_retraining.py")
    assert "DEPLOYED" in said, said
    assert not re.search(r"learned from 0 stored", said), said
    wait_for(lambda: running.component("listener")["model_id"] != before, "the listener has the new model")
    assert running.component("model") == {
        "ok": True,
        "model_id": running.component("listener")["model_id"],
        "origin": "champion",
    }
    assert _started(running) == started, "the listener was restarted"
    assert running.ask("after.reload.test").answer

    (report,) = running.get("/reports").json()["reports"]
    page = running.get(f"/reports/{report['name']}")
    assert page.status_code == 200
    assert report["name"] in running.exec("ls", "-lh", "/app/reports/training_reports/")
    copied = tmp_path / report["name"]
    source = f"dns-tunnel-api:/app/reports/training_reports/{report['name']}"
    subprocess.run(["docker", "cp", source, str(copied)], check=True, capture_output=True)
    assert copied.read_text("utf-8") == page.text
    assert re.search(r"model_backup_\d{8}_\d{6}\.npz", running.exec("ls", "-lh", "/app/models/backups/"))
    assert "event=" in running.exec("cat", "/app/logs/retraining.log")


def _started(running: Stack) -> str:
    ident = running.compose("ps", "-q", "listener").strip()
    shown = ["docker", "inspect", "-f", "{{.State.StartedAt}} {{.RestartCount}}", ident]
    return subprocess.run(shown, check=True, capture_output=True, text=True).stdout


def test_without_postgres_dns_goes_on_and_every_verdict_is_stored_once(running: Stack) -> None:
    running.compose("stop", "-t", "10", "postgres")
    for number in range(100):
        assert running.ask(f"host{number}.away.test").rcode() == Rcode.NOERROR
    wait_for(lambda: running.component("queue").get("waiting"), "batches wait on disk")
    assert running.get("/health").json()["status"] == "degraded"
    assert running.get("/queries").status_code == 503
    running.compose("start", "postgres")
    wait_for(lambda: len(running.queries("away.test")) >= 100, "the verdicts are stored")
    wait_for(lambda: not running.component("queue")["waiting"], "nothing waits on disk")
    counts = running.statement(
        "SELECT count(*), count(DISTINCT qname), max(times) FROM"
        " (SELECT qname, count(*) OVER (PARTITION BY qname) AS times FROM queries WHERE domain = 'away.test') AS rows"
    )
    assert counts == "100|100|1"
    wait_for(lambda: running.get("/health").json()["status"] == "ok", "all is well again")
    for service in ("listener", "api", "scheduler"):
        assert running.exec("dns-tunnel", "health", service, service=service).strip() == f"{service}: ok"


def test_a_health_check_fails_where_its_process_is_not(running: Stack) -> None:
    running.compose("stop", "scheduler")
    said = running.compose("exec", "-T", "api", "dns-tunnel", "health", "scheduler", check=False)
    assert "scheduler: no sign of life" in said


def test_without_a_password_compose_says_what_to_do(tmp_path: Path) -> None:
    if missing := engine():
        pytest.skip(f"the compose tests need a Docker engine: {missing}")
    made = Stack(tmp_path)
    assert made.compose("config", "-q").strip() == ""
    made.env_file.write_text(made.env_file.read_text().replace("POSTGRES_PASSWORD=", "OTHER="))
    said = made.compose("config", "-q", check=False)
    assert "POSTGRES_PASSWORD is missing a value: copy .env.example to .env and set it there" in said
