"""The first start of the console: an admin without a password, and the one-time link by which they set it."""

from __future__ import annotations

import threading

import structlog

from agents.core.errors import AgentsError
from agents.core.protocols import Tables
from agents.store.migrate import RETRY_MAX_S, RETRY_S
from agents.store.people.people import PeopleStore
from agents.store.people.users import LINK_S

_log = structlog.get_logger()


class FirstLogin:
    """Prints a new link at each start, until somebody can log in as an admin."""

    def __init__(self, store: Tables, people: PeopleStore, address: str) -> None:
        self._store, self._people, self._address = store, people, address.rstrip("/")
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, on a thread of its own: the database may be away for long."""
        self._thread = threading.Thread(target=self._tell, name="first login", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._stopped.set()

    def _tell(self) -> None:
        pause = RETRY_S
        while not self._stopped.is_set():
            try:
                self._store.migrate()
                secret = self._people.users.first_admin()
            except AgentsError as error:
                if pause == RETRY_S:
                    _log.warning("first_login_waits_for_store", error=str(error))
                self._stopped.wait(pause)
                pause = min(2 * pause, RETRY_MAX_S)
                continue
            if secret:
                hours = LINK_S / 3600
                print(
                    f"\n  nobody can log in yet: set the admin's password at\n"
                    f"  {self._address}/login/link/{secret}\n"
                    f"  (once, within {hours:.0f} hours; a restart makes another link)\n",
                    flush=True,
                )
            return
