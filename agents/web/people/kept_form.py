"""A form that came after its session ended: what somebody wrote is kept over the login and sent by them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from fastapi import Request, Response

from agents.web.auth import COOKIE, gate_of
from agents.web.pages import page

KEPT_MAX = 16_384
"""Bytes of a form that is kept: it stands in the page of the login, and comes back with it."""
WITH_PASSWORDS = ("/console/account",)
"""Pages whose forms are not kept."""
Fields = Mapping[str, Sequence[str]]


def is_of_here(request: Request, fields: Fields) -> bool:
    """Whether a page of this console sent a form, maybe one of a session that is over: no other site's is kept.

    W3C Fetch Metadata says so, or the key of the session whose cookie comes with it.
    """
    of_cookie = bool(request.cookies.get(COOKIE)) and gate_of(request).is_form_key(request, fields.get("key", [""])[0])
    return of_cookie or request.headers.get("sec-fetch-site") == "same-origin"


def kept_text(path: str, fields: Fields) -> str:
    """A form as the page of the login holds it; "" where it is not kept."""
    kept = {name: list(values) for name, values in fields.items() if name != "key"}
    text = json.dumps({"path": path, "fields": kept})
    return "" if path in WITH_PASSWORDS or not kept or len(text) > KEPT_MAX else text


def read_kept(text: str) -> tuple[str, dict[str, list[str]]] | None:
    """Path and fields of a kept form; None where there is none."""
    try:
        found = json.loads(text[:KEPT_MAX])
    except ValueError:
        return None
    path, fields = (found.get("path"), found.get("fields")) if isinstance(found, dict) else (None, None)
    if not isinstance(path, str) or not _is_fields(fields):
        return None
    return (path, fields) if path.startswith("/console/") and path.isascii() and path.isprintable() else None


def _is_fields(fields: object) -> TypeGuard[dict[str, list[str]]]:
    return isinstance(fields, dict) and all(
        isinstance(name, str) and isinstance(values, list) and all(isinstance(one, str) for one in values)
        for name, values in fields.items()
    )


def resend_page(request: Request, status: int, path: str, fields: Fields, key: str) -> Response:
    """The form once more, to be sent by a click. key: of the session that holds now."""
    shown = {name: values for name, values in fields.items() if name != "key"}
    return page(request, "resend.html", status, path=path, fields=shown, form_key=key)
