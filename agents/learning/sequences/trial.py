"""A sequence model on trial beside the one in use, in the process that judges: both look at the same clients.

In shadow (CANARY_MODE) all clients are looked at, and what the candidate finds is counted alone; else it looks at a
share of the clients (CANARY_SHARE, by a hash of their address), and what it alone finds there is listed.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.text import NETWORK
from agents.core.types import HOUR_S, Verdicts
from agents.detection.detector import Suspect
from agents.detection.rollout.canary import ALERTS_MAX, CLIENTS_KNOWN_MAX, DOMAINS_MAX, CanaryCounts, in_share
from agents.learning.release.canary import SAVE_S, read_counts, terms_of
from agents.learning.sequences.bounds import USUAL_SEQUENCES, SequenceBounds
from agents.learning.sequences.gru import SequenceModel
from agents.learning.sequences.learning import SequenceModels
from agents.learning.sequences.on_trial import SequenceCanary
from agents.learning.sequences.watch import BATCHES_WAITING_MAX, SequenceWatch

TRIAL_LOOK_S = 2.0
"""How often it is looked whether a trial begins or ends."""
_log = structlog.get_logger("agents.learning.sequences")


class _Trial:
    """One candidate beside one model in use (None: there is none)."""

    def __init__(
        self, row: dict[str, Any], candidate: SequenceModel, in_use: SequenceModel | None, bounds: SequenceBounds
    ) -> None:
        terms = terms_of(row)
        self.row, self.shadow = row, terms.mode == "shadow"
        self._share, self._clients = 1.0 if self.shadow else terms.share, dict[str, bool]()
        self._sides = tuple(
            (model, SequenceWatch(lambda: None, lambda found: None, bounds, self._mine))
            for model in (in_use, candidate)
        )
        self.counts = CanaryCounts(row["model_id"], row["begun_at"])

    def judge(self, verdicts: Verdicts) -> list[Suspect]:
        """What the candidate alone finds in a batch."""
        found, spent = [], []
        for model, watch in self._sides:
            began = time.perf_counter()
            found.append(watch.judge(model, verdicts) if model is not None else [])
            spent.append(time.perf_counter() - began)
        self._note(verdicts.queries.ts[self.rows(verdicts)], spent)
        told = []
        for side, alerts in zip(found, (self.counts.champion_alerts, self.counts.candidate_alerts), strict=True):
            for _, client, domain, _, _ in side:
                if len(alerts) < ALERTS_MAX:
                    alerts.add(_hashed_alert(client, domain))
        for one in found[1]:
            if _hashed_alert(one[1], one[2]) not in self.counts.champion_alerts:
                if one[2] in self.counts.domains or len(self.counts.domains) < DOMAINS_MAX:
                    self.counts.domains[one[2]] = self.counts.domains.get(one[2], 0) + 1
                told.append(one)
        return [] if self.shadow else told

    def rows(self, verdicts: Verdicts) -> NDArray[np.bool_]:
        """Which queries of a batch are those of clients that it looks at."""
        return np.array([self._mine(client) for client in verdicts.queries.client], np.bool_)

    def _mine(self, client: str) -> bool:
        found = self._clients.get(client)
        if found is None:
            found = client not in ("", NETWORK) and in_share(client, self._share)
            if len(self._clients) >= CLIENTS_KNOWN_MAX:
                self._clients.clear()
            self._clients[client] = found
        return found

    def _note(self, ts: NDArray[np.float64], spent: list[float]) -> None:
        """Count queries that were looked at, by their times, (n,)."""
        counts = self.counts
        counts.queries += len(ts)
        counts.hours.update(np.unique(ts // HOUR_S).astype(int).tolist())
        if self._sides[0][0] is not None:
            counts.timed += len(ts)
            counts.champion_s += spent[0]
            counts.candidate_s += spent[1]

    def forget(self, client: str) -> None:
        for _, watch in self._sides:
            watch.forget(client)


class SequenceTrial:
    """Runs the trials of a folder. report: takes what is to be listed; None where nothing is (SEQUENCE_WATCH=off)."""

    def __init__(
        self,
        models: SequenceModels,
        report: Callable[[Iterable[Suspect]], object] | None,
        bounds: SequenceBounds = USUAL_SEQUENCES,
    ) -> None:
        self._models, self._report, self._bounds = models, report, bounds
        self._canary = SequenceCanary(models.folder)
        self.begun: _Trial | None = None  # the trial that runs, and wants batches
        self._waiting: queue.Queue[Verdicts | None] = queue.Queue(BATCHES_WAITING_MAX)
        self._stop = threading.Event()
        self._saved = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="sequence-trial", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to look for trials."""
        self._thread.start()

    def see(self, verdicts: Verdicts) -> None:
        """Look at a batch as soon as there is time; never waits. Under load batches are left out, and counted."""
        trial = self.begun
        if trial is None or not len(verdicts):
            return
        try:
            self._waiting.put_nowait(verdicts)
        except queue.Full:
            trial.counts.skipped += int(trial.rows(verdicts).sum())

    def forget(self, client: str) -> None:
        """Drop what is known of a client."""
        if (trial := self.begun) is not None:
            trial.forget(client)

    def close(self, wait_s: float = 5.0) -> None:
        """End, with what waits, and write down what was seen."""
        self._stop.set()
        with suppress(queue.Full):
            self._waiting.put(None, timeout=wait_s)
        if self._thread.ident is not None:
            self._thread.join(wait_s)

    def _run(self) -> None:
        looked = 0.0
        while not (self._stop.is_set() and self._waiting.empty()):
            if time.monotonic() - looked >= TRIAL_LOOK_S:
                looked = time.monotonic()
                self.look()
            with suppress(queue.Empty):
                verdicts = self._waiting.get(timeout=TRIAL_LOOK_S)
                if verdicts is not None:
                    self.hear(verdicts)
        self._save(at_once=True)

    def look(self) -> None:
        """Begin or end a trial as the folder says, and write down what was seen."""
        row = self._canary.row()
        if row is None or self.begun is None or row != self.begun.row:
            self.begun = self._begun(row)
        self._save()

    def _begun(self, row: dict[str, Any] | None) -> _Trial | None:
        candidate = self._canary.model() if row is not None else None
        if row is None or candidate is None:
            return None
        trial = _Trial(row, candidate, self._models.current(), self._bounds)
        trial.counts = read_counts(self._canary.counts_path, row["model_id"], row["begun_at"])
        _log.info("sequence_canary_begun", model_id=row["model_id"], queries=trial.counts.queries)
        return trial

    def hear(self, verdicts: Verdicts) -> None:
        """Let both models look at a batch, and list what the candidate alone finds."""
        trial = self.begun
        found = trial.judge(verdicts) if trial is not None else []
        if found and self._report is not None:
            self._report(found)

    def _save(self, at_once: bool = False) -> None:
        trial = self.begun
        if trial is None or not (at_once or time.monotonic() - self._saved >= SAVE_S):
            return
        self._saved = time.monotonic()
        if self._canary.row() != trial.row:  # it has ended meanwhile
            return
        try:
            data = json.dumps(trial.counts.to_json()).encode()
            write_atomic(self._canary.counts_path, data, mode=PRIVATE_MODE, sync=False)
        except OSError as error:
            _log.warning("state_not_saved", file=self._canary.counts_path.name, error=str(error))


def _hashed_alert(client: str, domain: str) -> str:
    return hashlib.sha256(f"{client}|{domain}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
