"""What /health and /metrics say of the processes on one DATA_DIR, by their heartbeats."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.alerting.handover import oldest_s
from agents.core.errors import AgentsError
from agents.core.protocols import ModelInUse, ScoringModel
from agents.core.types import Metric
from agents.runtime.bus.cluster_models import cluster_models
from agents.runtime.drill.drill import FIRST_S
from agents.runtime.heartbeat import (
    OUTBOX,
    PARTS,
    STALE_S,
    STILL_S,
    DetectorHealth,
    detector_health,
    disk_is_full,
    read_heartbeat,
)
from agents.runtime.schedule import RetrainScheduler
from agents.sources.collector import collected, queries_since
from agents.sources.live.loss import LOSS_ALARM, lost_share
from agents.stream.note import SharedNote

_NUMBERS: tuple[tuple[str, str, str], ...] = (
    ("detector_scored_total", "scored", "queries judged"),
    ("detector_suspicious_total", "suspicious", "queries judged SUSPICIOUS"),
    ("detector_high_total", "high", "queries judged HIGH"),
    ("detector_critical_total", "critical", "queries judged CRITICAL"),
    ("detector_answers_timed_total", "timed", "judged queries of which it is known how long their answer took"),
    ("detector_queue_dropped_total", "queue_dropped", "queries that found no room in a ring and were not judged"),
    ("detector_queue_waiting", "queue_waiting", "queries waiting to be judged"),
    ("detector_load_level", "load_level", "what is left out under load: 0 nothing, 1 explanations, 2 NORMAL verdicts"),
    ("detector_unexplained_total", "unexplained", "verdicts stored without reasons under load"),
    ("detector_sampled_out_total", "sampled_out", "NORMAL verdicts not stored under load"),
    ("detector_flows", "flows", "client and domain pairs in memory"),
    ("detector_flows_refused_total", "flows_refused", "queries whose flow the caps refused"),
    ("detector_flows_forgotten_total", "flows_forgotten", "times that a flow forgot the names it had seen"),
    ("detector_incidents_open", "incidents_open", "open incidents"),
    ("store_stored_total", "stored", "queries stored"),
    ("store_spooled_total", "spooled", "queries spooled to disk"),
    ("store_replayed_total", "replayed", "queries stored from the spool"),
    ("store_lost_unacknowledged", "lost_unacknowledged", "lost verdicts of which nobody has taken note"),
    ("store_lost_total", "lost", "verdicts that neither store nor disk took"),
    ("store_damaged_total", "damaged", "spool files set aside"),
    ("store_already_total", "already", "queries that the store had from a killed process"),
    ("store_waiting", "spool_waiting", "batches that wait in the spool"),
)
"""Metrics that are one number of DetectorHealth: (name, field, help)."""
_LISTENER_HELP = {
    "received": "messages from clients",
    "malformed": "messages that are no single whole question",
    "refused": "messages from outside ALLOWED_CLIENTS",
    "notimp": "messages with an opcode other than QUERY or an unknown EDNS version, and zone transfers",
    "rejected": "queries answered SERVFAIL at once: too many in flight",
    "rejected_client": "of the rejected, queries of a client that had its share",
    "rejected_domain": "of the rejected, queries below a domain that had its share",
    "rejected_upstream": "of the rejected, queries whose upstreams had their share",
    "rate_dropped": "queries above CLIENT_QPS_MAX, dropped",
    "rate_slipped": "queries above CLIENT_QPS_MAX, answered with TC",
    "rrl_dropped": "answers above RRL_..., dropped",
    "rrl_slipped": "answers above RRL_..., sent with TC and nothing else",
    "local": "queries for special names, answered here",
    "cache_hits": "queries answered from the cache",
    "cache_stale": "queries answered with what had expired in the cache, since upstreams failed",
    "cache_misses": "queries that the cache had no answer for",
    "cache_prefetches": "popular answers that were asked for anew before they expired",
    "cache_evicted": "cached answers that made room for others",
    "cache_entries": "answers in the cache now",
    "cache_bytes": "bytes of the cache in use now",
    "answered": "queries answered with an upstream's answer",
    "servfail": "queries that no upstream answered",
    "timeouts": "questions that one upstream did not answer in time",
    "late_answers": "answers that came after their upstream's time and were used",
    "failed_over": "SERVFAIL and REFUSED of one upstream after which the next was asked",
    "tcp_fallbacks": "truncated answers that were asked again over TCP",
    "mismatched_answers": "datagrams from an upstream that answer no question",
    "forgeries": "upstream sockets given up for too many wrong answers, their queries asked over TCP",
    "loops": "probes that came back: an upstream asks this listener",
    "tcp_clients": "TCP connections open now",
    "tcp_rejected": "TCP connections closed at once: too many",
    "tcp_evicted": "idle TCP connections closed to make room for new ones",
    "tcp_refused": "TCP connections closed at once: outside ALLOWED_CLIENTS",
}
_INTAKES = {
    "queries": "queries out of logs that are followed",
    "malformed": "lines of followed logs that could not be read",
    "dropped": "packets and datagrams of live intakes that found no room in the kernel",
    "refused": "connections and datagrams to live intakes that were not let in, or did not speak as they should",
    "passed_over": "syslog messages of programs that are no query log, passed over",
    "nameless": "queries that followed logs have without a name, not judged",
}
_ENFORCEMENT = {
    "blocks": ("in_force", "blocks in force"),
    "dry_blocks": ("dry", "blocks that are only counted"),
    "made_total": ("made", "blocks that were made without a person"),
    "held_total": ("held", "incidents that a brake kept from being blocked"),
    "hits_total": ("hits", "queries that met a block"),
    "dry_hits_total": ("dry_hits", "queries that would have met a block"),
}
"""Metrics of enforcement: name, key of the heartbeat, help."""
_EACH = {
    "scored": ("_total", "queries judged"),
    "queue_waiting": ("", "queries waiting to be judged"),
    "queue_dropped": ("_total", "queries that found no room in a ring"),
    "load_level": ("", "what is left out under load"),
    "flows": ("", "client and domain pairs in memory"),
    "incidents_open": ("", "open incidents"),
    "unsaid": ("_total", "messages of what all clients carry that found no room"),
}
"""Metrics of each of several detectors: suffix and help by the key of the heartbeat."""
_HUNTING = {
    "sent": "queries that ClickHouse has",
    "lost": "queries for ClickHouse that found no room on disk",
    "failed": "blocks that ClickHouse did not take when they were sent",
    "damaged": "files of queries for ClickHouse that were set aside",
    "waiting": "batches that wait for ClickHouse",
    "failures": "times in a row that ClickHouse took nothing",
}
"""Metrics of what is sent to ClickHouse: key of the heartbeat, help."""
_GAUGES = {"tcp_clients", "cache_entries", "cache_bytes"}
_SENT = {"channels", "alerts"}
"""What the scheduler's heartbeat has of alerts that it sends."""
_BY_SENDER = {"sent", "failed"}
"""Counts of messages that the process that sends them knows; those of a detector that hands over are of letters."""
DRILLS_LATE = 3
"""After so many intervals without a drill something is wrong."""
UNSENT_S = 60.0
"""An alert that waited for so long for a process that sends it says that there is none."""
LATE_S = 10.0
"""A query that has waited so long to be judged says that judging hangs or is overloaded."""


def _age_s(at: float) -> float:
    """Seconds since then, with the clock of today; 0 where there is none."""
    return round(max(time.time() - at, 0.0), 1) if at else 0.0


def _scoring(by_type: Mapping[str, Mapping[str, float]]) -> Iterator[Metric]:
    """What each detector type that judged took and found."""
    for kind, one in by_type.items():
        yield Metric(f"model_{kind}_names_total", f"names that {kind} scored", one["names"])
        yield Metric(f"model_{kind}_score_seconds_total", f"seconds that {kind} took for them", one["seconds"])
        text = f"confidence of {kind} in its scores, summed over names"
        yield Metric(f"model_{kind}_confidence_total", text, one.get("confidence", 0.0))
        yield Metric(f"model_{kind}_odd_total", f"names that {kind} found SUSPICIOUS or more", one["odd"])
        yield Metric(f"model_{kind}_benign_total", f"names that a known service explains, by {kind}", one["benign"])
        yield Metric(f"model_{kind}_benign_odd_total", f"of these, SUSPICIOUS or more to {kind}", one["benign_odd"])
        if one["names"]:
            mean_us = one["seconds"] / one["names"] * 1e6
            yield Metric(f"model_{kind}_score_us", f"microseconds that {kind} takes for a name, on average", mean_us)
            text = f"how far inside their bands the scores of {kind} are, on average: 0 at a boundary, 1 in the middle"
            yield Metric(f"model_{kind}_confidence", text, one.get("confidence", 0.0) / one["names"])
        if one["benign"]:
            text = f"share of names that a known service explains and {kind} finds SUSPICIOUS or more"
            yield Metric(f"model_{kind}_false_positive_rate", text, one["benign_odd"] / one["benign"])


def metrics_of(state: DetectorHealth) -> Iterator[Metric]:
    """Every metric of the detector's heartbeat, by the names that /metrics gives them."""
    oldest, last = _age_s(state.oldest_unjudged_at), _age_s(state.last_batch_at)
    yield Metric("detector_oldest_unjudged_seconds", "age of the oldest query that waits to be judged", oldest)
    yield Metric("detector_last_batch_seconds", "time since a batch was judged and kept", last)
    for name, attribute, text in _NUMBERS:
        yield Metric(name, text, getattr(state, attribute))
    text = "seconds that answers took, summed over queries of which that is known"
    yield Metric("detector_answer_seconds_total", text, state.answer_us / 1e6)
    yield from _scoring(state.scoring)
    for counter, value in state.counters.items():
        suffix = "" if counter in _GAUGES else "_total"
        yield Metric(f"listener_{counter}{suffix}", _LISTENER_HELP.get(counter, counter), value)
    for name, value in state.mismatched.items():
        upstream = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
        text = f"datagrams from upstream {name} that answer no question"
        yield Metric(f"upstream_{upstream}_mismatched_total", text, value)
    for name, value in state.alerts.items():
        yield Metric(f"alerts_{name}_total", f"alerts {name}", value)
    for name, text in _HUNTING.items() if state.hunting else ():
        suffix = "" if name in ("waiting", "failures") else "_total"
        yield Metric(f"hunt_{name}{suffix}", text, state.hunting.get(name, 0))
    yield from _bus_metrics(state.bus)
    for name, value in state.exports.items():
        yield Metric(f"exports_{name}_total", f"records of incidents {name}, since the detector began", value)
    if state.drill.get("at") or not state.drill.get("ok", True):
        yield Metric(
            "drill_ok", "1 where the last test tunnel was seen through each intake", bool(state.drill.get("ok"))
        )
    if state.drill.get("at"):
        yield Metric("drill_age_seconds", "time since the last test tunnel", _age_s(state.drill["at"]))
        yield Metric("drill_unseen", "intakes through which it was not seen", state.drill.get("unseen", 0))
    for name, (key, text) in _ENFORCEMENT.items():
        yield Metric(f"enforcement_{name}", text, state.enforcement.get(key, 0))
    yield Metric(
        "enforcement_paused", "1 while no block is made without a person", bool(state.enforcement.get("paused"))
    )
    for name, channel in state.channels.items():
        yield Metric(f"channel_{name}_waiting", f"messages that wait for {name}", channel["waiting"])
        yield Metric(f"channel_{name}_failures", f"times in a row that {name} was not reached", channel["failures"])
    for name, amount in state.limits.items():
        yield Metric(f"limit_{name}", name.replace("_", " ") + " that can leave unseen" * (name != "factor"), amount)
    yield from _process_metrics(state)
    for name, value in state.sink_failures.items():
        yield Metric(f"sink_{name}_failures_total", f"batches that sink {name} failed on", value)


def _process_metrics(state: DetectorHealth) -> Iterator[Metric]:
    """Metrics of each process, and of each of several detectors."""
    for name, process in state.processes.items():
        name = name.replace("-", "_")
        yield Metric(f"process_{name}_restarts_total", f"times that {name} was started again", process["restarts"])
        yield Metric(
            f"process_{name}_hangs_total", f"times that {name} was killed since it hung", process.get("hangs", 0)
        )
    if state.detectors:
        text = "largest part of an hour's queries that one client asked and one detector judges; 0 = below an eighth"
        yield Metric("detector_busiest_client_part", text, max(state.busy.values(), default=0.0))
    for name, one in state.detectors.items():
        for key, (suffix, text) in _EACH.items():
            yield Metric(f"{name.replace('-', '_')}_{key}{suffix}", f"{text}, of {name}", one.get(key, 0))


class ModelHealth:
    """State of the model in use; the file is read once a change, since anybody may ask for /health."""

    def __init__(self, registry: ModelInUse[ScoringModel]) -> None:
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


class ProcessHealth:
    """What /health and /metrics say of the processes on one DATA_DIR."""

    def __init__(
        self,
        state_dir: Path,
        registry: ModelInUse[ScoringModel],
        note: SharedNote | None = None,
        folders: Sequence[Path] = (),
    ) -> None:
        """note: the detector's heartbeat in shared memory, where there is one. folders: whose disks need room."""
        self._state_dir, self._model, self._note = state_dir, ModelHealth(registry), note
        self._folders = folders
        self._guard = threading.Lock()
        self._start, self._start_at = ("", -1), 0.0

    def components(self) -> Mapping[str, Mapping[str, Any]]:
        """State of each component but the database, as /health shows it."""
        alive, state = detector_health(self._state_dir, self._note)
        judging = alive and state.judging
        spool = {name: getattr(state, name) for name in ("stored", "spooled", "replayed", "lost", "damaged", "already")}
        spool["waiting"] = state.spool_waiting
        spool["lost_unacknowledged"] = state.lost_unacknowledged
        load = {"level": state.load_level, "unexplained": state.unexplained, "sampled_out": state.sampled_out}
        ages = {"oldest_unjudged_s": _age_s(state.oldest_unjudged_at), "last_batch_s": _age_s(state.last_batch_at)}
        hanging = sorted(name for name, process in state.processes.items() if process.get("still_s", 0) >= STILL_S)
        seen = {"model_id": state.model_id, "incidents_open": state.incidents_open, "hanging": hanging}
        return {
            "model": self._model.state(),
            "listener": {"ok": judging and not hanging, **_seen(alive, **seen)},
            "queue": {
                "ok": judging and not state.spool_waiting and not state.lost_unacknowledged,
                **_seen(alive, **spool),
            },
            "disk": self._disk(state),
            "overload": {
                "ok": not state.load_level and ages["oldest_unjudged_s"] < LATE_S,
                **_seen(alive, **load, **ages, queue_waiting=state.queue_waiting, queue_dropped=state.queue_dropped),
            },
            "channels": self._channels(state),
            "scheduler": {name: value for name, value in self._scheduler().items() if name not in _SENT},
            **_detectors(state),
            **_enforcement(state),
            **_hunting(state),
            **_bus(state),
            **_hosts(self._state_dir),
            **_drill(state, self._since(state)),
            **self._intakes(),
        }

    def _since(self, state: DetectorHealth) -> float:
        """When this start of the detector was seen first, Unix seconds."""
        judging = state.processes.get("detector", state.processes.get("network", {}))
        start = (state.run_id, judging.get("restarts", 0))
        with self._guard:
            if self._start != start:
                self._start, self._start_at = start, time.time()
            return self._start_at

    def metrics(self) -> Iterator[Metric]:
        """What the processes counted."""
        alive, state = detector_health(self._state_dir, self._note)
        yield Metric("detector_up", "1 while a detector says how it is; else the numbers are old, or zeros", alive)
        yield from metrics_of(self._with_sent(state))
        if (cluster := cluster_models(self._state_dir)) is not None:
            text = "messages on the bus that no saved state of any host has: the signal for more detectors"
            yield Metric("hosts_lag", text, sum(one.lag for one in cluster.hosts.values()))
        found, now = list(collected(self._state_dir, STALE_S).values()), time.time()
        if found:
            for name, text in _INTAKES.items():
                yield Metric(f"intake_{name}_total", text, sum(one.get(name, 0) for one in found))
            for hours in (1, 24):
                heard = sum(queries_since(one, hours, now) for one in found)
                yield Metric(f"intake_heard_{hours}h", f"queries out of intakes in the last {hours} h", heard)
            silent = sum(not queries_since(one, 1, now) for one in found)
            yield Metric("intake_silent", "intakes without a query in the last hour", silent)
            share = max(map(lost_share, found))
            yield Metric("intake_lost_share", "largest share that a sender lost in the last minute, estimated", share)

    def _intakes(self) -> dict[str, dict[str, Any]]:
        """What was heard from logs and servers that a collector follows; nothing where none runs. No names: anybody
        may ask."""
        found, now = collected(self._state_dir, STALE_S).values(), time.time()
        if not found:
            return {}
        heard = {f"queries_{hours}h": sum(queries_since(one, hours, now) for one in found) for hours in (1, 24)}
        failing = sum(bool(one.get("error")) for one in found)
        losing = sum(lost_share(one) > LOSS_ALARM for one in found)
        texts = [f"cannot hear {failing} of {len(found)}"] * bool(failing) + [f"{losing} lose queries"] * bool(losing)
        error = {"error": f"{', '.join(texts)}: see dns-tunnel doctor"} if texts else {}
        silent = sum(not queries_since(one, 1, now) for one in found)
        return {"intakes": {"ok": not texts, "followed": len(found), "silent_1h": silent, **heard, **error}}

    def _scheduler(self) -> dict[str, Any]:
        return read_heartbeat(self._state_dir / PARTS["scheduler"])

    def _with_sent(self, state: DetectorHealth) -> DetectorHealth:
        """The detector's state with that of the process that sends its alerts, where another one does."""
        found = self._scheduler()
        if not found["ok"] or "channels" not in found:
            return state
        sent = Counter(found["alerts"])
        alerts = {name: sent[name] + (value if name not in _BY_SENDER else 0) for name, value in state.alerts.items()}
        return replace(state, channels={**state.channels, **found["channels"]}, alerts=alerts)

    def _channels(self, state: DetectorHealth) -> dict[str, Any]:
        """Whether messages arrive: how many wait for each channel, and how many for a process that sends them."""
        channels, late_s = self._with_sent(state).channels, oldest_s(self._state_dir / OUTBOX)
        found: dict[str, Any] = {name: channel["waiting"] for name, channel in channels.items()}
        well = not any(channel["failures"] for channel in channels.values())
        if late_s >= UNSENT_S:
            well = False
            found["error"] = f"cannot send alerts: no scheduler has taken them for {late_s:.0f} s"
        return {"ok": well, **found}

    def _disk(self, state: DetectorHealth) -> dict[str, Any]:
        """Whether all that lies on disk can be written."""
        faults = [f"cannot write {name}: {text}" for name, text in state.disk.items()]
        faults += [f"cannot use the disk of {one.name}: it is full" for one in self._folders if disk_is_full(one)]
        return {"ok": not faults} | ({"error": "; ".join(faults)} if faults else {})


def _detectors(state: DetectorHealth) -> dict[str, dict[str, Any]]:
    """How each of several detectors is; nothing where there is one."""
    if not state.detectors:
        return {}
    found = {name: {**one} for name, one in state.detectors.items()}
    for one in found.values():
        one["last_batch_s"] = _age_s(one.pop("last_batch_at"))
        one["ok"] = one["ok"] and not one["load_level"] and not one["unsaid"]
    failing = [name for name, one in found.items() if not one["ok"]]
    error = {"error": f"cannot rely on {', '.join(failing)}: see dns-tunnel doctor"} if failing else {}
    return {"detectors": {"ok": not failing, **found, **error}}


_BUS = {
    "connected": ("", "1 while there is a connection to the bus"),
    "failures": ("_total", "requests to the bus that did not succeed"),
    "sent": ("_total", "messages of queries sent to the bus"),
    "resent": ("_total", "messages sent again, since a stream was lost"),
    "refused": ("_total", "messages for which a stream, or this site's share of it, had no room; they wait on disk"),
    "unsent": ("", "messages of queries on this disk that are not sent yet"),
    "kept": ("", "messages of queries on this disk that no detector has saved yet"),
    "slots": ("", "slots that the detectors of this host hold"),
    "gaps": ("_total", "times that messages were skipped, and read again"),
    "repeated": ("_total", "messages that came again, and were not counted"),
    "early": ("_total", "messages that came before those that are missing, and were not counted"),
}


def _bus_metrics(bus: Mapping[str, Any]) -> Iterator[Metric]:
    for name, (suffix, text) in _BUS.items():
        if name in bus:
            yield Metric(f"stream_{name}{suffix}", text, int(bus[name]))
    if "lag" in bus:
        text = "messages of the slots of this host that no saved state has: the signal for more detectors"
        yield Metric("stream_lag", text, sum(bus["lag"].values()))
    for slot, lag in bus.get("lag", {}).items():
        yield Metric(f"stream_slot_{slot}_lag", "messages of this slot that no saved state has", lag)


def _bus(state: DetectorHealth) -> dict[str, dict[str, Any]]:
    """Whether queries get to the bus, or out of it. Without its address: anybody may ask."""
    found = dict(state.bus)
    if not found:
        return {}
    found.pop("error")
    error = {} if found["connected"] else {"error": "cannot reach the bus: see dns-tunnel doctor"}
    return {"stream": {"ok": not error, **found, **error}}


def _hosts(state_dir: Path) -> dict[str, dict[str, Any]]:
    """Whether the hosts on the bus run what is deployed. No names: anybody may ask."""
    found = cluster_models(state_dir)
    if found is None:
        return {}
    counts = {"hosts": len(found.hosts), "behind": len(found.behind), "silent": len(found.silent(time.time()))}
    bad = counts["behind"] or counts["silent"]
    error = {"error": "hosts run another model, or say nothing: see dns-tunnel doctor"} if bad else {}
    return {"hosts": {"ok": not error, **counts, **error}}


def _hunting(state: DetectorHealth) -> dict[str, dict[str, Any]]:
    """Whether ClickHouse gets all queries, where it is to have them. Without its address: anybody may ask."""
    found = dict(state.hunting)
    if not found:
        return {}
    found.pop("error")
    well = not found["failures"] and not found["lost"]
    why = "cannot send queries to ClickHouse" if found["failures"] else "queries for ClickHouse were lost"
    error = {} if well else {"error": f"{why}: see dns-tunnel doctor"}
    return {"hunting": {"ok": well, **found, **error}}


def _enforcement(state: DetectorHealth) -> dict[str, dict[str, Any]]:
    """What is blocked, where anything may be. No names, nor why it is paused: anybody may ask."""
    found = dict(state.enforcement)
    if found.get("mode", "off") == "off":
        return {}
    error = {"error": "cannot keep up the blocks: see the log"} if found.pop("error", "") else {}
    return {"enforcement": {"ok": not error, **found, "paused": bool(found.get("paused")), **error}}


def _drill(state: DetectorHealth, since: float = 0.0) -> dict[str, dict[str, Any]]:
    """Whether the last test tunnel was seen, where there are any. No names: anybody may ask.

    since: when the detector began, 0 = that is not known; it may be waiting for its first drill.
    """
    found = state.drill
    if not found:
        return {}
    error = {} if found.get("ok") else {"error": "cannot see a test tunnel: see dns-tunnel doctor"}
    if error and not found["at"]:
        error = {"error": "cannot drill: this machine may not ask its listener: see dns-tunnel doctor"}
    late_s = DRILLS_LATE * 60 * found.get("minutes", 0)
    if "unseen" not in found:
        late_s = max(late_s, 2 * FIRST_S)
    at = found["at"] if "unseen" in found else max(found.get("at", 0.0), since)
    if _age_s(at) > late_s:
        error = {"error": f"cannot drill: no test tunnel has ended for {_age_s(at):.0f} s"}
    numbers = {name: found[name] for name in ("at", "unseen", "stored", "asked", "injected") if name in found}
    return {"drill": {"ok": not error, **numbers, **error}}


def _seen(alive: bool, **values: Any) -> dict[str, Any]:
    """Values of a heartbeat, nothing where there is none."""
    return values if alive else {}


def calendar_of(scheduler: RetrainScheduler) -> Mapping[str, Any]:
    """What the scheduler's heartbeat says. Never raises because of the database."""
    doubt = scheduler.clock.doubt() or scheduler.clock.refused
    try:
        return {"next_run": scheduler.next_run()} | ({"error": doubt} if doubt else {})
    except AgentsError as error:  # without its database it lives on, and tries again
        return {"error": str(error).partition(": ")[0]}  # without the server's address: /health asks for no token
