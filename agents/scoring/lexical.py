"""Lexical values of a batch of names: features, score, registered domain, bits of labels, identities."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import Key
from agents.core.columns import Names, distinct_rows, lowered, packed
from agents.dns.name import Splits, private_suffix, split_names
from agents.scoring.features import features_of
from agents.scoring.lexical_kernels import costs_of, forms_of, identities, numbered_hosts
from agents.scoring.model import Model


@dataclass(frozen=True, slots=True)
class Lexical:
    """n names with p subdomain labels; the labels of name i are part_starts[i] to part_starts[i + 1]."""

    names: Names  # lower case
    features: NDArray[np.float32]  # (n, len(FEATURES))
    score: NDArray[np.float32]  # (n,): Model.score
    cuts: NDArray[np.int64]  # (n,): offset of the registered domain in the name; without one, the name's length
    part_starts: NDArray[np.int64]  # (n + 1,)
    part_bits: NDArray[np.float64]  # (p,): information of the label
    part_encoded: NDArray[np.uint8]  # (p,): 1 = the label reads as encoded
    part_key: NDArray[np.uint64]  # (p,): hash of "." and the label
    name_key: NDArray[np.uint64]  # (n,): hash of the wire name
    domain_key: NDArray[np.uint64]  # (n,): hash of the registered domain's wire form
    form: NDArray[np.uint64]  # (n,): lexical_kernels.forms_of
    shape_key: NDArray[np.uint64]  # (n,): hash of the shape that numbered names share; 0 = not numbered
    digits: NDArray[np.uint64]  # (n,): packed digits (lexical_kernels.numbered_hosts); 0 = not numbered
    scoring_s: float = 0.0  # seconds that the model took

    def __len__(self) -> int:
        return len(self.names)


def features_again(qnames: Sequence[bytes]) -> NDArray[np.float32]:
    """The features that `read_names` computes, shape (n, len(FEATURES)). Raises NameFormatError."""
    names = lowered(qnames)
    return features_of(names, split_names(names))


def scored(names: Names, model: Model) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and cuts, as in Lexical, of n lower-case names. Raises NameFormatError."""
    splits = split_names(names)
    bits = costs_of(names, splits, model.chars.tables).encoded_bits
    return model.louder(features_of(names, splits), bits), splits.cuts


def read_names(qnames: Sequence[bytes], model: Model, key: Key) -> Lexical:
    """Read wire names; identities are keyed with `key`. Raises NameFormatError."""
    names = lowered(qnames)
    splits = split_names(names)
    features = features_of(names, splits)
    costs = costs_of(names, splits, model.chars.tables)
    part_key, name_key, domain_key = identities(names, splits, key)
    shape_key, digits = numbered_hosts(names, splits.cuts, key)
    begun = time.perf_counter()
    score = _score(model, features, costs.encoded_bits, name_key)
    return Lexical(
        names=names,
        features=features,
        score=score,
        scoring_s=time.perf_counter() - begun,
        cuts=splits.cuts,
        part_starts=splits.part_starts,
        part_bits=costs.part_bits,
        part_encoded=costs.part_encoded,
        part_key=part_key,
        name_key=name_key,
        domain_key=domain_key,
        form=forms_of(names, splits),
        shape_key=shape_key,
        digits=digits,
    )


@dataclass(frozen=True, slots=True)
class Tenants:
    """The labels directly below suffixes whose operator gives names to strangers: t of n names have one.

    Such a label is part of the registered domain, and data all the same: nobody need have registered it.
    """

    rows: NDArray[np.int64]  # (t,): of the names
    domains: Names  # (t,): registered domains
    cuts: NDArray[np.int64]  # (t,): offset of the suffix in the domain
    bits: NDArray[np.float64]  # (t,): information of the label
    encoded: NDArray[np.uint8]  # (t,): 1 = the label reads as encoded
    label_key: NDArray[np.uint64]  # (t,)
    name_key: NDArray[np.uint64]  # (t,): hash of the registered domain
    domain_key: NDArray[np.uint64]  # (t,): hash of the suffix


def read_tenants(found: Lexical, model: Model, key: Key) -> Tenants:
    """Read the labels directly below private suffixes; identities are keyed with `key`."""
    codes, firsts = distinct_rows(found.domain_key)
    starts = found.names.starts
    data = found.names.data
    wires = [
        data[begin:end]
        for begin, end in zip((starts[firsts] + found.cuts[firsts]).tolist(), starts[firsts + 1].tolist(), strict=True)
    ]
    offsets = np.fromiter(map(private_suffix, wires), np.int64, len(wires))
    rows = np.flatnonzero(offsets[codes])
    which = codes[rows]
    domains = packed([wires[code] for code in which.tolist()])
    splits = Splits(np.arange(len(rows) + 1), offsets[which])
    costs = costs_of(domains, splits, model.chars.tables)
    label_key, name_key, domain_key = identities(domains, splits, key)
    return Tenants(rows, domains, splits.cuts, costs.part_bits, costs.part_encoded, label_key, name_key, domain_key)


def _score(
    model: Model, features: NDArray[np.float32], bits: NDArray[np.float64], names: NDArray[np.uint64]
) -> NDArray[np.float32]:
    """model.louder, once for each different name: most names occur many times."""
    codes, rows = distinct_rows(names)
    if len(rows) == len(names):
        return model.louder(features, bits)
    return model.louder(features[rows], bits[rows])[codes]
