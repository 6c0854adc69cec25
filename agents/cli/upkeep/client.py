"""`dns-tunnel client`: what is kept of one client: the name it is kept under, all its rows, and their erasure."""

from __future__ import annotations

import argparse
import json
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from agents.cli.output import json_output
from agents.core.errors import AgentsError, UsageError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.npz import FormatError
from agents.core.text import printable
from agents.detection.detector import FILES
from agents.runtime import bootstrap
from agents.runtime.heartbeat import EXPORTS, OUTBOX, detector_health, settings_in_force
from agents.runtime.judging.judge import ERASE_FILES
from agents.settings import Settings
from agents.store.feedback.clients import ClientRecords
from agents.stream.bus import options as bus_options

TAKEN_UP_S = 30.0
"""How long a running detector may take to forget a client, seconds."""
ASKED_AGAIN_S = 0.1


def client(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel client name|export|erase`; exit code 1 where nothing is kept of a client."""
    settings = bootstrap.as_noted(settings, settings_in_force(settings.state_dir, "listener"))
    names = _names(settings, options.client)
    if options.action == "name":
        print(names[0])
        return 0
    if options.action == "erase" and settings.of(bus_options.SPEC)["stream"]:
        raise UsageError(
            f"cannot erase {printable(names[0])}: state of clients lies on the bus (setting STREAM), and nothing takes "
            "a client out of it"
        )
    store = bootstrap.store_of(settings)
    store.migrate()
    files = bootstrap.day_files_of(settings, store)
    files.check()  # before anything is erased
    server = bootstrap.clickhouse_of(settings)
    if server is not None:
        server.counted()  # it answers
    records = ClientRecords(store, files, server)
    if options.action == "export":
        with json_output(options.out) as out:
            assert out is not None
            found = [row for name in names for row in records.rows(name)]
            out.writelines(json.dumps(row, default=str) + "\n" for row in found)
        return 0 if found else 1
    if not options.yes:
        raise UsageError(f"cannot erase {printable(names[0])}: add --yes; what is erased does not come back")
    return _erase(settings, records, names)


def _names(settings: Settings, client: str) -> list[str]:
    """What rows of a client may be kept under: its name now, and what was given: rows of before PRIVACY have that, and
    a pseudonym may be given, too."""
    veil = bootstrap.privacy_of(settings, reads_only=True).veil
    return list(dict.fromkeys([*(veil.names([client]) if veil is not None else ()), client]))


def _erase(settings: Settings, records: ClientRecords, names: Sequence[str]) -> int:
    shown = " and ".join(map(printable, names))
    if any(settings.spool_folder.glob("*.npz")):
        raise AgentsError(f"cannot erase {shown}: queries wait in {settings.spool_folder} for the database")
    _wait_for_clickhouse(settings, shown)
    if detector_health(settings.state_dir)[0]:
        _ask_detector(settings.state_dir, names)
    else:
        _forget_saved(settings, names)
    done = Counter[str]()
    for name in names:
        done.update(records.erase(name))
        for path in _mentioning(settings, name):
            path.unlink(missing_ok=True)
            done["messages"] += 1
    print(", ".join(f"{count:,} {what}" for what, count in done.items()) + f" of {shown} erased")
    print("reports, runs, blocks, messages that were sent, and files of EXPORT_FILE are not changed")
    return 0 if sum(done.values()) else 1


def _wait_for_clickhouse(settings: Settings, shown: str) -> None:
    """Until what waits for it now is sent: it would come after the erasure."""
    folder, until = bootstrap.hunt_spool_of(settings), time.monotonic() + TAKEN_UP_S
    waiting = [*folder.rglob("*.json.z")]
    while any(path.exists() for path in waiting):
        if time.monotonic() > until or not detector_health(settings.state_dir)[0]:
            raise AgentsError(f"cannot erase {shown}: queries wait in {folder} for ClickHouse")
        time.sleep(ASKED_AGAIN_S)


def _ask_detector(state_dir: Path, names: Sequence[str]) -> None:
    """Let the running detector forget a client, and save what is left, before its rows go."""
    path = state_dir / ERASE_FILES.replace("*", secrets.token_hex(8))
    write_atomic(path, json.dumps(list(names)).encode(), mode=PRIVATE_MODE)
    until = time.monotonic() + TAKEN_UP_S
    while path.exists():
        if time.monotonic() > until:
            path.unlink(missing_ok=True)
            raise AgentsError(
                f"cannot erase {printable(names[0])}: the detector does not answer within {TAKEN_UP_S:.0f} s"
            )
        time.sleep(ASKED_AGAIN_S)


def _forget_saved(settings: Settings, names: Sequence[str]) -> None:
    """Take a client out of the state that the next detector begins with."""
    detector = bootstrap.detector_of(settings, bootstrap.registry_of(settings).current())
    found = [path for file in FILES if (path := settings.state_dir / file).exists()]
    for path in found:
        try:
            detector.load(path.name, path.read_bytes())
        except FormatError:  # of another version: nothing reads it
            path.unlink()
    for name in names:
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
