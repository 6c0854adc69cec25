"""What each label carries, bits, and whether it reads as encoded. The definition is information.CharModel.cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.kernels import kernel, table


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
def costs(
    data: Any, starts: Any, part_starts: Any, words: Any, word_starts: Any, slots: Any, word_bits: Any,
    symbols: Any, trigrams: Any, members: Any, byte_bits: Any, margin: Any, short: Any,
    part_bits: Any, part_encoded: Any, encoded_bits: Any,
) -> None:  # fmt: skip
    """Price the p subdomain labels of n packed lower-case names (data u8, starts i64[n + 1]).

    words: the dictionary's labels (table.py) with their bits f64; symbols u8[256]: bytes as symbols of the trigram
    code, trigrams f32 (s, s, s) bits, its last symbol the edge; members u8[256]: bit k where alphabet k holds the
    byte, the last alphabet every byte; byte_bits f64: bits a byte in each; margin: bits a byte by which an encoded
    label's spelling is shorter, where fewer bytes than `short` count as so many.
    Fills part_bits f64[p], part_encoded u8[p], and encoded_bits f64[n], their sum over a name's encoded labels.
    """
    edge = trigrams.shape[0] - 1
    for name in range(len(starts) - 1):
        at, encoded = starts[name], 0.0
        for part in range(part_starts[name], part_starts[name + 1]):
            start, end = at + 1, at + 1 + np.int64(data[at])
            at = end
            hashed = table.mixed(np.int64(table.BEGIN), data, start, end)
            word = table.find(hashed, data, start, end, words, word_starts, slots)
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
