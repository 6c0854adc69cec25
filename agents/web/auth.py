"""Access control: programs send the token, browsers a cookie that is derived from it."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated

from fastapi import HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

COOKIE = "dns_tunnel_session"
SESSION_S = 12 * 3600
"""A browser must enter the token again after this many seconds."""
NAME_MAX = 80
"""Characters of the name that somebody gives at their login."""
AT_CONSOLE = "console"
"""The author of what somebody did at the console who gave no name: undoing must not wait for one."""
PROGRAM = "API"
"""The author of what a program did that named nobody."""
ATTEMPTS_MAX = 5
"""Wrong tokens that one address may enter in ATTEMPTS_S."""
ATTEMPTS_S = 60.0
ADDRESSES_MAX = 1024
"""Addresses whose attempts are kept; the oldest is dropped first."""

bearer = HTTPBearer(auto_error=False, description="the token of setting API_TOKEN")
Sent = Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
"""Contents of the Authorization header."""


class Gatekeeper:
    """Checks tokens and cookies in constant time. Raises ValueError for an empty token."""

    def __init__(self, token: str) -> None:
        if not token:
            raise ValueError("cannot serve without a token")
        self._token = token.encode()
        self.attempts = Attempts()

    def knows(self, token: str) -> bool:
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token)

    def cookie(self, name: str = "") -> str:
        """A session's cookie: its end time, who it is, and a MAC of both under the token."""
        said = f"{int(time.time()) + SESSION_S}.{name[:NAME_MAX].encode().hex()}"
        return f"{said}.{self._mac(said)}"

    def _mac(self, said: str) -> str:
        return hmac.new(self._token, b"dns-tunnel session " + said.encode(), hashlib.sha256).hexdigest()

    def author(self, request: Request) -> str:
        """Who a session is, as they said at their login."""
        name = request.cookies.get(COOKIE, "").split(".")[1] if self.has_session(request) else ""
        return bytes.fromhex(name).decode() or AT_CONSOLE

    def form_key(self, request: Request) -> str:
        """What a form of this session's pages holds, so that no other site can send it: a MAC of the cookie."""
        return self._mac("form " + request.cookies.get(COOKIE, ""))

    def sign(self, request: Request, said: Mapping[str, str]) -> str:
        """A MAC of what this session is told on the page that it is led to, so that no link can put words there."""
        return self._mac(f"said {sorted(said.items())} {request.cookies.get(COOKIE, '')}")

    def sent_by_form(self, request: Request, key: str) -> bool:
        """Whether a form came from a page of the session that sends it."""
        sent = key.encode("utf-8", "surrogatepass")
        return self.has_session(request) and hmac.compare_digest(sent, self.form_key(request).encode())

    def has_session(self, request: Request) -> bool:
        said, _, mac = request.cookies.get(COOKIE, "").rpartition(".")
        ends = said.partition(".")[0]
        if said.count(".") != 1:  # of an earlier release
            return False
        if not (said.isascii() and ends.isdigit() and len(ends) < 16 and mac.isascii()):
            return False
        return hmac.compare_digest(mac, self._mac(said)) and time.time() < int(ends)

    def require(self, request: Request, sent: Sent = None) -> None:
        """Allow every request with the token, and read-only ones with a session, so that other sites cannot use it."""
        address = address_of(request)
        if sent is not None:
            if not self.attempts.allowed(address):
                raise HTTPException(429, "cannot answer: too many wrong tokens", {"Retry-After": str(int(ATTEMPTS_S))})
            if self.knows(sent.credentials):
                return
            self.attempts.wrong(address)
        if request.method in {"GET", "HEAD"} and self.has_session(request):
            return
        raise HTTPException(401, "cannot answer without a valid token", {"WWW-Authenticate": "Bearer"})


def address_of(request: Request) -> str:
    """Who asks, as attempts are counted: an IPv4 address, or the /64 of an IPv6 address (RFC 4291 2.5.1)."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None) or address
    return str(mapped) if mapped.version == 4 else str(ipaddress.ip_network((mapped, 64), strict=False))


class Attempts:
    """Wrong tokens by address, bounded."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def allowed(self, address: str) -> bool:
        now = time.monotonic()
        recent = [at for at in self._wrong.get(address, ()) if now - at < ATTEMPTS_S]
        return len(recent) < ATTEMPTS_MAX

    def wrong(self, address: str) -> None:
        times = self._wrong.pop(address, [])
        self._wrong[address] = [*times, time.monotonic()][-ATTEMPTS_MAX:]
        if len(self._wrong) > ADDRESSES_MAX:
            self._wrong.popitem(last=False)


def author_of(request: Request, named: str = "") -> str:
    """Who changes something: the person of a session, or whom a program names."""
    gate: Gatekeeper = request.app.state.gate
    return gate.author(request) if gate.has_session(request) else named.strip() or PROGRAM
