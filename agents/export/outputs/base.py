"""What a way out is."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.core.errors import SettingsError
from agents.core.protocols import Field, Receiver, Spec
from agents.export.formats import BY_NAME
from agents.export.record import Record


@dataclass(frozen=True)
class Output(Spec[Receiver[Record]]):
    """A kind of way out. factory: (values of fields, a RetryPolicy or None); it raises SettingsError.

    probe: what `doctor` says of one that is set up, without sending anything; it raises AgentsError.
    """

    probe: Callable[[Mapping[str, Any]], str] = lambda values: "set up"

    @property
    def switch(self) -> str:
        """The setting that sets it up."""
        return self.fields[0].name.upper()


def known_format(name: str) -> None:
    """A check of a setting. Raises ValueError."""
    if name not in BY_NAME:
        raise ValueError(f"it must be one of {', '.join(BY_NAME)}")


def format_field(output: str, default: str) -> Field:
    """The setting of an output's format."""
    return Field(f"export_{output}_format", str, default, f"one of {', '.join(BY_NAME)}", known_format)


def trusting(path: str) -> ssl.SSLContext:
    """A TLS client that trusts the certificates of a file, or with "" those of the system. Raises SettingsError."""
    try:
        context = ssl.create_default_context(cafile=path or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"cannot read certificates from {path}: {getattr(error, 'strerror', None) or error}"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def readable(path: str) -> None:
    """A check of a setting: a file that can be read, or "". Raises ValueError."""
    if path and not Path(path).is_file():
        raise ValueError("there is no such file")
