"""All that the database holds of one client: read as plain rows, or erased."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from sqlalchemy import delete, select, update

from agents.core.types import DAY_S, clean
from agents.store.console.summing import QuerySums
from agents.store.console.tables import SAVED_VIEWS, TRIAGE, TRIAGE_CHANGES
from agents.store.feedback.tables import FLOW_HOURS, FLOW_LABELS
from agents.store.hunting.clickhouse import ClickHouse
from agents.store.hunting.days import DayFiles
from agents.store.rows import INCIDENTS
from agents.store.sql import LONG_S, Store

ROWS_A_PAGE = 1000
_WORD = re.compile(r"[^\s=&?/]+")
"""Words of an address with its query, clients among them."""
_I, _H = INCIDENTS.c, FLOW_HOURS.c


class ClientRecords:
    """The rows of clients in a store. Every method raises StoreError."""

    def __init__(self, store: Store, files: DayFiles | None = None, server: ClickHouse | None = None) -> None:
        """files: of closed days, where there may be some. server: that has queries, too, where there is one."""
        self._store, self._files, self._server = store, files, server

    def rows(self, client: str) -> Iterator[dict[str, Any]]:
        """Incidents, flow-hours, then queries, newest first; replayed ones among them. `type` says which a row is.

        Last come queries of files and ClickHouse, of days that the database does not hold any more.
        """
        with self._store.reading("read a client's incidents", LONG_S) as connection:
            found = connection.execute(
                select(INCIDENTS).where(_I.client == clean(client)).order_by(_I.last_seen.desc())
            )
            incidents = [dict(row) for row in found.mappings()]
        yield from ({"type": "incident", **row} for row in incidents)
        columns = (_H.hour, _H.domain, _H.names)
        with self._store.reading("read a client's flow-hours", LONG_S) as connection:
            hours = connection.execute(
                select(*columns).where(_H.client == clean(client)).order_by(_H.hour.desc())
            ).all()
        yield from ({"type": "flow-hour", **row._asdict()} for row in hours)
        cursor: str | None = None
        while True:
            page, cursor = self._store.queries(client=client, limit=ROWS_A_PAGE, cursor=cursor)
            yield from ({"type": "query", **row} for row in page)
            if cursor is None:
                break
        for row in self._files.rows_of(client) if self._files is not None else ():
            yield {"type": "query", **row}
        if self._server is not None:
            stored = set(self._store.stored_days())
            for one in self._server.rows_of(clean(client)):
                if one["ts"] // DAY_S not in stored:
                    yield {"type": "query", **one}

    def erase(self, client: str) -> dict[str, int]:
        """Delete a client's queries, incidents with what was said of them, flow-hours with labels, views that name
        it, and its name in incidents of several clients; how many rows of each."""
        done = {"queries": self._store.erase_queries(clean(client)), "sums": QuerySums(self._store).erase(client)}
        mine = select(_H.id).where(_H.client == clean(client))
        with self._store.writing("erase a client", LONG_S) as connection:
            connection.execute(delete(FLOW_LABELS).where(FLOW_LABELS.c.flow_hour_id.in_(mine)))
            done["flow-hours"] = connection.execute(delete(FLOW_HOURS).where(_H.client == clean(client))).rowcount
            theirs = select(_I.incident_id).where(_I.client == clean(client))
            for said in (TRIAGE, TRIAGE_CHANGES):
                connection.execute(delete(said).where(said.c.incident_id.in_(theirs)))
            views = connection.execute(select(SAVED_VIEWS.c.name, SAVED_VIEWS.c.address)).all()
            naming = [view.name for view in views if client in _WORD.findall(unquote_plus(view.address))]
            connection.execute(delete(SAVED_VIEWS).where(SAVED_VIEWS.c.name.in_(naming)))
            done["incidents"] = connection.execute(delete(INCIDENTS).where(_I.client == clean(client))).rowcount
            named = select(_I.incident_id, _I.evidence).where(_I.evidence.contains(json.dumps(client), autoescape=True))
            for incident_id, text in connection.execute(named).all():
                evidence = json.loads(text)
                if client in (loudest := evidence.get("clients", {}).get("loudest", [])):
                    loudest.remove(client)
                    kept = update(INCIDENTS).where(_I.incident_id == incident_id).values(evidence=json.dumps(evidence))
                    connection.execute(kept)
        self._store.fold()
        if self._files is not None:  # after the rows that files are made of
            done["in files"] = self._files.erase(client)
        if self._server is not None:
            done["in ClickHouse"] = self._server.erase(clean(client))
        return done
