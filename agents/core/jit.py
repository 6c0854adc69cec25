"""The compiler switch: numba compiles kernels once and keeps the code, or they run as plain Python with equal results.

The setting COMPILED decides: "auto" (compiled if numba can be imported), "on", or "off"; COMPILED_FOR, for which
processors. They are read when this module is first imported, from the environment or from `.env`, like every setting.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from dotenv import dotenv_values

from agents.core.errors import SettingsError

F = TypeVar("F", bound=Callable[..., Any])
MAPPED_BYTES = 5 << 20
"""Larger arrays get a memory mapping of their own."""
_M_MMAP_THRESHOLD = -3  # of <malloc.h>
_PACKAGE = Path(__file__).resolve().parent.parent
_DIGEST = re.compile("[0-9a-f]{16}")
_IMPORTED = re.compile(r"^from (agents(?:\.\w+)+) import (.*)$", re.MULTILINE)


def _setting(names: Sequence[str], default: str) -> str:
    """The value of a setting, by its names: the present one, then old ones. agents.settings refuses wrong values."""
    for source in (os.environ, dotenv_values(".env") if Path(".env").is_file() else {}):
        given = {name.upper(): value for name, value in source.items()}  # settings ignore case, too
        for name in names:
            if value := given.get(name):
                return value
    return default


def _compile_for_any() -> None:
    """Let the compiler use only what each processor of this kind has; to be called before numba is imported.

    x86-64-v2 (System V psABI, 2020) is what processors since 2009 have; LLVM calls the least of ARMv8 "generic".
    """
    os.environ["NUMBA_CPU_NAME"] = "x86-64-v2" if platform.machine() in {"x86_64", "AMD64"} else "generic"
    os.environ["NUMBA_CPU_FEATURES"] = ""


def _numba() -> Any:
    """The compiler, or None. Raises SettingsError if COMPILED=on and numba cannot be imported."""
    mode = _setting(("COMPILED", "KERNELS"), "auto")
    if mode == "off":
        return None
    if _setting(("COMPILED_FOR",), "host") == "any":
        _compile_for_any()
    try:
        import numba
    except ImportError as error:
        if mode == "on":
            raise SettingsError(f"cannot set COMPILED to on: numba cannot be imported ({error})") from None
        return None
    _without_blas()
    return numba


def _without_blas() -> None:
    """Keep the compiler from loading SciPy's linear algebra: kernels do not need it, and it costs 0.2 s a start."""
    name = "scipy.linalg"
    if name in sys.modules:
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        del sys.modules[name]


def sources_digest() -> str:
    """Digest of all kernels' sources and of the modules that they take constants from."""
    total = hashlib.sha256()
    for path in sorted(set(_sources())):
        total.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


def _sources() -> Iterator[Path]:
    for path in _PACKAGE.rglob("*kernels.py"):
        yield path
        for module, names in _IMPORTED.findall(path.read_text("utf-8")):
            at = _PACKAGE.parent.joinpath(*module.split("."))
            found = (at.with_suffix(".py"), *(at / f"{name}.py" for name in re.findall(r"\w+", names)))
            yield from filter(Path.is_file, found)


def folder() -> Path | None:
    """A writable folder for compiled kernels, or None: then every process compiles for itself.

    Its name is the digest of the sources, since kernels are compiled into each other: the compiler notices a change of
    a kernel's own file, but not of a kernel that it calls. The folder lies beside this file, or below NUMBA_CACHE_DIR.
    If that cannot be written (an image), its contents are first copied to the user's own cache. Kernels compiled for
    another processor are compiled again.
    """
    digest = sources_digest()
    first = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).parent / "__pycache__") / digest
    if _can_write(first):
        return first
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME", "/nonexistent") + "/.cache"
    own = Path(home) / "dns-tunnel-detector" / digest
    if first.is_dir() and not own.exists():
        _copy(first, own)
    return own if _can_write(own) else None


def _can_write(path: Path) -> bool:
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError:
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    """Copy a folder so that other processes never see half of it; if that fails, there is no copy."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as made:
            copy = shutil.copytree(source, Path(made) / "copy")
            for path in (copy, *copy.rglob("*")):
                path.chmod(0o700 if path.is_dir() else 0o600)
            copy.rename(target)
    except OSError:  # no room, or another process was faster
        return


NUMBA = _numba()
COMPILED = NUMBA is not None
"""Whether kernels are compiled."""
KEPT = folder() if COMPILED else None
"""The folder of compiled kernels, or None."""
if KEPT is not None:
    NUMBA.config.CACHE_DIR = str(KEPT)


def kernel(function: F) -> F:
    """Compile a function (nopython, without the Python lock, kept on disk); unchanged if kernels are not compiled."""
    if NUMBA is None:
        return function
    return _compiled(function)


def kernel_in_place(function: F) -> F:
    """Like kernel, for functions that allocate nothing: without reference counts, which halves a short one's time."""
    if NUMBA is None:
        return function
    return _compiled(function, _nrt=False)


def kernel_that_wraps(function: F) -> F:
    """Like kernel_in_place; silences NumPy's overflow warnings of unsigned sums when the function runs uncompiled."""
    if NUMBA is None:
        return np.errstate(over="ignore")(function)
    return kernel_in_place(function)


def _compiled(function: F, **options: object) -> F:
    """The function's compiler, which compiles it once for a kind of number, where kernels call it with constants.

    By itself numba compiles a function again for every constant that a caller passes (`Literal[int](3)`), and for
    every width of a signed number: the code is the same but for the width, and takes a quarter of all compiling.
    """
    compiled = NUMBA.njit(cache=KEPT is not None, nogil=True, error_model="numpy", **options)(function)
    template = compiled.get_call_template
    compiled.get_call_template = lambda types, named: template([_widest(kind) for kind in types], named)
    return cast(F, compiled)


def _widest(kind: Any) -> Any:
    types = NUMBA.types
    kind = types.unliteral(kind)
    return types.int64 if isinstance(kind, types.Integer) and kind.signed else kind


def prune_caches(kept: Path) -> int:
    """Remove the folders beside `kept` that hold kernels of other sources; returns how many were removed."""
    others = [path for path in kept.parent.iterdir() if path != kept and _DIGEST.fullmatch(path.name)]
    for path in others:
        shutil.rmtree(path, ignore_errors=True)
    return sum(not path.exists() for path in others)


def warm_mark(kept: Path) -> Path:
    """The file that marks the folder as complete: it holds all kernels, compiled for this processor."""
    name = NUMBA.config.CPU_NAME or importlib.import_module("llvmlite.binding").get_host_cpu_name()
    return kept / f"warm-{name}"


def map_large_arrays() -> None:
    """Make freed large arrays go back to the system at once, in this process from now on (mallopt(3)).

    At first, glibc maps arrays from 128 kB on. It raises that threshold to 32 MB as mapped arrays are freed, and keeps
    freed memory below it. Without glibc this function does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
