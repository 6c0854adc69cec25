"""Suricata's EVE log: DNS records of versions 1, 2 and 3; query and answer are two records of one flow and id."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from agents.core.types import UNKNOWN
from agents.sources.intake import Fidelity, Observed
from agents.sources.logs.frames import json_object
from agents.sources.logs.source import log_intake, rcode_of, unescaped
from agents.sources.logs.times import Clock

_DNS_PORT = 53
_EVENT = re.compile(r'"event_type" ?: ?"dns"')
_EVE = re.compile(rb'\{[^\n]*"event_type" ?: ?"')
_BYTE = re.compile(r"\\x([0-9a-fA-F]{2})|\\")
_ANSWERS = ("answer", "response")


class SuricataReader:
    """Reads records of EVE; those of other events are passed over."""

    def __init__(self, options: Mapping[str, Any], written: float) -> None:
        self.nameless = 0
        self._clock = Clock()
        self.unix = self._clock.unix

    def read(self, line: str) -> Observed | None:
        """See LineReader."""
        if not _EVENT.search(line):
            return None
        record = json_object(line)
        dns, time = record.get("dns"), record.get("timestamp")
        if not isinstance(dns, dict) or not isinstance(time, str):
            raise ValueError("a record of Suricata has no time or no DNS in it")
        is_answer = dns.get("type") in _ANSWERS
        asked = _question(dns)
        qname, qtype = asked.get("rrname"), asked.get("rrtype")
        client = record.get(_client_key(record, is_answer))
        if not isinstance(qname, str) or not isinstance(qtype, str) or not isinstance(client, str):
            if is_answer and qname is None:  # an answer without a question
                return None
            raise ValueError("a record of Suricata has no client, name or type")
        flow = record.get("flow_id"), dns.get("id", dns.get("tx_id"))
        # Version 1 writes an answer for each of its records, under their own names: only flow and id are the query's.
        pair = flow if all(isinstance(one, int) for one in flow) else None
        known = _answered(dns) if is_answer else {}
        ts = self._clock.iso(time)
        return Observed(ts, client, unescaped(qname, _BYTE), qtype, **known, pair=pair, is_answer=is_answer)

    @property
    def scan(self) -> Callable[[Any, Any, Any], None]:
        """See BlockReader."""
        from agents.sources.logs.bulk.suricata_kernels import new_eve_scan, scan_eve  # as in bind.py

        return partial(scan_eve, scan=new_eve_scan())


def _question(dns: Mapping[str, Any]) -> Mapping[str, Any]:
    """What has rrname and rrtype: the record itself, or version 3's first question."""
    queries = dns.get("queries", dns.get("query"))
    first = queries[0] if isinstance(queries, list) and queries else None
    return first if isinstance(first, dict) else dns


def _client_key(record: Mapping[str, Any], is_answer: bool) -> str:
    """Answers are logged in the direction of their packet, or of their flow: the port tells."""
    if record.get("dest_port") == _DNS_PORT:
        return "src_ip"
    return "dest_ip" if record.get("src_port") == _DNS_PORT or is_answer else "src_ip"


def _answered(dns: Mapping[str, Any]) -> dict[str, Any]:
    rcode, answers = dns.get("rcode"), dns.get("answers")
    rows = [one for one in answers if isinstance(one, dict)] if isinstance(answers, list) else []
    ttls = [one["ttl"] for one in rows if isinstance(one.get("ttl"), int)]
    kinds = dict.fromkeys(one["rrtype"] for one in rows if isinstance(one.get("rrtype"), str))
    return {
        "rcode": rcode_of(rcode) if isinstance(rcode, str) else UNKNOWN,
        "ancount": len(rows) if "answers" in dns or rcode not in (None, "NOERROR") else UNKNOWN,
        "ttl_min": min(ttls, default=UNKNOWN),
        "ans_types": ",".join(kind for kind in kinds if kind.isalnum())[:200],
    }


SPEC = log_intake(
    "suricata",
    "an EVE log of Suricata",
    "JSON objects with event_type",
    SuricataReader,
    recognizes=lambda head: _EVE.match(head) is not None,
    fidelity=Fidelity(
        names="exact but for bytes that are not UTF-8, which read like the text \\xNN; a dot within a label splits it",
        answers="text without sizes: data in answers is counted in records only",
    ),
)
