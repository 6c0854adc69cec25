"""Logs of each kind: captured from real servers (tests/data/logs, see resolvers.py), or written after documents."""

from __future__ import annotations

import base64
import json
import sqlite3
from html import escape
from pathlib import Path

from agents.dns.name import from_text
from tests.support.resolvers import question_of

DATA = Path(__file__).parents[1] / "data" / "logs"
T0 = 1_767_571_200
"""2026-01-05 00:00:00 UTC."""
TUNNEL = "mzxw6ytboi3gk5dfnvzsa43p.t.bad.example"


def answer_of(qname: str, qtype: str, ttl: int = 60, data: bytes = b"\xc0\0\2\1") -> bytes:
    """An answer with one A record (RFC 1035 section 4.1)."""
    question = question_of(qname, qtype, 7)[12:]
    record = from_text(qname) + b"\0\0\1\0\1" + ttl.to_bytes(4) + len(data).to_bytes(2) + data
    return b"\0\7\x81\x80\0\1\0\1\0\0\0\0" + question + record


def adguard(qname: str = "GQ5vam9/BA==.t.example", **more: object) -> str:
    """An entry of AdGuard Home; QH is in small letters, the answer is not."""
    entry = {
        "T": "2026-01-05T01:00:00.519796123+01:00",
        "QH": qname.lower(),
        "QT": "TXT",
        "QC": "IN",
        "CP": "",
        "Upstream": "https://dns.example/dns-query",
        "Answer": base64.b64encode(answer_of(qname, "TXT")).decode(),
        "IP": "192.0.2.7",
        "Result": {},
        "Elapsed": 837429,
        "Cached": True,
    }
    return json.dumps({name: value for name, value in (entry | more).items() if value is not None})


ZEEK_HEAD = (
    "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tdns\n"
    "#fields\tts\tuid\tid.orig_h\tid.orig_p\tquery\tqtype\tqtype_name\trcode\tanswers\tTTLs\trtt\n"
    "#types\ttime\tstring\taddr\tport\tstring\tcount\tstring\tcount\tvector[string]\tvector[interval]\tinterval\n"
)


def zeek(query: str = "a\\xffb.t.example") -> str:
    """A row of dns.log below ZEEK_HEAD."""
    fields = (
        f"{T0}.25",
        "C1",
        "192.0.2.7",
        "4000",
        query,
        "16",
        "TXT",
        "0",
        "TXT 3 x\\x2cy,TXT 1 z",
        "60.0,30.0",
        "0.02",
    )
    return "\t".join(fields) + "\n"


def zeek_json(query: str = TUNNEL, **more: object) -> str:
    """A row of dns.log as JSON."""
    row = {"ts": T0 + 0.25, "uid": "C1", "id.orig_h": "192.0.2.7", "query": query, "qtype": 16, "qtype_name": "TXT"}
    return json.dumps(row | {"rcode": 3, "rtt": 0.02} | more)


def eve(dns: dict[str, object], at: str = "00:00:00.250000", **more: object) -> str:
    """A record of EVE."""
    record = {"timestamp": f"2026-01-05T{at}+0000", "flow_id": 5, "event_type": "dns", "src_ip": "192.0.2.7"}
    record |= {"src_port": 4000, "dest_ip": "192.0.2.1", "dest_port": 53, "proto": "UDP"}
    return json.dumps(record | more | {"dns": dns})


ANSWERS = [
    {"rrname": TUNNEL, "rrtype": "TXT", "ttl": 60, "rdata": "x"},
    {"rrtype": "A", "ttl": 30, "rdata": "192.0.2.1"},
]
ASKED = {"rrname": TUNNEL, "rrtype": "TXT"}
EVE = {
    "v1": [
        eve({"type": "query", "id": 9, **ASKED, "tx_id": 0}),
        eve({"type": "answer", "id": 9, "rcode": "NOERROR", **ASKED, "ttl": 60, "rdata": "x"}, "00:00:00.270000"),
    ],
    "v2": [
        eve({"version": 2, "type": "query", "id": 9, **ASKED, "tx_id": 0}),
        eve(
            {"version": 2, "type": "answer", "id": 9, "rcode": "NOERROR", **ASKED, "answers": ANSWERS},
            "00:00:00.270000",
            src_ip="192.0.2.1", src_port=53, dest_ip="192.0.2.7", dest_port=4000,
        ),
    ],
    "v3": [
        eve({"version": 3, "type": "request", "id": 9, "queries": [ASKED]}),
        eve(
            {"version": 3, "type": "response", "id": 9, "rcode": "NOERROR", "queries": [ASKED], "answers": ANSWERS},
            "00:00:00.270000",
        ),
    ],
}  # fmt: skip
OTHER_EVENT = json.dumps({"timestamp": "2026-01-05T00:00:00.000000+0000", "event_type": "flow", "src_ip": "192.0.2.7"})


def coredns(qname: str = "two\\ words.t.example.", frame: str = "2026-01-05T00:00:00.500000000Z stdout F ") -> str:
    """A line of CoreDNS as Kubernetes keeps it."""
    return f'{frame}[INFO] 192.0.2.7:50759 - 29008 "TXT IN {qname} udp 41 false 4096" NXDOMAIN qr,rd,ra 68 0.25s'


def route53(qname: str = "mzxw6ytb\\052.t.example.", **more: object) -> str:
    """A record of Route 53 Resolver."""
    row = {
        "version": "1.100000",
        "query_timestamp": "2026-01-05T00:00:00Z",
        "query_name": qname,
        "query_type": "TXT",
        "query_class": "IN",
        "rcode": "NOERROR",
        "answers": [{"Rdata": "x", "Type": "TXT", "Class": "IN"}],
        "srcaddr": "192.0.2.7",
        "srcport": "56067",
    }
    return json.dumps(row | more)


WINDOWS_HEAD = (
    "DNS Server log file creation at 1/5/2026 12:00:00 AM\nLog file wrap at 1/6/2026\n\nMessage logging key\n\n"
)


def windows(
    time: str = "1/5/2026 12:00:00 AM",
    way: str = "Rcv",
    response: str = " ",
    rcode: str = "NOERROR",
    qname: str = "(8)mzxw6ytb(1)t(7)example(0)",
) -> str:
    """A packet in Windows' debug log."""
    return (
        f"{time} 0D38 PACKET  000000D2E3D7F6B0 UDP {way} 192.0.2.7       0002 {response} Q "
        f"[0001   D   {rcode}] TXT    {qname}"
    )


def windows_event(
    number: int = 256, qname: str = "GQ5vam9/BA==.t.example", packet: bytes | None = None, **more: str
) -> str:
    """An analytic event of Windows' DNS server as wevtutil writes it."""
    packet = packet if packet is not None else question_of(qname, "TXT", 7)
    whose = {"Source" if number == 256 else "Destination": "192.0.2.7"}
    data = {
        "TCP": "0",
        "InterfaceIP": "192.0.2.1",
        **whose,
        "QNAME": f"{qname}.",
        "QTYPE": "16",
        "XID": "7",
        "Port": "53124",
    }
    data |= {"RCODE": "0"} if number != 256 else {}
    data |= {"PacketData": f"0x{packet.hex().upper()}"} | more
    rows = "".join(f"<Data Name='{name}'>{escape(value)}</Data>" for name, value in data.items())
    return (
        "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System><Provider "
        f"Name='Microsoft-Windows-DNSServer'/><EventID>{number}</EventID>"
        "<Version>0</Version><TimeCreated SystemTime='2026-01-05T00:00:00.2500000Z'/><Channel>"
        f"Microsoft-Windows-DNSServer/Analytical</Channel></System><EventData>{rows}</EventData></Event>"
    )


SAMPLES: dict[str, bytes] = {
    **{name: (DATA / f"{name}.log").read_bytes() for name in ("bind", "unbound", "dnsmasq", "dnsdist")},
    "adguard": f"{adguard()}\n{adguard('b.example')}\n".encode(),
    "zeek": (ZEEK_HEAD + zeek() + zeek("b.example")).encode(),
    "suricata": "\n".join([OTHER_EVENT, *EVE["v3"], ""]).encode(),
    "coredns": f"{coredns()}\n{coredns('b.example.')}\n".encode(),
    "route53": f"{route53()}\n{route53('b.example.')}\n".encode(),
    "windows": f"{WINDOWS_HEAD}{windows()}\n{windows(way='Snd', response='R')}\n".encode(),
    "windows-events": "\n".join(
        [windows_event(), windows_event(257, packet=answer_of("GQ5vam9/BA==.t.example", "TXT")), ""]
    ).encode(),
}
"""A log of each kind that is read by lines."""


def pihole(path: Path, rows: list[tuple[object, ...]]) -> None:
    """A database as Pi-hole lays it out: ids instead of texts, and a view. rows: timestamp, type, status, domain,
    client, reply type, reply time."""
    database = sqlite3.connect(path)
    database.executescript(
        """CREATE TABLE query_storage (id INTEGER PRIMARY KEY, timestamp INTEGER, type INTEGER, status INTEGER,
        domain INTEGER, client INTEGER, reply_type INTEGER, reply_time REAL);
        CREATE TABLE domain_by_id (id INTEGER PRIMARY KEY, domain TEXT);
        CREATE TABLE client_by_id (id INTEGER PRIMARY KEY, ip TEXT, name TEXT);
        CREATE VIEW queries AS SELECT id, timestamp, type, status,
        (SELECT domain FROM domain_by_id d WHERE d.id = q.domain) domain,
        (SELECT ip FROM client_by_id c WHERE c.id = q.client) client, reply_type, reply_time FROM query_storage q;"""
    )
    for at, (timestamp, qtype, status, domain, client, *reply) in enumerate(rows, start=1):
        database.execute("INSERT INTO domain_by_id VALUES (?, ?)", (at, domain))
        database.execute("INSERT INTO client_by_id VALUES (?, ?, NULL)", (at, client))
        database.execute(
            "INSERT INTO query_storage VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (at, timestamp, qtype, status, at, at, *reply)
        )
    database.commit()
    database.close()
