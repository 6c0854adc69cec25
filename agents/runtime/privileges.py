"""The user that a process becomes when it holds its ports: port 53 needs root, nothing after it does."""

from __future__ import annotations

import ctypes
import os
import pwd
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from agents.core.errors import AgentsError, SettingsError

PRIVILEGED_PORTS = 1024
"""Ports below need root, where the kernel is not told otherwise."""
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4  # prctl(2)
_CAPABILITY_VERSION_3 = 0x20080522  # capget(2)


class User(NamedTuple):
    """A user of this machine, and the group of its own."""

    name: str
    uid: int
    gid: int


def user_of(name: str) -> User | None:
    """The user of setting RUN_AS, None where it is empty. Raises SettingsError."""
    if not name:
        return None
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise SettingsError(f"cannot use setting RUN_AS={name}: there is no such user") from None
    if os.geteuid() not in (0, found.pw_uid):
        raise SettingsError(f"cannot use setting RUN_AS={name}: only root can become another user")
    return User(found.pw_name, found.pw_uid, found.pw_gid)


def first_free_port() -> int:
    """The first port that anybody may bind (ip(7), ip_unprivileged_port_start)."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text("ascii"))
    except (OSError, ValueError):
        return PRIVILEGED_PORTS


def give_away(user: User, folders: Iterable[Path]) -> None:
    """Give folders that this process has just made to the user. Raises OSError."""
    for folder in folders:
        os.chown(folder, user.uid, user.gid, follow_symlinks=False)


def become(user: User, folders: Iterable[Path]) -> None:
    """Be this user from now on, for good. Raises AgentsError where one of the folders could not be written then."""
    if os.geteuid() != user.uid:
        os.initgroups(user.name, user.gid)
        os.setgid(user.gid)
        os.setuid(user.uid)
    for folder in folders:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise AgentsError(f"cannot run as {user.name}: {folder} is not writable (chown -R {user.name} {folder})")


def drop_capabilities() -> None:
    """Give up all capabilities (capabilities(7)): those for low ports and packets are of no use once these are open."""
    if LIBC is None:
        return
    LIBC.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    LIBC.capset(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
