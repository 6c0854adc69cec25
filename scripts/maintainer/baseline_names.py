"""Benign names, made up from baseline_words.txt, the patterns below and a seed: one function a kind."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
LOOKALIKE_ONE_IN = 10_000
REGIONS = "us-east-1 us-east-2 us-west-1 us-west-2 eu-west-1 eu-central-1 ap-southeast-1 ap-northeast-1".split()
AZURE = "westeurope northeurope eastus eastus2 westus centralus southeastasia japaneast".split()
SERVICES = (
    "_ldap._tcp.dc._msdcs _kerberos._tcp _ldap._tcp.default-first-site-name._sites _sip._tls _dmarc _gc._tcp "
    "_xmpp-server._tcp _imaps._tcp _mta-sts _sipfederationtls._tcp _vlmcs._tcp _acme-challenge"
).split()
HEX, BASE32, ALNUM = (
    "0123456789abcdef",
    "abcdefghijklmnopqrstuvwxyz234567",
    "abcdefghijklmnopqrstuvwxyz0123456789",
)


def vocabulary() -> dict[str, list[str]]:
    """Words by kind, in file order."""
    kinds: dict[str, list[str]] = {}
    for line in (HERE / "baseline_words.txt").read_text("utf-8").splitlines():
        kind, colon, words = line.partition(":")
        if colon and not line.startswith("#"):
            kinds.setdefault(kind, []).extend(words.split())
    return kinds


V = vocabulary()


def token(rng: random.Random, alphabet: str, size: int) -> str:
    return "".join(rng.choices(alphabet, k=size))


def word(rng: random.Random) -> str:
    return rng.choice(V["words"])


def syllables(rng: random.Random) -> str:
    """A brand-like made-up word: vorano, lumixa, takeno."""
    return "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))


def initials(rng: random.Random) -> str:
    return token(rng, "abcdefghijklmnoprstuvw", rng.randint(2, 5))


def registered(rng: random.Random) -> str:
    """The label that somebody registered."""
    kind = rng.random()
    if kind < 0.42:
        return word(rng) + word(rng)
    if kind < 0.57:
        return word(rng)
    if kind < 0.69:
        return word(rng) + "-" + word(rng)
    if kind < 0.77:
        return syllables(rng) + rng.choice(["", "", "x", "n", "s"])
    if kind < 0.85:
        return initials(rng) + rng.choice(["", word(rng)])
    if kind < 0.91:
        return word(rng) + str(rng.randint(1, 999))
    if kind < 0.96:
        return word(rng) + word(rng) + word(rng)
    if kind < 0.99:
        return word(rng) + "-" + word(rng) + "-" + word(rng)
    return "xn--" + word(rng) + "-" + token(rng, ALNUM, rng.randint(3, 6))


def site(rng: random.Random) -> str:
    """A registered domain, well known or made up."""
    return rng.choice(V["brands"]) if rng.random() < 0.3 else f"{registered(rng)}.{rng.choice(V['tlds'])}"


def host(rng: random.Random) -> str:
    """One host label as administrators choose them."""
    kind = rng.random()
    if kind < 0.62:
        return rng.choice(V["hosts"])
    if kind < 0.74:
        return word(rng)
    if kind < 0.82:
        return rng.choice(V["hosts"]) + str(rng.randint(1, 99))
    if kind < 0.88:
        return f"{word(rng)}-{rng.choice(V['hosts'])}"
    if kind < 0.93:
        return f"{rng.choice(V['hosts'])}-{rng.choice(['eu', 'us', 'prod', 'stg', 'east', 'ssl', 'v2'])}"
    if kind < 0.97:
        return word(rng) + word(rng)
    return f"{word(rng)}-{word(rng)}-{word(rng)}"


def infra(rng: random.Random) -> str:
    """A host as operations teams name them: ghs-web-prd-c17, waws-ams-031, in2-gw-02."""
    parts = [rng.choice(V["abbreviations"]) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.4:
        parts.insert(rng.randrange(len(parts) + 1), word(rng))
    if rng.random() < 0.6:
        parts[rng.randrange(len(parts))] += rng.choice([str(rng.randint(1, 99)), f"{rng.randint(0, 999):03d}", "c1"])
    if rng.random() < 0.4:
        parts.append(rng.choice([f"{rng.randint(0, 99):02d}", f"{rng.randint(1, 2999)}", f"c{rng.randint(1, 1999)}"]))
    return rng.choice(["-", "-", "-", ""]).join(parts)[:63]


def operations(rng: random.Random) -> str:
    labels = [infra(rng) for _ in range(rng.choice([1, 1, 1, 2, 2, 3]))]
    zone = rng.choice([site(rng), f"{rng.choice(AZURE)}.cloudapp.azure.com", rng.choice(V["internal"])])
    return ".".join([*labels, zone])


def identifier(rng: random.Random) -> str:
    """A host with a short key in it: a customer, a device, a build."""
    key = token(rng, rng.choice([HEX, ALNUM]), rng.randint(6, 12))
    first = rng.choice([key, f"{word(rng)}-{key}", f"{key}-{word(rng)}"])
    return f"{first}.{rng.choice(['', host(rng) + '.'])}{site(rng)}"


def apex(rng: random.Random) -> str:
    return site(rng)


def one_host(rng: random.Random) -> str:
    return f"{host(rng)}.{site(rng)}"


def two_hosts(rng: random.Random) -> str:
    return f"{host(rng)}.{host(rng)}.{site(rng)}"


def numbered(rng: random.Random) -> str:
    kind = rng.choice(["img", "srv", "cdn", "node", "web", "shard", "s", "p", "edge-mqtt", "valve", "cache", "mta"])
    return f"{kind}{rng.choice(['', '-'])}{rng.randint(1, 9999)}.{site(rng)}"


def deep(rng: random.Random) -> str:
    parts = [host(rng) for _ in range(rng.randint(3, 5))]
    return ".".join([*parts, site(rng)])


def geo(rng: random.Random) -> str:
    place = f"{rng.choice(['ams', 'fra', 'lhr', 'nyc', 'sjc', 'sin', 'nrt', 'cdg', 'iad', 'dfw'])}{rng.randint(1, 30)}"
    return f"{rng.choice(V['hosts'])}-{place}.{rng.choice(['', host(rng) + '.'])}{site(rng)}"


def cdn(rng: random.Random) -> str:
    kinds: list[Callable[[], str]] = [
        lambda: f"d{token(rng, ALNUM, 13)}.cloudfront.net",
        lambda: f"e{rng.randint(100, 99999)}.{rng.choice(['dscb', 'dsca', 'dscd', 'b', 'g', 'x'])}.akamaiedge.net",
        lambda: f"a{rng.randint(100, 2999)}.{rng.choice(['w10', 'dscb', 'g', 'b'])}.akamai.net",
        lambda: f"r{rng.randint(1, 8)}---sn-{token(rng, 'abcdefghijklmnopqrstuvwxyz2345678', 8)}.googlevideo.com",
        lambda: f"{word(rng)}.map.fastly.net",
        lambda: f"{word(rng)}{word(rng)}.azureedge.net",
        lambda: f"{host(rng)}.{registered(rng)}.{rng.choice(V['tlds'])}.edgekey.net",
        lambda: f"{host(rng)}.{registered(rng)}.com.cdn.cloudflare.net",
        lambda: (
            f"scontent-{rng.choice(['fra', 'ams', 'lhr', 'sin'])}{rng.randint(1, 9)}-{rng.randint(1, 3)}.xx.fbcdn.net"
        ),
        lambda: f"{token(rng, ALNUM, 8)}.{site(rng)}",
    ]
    return rng.choice(kinds)()


def cloud(rng: random.Random) -> str:
    octets = "-".join(str(rng.randint(1, 254)) for _ in range(4))
    region = rng.choice(REGIONS)
    kinds: list[Callable[[], str]] = [
        lambda: f"ec2-{octets}.{region}.compute.amazonaws.com",
        lambda: f"{word(rng)}-{word(rng)}-{rng.randint(10**8, 2 * 10**9)}.{region}.elb.amazonaws.com",
        lambda: f"{word(rng)}-{word(rng)}.s3.{region}.amazonaws.com",
        lambda: f"{word(rng)}-{rng.choice(['prod', 'dev', 'web'])}.{rng.choice(AZURE)}.cloudapp.azure.com",
        lambda: f"{word(rng)}{rng.choice(['prod', 'data', 'logs'])}.blob.core.windows.net",
        lambda: f"{word(rng)}-{word(rng)}.herokuapp.com",
        lambda: f"{word(rng)}-{word(rng)}-{token(rng, ALNUM, 6)}.vercel.app",
        lambda: f"{octets.replace('-', '.')}.bc.googleusercontent.com",
        lambda: f"ip-{octets}.{region}.compute.internal",
    ]
    return rng.choice(kinds)()


def service(rng: random.Random) -> str:
    zone = rng.choice([rng.choice(V["internal"]), site(rng)])
    label = rng.choice([*SERVICES, f"{rng.choice(['google', 'selector1', 'k1', 's1', 'default'])}._domainkey"])
    return f"{label}.{zone}"


def local(rng: random.Random) -> str:
    name = rng.choice([host(rng), f"{word(rng)}-pc", f"desktop-{token(rng, ALNUM, 7)}", f"laptop-{word(rng)}"])
    return f"{name}.{rng.choice(V['internal'])}"


def search_path(rng: random.Random) -> str:
    return f"{one_host(rng)}.{rng.choice(V['internal'])}"


def reverse(rng: random.Random) -> str:
    return ".".join(str(rng.randint(0, 255)) for _ in range(4)) + ".in-addr.arpa"


def telemetry(rng: random.Random) -> str:
    kinds: list[Callable[[], str]] = [
        lambda: f"v{rng.randint(5, 20)}.events.data.microsoft.com",
        lambda: f"{word(rng)}{rng.randint(100, 999)}.prod.do.dsp.mp.microsoft.com",
        lambda: f"settings-win.data.{site(rng)}",
        lambda: f"{token(rng, ALNUM, 5)}.metrics.{site(rng)}",
        lambda: f"{rng.choice('abcdefgh')}.{rng.choice(V['hosts'])}.{site(rng)}",
    ]
    return rng.choice(kinds)()


KINDS: tuple[tuple[float, Callable[[random.Random], str]], ...] = (
    (24, apex),
    (38, one_host),
    (8, two_hosts),
    (4, numbered),
    (1.5, deep),
    (3, geo),
    (6, cdn),
    (4, cloud),
    (2, service),
    (3, local),
    (1.2, search_path),
    (2, reverse),
    (3, telemetry),
    (5, operations),
    (1, identifier),
)


def dnsbl(rng: random.Random) -> str:
    octets = ".".join(str(rng.randint(0, 255)) for _ in range(4))
    return f"{octets}.{rng.choice(['zen.spamhaus.org', 'bl.spamcop.net', 'dnsbl.sorbs.net'])}"


def reputation(rng: random.Random) -> str:
    digest = token(rng, BASE32, 26)
    return rng.choice(
        [
            f"0.0.0.0.1.0.0.4e.{token(rng, BASE32, 26)}.avqs.mcafee.com",
            f"{digest}.{token(rng, HEX, 8)}.{rng.choice(['a', 'b'])}.00.s.sophosxl.net",
            f"p2.a22.{token(rng, ALNUM, 12)}.{token(rng, ALNUM, 20)}.c.e5.sk",
        ]
    )


def digest_host(rng: random.Random) -> str:
    return f"{token(rng, HEX, 32)}.{rng.choice(['img', 'safeframe', 'clo', 'cache'])}.{site(rng)}"


def reverse6(rng: random.Random) -> str:
    return ".".join("20010db8" + token(rng, HEX, 24)).replace("..", ".")[::-1] + ".ip6.arpa"


def challenge(rng: random.Random) -> str:
    return f"_{token(rng, HEX, 32)}.{token(rng, ALNUM, 10)}.acm-validations.aws"


def token_host(rng: random.Random) -> str:
    return f"{token(rng, HEX, 12)}.{token(rng, HEX, 8)}.{rng.choice(REGIONS)}.token.awswaf.com"


def pod(rng: random.Random) -> str:
    address = "-".join(str(rng.randint(0, 255)) for _ in range(4))
    return f"{address}.{word(rng)}-{word(rng)}-headless.{word(rng)}.svc.cluster.local"


LOOKALIKES: tuple[Callable[[random.Random], str], ...] = (
    dnsbl,
    reputation,
    digest_host,
    reverse6,
    challenge,
    token_host,
    pod,
)


def names(count: int, seed: int) -> list[str]:
    """`count` ordinary names; one in LOOKALIKE_ONE_IN is a look-alike."""
    rng = random.Random(seed)
    weights = [weight for weight, _ in KINDS]
    kinds = rng.choices([function for _, function in KINDS], weights, k=count)
    return [rng.choice(LOOKALIKES)(rng) if rng.random() < 1 / LOOKALIKE_ONE_IN else kind(rng) for kind in kinds]


def lookalikes(count: int, seed: int) -> list[str]:
    """`count` names that look like exfiltration and are none, each kind in equal parts."""
    rng = random.Random(seed)
    return [LOOKALIKES[i % len(LOOKALIKES)](rng) for i in range(count)]
