"""What compiled kernels bring: a capture read, and names scored, beside the plain definitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from agents.cli.score import score_rows
from agents.detection.known_services import KnownServices
from agents.detection.limits import Scale
from agents.dns.name import to_text
from agents.scoring import lexical
from agents.scoring.types.forest import raw_scores
from agents.sources.capture.source import PcapSource
from tests.bench.table import Figure, seconds
from tests.support.detecting import shipped_model
from tests.support.make_capture import names, write
from tests.support.plain_capture import PlainSource

BATCH = 1024
NAMES, PLAIN_NAMES, ONE_BY_ONE = 200_000, 10_000, 5_000


def _read(open_capture: Callable[[], PcapSource | PlainSource]) -> float:
    """Packets a second; every query of the capture has an answer."""
    found = 0

    def read() -> None:
        nonlocal found
        found = sum(len(batch) for batch in open_capture().batches(BATCH))

    return 2 / (seconds(read) / found)


def reading(directory: Path) -> Iterator[Figure]:
    """A capture's packets, and the names in it."""
    few, many, ports = directory / "few.pcap", directory / "many.pcap", frozenset({53})
    write(few, PLAIN_NAMES)
    write(many, NAMES)
    _read(lambda: PcapSource(few, ports))
    plain = _read(lambda: PlainSource(few, ports))
    yield Figure("packets read and joined", _read(lambda: PcapSource(many, ports)), "/s", plain, "the plain reader")
    model, distinct = shipped_model(), names(NAMES)
    batches = [list(islice(distinct, BATCH)) for _ in range(NAMES // BATCH)]
    first = lexical.read_names(batches[0], model, (1, 2))
    took = seconds(lambda: [lexical.read_names(batch, model, (1, 2)) for batch in batches])
    rows = seconds(lambda: raw_scores(model.arrays, first.features, 256))
    rate = len(batches) * BATCH / took
    yield Figure("names read: features, score, labels, keys", rate, "/s", BATCH / rows, "the forest alone in NumPy")
    texts = [to_text(name) for name in islice(names(ONE_BY_ONE, seed=2), ONE_BY_ONE)]
    scale, services = Scale(), KnownServices()
    list(score_rows(model, scale, services, texts, "A"))  # warm: each table is made on first use
    one = seconds(lambda: [list(score_rows(model, scale, services, [text], "A")) for text in texts]) / ONE_BY_ONE
    alone = seconds(lambda: raw_scores(model.arrays, first.features[:1], 256))
    yield Figure("one name through score", one * 1e6, "µs", alone * 1e6, "the forest alone in NumPy")
