"""`dns-tunnel client`: what is kept of one client: the name it is kept under, all its rows, and their erasure."""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from agents.cli.output import json_output
from agents.core.errors import AgentsError, UsageError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.text import printable
from agents.detection.detector import FILES
from agents.runtime import bootstrap
from agents.runtime.detector_process import ERASE_FILE
from agents.runtime.heartbeat import EXPORTS, OUTBOX, detector_health
from agents.settings import Settings
from agents.store.feedback.clients import ClientRecords

TAKEN_UP_S = 30.0
"""How long a running detector may take to forget a client, seconds."""
ASKED_AGAIN_S = 0.1


def client(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel client name|export|erase`."""
    veil = bootstrap.privacy_of(settings).veil
    name = veil.names([options.client])[0] if veil is not None else options.client
    if options.action == "name":
        print(name)
        return 0
    store = bootstrap.store_of(settings)
    store.migrate()
    records = ClientRecords(store)
    if options.action == "export":
        with json_output(options.out) as out:
            assert out is not None
            out.writelines(json.dumps(row, default=str) + "\n" for row in records.rows(name))
        return 0
    if not options.yes:
        raise UsageError(f"cannot erase {printable(name)}: add --yes; what is erased does not come back")
    return _erase(settings, records, name)


def _erase(settings: Settings, records: ClientRecords, name: str) -> int:
    if any(settings.spool_folder.glob("*.npz")):
        raise AgentsError(f"cannot erase {printable(name)}: queries wait in {settings.spool_folder} for the database")
    if detector_health(settings.state_dir)[0]:
        _ask_detector(settings.state_dir, name)
    else:
        _forget_saved(settings, name)
    done = records.erase(name)
    done["messages"] = 0
    for path in _mentioning(settings, name):
        path.unlink(missing_ok=True)
        done["messages"] += 1
    print(", ".join(f"{count:,} {what}" for what, count in done.items()) + f" of {printable(name)} erased")
    print("reports and messages that were sent, and files of EXPORT_FILE, are not changed")
    return 0


def _ask_detector(state_dir: Path, name: str) -> None:
    """Let the running detector forget a client, and save what is left, before its rows go."""
    path = state_dir / ERASE_FILE
    write_atomic(path, json.dumps([name]).encode(), mode=PRIVATE_MODE)
    until = time.monotonic() + TAKEN_UP_S
    while path.exists():
        if time.monotonic() > until:
            path.unlink(missing_ok=True)
            raise AgentsError(f"cannot erase {printable(name)}: the detector does not answer within {TAKEN_UP_S:.0f} s")
        time.sleep(ASKED_AGAIN_S)


def _forget_saved(settings: Settings, name: str) -> None:
    """Take a client out of the state that the next detector begins with."""
    detector = bootstrap.detector_of(settings, bootstrap.registry_of(settings).current())
    found = [path for file in FILES if (path := settings.state_dir / file).exists()]
    for path in found:
        try:
            detector.load(path.name, path.read_bytes())
        except ValueError:  # of another version: nothing reads it
            path.unlink()
    detector.forget(name)
    saved = detector.save(threading.Lock())
    for path in filter(Path.exists, found):
        write_atomic(path, saved[path.name], mode=PRIVATE_MODE)


def _mentioning(settings: Settings, name: str) -> Iterator[Path]:
    """Messages and records that wait or were given up, and name the client."""
    named = re.compile(rb"(?<![0-9A-Za-z:.])" + re.escape(name.encode()) + rb"(?![0-9A-Za-z:])")
    for folder in (settings.state_dir / OUTBOX, settings.state_dir / EXPORTS):
        for path in folder.rglob("*"):
            if path.is_file() and named.search(path.read_bytes()):
                yield path
