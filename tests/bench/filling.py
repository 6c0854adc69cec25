"""The detector alone, over as many queries, names, domains, clients and days as one likes; prints JSON.

python -m tests.bench.filling [--queries N] [--names N] [--domains N] [--clients N] [--days D] [--keys N]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Iterable

import numpy as np

from agents.core.columns import Coded, packed
from agents.core.types import QueryBatch
from agents.detection.limits import Scale
from tests.bench.processes import pss_mb
from tests.support.detecting import START, bytes_held, fresh_detector, shipped_model

BATCH = 1024


def ordinary(numbers: Iterable[int], domains: int) -> list[bytes]:
    """Wire names by number: hosts with words and numbers below so many domains."""
    parts = [(b"www-%d" % (number // domains), b"site-%d" % (number % domains)) for number in numbers]
    return [b"%c%b%c%b\3com" % (len(host), host, len(zone), zone) for host, zone in parts]


def batch(numbers: list[int], ts: list[float], domains: int, clients: int) -> QueryBatch:
    """Query i asks for name numbers[i], which belongs to one domain and has an address; clients take turns over the
    domains."""
    qnames = ordinary(numbers, domains)
    count = len(numbers)
    codes = np.array([number % domains % clients for number in numbers], np.int32)
    values = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(clients)]
    answers = np.full(count, 60, np.int64)
    return QueryBatch(
        ts=np.array(ts), client=Coded(codes, values), qname=packed(qnames), qtype=np.ones(count, np.uint16),
        qlen=answers.astype(np.int32), rcode=np.zeros(count, np.int16), ancount=np.ones(count, np.int32),
        rlen=answers.astype(np.int32), ttl_min=answers, rtt_ms=np.ones(count, np.float32),
        ans_types=Coded(np.zeros(count, np.int32), ["A"]),
        ans_hash=np.array(numbers, np.uint64) + np.uint64(1), ans_bytes=np.full(count, 4, np.int32),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("queries", 300_000), ("names", 100_000), ("domains", 10_000), ("clients", 500)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--days", type=float, default=0.1)
    asked = parser.parse_args()
    detector = fresh_detector(shipped_model(), Scale(), keys_max=asked.keys)
    detector.detect(batch([0], [START], 1, 1))
    gc.collect()
    before, used = pss_mb(os.getpid()), 0.0
    every = asked.days * 86_400 / asked.queries
    for first in range(0, asked.queries, BATCH):
        numbers = [at % asked.names for at in range(first, min(first + BATCH, asked.queries))]
        made = batch(
            numbers, [START + every * (first + at) for at in range(len(numbers))], asked.domains, asked.clients
        )
        begun = time.process_time()
        detector.detect(made)
        used += time.process_time() - begun
    found = {
        "us": used / asked.queries * 1e6,
        "flows": len(detector.flows),
        "held_mb": bytes_held(detector.flows) / 1e6,
        "grown_mb": pss_mb(os.getpid()) - before,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
