"""Bytes of names by kind, and which pairs of letters are common in words."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from agents.kernels import features as kernel

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
    """The classes of all 256 bytes, as bits of kernels/features."""
    sets = (DIGITS, HEX, LETTERS, VOWELS, CONSONANTS, HOST_BYTES)
    bits = (kernel.DIGIT, kernel.HEX, kernel.LETTER, kernel.VOWEL, kernel.CONSONANT, kernel.HOST)
    found = [sum(bit for of, bit in zip(sets, bits, strict=True) if byte in of) for byte in range(256)]
    return np.array(found, np.uint8)
