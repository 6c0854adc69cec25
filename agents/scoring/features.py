"""Lexical features of a name: one function each, and the FEATURES table that gives them their order.

Each function takes a `View` of one name and returns one finite float. They read lower-case bytes only, since
resolvers randomise case (draft-vixie-dnsext-dns0x20). These functions are the definition, and run when kernels are
not compiled; feature_kernels.py computes the same columns in one walk over the bytes.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from operator import eq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import Names, lowered
from agents.core.jit import COMPILED
from agents.dns.name import NAME_MAX, Splits, split_domain, split_names
from agents.scoring import feature_kernels as kernel

DIGITS = frozenset(b"0123456789")
HEX = frozenset(b"0123456789abcdef")
VOWELS = frozenset(b"aeiouy")
LETTERS = frozenset(range(0x61, 0x7B))
CONSONANTS = LETTERS - VOWELS
HOST_BYTES = LETTERS | DIGITS | frozenset(b"-_")
"""Bytes that ordinary host and service names use (RFC 952, RFC 1123 section 2.1, RFC 2782 for the underscore)."""

COMMON_PAIRS = frozenset(
    pair.encode()
    for pair in (
        "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de "
        "hi ri ro ic ne ea ra ce li ch ll be ma si om ur ca el ta la ns di fo ho pe ec pr no ct us ac ot il tr "
        "ly nc et ut ss so rs un lo wa ge ie wh ee wi em ad ol rt po we na ul ni ts mo ow pa im mi ai sh ir su "
        "id os iv ia am fi ci vi pl ig tu ev ld ry mp fe bl ab gh ty op wo sa ay ex ke ui fr oo ag if ap gr od "
        "bo sp rd do uc bu ei ov by rm ep tt oc fa ef cu rn sc gi da yo cr cl du ga qu ue ff ba ey ls va um pp "
        "ua up lu go ht ru ug ds lt pi rc rr eg au ck ew mu br bi pt ak pu rg ib tl ny ki rk ys ob mm fu ph og "
        "ms ye ud mb ip ub oi rl gu dr hr cc tw ft wn nu af hu nn eo vo rv nf xp gn sm fl iz ok nl my gl aw ju "
        "oa sy sl ps jo lf nv je nk kn gs dy hy ze ks xt bs ik dd rp sk xi oe oy ws lv dl rf eu dg wr xa yi nm "
        "eb rb tm xc eh tc gy ja hn yp za gg ym sw bj lm cs ii ix xe oh lk lp ax ox uf dm iu sf bt ka yt ek pm "
        "ya gt wl rh yl hs ah yc yb rw hm lw hl ae zi az lc py aj iq nj bb nh uo kl lr tn gm sn nr fy mn dw sb "
        "yr dn sq zo oj yd lb wt lg ko np sr nq ky ln nw tf fs cq dh sd vy dj hw xu ao ml uk uy ej ez hb nz nb "
        "mc tp xh ux tz bv mf wd"
    ).split()
)
"""Pairs of letters that are common in words of European languages; random text hits few of them."""
LETTER_PAIRS = frozenset((a, b) for a in LETTERS for b in LETTERS)
RARE_PAIRS = LETTER_PAIRS - {(pair[0], pair[1]) for pair in COMMON_PAIRS}
LETTER_AND_DIGIT = frozenset(
    (a, b) for a in LETTERS | DIGITS for b in LETTERS | DIGITS if (a in DIGITS) != (b in DIGITS)
)
DIGIT_BYTES, HEX_BYTES, LETTER_BYTES, VOWEL_BYTES, HOST = map(bytes, (DIGITS, HEX, LETTERS, VOWELS, HOST_BYTES))
HEX_RUNS, DIGIT_RUNS, CONSONANT_RUNS = (re.compile(b"[%s]+" % bytes(sorted(of))) for of in (HEX, DIGITS, CONSONANTS))
REPEAT_RUNS = re.compile(rb"(.)\1+", re.DOTALL)


def classes() -> NDArray[np.uint8]:
    """The classes of all 256 bytes, as bits of feature_kernels."""
    sets = (DIGITS, HEX, LETTERS, VOWELS, CONSONANTS, HOST_BYTES)
    bits = (kernel.DIGIT, kernel.HEX, kernel.LETTER, kernel.VOWEL, kernel.CONSONANT, kernel.HOST)
    found = [sum(bit for of, bit in zip(sets, bits, strict=True) if byte in of) for byte in range(256)]
    return np.array(found, np.uint8)


@dataclass(frozen=True, slots=True)
class View:
    """One name, taken apart once: raw lower-case labels and the texts that most features need."""

    subdomain: tuple[bytes, ...]
    domain: tuple[bytes, ...]
    text: bytes  # subdomain labels joined without dots
    longest: bytes  # the longest subdomain label, the first of equally long ones
    dotted: bytes  # subdomain labels joined with dots, "www" left out


def view_of(wire: bytes) -> View:
    """Take a wire name apart. Raises NameFormatError."""
    subdomain, domain = split_domain(wire)
    longest = max(subdomain, key=len) if subdomain else b""
    dotted = b".".join([label for label in subdomain if label != b"www"])
    return View(subdomain, domain, b"".join(subdomain), longest, dotted)


@lru_cache(maxsize=256)
def _terms(size: int) -> tuple[float, ...]:
    return 0.0, *(n / size * math.log2(n / size) for n in range(1, size + 1))


@lru_cache(maxsize=16)
def entropy(text: bytes) -> float:
    """Shannon entropy of the byte distribution, bits per byte (Shannon 1948); 0 for the empty text."""
    size = len(text)
    if size < 2:
        return 0.0
    return -sum(map(_terms(size).__getitem__, map(text.count, dict.fromkeys(text))))


def _count(text: bytes, of: bytes) -> int:
    return len(text) - len(text.translate(None, of))


def _longest(text: bytes, runs: re.Pattern[bytes]) -> int:
    return max(map(len, runs.findall(text)), default=0)


def _pairs(text: bytes, of: frozenset[tuple[int, int]]) -> int:
    return sum(map(of.__contains__, pairwise(text)))


def _repeats(text: bytes) -> int:
    return sum(map(eq, text, text[1:]))


def _longest_repeat(label: bytes) -> int:
    return max([run.end() - run.start() for run in REPEAT_RUNS.finditer(label)], default=1)


def name_length(view: View) -> float:
    """Length of the whole name with its dots, the final dot included (the wire form without the root byte)."""
    return sum(map(len, view.subdomain)) + sum(map(len, view.domain)) + len(view.subdomain) + len(view.domain)


def subdomain_length(view: View) -> float:
    """Bytes left of the registered domain, dots not counted: the room for data."""
    return len(view.text)


def subdomain_labels(view: View) -> float:
    """Labels left of the registered domain."""
    return len(view.subdomain)


def longest_label(view: View) -> float:
    """Length of the longest subdomain label."""
    return len(view.longest)


def repeats(view: View) -> float:
    """Bytes of the subdomain's labels that equal the byte before, "www" not counted."""
    return sum([_repeats(label) for label in view.subdomain if label != b"www"])


def full_labels(view: View) -> float:
    """Subdomain labels of more than 40 bytes: encoders fill labels, people do not."""
    return sum(len(label) > 40 for label in view.subdomain)


def text_entropy(view: View) -> float:
    """Entropy of the subdomain's bytes."""
    return entropy(view.text)


def longest_label_entropy(view: View) -> float:
    """Entropy of the longest label's bytes."""
    return entropy(view.longest)


def information(view: View) -> float:
    """Length times entropy of the subdomain: an upper estimate of the bytes that the name can carry."""
    return len(view.text) * entropy(view.text) / 8


def distinct_bytes(view: View) -> float:
    """Different bytes in the subdomain."""
    return len(set(view.text))


def digit_share(view: View) -> float:
    """Share of decimal digits in the subdomain."""
    return _count(view.text, DIGIT_BYTES) / max(len(view.text), 1)


def hex_share(view: View) -> float:
    """Share of hexadecimal digits in the longest label."""
    return _count(view.longest, HEX_BYTES) / max(len(view.longest), 1)


def longest_hex_run(view: View) -> float:
    """Longest run of hexadecimal digits in a label."""
    return _longest(view.dotted, HEX_RUNS)


def longest_digit_run(view: View) -> float:
    """Longest run of decimal digits in a label."""
    return _longest(view.dotted, DIGIT_RUNS)


def vowel_share(view: View) -> float:
    """Share of vowels among the letters; 0.4, as in words, if there are fewer than four letters."""
    found = _count(view.text, LETTER_BYTES)
    return _count(view.text, VOWEL_BYTES) / found if found >= 4 else 0.4


def longest_consonant_run(view: View) -> float:
    """Longest run of consonants in a label, "www" not counted."""
    return _longest(view.dotted, CONSONANT_RUNS)


def alternations(view: View) -> float:
    """Changes between letter and digit inside labels: high in hex and base32, low in words and counters."""
    return _pairs(view.dotted, LETTER_AND_DIGIT)


def repeat_share(view: View) -> float:
    """Share of bytes in the longest label that equal the byte before, "www" not counted."""
    if len(view.longest) < 4:
        return 0.0
    return _repeats(view.longest) / (len(view.longest) - 1)


def longest_repeat(view: View) -> float:
    """Longest run of one byte in a label, "www" not counted."""
    return max([_longest_repeat(label) for label in view.subdomain if label != b"www"], default=0)


def rare_pairs(view: View) -> float:
    """Letter pairs of the subdomain that are not common in words."""
    return _pairs(view.dotted, RARE_PAIRS)


def rare_pair_share(view: View) -> float:
    """Share of rare letter pairs in the longest label; 0 if it has fewer than four pairs."""
    pairs = _pairs(view.longest, LETTER_PAIRS)
    return _pairs(view.longest, RARE_PAIRS) / pairs if pairs >= 4 else 0.0


def hyphens(view: View) -> float:
    """Hyphens and underscores in the subdomain."""
    return view.text.count(b"-") + view.text.count(b"_")


def strange_bytes(view: View) -> float:
    """Bytes that host and service names do not use: base64's plus and slash, control bytes, bytes above 126."""
    return len(view.text.translate(None, HOST))


def domain_length(view: View) -> float:
    """Length of the registered label (the leftmost label of the registered domain)."""
    return len(view.domain[0]) if view.domain else 0.0


def distinct_share(view: View) -> float:
    """Different bytes per byte of the longest label; 0.7, as in words, if it has fewer than eight bytes."""
    return len(set(view.longest)) / len(view.longest) if len(view.longest) >= 8 else 0.7


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the feature matrix."""

    name: str
    unit: str
    function: Callable[[View], float]


FEATURES: tuple[Feature, ...] = tuple(
    Feature(function.__name__, unit, function)
    for function, unit in (
        (name_length, "bytes"),
        (subdomain_length, "bytes"),
        (subdomain_labels, "labels"),
        (longest_label, "bytes"),
        (repeats, "bytes"),
        (full_labels, "labels"),
        (text_entropy, "bits per byte"),
        (longest_label_entropy, "bits per byte"),
        (information, "bytes"),
        (distinct_bytes, "bytes"),
        (digit_share, "share"),
        (hex_share, "share"),
        (longest_hex_run, "bytes"),
        (longest_digit_run, "bytes"),
        (vowel_share, "share"),
        (longest_consonant_run, "bytes"),
        (alternations, "changes"),
        (repeat_share, "share"),
        (longest_repeat, "bytes"),
        (rare_pairs, "pairs"),
        (rare_pair_share, "share"),
        (hyphens, "bytes"),
        (strange_bytes, "bytes"),
        (domain_length, "bytes"),
        (distinct_share, "share"),
    )
)

VERSION = 1
"""Version of the features' definitions. It goes up with every change of a feature's value, also under the same name.
Models and stored rows of another version are not used. A test pins the values of each version."""


def schema_of(version: int, names: Sequence[str]) -> str:
    """Identity of a feature matrix. Version 1 is the hash of the names alone, as the first release wrote it."""
    text = ",".join(names)
    return hashlib.sha256((text if version == 1 else f"{version}|{text}").encode()).hexdigest()[:16]


SCHEMA = schema_of(VERSION, [feature.name for feature in FEATURES])
"""Identity of our feature matrix: a model made for another order, set or version is refused at load."""

_ROW = struct.Struct(f"={len(FEATURES)}f")


@lru_cache(maxsize=65536)
def _row(wire: bytes) -> bytes:
    view = view_of(wire)
    return _ROW.pack(*[feature.function(view) for feature in FEATURES])


class _Tables(NamedTuple):
    """The tables that feature_kernels.feature_rows looks up."""

    classes: NDArray[np.uint8]
    rare: NDArray[np.uint8]
    terms: NDArray[np.float64]


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    terms = np.zeros((NAME_MAX + 1, NAME_MAX + 1))
    for size in range(1, NAME_MAX + 1):
        terms[size, : size + 1] = _terms(size)
    rare = [pair in RARE_PAIRS for pair in sorted(LETTER_PAIRS)]
    return _Tables(classes(), np.array(rare, np.uint8), terms)


def extract(qnames: Sequence[bytes]) -> NDArray[np.float32]:
    """Feature matrix of wire names, shape (n, len(FEATURES)). Raises NameFormatError."""
    names = lowered(qnames)
    return features_of(names, split_names(names))


def features_of(names: Names, splits: Splits) -> NDArray[np.float32]:
    """Like extract, for n lower-case names whose registered domains are known."""
    if not COMPILED:  # rows of recent names come from a cache
        plain = b"".join(map(_row, names))
        return np.frombuffer(plain, dtype=np.float32).reshape(len(names), len(FEATURES))
    found = np.empty((len(names), len(FEATURES)), np.float32)
    kernel.feature_rows(names.array, names.starts, *splits, *_tables(), found)
    return found
