"""The C library's calls that move datagrams, for kernels: sendmmsg(2), recvmmsg(2), epoll(7), and their structures.

Linux, 64 bit, little-endian; the layouts are those of the kernel's interface.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from agents.kernels import kernel_in_place

MESSAGE = np.dtype(
    [
        ("name", np.uint64),
        ("name_size", np.uint64),  # socklen_t and its padding
        ("parts", np.uint64),
        ("parts_count", np.uint64),
        ("control", np.uint64),
        ("control_size", np.uint64),
        ("flags", np.uint64),  # int and its padding
        ("size", np.uint64),  # unsigned int and its padding
    ]
)
"""struct mmsghdr of recvmmsg(2)."""
PART = np.dtype([("base", np.uint64), ("size", np.uint64)])
"""struct iovec of readv(2)."""
EVENT = np.dtype([("events", np.uint32), ("data", np.uint64)], align=platform.machine() not in ("x86_64", "AMD64"))
"""struct epoll_event of epoll_ctl(2): packed on x86-64 alone."""

EAGAIN, EINTR, ECONNREFUSED = 11, 4, 111
AF_INET, AF_INET6 = 2, 10
SOCK_DGRAM_NONBLOCK_CLOEXEC = 2 | 0o4000 | 0o2000000
EPOLL_CTL_ADD, EPOLLIN = 1, 1
CLOCK_REALTIME, CLOCK_MONOTONIC = 0, 1


def _call(name: str, result: Any, *arguments: Any) -> Any:
    return types.ExternalFunction(name, result(*arguments))


_int, _size, _pointer = types.int32, types.intp, types.uintp
recvmmsg = _call("recvmmsg", _int, _int, _pointer, types.uint32, _int, _pointer)
sendmmsg = _call("sendmmsg", _int, _int, _pointer, types.uint32, _int)
epoll_wait = _call("epoll_wait", _int, _int, _pointer, _int, _int)
epoll_ctl = _call("epoll_ctl", _int, _int, _int, _int, _pointer)
c_socket = _call("socket", _int, _int, _int, _int)
c_bind = _call("bind", _int, _int, _pointer, types.uint32)
c_connect = _call("connect", _int, _int, _pointer, types.uint32)
c_close = _call("close", _int, _int)
c_write = _call("write", _size, _int, _pointer, _size)
c_read = _call("read", _size, _int, _pointer, _size)
getrandom = _call("getrandom", _size, _pointer, _size, types.uint32)
_clock_gettime = _call("clock_gettime", _int, _int, _pointer)
_errno_location = types.ExternalFunction("__errno_location", types.CPointer(types.int32)())  # type: ignore[no-untyped-call]


@intrinsic
def _read(typing_context: Any, pointer: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(arguments[0])

    return types.int32(pointer), generate


@kernel_in_place
def errno() -> int:
    """Why the call before this one failed."""
    return _read(_errno_location())  # type: ignore[call-arg]


@kernel_in_place
def clock_ns(clock: int, scratch: Any) -> int:
    """Nanoseconds on a clock of clock_gettime(2). scratch: int64 of length 2."""
    _clock_gettime(clock, scratch.ctypes.data)
    return scratch[0] * 1_000_000_000 + scratch[1]  # type: ignore[no-any-return]


@kernel_in_place
def watch(epoll: int, fd: int, data: int, event: Any) -> bool:
    """Have epoll_wait report `data` when fd can be read. event: EVENT of length 1, scratch memory."""
    event[0].events, event[0].data = EPOLLIN, data
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, event.ctypes.data) == 0  # type: ignore[no-any-return]


@intrinsic
def _fence(typing_context: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@kernel_in_place
def fence() -> None:
    """What was written before is seen by whoever sees what is written after, on every processor."""
    _fence()  # type: ignore[call-arg]
