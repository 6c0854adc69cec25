"""A detector of some of the clients, beside others: it judges them as one detector would judge all.

What lies below domains over all clients is counted elsewhere (`together`): it sends there what its own flows counted
as new, and reads from there which domains and names are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import Coded, Names, coded, gathered
from agents.core.types import DAY_S, QueryBatch, Verdicts
from agents.detection import snapshot
from agents.detection.counting.flow_kernels import PEAKS, SENDS, SENT_WINDOWS
from agents.detection.detector import HABITS_FILE, WINDOWS_FILE, TunnelDetector
from agents.detection.limits import SCATTERED, Evidence, as_listed
from agents.detection.shared.busy_clients import BusyClients
from agents.detection.shared.detector_report import (
    VISIT,
    DetectorReport,
    Roll,
    empty_report,
    merged_reports,
    rows_of_asked,
)
from agents.detection.shared.view import NetworkView
from agents.detection.state import Asked, Kind, Told
from agents.dns.name import ROOT


class PartDetector(TunnelDetector):
    """Judges the clients that it is given, and says what all are counted by. Arguments: see TunnelDetector."""

    def __init__(self, *args: Any, view: NetworkView, **options: Any) -> None:
        super().__init__(*args, **options | {"view": view})
        self._view, self._rolled = view, ""
        self.busy = BusyClients()
        self._reports: list[DetectorReport] = []
        self._peaks: list[tuple[float, str, str, float]] = []
        self.flows.share(view.tables.familiar, view.tables.heard, reads_only=True)
        self.flows.is_parted = view.is_parted

    def detect(self, batch: QueryBatch, explain: bool = True) -> Verdicts:
        """Judge a batch; what it says is to be taken afterwards (`take_report`)."""
        self._view.refresh()
        if len(batch):
            self.busy.note(float(batch.ts[0]), coded(batch.client))
        return super().detect(batch, explain)

    def tick(self, now: float) -> Verdicts | None:
        """Do the work that depends on time alone."""
        self._view.refresh()
        return super().tick(now)

    @property
    def _days(self) -> int:
        return max(super()._days, self._view.facts.days)

    def _told(self, key: tuple[str, str], client: str, evidence: Evidence, event: np.void) -> Evidence | None:
        if key in self.incidents.open or key[1] == SCATTERED:
            return None
        is_parted = self._view.is_parted(client)
        if is_parted and key[1] == ROOT:  # see parted.WHOLE
            return evidence
        if evidence.kind == Kind.SECRET:
            return None
        if is_parted:
            known = self._view.facts.parted.get(f"{client} {key[1]}", 0.0)
            if known >= self.scale.behaviour(evidence.ratio) > 0:
                return evidence
        listed = self._view.facts.opened.get(key[1])
        if listed is None:
            return None
        return as_listed(evidence) if listed else evidence

    def _note_peaks(self, ts: NDArray[np.float64], clients: Coded, domains: Coded, said: Told) -> None:
        self.peaks.days.update(np.unique(ts // DAY_S).astype(int).tolist())
        for row, scattered, ratio in said.peaks[: said.counts[PEAKS]].tolist():
            self._peaks.append((float(ts[row]), clients[row], SCATTERED if scattered else domains[row], ratio))

    def _pass_on(
        self,
        batch: QueryBatch,
        asked: Asked,
        names: Names,
        clients: Coded,
        domains: Coded,
        rows: NDArray[np.int64],
        said: Told,
    ) -> None:
        sent = said.sent[: said.counts[SENDS]]
        places = sent["row"].astype(np.int64)
        own, opened = rows[places], self.incidents.open
        if opened:
            keys = zip(clients.codes[places].tolist(), domains.codes[places].tolist(), strict=True)
            since = [opened.get((clients.values[client], domains.values[domain])) for client, domain in keys]
            sent["own_since"] = [np.inf if one is None else one.detected_at for one in since]
        self._reports.append(
            DetectorReport(
                self._view.name,
                0,
                rows_of_asked(asked, places)._replace(client=np.empty(0, np.int32)),
                sent,
                said.sent_windows[: said.counts[SENT_WINDOWS]],
                gathered(names.array, names.starts[own], np.diff(names.starts)[own]),
                _compact(clients, places),
                _compact(domains, places),
                batch.origin[own],
            )
        )

    def take_report(self, number: int, drilled: Sequence[Sequence[Any]] = ()) -> DetectorReport | None:
        """What is to be said since the last call, as a message of this number; None where that is nothing.

        drilled: rows of drills, to go along. To be called after each batch. Numbers rise; a batch that is judged again
        has the same, and counts once.
        """
        news = self.incidents.explainer.news
        roll = self._roll() if self._rolled != self._view.facts.roll else None
        reports = [one for one in self._reports if len(one.sent)]
        spent = self._view.sending(number)
        if not (reports or drilled or roll or spent or news.habits or news.mail or self._peaks):
            self._reports = []
            return None
        joined = merged_reports(reports or [empty_report()])
        habits, mail, peaks = tuple(news.habits), tuple(news.mail), tuple(self._peaks)
        news.habits.clear()
        news.mail.clear()
        self._reports, self._peaks = [], []
        return DetectorReport(
            self._view.name,
            number,
            joined.asked,
            joined.sent,
            joined.windows,
            joined.names,
            joined.clients,
            joined.domains,
            joined.origin,
            spent,
            habits,
            peaks,
            mail,
            roll,
            drilled,
        )

    def roll_again(self) -> None:
        """Say with the next message who asks below what: one was not heard."""
        self._rolled = ""

    def load_files(
        self,
        files: Sequence[tuple[str, bytes, Callable[[str], bool]]],
        by_domain: snapshot.ByDomain | None = None,
    ) -> None:
        """Restore state of some clients from files that detectors of any number saved.

        files: one of FILES, its contents, and which of its clients are wanted. by_domain: of clients that count by
        domain. Raises FormatError for invalid contents.
        """
        windows = [(data, wanted) for name, data, wanted in files if name == WINDOWS_FILE]
        snapshot.load_some_flows(windows, self.flows, by_domain)
        for name, data, wanted in files:
            if name == HABITS_FILE:
                self.incidents.explainer.absorb(data, wanted, by_domain)

    def _roll(self) -> Roll | None:
        self._rolled = self._view.facts.roll
        flows, state = self.flows, self.flows.state
        rows = np.array(flows.rows(lambda found: found["scattered"] == 0), np.int64)
        kept, numbers = state.flows[rows], {row: number for number, row in enumerate(flows.clients.values())}
        visits = np.zeros(len(rows), VISIT)
        for name in ("domain", "first_seen", "last_seen", "names"):
            visits[name] = kept[name]
        visits["client"] = [numbers[row] for row in kept["client"].tolist()]
        clients = state.clients[list(flows.clients.values())]
        return Roll(
            visits, list(flows.clients), np.stack([clients[name] for name in snapshot.DAYS], 1).astype(np.int32)
        )

    def gauges(self) -> dict[str, Any]:
        """Numbers for health and metrics."""
        return super().gauges() | {"busy": self.busy.counts()}

    def save(self, lock: AbstractContextManager[Any]) -> dict[str, bytes]:
        """Its own clients' flows and sums; what is of all clients is not here."""
        windows = snapshot.dump_flows(self.flows, lock, self.privacy.keeps_names)
        with lock:
            return {WINDOWS_FILE: windows, HABITS_FILE: self.incidents.explainer.dump()}


class TrialPartDetector(PartDetector):
    """A candidate beside a detector of some clients (detection.rollout): it judges as that one does, and reports
    nothing, since that one does."""

    def detect(self, batch: QueryBatch, explain: bool = True) -> Verdicts:
        """Judge a batch. What it spends of common allowances counts until the network has counted it."""
        found = super().detect(batch, explain)
        self._view.sending(self._view.facts.acked.get(self._view.name, 0) + 1)
        self._peaks = []
        self.incidents.explainer.news.habits.clear()
        self.incidents.explainer.news.mail.clear()
        return found

    def _pass_on(self, *what: Any) -> None:
        """Nothing."""

    def load(self, name: str, data: bytes) -> None:
        """Restore the state of the detector beside it."""
        self.load_files([(name, data, lambda client: True)])


def _compact(column: Coded, rows: NDArray[np.int64]) -> Coded:
    """Some rows of a column, with the values that they have."""
    used, codes = np.unique(column.codes[rows], return_inverse=True)
    return Coded(codes.astype(np.int32), [column.values[at] for at in used.tolist()])
