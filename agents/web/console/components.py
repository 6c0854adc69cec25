"""Components of the program for people: a sentence where one is bad, what to do about it, and facts with units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from fastapi import APIRouter, Depends, Request
from markupsafe import Markup, escape

from agents.core.errors import AgentsError
from agents.core.text import amount_text, command, counted
from agents.web.api import PROBLEMS, known_parameters
from agents.web.console.schemas import ComponentEntry, ComponentList
from agents.web.console.words import lasting
from agents.web.parts import Parts, parts_of

STATES_WAIT_S = 0.7
"""What a page waits for the states of processes."""
YEAR_2001 = 1e9
"""Seconds from which on a number of a key like `at` is a time."""
State = Mapping[str, Any]
router = APIRouter(prefix="/components", responses=PROBLEMS, dependencies=[Depends(known_parameters)])


def _listener(state: State) -> str:
    if hanging := state.get("hanging"):
        return f"{', '.join(hanging)} does not move; it is killed and started again."
    return "Nothing judges queries: the detector gives no sign of life, or one of its listeners is down."


def _queue(state: State) -> str:
    said = []
    if waiting := state.get("waiting"):
        said.append(f"{counted(waiting, 'file')} of verdicts on disk for the database")
    if lost := state.get("lost_unacknowledged"):
        said.append(f"{counted(lost, 'verdict')} lost, of which nobody has taken note")
    return f"{'; '.join(said)}." if said else "Nothing is stored: the detector gives no sign of life."


def _overload(state: State) -> str:
    if level := state.get("level"):
        return f"There is more than can be judged: level {level} leaves out reasons, then some NORMAL verdicts."
    return f"Judging is late: a query has waited for {lasting(float(state.get('oldest_unjudged_s', 0)))}."


def _channels(state: State) -> str:
    waiting = [f"{counted(number, 'message')} for {name}" for name, number in state.items() if name != "ok" and number]
    return f"A channel takes no messages: {', '.join(waiting) or 'none waits'}."


def _unwell(state: State) -> str:
    return "It is not well."


SENTENCES: Mapping[str, Callable[[State], str]] = {
    "listener": _listener,
    "queue": _queue,
    "overload": _overload,
    "channels": _channels,
    "scheduler": lambda _: "Nobody keeps the calendar: no retraining begins by itself, and no message is sent.",
}
"""What a bad state means, of components that do not say so themselves."""
ADVICE: Mapping[str, str] = {
    "database": "See that the server of DATABASE_URL runs and lets this machine in; verdicts wait on disk meanwhile.",
    "processes": "The disk of DATA_DIR may hang: see the system's log.",
    "listener": "See the log of `dns-tunnel run` or `listen`; start it where it does not run.",
    "queue": "See Database; `dns-tunnel health --acknowledge` takes note of what was lost.",
    "overload": "Give the machine more cores, or set DETECTOR_PROCESSES; RRL_… holds back who floods.",
    "channels": "Send a test here, and see Outbox for what the channel answers.",
    "outbox": "See the channel's address and secret in the settings, and send a test here.",
    "scheduler": "See the log of `dns-tunnel run` or `schedule`; start it where it does not run.",
    "model": "Go back to the model before at Models, or `dns-tunnel models restore`.",
    "disk": "Make room, or shorten QUERY_RETENTION_DAYS; alerts and verdicts wait in memory meanwhile.",
    "memory": "Lower FLOWS_MAX or the database's caches, or give the machine more memory.",
    "upstreams": "See that the servers of UPSTREAMS answer; another one can stand beside them.",
    "drill": "See that clients reach this listener by the resolvers of DRILL_RESOLVERS.",
    "intakes": "See which one below.",
    "enforcement": "See the log; blocks that were made stay in force.",
}
"""What to do about a bad state; else `dns-tunnel doctor` says more."""


def _advice(name: str) -> str:
    if name.startswith("intake "):
        return "See that its file or server is there and may be read; docs/intakes.md says how."
    return ADVICE.get(name, f"{command('doctor')} says more.")


def component_entry(name: str, state: State) -> ComponentEntry:
    """A component with its sentence; both texts are empty where it is well."""
    error = str(state.get("error") or "")
    well = bool(state.get("ok", True)) and not error
    sentence = "" if well else error or SENTENCES.get(name, _unwell)(state)
    facts = {key: value for key, value in state.items() if key not in ("ok", "error")}
    return ComponentEntry(name=name, ok=well, sentence=sentence, advice="" if well else _advice(name), facts=facts)


def component_entries(parts: Parts) -> Iterator[ComponentEntry]:
    """All components, the bad ones first; one that does not answer in time says so."""
    states: dict[str, State] = {}
    for name, probe in (("database", parts.database), ("processes", parts.processes), ("servers", parts.inside_probe)):
        try:
            found = probe.answer().result(STATES_WAIT_S)
        except (FutureTimeoutError, AgentsError):
            error = f"cannot reach the {name}: no answer for {probe.waited_s:.0f} s"
            states[name] = {"ok": False, "error": error}
            continue
        states |= {name: found} if name == "database" else found
    yield from sorted((component_entry(*one) for one in states.items()), key=lambda one: one.ok)


@router.get("", summary="Every component with a sentence where it is bad, and what to do")
def components(request: Request) -> ComponentList:
    """As /health, with names of intakes, upstreams, memory and outbox, which that keeps to itself."""
    return ComponentList(components=[*component_entries(parts_of(request))])


def fact(key: str, value: Any, when: Callable[[float], Markup]) -> Markup:
    """A value of a component with its unit, which its key names. when: how a time is shown."""
    if value is None or value == "" or value in ([], {}):
        return escape("none" if isinstance(value, list | dict) else "–")
    if isinstance(value, bool):
        return escape("yes" if value else "no")
    if isinstance(value, Mapping):
        return Markup(", ").join(Markup("{} {}").format(name, fact(key, one, when)) for name, one in value.items())
    if isinstance(value, list | tuple):
        return Markup(", ").join(fact("", one, when) for one in value)
    if not isinstance(value, int | float):
        return escape(value)
    return _number(key, value, when)


def _number(key: str, value: float, when: Callable[[float], Markup]) -> Markup:
    if value >= YEAR_2001 and (key in ("at", "since", "until", "next_run") or key.endswith("_at")):
        return when(value)
    if key.endswith("_bytes") or key == "bytes":
        return escape(amount_text(value))
    if key.endswith("_s"):
        return escape(lasting(value) if value else "none")
    return escape(f"{value:,}" if isinstance(value, int) else f"{value:,.4g}")
