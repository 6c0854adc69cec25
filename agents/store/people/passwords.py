"""Passwords: Argon2id with the parameters of RFC 9106, section 4, second recommendation (64 MiB, 3 passes, 4 lanes)."""

from __future__ import annotations

import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from agents.core.errors import UsageError

PASSWORD_MIN, PASSWORD_MAX = 12, 256
"""Characters of a password. NIST SP 800-63B asks for length, and for no mixture of kinds of characters."""
DIFFERENT_MIN = 5
"""Different characters of a password."""
_hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
_guard = threading.Lock()
"""One hash at a time: each takes 64 MiB, and whoever sends many passwords at once shall not take the memory."""
_nobody = ""


def hashed(password: str, name: str) -> str:
    """What is stored of the password of the user of that name. Raises UsageError for one that is easily guessed."""
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        raise UsageError(f"cannot use that password: it needs {PASSWORD_MIN} to {PASSWORD_MAX} characters")
    if len(set(password)) < DIFFERENT_MIN or (name and name.lower() in password.lower()):
        raise UsageError("cannot use that password: it holds your name, or few different characters")
    with _guard:
        return _hasher.hash(password.encode("utf-8", "surrogatepass"))


def matches(stored: str, password: str) -> bool:
    """Whether it is the password of which `stored` was kept; "" = of nobody, which takes as long."""
    global _nobody
    with _guard:
        if not _nobody:
            _nobody = _hasher.hash(b"nobody's")
        try:
            _hasher.verify(stored or _nobody, password[: PASSWORD_MAX + 1].encode("utf-8", "surrogatepass"))
        except (VerificationError, InvalidHashError):
            return False
        return bool(stored)
