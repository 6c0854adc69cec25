"""Queries that trip a wire: a name contains a honeytoken, or a client of a strict group asks for what is not listed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agents.core.columns import Coded, distinct_rows
from agents.core.files import Reread
from agents.detection.limits import Evidence
from agents.detection.state import Kind
from agents.detection.tripwires.honeytokens import HoneytokenSearch, load_honeytokens
from agents.dns.name import to_text
from agents.dns.strict_groups import StrictGroups
from agents.scoring.lexical import Lexical

CERTAIN = 1e6
"""Ratio of evidence that leaves no doubt: it is CRITICAL at any scale."""


def _search_in(path: Path) -> HoneytokenSearch | None:
    found = load_honeytokens(path)
    return HoneytokenSearch(found) if found.tokens else None


class Tripwires:
    """The honeytokens in a file, which is read again when it changes, and strict groups. Raises SettingsError."""

    def __init__(self, honeytokens: Path | None = None, strict: StrictGroups | None = None) -> None:
        self._honeytokens = Reread(honeytokens, _search_in) if honeytokens else None
        self._strict = strict or None  # none is asked where there is no group

    def tripped(self, found: Lexical, clients: Coded) -> dict[int, Evidence]:
        """The evidence of rows that trip a wire, by row. clients: who asked for each of the n names, in time order."""
        out = self._offences(found, clients) if self._strict else {}
        search = self._honeytokens.value() if self._honeytokens else None
        if search is not None:
            for row, what in search.find(found, clients).items():
                out[row] = Evidence(CERTAIN, kind=Kind.SECRET, text=what)
        return out

    def _offences(self, found: Lexical, clients: Coded) -> dict[int, Evidence]:
        """Queries of clients in a strict group for names that their list does not have."""
        assert self._strict is not None
        grouped = np.array([self._strict.group_of(client) is not None for client in clients.values], np.bool_)
        rows = np.flatnonzero(grouped[clients.codes]) if grouped.any() else np.empty(0, np.int64)
        out: dict[int, Evidence] = {}
        offences: dict[tuple[int, int], Evidence | None] = {}
        names, _ = distinct_rows(found.name_key[rows])
        for row, code, name in zip(rows.tolist(), clients.codes[rows].tolist(), names.tolist(), strict=True):
            if (code, name) not in offences:
                wire = found.names[row]
                offends = self._strict.offends(clients.values[code], wire)
                offences[code, name] = Evidence(1.0, kind=Kind.SECRET, refused=to_text(wire)) if offends else None
            if (evidence := offences[code, name]) is not None:
                out[row] = evidence
        return out
