"""Sessions of C2 frameworks, testers' tools and tools against internet shutdowns, after their own documentation, as
quiet as they can be set."""

from __future__ import annotations

import random
from itertools import count

from tests.corpora.families_base import (
    Beat,
    Beats,
    Family,
    about,
    base32,
    base64url,
    hexed,
    labels,
    output,
    pieces,
)
from tests.corpora.lookalike_kinds import ALNUM, HEX, LETTERS, token, word


def chashell(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Chashell (sysdream 2019): an encrypted protobuf as hex, at least a nonce of 24 bytes, text records, polls each
    few seconds."""
    while True:
        size = 110 if task else 48
        yield Beat(about(rng, 2 if task else 30), f"{labels(hexed(rng.randbytes(size)), 63)}.{domains[0]}", "TXT", 60)


def dnscat2_powershell(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """dnscat2-powershell (Luke Baggett 2016) with a long delay: hex of packet, type, session and data; text, mail and
    alias records in turn."""
    session = token(rng, HEX, 4)
    for number in count():
        body = f"{token(rng, HEX, 4)}01{session}{number & 0xFFFF:04x}0000{hexed(rng.randbytes(40 if task else 0))}"
        yield Beat(
            about(rng, 1 if task else 60), f"{labels(body, 62)}.{domains[0]}", ("TXT", "MX", "CNAME")[number % 3], 40
        )


def mythic(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Mythic's DNS profile (its documentation 2025): base32 of a protobuf with session, chunk and count, text records,
    several domains in turn; a minute between call-backs."""
    session = rng.randbytes(4)
    for number in count():
        body = session + number.to_bytes(2, "big") + rng.randbytes(80 if task else 6)
        yield Beat(
            about(rng, 1 if task else 60), f"{labels(base32(body), 63)}.{domains[number % len(domains)]}", "TXT", 120
        )


def meterpreter(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Metasploit's DNS transport (Rapid7's repository 2018): a client's digit and a counter in hex, base32 of data,
    IPv6 addresses as answers, seventeen to a name."""
    for number in count():
        body = f"{rng.randrange(10)}.{number:x}.{labels(base32(rng.randbytes(40 if task else 3)), 60)}"
        yield Beat(about(rng, 1 if task else 30), f"{body}.{domains[0]}", "AAAA", 28 * 17)


def dns_shell(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """DNS-Shell (SensePost 2017) in its recursive mode: numbered requests for text records, output as hex."""
    for number in count():
        yield Beat(about(rng, 5), f"{number}.{token(rng, HEX, 4)}.{domains[0]}", "TXT", 60)
        for part in pieces(output(rng), 28) if task and number % 6 == 5 else ():
            yield Beat(0.4, f"{hexed(part)}.{domains[0]}")


def dnslivery(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """DNSlivery (no0be 2019): a file's pieces in text records of numbered names; nothing leaves."""
    name = f"{word(rng)}-ps1"
    for number in count(1):
        yield Beat(about(rng, 1 if task else 20), f"{number}.{name}.{domains[0]}", "TXT", 250)


def power_dns(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """PowerDNS (MDSec 2017): a script as text records of numbered names."""
    for number in count(1):
        yield Beat(about(rng, 0.5 if task else 15), f"{number}.{domains[0]}", "TXT", 240)


def batch_exfiltrator(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """dns-exfiltrator (Ivan Sincek 2023): output of a command as base64 with `plus`, `slash` and `eqls` for its marks,
    or as hex, at most 63 to a label, by nslookup."""
    while True:
        for part in pieces(output(rng) if task else output(rng)[:9], 42 if task else 9):
            text = base64url(part).replace("-", "plus").replace("_", "slash")
            yield Beat(about(rng, 1 if task else 120), f"{text[:63]}.{domains[0]}")


def interactsh(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """interactsh (ProjectDiscovery 2021): a key of twenty characters and a nonce of thirteen, by own server; what a
    probe found stands before it."""
    key = token(rng, ALNUM, 20)
    while True:
        head = f"{base32(output(rng)[:20])}." if task else ""
        yield Beat(about(rng, 5 if task else 90), f"{head}{key}{token(rng, ALNUM, 13)}.{domains[0]}")


def pyexfil(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """PyExfil's DNS module (Yuval tisf Nativ 2016): a start with name and hash, base64 pieces, and an end."""
    yield Beat(1, f"init.{token(rng, HEX, 32)}.{domains[0]}")
    while True:
        yield Beat(about(rng, 1 if task else 90), f"{base64url(rng.randbytes(40 if task else 12))}.{domains[0]}")


def egress_assess(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Egress-Assess's resolved DNS (Chris Truncer 2014): base64 of a number, a mark and the data, text records."""
    for number in count():
        text = f"{number}.:|:.".encode() + rng.randbytes(40 if task else 8)
        yield Beat(about(rng, 1 if task else 60), f"{labels(base64url(text), 60)}.{domains[0]}", "TXT", 20)


def dns_stager(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """DNSStager (Askar 2021): a payload in IPv6 addresses of hosts with a plain prefix and a number, a pause between
    each; nothing leaves."""
    for number in count():
        yield Beat(about(rng, 3 if task else 20), f"cloud-srv-{number}.{domains[0]}", "AAAA", 28)


def thunder_dns(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """ThunderDNS (fbkcs 2018): base32 of client, packet number and data, text records, a poll each second at most."""
    client = token(rng, ALNUM, 5)
    for number in count():
        body = base32(number.to_bytes(2, "big") + rng.randbytes(60 if task else 2))
        yield Beat(about(rng, 1 if task else 10), f"{client}.{labels(body, 60)}.{domains[0]}", "TXT", 80)


def browser_tunnel(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """browsertunnel (2020): a page's script makes the browser look names up ahead: base32 of a message in labels with
    an id and a piece's number."""
    while True:
        job = token(rng, HEX, 4)
        for number, part in enumerate(pieces(output(rng), 60) if task else (rng.randbytes(6),)):
            yield Beat(0.3 if number else about(rng, 60), f"{job}{number}.{labels(base32(part), 63)}.{domains[0]}")


def slipstream(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Slipstream (endpositive 2025): QUIC packets in base32 with a dot each 57 characters, text records; keep-alives of
    24 bytes of head when idle."""
    while True:
        size = rng.randint(110, 140) if task else 24
        yield Beat(
            about(rng, 0.5 if task else 20), f"{labels(base32(rng.randbytes(size)), 57)}.{domains[0]}", "TXT", 200
        )


def vaydns(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """VayDNS (2026; a fork of dnstt): two bytes of client id instead of eight, shorter names, text records, several
    resolvers; polls back off to ten seconds."""
    client = rng.randbytes(2)
    while True:
        body = client + rng.randbytes(60 if task else 3)
        yield Beat(about(rng, 0.5 if task else 10), f"{labels(base32(body), 57)}.{domains[0]}", "TXT", 120)


def noizdns(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """NoizDNS (2026; of SlipNet): dnstt's packets in another coding, hex in short labels, record types mixed, so that
    filters do not know it."""
    client = token(rng, HEX, 8)
    while True:
        body = labels(client + hexed(rng.randbytes(40 if task else 4)), rng.choice((12, 18, 24)))
        kind = rng.choice((("TXT", 120), ("A", 16), ("AAAA", 28), ("HTTPS", 60)))
        yield Beat(about(rng, 0.7 if task else 12), f"{body}.{domains[0]}", *kind)


def storm_dns(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """StormDNS (2026): five to seven bytes of head, packets packed, repeated over several resolvers and domains."""
    stream = rng.randbytes(2)
    for number in count():
        body = stream + number.to_bytes(3, "big") + rng.randbytes(90 if task else 2)
        name = f"{labels(base32(body), 63)}.{domains[number % len(domains)]}"
        for again in range(2):
            yield Beat(0.01 if again else about(rng, 1 if task else 15), name, "TXT", 140)


def dns_custom(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """A tunnel that uses eight record types in turn (dns_custom 2026): a session and encrypted pieces in base32."""
    session = token(rng, ALNUM, 6)
    kinds = (("TXT", 120), ("NULL", 120), ("CNAME", 60), ("A", 16), ("AAAA", 28), ("MX", 50), ("SRV", 50), ("NS", 40))
    for number in count():
        body = labels(base32(rng.randbytes(60 if task else 4)), 60)
        yield Beat(about(rng, 0.5 if task else 20), f"{body}.{session}.{domains[0]}", *kinds[number % 8])


def your_freedom(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """Your Freedom's DNS mode (its documentation): session and packet in letters and digits, null and text records."""
    session = token(rng, ALNUM, 7)
    for number in count():
        body = token(rng, ALNUM, 120 if task else 6)
        yield Beat(
            about(rng, 0.5 if task else 10), f"{labels(body, 60)}.{number % 1000}.{session}.{domains[0]}", "NULL", 150
        )


def vpn_over_dns(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """VPN over DNS (an app of 2012; public analyses): hex of user, counter and packet, text records."""
    user = token(rng, HEX, 6)
    for number in count():
        body = f"{user}{number:06x}{hexed(rng.randbytes(70 if task else 1))}"
        yield Beat(about(rng, 0.5 if task else 15), f"{labels(body, 60)}.{domains[0]}", "TXT", 120)


def nstx(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """NSTX (Florian Heinz 2000): base64 with an underscore and hyphen of IP packets, text records; a poll when idle."""
    for number in count():
        body = base64url(number.to_bytes(2, "big") + rng.randbytes(100 if task else 2))
        yield Beat(about(rng, 0.5 if task else 10), f"{labels(body, 63)}.{domains[0]}", "TXT", 120)


def dnscat_java(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """dnscat of 2004 (Tadeusz Pietraszek): base16 of packets, alias records, a counter against caches."""
    for number in count():
        body = labels(hexed(rng.randbytes(60 if task else 2)), 60)
        yield Beat(about(rng, 0.5 if task else 15), f"{body}.{number:x}.{domains[0]}", "CNAME", 60)


def reverse_shell(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """reverse_dns_shell (Ahhh 2015): text records bring encrypted commands to fixed names, output as base64."""
    while True:
        yield Beat(about(rng, 5), f"{word(random.Random(7))}.{domains[0]}", "TXT", 60)
        for part in pieces(output(rng), 36) if task else ():
            yield Beat(0.5, f"{base64url(part)}.{domains[0]}", "TXT", 20)


def sqlmap(rng: random.Random, domains: list[str], task: bool) -> Beats:
    """sqlmap's `--dns-domain` (its documentation 2012): three letters, hex of a piece of a table, three letters; the
    database server asks."""
    while True:
        text = hexed(output(rng)[:24] if task else rng.randbytes(3))
        name = f"{token(rng, LETTERS, 3)}.{text}.{token(rng, LETTERS, 3)}.{domains[0]}"
        yield Beat(about(rng, 2 if task else 120), name)


FRAMEWORKS = (
    Family(chashell),
    Family(dnscat2_powershell),
    Family(mythic, 2),
    Family(meterpreter),
    Family(dns_shell),
    Family(dnslivery, leaks=False),
    Family(power_dns, leaks=False),
    Family(batch_exfiltrator),
    Family(interactsh),
    Family(pyexfil),
    Family(egress_assess),
    Family(dns_stager, leaks=False),
    Family(thunder_dns),
    Family(browser_tunnel),
    Family(slipstream),
    Family(vaydns),
    Family(noizdns),
    Family(storm_dns, 2),
    Family(dns_custom),
    Family(your_freedom),
    Family(vpn_over_dns),
    Family(nstx),
    Family(dnscat_java),
    Family(reverse_shell, leaks=False),
    Family(sqlmap),
)
