"""What commands change stands in the audit log, in the console's words, and no more than that."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from agents.cli.parser import build_parser
from agents.cli.upkeep.noting import ACTIONS
from agents.runtime import bootstrap
from agents.store.console.audit import AuditLog
from tests.support.commands import run_inside
from tests.support.verdicts import verdicts


def log_of(folder: Path) -> list[tuple[str, str, str, str]]:
    """Oldest first: way, action, object, detail."""
    with closing(bootstrap.store_of(bootstrap.load_settings(data_dir=folder))) as store:
        return [(one.way, one.action, one.object, one.detail) for one in AuditLog(store).entries()][::-1]


def test_commands_say_what_they_changed(tmp_path: Path) -> None:
    run_inside(tmp_path, "--data-dir", tmp_path, "users", "add", "ann", "--role", "operator")
    run_inside(tmp_path, "--data-dir", tmp_path, "users", "list")
    run_inside(tmp_path, "--data-dir", tmp_path, "tokens", "add", "ann", "--for", "tickets")
    run_inside(tmp_path, "--data-dir", tmp_path, "tokens", "add", "nobody", "--for", "tickets")
    run_inside(tmp_path, "--data-dir", tmp_path, "review", "label", "benign", "a.example", "b.example", "--reason", "x")
    run_inside(tmp_path, "--data-dir", tmp_path, "allow", "add", "cdn.example", "--reason", "ours", "--author", "bea")
    with closing(bootstrap.store_of(bootstrap.load_settings(data_dir=tmp_path))) as store:
        store.write(verdicts(["a.example"], client="192.0.2.7"), "b1")
    run_inside(tmp_path, "--data-dir", tmp_path, "client", "erase", "192.0.2.7", "--yes")
    run_inside(tmp_path, "--data-dir", tmp_path, "client", "erase", "192.0.2.8", "--yes")
    assert log_of(tmp_path) == [
        ("command line", "user added", "ann", "add; role: operator"),
        ("command line", "token made", "ann", "add; what_for: tickets"),
        ("command line", "labelled benign", "a.example, b.example", "label; label: benign; reason: x"),
        ("command line", "known service kept", "cdn.example", "add; reason: ours; factor: 10"),
        ("command line", "client erased", "", "erase"),
    ]


@pytest.mark.parametrize("command", ACTIONS, ids=str)
def test_every_action_is_one_that_a_command_has(command: tuple[str, str | None]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([*filter(None, command), "--help"])
    assert ended.value.code == 0
