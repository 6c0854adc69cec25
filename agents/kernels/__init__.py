"""Fast twins of what the floors above define in plain Python: one kernel a file, compiled by numba once and cached.

The environment variable KERNELS says whether they are compiled: "auto" (where numba can be imported), "on", or "off".
It is read when this package is first imported; the command line sets it from the setting of the same name. Without
numba a kernel is an ordinary function over arrays: slower, with the same results.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from agents.errors import SettingsError
from agents.kernels import cache

F = TypeVar("F", bound=Callable[..., Any])


def _numba() -> Any:
    """The compiler, or None. Raises SettingsError where KERNELS=on cannot be had."""
    mode = os.environ.get("KERNELS", "auto")
    if mode == "off":
        return None
    try:
        import numba
    except ImportError as error:
        if mode == "on":
            raise SettingsError(f"cannot set KERNELS to on: numba cannot be imported ({error})") from None
        return None
    _without_blas()
    return numba


def _without_blas() -> None:
    """Keep the compiler from loading SciPy's linear algebra: no kernel needs it, and it costs 0.2 s at every start."""
    name = "scipy.linalg"
    if name in sys.modules:
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        del sys.modules[name]


NUMBA = _numba()
COMPILED = NUMBA is not None
"""Whether kernels are compiled."""
KEPT = cache.folder() if COMPILED else None
"""Where what is compiled is kept, or None."""
if KEPT is not None:
    NUMBA.config.CACHE_DIR = str(KEPT)


def kernel(function: F) -> F:
    """Compile a function (nopython, no Python lock held, kept on disk); itself where kernels are off."""
    if NUMBA is None:
        return function
    compiled: F = NUMBA.njit(cache=KEPT is not None, nogil=True, error_model="numpy")(function)
    return compiled


def kernel_that_wraps(function: F) -> F:
    """As kernel_in_place, for one whose unsigned sums may overflow, of which the plain function is not to warn."""
    if NUMBA is None:
        return np.errstate(over="ignore")(function)
    return kernel_in_place(function)


def kernel_in_place(function: F) -> F:
    """As kernel, for what allocates nothing: arrays in it are not counted, which halves the time of short functions."""
    if NUMBA is None:
        return function
    compiled: F = NUMBA.njit(cache=KEPT is not None, nogil=True, error_model="numpy", _nrt=False)(function)
    return compiled
