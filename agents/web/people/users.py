"""Users over the API: added with a one-time link, given another role, disabled, removed. For admins."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from agents.core.errors import UsageError
from agents.store.people.roles import Role
from agents.store.people.users import ConsoleUser
from agents.web.api import PROBLEMS, known_parameters
from agents.web.auth import author_of, gate_of, noted
from agents.web.parts import parts_of
from agents.web.people.login import link_address
from agents.web.people.schemas import UserAdd, UserChange, UserEntry, UserLink, UserList, UserNamed

router = APIRouter(prefix="/users", responses=PROBLEMS, dependencies=[Depends(known_parameters)])


@router.get("", summary="Users, by name")
def users_listed(request: Request) -> UserList:
    """Who may log in, as what."""
    return UserList(users=[_entry(one) for one in parts_of(request).people.users.all()])


def _entry(user: ConsoleUser) -> UserEntry:
    same = ("name", "has_password", "made_at", "made_by", "disabled_at", "last_login")
    values = {name: getattr(user, name) for name in same}
    link_until = user.link_until or None
    return UserEntry(role=user.role.value, by_provider=bool(user.subject), link_until=link_until, **values)


@router.post("", summary="Add a user")
def user_added(request: Request, sent: UserAdd) -> UserLink:
    """The answer has the link by which they set their password."""
    return UserLink(name=sent.name.strip().lower(), link=add_user(request, sent.name, Role(sent.role)))


@router.post("/link", summary="Make another one-time link")
def user_link(request: Request, sent: UserNamed) -> UserLink:
    """For somebody who has forgotten the password; the present one holds until the link is used."""
    return UserLink(name=sent.name.strip().lower(), link=open_link(request, sent.name))


@router.post("/change", summary="Give a user another role, or disable them")
def user_changed(request: Request, sent: UserChange) -> UserEntry:
    """It holds at once, for open sessions and tokens, too."""
    return _entry(change_user(request, sent.name, Role(sent.role) if sent.role else None, sent.disabled))


@router.post("/remove", summary="Remove a user")
def user_removed(request: Request, sent: UserNamed) -> UserList:
    """Sessions and tokens go, too; what they did stays in the audit log."""
    remove_user(request, sent.name)
    return users_listed(request)


def add_user(request: Request, name: str, role: Role) -> str:
    """Add a user; the address of the one-time link. Raises UsageError."""
    secret = parts_of(request).people.users.add(name, role, author_of(request))
    noted(request, "user added", name.strip().lower(), str(role))
    return link_address(request, secret)


def open_link(request: Request, name: str) -> str:
    """The address of another one-time link. Raises UsageError."""
    secret = parts_of(request).people.users.open_link(name)
    noted(request, "one-time link made", name.strip().lower())
    return link_address(request, secret)


def change_user(request: Request, name: str, role: Role | None, disabled: bool | None) -> ConsoleUser:
    """Another role, or disabled or not. Raises UsageError."""
    if role is None and disabled is None:
        raise UsageError("cannot change a user: nothing is to be changed")
    user = parts_of(request).people.users.change(name, role=role, disabled=disabled, by=author_of(request))
    gate_of(request).forget()
    said = [f"role {role}"] if role else []
    said += [] if disabled is None else ["disabled" if disabled else "enabled"]
    noted(request, "user changed", user.name, ", ".join(said))
    return user


def remove_user(request: Request, name: str) -> None:
    """Remove a user. Raises UsageError."""
    parts_of(request).people.users.remove(name)
    gate_of(request).forget()
    noted(request, "user removed", name.strip().lower())
