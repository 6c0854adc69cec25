"""Signals that are waited for, and what a fork inherits of them."""

from __future__ import annotations

import os
import signal
import time

from agents.runtime.signals import Signals
from tests.support.patience import patient

KINDS = (signal.SIGUSR1, signal.SIGUSR2)


def test_signals_wait_until_they_are_taken_and_are_as_before_afterwards() -> None:
    before = [signal.getsignal(kind) for kind in KINDS]
    with Signals(KINDS) as signals:
        assert signals.wait(0) is None
        for kind in (signal.SIGUSR2, signal.SIGUSR1):
            os.kill(os.getpid(), kind)
        assert [signals.wait(patient(10)), signals.wait(patient(10)), signals.wait(0)] == [
            signal.SIGUSR2,
            signal.SIGUSR1,
            None,
        ]
    assert [signal.getsignal(kind) for kind in KINDS] == before


def test_a_wait_ends_when_a_signal_comes() -> None:
    with Signals([signal.SIGALRM]) as signals:
        begun = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert signals.wait(patient(30)) == signal.SIGALRM
        assert time.monotonic() - begun < patient(10)


def test_what_is_held_comes_afterwards() -> None:
    with Signals(KINDS) as signals:
        with signals.held():
            signal.raise_signal(signal.SIGUSR1)  # to this thread: others of this process hold nothing
            assert signals.wait(0) is None
        assert signals.wait(patient(10)) == signal.SIGUSR1
