"""The alert diff: candidate and model in use both judge the network's own last week, and their alerts are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import tee, zip_longest

from agents.alerting.manager import is_paged
from agents.core.types import DAY_S, Gate, Incident, QueryBatch
from agents.detection.limits import Scale
from agents.detection.runner import ReplayDetector, verdicts_of
from agents.learning.comparison.bounds import GateBounds
from agents.learning.loop.labels import rule_of
from agents.learning.run import AlertChange, AlertDiff
from agents.scoring.model import Model
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewStore
from agents.store.sql import Database
from agents.store.stored_traffic import stored_traffic

CHANGES_MAX_SHOWN = 100
"""Domains with changes that a run keeps, those with the most clients first."""
NAMES_SHOWN = 3
"""Sample names of a domain."""
DECISIONS_READ_MAX = 10_000
"""Decisions of people that are read, the newest."""
Key = tuple[str, str]
Found = dict[Key, Incident]


@dataclass(frozen=True)
class AlertComparison:
    """Callable as a retraining wants it: (candidate, champion, since, until) to AlertDiff. Raises StoreError.

    detector_of: a detector that has seen nothing yet, with production's settings.
    """

    store: Database
    detector_of: Callable[[Model], ReplayDetector]
    scale: Scale
    bounds: GateBounds

    def __call__(self, candidate: Model, champion: Model, since: float, until: float) -> AlertDiff:
        if not self.bounds.replayed_max:
            return AlertDiff()
        traffic = stored_traffic(self.store, since, until, self.bounds.replayed_max)
        counted = _Counted(traffic.batches())
        old, new = self._judged(counted, champion, candidate)
        labelled = self._labelled() if old or new else {}
        changes = self._changes(old, new, labelled)
        days = max((counted.last - counted.first) / DAY_S, 1.0) if counted.queries else 0.0
        old_a_week, new_a_week = (
            sum(traffic.stands_for(client) for client, _ in side) * 7 / days if days else 0.0 for side in (old, new)
        )
        return AlertDiff(
            queries=counted.queries,
            share=traffic.share,
            days=days,
            old_a_week=old_a_week,
            new_a_week=new_a_week,
            added=sum(one.added for one in changes),
            lost=sum(one.lost for one in changes),
            changed=sum(one.changed for one in changes),
            tunnels_lost=sum(one.lost for one in changes if one.certain),
            benign_added=sum(one.added for one in changes if labelled.get(one.domain) == Label.BENIGN),
            changes=tuple(sorted(changes, key=_weight)[:CHANGES_MAX_SHOWN]),
        )

    def _judged(self, batches: Iterable[QueryBatch], *models: Model) -> tuple[Found, Found]:
        """The alerts of two models, by client and domain: the worst of each. Each batch is read once."""
        found: tuple[Found, Found] = ({}, {})
        sides = [
            verdicts_of(self.detector_of(model), copy, explain=False)
            for model, copy in zip(models, tee(batches, len(models)), strict=True)
        ]
        for row in zip_longest(*sides):  # in step, so that few batches are held; one side may have more open at the end
            for alerts, verdicts in zip(found, row, strict=True):
                if verdicts is not None:
                    _keep(alerts, verdicts.incidents)
        return found

    def _labelled(self) -> Mapping[str, Label]:
        """What people said of domains, as far as it stands."""
        decisions = ReviewStore(self.store).decisions(standing=True, limit=DECISIONS_READ_MAX)
        return {one.domain: one.label for one in decisions}

    def _changes(self, old: Found, new: Found, labelled: Mapping[str, Label]) -> list[AlertChange]:
        by_domain: dict[str, list[Key]] = {}
        for key in dict.fromkeys([*old, *new]):
            before, after = old.get(key), new.get(key)
            if before is None or after is None or before.severity != after.severity:
                by_domain.setdefault(key[1], []).append(key)
        return [self._change(domain, keys, old, new, labelled) for domain, keys in by_domain.items()]

    def _change(
        self, domain: str, keys: Sequence[Key], old: Found, new: Found, labelled: Mapping[str, Label]
    ) -> AlertChange:
        pairs = [(old.get(key), new.get(key)) for key in keys]
        lost = [before for before, after in pairs if before is not None and after is None]
        certain = labelled.get(domain) == Label.TUNNEL or any(rule_of(one, self.scale) for one in lost)
        names = [name for pair in pairs for one in pair if one is not None for name in one.sample_names]
        before, after = (
            max((one.severity for one in side if one is not None), default=None)
            for side in zip_longest(*pairs, fillvalue=None)
        )
        return AlertChange(
            domain=domain,
            clients=len(keys),
            added=sum(one is None for one, _ in pairs),
            lost=len(lost),
            changed=sum(one is not None and two is not None for one, two in pairs),
            old=before.name if before is not None else "",
            new=after.name if after is not None else "",
            names=tuple(dict.fromkeys(names))[:NAMES_SHOWN],
            certain=certain and bool(lost),
            label=str(labelled.get(domain, "")),
        )


def alert_gates(found: AlertDiff, bounds: GateBounds) -> tuple[Gate, ...]:
    """The gates of an alert diff; none where no stored query was judged."""
    if not found.queries:
        return ()
    week = f"{found.queries:,} stored queries of {found.days:.1f} days"
    most = max(bounds.budget_per_week, found.old_a_week * (1 + bounds.alert_rise))
    return (
        Gate("alerts a week", found.new_a_week, most, False, f"{week}; the model in use has {found.old_a_week:.1f}"),
        Gate(
            "certain tunnels lost",
            found.tunnels_lost,
            bounds.tunnels_lost,
            False,
            f"that the model in use found; {week}",
        ),
        Gate(
            "alarms below benign domains",
            found.benign_added,
            bounds.benign_alarms,
            False,
            "that people had called benign",
        ),
    )


def _keep(alerts: Found, incidents: Iterable[Incident]) -> None:
    for one in incidents:
        key = one.client, one.domain
        if is_paged(one) and (key not in alerts or alerts[key].severity <= one.severity):
            alerts[key] = one


def _weight(one: AlertChange) -> tuple[bool, int, str]:
    return not one.certain, -one.clients, one.domain


class _Counted:
    """Batches as they pass, with how many queries there were and from when to when."""

    def __init__(self, batches: Iterable[QueryBatch]) -> None:
        self._batches = batches
        self.queries, self.first, self.last = 0, 0.0, 0.0

    def __iter__(self) -> Iterator[QueryBatch]:
        for batch in self._batches:
            if len(batch):
                self.first = self.first if self.queries else float(batch.ts[0])
                self.last = float(batch.ts[-1])
                self.queries += len(batch)
                yield batch
