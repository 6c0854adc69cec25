"""Components with names of servers and folders, which /health, that anybody may ask, keeps to itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.alerting.handover import letters_in, oldest_s
from agents.runtime.heartbeat import OUTBOX, PARTS, STALE_S, DetectorHealth, detector_health, read_heartbeat
from agents.sources.collector import collected, queries_since
from agents.sources.live.loss import LOSS_ALARM, lost_share
from agents.stream.note import SharedNote

MEMORY_MIN = 0.05
"""Share of the machine's memory below which what is left is too little: the kernel ends processes at none."""


def inside_components(state_dir: Path, note: SharedNote | None = None) -> dict[str, Mapping[str, Any]]:
    """Each intake, upstreams, memory and outbox, as {"ok": bool, …}. note: the detector's heartbeat in memory."""
    alive, state = detector_health(state_dir, note)
    return {
        **_each_intake(state_dir),
        **(_upstreams(state) if alive and state.counters else {}),
        **memory_left(Path("/proc"), state if alive else DetectorHealth()),
        "outbox": _outbox(state_dir, state),
    }


def _each_intake(state_dir: Path) -> dict[str, Mapping[str, Any]]:
    now, found = time.time(), dict[str, Mapping[str, Any]]()
    for name, one in collected(state_dir, STALE_S).items():
        share, error = lost_share(one), str(one.get("error") or "")
        if not error and share > LOSS_ALARM:
            error = f"cannot hear all: its sender lost about {share:.1%} in the last minute"
        heard = {f"queries_{hours}h": queries_since(one, hours, now) for hours in (1, 24)}
        said = {"error": error} if error else {}
        found[f"intake {name}"] = {"ok": not error, "kind": one.get("kind", ""), **heard, **said}
    return found


def _upstreams(state: DetectorHealth) -> dict[str, Mapping[str, Any]]:
    """Sums since the supervisor began. Not ok: at least every tenth query that went out had no answer."""
    names = ("answered", "servfail", "timeouts", "late_answers", "failed_over")
    numbers = {name: state.counters.get(name, 0) for name in names}
    failing = numbers["servfail"] * 10 > numbers["answered"] + numbers["servfail"]
    share = numbers["servfail"] / max(numbers["answered"] + numbers["servfail"], 1)
    error = {"error": f"cannot get answers: {share:.0%} of the queries had none from any upstream"} if failing else {}
    return {"upstreams": {"ok": not failing, **numbers, "wrong_answers": dict(state.mismatched), **error}}


def memory_left(proc: Path, state: DetectorHealth) -> dict[str, Mapping[str, Any]]:
    """The machine's memory, and what each process holds of it (proc(5)); nothing where there is no /proc."""
    machine = _kilobytes(proc / "meminfo")
    if "MemTotal" not in machine or "MemAvailable" not in machine:
        return {}
    left, total = machine["MemAvailable"], machine["MemTotal"]
    held = {"this process": _kilobytes(proc / "self" / "status").get("VmRSS", 0) << 10}
    for name, process in state.processes.items():
        held[name] = _kilobytes(proc / str(process.get("pid", 0)) / "status").get("VmRSS", 0) << 10
    low = left < MEMORY_MIN * total
    error = {"error": f"cannot rely on the memory: {left / total:.1%} is left"} if low else {}
    held = {name: size for name, size in held.items() if size}
    return {"memory": {"ok": not low, "left_bytes": left << 10, "of_bytes": total << 10, "held_bytes": held, **error}}


def _kilobytes(path: Path) -> dict[str, int]:
    """Lines "Name: 12 kB" of a file; none where it cannot be read."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    parted = [line.replace(":", " ").split() for line in lines]
    return {line[0]: int(line[1]) for line in parted if len(line) == 3 and line[1].isdigit() and line[2] == "kB"}


def _outbox(state_dir: Path, state: DetectorHealth) -> Mapping[str, Any]:
    """Messages that are not sent yet, and why a channel takes none."""
    scheduler = read_heartbeat(state_dir / PARTS["scheduler"])
    sending = scheduler.get("channels", {}) if scheduler["ok"] else {}
    channels = {**state.channels, **sending}
    failing = {name: one for name, one in channels.items() if one.get("failures")}
    said = [f"{name} did not take it {one['failures']} times in a row: {one['error']}" for name, one in failing.items()]
    waiting = {name: one["waiting"] for name, one in channels.items()}
    age_s = oldest_s(state_dir / OUTBOX)
    error = {"error": f"cannot send all messages: {'; '.join(said)}"} if said else {}
    numbers = {"letters": len(letters_in(state_dir / OUTBOX)), "oldest_s": age_s, "waiting": waiting}
    return {"ok": not said, **numbers, **error}
