"""Users, sessions and tokens, on SQLite and on a real Postgres."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from agents.core.errors import UsageError
from agents.store import Store
from agents.store.console.audit import AuditLog
from agents.store.people.people import PeopleStore
from agents.store.people.roles import AccessScope, Role
from agents.store.people.sessions import SESSION_S
from agents.store.people.tables import SESSIONS, TOKENS, USERS
from agents.store.people.tokens import KEPT_S
from agents.store.people.users import LINK_S, Attempt
from agents.store.people.waits import FAILED_FREE, FORGOTTEN_S, KEPT_MAX, LOCKED_MAX_S, LOCKED_S, NAME_FREE, Waits

pytestmark = pytest.mark.contract
PASSWORD = "tall grass at noon"


@pytest.fixture
def people(store: Store) -> PeopleStore:
    return PeopleStore(store)


def user(people: PeopleStore, name: str = "ann", role: Role = Role.ANALYST) -> str:
    people.users.set_password_by_link(people.users.add(name, role, "test"), PASSWORD)
    return name


def wait_of(people: PeopleStore, password: str) -> float:
    return people.users.log_in("ann", password).wait_s


@pytest.mark.slow
def test_a_user_sets_a_password_by_a_link_once_and_logs_in(people: PeopleStore) -> None:
    link = people.users.add("Ann", Role.ANALYST, "bea")
    assert people.users.log_in("ann", "").user is None, "no password is no empty password"
    found = people.users.by_link(link)
    assert found is not None and (found.name, found.role, found.made_by) == ("ann", Role.ANALYST, "bea")
    with pytest.raises(UsageError, match="12 to 256"):
        people.users.set_password_by_link(link, "short")
    with pytest.raises(UsageError, match="holds your name"):
        people.users.set_password_by_link(link, "ann and the rest of it")
    people.users.set_password_by_link(link, PASSWORD)
    with pytest.raises(UsageError, match="cannot use that link"):
        people.users.set_password_by_link(link, PASSWORD)
    logged = people.users.log_in(" ANN ", PASSWORD).user
    assert logged is not None and logged.name == "ann"
    assert people.users.log_in("ann", PASSWORD + "x").user is None
    assert people.users.log_in("nobody", PASSWORD).user is None


def test_a_link_is_too_old_after_a_day(people: PeopleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    link = people.users.add("ann", Role.VIEWER, "bea")
    now = people.users.all()[0].made_at
    monkeypatch.setattr("time.time", lambda: now + LINK_S + 1)
    assert people.users.by_link(link) is None
    with pytest.raises(UsageError, match="too old"):
        people.users.set_password_by_link(link, PASSWORD)


def test_of_secrets_only_hashes_are_stored(people: PeopleStore, store: Store) -> None:
    link = people.users.add("ann", Role.ADMIN, "bea")
    people.users.set_password_by_link(link, PASSWORD)
    link = people.users.open_link("ann")
    session = people.sessions.begin("ann", "192.0.2.7", "a browser")
    token, _ = people.tokens.make("ann", "a test", ["read"])
    with store.reading("look") as connection:
        kept = "".join(str(row) for table in (USERS, SESSIONS, TOKENS) for row in connection.execute(select(table)))
    for secret in (PASSWORD, link, session, token.split("_", 2)[2]):
        assert secret not in kept
    assert "$argon2id$" in kept


@pytest.mark.slow
def test_wrong_passwords_wait_longer_each_time_and_the_right_one_waits_with_them(
    people: PeopleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    user(people)
    now = people.users.all()[0].made_at
    monkeypatch.setattr("time.time", lambda: now)
    assert [wait_of(people, "wrong") for _ in range(FAILED_FREE)] == [0.0] * (FAILED_FREE - 1) + [LOCKED_S]
    assert wait_of(people, PASSWORD) == pytest.approx(LOCKED_S), "guessing is not worth while"
    waits = []
    for _ in range(7):
        now += LOCKED_MAX_S + 1
        waits.append(wait_of(people, "wrong"))
    assert waits == [60.0, 120.0, 240.0, 480.0, LOCKED_MAX_S, LOCKED_MAX_S, LOCKED_MAX_S]
    now += LOCKED_MAX_S + 1
    assert people.users.log_in("ann", PASSWORD).user is not None
    assert wait_of(people, "wrong") == 0.0, "it begins anew"


@pytest.mark.slow
def test_names_of_nobody_wait_as_users_do(people: PeopleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    user(people)
    user(people, "gone")
    now = people.users.all()[0].made_at
    monkeypatch.setattr("time.time", lambda: now)
    people.users.change("gone", disabled=True)
    waits = {
        name: [people.users.log_in(name, "wrong").wait_s for _ in range(FAILED_FREE + 1)]
        for name in ("ann", "nobody", "gone")
    }
    assert waits["ann"] == waits["nobody"] == waits["gone"] == [0] * (FAILED_FREE - 1) + [LOCKED_S] * 2


@pytest.mark.slow
def test_nobody_waits_because_the_clock_was_set_back(people: PeopleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    user(people)
    now = people.users.all()[0].made_at
    monkeypatch.setattr("time.time", lambda: now + 10 * 86_400)
    assert [wait_of(people, "wrong") for _ in range(FAILED_FREE)][-1] > 0
    monkeypatch.setattr("time.time", lambda: now)
    assert people.users.log_in("ann", PASSWORD).user is not None


def test_a_token_is_a_users_whatever_letter_case_their_name_is_typed_in(people: PeopleStore) -> None:
    user(people)
    text, token_id = people.tokens.make(" Ann", "a test", ["read"])
    found = people.tokens.find(text)
    assert found is not None and (found.name, found.token_id) == ("ann", token_id)


@pytest.mark.slow
def test_who_has_to_wait_is_told_so_at_a_change_of_the_password_too(people: PeopleStore) -> None:
    user(people)
    for _ in range(FAILED_FREE):
        people.users.log_in("ann", "wrong")
    for _ in range(FAILED_FREE - 1):
        with pytest.raises(UsageError, match="the present one is another"):
            people.users.change_password("ann", "wrong", "another long one", "one")
    with pytest.raises(UsageError, match=r"wait [23]\d seconds"):
        people.users.change_password("ann", "wrong", "another long one", "one")
    with pytest.raises(UsageError, match=r"wait [23]\d seconds"):
        people.users.change_password("ann", PASSWORD, "another long one", "one")
    people.users.change_password("ann", PASSWORD, "another long one", "two")


@pytest.mark.slow
def test_a_flood_of_addresses_guesses_no_quicker_than_a_hundred_a_day(
    people: PeopleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    user(people)
    looked_at, now, day = list[str](), people.users.all()[0].made_at, 86_400

    def seen(_: str, password: str) -> bool:
        looked_at.append(password)
        return False

    monkeypatch.setattr("agents.store.people.users.matches", seen)
    for name in ("ann", "nobody"):
        for number in range(day // 300 + NAME_FREE):
            monkeypatch.setattr("time.time", lambda number=number: now + 300 * max(0, number - NAME_FREE))
            people.users.log_in(name, f"guess {number}", address=f"192.0.2.{number % 250}")
        assert NAME_FREE < len(looked_at) < NAME_FREE + day / LOCKED_MAX_S + 10
        looked_at.clear()


@pytest.mark.slow
def test_who_guesses_from_one_address_or_in_a_known_browser_keeps_nobody_else_waiting(people: PeopleStore) -> None:
    user(people)
    for _ in range(2 * FAILED_FREE):
        assert people.users.log_in("ann", "wrong", address="192.0.2.1").user is None
    assert people.users.log_in("ann", PASSWORD, address="192.0.2.1").wait_s > 0
    assert people.users.log_in("ann", PASSWORD, address="192.0.2.2").user is not None
    for _ in range(2 * FAILED_FREE):
        assert people.users.log_in("ann", "wrong", address="192.0.2.2", browser="stolen").user is None
    assert people.users.log_in("ann", PASSWORD, address="192.0.2.2", browser="stolen").wait_s > 0
    assert people.users.log_in("ann", PASSWORD, address="192.0.2.2").user is not None


@pytest.mark.slow
def test_a_known_browser_does_not_wait_for_the_name_and_a_link_ends_the_wait(people: PeopleStore) -> None:
    user(people)
    for number in range(NAME_FREE):
        people.users.log_in("ann", "wrong", address=f"192.0.2.{number}")
    assert people.users.log_in("ann", PASSWORD, address="198.51.100.1").wait_s > 0
    assert people.users.log_in("ann", PASSWORD, address="198.51.100.1", browser="hers").user is not None
    assert people.users.log_in("ann", PASSWORD, address="198.51.100.1").wait_s > 0, "that ends no wait of others"
    people.users.set_password_by_link(people.users.open_link("ann"), PASSWORD)
    assert people.users.log_in("ann", PASSWORD, address="198.51.100.1").user is not None


def test_a_login_gives_who_guesses_no_more_guesses_and_time_does(
    people: PeopleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    user(people)
    now = people.users.all()[0].made_at
    monkeypatch.setattr("time.time", lambda: now)
    monkeypatch.setattr("agents.store.people.users.matches", lambda stored, password: password == PASSWORD)

    def guesses(many: int) -> list[float]:
        return [people.users.log_in("ann", "wrong", address=f"192.0.2.{number}").wait_s for number in range(many)]

    assert guesses(NAME_FREE - 1) == [0.0] * (NAME_FREE - 1)
    for _ in range(3):
        assert people.users.log_in("ann", PASSWORD, address="198.51.100.1").user is not None
    assert guesses(1) == [LOCKED_S]
    now += 10 * FORGOTTEN_S
    assert people.users.log_in("ann", PASSWORD, address="198.51.100.1").user is not None
    assert guesses(10) == [0.0] * 9 + [LOCKED_S], "ten are forgotten, and no more for the login"
    now += (NAME_FREE + 1) * FORGOTTEN_S
    assert guesses(NAME_FREE - 1)[-1] == 0.0


@pytest.mark.parametrize("browsers", [False, True])
def test_when_a_wait_ends_one_of_many_that_come_at_once_is_looked_at(
    people: PeopleStore, monkeypatch: pytest.MonkeyPatch, browsers: bool
) -> None:
    user(people)
    now, looked_at = people.users.all()[0].made_at, list[str]()

    def guess(said: str, number: int) -> Attempt:
        return people.users.log_in("ann", said, address=f"{number}", browser=f"b{number}" if browsers else "")

    def meanwhile(_: str, password: str) -> bool:
        looked_at.append(password)
        if password == "first":
            assert all(guess("meanwhile", number).wait_s > 0 for number in range(1_000, 1_007))
        return False

    monkeypatch.setattr("time.time", lambda: now)
    monkeypatch.setattr("agents.store.people.users.matches", meanwhile)
    for number in range(NAME_FREE):
        guess("before", number)
    now += LOCKED_S + 1
    looked_at.clear()
    assert guess("first", 2_000).wait_s == 2 * LOCKED_S
    assert looked_at == ["first"]


@pytest.mark.slow
def test_a_thousand_known_browsers_have_no_more_guesses_than_one_name_has(
    people: PeopleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    user(people)
    looked_at, now = list[str](), people.users.all()[0].made_at

    def seen(_: str, password: str) -> bool:
        looked_at.append(password)
        return False

    monkeypatch.setattr("time.time", lambda: now)
    monkeypatch.setattr("agents.store.people.users.matches", seen)
    for number in range(1_000):
        people.users.log_in("ann", "wrong", address="192.0.2.1", browser=f"cookie {number}")
    assert len(looked_at) == NAME_FREE


@pytest.mark.slow
def test_a_flood_of_addresses_makes_a_known_browser_no_more_guesses(
    people: PeopleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    user(people)
    now = people.users.all()[0].made_at
    monkeypatch.setattr("time.time", lambda: now)
    monkeypatch.setattr("agents.store.people.users.matches", lambda *_: False)
    for _ in range(FAILED_FREE):
        people.users.log_in("ann", "wrong", address="192.0.2.1", browser="stolen")
        people.users.log_in("nobody", "wrong", address="192.0.2.1")
    for number in range(KEPT_MAX + 9):
        people.users.log_in(f"nobody{number}", "wrong", address=f"2001:db8:0:{number:x}::/64")
    assert people.users.log_in("ann", "wrong", address="192.0.2.1", browser="stolen").wait_s == LOCKED_S
    assert people.users.log_in("nobody", "wrong", address="192.0.2.1").wait_s == LOCKED_S, "those of few tries go first"


def test_counts_of_long_ago_make_room_for_those_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.store.people.waits.KEPT_MAX", 3)
    waits, later = Waits(), 1e9 + 10 * FORGOTTEN_S
    for number in range(3):
        for _ in range(FAILED_FREE):
            waits.take(("ann", f"old {number}"), 1e9)
    for _ in range(FAILED_FREE - 1):
        for asker in ("new", "another"):
            assert waits.take(("ann", asker), later) == (0.0, 0.0)
    assert waits.take(("ann", "new"), later) == (0.0, LOCKED_S)


@pytest.mark.slow
def test_a_mark_is_of_one_password_of_one_user(people: PeopleStore) -> None:
    def mark() -> str:
        found = people.users.named("ann")
        assert found is not None
        return found.mark

    link = people.users.add("ann", Role.ANALYST, "test")
    assert mark() == ""
    marks = [people.users.set_password_by_link(link, PASSWORD).mark]
    assert marks[0] == mark()
    people.users.change_password("ann", PASSWORD, "another long one", "session")
    marks.append(mark())
    people.users.change_password("ann", "another long one", PASSWORD, "session")
    marks.append(mark())
    for disabled in (True, False):
        people.users.change("ann", disabled=disabled)
        marks.append(mark())
    assert marks[-1] == marks[-2] != marks[-3], "who is enabled again begins anew"
    people.users.change("ann", role=Role.VIEWER)
    assert people.users.log_in("ann", PASSWORD).user is not None and mark() == marks[-1], "nothing else ends it"
    people.sessions.end_all("ann")
    marks.append(mark())
    people.users.remove("ann")
    user(people)
    assert len({*marks, mark()}) == 6


@pytest.mark.slow
def test_wrong_passwords_at_once_all_count(people: PeopleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    user(people)
    now = people.users.all()[0].made_at
    monkeypatch.setattr("time.time", lambda: now)
    barrier = threading.Barrier(8)

    def guess(_: int) -> None:
        barrier.wait()
        people.users.log_in("ann", "wrong")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(guess, range(8)))
    assert people.users.log_in("ann", PASSWORD).wait_s > 0


@pytest.mark.slow
def test_a_session_ends_with_its_time_its_user_and_a_new_password(
    people: PeopleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    user(people)
    user(people, "bea", Role.ADMIN)
    secret = people.sessions.begin("ann", "192.0.2.7", "x" * 500)
    found = people.sessions.find(secret)
    assert found is not None and (found.name, found.role, len(found.browser)) == ("ann", Role.ANALYST, 200)
    people.users.change("ann", role=Role.VIEWER)
    again = people.sessions.find(secret)
    assert again is not None and again.role == Role.VIEWER, "another role holds at once"
    assert people.sessions.find(secret + "x") is None
    other = people.sessions.begin("ann", "192.0.2.8", "")
    people.users.change_password("ann", PASSWORD, "another long one", found.session)
    assert people.sessions.find(secret) is not None
    assert people.sessions.find(other) is None
    people.users.change("ann", disabled=True)
    assert people.sessions.find(secret) is None
    people.users.change("ann", disabled=False)
    assert people.sessions.find(secret) is None, "it does not come back"
    secret = people.sessions.begin("bea", "", "")
    ends = found.began_at + SESSION_S + 60
    monkeypatch.setattr("time.time", lambda: ends)
    assert people.sessions.find(secret) is None
    assert people.forget_old(ends) == 1


def test_a_token_may_what_it_was_made_for_and_no_more_than_its_user(
    people: PeopleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    user(people, role=Role.OPERATOR)
    user(people, "bea", Role.ADMIN)
    text, token_id = people.tokens.make("ann", "tickets", ["triage"], 2)
    found = people.tokens.find(text)
    assert found is not None and found.may == {AccessScope.METRICS, AccessScope.READ, AccessScope.TRIAGE}
    assert people.tokens.find(text[:-1] + ("a" if text[-1] != "a" else "b")) is None
    metrics, _ = people.tokens.make("ann", "prometheus", ["metrics"])
    only = people.tokens.find(metrics)
    assert only is not None and only.may == {AccessScope.METRICS}
    with pytest.raises(UsageError, match="the role operator has no scope admin"):
        people.tokens.make("ann", "more", ["admin"])
    people.users.change("ann", role=Role.VIEWER)
    less = people.tokens.find(text)
    assert less is not None and less.may == {AccessScope.METRICS, AccessScope.READ}
    with pytest.raises(UsageError, match="no such token"):
        people.tokens.revoke(token_id, "bea", of="bea")
    people.tokens.revoke(token_id, "bea")
    assert people.tokens.find(text) is None
    people.users.change("ann", disabled=True)
    assert people.tokens.find(metrics) is None
    people.users.change("ann", disabled=False)
    late = people.tokens.all()[0].made_at + 91 * 86_400
    monkeypatch.setattr("time.time", lambda: late)
    assert people.tokens.find(metrics) is None
    assert people.tokens.forget_old(late + KEPT_S) == 2


@pytest.mark.parametrize(
    ("scopes", "days", "what_for", "said"),
    [
        ([], 90, "x", "without a scope"),
        (["root"], 90, "x", "cannot use scope"),
        (["read"], 0, "x", "0 days"),
        (["read"], float("nan"), "x", "days"),
        (["read"], 1e9, "x", "at most 366"),
        (["read"], 90, " ", "what it is for"),
    ],
)
def test_a_token_that_cannot_be_made_says_why(
    people: PeopleStore, scopes: list[str], days: float, what_for: str, said: str
) -> None:
    user(people)
    with pytest.raises(UsageError, match=said):
        people.tokens.make("ann", what_for, scopes, days)
    assert people.tokens.all() == []


@pytest.mark.slow
def test_one_admin_stays(people: PeopleStore) -> None:
    user(people, "bea", Role.ADMIN)
    user(people)
    for take_away in (
        lambda: people.users.change("bea", role=Role.VIEWER),
        lambda: people.users.change("bea", disabled=True),
        lambda: people.users.remove("bea"),
    ):
        with pytest.raises(UsageError, match="there would be no admin"):
            take_away()
    user(people, "cyd", Role.ADMIN)
    people.users.remove("bea")
    assert [one.name for one in people.users.all()] == ["ann", "cyd"]


def test_the_first_admin_gets_a_new_link_at_each_start_until_they_have_a_password(people: PeopleStore) -> None:
    first, second = people.users.first_admin(), people.users.first_admin()
    assert first and second and first != second
    assert people.users.by_link(first) is None
    people.users.set_password_by_link(second, PASSWORD)
    assert people.users.first_admin() is None
    assert people.users.log_in("admin", PASSWORD).user is not None


def test_a_user_called_admin_is_not_replaced_by_the_first_admin(people: PeopleStore) -> None:
    user(people, "admin", Role.VIEWER)
    assert people.users.first_admin() is None
    assert people.users.log_in("admin", PASSWORD).user is not None


def test_somebody_of_a_provider_is_known_by_their_subject_alone(people: PeopleStore, store: Store) -> None:
    user(people)
    with pytest.raises(UsageError, match="another user of that name"):
        people.users.by_subject("https://login.example 7", "ann", Role.ADMIN)
    made = people.users.by_subject("https://login.example 7", "ann.smith", Role.VIEWER)
    again = people.users.by_subject("https://login.example 7", "renamed", Role.OPERATOR)
    assert (made.name, again.name, again.role) == ("ann.smith", "ann.smith", Role.OPERATOR)
    people.users.by_subject("https://login.example 7", "renamed", Role.OPERATOR)
    noted = [(one.action, one.object, one.detail) for one in AuditLog(store).entries()]
    assert noted == [
        ("user changed", "ann.smith", "role operator, by OpenID Connect"),
        ("user added", "ann.smith", "role viewer, by OpenID Connect"),
    ]
    assert people.users.log_in("ann.smith", "").user is None
    for role in (None, Role.ADMIN):
        people.users.change("ann.smith", disabled=role is not None)
        with pytest.raises(UsageError, match="cannot log in"):
            people.users.by_subject("https://login.example 7", "x", role)
    with pytest.raises(UsageError, match="gives you no role"):
        people.users.by_subject("https://login.example 8", "new", None)


@pytest.mark.parametrize("name", ["", " ", "-a", "a b", "ä", "a\nb", "x" * 65, "a'; DROP TABLE users"])
def test_a_name_that_nobody_may_have(people: PeopleStore, name: str) -> None:
    with pytest.raises(UsageError, match="cannot use the name"):
        people.users.add(name, Role.VIEWER, "bea")
    assert people.users.log_in(name, PASSWORD).user is None
    assert people.users.named(name) is None
