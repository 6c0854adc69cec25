"""A network of a test's own: two interfaces that are joined, in a namespace that goes with the thread that made it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

_CLONE_NEWNET = 0x40000000
Found = TypeVar("Found")


def in_namespace(work: Callable[[], Found]) -> Found:
    """What `work` returns, run where the interfaces are lo, veth-a and veth-b alone; skips without the right to it."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("only root can make a network namespace, with the tool ip")
    results, errors = list[Found](), list[BaseException]()

    def run() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
                pytest.skip("this system makes no network namespaces")
            for words in (
                "link set lo up",
                "link add veth-a type veth peer name veth-b",
                "link set veth-a addrgenmode none up",  # no neighbours are looked for
                "link set veth-b addrgenmode none up",
                "addr add 198.18.0.1/24 dev veth-a",
            ):
                subprocess.run(["ip", *words.split()], check=True, capture_output=True)
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the test's own thread
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
