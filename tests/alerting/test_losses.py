"""What is lost stays visible until somebody takes note, and is told without a flood."""

from __future__ import annotations

from pathlib import Path

from agents.alerting.losses import Losses, acknowledge, lost_in_all
from agents.core.types import DAY_S, Message
from agents.runtime.heartbeat import PARTS, DetectorHealth, Heartbeat
from agents.stream.note import SharedNote
from tests.support.commands import Inside


class Told:
    def __init__(self, folder: Path) -> None:
        self.messages: list[Message] = []
        self.now = 1e9
        self.losses = Losses(folder, self.messages.append, lambda: self.now)


def test_losses_of_several_runs_add_up_until_they_are_acknowledged(tmp_path: Path) -> None:
    one = Told(tmp_path)
    assert one.losses.note("a", 0, "") == (0, 0)
    assert list(tmp_path.iterdir()) == [], "nothing is written for nothing"
    assert one.losses.note("a", 300, "spool: No space left on device") == (300, 300)
    assert "300 verdicts" in one.messages[0].summary and "No space left" in one.messages[0].summary
    again = Told(tmp_path)
    assert again.losses.note("a", 300, "") == (300, 300), "another detector of the same run"
    assert again.losses.note("b", 7, "") == (307, 307)
    assert again.messages == [], "the same day"
    assert acknowledge(tmp_path, lost_in_all(tmp_path)) == 307
    assert again.losses.note("b", 7, "") == (307, 0)
    assert again.losses.note("b", 8, "") == (308, 1)
    assert len(again.messages) == 1, "losing began anew"


def test_losing_that_lasts_is_told_once_a_day(tmp_path: Path) -> None:
    one = Told(tmp_path)
    for hour in range(49):
        one.now = 1e9 + hour * 3600
        one.losses.note("a", hour + 1, "full")
    assert len(one.messages) == 3
    one.now += 2 * DAY_S
    one.losses.note("a", 49, "full")
    assert len(one.messages) == 3, "no loss is new"


def test_a_disk_that_takes_nothing_forgets_no_loss_of_this_run(tmp_path: Path) -> None:
    gone = tmp_path / "not" / "a-folder"
    (tmp_path / "not").write_text("a file in its way")
    one = Told(gone)
    assert one.losses.note("a", 5, "") == (5, 5)
    assert one.losses.note("a", 6, "") == (6, 6)
    (tmp_path / "not").unlink()
    one.losses.note("a", 6, "")
    assert lost_in_all(gone) == 6


def test_a_damaged_file_is_no_loss_and_no_crash(tmp_path: Path) -> None:
    for text in ("", "[]", '{"before": "x", "run": -3, "run_id": 7}', "\0"):
        (tmp_path / "losses.json").write_text(text)
        (tmp_path / "losses_acknowledged.json").write_text(text)
        assert Told(tmp_path).losses.note("a", 0, "") == (0, 0)


def test_the_command_takes_note(tmp_path: Path, inside: Inside) -> None:
    state_dir = tmp_path / "data" / "data"
    state_dir.mkdir(parents=True)
    Told(state_dir).losses.note("a", 12, "")
    Heartbeat(state_dir / PARTS["listener"], DetectorHealth(lost_unacknowledged=12).to_json).start()
    assert "12 verdicts lost; " in inside("health").out
    assert inside("health", "--acknowledge").out == "12 lost verdicts acknowledged\n"
    assert Told(state_dir).losses.note("a", 12, "") == (12, 0)


def test_a_note_is_read_whole_or_not_at_all() -> None:
    note = SharedNote()
    assert note.read() == b""
    for text in (b"first", b"a longer second", b"3"):
        note.write(text)
        assert note.read() == text
    note._cells[0] += 1  # its writer was killed while it wrote
    assert note.read() == b""
    note.write(b"the next one")
    assert note.read() == b"the next one"
