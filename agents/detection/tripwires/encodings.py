"""Encodings of a secret as names carry them: for each, all pieces of one length, at every alignment, in lower case.

DNS keeps no case on its way (RFC 4343), so pieces are compared in lower case; dots part labels, so pieces have none.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from agents.detection.tripwires.honeytoken_kernels import WINDOW_MAX

_RFC4648 = b"abcdefghijklmnopqrstuvwxyz234567"
BASE32 = {"base32": _RFC4648, "base32hex": b"0123456789abcdefghijklmnopqrstuv"}
"""RFC 4648 sections 6 and 7."""
BASE32_ALPHABETS = BASE32 | {
    "Crockford's base32": b"0123456789abcdefghjkmnpqrstvwxyz",
    "z-base-32": b"ybndrfg8ejkmcpqxot1uwisza345h769",
    "iodine's base32": b"abcdefghijklmnopqrstuvwxyz012345",
}
"""And crockford.com/base32.html; philzimmermann.com/docs/human-oriented-base-32-encoding.txt;
iodine's source, src/base32.c."""
_BASE58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
"""draft-msporny-base58-03 section 3."""
_BASE58_BYTES = 5.86 / 8
"""Bytes in a digit of base58."""


class _Form(NamedTuple):
    """A text that a secret is encoded as, without characters that hold bits of its neighbours. bits: of a character."""

    code: str
    text: bytes
    bits: float


def _forms(secret: bytes, alphabets: Mapping[str, bytes]) -> Iterator[_Form]:
    yield _Form("plain text", secret, 8)
    if (quoted := quote(secret, safe="").encode()) != secret:
        yield _Form("URL encoding", quoted, 8)
    yield from _binary_forms(secret, alphabets)
    yield _Form("base58", _base58(secret), 8 * _BASE58_BYTES)


def _binary_forms(data: bytes, alphabets: Mapping[str, bytes]) -> Iterator[_Form]:
    """Encodings whose pieces do not depend on what stands before them, but for the alignment. alphabets: of base32."""
    yield _Form("hex", data.hex().encode(), 4)
    for before in range(5):
        text = base64.b32encode(bytes(before) + data).rstrip(b"=").lower()
        inside = text[-(-before * 8 // 5) : (before + len(data)) * 8 // 5]
        for code, alphabet in alphabets.items():
            yield _Form(code, inside.translate(bytes.maketrans(_RFC4648, alphabet)), 5)
    for before in range(3):
        for code, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            text = encode(bytes(before) + data).rstrip(b"=")
            yield _Form(code, text[-(-before * 8 // 6) : (before + len(data)) * 8 // 6], 6)


def _base58(data: bytes) -> bytes:
    number, digits = int.from_bytes(data), bytearray()
    while number:
        number, digit = divmod(number, 58)
        digits.append(_BASE58[digit])
    return bytes(reversed(digits))


def encoded_pieces(secret: bytes, size: int, telling: NDArray[np.bool_]) -> dict[str, set[bytes]]:
    """Pieces by the name of their encoding: what `size` bytes of the secret at any place are encoded as.

    telling: which places of the secret begin a piece that tells it from ordinary names, one for each place of a piece.
    Pieces that two encodings share are the first one's.
    """
    out: defaultdict[str, set[bytes]] = defaultdict(set)
    seen: set[bytes] = set()
    wide = secret.decode("utf-8", "surrogateescape").encode("utf-16-le", "surrogatepass")
    turned = secret[::-1]
    for forms, places, unit, what in (
        (_forms(secret, BASE32_ALPHABETS), telling, 1, ""),
        (_binary_forms(wide, BASE32), telling, 2, " of UTF-16"),
        (_forms(turned, BASE32), telling[::-1], 1, " of the reversed text"),
    ):
        for form in forms:
            for piece in _windows(form, size * unit, np.repeat(places, unit)):
                for text, how in ((piece, form.code + what), (piece[::-1], f"{form.code}{what}, reversed")):
                    if text not in seen:
                        seen.add(text)
                        out[how].add(text)
    return dict(out)


def _windows(form: _Form, size: int, telling: NDArray[np.bool_]) -> Iterator[bytes]:
    """The pieces of a form, each at a place that tells, as near as its characters lie to one."""
    text = form.text.lower().replace(b".", b"")
    length = int(size * 8 / form.bits)
    if length > WINDOW_MAX:
        return
    for at in range(len(text) - length + 1):
        place = round(at * form.bits / 8)
        if telling[min(place, len(telling) - 1)]:
            yield text[at : at + length]
