"""Query logs of Amazon's Route 53 Resolver: a JSON object a line, as in its files and log groups."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agents.core.types import UNKNOWN
from agents.sources.intake import Fidelity, Observed
from agents.sources.logs.frames import json_object
from agents.sources.logs.source import log_intake, rcode_of, unescaped
from agents.sources.logs.times import Clock

_OCTAL = re.compile(r"\\(?:([0-3][0-7]{2})|\\?)")
_KEY = '"query_name"'


class Route53Reader:
    """Reads records of the resolver."""

    def __init__(self, options: Mapping[str, Any], written: float) -> None:
        self.nameless = 0
        self._clock = Clock()

    def read(self, line: str) -> Observed | None:
        """See LineReader."""
        if _KEY not in line:
            return None
        row = json_object(line)
        names = ("query_timestamp", "srcaddr", "query_name", "query_type")
        time, client, qname, qtype = texts = [row.get(name) for name in names]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a record of Route 53 has no time, client, name or type")
        rcode, answers = row.get("rcode"), row.get("answers")
        kinds = dict.fromkeys(_kinds(answers))
        return Observed(
            self._clock.iso(str(time)),
            str(client),
            unescaped(str(qname), _OCTAL, 8) if qname else "",
            str(qtype),
            rcode=rcode_of(rcode) if isinstance(rcode, str) else UNKNOWN,
            ancount=len(answers) if isinstance(answers, list) else UNKNOWN,
            ans_types=",".join(kinds)[:200],
        )


def _kinds(answers: object) -> list[str]:
    rows = [one for one in answers if isinstance(one, dict)] if isinstance(answers, list) else []
    return [kind for one in rows if isinstance(kind := one.get("Type"), str) and kind.isalnum()]


SPEC = log_intake(
    "route53",
    "a query log of Route 53 Resolver",
    "JSON objects with query_name and srcaddr",
    Route53Reader,
    fidelity=Fidelity(
        names="how odd bytes are escaped is not documented; \\NNN is read as octal, as in Route 53's interface",
        answers="text without sizes: data in answers is counted in records only",
        time="whole seconds",
    ),
)
