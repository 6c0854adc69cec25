"""`dns-tunnel secrets`: honeytokens, whose pieces are kept as hashes; the text of one never shows, nor is it kept."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from agents.core.errors import UsageError
from agents.core.files import locked, make_private_folder
from agents.core.text import counted, printable
from agents.detection.tripwires.honeytokens import SECRET_MAX, load_honeytokens, save_honeytokens
from agents.learning.baseline import model_bytes
from agents.runtime import bootstrap
from agents.runtime.privileges import give_away, user_of
from agents.scoring.model import Model
from agents.settings import Settings


def secrets(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel secrets …`."""
    path = bootstrap.honeytokens_path(settings)
    if options.action == "list":
        for token in load_honeytokens(path).tokens:
            print(f"{token.name}  since {token.added}  {counted(token.pieces, 'hash')} of pieces of {token.size} bytes")
        return 0
    text = _text(options) if options.action == "add" else b""
    lock = path.with_suffix(".lock")
    new = [lock, path] if path.parent.exists() else [lock, path, path.parent]
    make_private_folder(path.parent)
    with locked(lock, wait=True):
        found = load_honeytokens(path)
        if options.action == "remove":
            found, done = found.without(options.token), f"removed {options.token}"
        else:
            today = time.strftime("%Y-%m-%d", time.gmtime())
            found = found.with_token(options.token, text, today, Model.from_bytes(model_bytes()).chars.bits_of)
            done = f"added {options.token}"
        save_honeytokens(path, found)
        if (user := user_of(settings.run_as)) is not None:  # whoever judges must be able to read it
            give_away(user, new)
    print(f"{done}: what runs takes it up within seconds")
    return 0


def _text(options: argparse.Namespace) -> bytes:
    """The secret, without a final line break. Raises UsageError."""
    if options.text is not None:
        found: bytes = options.text.encode("utf-8", "surrogateescape")
        return found
    try:
        data = _read(options.file)
    except OSError as error:
        raise UsageError(f"cannot read {printable(options.file)}: {error.strerror}") from None
    return data.removesuffix(b"\n").removesuffix(b"\r")


def _read(file: Path | None) -> bytes:
    """The file, or standard input; of both no more than shows that it is too long."""
    most = SECRET_MAX + 3
    if file is None:
        if sys.stdin.isatty():
            print("the text of the token, then Enter and Ctrl-D:", file=sys.stderr)
        return sys.stdin.buffer.read(most)
    with file.open("rb") as opened:
        return opened.read(most)
