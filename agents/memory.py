"""How the C library gives memory back."""

from __future__ import annotations

import ctypes

MAPPED_BYTES = 5 << 20
"""Larger arrays are mapped one by one."""
_M_MMAP_THRESHOLD = -3  # of <malloc.h>


def map_large_arrays() -> None:
    """Have an array that was outgrown go back to the system at once, in this process from now on (mallopt(3)).

    glibc maps large ones from 128 kB on at first, but raises that to 32 MB as they are freed, and keeps what is
    freed below that. Without glibc it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
