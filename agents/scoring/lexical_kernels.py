"""Lexical values in one walk over the bytes of names: costs of labels, identities, numbered hosts, possible secrets.

A name is a numbered host if each label splits, at hyphens and underscores, into letters with digits after them, or
digits alone: `ip-10-0-3-17`, `node0042.rack7`, `p1234.dip`. Such a name differs from others of its shape only in its
numbers, and carries only those digits. Longer runs of digits are an id, and letters after digits (`4f8a`) are an
encoding. detection.counting.flow_kernels.price computes the cost of a name whose shape its flow has used before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import BEGIN, Key, find_key, mixed, siphash
from agents.core.columns import Names
from agents.core.jit import kernel, kernel_that_wraps
from agents.dns.name import Splits
from agents.scoring.access_tokens import BOT_LABELS, MARKED, REST_MIN, SIGNS


class CostTables(NamedTuple):
    """The tables that `_costs` looks up, in the order of its arguments."""

    words: NDArray[np.uint8]
    word_starts: NDArray[np.int64]
    slots: NDArray[np.int32]
    word_bits: NDArray[np.float64]
    symbols: NDArray[np.uint8]
    trigrams: NDArray[np.float32]
    members: NDArray[np.uint8]
    byte_bits: NDArray[np.float64]
    margin: float
    short: int


class Costs(NamedTuple):
    """The information in the p subdomain labels of n names."""

    part_bits: NDArray[np.float64]  # (p,): bits of a label
    part_encoded: NDArray[np.uint8]  # (p,): 1 = a label reads as encoded
    encoded_bits: NDArray[np.float64]  # (n,): bits in the encoded labels of a name


@kernel
def _modelled(data: Any, start: Any, end: Any, symbols: Any, trigrams: Any, edge: Any) -> Any:
    """Bits of data[start:end] in the trigram code."""
    total, before, last = 0.0, np.int64(edge), np.int64(edge)
    for at in range(start, end):
        this = np.int64(symbols[data[at]])
        total += trigrams[before, last, this]
        before, last = last, this
    return total + trigrams[before, last, edge]


@kernel
def _spelled(data: Any, start: Any, end: Any, members: Any, byte_bits: Any) -> Any:
    """Bits of data[start:end] in the smallest alphabet that holds it."""
    fits = np.int64(-1)
    for at in range(start, end):
        fits &= np.int64(members[data[at]])
    alphabet = 0
    while not fits >> alphabet & 1:
        alphabet += 1
    return (end - start) * byte_bits[alphabet]


@kernel
def _costs(
    data: Any, starts: Any, part_starts: Any, words: Any, word_starts: Any, slots: Any, word_bits: Any,
    symbols: Any, trigrams: Any, members: Any, byte_bits: Any, margin: Any, short: Any,
    part_bits: Any, part_encoded: Any, encoded_bits: Any,
) -> None:  # fmt: skip
    """Price the p subdomain labels of n packed lower-case names (data u8, starts i64[n + 1]).

    words: the dictionary's labels, a look-up table, with their bits f64; symbols u8[256]: bytes as symbols of the
    trigram code; trigrams f32 (s, s, s): bits, the last symbol is the edge; members u8[256]: bit k is set if alphabet k
    holds the byte, the last alphabet holds every byte; byte_bits f64: bits a byte in each alphabet; margin: bits a byte
    by which the spelling of an encoded label is shorter, where a label counts at least `short` bytes.
    Fills part_bits f64[p], part_encoded u8[p], and encoded_bits f64[n], their sum over a name's encoded labels.
    """
    edge = trigrams.shape[0] - 1
    for name in range(len(starts) - 1):
        at, encoded = starts[name], 0.0
        for part in range(part_starts[name], part_starts[name + 1]):
            start, end = at + 1, at + 1 + np.int64(data[at])
            at = end
            hashed = mixed(np.int64(BEGIN), data, start, end)
            word = find_key(hashed, data, start, end, words, word_starts, slots)
            spelled = _spelled(data, start, end, members, byte_bits)
            if word >= 0:
                part_bits[part], part_encoded[part] = min(word_bits[word], spelled), 0
                continue
            modelled = _modelled(data, start, end, symbols, trigrams, edge)
            part_bits[part] = min(modelled, spelled)
            part_encoded[part] = modelled - spelled >= margin * max(end - start, short)
            if part_encoded[part]:
                encoded += part_bits[part]
        encoded_bits[name] = encoded


def costs_of(names: Names, splits: Splits, tables: CostTables) -> Costs:
    """The cost of every subdomain label of n lower-case names."""
    parts = int(splits.part_starts[-1])
    found = Costs(np.empty(parts), np.empty(parts, np.uint8), np.empty(len(names)))
    _costs(names.array, names.starts, splits.part_starts, *tables, *found)
    return found


RUN_MAX = 4
"""Digits after letters, at most: a host's number. A longer run is an id."""
ALONE_MAX = 3
"""Digits that stand alone, at most: an octet of an address."""
DIGITS_MAX = 15
"""Digits of one name, at most."""
COUNT_AT = 60
"""First bit of the count in packed digits."""
TEXT_ROOM = 256
_HASH, _DOT, _HYPHEN, _UNDERSCORE, _ZERO, _NINE, _A, _Z = b"#.-_09az"


@kernel
def _shape(data: Any, at: Any, end: Any, text: NDArray[np.uint8]) -> tuple[int, Any]:
    """Write the shape of the labels data[at:end] to text; returns (its size, packed digits), 0 digits = no shape."""
    none, digits, count, size = np.uint64(0), np.uint64(0), 0, 1
    text[0] = _HASH
    while at < end:
        stop = at + 1 + np.int64(data[at])
        letters = run = 0  # letters and digits of the token so far
        for place in range(at + 1, stop):
            byte = data[place]
            if _ZERO <= byte <= _NINE:
                run, count = run + 1, count + 1
                if count > DIGITS_MAX or run > (RUN_MAX if letters else ALONE_MAX):
                    return 0, none
                digits = (digits << np.uint64(4)) | np.uint64(byte - _ZERO)
                byte = _ZERO
            elif _A <= byte <= _Z:
                if run:
                    return 0, none
                letters += 1
            elif byte in (_HYPHEN, _UNDERSCORE):
                letters = run = 0
            else:
                return 0, none
            text[size] = byte
            size += 1
        text[size] = _DOT
        size += 1
        at = stop
    return size, digits | (np.uint64(count) << np.uint64(COUNT_AT))


@kernel
def _numbered(data: Any, starts: Any, cuts: Any, low: Any, high: Any, shapes: Any, digits: Any) -> None:
    """Fill shape identities and packed digits, u64[n], of n packed lower-case names; zeros if a name is not numbered.

    cuts i64[n]: offset of the registered domain in each.
    """
    text = np.empty(TEXT_ROOM, np.uint8)
    for name in range(len(starts) - 1):
        size, found = _shape(data, starts[name], starts[name] + cuts[name], text)
        shapes[name], digits[name] = np.uint64(0), np.uint64(0)
        if found >> np.uint64(COUNT_AT):
            shapes[name], digits[name] = siphash(text, 0, size, low, high), found


def numbered_hosts(names: Names, cuts: NDArray[np.int64], key: Key) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Shape identities and packed digits of n lower-case names; zeros if a name is not numbered.

    Packed digits: four bits a digit, and their count from bit COUNT_AT on. cuts: offset of the registered domain in
    each name.
    """
    shapes, digits = np.zeros(len(names), np.uint64), np.zeros(len(names), np.uint64)
    _numbered(names.array, names.starts, cuts, np.uint64(key[0]), np.uint64(key[1]), shapes, digits)
    return shapes, digits


FORM_FACTOR, FORM_STEP = np.uint64(6364136223846793005), np.uint64(1442695040888963407)
"""A linear congruential generator modulo 2**64 (Knuth, MMIX; The Art of Computer Programming 2, section 3.3.4)."""
LABEL_ROOM = 64
"""A dot and the longest label."""
_LABEL_DOT = np.uint8(0x2E)


@kernel
def _identities(
    data: Any, starts: Any, part_starts: Any, cuts: Any, low: Any, high: Any, parts: Any, names: Any, domains: Any
) -> None:
    """Fill the identities (u64) of p subdomain labels of n packed lower-case names, of the names and of their domains.

    The identity of a name or a domain is the hash of its wire form without the root byte; that of a label is the hash
    of "." and the label.
    cuts i64[n] and part_starts i64[n + 1] are those of dns.name.Splits.
    """
    label = np.empty(LABEL_ROOM, np.uint8)
    label[0] = _LABEL_DOT
    for name in range(len(starts) - 1):
        at, end = starts[name], starts[name + 1]
        names[name] = siphash(data, at, end, low, high)
        domains[name] = siphash(data, at + cuts[name], end, low, high)
        for part in range(part_starts[name], part_starts[name + 1]):
            size = np.int64(data[at])
            for i in range(1, size + 1):
                label[i] = data[at + i]
            parts[part] = siphash(label, 0, size + 1, low, high)
            at += size + 1


def identities(
    names: Names, splits: Splits, key: Key
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Keyed 64-bit identities of p labels, n lower-case names and their n registered domains."""
    parts, whole, domains = (np.empty(size, np.uint64) for size in (splits.part_starts[-1], len(names), len(names)))
    low, high = np.uint64(key[0]), np.uint64(key[1])
    _identities(names.array, names.starts, *splits, low, high, parts, whole, domains)
    return parts, whole, domains


@kernel_that_wraps
def _forms(data: Any, starts: Any, part_starts: Any, forms: Any) -> None:
    for name in range(len(starts) - 1):
        at, form = starts[name], np.uint64(0)
        for _ in range(part_starts[name], part_starts[name + 1]):
            form = (form ^ np.uint64(data[at])) * FORM_FACTOR + FORM_STEP
            at += np.int64(data[at]) + 1
        forms[name] = form


def forms_of(names: Names, splits: Splits) -> NDArray[np.uint64]:
    """The form of n names: a hash of the widths of their subdomain labels, in order; 0 = they have none."""
    forms = np.empty(len(names), np.uint64)
    _forms(names.array, names.starts, splits.part_starts, forms)
    return forms


SECRET_BYTES = 8
"""Decoded text with fewer bytes is too short to count as a secret."""
HEX_DIGITS, BASE32_DIGITS, BASE64_DIGITS = 16, 13, 11
"""Digits that encode SECRET_BYTES bytes (RFC 4648 sections 8, 6 and 4)."""
NO_DIGIT = 255


def _digits(*runs: str) -> NDArray[np.uint8]:
    table = np.full(256, NO_DIGIT, np.uint8)
    for alphabet in runs:
        for value, letter in enumerate(alphabet):
            table[ord(letter)] = value
    return table


_UPPER, _LOWER, _DECIMAL = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789"
HEX = _digits(_DECIMAL + "abcdef", _DECIMAL + "ABCDEF")
BASE32 = _digits(_UPPER + "234567", _LOWER + "234567")
BASE64 = _digits(_UPPER + _LOWER + _DECIMAL + "+/", _UPPER + _LOWER + _DECIMAL + "-_")


_SIGNS = np.array([byte in SIGNS for byte in range(256)])
_MARKED = np.array([int.from_bytes(mark) for mark in MARKED], np.int64)
_MARK_MASKS = np.array([(1 << 8 * len(mark)) - 1 for mark in MARKED], np.int64)
_FOUR_MASK, _THREE_MASK, _TWO_MASK = 0xFFFFFFFF, 0xFFFFFF, 0xFFFF
_EYJ, _SG = int.from_bytes(b"eyj"), int.from_bytes(b"sg")
_UPPER_A, _UPPER_Z = b"AZ"
_BOT_ID, _BOT_STAMP, _BOT_KEY = BOT_LABELS


@kernel
def _place(letters: Any) -> Any:
    """The place of two letters in _MARK_TABLE (multiplicative hashing, Knuth volume 3, section 6.4)."""
    return (letters & _TWO_MASK) * 40_503 >> 6 & 1023


def _mark_table() -> NDArray[np.bool_]:
    """The places of the marks' last two letters: most places of a name end no mark."""
    table = np.zeros(1024, np.bool_)
    for mark in MARKED:
        table[_place(int.from_bytes(mark[-2:]))] = True
    return table


_MARK_TABLE = _mark_table()


@kernel
def _ends_mark(letters: Any) -> bool:
    """Whether the last bytes of a text, the latest lowest, are the first letters of an access token."""
    if not _MARK_TABLE[_place(letters)]:
        return False
    for mark in range(len(_MARKED)):  # noqa: SIM110 - numba has no generators in place
        if letters & _MARK_MASKS[mark] == _MARKED[mark]:
            return True
    return False


@kernel
def _may_be_plain(data: NDArray[np.uint8], at: Any, end: Any) -> bool:
    """Whether labels may hold a secret in plain text: a sign of one, or the first letters of an access token.

    Three labels of 23 to 28, 6, and 27 to 38 bytes are a bot's token (Discord).
    """
    letters, label, before, first = np.int64(0), at, np.int64(0), np.int64(0)
    while label < end:
        size = np.int64(data[label])
        if before == _BOT_STAMP and _BOT_ID[0] <= first <= _BOT_ID[1] and _BOT_KEY[0] <= size <= _BOT_KEY[1]:
            return True
        first, before = before, size
        for i in range(label + 1, label + 1 + size):
            byte = np.int64(data[i])
            if _SIGNS[byte]:
                return True
            letters = letters << 8 & _FOUR_MASK | (byte + 32 if _UPPER_A <= byte <= _UPPER_Z else byte)
            if letters & _THREE_MASK == _EYJ or (end - i > REST_MIN and _ends_mark(letters)):
                return True
        if size == 2 and letters & _TWO_MASK == _SG:
            return True
        label += size + 1
    return False


@kernel
def _is_text(byte: Any) -> bool:
    return bool(0x20 <= byte <= 0x7E or byte == 0x09 or byte == 0x0A or byte == 0x0D)


@kernel
def _begins_as_text(digits: NDArray[np.uint8], count: Any, table: NDArray[np.uint8], bits: int, need: int) -> bool:
    """Whether the first SECRET_BYTES bytes decoded from `need` digits of `bits` bits each are text."""
    if count < need:
        return False
    held, held_bits, found = np.int64(0), 0, 0
    for i in range(need):
        value = np.int64(table[digits[i]])
        if value == NO_DIGIT:
            return False
        held = (held << bits) | value
        held_bits += bits
        if held_bits >= 8:
            held_bits -= 8
            if not _is_text((held >> held_bits) & 0xFF):
                return False
            held &= (1 << held_bits) - 1
            found += 1
            if found == SECRET_BYTES:
                return True
    return True


@kernel
def _may_decode(digits: NDArray[np.uint8], count: int) -> bool:
    return (
        _begins_as_text(digits, count, HEX, 4, HEX_DIGITS)
        or _begins_as_text(digits, count, BASE32, 5, BASE32_DIGITS)
        or _begins_as_text(digits, count, BASE64, 6, BASE64_DIGITS)
    )


@kernel
def _may_hold_secret(data: NDArray[np.uint8], at: Any, end: Any, digits: NDArray[np.uint8]) -> bool:
    """Whether subdomain labels (data[at:end], in the case they were sent) may contain a secret.

    Never False if detection.secrets.secret_in finds one, except for call-back domains. digits: shape (HEX_DIGITS,),
    overwritten.
    """
    if end - at < SECRET_BYTES:
        return False
    if _may_be_plain(data, at, end):
        return True
    joined, label = 0, at
    while label < end:
        size = np.int64(data[label])
        for i in range(label + 1, label + 1 + size):
            if joined < HEX_DIGITS:
                digits[joined] = data[i]
                joined += 1
        label += size + 1
    if _may_decode(digits, joined):
        return True
    label = at + np.int64(data[at]) + 1
    while label < end:
        size = np.int64(data[label])
        if size >= 2 * SECRET_BYTES:
            for i in range(HEX_DIGITS):
                digits[i] = data[label + 1 + i]
            if _may_decode(digits, HEX_DIGITS):
                return True
        label += size + 1
    return False


@kernel
def may_hold_secrets(
    data: NDArray[np.uint8], starts: NDArray[np.int64], cuts: NDArray[np.int64], out: NDArray[np.uint8]
) -> None:
    """_may_hold_secret for n packed names; cuts: offset of the registered domain in its name; out: shape (n,)."""
    digits = np.zeros(HEX_DIGITS, np.uint8)
    for name in range(len(starts) - 1):
        out[name] = _may_hold_secret(data, starts[name], starts[name] + cuts[name], digits)
