"""One site of a fleet: it contributes to the open round, and takes what came of the last one through its own gates.

data/fleet_site/taken.json    the round whose result was taken last
data/fleet_site/state.json    that result: shares of clients, hashes of domains that several sites know, their habits
data/fleet_site/counts.json   the counts of this week, with their noise
data/fleet_site/sent.json     the round that was sent to last, and when
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import structlog
from pydantic import TypeAdapter, ValidationError

from agents.core.errors import AgentsError, BusyError, UsageError
from agents.core.files import PRIVATE_MODE, json_state, locked_within, make_private_folder, write_atomic
from agents.core.text import printable
from agents.detection.explanations.network_profile import FleetHabit, NetworkProfile, domain_hash_of
from agents.learning.fleet.counts import client_counts, counts_of_week, domain_hashes
from agents.learning.fleet.exchange import (
    ROUND_PATH,
    SIGNATURE_HEADER,
    SITE_HEADER,
    STATE_BYTES_MAX,
    TIME_HEADER,
    Contribution,
    FleetState,
    answer_signature,
    made_contribution,
    signature_of,
    state_of,
)
from agents.learning.fleet.forests import sent_trees
from agents.learning.fleet.habits import kinds_seen, site_habits
from agents.learning.fleet.joining import clipped, compared_quantiles
from agents.learning.fleet.options import FleetOptions, must_be_whole
from agents.learning.loop.flow_hours import SCHEMA as FLOW_SCHEMA
from agents.learning.loop.flow_model import FlowModel
from agents.learning.loop.online import OnlineLearner
from agents.learning.profile.making import Reach
from agents.learning.repeating import RepeatingThread
from agents.scoring.features import SCHEMA as NAME_SCHEMA
from agents.scoring.model import Model
from agents.store.feedback.flow_hours import FlowHours

TIMEOUT_S = 20.0
STEP_LOCK_S = 1.0
REFUSAL_MAX = 4_096
"""Bytes of a refusal that are read."""
_HABITS = TypeAdapter(tuple[FleetHabit, ...])
_log = structlog.get_logger()


@dataclass(frozen=True)
class Knowledge:
    """What a site's contribution is made of. hours: flow-hours of the last week; left_out: domains under review.

    profile: what is known of this network now, without what other sites said; None where nothing is.
    """

    hours: FlowHours
    reach: dict[str, Reach]
    left_out: Collection[str]
    model: Model
    profile: NetworkProfile | None


@dataclass(frozen=True)
class FleetSite:
    """A site. knowledge: reads what is known here; week: the flow-hours of the last week. propose: takes what came
    of a round, its profile and its forest, to this site's gates; what came of that, a line each.

    Every method raises AgentsError: of the coordinator that is away, of answers that are not its own.
    """

    folder: Path
    options: FleetOptions
    learner: OnlineLearner
    knowledge: Callable[[], Knowledge]
    propose: Callable[[FleetState], list[str]]
    week: Callable[[], FlowHours]
    clock: Callable[[], float] = time.time

    def contribution(self, state: FleetState) -> Contribution:
        """What would be sent for a round: all that ever leaves this site."""
        known, base = self.knowledge(), flow_model_of(state)
        model = self.learner.trained_from(base)
        delta = clipped(np.array([*(model.weights - base.weights), model.bias - base.bias]))
        now = self.clock()
        return made_contribution(
            round=state.round,
            flow_schema=FLOW_SCHEMA,
            name_schema=NAME_SCHEMA,
            delta=delta.tolist(),
            counts=counts_of_week(self.folder / "counts.json", known.hours, self.options.epsilon, now),
            domains=domain_hashes(known.reach, self.options.secret, known.left_out),
            habits=site_habits(known.profile, known.hours, self.options.secret, state.round),
            forest=sent_trees(known.model),
        )

    def look(self) -> FleetState:
        """The coordinator's state."""
        return self._asked("GET", b"")

    def step(self, sends: bool = True) -> list[str]:
        """Take what came of the last round, and contribute to the open one; what was done, a line each.

        sends: contribute, too. Raises BusyError while another process of this site does the same.
        """
        make_private_folder(self.folder)
        try:
            lock = locked_within(self.folder / ".lock", STEP_LOCK_S)
        except BlockingIOError:
            raise BusyError("cannot take part in a round: another process of this site does") from None
        with lock:
            state, done = self.look(), []
            if state.joined and state.round > self.taken() + 1:
                done += self._take(state)
            if sends and not state.sent:
                sent = self._asked("POST", self.contribution(state).model_dump_json().encode())
                noted = {"round": state.round, "at": self.clock()}
                write_atomic(self.folder / "sent.json", json.dumps(noted).encode(), PRIVATE_MODE)
                done.append(f"round {state.round}: sent")
                if sent.joined and sent.round > self.taken() + 1:
                    done += self._take(sent)
        for line in done:
            _log.info("fleet_step", done=line)
        return done

    def _take(self, state: FleetState) -> list[str]:
        """Take what came of the round before the open one, each part through this site's own gates."""
        number = state.round - 1
        cycle = self.learner.adopt(flow_model_of(state), f"round {number} of the fleet")
        missed = ", ".join(gate["name"] for gate in cycle["gates"] if not gate["passed"])
        lines = [f"round {number}: flow model {cycle['state']}{f', missed: {missed}' if missed else ''}"]
        habits = [one.model_dump() for one in state.habits]
        kept = {"shares": state.shares, "domains": state.domains, "habits": habits, "sites": state.joined}
        write_atomic(self.folder / "state.json", json.dumps(kept).encode(), PRIVATE_MODE)
        lines += [f"round {number}: {line}" for line in self.propose(state)]
        write_atomic(self.folder / "taken.json", json.dumps({"round": number}).encode(), PRIVATE_MODE)
        return lines

    def taken(self) -> int:
        """The round whose result was taken last; 0 = none."""
        found = json_state(self.folder / "taken.json").get("round", 0)
        return found if isinstance(found, int) else 0

    def shares(self) -> list[float]:
        """Shares of the fleet's clients by bin (exchange.BINS); [] before the first round."""
        return [float(one) for one in json_state(self.folder / "state.json").get("shares", [])]

    def own_counts(self) -> list[int]:
        """Clients of this site by bin, without noise: never sent."""
        found: list[int] = client_counts(self.week()).tolist()
        return found

    def is_set_up(self) -> bool:
        """See core.protocols.FleetMember."""
        return bool(self.options.url)

    def overview(self) -> dict[str, Any] | None:
        """See core.protocols.FleetMember."""
        if not self.options.url:
            return None
        kept, sent, habits = (
            json_state(self.folder / "state.json"),
            json_state(self.folder / "sent.json"),
            fleet_habits(self.folder),
        )
        return {
            "coordinator": self.options.url,
            "site": self.options.site,
            "taken": self.taken(),
            "sent_round": sent.get("round"),
            "sent_at": sent.get("at"),
            "sites": kept.get("sites", 0),
            "domains": len(kept.get("domains", ())),
            "kinds": kinds_seen(habits),
            "quantiles": compared_quantiles(self.own_counts(), self.shares()),
        }

    def preview(self) -> dict[str, Any]:
        """See core.protocols.FleetMember."""
        return self.contribution(self.look()).model_dump(mode="json")

    def _asked(self, method: str, body: bytes) -> FleetState:
        options = self.options
        if not options.url:
            raise UsageError("cannot take part in a fleet: FLEET, FLEET_SITE and FLEET_KEY are needed")
        must_be_whole(options)
        at = str(int(self.clock()))
        signature = signature_of(options.key, method, ROUND_PATH, at, body)
        headers = {SITE_HEADER: options.site, TIME_HEADER: at, SIGNATURE_HEADER: signature}
        try:
            with (
                httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client,
                client.stream(method, options.url + ROUND_PATH, content=body, headers=headers) as answer,
            ):
                found = _read(answer)
                said, status = answer.headers.get(SIGNATURE_HEADER, ""), answer.status_code
        except httpx.HTTPError as error:
            raise AgentsError(f"cannot reach the fleet's coordinator: {type(error).__name__}") from None
        if status != 200:
            raise AgentsError(f"cannot take part in the round: the coordinator answered {status}: {_error_in(found)}")
        if said != answer_signature(options.key, signature, found):
            raise AgentsError("cannot trust the coordinator's answer: its signature is wrong")
        return state_of(found)


def known_elsewhere(folder: Path, options: FleetOptions) -> Callable[[str], bool]:
    """Whether several sites of the fleet know a domain, by what a site in this folder took last."""
    hashes = frozenset(json_state(folder / "state.json").get("domains", ()))
    return lambda domain: bool(options.secret and hashes) and domain_hash_of(options.secret, domain) in hashes


def fleet_habits(folder: Path) -> tuple[FleetHabit, ...]:
    """What other sites' domains usually carry, by what a site in this folder took last; none where it is damaged."""
    try:
        return _HABITS.validate_python(json_state(folder / "state.json").get("habits", ()))
    except ValidationError:
        _log.warning("fleet_habits_not_used", error="they are damaged")
        return ()


def _read(answer: httpx.Response) -> bytes:
    found = bytearray()
    for chunk in answer.iter_bytes():
        found += chunk
        if len(found) > STATE_BYTES_MAX:
            raise AgentsError("cannot read the coordinator's answer: it is too large")
    return bytes(found)


def _error_in(body: bytes) -> str:
    try:
        found = json.loads(body[:REFUSAL_MAX])
    except (ValueError, RecursionError):  # it is not signed: anybody may have sent it
        return "no reason"
    return printable(found.get("error", "no reason")) if isinstance(found, dict) else "no reason"


def flow_model_of(state: FleetState) -> FlowModel:
    """The flow model that a round begins with. Raises UsageError for one that is none."""
    mean, scale, weights = (np.array(one, np.float64) for one in (state.mean, state.scale, state.weights))
    if (scale < 1e-3).any():
        raise UsageError("cannot use the fleet's flow model: its scale is none")
    return FlowModel(mean, scale, weights[:-1].copy(), float(weights[-1]), {})


class FleetThread(RepeatingThread):
    """Takes part in rounds, one look every `options.interval_s` seconds."""

    def __init__(self, site: FleetSite) -> None:
        super().__init__("fleet", site.options.interval_s)
        self._site = site

    def start(self) -> None:
        """Begin, where this installation takes part in a fleet."""
        if self._site.options.url:
            super().start()

    def step(self) -> None:
        """One look."""
        try:
            self._site.step()
        except (AgentsError, OSError) as error:
            _log.warning("fleet_step_failed", error=str(error))
