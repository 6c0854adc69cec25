"""Queries given straight to the kernels: what is asked is made by hand, what is known afterwards can be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate

import numpy as np

from agents.core.columns import coded
from agents.detection.flows import Flow, Flows
from agents.detection.limits import Evidence, evidence_of, limits_of
from agents.detection.network import cells_of
from agents.detection.state import Asked, Left, Room, Told
from agents.dns.name import from_text
from tests.support.plain_flow import Part, Query
from tests.support.plain_numbered import packed_digits

START = 1_700_000_000.0
CLIENT, DOMAIN = "192.0.2.7", "evil.com"


def key_of(text: str) -> int:
    """Identity of a label or a domain."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def ask(
    label: object, ts: float = START, *, domain: str = DOMAIN, client: str = CLIENT, bits: float = 80.0,
    encoded: bool = True, discount: float = 1.0, qtype: int = 1, rlen: int = -1,
    answer: int = 0, data: int = -1, left: int = Left.KEPT, numbered: tuple[int, str] | None = None,
    form: int | None = None,
) -> Query:  # fmt: skip
    """A query for one label below a domain, worth so many bits when it is new. form: of its name, by default one that
    only names below the domain have."""
    name = f"{label}.{domain}"
    part = Part(key_of(f".{label}"), bits, encoded)
    return Query(
        ts, client, from_text(name), key_of(name), key_of(domain), (part,), qtype, rlen, answer, data, left,
        discount, numbered, form=key_of(domain) if form is None else form,
    )  # fmt: skip


class Judged:
    """Flows, with the limits that they are judged by."""

    def __init__(self, keys_max: int = 1000, client_max: int | None = None, factor: float = 1.0) -> None:
        self.flows = Flows(keys_max)
        if client_max is not None:
            self.flows.state.room[Room.CLIENT_MAX] = client_max
        self._limits = limits_of(factor)

    def tell(self, queries: Sequence[Query]) -> Told:
        """Count queries as one batch; all that the kernels say of it."""
        return self.tell_prepared(self.prepared(queries), queries)

    def tell_prepared(self, asked: Asked, queries: Sequence[Query], client: str | None = None) -> Told:
        """Count what was prepared, as one batch; of one client where it is named."""
        if client is not None:
            asked = asked._replace(client=self.flows.rows_of([client] * len(queries)))
        said = self.flows.judge(asked, self._limits.table, self._limits.table, self._limits.rules)
        self.flows.keep_samples(said, [query.wire for query in queries], asked.qtype)
        return said

    def ask(self, *queries: Query) -> list[Evidence]:
        """Count queries as one batch; the loudest evidence that each gave, of its own flow or of an incident's."""
        said = self.tell(queries)
        found = [evidence_of(row) for row in said.evidence]
        for event in said.events[: said.counts[0]]:
            if event["network"]:
                continue
            told, row = evidence_of(event["evidence"]), int(event["row"])
            found[row] = max(found[row], told, key=lambda one: one.ratio)
        return found

    def view(self, client: str = CLIENT, domain: str = DOMAIN) -> Flow:
        """What is known of a flow, which must be there."""
        row = self.flows.find(client, key_of(domain))
        assert row is not None, f"nothing is known of {client} and {domain}"
        return self.flows.view(row)

    def knows(self, client: str = CLIENT, domain: str = DOMAIN) -> bool:
        """Whether there is such a flow."""
        return self.flows.find(client, key_of(domain)) is not None

    def prepared(self, queries: Sequence[Query]) -> Asked:
        """Queries as the kernels read them."""
        parts = [part for query in queries for part in query.parts]
        cells = cells_of(coded([query.client for query in queries]), self.flows.key)
        return Asked(
            ts=np.array([query.ts for query in queries], np.float64),
            client=self.flows.rows_of([query.client for query in queries]),
            qtype=np.array([query.qtype for query in queries], np.uint16),
            rlen=np.array([query.rlen for query in queries], np.int32),
            answer=np.array([query.answer for query in queries], np.uint64),
            data=np.array([query.data for query in queries], np.int32),
            left=np.array([query.left for query in queries], np.uint8),
            size=np.array([len(query.wire) for query in queries], np.int64),
            name=np.array([query.name for query in queries], np.uint64),
            domain=np.array([query.domain for query in queries], np.uint64),
            form=np.array([query.form for query in queries], np.uint64),
            shape=np.array([query.numbered[0] if query.numbered else 0 for query in queries], np.uint64),
            digits=np.array(
                [packed_digits(query.numbered[1].encode()) if query.numbered else 0 for query in queries], np.uint64
            ),
            discount=np.array([query.discount for query in queries], np.float64),
            secret=np.array([query.secret for query in queries], np.uint8),
            cell=cells[0],
            home_cell=cells[1],
            scoped=np.array([query.scoped for query in queries], np.uint8),
            parts=np.array([0, *accumulate(len(query.parts) for query in queries)], np.int64),
            key=np.array([part.key for part in parts], np.uint64),
            bits=np.array([part.bits for part in parts], np.float64),
            encoded=np.array([part.encoded for part in parts], np.uint8),
        )
