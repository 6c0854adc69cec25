"""A log that grows: each line once and in order, whatever rotation and restarts do to its file."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.sources.logs.source import LOG_LINE_MAX
from agents.sources.tail import TAIL_CHUNK, Position, TailedFile

POLLS = 6
"""So many calls of `read` notice what happened to a file."""


def lines(tail: TailedFile) -> list[bytes | None]:
    """All that can be read at present."""
    found: list[bytes | None] = []
    for _ in range(POLLS):
        found += tail.read()
    return found


def append(path: Path, *texts: str) -> None:
    with path.open("a") as file:
        file.write("".join(text + "\n" for text in texts))


def again(tail: TailedFile) -> TailedFile:
    """As another process goes on with it; the position goes through a file."""
    position = tail.position
    tail.close()
    return TailedFile(tail.path, Position.of(list(position)) if position else None, from_start=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queries.log"


def test_only_whole_new_lines_are_read_and_each_once(path: Path) -> None:
    append(path, "old")
    tail = TailedFile(path)
    assert lines(tail) == []
    append(path, "one", "two")
    with path.open("a") as file:
        file.write("thr")
    assert lines(tail) == [b"one", b"two"]
    append(path, "ee")
    assert lines(tail) == [b"three"]
    assert lines(TailedFile(path, from_start=True)) == [b"old", b"one", b"two", b"three"]


def test_a_file_that_appears_later_is_read_from_its_beginning(path: Path) -> None:
    tail = TailedFile(path)
    tail.open()
    assert (lines(tail), tail.error) == ([], "no such file or directory")
    append(path, "one")
    assert (lines(tail), tail.error) == ([b"one"], "")


def test_a_renamed_file_is_read_to_its_end_and_then_the_new_one(path: Path) -> None:
    append(path, "one")
    tail = TailedFile(path, from_start=True)
    assert lines(tail) == [b"one"]
    old = path.open("a")
    path.rename(path.with_name("queries.log.1"))
    path.touch()
    old.write("two\n")  # the server has not noticed yet
    old.close()
    assert lines(tail) == [b"two"]
    append(path, "three")
    assert lines(tail) == [b"three"]


@pytest.mark.parametrize("name", ["queries.log.1", "queries.log-20260105", "queries.1.log"])
@pytest.mark.parametrize("packed", [False, True])
def test_what_was_written_while_nobody_read_is_found_in_the_rotated_file(name: str, packed: bool, path: Path) -> None:
    append(path, "one", "two")
    tail = TailedFile(path, from_start=True)
    assert lines(tail) == [b"one", b"two"]
    append(path, "three")
    rotated = path.with_name(name + (".gz" if packed else ""))
    rotated.write_bytes(gzip.compress(path.read_bytes()) if packed else path.read_bytes())
    path.unlink()
    append(path, "four")
    os.utime(rotated, (1, 1))
    append(path.with_name("queries.log.bak"), "no rotated one")
    found = again(tail)
    assert lines(found) == [b"three", b"four"]
    assert not found.lost


def test_a_file_that_is_copied_and_truncated_loses_no_line(path: Path) -> None:
    append(path, "one")
    tail = TailedFile(path, from_start=True)
    assert lines(tail) == [b"one"]
    append(path, "two")
    shutil.copy(path, path.with_name("queries.log.1"))
    os.truncate(path, 0)
    append(path, "three, which is longer than all before")
    assert lines(tail) == [b"two", b"three, which is longer than all before"]


def test_two_rotations_while_nobody_read(path: Path) -> None:
    append(path, "one")
    tail = TailedFile(path, from_start=True)
    assert lines(tail) == [b"one"]
    for name, text, age in (("queries.log.2", "two", 100), ("queries.log.1", "three", 200)):
        append(path, text)
        path.rename(path.with_name(name))
        os.utime(path.with_name(name), (age, age))
    append(path, "four")
    assert lines(again(tail)) == [b"two", b"three", b"four"]


def test_two_rotations_behind_an_open_file_lose_no_line(path: Path) -> None:
    append(path, "zero")
    path.rename(path.with_name("queries.log.3"))
    append(path, "one")
    tail = TailedFile(path, from_start=True)
    assert lines(tail) == [b"one"]
    append(path, "two")
    path.rename(path.with_name("queries.log.2"))
    append(path, "three")
    path.rename(path.with_name("queries.log.1"))
    append(path, "four")
    for at, number in enumerate((2, 1, 3)):  # the oldest was packed last
        os.utime(path.with_name(f"queries.log.{number}"), (at + 1, at + 1))
    assert lines(tail) == [b"two", b"three", b"four"]
    assert not tail.lost


def test_a_kill_between_two_rotations_and_their_reading_loses_no_line(path: Path) -> None:
    append(path, "one")
    tail = TailedFile(path, from_start=True)
    assert lines(tail) == [b"one"]
    for number in (2, 1):
        path.rename(path.with_name(f"queries.log.{number}"))
        os.utime(path.with_name(f"queries.log.{number}"), (3 - number, 3 - number))
        append(path, f"after {number}")
    found = lines_until_it_goes_over(tail)
    assert found + lines(again(tail)) == [b"after 2", b"after 1"]


def lines_until_it_goes_over(tail: TailedFile) -> list[bytes | None]:
    found = tail.read()
    return found + tail.read()


def test_a_file_that_is_being_packed_is_read_once(path: Path) -> None:
    append(path, "one")
    tail = TailedFile(path, from_start=True)
    assert lines(tail) == [b"one"]
    append(path, "two")
    path.rename(rotated := path.with_name("queries.log.1"))
    rotated.with_name("queries.log.1.gz").write_bytes(gzip.compress(rotated.read_bytes()))
    append(path, "three")
    found = again(tail)
    assert lines(found) == [b"two", b"three"]
    assert not found.lost


def test_what_was_read_of_a_packed_file_is_skipped_with_signs_of_life(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.sources.tail._SKIP", 1)
    append(path, "one" * TAIL_CHUNK)
    tail = TailedFile(path, from_start=True)
    lines(tail)
    append(path, "two")
    path.with_name("queries.log.1.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    append(path, "three")
    found = again(tail)
    assert [found.read() for _ in range(3)] == [[], [], []]
    assert lines(found) == [b"two", b"three"]


def test_a_file_that_is_packed_when_it_is_to_be_read_is_read(path: Path) -> None:
    append(path, "one")
    tail = TailedFile(path, from_start=True)
    assert lines(tail) == [b"one"]
    append(path, "two")
    path.rename(rotated := path.with_name("queries.log.1"))
    append(path, "three")
    found = again(tail)
    found.open()  # it has found the rotated one
    rotated.with_name("queries.log.1.gz").write_bytes(gzip.compress(rotated.read_bytes()))
    rotated.unlink()
    assert lines(found) == [b"two", b"three"]
    assert not found.lost


@pytest.mark.parametrize("damage", [b"", b"\x1f\x8bdamaged"])
def test_an_older_file_that_cannot_be_read_is_lost_unless_it_is_empty(damage: bytes, path: Path) -> None:
    append(path, "one")
    tail = TailedFile(path, from_start=True)
    assert lines(tail) == [b"one"]
    for number in (2, 1):
        path.rename(path.with_name(f"queries.log.{number}"))
        append(path, f"after {number}")
    path.with_name("queries.log.1").write_bytes(damage)
    os.utime(path.with_name("queries.log.2"), (1, 1))
    found = again(tail)
    assert lines(found) == [b"after 1"]
    assert found.lost == bool(damage)


def test_a_line_that_was_too_long_costs_no_line_of_the_next_file(path: Path) -> None:
    path.write_text("x" * (2 * LOG_LINE_MAX))
    tail = TailedFile(path, from_start=True)
    lines(tail)
    path.rename(path.with_name("queries.log.1"))
    append(path, "one", "two")
    assert [line for line in lines(tail) if line is not None] == [b"one", b"two"]


def test_a_file_that_is_gone_is_said_to_be_lost(path: Path) -> None:
    append(path, "one")
    tail = TailedFile(path, from_start=True)
    assert lines(tail) == [b"one"]
    path.write_text("another\n")
    found = again(tail)
    assert lines(found) == [b"another"]
    assert found.lost


def test_a_line_without_an_end_is_one_line_that_was_too_long(path: Path) -> None:
    append(path, "one", "x" * (3 * LOG_LINE_MAX), "two")
    assert lines(TailedFile(path, from_start=True)) == [b"one", None, b"two"]


def test_the_columns_that_a_file_begins_with_come_first_where_it_is_gone_on_with(path: Path) -> None:
    append(path, "#fields a", "one")
    tail = TailedFile(path, from_start=True)
    assert lines(tail) == [b"#fields a", b"one"]
    append(path, "two")
    tail = again(tail)
    assert lines(tail) == [b"#fields a\n", b"two"]
    tail.close()
    append(path, "three")
    path.rename(path.with_name("queries.log.1"))
    append(path, "#fields b", "four")
    assert lines(tail) == [b"#fields a\n", b"three", b"#fields b", b"four"]


@pytest.mark.parametrize("saved", [None, 1, [], [1, "x"], ["1", "x", 1], [-1, "x", 1], [1, "x", -1], [5000, "x", 1]])
def test_a_damaged_position_is_none(saved: object) -> None:
    assert Position.of(saved) is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["append", "append", "rename", "unseen", "truncate", "pack", "restart", "read"]), max_size=25
    )
)
def test_every_line_comes_once_and_in_order_whatever_happens(steps: list[str]) -> None:
    folder = Path(tempfile.mkdtemp())
    path, number, written, turns = folder / "queries.log", 0, list[bytes](), 0
    append(path, "begin 0")
    tail, found = TailedFile(path, from_start=True), list[bytes | None]()
    found += lines(tail)
    for step in steps:
        if step == "append":
            number += 1
            append(path, f"line {number}")
            written.append(f"line {number}".encode())
        elif step in ("rename", "unseen", "truncate", "pack"):
            turns += 1
            rotated = folder / f"queries.log.{turns}"
            if step == "truncate":
                shutil.copy(path, rotated)
                os.truncate(path, 0)
            elif step == "pack":
                tail = again(tail)  # a file may be packed away while nobody follows it
                rotated = rotated.with_suffix(f".{turns}.gz")
                rotated.write_bytes(gzip.compress(path.read_bytes()))
                path.unlink()
            else:
                path.rename(rotated)
            os.utime(rotated, (turns, turns))
            append(path, f"begin {turns}")
            found += lines(tail) if step != "unseen" else []  # the next turn may come before it is seen
        elif step == "restart":
            found += lines(tail)
            tail = again(tail)
        else:
            found += lines(tail)
    found += lines(tail)
    tail.close()
    shutil.rmtree(folder)
    assert [line for line in found if line and line.startswith(b"line")] == written
