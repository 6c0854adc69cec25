"""What happens to a version: who did it, when and why; and what was in production when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from agents.core.text import harmless, printable, utc

REASON_MAX = 300
"""Characters kept of a reason and of a name."""
TRANSITIONS_MAX = 2_000
"""Transitions that the index keeps, the newest; models/CHANGELOG.md has all."""
IN_PRODUCTION = ("deploy", "approve", "roll back", "restore", "promote canary")
"""Actions that put another model into production."""
CHANGELOG_HEAD = "# Models\n\nWritten by the program: a line for each transition of a model, the newest last.\n\n"
_DONE = {
    "deploy": "deployed {}",
    "hold": "{} waits for a person",
    "turn down": "{} missed a gate",
    "pass over": "passed {} over",
    "approve": "deployed {}",
    "approve first": "approved {}, which another author has to approve, too",
    "reject": "rejected {}",
    "roll back": "back to {}",
    "restore": "restored {}",
    "pin": "pinned {}: no training and no person replaces it until it is unpinned",
    "unpin": "unpinned {}: the next training may replace it",
    "anchor": "{} is the anchor that candidates are compared with",
    "begin canary": "{} judges as a canary",
    "promote canary": "deployed {} after its time as a canary",
    "stop canary": "{} is no canary any more",
    "export": "exported {} for another installation",
    "import": "imported {} from another installation",
    "verdict": "another installation has validated {}",
}
"""What each kind of transition did."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who decides, and why; both may be empty."""

    by: str = ""
    reason: str = ""

    def __str__(self) -> str:
        who = f"by {printable(self.by, REASON_MAX)}" if self.by else "by somebody"
        return f"{who} ({printable(self.reason, REASON_MAX)})" if self.reason else who


NOBODY = Author()


@dataclass(frozen=True, slots=True)
class Transition:
    """What happened to a model. at: Unix seconds; replaced: the model in use before; note: what to know of it.

    by_person: a person decided it, else the program. number: 1 is the first of this registry.
    """

    action: str  # a key of _DONE
    model_id: str
    at: float
    by: str = ""
    reason: str = ""
    replaced: str = ""
    note: str = ""
    by_person: bool = True
    number: int = 0

    @property
    def text(self) -> str:
        """It in one sentence, without its author."""
        done = _DONE.get(self.action, f"{printable(self.action)} {{}}").format(self.model_id)
        return f"{done}; {self.note}" if self.note else done

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def transition_of(row: Mapping[str, Any]) -> Transition:
    """A transition as `to_json` gave it; what another release knows besides is left out."""
    names = {one.name for one in fields(Transition)}
    return Transition(**{name: value for name, value in row.items() if name in names})


def changelog_line(one: Transition, kind: str = "") -> str:
    """A line of models/CHANGELOG.md, with what people wrote as plain text on it; it begins with its number.

    kind: what the model is called before the number, "" of query models.
    """
    replaced = f", in place of {one.replaced}" if one.replaced and one.replaced != one.model_id else ""
    who = _plain(one.by) or ("somebody" if one.by_person else "the program")
    reason = f": {_plain(one.reason)}" if one.reason else ""
    number = f"{kind} {one.number}".lstrip()
    return f"- {number} · {utc(one.at)} · {_plain(one.text, 600)}{replaced} · by {who}{reason}\n"


def last_number(changelog: str, kind: str = "") -> int:
    """The number of the last whole line of a change log that is about such models; 0 if there is none."""
    begin = f"- {kind} " if kind else "- "
    for line in reversed(changelog.splitlines()):
        head, _, rest = line.removeprefix(begin).partition(" · ")
        if line.startswith(begin) and rest and head.isascii() and head.isdigit():
            return int(head)
    return 0


def _plain(text: str, size: int = REASON_MAX) -> str:
    """Text that Markdown shows as it is, without links and markup."""
    shown = harmless(text, size)
    return "".join(f"\\{char}" if char in r"\`*_<>[]|#!" else char for char in shown)


@dataclass(frozen=True, slots=True)
class Period:
    """A time in which one model was in production. Unix seconds; until: None = it still is."""

    model_id: str
    since: float | None  # None: from before this registry began
    until: float | None
    how: str = ""  # the action that put it there
    by: str = ""
    reason: str = ""


def periods(transitions: Sequence[Transition], champion: str) -> list[Period]:
    """What was in production when, the newest first. champion: the model in use now."""
    changes = [one for one in transitions if one.action in IN_PRODUCTION]
    out: list[Period] = []
    first = changes[0].replaced if changes else champion
    begun: Transition | None = None
    at = first
    for one in changes:
        if at:
            out.append(_period(at, begun, one.at))
        begun, at = one, one.model_id
    if at and at != champion:  # a file was copied in by hand, or the champion's is gone
        out.append(_period(at, begun, None))
        out.append(Period(champion, None, None, "found in the champion's place"))
    elif champion:
        out.append(_period(champion, begun, None))
    return out[::-1]


def _period(model_id: str, begun: Transition | None, until: float | None) -> Period:
    if begun is None:
        return Period(model_id, None, until)
    return Period(model_id, begun.at, until, begun.action, begun.by, begun.reason)


def of_earlier_release(index: Mapping[str, Any]) -> list[Transition]:
    """The transitions that an index without any tells of: decisions of people, and deployments between them."""
    decisions = [transition_of(row) for row in index.get("decisions", ())]
    steps = list(index.get("history", ()))
    following = [step["model_id"] for step in steps[1:]] + [index.get("champion", "")]
    known = {(one.model_id, one.replaced) for one in decisions}
    deployed = [
        Transition("deploy", to, float(step["at"]), replaced=step["model_id"], by_person=False)
        for step, to in zip(steps, following, strict=True)
        if to and "at" in step and (to, step["model_id"]) not in known
    ]
    return numbered_from_one(sorted([*decisions, *deployed], key=lambda one: one.at))


def numbered_from_one(transitions: Iterable[Transition]) -> list[Transition]:
    """The same, numbered from 1 on."""
    return [transition_of(one.to_json() | {"number": number}) for number, one in enumerate(transitions, start=1)]
