"""What /health and /metrics say of the other processes, from their heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents import heartbeat
from agents.errors import AgentsError
from agents.model import Model
from agents.registry import ModelRegistry
from agents.scheduler import RetrainScheduler
from agents.settings import Settings


def health_of(settings: Settings, registry: ModelRegistry[Model]) -> Mapping[str, Mapping[str, Any]]:
    """State of each component but the database, as /health shows it."""
    listener = heartbeat.read(settings.state_dir / "listener.json")
    scheduler = heartbeat.read(settings.state_dir / "scheduler.json")
    try:
        model = {"ok": True, "model_id": registry.current().model_id, "origin": registry.origin}
    except AgentsError as error:
        model = {"ok": False, "error": str(error)}
    judging = listener["ok"] and bool(listener.get("judging"))
    return {
        "model": model,
        "listener": {"ok": judging, **{k: listener[k] for k in ("model_id", "incidents_open") if k in listener}},
        "queue": {"ok": judging and not listener.get("spool", {}).get("waiting"), **listener.get("spool", {})},
        "scheduler": scheduler,
    }


def counters_of(settings: Settings) -> Mapping[str, float]:
    """What the listener counted, by the names that /metrics gives it."""
    state = heartbeat.read(settings.state_dir / "listener.json")
    found = {f"listener_{name}_total": value for name, value in state.get("counters", {}).items()}
    found["listener_tcp_clients"] = found.pop("listener_tcp_clients_total", 0)
    found |= {f"store_{name}_total": value for name, value in state.get("spool", {}).items()}
    found |= {f"limit_{name}": value for name, value in state.get("limits", {}).items()}
    found["store_waiting"] = found.pop("store_waiting_total", 0)
    for name in ("scored", "queue_dropped", "flows_refused"):
        found[f"detector_{name}_total"] = state.get(name, 0)
    for name in ("flows", "incidents_open"):
        found[f"detector_{name}"] = state.get(name, 0)
    found |= {f"sink_{name}_failures_total": value for name, value in state.get("sink_failures", {}).items()}
    return found


def calendar_of(scheduler: RetrainScheduler) -> Mapping[str, Any]:
    """What the scheduler's heartbeat says. Never raises because of the database."""
    try:
        return {"next_run": scheduler.next_run()}
    except AgentsError as error:  # without its database it lives on, and tries again
        return {"error": str(error)}
