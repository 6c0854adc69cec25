"""What came of a form: told on the page that the browser is led to, so that a reload does nothing again."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import urlencode

from fastapi import Request
from starlette.responses import RedirectResponse

from agents.web.auth import gate_of

NOTICE_MAX = 400
"""Characters of each word of a notice: they stand in an address."""
UNDO_MAX = 4_000
"""The same of what takes an action back; a longer one is not offered."""
_WORDS = {"done": NOTICE_MAX, "problem": NOTICE_MAX, "undo": UNDO_MAX}


def led_to(request: Request, path: str, kept: Sequence[tuple[str, str]] = (), **said: str) -> RedirectResponse:
    """Lead the browser to a page that tells what came of its form.

    said: done, problem, undo (what takes it back). kept: other parameters of the address; path may have some, too.
    """
    words = {name: text[:NOTICE_MAX] for name, text in said.items() if text and name != "undo"}
    words |= {"undo": undo} if 0 < len(undo := said.get("undo", "")) <= UNDO_MAX else {}
    asked = urlencode([*kept, *words.items(), ("sign", gate_of(request).sign(request, words))])
    return RedirectResponse(f"{path}{'&' if '?' in path else '?'}{asked}", 303)


def noticed(request: Request) -> dict[str, str]:
    """What this session is told after a form; nothing where somebody else wrote the link."""
    told = {name: request.query_params.get(name, "")[:most] for name, most in _WORDS.items()}
    said = {name: text for name, text in told.items() if text}
    sign = request.query_params.get("sign", "")[:NOTICE_MAX].encode("utf-8", "surrogatepass")
    is_ours = bool(said) and hmac.compare_digest(sign, gate_of(request).sign(request, said).encode())
    return told if is_ours else dict.fromkeys(_WORDS, "")
