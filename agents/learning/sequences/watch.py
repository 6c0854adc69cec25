"""The sequence model beside the detector: what asks at an odd order and an even pace for ever new names is listed."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from agents.core.text import NETWORK
from agents.core.types import Verdicts
from agents.detection.detector import Suspect
from agents.detection.reasons import SEQUENCE_REASON
from agents.learning.sequences.bounds import USUAL_SEQUENCES, SequenceBounds
from agents.learning.sequences.gru import SequenceModel
from agents.learning.sequences.steps import (
    NO_STEP_ROWS,
    StepRows,
    Windows,
    joined_step_rows,
    step_rows_of,
    step_windows,
    told,
)

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
    return f"{said} (one in {1 / model.odd_share:,.0f} ordinary windows reaches {model.odd_from:.1f})"


Rows = np.ndarray[tuple[int], np.dtype[np.int64]]


def even_windows(windows: Windows, bounds: SequenceBounds = USUAL_SEQUENCES) -> Rows:
    """Rows of whole windows that are even in pace, and ask for new names below one domain."""
    if not len(windows):
        return np.empty(0, np.int64)
    about = told(windows)
    even = (about["regularity"] >= bounds.even_from) & (about["fresh"] >= bounds.fresh_from)
    even &= windows.share >= bounds.share_from
    return np.flatnonzero(even & windows.known.all(axis=1))


def listed_windows(
    model: SequenceModel, windows: Windows, bounds: SequenceBounds = USUAL_SEQUENCES
) -> Iterator[tuple[int, float, float]]:
    """Rows of even windows that are odd or slow, with their regularity and surprise."""
    rows = even_windows(windows, bounds)
    if not len(rows):
        return
    some = windows.at(rows)
    surprise, about = model.surprise(some), told(some)
    wanted = (surprise >= model.odd_from) | (about["pause_s"] >= bounds.slow_s)
    for at in np.flatnonzero(wanted).tolist():
        yield int(rows[at]), float(about["regularity"][at]), float(surprise[at])


@dataclass(slots=True)
class _Steps:
    """What is kept of a client. blocks: its last steps, half a window each, of which the last window was judged;
    waiting: steps that do not fill a block yet."""

    blocks: deque[StepRows] = field(default_factory=deque)
    waiting: StepRows = NO_STEP_ROWS

    def due(self, heard: StepRows, length: int) -> Iterator[StepRows]:
        """What is to be judged when it asks more: for each block that is full now, the steps up to its end. How batches
        are cut makes no difference."""
        size, steps = max(length // 2, 1), joined_step_rows([self.waiting, heard])
        ends = range(size, len(steps) + 1, size)
        self.waiting = steps.at(slice(len(ends) * size, None))
        for end in ends:
            self.blocks.append(steps.at(slice(end - size, end)))
            while sum(map(len, self.blocks)) - len(self.blocks[0]) >= HISTORY_WINDOWS * length:
                self.blocks.popleft()
            if sum(map(len, self.blocks)) >= length:
                yield joined_step_rows(list(self.blocks))


class SequenceWatch:
    """Judges what batches say of each client, in a thread of its own. report: takes what is to be listed.

    model: the one in use, None where there is none; it is asked at each batch, and may cost nothing. mine: clients that
    it looks at.
    """

    def __init__(
        self,
        model: Callable[[], SequenceModel | None],
        report: Callable[[Iterable[Suspect]], object],
        bounds: SequenceBounds = USUAL_SEQUENCES,
        mine: Callable[[str], bool] = lambda client: True,
    ) -> None:
        self._model, self._report, self._bounds, self._mine = model, report, bounds, mine
        self._waiting: queue.Queue[Verdicts | None] = queue.Queue(BATCHES_WAITING_MAX)
        self._known: OrderedDict[str, _Steps] = OrderedDict()
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
        """What is to be listed after a batch: each window of a client, half a window behind the one before."""
        while self._gone:
            self._known.pop(self._gone.popleft(), None)
        numbers: dict[str, int] = {}
        heard = step_rows_of(verdicts, numbers, (0, 0))
        self._note_domains(heard, verdicts.domain)
        order = np.argsort(heard.client, kind="stable")
        bounds = np.searchsorted(heard.client[order], np.arange(len(numbers) + 1)).tolist()
        clients, due = list[str](), list[StepRows]()
        for client, at in numbers.items():
            for steps in self._due(client, heard.at(order[bounds[at] : bounds[at + 1]]), model.length):
                due.append(replace(steps, client=np.full(len(steps), len(due), np.int32)))
                clients.append(client)
        if not due:
            return []
        windows = step_windows(joined_step_rows(due), model.length, newest=True)
        found = [
            (float(windows.last[row]), clients[int(windows.client[row])], domain, even, _why(model, even, surprise))
            for row, even, surprise in listed_windows(model, windows, self._bounds)
            if (domain := self._domains.get(int(windows.domain[row]), ""))
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

    def _due(self, client: str, heard: StepRows, length: int) -> Iterator[StepRows]:
        """What is to be judged of a client that asks more, see _Steps."""
        if client in ("", NETWORK) or not self._mine(client):
            return
        steps = self._known.pop(client, None) or _Steps()
        self._known[client] = steps
        while len(self._known) > CLIENTS_MAX:
            self._known.popitem(last=False)
        yield from steps.due(heard, length)
