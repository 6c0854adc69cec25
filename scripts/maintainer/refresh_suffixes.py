#!/usr/bin/env python3
"""Write agents/dns/baseline/public_suffix_list.dat anew: the list's rules without its comments, and its date.

    python scripts/maintainer/refresh_suffixes.py [public_suffix_list.dat]            (make suffixes)

Without a file it takes the list that the pinned package publicsuffixlist carries; `make lock` brings a newer one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

TARGET = Path(__file__).resolve().parents[2] / "agents" / "dns" / "baseline" / "public_suffix_list.dat"
KEPT = ("// Please pull", "// rather than any other", "// VERSION:", "// COMMIT:", "// ===BEGIN", "// ===END")
"""Comments that say where the list comes from, which one it is, and which of its parts a rule belongs to."""
RULES_MIN = 5000
"""A list of fewer rules is no whole list; there were some 10,000 in 2026."""


def stripped(text: str) -> Iterator[str]:
    """The licence at the list's head, the comments of KEPT, and the rules."""
    lines = text.splitlines()
    head = next((at for at, line in enumerate(lines) if not line.startswith("//")), len(lines))
    yield from (line for line in lines[:head] if line)
    yield from (line for line in lines[head:] if line.startswith(KEPT) or (line and not line.startswith("//")))


def main(arguments: list[str]) -> int:
    packaged = resources.files("publicsuffixlist").joinpath("public_suffix_list.dat") if not arguments else None
    text = packaged.read_text("utf-8") if packaged else Path(arguments[0]).read_text("utf-8")
    lines = list(stripped(text))
    rules = sum(not line.startswith("//") for line in lines)
    if rules < RULES_MIN:
        print(f"cannot use this list: it has {rules} rules, fewer than {RULES_MIN}", file=sys.stderr)
        return 1
    TARGET.write_text("\n".join(lines) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
