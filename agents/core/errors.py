"""Every error that the package raises on purpose; messages start with "cannot" and name the thing."""

from __future__ import annotations


class AgentsError(Exception):
    """Base of all errors raised on purpose; the command line prints it in one line."""


class SettingsError(AgentsError):
    """A setting has a value that cannot be used (exit code 2)."""


class UsageError(AgentsError):
    """A command was called with arguments that cannot be used (exit code 2)."""


class NameFormatError(AgentsError):
    """A domain name is not valid presentation or wire format (RFC 1035)."""


class MessageError(AgentsError):
    """A DNS message cannot be parsed (RFC 1035 section 4)."""


class CaptureError(AgentsError):
    """A capture file cannot be read at all (exit code 2)."""


class ModelError(AgentsError):
    """A model file is damaged, tampered with, or made for another feature schema."""


class StoreError(AgentsError):
    """The database refused a request or is away."""


class StoreUnusableError(StoreError):
    """The database is damaged, is not a database, or cannot be opened: waiting for it does not help."""


class BatchRefusedError(StoreError):
    """The database answers and refuses these rows; writing them again would not help."""


class FencedError(BatchRefusedError):
    """Another detector has taken over the slot of these rows, and writes them itself."""


class QueueFullError(AgentsError):
    """The queue on disk has reached its bound; the file was not kept."""


class TrainingError(AgentsError):
    """A model cannot be made from the data or with the config."""


class NotifyError(AgentsError):
    """A notification channel did not accept the message."""


class BusyError(AgentsError):
    """Another retraining or change of models holds the lock."""
