from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agents.core.types import QueryBatch, Verdicts
from agents.runtime.judging.fanout import LOG_EVERY_S, Fanout
from tests.support.incidents import incident


def verdicts() -> Verdicts:
    empty = QueryBatch(
        ts=np.zeros(0), client=[], qname=[], qtype=np.zeros(0, np.uint16), qlen=np.zeros(0, np.int32),
        rcode=np.zeros(0, np.int16), ancount=np.zeros(0, np.int32), rlen=np.zeros(0, np.int32),
        ttl_min=np.zeros(0, np.int64), rtt_ms=np.zeros(0, np.float32), ans_types=[],
    )  # fmt: skip
    none = np.zeros(0, np.float32)
    return Verdicts(empty, [], none.reshape(0, 1), none, np.zeros(0, np.uint8), [], "m")


class Sink:
    incidents_only = False

    def __init__(self, name: str, broken: bool = False) -> None:
        self.name, self.broken = name, broken
        self.taken = 0
        self.closed = False

    def accept(self, verdicts: Verdicts) -> None:
        if self.broken:
            raise RuntimeError("boom")
        self.taken += 1

    def close(self) -> None:
        if self.broken:
            raise RuntimeError("boom")
        self.closed = True


def test_one_failure_never_reaches_another() -> None:
    first, bad, last = Sink("first"), Sink("bad", broken=True), Sink("last")
    sinks = Fanout([first, bad, last])
    sinks.accept(verdicts())
    failures = sinks.failures
    assert failures == {"bad": 1}
    assert (first.taken, last.taken) == (1, 1)


def test_a_sink_for_incidents_is_given_batches_with_incidents_alone() -> None:
    alerts, store = Sink("alerts"), Sink("store")
    alerts.incidents_only = True
    sinks = Fanout([alerts, store])
    sinks.accept(verdicts())
    sinks.accept(replace(verdicts(), incidents=(incident(),)))
    assert (alerts.taken, store.taken) == (1, 2)


def test_closing_reaches_every_sink() -> None:
    bad, last = Sink("bad", broken=True), Sink("last")
    Fanout([bad, last]).close()
    assert last.closed


def test_failures_are_counted_but_logged_only_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    sinks = Fanout([Sink("bad", broken=True)], clock=lambda: now[0])
    for _ in range(100):
        sinks.accept(verdicts())
    now[0] = LOG_EVERY_S
    sinks.accept(verdicts())
    assert sinks.failures["bad"] == 101
    assert capsys.readouterr().out.count("sink_failed") == 2


def test_what_is_no_error_of_a_sink_passes() -> None:
    class Stopped(Sink):
        def accept(self, verdicts: Verdicts) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Fanout([Stopped("x")]).accept(verdicts())
