"""What /health and /metrics say of the other processes, from their heartbeats."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from agents import heartbeat
from agents.errors import AgentsError
from agents.model import Model
from agents.registry import ModelRegistry
from agents.scheduler import RetrainScheduler
from agents.settings import Settings


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
    listener = heartbeat.read(settings.state_dir / "listener.json")
    scheduler = heartbeat.read(settings.state_dir / "scheduler.json")
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
    state = heartbeat.read(settings.state_dir / "listener.json")
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
