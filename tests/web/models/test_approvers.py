"""Who decides about models where there are users: a user, by whatever way; a name that is none is recorded as such."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from agents.core.errors import StoreError, UsageError
from agents.learning.baseline import model_bytes
from agents.learning.registry import ModelRegistry
from agents.learning.release.desk import ModelDesk
from agents.learning.release.transitions import Author
from agents.scoring.model import Model
from agents.store.people.people import PeopleStore
from agents.store.people.roles import Role
from tests.support.carrier import with_factor
from tests.web.test_console import TOKEN, World

pytestmark = pytest.mark.integration
OLD, NEW = with_factor(0.9), with_factor(0.8)
PASSWORD = "wholly-unusual horse 4711"


class Approved(World):
    """APPROVALS=2, one version in production, and one that waits."""

    def desk(self, folder: Path) -> ModelDesk:
        """With a registry that asks for two authors."""
        made = super().desk(folder)
        self.registry = ModelRegistry(folder / "models", Model.from_bytes, model_bytes(), approvals=2)
        for model in (OLD, NEW):
            self.registry.save_candidate(model)
        self.registry.promote(OLD.model_id, Author("the retraining"))
        self.registry.mark(NEW.model_id, "waiting", Author("the retraining"))
        return replace(made, registry=self.registry)

    def approve(self, token: str = TOKEN, author: str = "") -> httpx.Response:
        """Of the version that waits, over the API."""
        sent = {"model_id": NEW.model_id, "author": author, "reason": "seen"}
        return self.call("POST", "/models/approve", headers={"Authorization": f"Bearer {token}"}, json=sent)

    @property
    def approvers(self) -> list[str]:
        """Whose approvals count so far."""
        return [one["by"] for one in self.registry.approvals(NEW.model_id)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Approved]:
    made = Approved(tmp_path)
    yield made
    made.store.close()


def user(world: World, name: str, role: Role) -> str:
    """A user who can log in; a token of theirs."""
    people = PeopleStore(world.store)
    people.users.set_password_by_link(people.users.add(name, role, "test"), PASSWORD)
    scopes = ["read", *(["operate"] if role is Role.OPERATOR else [])]
    return people.tokens.make(name, "tests", scopes)[0]


def test_until_there_are_users_a_name_is_enough(world: Approved) -> None:
    PeopleStore(world.store).users.add("admin", Role.ADMIN, "first start")  # whose link nobody has opened
    assert world.approve(author="Ann").status_code == 200
    assert world.approve(author="bob").status_code == 200
    assert world.registry.current().model_id == NEW.model_id


@pytest.mark.slow
def test_two_users_must_approve_where_there_are_users(world: Approved) -> None:
    assert world.approve(author="somebody").status_code == 200 and world.approvers == ["somebody"]
    ann, bob = user(world, "ann", Role.OPERATOR), user(world, "bob", Role.OPERATOR)
    user(world, "vic", Role.VIEWER)
    for name in ("nobody", "vic", "somebody"):
        refused = world.approve(author=name)
        assert refused.status_code == 422
        assert f"cannot approve: {name} is no user who may operate, and APPROVALS=2 asks" in refused.text
    assert world.approve(author=" ANN ").status_code == 200, "the API token names a user"
    assert world.approvers == ["ann"], "a name that was free before there were users counts no more"
    assert "again: ann has" in world.approve(ann, author="bob").text, "with a token of her own she is herself"
    assert world.registry.current().model_id == OLD.model_id
    assert world.approve(bob).status_code == 200
    assert world.registry.current().model_id == NEW.model_id
    assert [one.by for one in world.registry.decisions()] == ["somebody", "ann", "bob"]


@pytest.mark.slow
def test_an_approval_of_a_user_who_is_disabled_counts_no_more(world: Approved) -> None:
    ann, bob, eve = (user(world, name, Role.OPERATOR) for name in ("ann", "bob", "eve"))
    assert world.approve(ann).status_code == 200
    PeopleStore(world.store).users.change("ann", disabled=True, by="test")
    assert world.approve(author="ann").status_code == 422
    assert world.approve(bob).status_code == 200 and world.registry.current().model_id == OLD.model_id
    assert world.approve(eve).status_code == 200 and world.registry.current().model_id == NEW.model_id


def test_any_name_goes_back_and_is_recorded_as_no_user(world: Approved, monkeypatch: pytest.MonkeyPatch) -> None:
    user(world, "ann", Role.OPERATOR)
    desk = world.parts.desk
    assert isinstance(desk, ModelDesk)
    assert desk.decide("pin", "", "root", "a trial").made.by == "root (no user)"
    assert desk.decide("unpin", "", "Ann", "a trial").made.by == "ann"

    def away(*_: object) -> None:
        raise StoreError("cannot read users: the database is away")

    monkeypatch.setattr(world.store, "reading", away)
    assert desk.decide("pin", "", "root", "a trial").made.by == "root", "nobody can say who is a user"
    desk.decide("unpin", "", "root", "a trial")
    with pytest.raises(StoreError, match="the database is away"):
        desk.decide("approve", NEW.model_id, "ann", "a trial")
    with pytest.raises(UsageError, match="never in production"):
        desk.decide("restore", str(desk.registry.models_dir / "candidates" / f"{NEW.model_id}.npz"), "ann", "round it")
