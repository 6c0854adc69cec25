"""How much of what leaves a kind of benign service explains, and what of this network supports that.

A kind of service (kinds.py) explains an incident if the names have its shape and one of its signs is seen here. What is
explained is listed below HIGH until its allowance is used up. Allowances are counted for all incidents together: below
each domain, of each client, and of the network (docs/bound.md).
"""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agents.core.columns import Coded
from agents.core.npz import FormatError, object_of
from agents.core.text import NETWORK
from agents.core.types import DAY_S
from agents.detection.explanations.fingerprints import TXT, tool_of, trace_of
from agents.detection.explanations.habits import DAYS_MIN, Book, Habits
from agents.detection.explanations.kinds import PLAIN, Likeness, ServiceKind, Sign, kinds_of, stem_of, things_of
from agents.detection.explanations.network_profile import HABIT_TIMES, SETTLED_TIMES, NetworkProfile
from agents.detection.flows import Flows
from agents.detection.limits import LIMITS, SCATTERED, Evidence
from agents.detection.secrets import preview
from agents.detection.shared.view import NetworkView, SharedBook
from agents.detection.state import Asked, Scope
from agents.dns.message import type_number
from agents.dns.name import from_text, is_listed, labels_of

MX, PTR = type_number("MX"), type_number("PTR")
YOUNG_BYTES = 1_000.0
"""What a kind explains below a domain that is young or rare here, on a day."""
CLIENT_BYTES, CLIENT_BYTES_MAIL = 3_000.0, 6_000.0
"""What kinds explain of one client on a day, below all young and rare domains; more if it handles mail."""
NETWORK_BYTES, NETWORK_BYTES_A_CLIENT = 24_000.0, 200.0
"""What kinds explain of all clients on a day, and so much more for each client at home."""
CLIENTS_MIN, CLIENTS_DOMAINS = 3, 5
"""So many clients that ask below a domain are a sign, each of which asks below so many domains a day: players and
cameras ask below fewer than what makes a client at home."""
MAIL_DOMAINS = 6
"""A client that looks up mail servers, senders' policies or keys of so many domains on a day handles mail."""
MAIL_CLIENTS_MAX = 10_000
MAX_ROW = 1 << 62
BURST_S, BURST_SHARE, BURST_NAMES, TIMES_MAX = (60, 600), 0.8, 3, 64
"""A page that tests the network asks for so many of its names of ten minutes within one, of a few at least; so many
names are looked at."""
FIXED_TIMES = 4
"""A client asks for each of a few fixed names more often than a carrier repeats one that nobody answers."""
REVERSE_MIN = 5
"""Look-ups of addresses' names in a day before they are a sign, and as many as there are names to be explained."""
TEXTS_MIN = 2
"""So many of an incident's names hold text, before it is no service."""
SAME_MIN = 3
"""Keys or addresses that a client asks about below two domains."""
LOOKS_A_MINUTE = 60
"""Odd names of a minute whose signs are looked for: in a flood of them, the rest is explained by nothing."""
_EXPLAINED = frozenset(limit.kind for limit in LIMITS if limit.explained)


@dataclass(slots=True)
class Account:
    """What is explained of one incident. alike: kinds whose shape its names have, the likeliest first."""

    alike: list[Likeness]
    sign: Sign | None = None
    counted: float = 0.0  # bytes that were counted
    looked: int = 0  # names at the last search for a sign
    allowance: float = 0.0
    spent: float = 0.0  # of the allowance
    key: str = ""  # whose allowance it was last
    times: deque[float] = field(default_factory=lambda: deque(maxlen=TIMES_MAX))  # of the last new names
    listed: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it is beyond what any of its kinds explains: then nothing more is compared."""
        return self.spent > SETTLED_TIMES * max((one.kind.budget for one in self.alike), default=0.0)

    @property
    def kind(self) -> ServiceKind | None:
        """The kind that the names still fit: the one with a sign, else the likeliest."""
        tried = self.alike if self.sign is None else self.alike[:1]
        return next((one.kind for one in tried if one.holds), None)

    def note(self, wire: bytes, qtype: int, ts: float | None = None) -> None:
        """Compare one more name. ts: when it was new, if that was after the incident had opened."""
        if not self.alike or self.is_over:
            return
        stem = stem_of(wire)
        for one in () if PLAIN.fullmatch(stem) else self.alike:
            one.takes([(stem, qtype)])
        if ts is not None and self.sign is Sign.BURST:
            self.times.append(ts)

    def is_burst(self, ts: float) -> bool:
        """Whether nearly all new names of the last minutes came within the last one."""
        ages = [ts - one for one in self.times]
        return sum(age <= BURST_S[0] for age in ages) >= BURST_SHARE * sum(age <= BURST_S[1] for age in ages)

    def to_json(self) -> dict[str, Any] | None:
        """The explanation as JSON values; None without one."""
        kind = self.kind
        if kind is None or self.spent > SETTLED_TIMES * max(one.kind.budget for one in self.alike if one.holds):
            return None
        return {
            "kind": kind.name,
            "what": kind.what,
            "sign": "" if self.sign is None else self.sign.value,
            "bytes_a_day": round(self.spent, 1),
            "budget": self.allowance,
            "listed": self.listed,
            "remedy": kind.remedy,
        }


@dataclass(frozen=True, slots=True)
class Asking:
    """An incident's client and domain, its flow, and the time.

    domain_key: keyed hash of the domain; row: of Flows; queries, names: of the flow so far.
    """

    ts: float
    client: str
    domain: str
    domain_key: np.uint64
    row: int
    queries: int
    names: int

    @property
    def pair(self) -> str:
        """A client and a domain as one key."""
        return f"{self.client} {self.domain}"

    @property
    def keys(self) -> tuple[str, ...]:
        """Whose habits matter: the domain's, the pair's, and the domain's for all clients together."""
        return self.domain, self.pair, f"{NETWORK} {self.domain}"


SHARED_BOOKS = "domains", "network", "clients"
"""Names of the sums over all clients, as several detectors share them."""


@dataclass(slots=True)
class News:
    """What several detectors must share beside sums, since it was asked for last."""

    habits: list[tuple[float, str, float, str]] = field(default_factory=list)  # see Habits.note; of all clients
    mail: list[tuple[str, int]] = field(default_factory=list)  # clients that handle mail, and the day


class Explainer:
    """Explains the incidents of one detector. learning: the network's habits are yet unknown.

    profile: what is known of the network, reviewed; without one, habits count as soon as they are learnt.
    """

    def __init__(self, flows: Flows, view: NetworkView | None = None) -> None:
        """view: of the clients of other detectors, where there are any."""
        self.learning = False
        self.profile: NetworkProfile | None = None
        self._flows = flows
        self._view = view
        self._books = [Book() if view is None else SharedBook(name, view, name == "clients") for name in SHARED_BOOKS]
        self._domains, self._network, self._clients = self._books
        self.news = News()
        self._habits = Habits()
        self._homes = (-1, 0)  # minute, clients at home
        self._looks = (-1, 0)  # minute, odd names whose signs were looked for
        self._pending: deque[tuple[int, int, str, int, bool]] = deque()  # row, day, client, domain, whether reverse
        self._reverse: OrderedDict[str, tuple[int, int]] = OrderedDict()  # day, look-ups of that day
        self._mail: OrderedDict[str, tuple[int, set[int]]] = OrderedDict()  # day, domains of that day

    def see(self, ts: float, clients: Coded, asked: Asked) -> None:
        """Note who looks up mail servers, senders' policies and keys, and addresses' names. clients: of each query.

        Texts of other names are none of mail: a tunnel asks for them.
        """
        self.reach(MAX_ROW)
        domains, qtypes, bare = asked.domain, asked.qtype, asked.parts[1:] == asked.parts[:-1]
        texts = (qtypes == TXT) & (bare | (asked.scoped == Scope.SIGNER))
        rows = np.flatnonzero((qtypes == MX) | texts | ((qtypes == PTR) & (asked.scoped != Scope.REVERSE)))
        if not len(rows):
            return
        day, kinds = int(ts // DAY_S), (qtypes[rows] == PTR).astype(np.uint64)
        seen = np.stack([clients.codes[rows].astype(np.uint64), np.where(kinds, rows, domains[rows]), kinds])
        _, first = np.unique(seen, axis=1, return_index=True)
        self._pending = deque(
            (int(rows[at]), day, clients.values[clients.codes[rows[at]]], int(domains[rows[at]]), bool(kinds[at]))
            for at in np.sort(first).tolist()
        )

    def reach(self, row: int) -> None:
        """Take up what was asked up to a row of the batch: what comes after it says nothing yet."""
        while self._pending and self._pending[0][0] <= row:
            _, day, client, domain, reverse = self._pending.popleft()
            if reverse:
                self._note_reverse(day, client)
            else:
                self._note_mail(day, client, domain)

    def _note_reverse(self, day: int, client: str) -> None:
        last, before = self._reverse.pop(client, (day, 0))
        self._reverse[client] = day, 1 + (before if last == day else 0)
        if len(self._reverse) > MAIL_CLIENTS_MAX:
            self._reverse.popitem(last=False)

    def _note_mail(self, day: int, client: str, domain: int) -> None:
        """Keep MAIL_DOMAINS domains of the last day on which there were so many, else of today."""
        last, found = self._mail.pop(client, (day, set()))
        if last != day and (len(found) < MAIL_DOMAINS or abs(last - day) > 1):
            last, found = day, set()
        if len(found) < MAIL_DOMAINS:
            found.add(domain)
            if len(found) == MAIL_DOMAINS and self._view is not None:
                self.news.mail.append((client, day))
        self._mail[client] = last, found
        if len(self._mail) > MAIL_CLIENTS_MAX:
            self._mail.popitem(last=False)

    def handles_mail(self, ts: float, client: str) -> bool:
        """Whether a client looked up the mail servers of many domains, today or yesterday."""
        day, found = self._mail.get(client, (0, set()))
        return len(found) >= MAIL_DOMAINS and abs(int(ts // DAY_S) - day) <= 1

    def open(self, samples: Sequence[tuple[bytes, int]], counted: float = 0.0) -> Account:
        """An account for an incident with these names. A tool's names, and names with text in them, have no kind.

        counted: bytes that do not count, or no more: of earlier days, or from before this process began.
        """
        kinds = kinds_of(samples)
        if not kinds or tool_of(samples) is not None or hold_text(samples):
            return Account([])
        account = Account([Likeness(kind) for kind in kinds], counted=counted)
        for wire, qtype in samples:
            account.note(wire, qtype)
        return account

    def weigh(self, account: Account, asking: Asking, leaked: float, evidence: Evidence) -> bool:
        """Count what an incident carried since the last call; returns whether all of it is explained.

        leaked: bytes since it opened.
        """
        more, account.counted = max(leaked - account.counted, 0.0), max(leaked, account.counted)
        if account.is_over:
            account.listed, account.spent = False, self._domains.add(asking.ts, account.key, more)
            return False
        if account.kind is None or (evidence.ratio >= 1 and evidence.kind not in _EXPLAINED):
            account.listed = False
            return False
        if account.sign is Sign.BURST and not account.is_burst(asking.ts):
            account.sign, account.looked = None, 0
        if account.sign is None and (fits := max(one.fits for one in account.alike)) >= 2 * account.looked:
            account.looked = fits
            self._look(account, asking, evidence)
        kind = account.kind
        young = asking.domain != SCATTERED and self._is_young(asking)
        key = asking.domain if young and asking.client != NETWORK else asking.pair
        account.key, account.spent = key, self._domains.add(asking.ts, key, more)
        account.listed = account.sign is not None and self._within(account, kind, asking, more, key, young)
        most = kind.budget if account.sign is not None else max(one.kind.budget for one in account.alike if one.holds)
        if (account.listed or self.learning) and account.spent <= SETTLED_TIMES * most:
            self._note_habit(asking.ts, key, account.spent, kind.name)
        return account.listed

    def _note_habit(self, ts: float, key: str, amount: float, kind: str) -> None:
        """What several detectors share, one keeps."""
        if self._view is not None and " " not in key:
            self.news.habits.append((ts, key, amount, kind))
        else:
            self._habits.note(ts, key, amount, kind)

    def take_habits(self, habits: Iterable[tuple[float, str, float, str]], mail: Iterable[tuple[str, int]]) -> None:
        """Take up the news of other detectors."""
        for ts, key, amount, kind in habits:
            self._habits.note(ts, key, amount, kind)
        for client, day in mail:
            for domain in range(MAIL_DOMAINS):
                self._note_mail(day, client, domain)

    def take_spent(self, ts: float, spent: Mapping[str, float]) -> None:
        """Count what other detectors explained: bytes by the name of a book and a key (NetworkView.sending)."""
        books = dict(zip(SHARED_BOOKS, self._books, strict=True))
        for name, amount in spent.items():
            book, _, key = name.partition(" ")
            books[book].add(ts, key, amount)

    def spent(self, ts: float) -> dict[str, float]:
        """The sums that detectors share, by the name of a book and a key."""
        books = zip(SHARED_BOOKS, self._books, strict=True)
        return {f"{name} {key}": amount for name, book in books for key, amount in book.sums(ts) if " " not in key}

    def usual(self, ts: float) -> dict[str, float]:
        """What all clients usually carry below each domain on a day."""
        found: dict[str, float] = {}
        for one in self._habits.all_usual(ts):
            client, _, domain = one.key.rpartition(" ")
            if client in ("", NETWORK):
                found[domain] = max(found.get(domain, 0.0), one.amount)
        return found

    def _is_young(self, asking: Asking) -> bool:
        """Whether a domain is young or rare here, by the profile and by what is asked."""
        known = self.profile is not None and self.profile.knows(asking.domain)
        return not known and self._flows.is_young(asking.ts, asking.domain_key)

    def _usual(self, asking: Asking) -> float:
        """Bytes that are usually carried on a day: by the profile, or by what was learnt where there is none, or by
        what other sites of a fleet say where nothing was learnt yet.

        Sums of a client over domains are no domain's habit: a profile has none of them.
        """
        if self.profile is not None and self.profile.days >= DAYS_MIN and asking.domain != SCATTERED:
            return self.profile.usual(asking.domain)
        shared = 0.0 if self._view is None else self._view.facts.usual.get(asking.domain, 0.0)
        own = max(shared, *(self._habits.usual(asking.ts, one) for one in asking.keys))
        if own or self.profile is None or asking.domain == SCATTERED:
            return own
        return self.profile.fleet_usual(asking.domain)

    def _within(self, account: Account, kind: ServiceKind, asking: Asking, more: float, key: str, young: bool) -> bool:
        """Whether the allowances of the domain, the client and the network leave room for so many bytes more."""
        usual = HABIT_TIMES * self._usual(asking)
        most = kind.budget if account.sign is Sign.HABIT else SETTLED_TIMES * kind.budget
        client_most = CLIENT_BYTES_MAIL if self.handles_mail(asking.ts, asking.client) else CLIENT_BYTES
        first = min(kind.budget, YOUNG_BYTES) if young else most
        if young and is_inside(asking.domain):  # nobody outside owns it
            first = kind.budget
        if asking.domain == SCATTERED:
            first = client_most
        account.allowance = max(first, min(usual, most))
        network_most = NETWORK_BYTES + NETWORK_BYTES_A_CLIENT * self._at_home(asking.ts)
        fits = self._network.add(asking.ts, NETWORK if asking.client == NETWORK else "", more) <= network_most
        if young and usual == 0 and asking.client != NETWORK:
            fits = self._clients.add(asking.ts, asking.client, more) <= client_most and fits
        return fits and account.spent <= account.allowance

    def _at_home(self, ts: float) -> int:
        """Clients at home, counted anew each minute."""
        if self._view is not None:
            return self._view.facts.at_home
        minute = int(ts // 60)
        if minute != self._homes[0]:
            self._homes = minute, self._flows.clients_at_home(ts)
        return self._homes[1]

    def supports(self, asking: Asking, name: tuple[bytes, int]) -> bool:
        """Whether this network's data support a kind of service for one odd name: it has the shape, and a sign is seen.
        No allowance is used. name: wire name and query type."""
        minute = int(asking.ts // 60)
        looks = self._looks[1] + 1 if minute == self._looks[0] else 1
        self._looks = minute, looks
        if looks > LOOKS_A_MINUTE:
            return False
        account = self.open([name])
        self._look(account, asking, Evidence(0.0))
        return account.sign is not None

    def _look(self, account: Account, asking: Asking, evidence: Evidence) -> None:
        """Look for a sign that supports one of the kinds. Of several, the one that explains most is taken."""
        alike = sorted((one for one in account.alike if one.holds), key=lambda one: -one.kind.budget)
        tried = [(sign, one) for one in alike for sign in one.kind.signs] + [(Sign.HABIT, one) for one in alike[:1]]
        fast = evidence.window_s == BURST_S[0] and evidence.names >= BURST_NAMES and not account.times
        for sign, one in tried:
            if (fast or sign is not Sign.BURST) and self._is_seen(sign, one.kind, asking):
                account.sign = sign
                account.alike.sort(key=lambda other: other is not one)
                return

    def _is_seen(self, sign: Sign, kind: ServiceKind, asking: Asking) -> bool:
        ts, flows, together = asking.ts, self._flows, asking.client == NETWORK
        if sign is Sign.CLIENTS:
            return asking.domain != SCATTERED and self._settled_below(ts, asking.domain_key) >= CLIENTS_MIN
        if sign is Sign.INSIDE:
            return is_inside(asking.domain)
        if sign is Sign.MAIL:
            clients = flows.clients_below(asking.domain_key) if together else [asking.client]
            return bool(clients) and all(self.handles_mail(ts, client) for client in clients)
        if sign is Sign.BURST:
            return not together and flows.is_at_home(ts, asking.client)
        if sign is Sign.HABIT:
            return not self.learning and self._usual(asking) > 0
        return self._sign_of_client(sign, kind, asking)

    def _settled_below(self, ts: float, domain: np.uint64) -> int:
        own = self._flows.settled_below(ts, domain, CLIENTS_DOMAINS)
        return own if self._view is None else max(own, self._flows.settled_in(self._view.tables.settled, domain))

    def _sign_of_client(self, sign: Sign, kind: ServiceKind, asking: Asking) -> bool:
        """Whether a sign is seen in what else the client asks for."""
        if asking.client == NETWORK or asking.domain == SCATTERED:
            return False
        flows = self._flows
        if sign is Sign.FIXED:
            return asking.queries >= FIXED_TIMES * max(asking.names, 1)
        if sign is Sign.REVERSE:
            day, count = self._reverse.get(asking.client, (0, 0))
            return abs(int(asking.ts // DAY_S) - day) <= 1 and count >= max(asking.names, REVERSE_MIN)
        others = [flows.view(row).samples for row in flows.flows_of(asking.client) if row != asking.row]
        if sign is Sign.TWICE:
            return any(kind in kinds_of(samples) for samples in others)
        mine = things_of(kind, flows.view(asking.row).samples[: asking.names])
        return any(len(mine & things_of(kind, samples)) >= SAME_MIN for samples in others)

    def forget(self, client: str) -> None:
        """Drop all that is known of a client."""
        for one in (self._domains, self._clients, self._network, self._habits):
            one.forget(client)
        for known in (self._reverse, self._mail):
            known.pop(client, None)

    def dump(self) -> bytes:
        """Sums and habits, as JSON."""
        mail = [[client, day, sorted(found)] for client, (day, found) in self._mail.items()]
        books, kinds = [one.dump() for one in (self._domains, self._clients, self._network)], self._habits.dump_kinds()
        return json.dumps({"books": books, "habits": self._habits.dump(), "kinds": kinds, "mail": mail}).encode()

    def load(self, data: bytes) -> None:
        """Restore a dump. Raises FormatError for any other contents."""
        kept = object_of(data, "the file of habits")
        parts = {"books": list, "habits": list, "mail": list}
        if any(not isinstance(kept.get(name), kind) for name, kind in parts.items()):
            raise FormatError("cannot read habits: damaged file")
        books = (self._domains, self._clients, self._network)
        if len(kept["books"]) != len(books) or not all(map(_is_mail, kept["mail"])):
            raise FormatError("cannot read habits: damaged file")
        for book, rows in zip(books, kept["books"], strict=True):
            book.load(rows)
        self._habits.load(kept["habits"], kept.get("kinds"))
        self._mail = OrderedDict((client, (day, set(found))) for client, day, found in kept["mail"])

    def absorb(
        self, data: bytes, wanted: Callable[[str], bool], by_domain: Callable[[str, str], bool | None] | None = None
    ) -> None:
        """Take over from a dump what is of wanted clients alone. by_domain: see snapshot.ByDomain. Raises FormatError
        for any other contents."""
        found = Explainer(self._flows)
        found.load(data)

        def wanted_pair(key: str) -> bool:
            client, space, domain = key.partition(" ")
            if not space or client == NETWORK:
                return False
            apart = None if by_domain is None else by_domain(client, domain)
            return wanted(client) if apart is None else apart

        self._domains.absorb(found._domains, wanted_pair)
        self._clients.absorb(found._clients, wanted)
        self._habits.absorb(found._habits, wanted_pair)
        self._mail.update({client: known for client, known in found._mail.items() if wanted(client)})


def habits_in(data: bytes) -> Habits:
    """The habits in a file of `Explainer.dump`. Raises FormatError."""
    kept = object_of(data, "the file of habits")
    found = Habits()
    found.load(kept.get("habits"), kept.get("kinds"))
    return found


def hold_text(samples: Sequence[tuple[bytes, int]]) -> bool:
    """Whether names hold text. Of one among many that may be chance: half of a hash is at times printable."""
    names = trace_of(samples).names
    return sum(bool(preview([name])) for name in names) >= min(TEXTS_MIN, len(names))


def _is_mail(kept: Any) -> bool:
    sound = isinstance(kept, list) and len(kept) == 3 and isinstance(kept[0], str) and isinstance(kept[1], int)
    return sound and isinstance(kept[2], list) and all(isinstance(one, int) for one in kept[2])


def is_inside(domain: str) -> bool:
    """Whether a domain lies below a top level that nobody in public owns, as `consul` and `internal`."""
    labels = labels_of(from_text(domain)) if domain not in (SCATTERED, ".") else ()
    return bool(labels) and not is_listed(labels[-1:])
