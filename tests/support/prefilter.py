"""Which names the kernel passes on to the rules for secrets, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.core.columns import packed
from agents.dns.name import wire_of
from agents.scoring.lexical_kernels import may_hold_secrets

DOMAIN = (b"example", b"com")


def may(subdomain: Sequence[bytes]) -> bool:
    """What the kernel says of these labels."""
    names, out = packed([wire_of([*subdomain, *DOMAIN])]), np.zeros(1, np.uint8)
    may_hold_secrets(names.array, names.starts, np.array([sum(len(label) + 1 for label in subdomain)]), out)
    return bool(out[0])
