"""Kinds of benign asking that look like exfiltration: formats that the services document, names made up by rule.

Words come from syllables, not from the vocabulary that the shipped model has learned.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple

HEX, BASE32, ALNUM = "0123456789abcdef", "abcdefghijklmnopqrstuvwxyz234567", "abcdefghijklmnopqrstuvwxyz0123456789"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
REGIONS = "us-east-1 eu-west-1 eu-central-1 ap-southeast-2".split()
HOSTS = "www www www api cdn static img login mail assets media app shop news video auth edge m gateway search".split()
TOPS = "com com com net org de io co.uk fr com.br app dev".split()
OFFICE = "corp.example.com"


class Ask(NamedTuple):
    """One question, the seconds since the one before it, and how it is answered."""

    after_s: float
    qname: str
    qtype: str = "A"
    answer: str = "A"  # answer types joined by commas, "" = no data, "NX" = NXDOMAIN
    size: int = 0  # bytes of the answer's records, 0 = as usual for their number


Asks = Iterator[Ask]
Kind = Callable[[random.Random], Asks]


def token(rng: random.Random, alphabet: str, size: int) -> str:
    return "".join(rng.choices(alphabet, k=size))


def guid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def word(rng: random.Random) -> str:
    """A made-up word of two to four syllables."""
    starts = "b br c ch cl d dr f fl g gr h j k l m n p pl pr qu r s sc sh st str t th tr v w z".split()
    ends = ["", "", "", "n", "r", "s", "l", "t", "nd", "x", "ck", "rt", "m"]
    vowels = "a e i o u a e i o u ea ou io ai ee".split()
    return "".join(
        rng.choice(starts) + rng.choice(vowels) + rng.choice(ends) for _ in range(rng.choice((2, 2, 3, 3, 4)))
    )


def octets(rng: random.Random, joint: str = ".") -> str:
    return joint.join(str(rng.randint(1, 254)) for _ in range(4))


def site(rng: random.Random) -> str:
    """A registered domain; some are asked for again and again."""
    popular = random.Random(rng.randrange(300) if rng.random() < 0.6 else rng.random())
    return f"{word(popular)}{popular.choice(['', '', '', '-' + word(popular), word(popular)])}.{popular.choice(TOPS)}"


def page(rng: random.Random) -> Asks:
    """A browser loads a page: its site, its own servers, and third parties, in a burst."""
    home = site(rng)
    yield Ask(rng.expovariate(0.2), f"www.{home}")
    yield Ask(0.01, f"www.{home}", "AAAA", "AAAA" if rng.random() < 0.5 else "")
    yield Ask(0.01, f"www.{home}", "HTTPS", "")
    for _ in range(rng.randint(2, 6)):
        yield Ask(rng.random() / 5, f"{rng.choice(HOSTS)}{rng.choice(['', '', '2', '-eu'])}.{home}")
    for _ in range(rng.randint(2, 8)):
        yield Ask(rng.random() / 5, f"{rng.choice(HOSTS)}.{site(rng)}", "A", "CNAME,A")
    for make in rng.sample((content_delivery, advertisement, cloud), rng.randint(0, 2)):
        yield from make(rng)


def content_delivery(rng: random.Random) -> Asks:
    """Hash hosts of content delivery networks."""
    yield Ask(
        0.05,
        rng.choice(
            (
                f"d{token(rng, ALNUM, 13)}.cloudfront.net",
                f"e{rng.randint(100, 99999)}.dsc{rng.choice('abcdgx')}.akamaiedge.net",
                f"{word(rng)}.{token(rng, ALNUM, 8)}.map.fastly.net",
                f"{token(rng, HEX, 32)}.ssl.cf{rng.randint(1, 5)}.rackcdn.com",
                f"{token(rng, HEX, 8)}.cdn.{site(rng)}",
                f"{token(rng, HEX, 32)}.{rng.choice(('img', 'cache', 'static'))}.{site(rng)}",
                f"scontent-{rng.choice(('fra', 'ams', 'lhr'))}{rng.randint(1, 9)}-{rng.randint(1, 3)}.xx.fbcdn.net",
            )
        ),
        "A",
        "CNAME,A",
    )


def advertisement(rng: random.Random) -> Asks:
    """Frames and measurements with a hash each."""
    yield Ask(0.02, f"{token(rng, HEX, 32)}.safeframe.googlesyndication.com")
    yield Ask(0.1, f"{token(rng, ALNUM, 6)}.{rng.choice(('pixel', 'sync', 'match'))}.{site(rng)}")
    if rng.random() < 0.1:
        yield Ask(0.3, f"{token(rng, HEX, 32)}.clo.footprintdns.com")
        yield Ask(0.3, f"{guid(rng)}.u.fastly-insights.com")


def cloud(rng: random.Random) -> Asks:
    """Load balancers, buckets and functions of clouds."""
    region = rng.choice(REGIONS)
    yield Ask(
        0.1,
        rng.choice(
            (
                f"{word(rng)}-{word(rng)}-{rng.randint(10**8, 2 * 10**9)}.{region}.elb.amazonaws.com",
                f"{token(rng, HEX, 32)}-{token(rng, HEX, 16)}.elb.{region}.amazonaws.com",
                f"{token(rng, ALNUM, 10)}.execute-api.{region}.amazonaws.com",
                f"{token(rng, HEX, 32)}.gr7.{region}.eks.amazonaws.com",
                f"ec2-{octets(rng, '-')}.{region}.compute.amazonaws.com",
                f"{word(rng)}-{token(rng, ALNUM, 10)}-uc.a.run.app",
                f"{word(rng)}{rng.randint(1, 999)}.blob.core.windows.net",
                f"{word(rng)}-{token(rng, ALNUM, 9)}-{word(rng)}.vercel.app",
                f"{octets(rng)}.bc.googleusercontent.com",
                f"{token(rng, HEX, 12)}.{token(rng, HEX, 8)}.{region}.token.awswaf.com",
            )
        ),
    )


def antivirus(rng: random.Random) -> Asks:
    """File and web reputation: a hash in every name, a burst for each program that starts or scan that runs."""
    vendor = rng.randrange(3)
    for _ in range(rng.choice((1, 2, 5, 10, 40))):
        names = (
            f"0.0.0.0.1.0.0.{token(rng, HEX, 2)}.{token(rng, BASE32, 26)}.avqs.mcafee.com",
            f"{token(rng, BASE32, 26)}.{token(rng, HEX, 8)}.{rng.choice('ab')}.00.s.sophosxl.net",
            f"p2.a22.{token(rng, ALNUM, 12)}.{token(rng, ALNUM, 20)}.c.e5.sk",
        )
        yield Ask(rng.expovariate(1), names[vendor], rng.choice(("A", "TXT")) if vendor else "A", "A")


def mail(rng: random.Random) -> Asks:
    """One message at a mail server: block lists, reputation, SPF, DKIM, DMARC and the sender's host."""
    sender, address = site(rng), octets(rng)
    yield Ask(rng.expovariate(0.05), f"{address}.in-addr.arpa", "PTR", "PTR")
    for zone in ("zen.spamhaus.org", "bl.spamcop.net", "b.barracudacentral.org", "list.dnswl.org"):
        yield Ask(0.01, f"{address}.{zone}", "A", "A" if rng.random() < 0.2 else "NX")
    for zone in ("dbl.spamhaus.org", "multi.surbl.org", "multi.uribl.com"):
        yield Ask(0.01, f"{rng.choice((sender, site(rng), 'www.' + site(rng)))}.{zone}", "A", "NX")
    selector = rng.choice(("s1", "selector1", "k1", "google", "default", "20240113", token(rng, BASE32, 32), word(rng)))
    for name in (sender, f"_dmarc.{sender}", f"{selector}._domainkey.{sender}", f"_spf.{site(rng)}"):
        yield Ask(0.05, name, "TXT", "TXT" if rng.random() < 0.8 else "NX")
    yield Ask(0.05, sender, "MX", "MX")
    if rng.random() < 0.3:
        yield Ask(0.05, f"{token(rng, HEX, 40)}.hash.spamhaus.net", "A", "NX")


def delivery(rng: random.Random) -> Asks:
    """One message sent: the receiver's exchanger, its certificate (RFC 7672), its policies (RFC 8461), and its zone."""
    zone = site(rng)
    host = f"mx{rng.randint(1, 3)}.{zone}"
    yield Ask(rng.expovariate(0.05), zone, "MX", "MX")
    for qtype in ("A", "AAAA"):
        yield Ask(0.02, host, qtype, qtype)
    yield Ask(0.02, f"_25._tcp.{host}", "TLSA", "TLSA" if rng.random() < 0.2 else "NX")
    for label in ("_mta-sts", "_smtp._tls"):
        yield Ask(0.02, f"{label}.{zone}", "TXT", "TXT" if rng.random() < 0.4 else "NX")
    for qtype in rng.sample(("NS", "SOA", "CAA", "DS", "SRV"), 3):
        yield Ask(0.02, zone, qtype, "")


def validating(rng: random.Random) -> Asks:
    """A resolver that validates (RFC 4035) looks one of forty popular zones up for somebody: what its cache lacks."""
    zone = site(random.Random(rng.randrange(40)))
    for qtype in ("A", "AAAA", "HTTPS"):
        yield Ask(0.01, f"{rng.choice(HOSTS)}.{zone}", qtype, "A")
    for qtype in rng.sample(("DS", "DNSKEY", "NS", "SOA", "MX", "TXT", "CAA", "SRV", "TLSA", "NAPTR"), 4):
        yield Ask(0.01, zone, qtype, "")


def monitoring(rng: random.Random) -> Asks:
    """All day, every minute, all records of one zone."""
    zone = site(rng)
    for _ in range(1440):
        for qtype in ("A", "AAAA", "HTTPS", "NS", "SOA", "MX", "TXT", "CAA", "DNSKEY", "DS", "SRV"):
            yield Ask(0.02, zone, qtype, "")
        yield Ask(59.8, f"www.{zone}")


def reverse_logs(rng: random.Random) -> Asks:
    """A log analyser asks for the names of visitors."""
    for _ in range(rng.randint(5, 40)):
        yield Ask(rng.expovariate(2), f"{octets(rng)}.in-addr.arpa", "PTR", "PTR" if rng.random() < 0.6 else "NX")


def reverse_sweep(rng: random.Random) -> Asks:
    """An inventory sweeps a network, IPv4 one by one, IPv6 by the privacy addresses it has seen (RFC 8981)."""
    third = rng.randint(0, 255)
    for last in range(256):
        yield Ask(0.05, f"{last}.{third}.20.10.in-addr.arpa", "PTR", "PTR" if last % 3 else "NX")
    prefix = "20010db8" + token(rng, "01", 8)
    for _ in range(64):
        address = ".".join(reversed(prefix + token(rng, HEX, 16)))
        yield Ask(0.2, f"{address}.ip6.arpa", "PTR", "NX")


def certificates(rng: random.Random) -> Asks:
    """ACME and the clouds' certificate validation (RFC 8555 section 8.4)."""
    zone = site(rng)
    yield Ask(rng.expovariate(0.1), f"_acme-challenge.{rng.choice(HOSTS)}.{zone}", "TXT", "TXT")
    yield Ask(0.1, f"_{token(rng, HEX, 32)}.{rng.choice(HOSTS)}.{zone}", "CNAME", "CNAME")
    yield Ask(0.1, f"_{token(rng, HEX, 32)}.{token(rng, LETTERS, 10)}.acm-validations.aws", "CNAME", "CNAME")
    yield Ask(0.1, f"{guid(rng)}.auth.acme-dns.io", "TXT", "TXT")
    yield Ask(0.1, zone, "CAA", "")


def pods(rng: random.Random) -> Asks:
    """Kubernetes with ndots:5: every outside name first below the whole search path, A and AAAA."""
    space = rng.choice(("default", "kube-system", "shop", "billing"))
    outside = rng.choice(
        (f"{rng.choice(HOSTS)}.{site(rng)}", f"{word(rng)}.{space}", f"sqs.{REGIONS[0]}.amazonaws.com")
    )
    for tail in (f"{space}.svc.cluster.local", "svc.cluster.local", "cluster.local", f"{REGIONS[1]}.compute.internal"):
        for qtype in ("A", "AAAA"):
            yield Ask(0.002, f"{outside}.{tail}", qtype, "NX")
    yield Ask(0.002, outside)
    pod = random.Random(rng.randrange(200))
    yield Ask(1, f"10-244-{pod.randint(0, 9)}-{pod.randint(1, 254)}.{word(pod)}-headless.{space}.svc.cluster.local")
    yield Ask(1, f"{word(pod)}-{token(pod, HEX, 10)}-{token(pod, ALNUM, 5)}.{space}.svc.cluster.local")


def directory(rng: random.Random) -> Asks:
    """A Windows client looks for its domain controllers, file servers and proxies."""
    controllers = [str(uuid.UUID(int=number * 7919**9)) for number in range(1, 5)]
    for name in (f"_ldap._tcp.site-{rng.randint(1, 5)}._sites.dc._msdcs", "_kerberos._tcp.dc._msdcs", "_gc._tcp"):
        yield Ask(0.1, f"{name}.{OFFICE}", "SRV", "SRV")
    yield Ask(0.1, f"_ldap._tcp.{rng.choice(controllers)}.domains._msdcs.{OFFICE}", "SRV", "SRV")
    yield Ask(0.1, f"{rng.choice(controllers)}._msdcs.{OFFICE}", "CNAME", "CNAME")
    for _ in range(rng.randint(1, 6)):
        yield Ask(2, f"{rng.choice(('desktop-', 'laptop-', 'pc'))}{machine(rng)}.{OFFICE}", "A", "A")
    for name in ("wpad", "isatap", f"files{rng.randint(1, 9)}", f"print-{rng.randint(1, 30)}"):
        yield Ask(1, f"{name}.{OFFICE}", "A", rng.choice(("A", "NX")))


def machine(rng: random.Random) -> str:
    """One of the office's 400 machines, with the seven characters that Windows gives."""
    return token(random.Random(rng.randrange(400)), ALNUM.upper(), 7)


def suffixed(rng: random.Random) -> Asks:
    """The search domain appended to what did not resolve."""
    for _ in range(rng.randint(1, 10)):
        yield Ask(0.5, f"{rng.choice(HOSTS)}.{site(rng)}.{OFFICE}", "A", "NX")


def probes(rng: random.Random) -> Asks:
    """A browser starts: three random labels, to see whether the network lies; some with the search domain."""
    for _ in range(3):
        label = token(rng, LETTERS, rng.randint(7, 15))
        yield Ask(0.01, label, "A", "NX")
        yield Ask(0.01, f"{label}.{OFFICE}", "A", "NX")


def multicast(rng: random.Random) -> Asks:
    """Names of the link, and the random host names of browsers' calls (RFC 6762, RFC 8828)."""
    for service in rng.sample(("_googlecast", "_ipp", "_airplay", "_spotify-connect", "_homekit"), 3):
        yield Ask(1, f"{service}._tcp.local", "PTR", "")
    for _ in range(rng.randint(0, 4)):
        yield Ask(0.1, f"{guid(rng)}.local", "A", "NX")


def telemetry(rng: random.Random) -> Asks:
    """Error reports and usage data."""
    for name in (
        f"v{rng.choice((10, 20))}.events.data.microsoft.com",
        f"{rng.choice(('eu', 'us'))}-{rng.randint(1, 9)}.kv{rng.randint(100, 999)}.prod.do.dsp.mp.microsoft.com",
        f"o{rng.randint(10**5, 10**6)}.ingest.sentry.io",
        f"{token(random.Random(rng.randrange(40)), HEX, 32)}.telemetry.{word(random.Random(5))}.com",
        f"{rng.randint(1, 50)}.client-channel.google.com",
    ):
        yield Ask(rng.expovariate(0.2), name, "A", "CNAME,A")


def video(rng: random.Random) -> Asks:
    """Players look for the nearest cache."""
    for _ in range(rng.randint(3, 12)):
        place = token(rng, "23456789abcdefghijklmnopqrstuvwxyz", 8)
        yield Ask(20, f"rr{rng.randint(1, 8)}---sn-{place}.googlevideo.com")
        yield Ask(5, f"ipv4-c{rng.randint(1, 20):03}-fra{rng.randint(1, 3):03}-ix.1.oca.nflxvideo.net")


def games(rng: random.Random) -> Asks:
    """Game and peer-to-peer clients; a media server has a hash and a few addresses."""
    server = random.Random(rng.randrange(5))
    for name in (
        f"cache{rng.randint(1, 40)}-fra{rng.randint(1, 3)}.steamcontent.com",
        f"tracker.{site(rng)}",
        f"192-168-{rng.randint(0, 1)}-{rng.randint(1, 5)}.{token(server, HEX, 32)}.plex.direct",
        f"{word(rng)}{rng.randint(1, 99)}.duckdns.org",
        f"{rng.choice(REGIONS)}-{token(rng, HEX, 6)}.relay.{word(random.Random(6))}.gg",
    ):
        yield Ask(rng.expovariate(0.1), name, "A", rng.choice(("A", "A", "NX")))


def things(rng: random.Random) -> Asks:
    """A hub asks for its devices and their clouds."""
    device = random.Random(rng.randrange(12))
    yield Ask(10, f"{guid(device)}.devices.{word(random.Random(7))}.io")
    yield Ask(1, f"a{token(device, ALNUM, 13)}-ats.iot.{REGIONS[1]}.amazonaws.com")
    yield Ask(1, f"{token(device, HEX, 12)}.lan", "A", rng.choice(("A", "NX")))
    yield Ask(1, f"mqtt-{rng.randint(1, 8)}.{word(random.Random(7))}.io")
