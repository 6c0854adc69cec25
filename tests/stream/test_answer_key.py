"""The key of answers' hashes: shared by forked processes, kept over restarts, and made anew where it is damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agents.core.npz import FormatError
from agents.stream.answer_key import HeldKey, SharedKey, answer_key_of, packed_key

LARGEST = 2**63 - 1


def test_a_process_that_was_forked_before_has_a_key_that_comes_later(tmp_path: Path) -> None:
    shared = SharedKey((1, 2))
    child = os.fork()
    if child == 0:
        HeldKey(tmp_path / "key", shared).take((3, LARGEST))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert shared.key == (3, LARGEST)


def test_a_restart_goes_on_with_the_last_key_which_nobody_else_reads(tmp_path: Path) -> None:
    path = tmp_path / "data" / "key"
    HeldKey(path, SharedKey((1, 2))).begin()
    assert path.stat().st_mode & 0o777 == 0o600
    again = HeldKey(path, SharedKey((5, 6)))
    again.begin()
    assert again.key == (1, 2)
    again.take((7, 8))
    HeldKey(path, third := SharedKey((9, 9))).begin()
    assert third.key == (7, 8)


@pytest.mark.parametrize(
    "data", [b"", b"[1]", b"[1, 2, 3]", b"[1, -2]", b"[1, 9223372036854775808]", b"[true, 2]", b"{}", b"\xff"]
)
def test_a_damaged_key_is_refused_and_a_start_makes_another(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FormatError, match="the key of answers"):
        answer_key_of(data)
    (tmp_path / "key").write_bytes(data)
    HeldKey(tmp_path / "key", SharedKey((1, 2))).begin()
    assert answer_key_of((tmp_path / "key").read_bytes()) == (1, 2)


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    held = HeldKey(tmp_path / "file" / "key", SharedKey((1, 2)))
    held.begin()
    assert held.key == (1, 2) and answer_key_of(packed_key(held.key)) == held.key
