"""Every error as {"error": "cannot …"}, and as a page where a browser wanted one: the cause, without internals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agents.core.errors import AgentsError, BusyError, StoreError, UsageError
from agents.web.auth import gate_of
from agents.web.pages import page
from agents.web.people.kept_form import Fields, is_of_here, kept_text, resend_page
from agents.web.people.login import login_with_form

log = structlog.get_logger(__name__)

_STATUS: dict[type[AgentsError], int] = {UsageError: 422, BusyError: 409, StoreError: 503, AgentsError: 500}
_DEFAULTS = {404: "cannot find {path}", 405: "cannot {method} {path}"}


def _answer(request: Request, status: int, text: str, headers: Any = None) -> Response:
    if not _wants_page(request) or status < 400:
        return JSONResponse({"error": text}, status, headers)
    answer = _refused_form(request) if status == 401 else None
    answer = answer or page(request, "error.html", status, status=status, problem=text)
    answer.headers.update(headers or {})
    return answer


def _wants_page(request: Request) -> bool:
    """Whether a browser asks for what is no route of the API; reports are for both."""
    route = request.scope.get("route")
    is_page = not getattr(route, "include_in_schema", False) or request.url.path.startswith("/reports/")
    return is_page and "text/html" in request.headers.get("accept", "")


def _refused_form(request: Request) -> Response | None:
    """The login with the form that came without a session; with one, the form to be sent again. None: neither."""
    form: Fields | None = getattr(request.state, "refused_form", None)
    if form is None:
        return None
    if request.state.person is None:
        return login_with_form(request, form)
    path = request.url.path
    if not is_of_here(request, form) or not kept_text(path, form):
        return None
    return resend_page(request, 401, path, form, gate_of(request).form_key(request))


def on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = error.detail
    if not text.startswith("cannot"):
        pattern = _DEFAULTS.get(error.status_code, "cannot answer: " + text)
        text = pattern.format(path=request.url.path, method=request.method)
    return _answer(request, error.status_code, text, error.headers)


def on_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = first["loc"]  # "query" or "path", the name, and the place in a list
    name, why = where[1] if len(where) > 1 else where[0], first["msg"]
    return _answer(request, 422, f"cannot use parameter {name}: {why[:1].lower()}{why[1:]}")


def status_of(error: AgentsError) -> int:
    """The status of an answer that says an error of ours."""
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def on_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, AgentsError)
    status = status_of(error)
    if status >= 500:
        # The route, not the path: that of a one-time link is a secret.
        log.warning("request_failed", route=getattr(request.scope.get("route"), "path", ""), error=str(error))
    return _answer(request, status, str(error))


def on_unknown(request: Request, error: Exception) -> Response:
    """Answer a programmer's error: Starlette logs it with its traceback, the client does not get the traceback."""
    return _answer(request, 500, "cannot answer: internal error")


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Any]] = {
    HTTPException: on_http,
    RequestValidationError: on_parameter,
    AgentsError: on_ours,
    Exception: on_unknown,
}
