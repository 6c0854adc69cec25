"""Places in a network of a test's own: a hub, and others that a line joins with it, which can be cut or narrow."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

HUB = "198.18.0.1"
"""The hub's address in all places (RFC 2544: such addresses are for tests)."""
_NEWNET = 0x40000000
_HERE = "/proc/thread-self/ns/net"
_LIBC = ctypes.CDLL(None, use_errno=True)


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)


@contextlib.contextmanager
def _new_network() -> Iterator[int]:
    """A network namespace that this thread is in while the block lasts; its file, which stays open."""
    before = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.unshare(_NEWNET):
            pytest.skip("this system makes no network namespaces")
        try:
            _run("ip link set lo up")
            yield os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            _enter(before)
    finally:
        os.close(before)


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter a network namespace")


@contextlib.contextmanager
def hub() -> Iterator[None]:
    """The block, and what it starts, is in a network of its own, where HUB is. Skips without the right to it."""
    if os.geteuid() != 0 or any(shutil.which(tool) is None for tool in ("ip", "tc", "iptables")):
        pytest.skip("only root can make a network, with the tools ip, tc and iptables")
    with _new_network() as namespace:
        try:
            _run(f"ip addr add {HUB}/32 dev lo")
            yield
        finally:
            os.close(namespace)


class Place:
    """A place that a line joins with the hub, in which it is made. It goes when nothing runs there any more."""

    def __init__(self, number: int) -> None:
        self._line = f"line{number}"
        with _new_network() as self._namespace:
            pass
        _run(f"ip link add {self._line} type veth peer name line netns /proc/{os.getpid()}/fd/{self._namespace}")
        _run(f"ip addr add 198.18.{number}.1/24 dev {self._line}")
        _run(f"ip link set {self._line} up")
        with self.here():
            _run(f"ip addr add 198.18.{number}.2/24 dev line")
            _run("ip link set line up")
            _run(f"ip route add default via 198.18.{number}.1")

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """The block is in this place: sockets that it opens, and processes that it starts, stay here."""
        before = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self._namespace)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(before)

    def cut(self) -> None:
        """Nothing comes through, and nobody hears of it."""
        _run(f"iptables -A INPUT -i {self._line} -j DROP")
        _run(f"iptables -A OUTPUT -o {self._line} -j DROP")

    def mend(self) -> None:
        """As before `cut`."""
        _run(f"iptables -D INPUT -i {self._line} -j DROP")
        _run(f"iptables -D OUTPUT -o {self._line} -j DROP")

    def narrow(self, kbit: int) -> None:
        """So little comes in a second, and what is too much waits for up to a second."""
        _run(f"tc qdisc add dev {self._line} root tbf rate {kbit}kbit burst 10kb latency 1s")

    def widen(self) -> None:
        """As before `narrow`."""
        _run(f"tc qdisc del dev {self._line} root")

    def close(self) -> None:
        """Leave it."""
        os.close(self._namespace)
