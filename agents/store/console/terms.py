"""What people type into a search: clients, networks, domains, wildcards, times, and `key:value`; nothing is an error.

    10.0.0.7  10.0.0.0/8  evil.example  *.evil.example  evil  last 2h  2026-11-20..21
    severity:high  type:TXT  rcode:NXDOMAIN  score>0.7

Words that stand beside each other all have to hold; several of one kind (two clients, two types) are alternatives.
What looks like one of these and is none is said beside what is found (`not_understood`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from agents.core.errors import MessageError, NameFormatError
from agents.core.text import refang, utc
from agents.core.types import Severity, clean
from agents.dns.message import rcode_number, type_number
from agents.dns.name import domain_text, from_text
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewState

UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
TERMS_MAX = 16
"""Words of a search that are looked for, the first ones: each is compared with every text of every row."""
SEARCH_MAX = 1_024
"""Characters of a search that are read."""
OF_INCIDENTS = ("state", "label", "assignee", "tool", "kind", "model")
"""Keys of a search that no query has."""
OF_QUERIES = ("type", "rcode")
"""Keys of a search that no incident has."""
NONE_TYPED = "none"
"""What somebody types who means incidents without a label, an assignee or a tool."""
KEYS = ("client", "domain", "name", "severity", *OF_INCIDENTS, *OF_QUERIES, "why")
"""What `key:value` may name."""
_LAST = re.compile(
    r"\blast\s*(\d{1,5})?\s*(?:(m)(?:in(?:ute)?s?)?|(h)(?:ours?)?|(d)(?:ays?)?|(w)(?:eeks?)?)\b", re.IGNORECASE
)
_DAY = r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d))?"
_SPAN = re.compile(rf"(?<!\S){_DAY}(?:\.\.(?:(\d\d)|{_DAY})?)?(?!\S)")
_SCORE = re.compile(r"(?<!\S)score\s*(>=|>|<=|<)\s*([01]?(?:\.\d+)?)(?!\S)")


@dataclass(frozen=True, slots=True)
class Terms:
    """A search as it was understood. Times: since <= t < until, Unix seconds."""

    clients: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()  # CIDR
    domains: tuple[str, ...] = ()  # lower case, presentation form; also a name below one
    patterns: tuple[str, ...] = ()  # names with * for any text
    words: tuple[str, ...] = ()  # parts of a name, a tool or an assignee
    since: float | None = None
    until: float | None = None
    score_from: float | None = None
    score_to: float | None = None
    keys: tuple[tuple[str, str], ...] = field(default=())  # of KEYS, values in lower case
    not_understood: tuple[str, ...] = ()  # words, each with what is odd about it

    def of(self, key: str) -> tuple[str, ...]:
        """Values that were given for a key."""
        return tuple(value for name, value in self.keys if name == key)

    @property
    def understood(self) -> list[str]:
        """What is looked for, in words; days are UTC."""
        kinds = {"client": self.clients, "network": self.networks, "domain": self.domains, "name": self.patterns}
        said = [f"{kind} {one}" for kind, values in kinds.items() for one in values]
        said += [f"text {word}" for word in self.words] + [f"{key} {value}" for key, value in self.keys]
        said += [] if self.since is None else [f"from {utc(self.since)}"]
        said += [] if self.until is None else [f"before {utc(self.until)}"]
        said += [] if self.score_from is None else [f"score from {self.score_from:g}"]
        return said + ([] if self.score_to is None else [f"score up to {self.score_to:g}"])

    def narrowed(self, since: float | None, until: float | None) -> Terms:
        """The same in a span that was named beside it."""
        return replace(self, since=self.since if since is None else since, until=self.until if until is None else until)


def parse_search(text: str, now: float, without: Sequence[str] = ()) -> Terms:
    """Read a search. now: Unix seconds, that "last 2h" is counted from; days are UTC.

    without: keys that what is searched does not have, OF_INCIDENTS or OF_QUERIES.
    """
    terms = Terms()
    rest = refang(clean(text[:SEARCH_MAX]))
    if found := _LAST.search(rest):
        unit = next(filter(None, found.groups()[1:])).lower()
        terms = replace(terms, since=now - float(found[1] or 1) * UNITS_S[unit])
        rest = rest[: found.start()] + " " + rest[found.end() :]
    if found := _SPAN.search(rest):
        since, until = _span(found)
        if since is not None:
            terms = replace(terms, since=since, until=until)
            rest = rest[: found.start()] + " " + rest[found.end() :]
    while found := _SCORE.search(rest):
        bound = float(found[2] or 0)
        terms = replace(terms, score_from=bound) if ">" in found[1] else replace(terms, score_to=bound)
        rest = rest[: found.start()] + " " + rest[found.end() :]
    words = [*dict.fromkeys(rest.split())]
    odd = [f"{word} ({what})" for word in words[:TERMS_MAX] if (what := _what_is_odd(word, without))]
    odd += [f"{word} (left out: more than {TERMS_MAX} words)" for word in words[TERMS_MAX:]]
    odd += ["the rest (more than 1,024 characters)"] if len(text) > SEARCH_MAX else []
    return replace(_with_words(terms, words[:TERMS_MAX]), not_understood=tuple(odd))


def _what_is_odd(word: str, without: Sequence[str]) -> str:
    """Why a word is probably not what somebody meant; "" where it may be."""
    key, colon, value = word.partition(":")
    key = key.lower()
    if _kind_of(word)[0] in ("clients", "networks"):
        return ""
    if colon and key not in KEYS:
        return f"there is no {key}:; taken as a part of a name"
    if colon and not value:
        return "names no value; taken as a part of a name"
    if colon and key in without:
        return f"these have no {key}: nothing can be found"
    if colon:
        return f"there is no such {key}: nothing can be found" if _is_no_value(key, value) else ""
    if _LIKE_ADDRESS.fullmatch(word):
        return "no address; taken as a name"
    if _LIKE_DAY.fullmatch(word):
        return "no day; taken as a part of a name"
    if _LIKE_SCORE.match(word):
        return "a score is written score>0.7; taken as a part of a name"
    return "a time is written last 2h or last 3 days; taken as a part of a name" if word.lower() == "last" else ""


def _is_no_value(key: str, value: str) -> bool:
    """Whether a key has a closed list of values, and this is none of them."""
    if key in _NUMBERED:
        try:
            _NUMBERED[key](value)
        except MessageError:
            return True
    return key in _VALUES and value.lower().replace("in-work", "in work") not in _VALUES[key]


def _with_words(terms: Terms, words: Iterable[str]) -> Terms:
    found: dict[str, list[str]] = {name: [] for name in ("clients", "networks", "domains", "patterns", "words")}
    keys: list[tuple[str, str]] = []
    for word in words:
        key, colon, value = word.partition(":")
        if colon and key.lower() in KEYS and value:
            if key.lower() not in _BOUND:
                keys.append((key.lower(), value.lower().replace("in-work", "in work")))
                continue
            kind, value = _bound_to(key.lower(), value)
        else:
            kind, value = _kind_of(word)
        found[kind].append(value)
    return replace(
        terms,
        clients=tuple(found["clients"]),
        networks=tuple(found["networks"]),
        domains=tuple(found["domains"]),
        patterns=tuple(found["patterns"]),
        words=tuple(found["words"]),
        keys=tuple(keys),
    )


_VALUES: Mapping[str, Sequence[str]] = {
    "severity": [one.name.lower() for one in Severity],
    "state": [str(one) for one in ReviewState],
    "label": [*(str(one) for one in Label), NONE_TYPED],
}
_NUMBERED: Mapping[str, Callable[[str], int]] = {"type": type_number, "rcode": rcode_number}
"""Keys whose values are known, and those whose values have numbers."""
_LIKE_ADDRESS = re.compile(r"\d{1,4}(?:\.\d{1,4}){3}(?:/\S*)?|[0-9a-f:.]+/\d+", re.IGNORECASE)
_LIKE_DAY = re.compile(r"\d{4}-\d{1,2}-\d{1,2}(?:T\S*)?(?:\.\.\S*)?")
_LIKE_SCORE = re.compile(r"score\s*[<>=]", re.IGNORECASE)
_BOUND = ("client", "domain", "name")
"""Keys whose values are written as rows have them."""


def _bound_to(key: str, value: str) -> tuple[str, str]:
    """What a value of `client:`, `domain:` or `name:` is, whatever else it looks like."""
    kind, found = _kind_of(value)
    if key == "client":
        return (kind, found) if kind in ("clients", "networks") else ("clients", value)
    if key == "domain":
        return (kind, found) if kind == "patterns" else ("domains", value.rstrip(".").lower() or value)
    return (kind, found) if kind == "patterns" else ("words", value.lower())


def _kind_of(word: str) -> tuple[str, str]:
    """What a word is, and how it is written in rows."""
    try:
        return "clients", str(ipaddress.ip_address(word))
    except ValueError:
        pass
    if "/" in word:
        try:
            return "networks", str(ipaddress.ip_network(word, strict=False))
        except ValueError:
            pass
    name = word.rstrip(".").lower() or word
    if "*" in name:
        return "patterns", name
    if "." in name:
        try:
            if domain_text(from_text(name)) != ".":
                return "domains", name
        except NameFormatError:
            pass
    return "words", name


def _span(found: re.Match[str]) -> tuple[float | None, float | None]:
    """A day, a minute, or a span from one to the other; its last day or minute is part of it."""
    day, minute, last_of_month, last, last_minute = found.groups()
    try:
        since = _at(day, minute)
        if last_of_month:
            last, last_minute = f"{day[:8]}{last_of_month}", None
        if last:
            end, step = _at(last, last_minute), timedelta(minutes=1) if last_minute else timedelta(days=1)
        elif ".." in found[0]:
            return since.timestamp(), None
        else:
            end, step = since, timedelta(minutes=1) if minute else timedelta(days=1)
        return since.timestamp(), (end + step).timestamp()
    except (ValueError, OverflowError):  # 2026-02-31, 9999-12-31
        return None, None


def _at(day: str, minute: str | None) -> datetime:
    return datetime.fromisoformat(f"{day}T{minute or '00:00'}").replace(tzinfo=UTC)


def registered_of(name: str) -> str:
    """The registered domain that a name belongs to, as rows have it; what belongs to none, as it is."""
    try:
        found = domain_text(from_text(name))
    except NameFormatError:
        return name
    return name if found == "." else found
