"""What heard a query: a number in each record, and what incidents say of it, its name and what it does not keep."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.core.text import printable
from agents.sources import SPECS as INTAKES
from agents.sources.live.addresses import FIDELITIES
from agents.sources.tail import COLLECT_MAX

LISTENER = 0
"""The number of this process' own listeners."""
LISTENER_NAME = "this listener"
LOOK_S = 5.0
"""What kinds logs are is looked up so often."""
_FILES_FROM, _LIVE_FROM = 1, 1 + COLLECT_MAX
KINDS = {spec.name: spec for spec in INTAKES}


def origin_numbers(files: Iterable[str], live: Iterable[str] = ()) -> dict[str, int]:
    """Numbers of intakes, COLLECT_MAX at most of each sort: of files and Pi-holes, and of live ones."""
    numbers = {name: number for number, name in enumerate(files, _FILES_FROM)}
    return numbers | {name: number for number, name in enumerate(live, _LIVE_FROM)}


def losses_of_intake(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What an intake does not keep of queries: the kind that does not keep it, and a text.

    told: see collector.Heard.to_json. Of a log whose kind is not known yet nothing is known.
    """
    name, kinds = str(told.get("kind", "")), list[Any]()
    found = list[tuple[str, str]]()
    if "senders" in told:
        found += [(name, text) for text in FIDELITIES[name].losses] if name in FIDELITIES else []
        kinds = lines if isinstance(lines := told.get("lines"), list) else []
    elif name:
        kinds = [name]
    for spec in [KINDS[kind] for kind in map(str, kinds) if kind in KINDS]:
        found += [(spec.summary, text) for text in spec.fidelity.losses]
    return found


class Origins:
    """Names and losses of intakes by their numbers."""

    def __init__(
        self, files: Sequence[str], live: Sequence[str], state_dir: Path, known: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """files: of the collector, with Pi-holes; live: names of the receiver's intakes. state_dir: what both heard.

        known: what is known of them at the start, as `losses_of_intake` takes it.
        """
        self._names = {number: name for name, number in origin_numbers(files, live).items()}
        self._names[LISTENER], self._state_dir = LISTENER_NAME, state_dir
        self._known = self._told = dict(known)
        self._looked_at = -math.inf

    def numbers(self, names: object) -> set[int]:
        """The numbers of names that an incident has from before a restart."""
        known = names if isinstance(names, list) else []
        return {number for number, name in self._names.items() if printable(name) in known}

    def describe(self, numbers: Iterable[int]) -> dict[str, list[str]]:
        """What an incident says of the intakes that heard it: `intakes`, and `losses` where there are some."""
        names = [self._names[number] for number in sorted(numbers) if number in self._names]
        told, losses = self._heard(), list[tuple[str, str]]()
        for name in names:
            if name == LISTENER_NAME:
                continue
            one = told.get(name, {})
            if _is_untold(one):
                losses.append((name, "answers: not known until its kind is found"))
            losses += losses_of_intake(one)
        texts = [text if len(names) == 1 else f"{printable(kind)}: {text}" for kind, text in losses]
        found = {"intakes": list(map(printable, names))}
        return found | ({"losses": list(dict.fromkeys(texts))} if texts else {})

    def _heard(self) -> Mapping[str, Any]:
        from agents.sources.collector import collected  # here: the collector numbers its sources by this file

        if (now := time.monotonic()) - self._looked_at >= LOOK_S:
            found = {name: one for name, one in collected(self._state_dir).items() if not _is_untold(one)}
            self._told, self._looked_at = self._known | found, now
        return self._told


def _is_untold(told: Mapping[str, Any]) -> bool:
    """Whether it is not known what an intake's lines are."""
    return not told.get("kind") or ("senders" in told and told["kind"] == "syslog" and not told.get("lines"))
