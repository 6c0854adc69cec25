"""The sequence model beside the detector: what asks at an odd order and an even pace for ever new names is listed."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np

from agents.core.text import NETWORK
from agents.core.types import Verdicts
from agents.detection.detector import Suspect
from agents.detection.reasons import SEQUENCE_REASON
from agents.learning.sequences.gru import SequenceModel
from agents.learning.sequences.steps import (
    QUERIES_MIN,
    StepRows,
    Windows,
    joined_step_rows,
    step_rows_of,
    step_windows,
    told,
)

SLOW_S = 5.0
"""Median pause of a program that waits, seconds: people who load a page ask faster."""
EVEN_FROM, FRESH_FROM, SHARE_FROM = 0.9, 0.8, 0.8
"""Regularity of a window that is listed, its share of new names, and of steps below one domain."""
CLIENTS_MAX, DOMAINS_MAX = 10_000, 50_000
"""Clients whose last steps are kept, and domains whose text is; those heard longest ago go first."""
BATCHES_WAITING_MAX = 64
"""Batches that wait for the model; further ones are left out: nothing waits for it."""
AGAIN_S = 3600.0
"""A client below a domain is reported once in so many seconds."""
HISTORY_WINDOWS = 4
"""Windows of steps that are kept of a client: names that it asked for before them count as new."""


def _why(model: SequenceModel, even: float, surprise: float) -> str:
    said = f"{SEQUENCE_REASON}: regularity {even:.2f} of 1, surprise {surprise:.1f}"
    return f"{said} (of a thousand ordinary windows one reaches {model.odd_from:.1f})"


Rows = np.ndarray[tuple[int], np.dtype[np.int64]]


def even_windows(windows: Windows) -> Rows:
    """Rows of whole windows that are even in pace, and ask for new names below one domain."""
    if not len(windows):
        return np.empty(0, np.int64)
    about = told(windows)
    even = (about["regularity"] >= EVEN_FROM) & (about["fresh"] >= FRESH_FROM) & (windows.share >= SHARE_FROM)
    return np.flatnonzero(even & windows.known.all(axis=1))


def listed_windows(model: SequenceModel, windows: Windows) -> Iterator[tuple[int, float, float]]:
    """Rows of even windows that are odd or slow, with their regularity and surprise."""
    rows = even_windows(windows)
    if not len(rows):
        return
    some = windows.at(rows)
    surprise, about = model.surprise(some), told(some)
    wanted = (surprise >= model.odd_from) | (about["pause_s"] >= SLOW_S)
    for at in np.flatnonzero(wanted).tolist():
        yield int(rows[at]), float(about["regularity"][at]), float(surprise[at])


class SequenceWatch:
    """Judges what batches say of each client, in a thread of its own. report: takes what is to be listed.

    model: the one in use, None where there is none; it is asked at each batch, and may cost nothing.
    """

    def __init__(
        self, model: Callable[[], SequenceModel | None], report: Callable[[Iterable[Suspect]], object]
    ) -> None:
        self._model, self._report = model, report
        self._waiting: queue.Queue[Verdicts | None] = queue.Queue(BATCHES_WAITING_MAX)
        self._known: OrderedDict[str, deque[StepRows]] = OrderedDict()
        self._fresh: dict[str, int] = {}  # steps of a client since it was judged
        self._domains: OrderedDict[int, str] = OrderedDict()
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._gone: deque[str] = deque()
        self.left_out = 0
        """Batches that were not looked at."""
        self._thread = threading.Thread(target=self._run, name="sequence-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    def see(self, verdicts: Verdicts) -> None:
        """Look at a batch as soon as there is time; never waits."""
        if not len(verdicts):
            return
        try:
            self._waiting.put_nowait(verdicts)
        except queue.Full:
            self.left_out += 1

    def forget(self, client: str) -> None:
        """Drop the steps of a client. What waits is looked at first."""
        self._gone.append(client)

    def close(self, wait_s: float = 5.0) -> None:
        """End, with what waits."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=wait_s)
        if self._thread.ident is not None:
            self._thread.join(wait_s)

    def _run(self) -> None:
        while (verdicts := self._waiting.get()) is not None:
            model = self._model()
            if model is not None and (found := self.judge(model, verdicts)):
                self._report(found)

    def judge(self, model: SequenceModel, verdicts: Verdicts) -> list[Suspect]:
        """What is to be listed after a batch: clients are judged again after half a window of new steps."""
        while self._gone:
            client = self._gone.popleft()
            self._known.pop(client, None)
            self._fresh.pop(client, None)
        numbers: dict[str, int] = {}
        heard = step_rows_of(verdicts, numbers, (0, 0))
        self._note_domains(heard, verdicts.domain)
        due = [self._added(client, heard.at(heard.client == at), model.length) for client, at in numbers.items()]
        names = {at: client for client, at in numbers.items()}
        parts = [(at, part) for at, part in enumerate(due) if part is not None and len(part) >= QUERIES_MIN]
        if not parts:
            return []
        windows = step_windows(joined_step_rows([part for _, part in parts]), model.length)
        newest = windows.at(np.flatnonzero(np.diff(windows.client, append=-1)))  # the last one of each client
        found = [
            (float(newest.last[row]), names[int(newest.client[row])], domain, even, _why(model, even, surprise))
            for row, even, surprise in listed_windows(model, newest)
            if (domain := self._domains.get(int(newest.domain[row]), ""))
        ]
        return [one for one in found if self._is_news(one)]

    def _is_news(self, found: Suspect) -> bool:
        """Whether a client below a domain has not been reported in the last hour."""
        ts, key = found[0], (found[1], found[2])
        before = self._told.pop(key, None)
        self._told[key] = ts
        while len(self._told) > CLIENTS_MAX:
            self._told.popitem(last=False)
        if before is not None and 0 <= ts - before < AGAIN_S:
            self._told[key] = before
            return False
        return True

    def _note_domains(self, heard: StepRows, texts: Iterable[str]) -> None:
        for key, text in dict(zip(heard.domain.tolist(), texts, strict=True)).items():
            self._domains[key] = text
            self._domains.move_to_end(key)
        while len(self._domains) > DOMAINS_MAX:
            self._domains.popitem(last=False)

    def _added(self, client: str, heard: StepRows, length: int) -> StepRows | None:
        """The last steps of a client, if it is to be judged again."""
        if client in ("", NETWORK):
            return None
        steps = self._known.pop(client, None) or deque()
        steps.append(heard)
        self._known[client] = steps
        while sum(map(len, steps)) - len(steps[0]) >= HISTORY_WINDOWS * length:
            steps.popleft()
        while len(self._known) > CLIENTS_MAX:
            gone, _ = self._known.popitem(last=False)
            self._fresh.pop(gone, None)
        self._fresh[client] = self._fresh.get(client, 0) + len(heard)
        if self._fresh[client] < max(length // 2, 1):
            return None
        self._fresh[client] = 0
        whole = joined_step_rows(list(steps))
        return replace(whole, client=np.full(len(whole), heard.client[0], np.int32))
