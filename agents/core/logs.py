"""structlog over the standard library's logging: JSON, pretty on a terminal, a file for retraining."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import Processor

RETRAINING_LOGGER = "agents.learning.retraining"

FILE_MAX = 5_000_000
"""Bytes of one retraining log before it is rotated; FILE_KEPT older files are kept."""
FILE_KEPT = 3
QUIET = ("httpx", "httpcore", "apscheduler", "alembic")
"""Loggers that write too much at INFO; httpx writes whole addresses, and a webhook's address is a secret."""

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)


def setup(level: str = "info", stream: TextIO | None = None) -> None:
    """Send every log line to `stream` (default: standard error): JSON, or pretty if it is a terminal."""
    out = sys.stderr if stream is None else stream
    terminal = out.isatty()
    handler = logging.StreamHandler(out)
    handler.setLevel(level.upper())
    handler.setFormatter(_formatter(structlog.dev.ConsoleRenderer() if terminal else _json()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    least = min(logging.INFO, getattr(logging, level.upper()))  # the retraining file gets INFO at any level
    root.setLevel(least)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(least),
        cache_logger_on_first_use=False,
    )


@contextmanager
def retraining_file(path: Path) -> Iterator[None]:
    """While open, lines of a retraining also go to `path`, one readable line each. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=FILE_MAX, backupCount=FILE_KEPT, encoding="utf-8")
    handler.setFormatter(
        _formatter(structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False))
    )
    logger = logging.getLogger(RETRAINING_LOGGER)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def _json() -> Processor:
    return structlog.processors.JSONRenderer()


def _formatter(renderer: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=list(_SHARED),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
