"""Asks a Pi-hole (version 6) for the queries that came since the last time, through its API: GET /api/queries.

Fields, parameters and sessions are those of the API's own description, which each Pi-hole serves at /api/docs.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import httpx

from agents.core.text import printable
from agents.core.types import FORWARDED, FROM_CACHE, FROM_CACHE_STALE, TIME_MAX, UNKNOWN
from agents.dns.message import NOERROR, NOTIMP, NXDOMAIN, REFUSED, SERVFAIL
from agents.sources.intake import Observed
from agents.sources.logs.source import literal
from agents.sources.pihole import HIDDEN, NOT_TOLD, PiHoleAwayError

SETTLE_S = 2.0
"""Queries are asked for when they are so old: most have their answer then."""
PAGE = 1000
"""Queries asked for at once."""
ANSWER_MAX = 1 << 24
"""Bytes of an answer of the API, at most."""
TIMEOUT_S = 5.0
ANSWER_S = 5.0
"""An answer comes whole within so many seconds, or counts as none."""
SLICE_S = 60.0
"""Queries of so many seconds are asked for at once; of more where few come, so that a long gap is caught up with."""
_OK, _UNAUTHORIZED = 200, 401
_SESSION = "X-FTL-SID"
_RCODES = {
    **dict.fromkeys(("NODATA", "CNAME", "IP", "DOMAIN", "RRNAME", "DNSSEC", "BLOB"), NOERROR),
    "NXDOMAIN": NXDOMAIN,
    "SERVFAIL": SERVFAIL,
    "REFUSED": REFUSED,
    "NOTIMP": NOTIMP,
}
_CACHED = {"FORWARDED": FORWARDED, "CACHE": FROM_CACHE, "CACHE_STALE": FROM_CACHE_STALE}


class PiHoleApi:
    """One Pi-hole by its address. since: queries after this time are asked for, Unix seconds."""

    def __init__(self, url: str, password: str, since: float) -> None:
        self._url, self._password = url.rstrip("/"), password
        self.since = since
        self.behind = False
        """More may be asked for at once: what was asked for last ended before now."""
        self.malformed = self.nameless = 0
        self.beat: Callable[[], None] = lambda: None
        """Called before each question, as a sign of life."""
        self._slice_s = SLICE_S
        self._client = httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)

    def close(self) -> None:
        """End the session, of which a Pi-hole has few, and close the connection."""
        if _SESSION in self._client.headers:
            with suppress(PiHoleAwayError):
                self._ask("DELETE", "/api/auth")
        self._client.close()

    def read(self, now: float) -> list[Observed]:
        """Queries since the last call that are SETTLE_S old, in order of time; of a long time the first part: `behind`.

        Raises PiHoleAwayError; then the next call gives what this one would have given.
        """
        until = min(now - SETTLE_S, self.since + self._slice_s)
        self.behind = False
        if until <= self.since:
            return []
        found: list[Observed] = []
        malformed = nameless = start = 0
        while True:
            rows = self._rows(until, start)
            if start == 0 and self._is_too_many(len(rows), until - self.since):
                return []
            for row in rows:
                one = _observed(row)
                if one is None:
                    malformed += 1
                elif self.since < one.ts <= until:
                    nameless += one.qname == HIDDEN
                    found += [one] if one.qname != HIDDEN else []
            start += PAGE
            if len(rows) < PAGE:
                break
        self.since, self.behind = until, until < now - SETTLE_S
        self.malformed += malformed
        self.nameless += nameless
        return sorted(found, key=lambda one: one.ts)

    def _is_too_many(self, count: int, slice_s: float) -> bool:
        """Fit the slice to a first page of so many rows; whether it is to be asked for in smaller parts."""
        if count < PAGE // 2:
            self._slice_s = max(self._slice_s, 2 * slice_s)
        elif count >= PAGE and slice_s > SLICE_S:
            self._slice_s, self.behind = max(slice_s / 2, SLICE_S), True
        return self.behind

    def _rows(self, until: float, start: int) -> list[Any]:
        asked = {"from": f"{self.since:.6f}", "until": f"{until:.6f}", "length": str(PAGE), "start": str(start)}
        status, found = self._ask("GET", "/api/queries", params=asked)
        if status == _UNAUTHORIZED:
            self._log_in()
            status, found = self._ask("GET", "/api/queries", params=asked)
        rows = found.get("queries")
        if status != _OK or not isinstance(rows, list):
            raise PiHoleAwayError(f"cannot ask {self._url}: it answers with status {status}")
        return rows

    def _log_in(self) -> None:
        status, found = self._ask("POST", "/api/auth", json={"password": self._password})
        session = found.get("session")
        if not isinstance(session, dict) or not session.get("valid") or not isinstance(session.get("sid"), str):
            raise PiHoleAwayError(f"cannot log in at {self._url}: status {status}; see PIHOLE_PASSWORD")
        self._client.headers[_SESSION] = session["sid"]

    def _ask(self, method: str, path: str, **more: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of an answer, an empty one where it is something else. Raises PiHoleAwayError."""
        self.beat()
        end = time.monotonic() + ANSWER_S
        try:
            with self._client.stream(method, self._url + path, **more) as answer:
                data = b""
                for block in answer.iter_bytes():
                    data += block
                    if len(data) > ANSWER_MAX:
                        raise PiHoleAwayError(f"cannot ask {self._url}: an answer is longer than {ANSWER_MAX} bytes")
                    if time.monotonic() > end:
                        raise PiHoleAwayError(f"cannot ask {self._url}: an answer takes longer than {ANSWER_S:g} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise PiHoleAwayError(f"cannot reach {self._url}: {printable(error) or type(error).__name__}") from None
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        return answer.status_code, found if isinstance(found, dict) else {}


def _observed(row: object) -> Observed | None:
    """One query of the API, or None for what is none."""
    if not isinstance(row, Mapping):
        return None
    ts, qtype, domain, client, reply = (row.get(name) for name in ("time", "type", "domain", "client", "reply"))
    address = client.get("ip") if isinstance(client, Mapping) else None
    if not isinstance(ts, int | float) or not isinstance(domain, str) or not isinstance(address, str):
        return None
    if not 0 <= ts <= TIME_MAX or not isinstance(qtype, str):
        return None
    answer = reply if isinstance(reply, Mapping) else {}
    took, status = answer.get("time"), row.get("status")
    return Observed(
        float(ts),
        address,
        HIDDEN if domain == HIDDEN else literal(domain),
        NOT_TOLD if qtype == "OTHER" else qtype,
        rcode=_RCODES.get(str(answer.get("type")), UNKNOWN),
        rtt_ms=float(took) if isinstance(took, int | float) and took >= 0 else math.nan,
        cached=_CACHED.get(str(status), UNKNOWN),
    )
