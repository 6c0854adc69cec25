"""Network profiles beside the models that were made with them, each under the hash of its content.

models/profiles/<sha256>.json
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import structlog

from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.npz import FormatError
from agents.detection.explanations.network_profile import PROFILE_BYTES_MAX, NetworkProfile, load_profile

_SHA256 = re.compile(r"[0-9a-f]{64}")
_log = structlog.get_logger()


class ProfileFolder:
    """The folder of profiles. A profile that is missing or damaged is none: nothing is allowed by it.

    secret: FLEET_SECRET, which finds what a profile says of domains of other sites.
    """

    def __init__(self, folder: Path, secret: str = "") -> None:
        self._folder, self._secret = folder, secret

    def save(self, profile: NetworkProfile) -> None:
        """Keep a profile. Raises OSError."""
        path = self._path(profile.sha256)
        if not path.is_file() or path.read_bytes() != profile.to_bytes():
            write_atomic(path, profile.to_bytes(), mode=PRIVATE_MODE)

    def of(self, manifest: Mapping[str, Any]) -> NetworkProfile | None:
        """The profile that a model's manifest names; None where it names none, or one that cannot be used."""
        digest = profile_digest(manifest)
        if not digest:
            return None
        path = self._path(digest)
        try:
            if path.stat().st_size > PROFILE_BYTES_MAX:
                raise FormatError("cannot read profile: it is too large")
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise FormatError("cannot read profile: its content is another")
            return load_profile(data).keyed(self._secret)
        except (FormatError, OSError) as error:
            _log.warning("profile_not_used", path=str(path), error=str(error))
            return None

    def prune(self, named: Collection[str], before: float) -> None:
        """Delete profiles that no model names any more and that are older than that time (Unix seconds)."""
        for path in self._folder.glob("*.json"):
            if _SHA256.fullmatch(path.stem) and path.stem not in named and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"


def profile_digest(manifest: Mapping[str, Any]) -> str:
    """The hash of the profile that a manifest names; "" where it names none."""
    found = manifest.get("profile")
    digest = found.get("sha256") if isinstance(found, Mapping) else None
    return digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else ""
