"""How processes are: a small file each, rewritten while it lives, and what /health and /metrics make of them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from agents.core.errors import AgentsError
from agents.core.files import write_atomic
from agents.learning.registry import ModelRegistry
from agents.runtime.schedule import RetrainScheduler
from agents.scoring.model import Model
from agents.settings import Settings

PARTS = ("listener", "api", "scheduler")
"""What writes one, as its name with .json."""
EVERY_S = 2.0
STALE_S = 30.0
"""A process that has not written for this long is taken for dead."""
_ENDED = {"Z", "X"}
"""States of a process of which only the number is left."""
_log = structlog.get_logger()


class Heartbeat:
    """Writes what `collect` returns to `path` every few seconds, on a thread of its own."""

    def __init__(self, path: Path, collect: Callable[[], Mapping[str, Any]], every_s: float = EVERY_S) -> None:
        self._path, self._collect, self._every_s = path, collect, every_s
        self._writer = _writer()
        self._failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._write()
        self._thread.start()

    def stop(self) -> None:
        """End, and take the file away: this process lives no more. Without a start there is nothing to take."""
        self._stop.set()
        if self._thread.ident is None:
            return
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._write()

    def _write(self) -> None:
        try:
            said = {"at": time.time(), "writer": self._writer, **self._collect()}
            write_atomic(self._path, json.dumps(said).encode())
        except OSError as error:
            if not self._failing:  # not every two seconds
                _log.warning("heartbeat_not_written", path=str(self._path), error=str(error))
            self._failing = True
        else:
            self._failing = False


def read(path: Path) -> dict[str, Any]:
    """The last word of another process, with "ok": whether it is recent, and not that of one that is gone."""
    try:
        found: dict[str, Any] = dict(json.loads(path.read_bytes()))
        # a word from the future is one from before the clock was set back: who lives has written since
        recent = abs(time.time() - float(found.pop("at", 0))) < STALE_S
        gone = _is_gone(found.pop("writer", None))
    except (OSError, ValueError, TypeError):
        return {"ok": False}
    return {"ok": recent and not gone, **found}


def _writer() -> list[Any] | None:
    """Who this process is: among which processes its id is one, the id, when it began; None where that is unknown."""
    where = _where()
    return [where, os.getpid(), _stat(os.getpid())[1]] if where else None


def _is_gone(writer: Any) -> bool:
    """Whether it is certain that this process has ended. Of other machines' and containers' nothing is."""
    if writer is None:
        return False
    where, pid, began = writer
    if where != _where():
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
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]


class ModelHealth:
    """State of the model in use; the file is read once a change, since anybody may ask for /health."""

    def __init__(self, registry: ModelRegistry[Model]) -> None:
        self._registry = registry
        self._guard = threading.Lock()
        self._stamp: tuple[int, ...] | None = None
        self._state: dict[str, Any] = {}

    def state(self) -> Mapping[str, Any]:
        """{"ok", "model_id", "origin"}; not ok where there is a model file and the shipped one had to be used."""
        with self._guard:
            stamp = self._registry.stamp()
            if not self._state or stamp != self._stamp:
                self._state, self._stamp = self._look(), stamp
            return self._state

    def _look(self) -> dict[str, Any]:
        registry = self._registry
        try:
            state = {"ok": True, "model_id": registry.current().model_id, "origin": registry.origin}
        except AgentsError as error:
            return {"ok": False, "error": str(error)}
        if registry.origin == "baseline" and registry.stamp() is not None:
            state |= {"ok": False, "error": f"cannot use model {registry.champion_path.name}: see the log"}
        return state


def health_of(settings: Settings, model: ModelHealth) -> Mapping[str, Mapping[str, Any]]:
    """State of each component but the database, as /health shows it."""
    listener = read(settings.state_dir / "listener.json")
    scheduler = read(settings.state_dir / "scheduler.json")
    judging = listener["ok"] and bool(listener.get("judging"))
    shed = listener.get("shed", {})
    return {
        "model": model.state(),
        "listener": {"ok": judging, **{k: listener[k] for k in ("model_id", "incidents_open") if k in listener}},
        "queue": {"ok": judging and not listener.get("spool", {}).get("waiting"), **listener.get("spool", {})},
        "overload": {
            "ok": not shed.get("level"),
            **shed,
            **{name: listener[name] for name in ("queue_waiting", "queue_dropped") if name in listener},
        },
        "scheduler": scheduler,
    }


def counters_of(settings: Settings) -> Mapping[str, float]:
    """What the listener counted, by the names that /metrics gives it."""
    state = read(settings.state_dir / "listener.json")
    found = {f"listener_{name}_total": value for name, value in state.get("counters", {}).items()}
    found["listener_tcp_clients"] = found.pop("listener_tcp_clients_total", 0)
    found |= {f"store_{name}_total": value for name, value in state.get("spool", {}).items()}
    found |= {f"alerts_{name}_total": value for name, value in state.get("alerts", {}).items()}
    found |= {f"limit_{name}": value for name, value in state.get("limits", {}).items()}
    found["store_waiting"] = found.pop("store_waiting_total", 0)
    for name in ("scored", "queue_dropped", "flows_refused", "flows_forgotten"):
        found[f"detector_{name}_total"] = state.get(name, 0)
    found |= {f"detector_{name}_total": value for name, value in state.get("shed", {}).items()}
    found["detector_shed_level"] = found.pop("detector_level_total", 0)
    for name, process in state.get("processes", {}).items():
        found[f"process_{name.replace('-', '_')}_restarts_total"] = process["restarts"]
    for name in ("flows", "incidents_open", "queue_waiting"):
        found[f"detector_{name}"] = state.get(name, 0)
    found |= {f"sink_{name}_failures_total": value for name, value in state.get("sink_failures", {}).items()}
    return found


def calendar_of(scheduler: RetrainScheduler) -> Mapping[str, Any]:
    """What the scheduler's heartbeat says. Never raises because of the database."""
    try:
        return {"next_run": scheduler.next_run()}
    except AgentsError as error:  # without its database it lives on, and tries again
        return {"error": str(error).partition(": ")[0]}  # without the server's address: /health asks for no token
