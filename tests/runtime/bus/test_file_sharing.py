"""Known services, honeytokens and learnt models of the host that deploys are soon on every host that judges."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agents.core.errors import AgentsError
from agents.detection.known_services import load_entries
from agents.runtime.bootstrap import learner_of, load_settings, make_folders, store_of
from agents.runtime.bootstrap.bus import shared_files, taken_files
from agents.runtime.bus.file_sharing import FileSender, FileTaker, SharedFile, names_of_files
from agents.stream.bus.link import BusLink
from tests.runtime.bus.test_bus_damage import options_of
from tests.runtime.bus.test_bus_live import CLIENTS
from tests.runtime.several.test_several_live import ask, names_of
from tests.support.bus import SLOTS, Cluster, NatsServer, cluster
from tests.support.commands import environment
from tests.support.listening import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
HEAD = "suffix,factor,reason,author,added,client,expires\n"
FIRST, SECOND = (HEAD + f"{name}.example,own,ours,ann,2026-11-01,,2999-01-01\n" for name in ("one", "two"))


class Shared:
    """One list on a host that sends, and on one that takes."""

    def __init__(self, folder: Path, url: str) -> None:
        self.link = BusLink(options_of(url), "test")
        self.here, self.there, self.state = folder / "a" / "k.csv", folder / "b" / "k.csv", folder / "b"
        self.here.parent.mkdir()
        self.there.parent.mkdir()
        self.sender = FileSender(lambda: self.link, [SharedFile("k", self.here, load_entries)], "a")

    def taken(self, file: Path | None = None) -> None:
        """What a process that begins now takes."""
        FileTaker(lambda: self.link, [SharedFile("k", file or self.there, load_entries)], self.state).look(self.link)

    def sent(self, text: str) -> None:
        self.here.write_text(text)
        self.sender.look(self.link)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    server = NatsServer(tmp_path / "nats")
    made = Shared(tmp_path, server.url)
    try:
        yield made
    finally:
        made.link.close()
        server.kill()


def test_each_change_is_taken_once_and_what_was_here_is_kept(shared: Shared) -> None:
    shared.sender.look(shared.link)
    shared.taken()
    assert not shared.there.exists(), "nothing was made yet"
    shared.there.write_text(HEAD)
    shared.sent(FIRST)
    shared.taken()
    assert shared.there.read_text() == FIRST
    assert shared.there.with_name("k.csv.before_bus").read_text() == HEAD
    shared.there.write_text(HEAD + "# by a person of this host, later\n")
    shared.sender.look(shared.link)
    shared.taken()
    assert "by a person" in shared.there.read_text()
    for text in (SECOND, FIRST):
        shared.sent(text)
        shared.taken()
        assert shared.there.read_text() == text
    assert len(names_of_files(shared.link)) == 1 and oct(shared.there.stat().st_mode)[-3:] == "644"


def test_a_list_that_cannot_be_used_is_not_sent_and_one_that_comes_is_not_taken(shared: Shared) -> None:
    shared.sent(FIRST)
    shared.taken()
    with pytest.raises(AgentsError, match=r"k\.csv, line 2"):
        shared.sent(HEAD + "one.example,a lot,ours,ann,2026-11-01,,2999-01-01\n")
    shared.taken()
    assert shared.there.read_text() == FIRST
    wrong = FileSender(lambda: shared.link, [SharedFile("k", shared.here, lambda path: path)], "a")
    wrong.look(shared.link)
    taker = FileTaker(lambda: shared.link, [SharedFile("k", shared.there, load_entries)], shared.state)
    with capture_logs() as logs:
        taker.step()
        taker.step()
    assert [one["event"] for one in logs] == ["files_not_shared"] and "cannot take k" in logs[0]["error"]
    assert shared.there.read_text() == FIRST
    assert [path.name for path in shared.state.iterdir() if path.name.startswith(".")] == []


def test_a_host_that_shares_the_folder_does_not_undo_what_is_new_there(shared: Shared) -> None:
    shared.sent(FIRST)
    shared.here.write_text(SECOND)
    os.utime(shared.here, (time.time() + 1,) * 2)
    shared.taken(shared.here)
    assert shared.here.read_text() == SECOND


def test_a_list_that_a_setting_names_is_that_hosts_own(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text(FIRST)
    settings = load_settings(data_dir=tmp_path, allowlist=own)
    assert shared_files(settings)[0].name == "known-services"
    assert [one.name for one in taken_files(settings)] == ["honeytokens", "flow-model", "image-model"]


def run_on(folder: Path, bus: Cluster, *command: str) -> str:
    """What a command says on a host."""
    env = environment(**bus.settings | {"DATA_DIR": str(folder)})
    ran = [sys.executable, "-m", "agents", *command]
    return subprocess.run(ran, cwd=folder, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_what_a_person_knows_and_what_is_learnt_is_in_force_on_hosts_that_judge(tmp_path: Path) -> None:
    with cluster(tmp_path) as bus:
        host, deploying, judging = bus.listening("a"), bus.deploying("s"), bus.detecting("d1")
        for one in (host, deploying, judging):
            one.wait_ready()
        wait_until(lambda: len(judging.slots) == SLOTS, 60)
        run = partial(run_on, deploying.folder, bus)
        run("allow", "add", "ours.test", "--factor", "own", "--reason", "our zone", "--author", "ann")
        wait_until(lambda: bool(judging.events("file_taken")), 30)
        mine = [folder / "data" / "known_services.csv" for folder in (deploying.folder, judging.folder)]
        assert mine[0].read_bytes() == mine[1].read_bytes() and b"ours.test" in mine[1].read_bytes()
        wait_until(lambda: len(judging.events("known_services_reloaded")) == 2, 30)  # the detector, and `network`
        for domain in ("ours.test", "theirs.test"):
            assert ask(host.port, CLIENTS[0], names_of(1, 60, domain)) == 60
        wait_until(lambda: bus.stored() == 120, 60)
        wait_until(lambda: bus.rows("SELECT domain FROM incidents") == [("theirs.test",)], 30)

        settings = load_settings(data_dir=deploying.folder, database_url=f"sqlite:///{bus.database}")
        make_folders(settings)
        with closing(store_of(settings)) as store:
            assert learner_of(settings, store).cycle()["state"] == "deployed"
        learnt = [folder / "models" / "flow" / "current.npz" for folder in (deploying.folder, judging.folder)]
        wait_until(learnt[1].exists, 30)
        assert learnt[0].read_bytes() == learnt[1].read_bytes()
        assert [one.stop() for one in (host, judging, deploying)] == [0, 0, 0]
