"""Kernels in the interpreter, in this process: the same functions, as they run where there is no compiler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import pytest


@contextmanager
def interpreted(*modules: ModuleType) -> Iterator[None]:
    """While the block lasts, what these modules name as kernels is plain Python."""
    with pytest.MonkeyPatch.context() as patched:
        for module in modules:
            for name, value in list(vars(module).items()):
                if hasattr(value, "py_func"):
                    patched.setattr(module, name, value.py_func)
        with np.errstate(over="ignore"):  # as jit.kernel_that_wraps does
            yield
