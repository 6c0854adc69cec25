"""Changes that commands make, in the audit log of the console."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import closing

from agents.cli.output import login_name
from agents.core.errors import StoreError
from agents.runtime import bootstrap
from agents.settings import Settings
from agents.store.console.audit import KNOWN_KEPT, AuditLog

WAY = "command line"
ACTIONS: Mapping[tuple[str, str | None], str] = {
    ("allow", "add"): KNOWN_KEPT,
    ("allow", "remove"): "known service removed",
    ("block", "add"): "blocked",
    ("block", "remove"): "block ended",
    ("block", "undo-all"): "all blocks undone",
    ("block", "pause"): "blocks paused",
    ("block", "resume"): "blocks are made again",
    ("client", "erase"): "client erased",
    **{("fleet", one): f"fleet: {one}" for one in ("add", "remove", "join")},
    **{("learn", one): "learning" for one in ("now", "start", "stop", "cycle", "rollback")},
    **{
        ("models", one): f"model: {one}"
        for one in ("approve", "reject", "canary", "anchor", "rollback", "restore", "pin", "unpin")
    },
    **{("outbox", one): f"outbox: {one}" for one in ("retry", "drop")},
    ("retrain", None): "retraining",
    ("review", "take"): "review taken",
    ("review", "label"): "labelled {label}",
    ("review", "undo"): "label undone",
    **{("secrets", one): f"honeytokens: {one}" for one in ("add", "remove")},
    **{("stage", one): f"stage: {one}" for one in ("export", "import")},
    ("tidy", None): "old rows dropped",
    ("tokens", "add"): "token made",
    ("tokens", "revoke"): "token revoked",
    ("users", "add"): "user added",
    ("users", "link"): "one-time link made",
    ("users", "remove"): "user removed",
    **{("users", one): "user changed" for one in ("role", "disable", "enable")},
}
"""Commands and their actions that change something, in the console's words for the same.

`incidents` notes its own, in one transaction with them.
"""
_THINGS = ("domain", "domains", "suffix", "which", "model_id", "user", "token_id", "site", "token", "file")
_DETAILS = ("label", "client", "reason", "role", "scope", "what_for", "hours", "factor")


def note_command(settings: Settings, options: argparse.Namespace) -> None:
    """Note what a command has changed; where that fails, say so: the change itself was made."""
    command = options.name, getattr(options, "action", None)
    if command not in ACTIONS:
        return
    said = {name: _text(value) for name, value in vars(options).items() if value}
    if command[0] == "client":  # an erased client's name is not to stand here
        said.pop("client", None)
    thing = next((said[one] for one in _THINGS if one in said), "")
    detail = "; ".join([*filter(None, command[1:]), *(f"{one}: {said[one]}" for one in _DETAILS if one in said)])
    author = getattr(options, "author", "") or login_name()
    try:
        with closing(bootstrap.store_of(settings)) as store:
            store.migrate()
            AuditLog(store).add(author, WAY, ACTIONS[command].format_map(said), thing, detail)
    except StoreError as error:
        print(f"dns-tunnel: warning: it is done, but not in the audit log: {error}", file=sys.stderr)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
