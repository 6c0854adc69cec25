"""Root binds the port; nothing after that is root's."""

from __future__ import annotations

import os
import pwd
import sys
import tempfile
from pathlib import Path

import pytest

from agents.core.errors import SettingsError
from agents.runtime import bootstrap
from agents.runtime.bootstrap import processes
from agents.runtime.privileges import drop_capabilities, user_of
from tests.support.patience import patient
from tests.support.stubs import StubServer
from tests.support.supervised import Load, Supervised

pytestmark = pytest.mark.integration


def _can_become_nobody() -> bool:
    """Root, with a Python that other users can read."""
    if os.geteuid() != 0:
        return False
    folders = (Path(os.__file__), Path(sys.prefix), Path(__file__))
    return all(above.stat().st_mode & 0o001 for folder in folders for above in folder.resolve().parents)


root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.mark.skipif(not _can_become_nobody(), reason="needs root, and a Python that other users can read")
@pytest.mark.timeout(180)
def test_all_processes_become_the_user_and_own_what_they_make(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    with StubServer() as upstream:
        one = Supervised(tmp_path, upstream, RUN_AS="nobody")
        one.wait_ready()
        state = one.next_state()
        load = Load(one.port)
        load.wait_answered(10)
        load.stop()
        pids = [one.process.pid, *(process["pid"] for process in state["processes"].values())]
        uids = {Path(f"/proc/{pid}").stat().st_uid for pid in pids}
        said = {line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "Uid" in line}
        assert one.stop() == 0
    assert uids == {nobody.pw_uid}
    assert all(str(nobody.pw_uid) in line and "\t0" not in line for line in said)
    assert {path.stat().st_uid for path in (tmp_path / "data").rglob("*")} == {nobody.pw_uid}


@root
@pytest.mark.slow
def test_a_folder_that_the_user_cannot_write_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "models" / "backups").mkdir(parents=True)
    with StubServer() as upstream:
        one = Supervised(tmp_path, upstream, RUN_AS="nobody")
        assert one.process.wait(patient(60)) == 1
    assert "cannot run as nobody: " in one.log.read_text()
    assert "chown -R nobody" in one.log.read_text()


def test_an_unknown_user_is_a_bad_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RUN_AS=no-such-user: there is no such user"):
        bootstrap.check_settings(bootstrap.load_settings(data_dir=tmp_path, run_as="no-such-user"))
    assert user_of("") is None


@pytest.mark.parametrize(
    ("listen", "refused"), [("192.0.2.5", True), ("192.0.2.5:53", True), ("192.0.2.5:5300", False)]
)
@root
def test_a_zone_on_a_port_that_needs_root_is_a_bad_setting_without_it(
    tmp_path: Path, listen: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "first_free_port", lambda: 1024)
    for user in ("nobody", ""):
        settings = bootstrap.load_settings(data_dir=tmp_path, rpz_listen=listen, run_as=user)
        if refused and user:
            with pytest.raises(SettingsError, match=r"RPZ_LISTEN: port 53 needs root.*such as 5300"):
                bootstrap.check_settings(settings)
        else:
            bootstrap.check_settings(settings)


def test_state_is_the_owners_alone(tmp_path: Path) -> None:
    settings = bootstrap.load_settings(data_dir=tmp_path)
    settings.state_dir.mkdir(parents=True, mode=0o755)
    bootstrap.make_folders(settings)
    assert settings.state_dir.stat().st_mode & 0o777 == 0o700
    assert "no *.pkl files" in (settings.models_dir / "backups" / "README").read_text()


@root
def test_capabilities_are_given_up_for_good() -> None:
    pid = os.fork()
    if pid == 0:
        drop_capabilities()
        status = Path("/proc/self/status").read_text()
        kept = [line for line in status.splitlines() if line.startswith(("CapEff", "CapPrm", "CapAmb"))]
        os._exit(any(int(line.split()[1], 16) for line in kept))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
