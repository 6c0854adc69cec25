"""Where compiled kernels are kept: in a folder named after all their sources, as one is compiled into another.

The compiler notices that a kernel's own file has changed, not that one it calls has. Beside the sources, or below
NUMBA_CACHE_DIR; where that cannot be written (an image), what lies there is copied to the user's own cache first.
What was compiled for another processor is not used but made anew.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import shutil
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent
_DIGEST = re.compile("[0-9a-f]{16}")


def sources_digest() -> str:
    """Identity of all kernels' sources."""
    total = hashlib.sha256()
    for path in sorted(_HERE.glob("*.py")):
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


def folder() -> Path | None:
    """A folder that can be written, or None: then every process compiles for itself."""
    digest = sources_digest()
    first = Path(os.environ.get("NUMBA_CACHE_DIR") or _HERE / "__pycache__") / digest
    if _can_write(first):
        return first
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME", "/nonexistent") + "/.cache"
    own = Path(home) / "dns-tunnel-detector" / digest
    if first.is_dir() and not own.exists():
        _copy(first, own)
    return own if _can_write(own) else None


def prune(kept: Path) -> int:
    """Remove the folders beside `kept` that hold kernels of other sources; returns how many went."""
    others = [path for path in kept.parent.iterdir() if path != kept and _DIGEST.fullmatch(path.name)]
    for path in others:
        shutil.rmtree(path, ignore_errors=True)
    return sum(not path.exists() for path in others)


def warm_mark(kept: Path) -> Path:
    """The file that says that all kernels are kept in the folder, compiled for this processor."""
    return kept / f"warm-{importlib.import_module('llvmlite.binding').get_host_cpu_name()}"


def _can_write(path: Path) -> bool:
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError:
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    """Copy a folder so that no other process sees half of it; where that fails, there is none."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as made:
            copy = shutil.copytree(source, Path(made) / "copy")
            for path in (copy, *copy.rglob("*")):
                path.chmod(0o700 if path.is_dir() else 0o600)
            copy.rename(target)
    except OSError:  # no room, or another process was faster
        return
