"""`dns-tunnel users` and `tokens`: who may use the console and the API."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import closing

from agents.cli.output import login_name
from agents.core.text import utc
from agents.runtime import bootstrap
from agents.settings import Settings
from agents.store.people.people import PeopleStore
from agents.store.people.roles import AccessScope, role_of
from agents.store.people.users import ConsoleUser, UserStore


def users(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel users …`."""
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        found, action = PeopleStore(store).users, options.action
        if action == "list":
            for one in found.all():
                print(json.dumps(_json(one)) if options.json else _line(one))
        elif action == "add":
            _print_link(settings, found.add(options.user, role_of(options.role), login_name()))
        elif action == "link":
            _print_link(settings, found.open_link(options.user))
        else:
            _change(found, options)
    return 0


def _change(users: UserStore, options: argparse.Namespace) -> None:
    if options.action == "remove":
        users.remove(options.user)
        print(f"{options.user} is no user any more")
        return
    role = role_of(options.role) if options.action == "role" else None
    disabled = {"disable": True, "enable": False}.get(options.action)
    user = users.change(options.user, role=role, disabled=disabled, by=login_name())
    print(_line(user))


def _print_link(settings: Settings, secret: str) -> None:
    base = settings.public_url.rstrip("/") or bootstrap.console_address(settings)
    print(f"{base}/login/link/{secret}\nsets a password once, within 24 hours")


def _line(user: ConsoleUser) -> str:
    by = (
        "disabled" if user.disabled_at else "organisation" if user.subject else "password" if user.has_password else "-"
    )
    last = utc(user.last_login) if user.last_login else "never"
    return f"{user.name}  {user.role}  logs in by: {by}  last: {last}"


def _json(user: ConsoleUser) -> dict[str, object]:
    names = ("name", "role", "has_password", "made_at", "made_by", "disabled_at", "last_login")
    return {name: getattr(user, name) for name in names} | {"by_provider": bool(user.subject)}


def tokens(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel tokens …`."""
    now = time.time()
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        found = PeopleStore(store).tokens
        if options.action == "add":
            text, _ = found.make(options.user, options.what_for, options.scope or [AccessScope.READ], options.days)
            print(text)
        elif options.action == "revoke":
            gone = found.revoke(options.token_id, login_name())
            print(f"{gone.token_id} of {gone.name} is revoked: {gone.what_for}")
        else:
            for one in found.all():
                state = "holds" if one.holds(now) else "revoked" if one.revoked_at else "over"
                scopes = ",".join(sorted(one.scopes))
                used = utc(one.used_at) if one.used_at else "never"
                print(
                    f"{one.token_id}  {one.name}  {scopes}  {state} until {utc(one.until)}  used {used}  {one.what_for}"
                )
    return 0
