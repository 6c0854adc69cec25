"""Where all clients are counted, of several detectors: incidents of the network, and what each detector must know.

It has the flows of the network (network.py), and a mirror of who asks below which domain; messages of the detectors
fill both. What it publishes are tables, which the detectors read at once, and facts (view.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from agents.core.text import NETWORK
from agents.core.types import DAY_S, Incident, QueryBatch, Verdicts
from agents.detection import snapshot
from agents.detection.counting.flow_kernels import roll_in
from agents.detection.detector import HABITS_FILE, NETWORK_FILE, PEAKS_FILE, TunnelDetector, empty_verdicts
from agents.detection.explanations.explainer import CLIENTS_DOMAINS
from agents.detection.explanations.network_profile import NetworkProfile
from agents.detection.known_services import KnownServices
from agents.detection.limits import SCATTERED, Evidence, as_listed
from agents.detection.shared.detector_report import DetectorReport, Roll, batch_of_report, merged_reports
from agents.detection.shared.parted import PartedDetector
from agents.detection.shared.view import Facts, KnownTables, NetworkView
from agents.detection.snapshot import DAYS
from agents.detection.state import SENT
from agents.scoring.model import Model

PARTED, PARTED_FILE = "parted", "parted.snapshot"
"""What counts parted clients' sums is called, among detectors; and the file of its flows."""
SETTLED_S = 60
"""How often the clients that are settled below each domain are counted."""
SPENT_MAX = 20_000
"""Sums that are published, the largest."""


class TogetherDetector(TunnelDetector):
    """Counts what detectors say. Arguments: see TunnelDetector; tables: to be published; is_parted: whether several
    detectors judge a client, None where each has one."""

    def __init__(
        self, *args: Any, tables: KnownTables, is_parted: Callable[[str], bool] | None = None, **options: Any
    ) -> None:
        self.parted: PartedDetector | None = None
        super().__init__(*args, **options)
        self._tables = tables
        self.flows.share(tables.familiar, tables.heard, reads_only=False)
        self._sent, self._ts = np.empty(0, SENT), np.empty(0)
        self._acked: dict[str, int] = {}
        self._roll, self._settled_at, self._usual_day = secrets.token_hex(4), -1, -1
        self._usual: Mapping[str, float] = {}
        self._now = 0.0
        self._facts = Facts()
        if is_parted is not None:
            view = NetworkView(PARTED, tables, lambda: self._facts, is_parted)
            self.parted = PartedDetector(*args, view=view, **options)

    def detect(self, batch: QueryBatch, explain: bool = True) -> Verdicts:
        """It judges no queries itself."""
        raise NotImplementedError

    def acked(self, detector: str) -> int:
        """The number of the last message of a detector that was counted; 0 = none."""
        return self._acked.get(detector, 0)

    def ask_for_rolls(self, mark: str) -> None:
        """Have every detector say who asks below what, with its next message."""
        self._roll = mark

    @property
    def acked_all(self) -> dict[str, int]:
        """For each detector the number of its last message that was counted."""
        return dict(self._acked)

    def resume(self, acked: Mapping[str, int]) -> None:
        """Go on behind messages that saved state has in it."""
        self._acked = dict(acked)

    def count_reports(self, reports: Sequence[DetectorReport]) -> Verdicts | None:
        """Count what detectors say, each message once; the incidents that change by it, if any do."""
        self.use_reloaded()
        news = [one for one in reports if one.number > self.acked(one.detector)]
        for one in news:
            self._acked[one.detector] = one.number
            if one.roll is not None:
                self._take_roll(one.roll)
            self.incidents.explainer.take_habits(one.habits, one.mail)
            for peak in one.peaks:
                self.peaks.note(*peak)
        if any(one.roll is not None and len(one.roll.visits) for one in news):
            self.flows.greet_anew()
        said = [one for one in news if len(one.sent)]
        if said:
            self._count(merged_reports(said))
        if self.parted is not None:
            own = self.parted.take_news()
            self._acked[own.detector] = own.number
            self.incidents.explainer.take_habits(own.habits, own.mail)
            for peak in own.peaks:
                self.peaks.note(*peak)
            news.append(own)
        for one in news:
            self.incidents.explainer.take_spent(self._now, one.spent)
        return self._changes(self.incidents.changes())

    def _changes(self, changed: tuple[Incident, ...]) -> Verdicts | None:
        """Incidents that have changed, and those of parted clients, if any have."""
        if self.parted is not None:
            changed += self.parted.incidents.changes()
        return empty_verdicts(self.model_id, changed) if changed else None

    def tick(self, now: float) -> Verdicts | None:
        """Do the work that depends on time alone."""
        found = super().tick(now)
        if self.parted is not None:
            self.parted.incidents.close_quiet(now)
        return self._changes(found.incidents if found is not None else ())

    def flush(self) -> Verdicts | None:
        """End of input: close all incidents."""
        found = super().flush()
        if self.parted is not None:
            self.parted.incidents.close_all()
        return self._changes(found.incidents if found is not None else ())

    def _count(self, said: DetectorReport) -> None:
        asked = said.asked._replace(client=self.flows.rows_of(said.clients.values)[said.clients.codes])
        ts = self._ts = asked.ts
        self._sent = said.sent
        self._now = max(self._now, float(ts[-1]))
        self.peaks.days.update(np.unique(ts // DAY_S).astype(int).tolist())
        profile = self.incidents.explainer.profile
        known = max(self._days, profile.days if profile is not None else 0)
        self.incidents.explainer.learning = 0 < self._burn_in_days >= known
        limits, sent, windows = self._limits_together, said.sent, said.windows
        if self.parted is not None:  # before what they ask for is known here
            self.parted.incidents.losses, self.parted.incidents.origins = self.incidents.losses, self.incidents.origins
            sent, windows = self.parted.count(said, self._days)
        told = self.flows.hear(asked, sent, windows, limits.table, limits.rules)
        rows = np.arange(len(ts))
        self.flows.network.keep_samples(told, said.names, asked.qtype, rows)
        self._follow(batch_of_report(said), said.clients, said.domains, told, rows)
        if self.incidents.open:
            self.incidents.close_quiet(float(ts[-1]))
        if (minute := int(self._now // SETTLED_S)) != self._settled_at:
            self._settled_at = minute
            self.flows.count_settled(self._now, CLIENTS_DOMAINS, self._tables.settled)

    def _take_roll(self, roll: Roll) -> None:
        if not len(roll.visits):
            return
        rows = self.flows.rows_of(roll.clients)
        known = rows >= 0
        for name, counts in zip(DAYS, roll.days.T, strict=True):
            self.flows.state.clients[name][rows[known]] = counts[known]
        self.flows.make_room_for(len(self.flows) + len(roll.visits), 0)
        roll_in(self.flows.state, roll.visits, rows)

    def _told(self, key: tuple[str, str], client: str, evidence: Evidence, event: np.void) -> Evidence | None:
        """The evidence, if the incident of the client that asked tells of this query."""
        if key in self.incidents.open or key[1] == SCATTERED:
            return None
        since, ts = self._sent[event["row"]]["own_since"], self._ts[event["row"]]
        own_first = since < ts if event["several"] else since <= ts  # see _in_turn
        return as_listed(evidence) if own_first else None

    def facts(self) -> Facts:
        """What the detectors must know now."""
        explainer, now = self.incidents.explainer, self._now
        if (day := int(now // DAY_S)) != self._usual_day:
            self._usual_day, self._usual = day, explainer.usual(now)
        spent = explainer.spent(now)
        if len(spent) > SPENT_MAX:
            spent = dict(sorted(spent.items(), key=lambda one: -one[1])[:SPENT_MAX])
        opened = {domain: self.incidents.is_listed((client, domain)) for client, domain in self.incidents.open}
        at_home = self.flows.clients_at_home(now)
        parted = self.parted.scores() if self.parted is not None else {}
        self._facts = Facts(at_home, self._days, opened, spent, self._usual, dict(self._acked), self._roll, parted)
        return self._facts

    def restore(self, incidents: Sequence[Incident]) -> None:
        """Go on with incidents of the network that were open when the process stopped."""
        super().restore([one for one in incidents if one.client == NETWORK])
        if self.parted is not None:
            self.parted.restore(incidents)

    def save(self, lock: AbstractContextManager[Any]) -> dict[str, bytes]:
        """What is of all clients; who asks below what, the detectors say again."""
        network = snapshot.dump_flows(self.flows.network, lock, self.privacy.keeps_names)
        with lock:
            habits = self.incidents.explainer.dump()
            files = {NETWORK_FILE: network, PEAKS_FILE: self.peaks.dump(), HABITS_FILE: habits}
        if self.parted is not None:
            files[PARTED_FILE] = snapshot.dump_flows(self.parted.flows, lock, self.privacy.keeps_names)
        return files

    def gauges(self) -> dict[str, Any]:
        """Numbers for health and metrics, of the network's own flows."""
        own, refused = super().gauges(), self.flows.network.refused
        return own | {
            "flows": 0,
            "flows_refused": refused,
            "flows_forgotten": 0,
            "incidents_open": len(self.open_incidents),
        }

    @property
    def open_incidents(self) -> Mapping[tuple[str, str], Incident]:
        """Open incidents by client and domain, of all clients and of parted ones."""
        return self.incidents.open | (self.parted.incidents.open if self.parted is not None else {})

    def reload(self, model: Model) -> None:
        """Use another model from the next messages or tick on."""
        super().reload(model)
        if self.parted is not None:
            self.parted.reload(model)

    def reload_services(self, services: KnownServices) -> None:
        """Use another list of known services from the next messages on."""
        super().reload_services(services)
        if self.parted is not None:
            self.parted.reload_services(services)

    def reload_profile(self, profile: NetworkProfile | None) -> None:
        """Use another network profile, or none, from the next messages or tick on."""
        super().reload_profile(profile)
        if self.parted is not None:
            self.parted.reload_profile(profile)

    def use_reloaded(self) -> None:
        """Begin to use what was reloaded."""
        super().use_reloaded()
        if self.parted is not None:
            self.parted.use_reloaded()

    def forget(self, client: str) -> None:
        """Drop all that is known of a client. Nothing may be judged meanwhile."""
        super().forget(client)
        if self.parted is not None:
            self.parted.forget(client)
