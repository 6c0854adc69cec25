"""Clients that several detectors judge, each below other domains: what they carry over all domains is counted here.

A forwarding resolver, or a carrier's address, stands for many. Its detectors keep no sums over domains of it, but say
of each query that carries something what it costs; the process `network` judges these once more, with flows of its
own. So the sums are those of one detector, over the same queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import Coded, gathered
from agents.core.types import Incident
from agents.detection.counting.flow_kernels import SENDS, SENT_WINDOWS
from agents.detection.incidents import kind_word
from agents.detection.limits import SCATTERED, Evidence
from agents.detection.shared.detector_report import DetectorReport, batch_of_report, empty_report, rows_of_asked
from agents.detection.shared.part import PartDetector
from agents.detection.state import NONE, WATCHED, Kind, Sign, Told
from agents.dns.name import ROOT

OVER_DOMAINS = (Kind.SPREAD, Kind.SPREAD_FRESH, Kind.SIBLINGS)
"""Kinds of evidence that lie with a flow, though they are sums over the client's domains."""
WHOLE = (SCATTERED, ROOT)
"""Domains that no detector has the whole of: names without any domain have no two labels in common."""
_WORDS = frozenset(kind_word(Evidence(0.0, kind=kind)) for kind in OVER_DOMAINS)


def is_over_domains(incident: Incident) -> bool:
    """Whether a sum over a parted client's domains opened an incident of it, so that no detector goes on with it."""
    return incident.domain in WHOLE or incident.evidence.get("kind") in _WORDS


class PartedDetector(PartDetector):
    """Judges what detectors say of parted clients, by their sums over domains alone. Arguments: see PartDetector."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.flows.is_parted = lambda client: False  # here its sums are whole
        self._number = 0
        self._own: list[int] = []  # rows of flows that are incidents of their detectors

    def count(self, said: DetectorReport, days: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Count queries in order of time; what they say to the sums of all clients, and the windows that it refers to.

        days: with queries.
        """
        wanted = np.array([self._view.is_parted(client) for client in said.clients.values], np.bool_)
        rows = np.flatnonzero(wanted[said.clients.codes] & (said.sent["unheard"] == 0))
        if not len(rows):
            return said.sent, said.windows
        some = _rows_of(said, rows)
        self._view.refresh()
        asked = some.asked._replace(client=self.flows.rows_of(some.clients.values)[some.clients.codes])
        explainer, ts = self.incidents.explainer, asked.ts
        known = max(days, explainer.profile.days if explainer.profile is not None else 0)
        explainer.learning = 0 < self._burn_in_days >= known
        limits = self._limits
        told = self.flows.judge(asked, limits.table, self._limits_together.table, limits.rules, some.sent)
        places = np.arange(len(rows))
        self.flows.keep_samples(told, some.names, asked.qtype, places)
        self._note_peaks(ts, some.clients, some.domains, told)
        self._own = []
        self._follow(batch_of_report(some), some.clients, some.domains, told, places)
        self.flows.state.flows["watched"][self._own] = WATCHED
        if self.incidents.open:
            self.incidents.close_quiet(float(ts[-1]))
        return self._corrected(said, rows, asked.client, told)

    def _corrected(
        self, said: DetectorReport, rows: NDArray[np.int64], clients: NDArray[np.int32], told: Told
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """What the queries say to the sums of all clients, with what only the client's whole sum tells."""
        state = self.flows.state
        sums = np.where(clients == NONE, NONE, state.clients["scattered"][clients])
        apart = (sums != NONE) & (state.flows["watched"][sums] != 0)
        sent = said.sent.copy()
        sent["apart"][rows] = apart
        again = told.sent[: told.counts[SENDS]]
        at = rows[again["row"]]
        sent["apart"][at], sent["parts"][at] = again["apart"], again["parts"]
        sent["windows"][at] = np.where(again["windows"] == NONE, NONE, again["windows"] + len(said.windows))
        whole = np.isin(said.domains.codes[at], [code for code, one in enumerate(said.domains.values) if one == ROOT])
        for name in ("alone", "settles", "leaked"):
            sent[name][at[whole]] = again[name][whole]
        for row in at[whole].tolist():
            if (known := self.incidents.open.get((said.clients[row], ROOT))) is not None:
                sent["own_since"][row] = known.detected_at
        return sent, np.concatenate([said.windows, told.sent_windows[: told.counts[SENT_WINDOWS]]])

    def _told(self, key: tuple[str, str], client: str, evidence: Evidence, event: np.void) -> Evidence | None:
        """The evidence, if the detector of its domain judges by it."""
        over_domains = key[1] in WHOLE or evidence.kind in OVER_DOMAINS or evidence.sign == Sign.SIBLINGS
        if over_domains or key in self.incidents.open:
            return None
        if evidence.ratio >= 1 and evidence.kind not in (Kind.BEACON, Kind.POLLS):
            self._own.append(int(event["flow"]))
        return evidence

    def take_news(self) -> DetectorReport:
        """What is to be counted with what other detectors say."""
        self._number += 1
        return self.take_report(self._number) or replace(empty_report(), detector=self._view.name, number=self._number)

    def scores(self) -> dict[str, float]:
        """Of each open incident below one domain, by client and domain, the score; 0 where it is listed."""
        open_ = self.incidents.open
        return {
            f"{client} {domain}": 0.0 if self.incidents.is_listed((client, domain)) else one.score
            for (client, domain), one in open_.items()
            if domain != SCATTERED
        }

    def restore(self, incidents: Sequence[Incident]) -> None:
        """Go on with open incidents of clients' sums over domains."""
        super().restore([one for one in incidents if self._view.is_parted(one.client) and is_over_domains(one)])

    def _roll(self) -> None:
        """Nothing: the detectors of its domains say who asks below them."""


def _rows_of(said: DetectorReport, rows: NDArray[np.int64]) -> DetectorReport:
    names = said.names
    return replace(
        said,
        asked=rows_of_asked(said.asked, rows),
        sent=said.sent[rows],
        names=gathered(names.array, names.starts[rows], np.diff(names.starts)[rows]),
        clients=Coded(said.clients.codes[rows], said.clients.values),
        domains=Coded(said.domains.codes[rows], said.domains.values),
        origin=said.origin[rows],
    )
