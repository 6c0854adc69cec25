"""Every error as {"error": "cannot …"}: the cause, without internals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from agents.core.errors import AgentsError, BusyError, StoreError, UsageError

log = structlog.get_logger(__name__)

_STATUS: dict[type[AgentsError], int] = {UsageError: 422, BusyError: 409, StoreError: 503, AgentsError: 500}
_DEFAULTS = {404: "cannot find {path}", 405: "cannot {method} {path}"}


def _answer(status: int, text: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)


def on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    text = error.detail
    if not text.startswith("cannot"):
        pattern = _DEFAULTS.get(error.status_code, "cannot answer: " + text)
        text = pattern.format(path=request.url.path, method=request.method)
    return _answer(error.status_code, text, error.headers)


def on_parameter(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = first["loc"]  # "query" or "path", the name, and the place in a list
    name, why = where[1] if len(where) > 1 else where[0], first["msg"]
    return _answer(422, f"cannot use parameter {name}: {why[:1].lower()}{why[1:]}")


def on_ours(request: Request, error: Exception) -> JSONResponse:
    status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    if status >= 500:
        # The route, not the path: that of a one-time link is a secret.
        log.warning("request_failed", route=getattr(request.scope.get("route"), "path", ""), error=str(error))
    return _answer(status, str(error))


def on_unknown(request: Request, error: Exception) -> JSONResponse:
    """Answer a programmer's error: Starlette logs it with its traceback, the client does not get the traceback."""
    return _answer(500, "cannot answer: internal error")


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Any]] = {
    HTTPException: on_http,
    RequestValidationError: on_parameter,
    AgentsError: on_ours,
    Exception: on_unknown,
}
