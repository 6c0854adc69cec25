"""How a process is: a small file, rewritten while it lives. Health checks read it often, so this imports little."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from agents.core.files import PRIVATE_MODE, write_atomic

if TYPE_CHECKING:
    from agents.stream.note import SharedNote  # a health check needs none of that room

PARTS = {"listener": "detector.json", "api": "api.json", "scheduler": "scheduler.json"}
"""What `dns-tunnel health` asks about, and the heartbeat that answers: the detector's knows how the listeners are."""
OUTBOX = "outbox"
"""The folder beside them where alerts wait."""
EXPORTS = "exports"
"""The folder beside them where records for other programs wait."""
EVERY_S = 2.0
STALE_S = 12.0
"""A process that has not written for this long is taken for dead."""
STILL_S = 5
"""A process that has not moved, or not answered, for this long hangs."""
ROOM_MIN = 1 << 20
"""A disk with fewer bytes is full: a batch, a log line and SQLite's log need more."""
_ENDED = {"Z", "X"}
"""States of a process of which only the number is left."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DetectorHealth:
    """What a detector's heartbeat says; numbers are sums over all processes since the supervisor began."""

    judging: bool = False  # it lives, and so do all listeners
    model_id: str = ""
    model_origin: str = ""  # champion or baseline
    limits: Mapping[str, float] = field(default_factory=dict)  # factor, and the bytes that can leave unseen at it
    scored: int = 0  # queries judged
    suspicious: int = 0  # of these, by severity
    high: int = 0
    critical: int = 0
    timed: int = 0  # of these, with a known time of their answer
    answer_us: int = 0  # microseconds that those answers took
    scoring: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # scoring.tally, by detector type
    flows: int = 0  # in memory
    flows_refused: int = 0  # queries whose flow the caps refused
    flows_forgotten: int = 0  # how often a flow forgot its names
    incidents_open: int = 0
    queue_waiting: int = 0  # records that are not judged yet
    queue_dropped: int = 0  # records that found no room
    load_level: int = 0  # 0 = everything is kept
    unexplained: int = 0  # verdicts without reasons, left out under load
    sampled_out: int = 0  # NORMAL verdicts not stored, left out under load
    stored: int = 0
    spooled: int = 0
    replayed: int = 0  # from the spool into the store
    lost: int = 0
    run_id: str = ""  # of one start of the supervisor
    lost_in_all: int = 0  # over all starts
    lost_unacknowledged: int = 0  # of these, since a person took note
    disk: Mapping[str, str] = field(default_factory=dict)  # files that cannot be written: why
    damaged: int = 0  # spool files set aside
    already: int = 0  # rows that the store had: a killed process had written them
    spool_waiting: int = 0  # batches on disk
    alerts: Mapping[str, int] = field(default_factory=dict)  # sent, failed, suppressed, dropped
    channels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # waiting, failures in a row, error
    exports: Mapping[str, int] = field(default_factory=dict)  # records sent, failed, dropped
    bus: Mapping[str, Any] = field(default_factory=dict)  # what was sent, or which slots are held: docs/cluster.md
    hunting: Mapping[str, Any] = field(default_factory=dict)  # what ClickHouse got: HuntSink.state
    enforcement: Mapping[str, Any] = field(default_factory=dict)  # mode, blocks in force and dry, sums
    drill: Mapping[str, Any] = field(default_factory=dict)  # the last one: ok, at, through, problems
    counters: Mapping[str, int] = field(default_factory=dict)  # of all listeners, stream/counters.py
    mismatched: Mapping[str, int] = field(default_factory=dict)  # datagrams that answered nothing, by upstream
    sink_failures: Mapping[str, int] = field(default_factory=dict)
    processes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # stream/shared.ChildState.values
    detectors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # each, where there are several
    busy: Mapping[str, float] = field(default_factory=dict)  # detection.shared.busy_clients: queries, then parts of all
    oldest_unjudged_at: float = 0.0  # when the oldest query that waits was asked, Unix seconds; 0 = none waits
    last_batch_at: float = 0.0  # when the last batch was finished; 0 = none yet

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Heartbeat:
    """Writes what `collect` returns to `path` every few seconds, on a thread of its own.

    note: shared memory that it is written to as well, which takes it also where the disk is full. in_force: the
    process' settings, written once beside it (settings_in_force).
    """

    def __init__(
        self,
        path: Path,
        collect: Callable[[], Mapping[str, Any]],
        every_s: float = EVERY_S,
        note: SharedNote | None = None,
        in_force: Mapping[str, Any] | None = None,
    ) -> None:
        self._path, self._collect, self._every_s, self._note = path, collect, every_s, note
        self._in_force = in_force
        self._writer = _writer()
        self._failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        if self._in_force is not None:
            with suppress(OSError):  # it is for people; the heartbeat itself says that the disk takes nothing
                write_atomic(_beside(self._path), json.dumps(self._in_force).encode(), PRIVATE_MODE)
        self._write()
        self._thread.start()

    def stop(self) -> None:
        """End, and take the file away: this process lives no more. Without a start there is nothing to take."""
        self._stop.set()
        if self._thread.ident is None:
            return
        self._thread.join()
        self._path.unlink(missing_ok=True)
        _beside(self._path).unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._write()

    def _write(self) -> None:
        state = json.dumps({"at": time.time(), "writer": self._writer, **self._collect()}).encode()
        if self._note is not None:
            self._note.write(state)
        try:
            write_atomic(self._path, state, PRIVATE_MODE)
        except OSError as error:
            if not self._failing:  # not every two seconds
                _log.warning("heartbeat_not_written", path=str(self._path), error=str(error))
            self._failing = True
        else:
            self._failing = False


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}_settings.json")


def settings_in_force(state_dir: Path, part: str) -> dict[str, Any]:
    """The settings that a running part noted at its start; empty where it does not run, or noted none."""
    path = state_dir / PARTS[part]
    try:
        found = json.loads(_beside(path).read_bytes()) if read_heartbeat(path)["ok"] else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_heartbeat(path: Path) -> dict[str, Any]:
    """The last heartbeat of another process, with "ok": whether it is recent, and its writer has not ended."""
    try:
        return _heartbeat_of(path.read_bytes())
    except OSError:
        return {"ok": False}


def _heartbeat_of(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {"ok": False}
    if not isinstance(found, dict) or not isinstance(at := found.pop("at", None), int | float):
        return {"ok": False}
    # A timestamp in the future was written before the clock was set back; a live process would have rewritten it.
    recent = abs(time.time() - at) < STALE_S
    return {"ok": recent and not _is_gone(found.pop("writer", None)), **found}


def detector_health(state_dir: Path, note: SharedNote | None = None) -> tuple[bool, DetectorHealth]:
    """Whether a detector's heartbeat is recent, and what it says; of another release's, what both know.

    note: the detector's, where this process shares memory with it.
    """
    found = _heartbeat_of(note.read()) if note is not None else read_heartbeat(state_dir / PARTS["listener"])
    known = {one.name for one in fields(DetectorHealth)}
    return bool(found["ok"]), DetectorHealth(**{name: value for name, value in found.items() if name in known})


def disk_is_full(folder: Path) -> bool:
    """Whether the disk of a folder has less than ROOM_MIN left for this process. False where that is unknown."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < ROOM_MIN


def _writer() -> list[Any] | None:
    """Who this process is: among which processes its id is one, the id, when it began; None where that is unknown."""
    where = _where()
    return [where, os.getpid(), _stat(os.getpid())[1]] if where else None


def _is_gone(writer: Any) -> bool:
    """Whether it is certain that this process has ended. Of other machines' and containers' nothing is."""
    if not isinstance(writer, list) or len(writer) != 3:
        return False
    where, pid, began = writer
    if where != _where() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
        state, now_began = _stat(pid)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's; /proc may be hiding it
        return False
    return state in _ENDED or now_began != began


def _where() -> str:
    """This start of this machine, and this namespace of process ids; "" where there is no /proc that knows both."""
    try:
        if str(Path("/proc/self").readlink()) != str(os.getpid()):  # it is another namespace's
            return ""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _stat(pid: int) -> tuple[str, str]:
    """State and time of start of a process (proc_pid_stat(5)). Raises OSError."""
    fields_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields_[0], fields_[19]
