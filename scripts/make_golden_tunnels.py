"""Cuts the golden tunnel sessions out of captures: the queries below one zone, the first ROWS of each file.

    python scripts/make_golden_tunnels.py ZONE CAPTURE…        writes agents/baseline/golden_tunnels.tsv.gz

Use captures of your own only: what is written here is shipped.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agents.dns.name import from_text, labels_of, to_text
from agents.sources import open_source
from scripts.make_baseline import write

ROWS = 90


def rows_of(path: Path, zone: tuple[bytes, ...]) -> list[str]:
    """Table rows of the first queries below the zone."""
    found: list[str] = []
    for batch in open_source([path], options={"replay_ports": "53,5300"}).batches(1024):
        for i, qname in enumerate(batch.qname):
            if labels_of(qname.lower())[-len(zone) :] == zone and len(found) < ROWS:
                name = path.name.split(".")[0]
                found.append(f"{name}\t{batch.ts[i]:.6f}\t{batch.client[i]}\t{batch.qtype[i]}\t{to_text(qname)}")
    return found


def main(arguments: list[str]) -> None:
    zone = labels_of(from_text(arguments[0]))
    rows = [row for path in sorted(map(Path, arguments[1:])) for row in rows_of(path, zone)]
    target = Path(__file__).resolve().parent.parent / "agents" / "baseline" / "golden_tunnels.tsv.gz"
    write(target, ["session\tts\tclient\tqtype\tqname", *rows])


if __name__ == "__main__":
    main(sys.argv[1:])
