"""The process `network`: all clients of several detectors are counted here, and the health of all is summed up."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agents.alerting.intake_losses import IntakeLosses
from agents.alerting.losses import Losses
from agents.detection.shared.busy_clients import busy_clients
from agents.detection.shared.detector_report import detector_report_of
from agents.runtime.heartbeat import STALE_S, DetectorHealth
from agents.runtime.judging.judge import Judge
from agents.runtime.judging.loop import run_judge
from agents.runtime.several.exchange import DetectorExchange, Several
from agents.runtime.signals import Beat
from agents.sources.heard_days import Listened
from agents.sources.live.loss import losing_intakes
from agents.stream.ledger import TOTALS
from agents.stream.shared import IDLE_S, SharedStream

NETWORK_PROCESS = "network"
"""Name of the process in which all clients are counted together."""
PAUSE_S = 0.02
"""Between two looks at messages, so that those of several detectors are counted in order of time."""
SUMMED = (*TOTALS, "queue_waiting", "queue_dropped")
"""Numbers that are in the memory of each detector's stream."""
TOLD = (
    "flows",
    "flows_refused",
    "flows_forgotten",
    "incidents_open",
    "spool_waiting",
    "replayed",
    "damaged",
    "already",
)
"""Numbers that a detector's own note tells."""


class NetworkLoop:
    """Messages of the detectors to the judge of all clients; and the health of all of them."""

    def __init__(self, exchange: DetectorExchange, judge: Judge, stream: SharedStream, listens: bool) -> None:
        self._exchange, self._judge, self._stream = exchange, judge, stream
        self._losses = Losses(judge.state_dir, judge.alerts.send)
        self._intake_losses = IntakeLosses(judge.alerts.send)
        self._listened = Listened(judge.state_dir) if listens else None
        self._together = judge.counter

    def run(self, stop: threading.Event, beat: Beat) -> None:
        """Count until `stop` is set and nothing waits."""
        self.publish()
        while True:
            beat(2 * IDLE_S)
            found = {name: box.peek() for name, box in self._exchange.mailboxes.items()}
            messages = [message for waiting, _ in found.values() for message in waiting]
            if messages:
                self._judge.count_reports([detector_report_of(message) for message in messages])
                for name, (_, end) in found.items():
                    self._exchange.mailboxes[name].advance_to(end)
            self.publish()
            if messages:
                stop.wait(PAUSE_S)
            elif stop.is_set():
                return
            else:
                self._exchange.bell.wait(IDLE_S)

    def publish(self) -> None:
        """Let the detectors know what is known now."""
        facts = self._exchange.facts
        facts.write(self._together.facts().packed(facts.most))

    def health(self) -> DetectorHealth:
        """What the heartbeat says: of this process and of all detectors."""
        own, streams = self._judge.health(), [self._stream.of(at) for at in range(self._stream.detectors)]
        each = {name: self._told(name) for name in self._exchange.names}
        streamed = [one.health() for one in streams]
        detectors = {
            name: {"ok": bool(told.get("ok")), "load_level": now["load_level"]}
            | {key: now[key] for key in SUMMED}
            | {key: int(told.get(key, 0)) for key in TOLD}
            | {"unsaid": self._exchange.mailboxes[name].dropped, "last_batch_at": told.get("last_batch_at", 0.0)}
            for (name, told), now in zip(each.items(), streamed, strict=True)
        }
        sums = {key: sum(one[key] for one in streamed) for key in SUMMED}
        sums |= {key: getattr(own, key) + sum(one[key] for one in detectors.values()) for key in TOLD}
        notes = list(each.values())
        why = {f"{name} {what}": text for name, told in each.items() for what, text in told.get("disk", {}).items()}
        disk = {**own.disk, **why}
        run_id = streamed[0]["run_id"]
        lost = self._losses.note(run_id, sums["lost"], "; ".join(f"{name}: {text}" for name, text in disk.items()))
        if self._listened is not None:
            self._listened.note(run_id, streamed[0]["counters"]["received"])
        self._intake_losses.note(losing_intakes(self._judge.state_dir))
        busy = busy_clients([told.get("busy", {}) for told in notes])
        oldest = [one["oldest_unjudged_at"] for one in streamed if one["oldest_unjudged_at"]]
        return replace(
            own,
            **sums,
            judging=own.judging and all(told.get("ok") and told.get("judging") for told in notes),
            run_id=run_id,
            load_level=max(one["load_level"] for one in streamed),
            lost_in_all=lost[0],
            lost_unacknowledged=lost[1],
            disk=disk,
            counters=streamed[0]["counters"],
            processes=streamed[0]["processes"],
            oldest_unjudged_at=min(oldest, default=0.0),
            last_batch_at=max((told.get("last_batch_at", 0.0) for told in notes), default=0.0),
            alerts=_summed([own.alerts, *(told.get("alerts", {}) for told in notes)]),
            exports=_summed([own.exports, *(told.get("exports", {}) for told in notes)]),
            sink_failures=_summed([own.sink_failures, *(told.get("sink_failures", {}) for told in notes)]),
            channels=_channels([own.channels, *(told.get("channels", {}) for told in notes)]),
            hunting=_hunting([told.get("hunting", {}) for told in notes]),
            scoring=scoring_summed([told.get("scoring", {}) for told in notes]),
            detectors=detectors,
            busy={client: part for client, part in busy.items() if not self._exchange.parted.has(client)},
        )

    def _told(self, name: str) -> Mapping[str, Any]:
        found = self._exchange.noted(name)
        return {**found, "ok": abs(time.time() - found.get("at", 0.0)) < STALE_S} if found else {}

    def end(self) -> None:
        """Write down what the next process goes on from."""
        self.health()
        if self._listened is not None:
            self._listened.write()


def scoring_summed(each: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Sums of all detectors, by detector type."""
    total: dict[str, dict[str, float]] = {}
    for kind, numbers in (item for one in each for item in one.items()):
        sums = total.setdefault(kind, {})
        sums |= {name: sums.get(name, 0) + value for name, value in numbers.items()}
    return total


def _summed(each: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in each:
        total.update(one)
    return dict(total)


def _hunting(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all processes sent, and the worst that one of them says."""
    numbers = _summed([{key: value for key, value in one.items() if key not in ("error", "failures")} for one in each])
    worst = max(each, key=lambda one: int(one.get("failures", 0)), default={})
    return numbers and {**numbers, "failures": worst["failures"], "error": worst["error"]}


def _channels(each: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Of each channel what waits in all processes, and the worst that one of them says."""
    found: dict[str, dict[str, Any]] = {}
    for one in each:
        for name, state in one.items():
            known = found.setdefault(name, {**state, "waiting": 0})
            worse = state if state["failures"] > known["failures"] else {}
            found[name] = {**known, **worse, "waiting": known["waiting"] + state["waiting"]}
    return found


def run_network(several: Several, stream: SharedStream, listens: bool, ready: Callable[[], None], beat: Beat) -> int:
    """The process `network`: counts what the detectors say until SIGTERM, then what is left of it."""
    exchange = several.exchange

    def loop_of(judge: Judge) -> NetworkLoop:
        return NetworkLoop(exchange, judge, stream, listens)

    bell = exchange.bell
    return run_judge(bell.writing, bell.ring, lambda: several.make(NETWORK_PROCESS), loop_of, ready, beat)
