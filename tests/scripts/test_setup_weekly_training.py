from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
MARK = "# dns-tunnel-detector: weekly retraining"
CRONTAB = """#!/bin/sh
# A crontab program that keeps one file, with the words and exit codes of Debian's cron.
case $1 in
-l) if [ -f "$TAB" ]; then cat "$TAB"; else echo "no crontab for me" >&2; exit 1; fi ;;
-r) rm "$TAB" ;;
-) cat >"$TAB" ;;
*) exit 2 ;;
esac
"""


class Host:
    """A project folder and a PATH on which `crontab` and, if wanted, `docker` are ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "it's 100% a project"
        self.bin = folder / "bin"
        self.tab = folder / "tab"
        (self.project / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        self.script = Path(shutil.copy(ROOT / "scripts" / "setup_weekly_training.sh", self.project / "scripts"))
        self.program("crontab", CRONTAB)
        for name in (
            "sh",
            "cat",
            "rm",
            "sed",
            "grep",
            "mkdir",
            "mktemp",
            "head",
            "tail",
            "dirname",
            "env",
            "xargs",
        ):
            (self.bin / name).symlink_to(shutil.which(name) or f"/bin/{name}")

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def venv(self) -> None:
        python = self.project / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text('#!/bin/sh\necho "retrained with $*" >>"$OUT"\n')
        python.chmod(0o755)

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        known = {"PATH": str(self.bin), "TAB": str(self.tab), "OUT": str(self.folder / "out")}
        command = [str(self.script), *arguments]
        return subprocess.run(
            command,
            env={**known, "RETRAIN_WHERE": "venv", **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def lines(self) -> list[str]:
        return self.tab.read_text().splitlines() if self.tab.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_installing_twice_leaves_one_line_and_the_others_alone(host: Host) -> None:
    host.tab.write_text("MAILTO=me\n\n0 1 * * * backup # nightly\n")
    for _ in range(2):
        done = host.run()
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("installed: 0 2 * * sun ")
    lines = host.lines()
    assert lines[:3] == ["MAILTO=me", "", "0 1 * * * backup # nightly"]
    assert [line for line in lines if MARK in line] == lines[3:]
    assert len(lines) == 4


def test_removing_takes_only_our_line(host: Host) -> None:
    host.tab.write_text("0 1 * * * backup\n")
    host.run()
    assert host.run("--remove").returncode == 0
    assert host.lines() == ["0 1 * * * backup"]
    done = host.run("--remove")
    assert (done.returncode, host.lines()) == (0, ["0 1 * * * backup"])
    assert "nothing to remove" in done.stdout


def test_without_any_crontab_it_makes_one_and_takes_it_away(host: Host) -> None:
    host.run()
    assert len(host.lines()) == 1
    host.run("--remove")
    assert not host.tab.exists()


def test_the_schedule_comes_from_the_environment_then_from_the_file(host: Host) -> None:
    (host.project / ".env").write_text("RETRAIN_DAYS=3\nRETRAIN_SCHEDULE='30 4 1 * *'\n")
    assert host.run("--print").stdout.startswith("30 4 1 * * cd ")
    assert host.run("--print", RETRAIN_SCHEDULE="*/5 1-3 * jan-mar 1,5").stdout.startswith("*/5 1-3 * jan-mar 1,5 cd ")
    assert host.lines() == []


def test_a_changed_schedule_renews_the_line(host: Host) -> None:
    host.run()
    host.run(RETRAIN_SCHEDULE="0 3 1 * *")
    (line,) = host.lines()
    assert line.startswith("0 3 1 * * ")


@pytest.mark.parametrize(
    "bad", ["0 2 * *", "0 2 * * sun; rm -rf /", "0 2 * * sun\n* * * * * evil", "@weekly", "% % % % %"]
)
def test_a_bad_schedule_is_refused_and_nothing_changes(host: Host, bad: str) -> None:
    host.tab.write_text("0 1 * * * backup\n")
    done = host.run(RETRAIN_SCHEDULE=bad)
    assert done.returncode == 2
    assert done.stderr.startswith("cannot set up weekly training: RETRAIN_SCHEDULE")
    assert len(done.stderr.splitlines()) <= 2
    assert host.lines() == ["0 1 * * * backup"]


def test_a_crontab_that_cannot_be_read_is_not_overwritten(host: Host) -> None:
    host.program("crontab", '#!/bin/sh\n[ "$1" = -l ] && { echo "disk on fire" >&2; exit 1; }\ncat >"$TAB"\n')
    for arguments in ([], ["--remove"]):
        done = host.run(*arguments)
        assert done.returncode == 1
        assert "the crontab cannot be read: disk on fire" in done.stderr
    assert not host.tab.exists()


def test_the_line_really_runs_from_an_odd_folder(host: Host) -> None:
    host.venv()
    host.run()
    (line,) = host.lines()
    command = line.split(maxsplit=5)[5].replace(r"\%", "%")  # cron takes the backslash away
    subprocess.run(["/bin/sh", "-c", command], env={"OUT": str(host.folder / "out")}, check=True)
    assert (host.folder / "out").read_text() == "retrained with scripts/automated_retraining.py\n"
    assert (host.project / "logs" / "cron.log").exists()


def test_on_a_host_with_compose_the_line_goes_into_the_container(host: Host) -> None:
    (host.project / "docker-compose.yml").write_text("services: {}\n")
    host.venv()
    host.program("docker", '#!/bin/sh\n[ "$*" = "compose ps -q api" ] && echo 0123abc\nexit 0\n')
    done = host.run("--print", RETRAIN_WHERE="")
    assert "compose exec -T api python scripts/automated_retraining.py" in done.stdout


def test_in_a_container_without_cron_it_says_what_to_do(host: Host) -> None:
    (host.bin / "crontab").unlink()
    done = host.run(RETRAIN_WHERE="container")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert "the compose service 'scheduler' already retrains on '0 2 * * sun'" in done.stdout
    assert "on the host" in done.stdout


def test_on_a_host_without_cron_it_fails_and_says_what_to_do(host: Host) -> None:
    (host.bin / "crontab").unlink()
    done = host.run()
    assert done.returncode == 1
    assert "install cron" in done.stderr


def test_in_a_container_with_cron_the_line_brings_the_containers_environment(host: Host) -> None:
    assert host.run(RETRAIN_WHERE="container").returncode == 0
    (line,) = host.lines()
    assert "--run" in line
    host.program("python", '#!/bin/sh\necho "$PWD $* $MARKER" >"$OUT"\n')
    pid_one = host.folder / "environ"
    pid_one.write_bytes(f"PATH={host.bin}\0MARKER=two words\nand a line\0OUT={host.folder / 'out'}\0".encode())
    done = host.run("--run", RETRAIN_WHERE="container", RETRAIN_ENVIRON=str(pid_one))
    assert done.returncode == 0, done.stderr
    got = (host.folder / "out").read_text()
    assert got == f"{host.project} scripts/automated_retraining.py two words\nand a line\n"


@pytest.mark.parametrize("arguments", [["--bogus"], ["remove"]])
def test_unknown_arguments_are_bad_usage(host: Host, arguments: list[str]) -> None:
    assert host.run(*arguments).returncode == 2
    assert host.lines() == []


def test_an_unknown_place_is_bad_usage(host: Host) -> None:
    assert host.run(RETRAIN_WHERE="moon").returncode == 2
    assert host.lines() == []


def test_the_script_is_executable() -> None:
    assert os.access(ROOT / "scripts" / "setup_weekly_training.sh", os.X_OK)
