"""Changes that commands make, in the audit log of the console."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing

from agents.cli.output import login_name
from agents.core.errors import StoreError
from agents.runtime import bootstrap
from agents.settings import Settings
from agents.store.console.audit import AuditLog

WAY = "command line"
CHANGES = {
    "allow": ("add", "remove"),
    "block": ("add", "remove", "undo-all", "pause", "resume"),
    "client": ("erase",),
    "fleet": ("add", "remove", "join"),
    "learn": ("now", "start", "stop", "cycle", "rollback"),
    "models": ("approve", "reject", "canary", "anchor", "rollback", "restore", "pin", "unpin"),
    "outbox": ("retry", "drop"),
    "retrain": (None,),
    "review": ("take", "label", "undo"),
    "secrets": ("add", "remove"),
    "stage": ("export", "import"),
    "tokens": ("add", "revoke"),
    "users": ("add", "link", "role", "disable", "enable", "remove"),
}
"""Commands, and of each the actions that change something. `incidents` notes its own, in one transaction with them."""
_THINGS = ("domain", "domains", "suffix", "which", "model_id", "user", "token_id", "site", "token", "file")
_DETAILS = ("label", "client", "reason", "role", "scope", "hours", "factor")


def note_command(settings: Settings, options: argparse.Namespace) -> None:
    """Note what a command has changed; where that fails, say so: the change itself was made."""
    action = getattr(options, "action", None)
    if action not in CHANGES.get(options.name, ()):
        return
    thing = next((_text(value) for one in _THINGS if (value := getattr(options, one, None))), "")
    named = {one: getattr(options, one, None) for one in _DETAILS if not (options.name == "client" and one == "client")}
    detail = "; ".join(f"{one}: {_text(value)}" for one, value in named.items() if value)
    author = getattr(options, "author", "") or login_name()
    try:
        with closing(bootstrap.store_of(settings)) as store:
            store.migrate()
            AuditLog(store).add(author, WAY, f"{options.name} {action or ''}".strip(), thing, detail)
    except StoreError as error:
        print(f"dns-tunnel: warning: it is done, but not in the audit log: {error}", file=sys.stderr)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
