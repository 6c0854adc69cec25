"""Kinds of benign asking that organisations have by default, and that a careless detector pages for: directories, mail
filters, clouds, containers, measurements, tests of the network itself.

Formats are those that the services document; keys, hosts, customers and half of the services are made up.
"""

from __future__ import annotations

import base64
import random

from tests.corpora.lookalike_hosts import DIGITS
from tests.corpora.lookalike_kinds import (
    ALNUM,
    BASE32,
    HEX,
    LETTERS,
    OFFICE,
    REGIONS,
    Ask,
    Asks,
    guid,
    octets,
    site,
    token,
    word,
)

CLUSTER = "oraclevcn.com"
"""Hosts of a cloud's own networks lie below it."""


def _own(number: int) -> random.Random:
    """A generator that is the same for everyone who asks."""
    return random.Random(f"service {number}")


def _made(number: int, end: str = "com") -> str:
    """Domain of a made-up service."""
    return f"{word(_own(number))}{word(_own(number + 1))}.{end}"


def partners(rng: random.Random) -> Asks:
    """A domain controller looks for its eight replication partners, each by its identity."""
    for number in range(8):
        yield Ask(2, f"{guid(_own(100 + number))}._msdcs.{OFFICE}", "CNAME", "CNAME")
    yield Ask(1, f"_ldap._tcp.{guid(_own(120))}.domains._msdcs.{OFFICE}", "SRV", "SRV")
    yield Ask(1, f"gc._msdcs.{OFFICE}", "A", "A")


def block_lists(rng: random.Random) -> Asks:
    """A mail filter asks lists of addresses, half of which nobody has heard of."""
    address = octets(rng)
    for zone in (
        "dnsbl.dronebl.org", "all.s5h.net", "backscatter.spameatingmonkey.net", f"bl.{_made(130, 'org')}",
        f"ips.white.{_made(132, 'net')}",
    ):  # fmt: skip
        yield Ask(0.02, f"{address}.{zone}", "A", "A" if rng.random() < 0.05 else "NX")


def hashed_lists(rng: random.Random) -> Asks:
    """A mail filter asks lists of hashed addresses, links and attachments."""
    for _ in range(rng.randint(1, 3)):
        for size, zone in ((40, "ebl.msbl.org"), (32, f"md5.{_made(134, 'net')}"), (64, f"files.{_made(136, 'org')}")):
            body = token(rng, HEX, size)
            yield Ask(0.1, f"{body[:62]}.{zone}" if size > 62 else f"{body}.{zone}", "A", "NX")
    body = base64.b32encode(rng.randbytes(32)).decode().rstrip("=").lower()
    yield Ask(0.1, f"{body}.uri.{_made(138, 'net')}", "A", "NX")


def spf_macros(rng: random.Random) -> Asks:
    """A policy with macros (RFC 7208 section 7) puts the sender's address, host and domain into the name."""
    sender, address = site(rng), octets(rng)
    yield Ask(1, sender, "TXT", "TXT")
    yield Ask(
        0.05,
        rng.choice(
            (
                f"{address}.in-addr._spf.{sender}.spf.has.pphosted.com",
                f"_i.{address}._h.mail{rng.randrange(60)}.{sender}._o.{sender}._spf.vali.email",
                f"{address}.spf.{_made(140, 'email')}",
                f"{word(rng)}.{word(rng)}._spf.{sender}",
            )
        ),
        "A",
        rng.choice(("A", "NX")),
    )


def dial_up(rng: random.Random) -> Asks:
    """A mail server confirms the name of a sender's line (RFC 8601 section 2.7.3): back, then forth."""
    first, second, third, fourth = (rng.randint(1, 254) for _ in range(4))
    yield Ask(60, f"{fourth}.{third}.{second}.{first}.in-addr.arpa", "PTR", "PTR")
    number = f"{first:02x}{second:02x}{third:02x}{fourth:02x}"
    yield Ask(
        0.1,
        rng.choice(
            (
                f"c-{first}-{second}-{third}-{fourth}.hsd1.ca.comcast.net",
                f"p{number}.dip0.t-ipconnect.de",
                f"x{number}.dyn.{_made(142, 'de')}",
                f"{fourth}.{third}.{second}.{first}.rev.{_made(144, 'fr')}",
                f"host-{first}-{second}-{third}-{fourth}.{_made(146, 'it')}",
                f"{first * 2**24 + second * 2**16 + third * 2**8 + fourth}.pool.{_made(148, 'net')}",
            )
        ),
    )


def large_text(rng: random.Random) -> Asks:
    """All records of a domain's own name, once: proofs of ownership that nobody removed, up to seven thousand bytes."""
    yield Ask(5, site(rng), "TXT", "TXT", rng.choice((600, 1500, 3200, 4800, 6300, 7100)))


def zone_keys(rng: random.Random) -> Asks:
    """A resolver fetches the keys of zones (RFC 4035)."""
    for _ in range(rng.randint(1, 4)):
        zone = site(rng)
        yield Ask(1, zone, "DNSKEY", "DNSKEY", rng.randrange(600, 3000))
        yield Ask(0.1, zone, "DS", "DS")


def visitors(rng: random.Random) -> Asks:
    """A log analyser asks for the names of visitors, IPv6 as well."""
    for _ in range(rng.randint(5, 30)):
        yield Ask(rng.expovariate(1), f"{octets(rng)}.in-addr.arpa", "PTR", rng.choice(("PTR", "NX")))
    for _ in range(rng.randint(1, 6)):
        prefix = rng.choice(("20010db8", "2a020908", "26001700")) + token(rng, HEX, 8)
        nibbles = ".".join(reversed(prefix + token(rng, HEX, 16)))
        yield Ask(rng.expovariate(0.5), f"{nibbles}.ip6.arpa", "PTR", rng.choice(("PTR", "NX", "NX")))


def cloud_hosts(rng: random.Random) -> Asks:
    """Hosts of one cloud network ask for each other, over and over: twenty, and their names never change."""
    for _ in range(rng.randint(2, 8)):
        one = _own(200 + rng.randrange(20))
        name = "-".join(("c" + token(one, ALNUM, 10), "n" + token(one, ALNUM, 10), "s" + token(one, ALNUM, 10)))
        yield Ask(rng.expovariate(0.1), f"oke-{name}-{one.randrange(9)}.sub{token(one, DIGITS, 11)}.vcn1.{CLUSTER}")
    for _ in range(rng.randint(1, 5)):
        host = rng.randrange(4, 250)
        zone = rng.choice(("ec2.internal", f"{REGIONS[1]}.compute.internal", f"c.{word(_own(221))}-4711.internal"))
        yield Ask(rng.expovariate(0.1), f"ip-10-0-0-{host}.{zone}", "A", rng.choice(("A", "A", "NX")))


def containers(rng: random.Random) -> Asks:
    """A container starts and looks for its own name: twelve hexadecimal digits, with every search domain."""
    own = token(rng, HEX, 12)
    for tail in (OFFICE, f"build.{OFFICE}", _made(222, "net")):
        for qtype in ("A", "AAAA"):
            yield Ask(0.01, f"{own}.{tail}", qtype, "NX")
    yield Ask(0.01, own, "A", "NX")
    yield Ask(2, f"registry-{rng.randrange(1, 4)}.{OFFICE}")


def discovery(rng: random.Random) -> Asks:
    """Service catalogues: nodes by identity, services by their instances' hashes."""
    node, instance = _own(230 + rng.randrange(60)), _own(300 + rng.randrange(200))
    yield Ask(1, f"{guid(node)}.node.dc1.consul", "A", rng.choice(("A", "NX")))
    yield Ask(0.1, f"_{word(instance)}._tcp.service.dc1.consul", "SRV", "SRV")
    yield Ask(0.1, f"{token(instance, HEX, 8)}.addr.dc1.consul", "A", "A")
    yield Ask(0.1, f"{token(instance, ALNUM, 10)}.{word(instance)}.mesh.{_made(232, 'net')}", "A", "A")
    yield Ask(0.1, f"{word(node)}-{node.randrange(5)}.{word(node)}.data.svc.cluster.local", "A", "A")


def scan(rng: random.Random) -> Asks:
    """A scan of a disk: a reputation look-up for each program that the scanner has not seen for a day."""
    for _ in range(rng.choice((20, 60, 120))):
        yield Ask(
            rng.expovariate(0.2),
            f"{rng.choice(('13', '14', 'a'))}-0.19-{rng.choice('ab')}3000081.{token(rng, HEX, 7)}.1838."
            f"11{token(rng, HEX, 2)}.2fca.210.0.{token(rng, ALNUM, 26)}.{rng.choice(('avqs', 'avts'))}.mcafee.com",
        )
    for _ in range(rng.choice((0, 10, 40))):
        yield Ask(rng.expovariate(0.2), f"{token(rng, HEX, 40)}.sha1.lookup.{_made(240, 'net')}", "TXT", "TXT")


def node_lists(rng: random.Random) -> Asks:
    """A peer-to-peer client walks a signed tree of nodes (EIP-1459)."""
    trees = ("mainnet.ethdisco.net", f"nodes.{_made(242, 'org')}")
    for _ in range(rng.randint(20, 120)):
        yield Ask(0.35, f"{token(rng, BASE32, 26).upper()}.all.{rng.choice(trees)}", "TXT", "TXT")


def keyed_metrics(rng: random.Random) -> Asks:
    """A vendor measures a page's way by a host with a key: a few, with the same key."""
    key = f"{token(rng, ALNUM, 13)}-{token(rng, ALNUM, 16)}"
    for number in range(rng.randint(3, 8)):
        tail = rng.choice(
            (f"{token(rng, DIGITS, 6)}-i1-v6exp3-v4", "if-v6exp3-v4", f"{token(rng, DIGITS, 6)}-i2-v6exp3-ds")
        )
        yield Ask(0.1, f"p{number}-{key}-{tail}.metric.gstatic.com")


def experiments(rng: random.Random) -> Asks:
    """A registry's measurement comes with an advertisement: five names with one key, then never again."""
    key = f"u{token(rng, HEX, 20)}"
    kinds = rng.sample(("v4", "v6", "ds", "4r", "6r", "edns", "tcp"), 5)
    for kind in kinds:
        yield Ask(0.2, f"{kind}-{key}-c{rng.randrange(300)}-i{rng.randrange(2**32):08x}.{_made(250, 'net')}")


def audience(rng: random.Random) -> Asks:
    """Measurement of an audience: a new name for every page that is looked at."""
    for _ in range(rng.randint(1, 6)):
        yield Ask(rng.expovariate(0.03), f"{token(rng, ALNUM, 12)}.{word(_own(252))}.{_made(254)}")
        yield Ask(0.2, f"{token(rng, HEX, 16)}-{token(rng, DIGITS, 10)}.px.{_made(256)}")


def city_hosts(rng: random.Random) -> Asks:
    """A portal's page lists all its cities: hosts of two to four letters or digits."""
    for _ in range(rng.randint(10, 60)):
        city = _own(400 + rng.randrange(300))
        yield Ask(
            0.02,
            f"{city.choice((token(city, LETTERS, 2), token(city, DIGITS, 4), token(city, LETTERS, 4)))}.{_made(258)}",
        )


def latency_probes(rng: random.Random) -> Asks:
    """A content network measures its edges from a page: one name with a random key below a site's own host."""
    project = _own(700 + rng.randrange(80))
    yield Ask(1, f"a{token(rng, HEX, 32)}.profile.{token(project, ALNUM, 13)}.cloudfront.net")
    yield Ask(1, f"{guid(rng)}.{rng.choice(REGIONS)}.rum.{_made(260)}")


def keyed_hosts(rng: random.Random) -> Asks:
    """Hosts with a key that are asked for again and again: pull zones, push services, identities of tenants."""
    for _ in range(rng.randint(1, 4)):
        one = _own(800 + rng.randrange(60))
        yield Ask(
            rng.expovariate(0.02),
            one.choice(
                (
                    f"{token(one, ALNUM, 9)}.b-cdn.net",
                    f"{token(one, HEX, 32)}.push.{_made(262)}",
                    f"{guid(one)}.login.{_made(264)}",
                    f"{one.randrange(1, 50)}-courier.push.apple.com",
                    f"{token(one, ALNUM, 24)}.mqtt.{_made(266, 'io')}",
                    f"d{token(one, ALNUM, 13)}.cloudfront.net",
                )
            ),
            "A",
            "CNAME,A",
        )


def leak_test(rng: random.Random) -> Asks:
    """One visit of a page that shows which resolver one uses."""
    if rng.random() < 0.5:
        key = token(rng, ALNUM, 40)
        for number in range(rng.randint(10, 30)):
            yield Ask(0.3, f"{key}-{number}.{rng.choice(('ipleak.net', _made(268, 'net')))}")
        return
    for _ in range(rng.randint(6, 36)):
        yield Ask(0.2, f"{guid(rng)}.test.{rng.choice(('dnsleaktest.com', _made(270)))}")


def speed_test(rng: random.Random) -> Asks:
    """A page measures the line: a host for each connection, so that nothing comes from a cache."""
    for _ in range(rng.randint(4, 16)):
        yield Ask(0.1, f"{token(rng, LETTERS, 10)}.{rng.choice(('speed', 'n1.bench'))}.{_made(272, 'net')}")


def peer_video(rng: random.Random) -> Asks:
    """A player shares with others: a hash for each film, an edge for each piece."""
    for _ in range(rng.randint(2, 10)):
        yield Ask(rng.expovariate(0.02), f"{token(rng, HEX, 32)}.p2p.{_made(274, 'net')}")
        yield Ask(1, f"{token(rng, ALNUM, 16)}zw240ex96cx6400xd04xx{rng.randrange(100)}.edge.{_made(276)}")


def media_server(rng: random.Random) -> Asks:
    """A media server's addresses, IPv4 and IPv6, each with its key as a host name with a certificate."""
    server = _own(900 + rng.randrange(30))
    key = token(server, HEX, 32)
    for _ in range(rng.randint(1, 5)):
        yield Ask(rng.expovariate(0.1), f"192-168-{rng.randrange(8)}-{rng.randrange(2, 250)}.{key}.plex.direct")
    address = "-".join(token(rng, HEX, 4) for _ in range(8))
    yield Ask(1, f"{address}.{key}.plex.direct", "AAAA", "AAAA")
    yield Ask(1, f"{octets(rng, '-')}.ip.{_made(278, 'direct')}")


def content_addressed(rng: random.Random) -> Asks:
    """Pages by the hash of their content."""
    for _ in range(rng.randint(1, 3)):
        body = base64.b32encode(rng.randbytes(34)).decode().rstrip("=").lower()
        yield Ask(rng.expovariate(0.05), f"bafy{body}.ipfs.{rng.choice(('dweb.link', _made(280, 'link')))}")
    yield Ask(1, f"_dnslink.{site(rng)}", "TXT", "TXT")


def own_certificates(rng: random.Random) -> Asks:
    """Proofs for a certificate (RFC 8555 section 8.4), and the state of others (RFC 6960)."""
    yield Ask(5, f"_acme-challenge.{word(rng)}.{OFFICE}", "TXT", "TXT")
    yield Ask(0.5, f"_{token(rng, HEX, 32)}.{word(rng)}.{OFFICE}", "CNAME", "CNAME")
    yield Ask(
        0.5, f"{token(rng, HEX, 32)}.{token(rng, HEX, 32)}.{token(rng, ALNUM, 20)}.{_made(282)}", "CNAME", "CNAME"
    )
    for _ in range(rng.randint(1, 4)):
        yield Ask(1, f"r{rng.randrange(3, 14)}.o.lencr.org")


def printers_and_cameras(rng: random.Random) -> Asks:
    """A device calls its maker's cloud by its number, and looks for others on the link."""
    device = _own(1000 + rng.randrange(40))
    yield Ask(5, f"{token(device, HEX, 12)}.device.{_made(284, 'cloud')}", "A", rng.choice(("A", "A", "NX")))
    yield Ask(1, f"sn{token(device, DIGITS, 9)}.{rng.choice(('eu', 'us'))}.p2p.{_made(286)}")
    yield Ask(1, f"{guid(device)}.local", "A", "NX")
