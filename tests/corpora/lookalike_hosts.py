"""Kinds of benign asking in which hosts are numbered, or named by a key each: fleets, subscribers, shards, tenants,
previews."""

from __future__ import annotations

import random

from tests.corpora.lookalike_kinds import ALNUM, HEX, LETTERS, REGIONS, Ask, Asks, guid, octets, token, word

DIGITS = "0123456789"


def _own(number: int) -> random.Random:
    """A generator of its own: what it makes is the same for everyone who asks."""
    return random.Random(number)


def fleet(rng: random.Random) -> Asks:
    """A monitoring host goes through the machines of one of its sites, all of them or a rack."""
    place = _own(rng.randrange(6))
    zone, pattern = f"{word(place)}-{word(place)}.{place.choice(('net', 'com', 'io'))}", place.randrange(8)
    first = rng.randrange(0, 900, 20)
    for number in range(first, first + rng.choice((20, 60, 100))):
        high, low = divmod(number, 250)
        name = (
            f"ip-10-0-{high}-{low}", f"h{number}", f"10-{high}-7-{low}", f"dhcp-192-168-{high}-{low}",
            f"node{number:04}", f"web{number}.dc{high + 1}", f"k8s-worker-{number:03}.rack{number // 20:02}",
            f"{number}",
        )[pattern]  # fmt: skip
        yield Ask(rng.choice((0.02, 0.5)), f"{name}.{zone}", "A", "A")


def scaled(rng: random.Random) -> Asks:
    """Machines of a cloud that come and go with the load, below the company's own domain."""
    zone = f"{word(_own(50))}.{_own(51).choice(('cloud', 'net'))}"
    for _ in range(rng.randint(2, 12)):
        yield Ask(
            rng.expovariate(1),
            f"ip-10-{rng.randrange(4)}-{rng.randrange(256)}-{rng.randrange(1, 255)}.{REGIONS[1]}.{zone}",
        )


def subscribers(rng: random.Random) -> Asks:
    """A log analyser or mail server confirms the names of visitors: addresses of their providers' lines."""
    for _ in range(rng.randint(5, 30)):
        isp = _own(100 + rng.randrange(25))
        zone, pattern = f"{word(isp)}.{isp.choice(('net', 'de', 'com.br', 'fr'))}", isp.randrange(6)
        address = octets(rng, "-")
        name = (
            f"static-{address}", f"dyn-{address}", address, f"cpe-{address}.{word(isp)}",
            f"p{rng.randrange(10**4)}.dip",
            f"host{rng.randrange(1, 255)}-{rng.randrange(1, 255)}-static.{rng.randrange(2, 95)}",
        )[pattern]  # fmt: skip
        yield Ask(rng.expovariate(0.5), f"{name}.{zone}", "A", "A" if rng.random() < 0.7 else "NX")


def shards(rng: random.Random) -> Asks:
    """A page takes its pictures and films from numbered and hashed hosts of two or three networks that nobody
    listed."""
    for _ in range(rng.randint(1, 4)):
        network = _own(200 + int(60 * rng.random() ** 3))  # few of them are everywhere
        zone, pattern = f"{word(network)}cdn.{network.choice(('com', 'net'))}", network.randrange(5)
        for _ in range(rng.randint(1, 5)):
            one = _own(rng.randrange(network.choice((4, 12, 40))))
            name = (
                f"img{one.randrange(1, 30)}", f"edge-{one.randrange(1, 300):03}-fra{one.randrange(1, 4)}",
                token(one, HEX, 8),
                f"{token(one, ALNUM, 7)}.vod", f"s{one.randrange(1, 99)}-{token(one, LETTERS, 3)}",
            )[pattern]  # fmt: skip
            yield Ask(0.1, f"{name}.{zone}", "A", "CNAME,A")
            if rng.random() < 0.5:
                yield Ask(0.001, f"{name}.{zone}", rng.choice(("AAAA", "HTTPS")), "")


def tenants(rng: random.Random) -> Asks:
    """Services for sites whose customers have a key each: the more sites somebody visits, the more keys."""
    for _ in range(rng.randint(1, 3)):
        service, customer = int(12 * rng.random() ** 2), _own(rng.randrange(4000))
        key = (
            f"{token(customer, DIGITS, 3)}-{token(customer, LETTERS, 3)}-{token(customer, DIGITS, 3)}",
            token(customer, DIGITS, 7),
            token(customer, HEX, 24), token(customer, ALNUM, 6), f"{word(customer)}-{word(customer)}",
        )[service % 5]  # fmt: skip
        yield Ask(0.2, f"{key}.{word(_own(300 + service))}.com", "A", "CNAME,A")


def previews(rng: random.Random) -> Asks:
    """A developer looks at what was just built: a hash for each deployment, below a project's own name (pages.dev is a
    public suffix)."""
    project = _own(400 + rng.randrange(4))
    for _ in range(rng.randint(1, 2)):
        yield Ask(rng.expovariate(0.01), f"{token(rng, HEX, 8)}.{word(project)}-{word(project)}.pages.dev", "A", "A")
    yield Ask(5, f"{word(project)}-{word(project)}.pages.dev")
    yield Ask(5, f"deploy-preview-{rng.randrange(2000)}--{word(project)}.netlify.app")


def updates(rng: random.Random) -> Asks:
    """Systems fetch updates and certificates by way of content networks' numbered hosts."""
    for _ in range(rng.randint(1, 4)):
        name = rng.choice(
            (
                f"e{rng.randint(100, 99999)}.dsc{rng.choice('abcdgx')}.akamaiedge.net",
                f"a{rng.randint(100, 1999)}.dscr.akamai.net",
                f"{rng.choice(('au', 'fg', 'sls'))}.download.windowsupdate.com",
                f"{rng.randrange(1, 20)}.tlu.dl.delivery.mp.microsoft.com",
                "geover-prod.do.dsp.mp.microsoft.com",
                f"p{rng.randrange(1, 180)}-caldav.icloud.com",
                "ocsp.digicert.com",
                f"r{rng.randint(1, 8)}---sn-{token(_own(rng.randrange(30)), ALNUM, 8)}.gvt1.com",
                "time.windows.com",
                "ctldl.windowsupdate.com",
            )
        )
        yield Ask(0.2, name, "A", "CNAME,A")


def meetings(rng: random.Random) -> Asks:
    """A call: relays named by address, and a session's own host."""
    for _ in range(rng.randint(1, 3)):
        yield Ask(0.2, f"turn-{octets(_own(rng.randrange(300)), '-')}.{word(_own(500))}-meet.com")
    yield Ask(
        0.5, f"{rng.choice(('fra', 'ams', 'lhr'))}{token(rng, LETTERS, 3)}{rng.randint(1, 300)}mmr.{word(_own(501))}.us"
    )
    yield Ask(0.5, f"{guid(_own(rng.randrange(20)))}.tenant.{word(_own(502))}.com")
