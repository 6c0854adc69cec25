"""The state of all flows as arrays: the layout that the kernels of this room share.

Every array is bounded, and `room` counts its rows in use. A kernel that lacks rows stops before it changes anything
and returns which array is full (Stop). Its caller makes that array larger and calls it again for the same query.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WINDOWS_S = (60, 600, 3600, 86_400, 604_800)
INFORMATION, ENCODED, NAMES, ENCODED_NAMES, ANSWERS, CHOICE, UNNUMBERED = range(7)
"""Sums that a window keeps: bytes of information, bytes of encoded data, new names, new encoded names, bytes in
answers, bytes in the choice of record types and in the order of known names, and bytes of information beyond the digits
of numbered names."""
SUMS, OLD_SUMS = 7, 6
"""OLD_SUMS: those that windows of release 0.1 have, the first ones."""
FIRST, ORDERED = ANSWERS, CHOICE
"""What these are in a client's sum over domains: the first bytes of information below each young domain, and bytes in
the choice of record types and in the order of known names below those."""
OWN_TYPES = 4
"""The choice of a flow's first unusual record types, so many, does not count (order_kernels.choice)."""
QTYPES_MAX = 16
"""Query types that one flow counts separately."""
CARRIERS_MAX = 64
"""Carriers of one client that add up; a further one replaces the carrier with the fewest encoded bytes."""
SHARING_MAX = 5
"""Carriers that an incident of several domains names."""
NONE = -1
TS_MAX = 1e13
"""Seconds; a later time is invalid, and counts as this one."""

WATCHED, FOLLOWED = 1, 2
"""A flow with an incident that reached a limit, whose windows are emptied when it ends; one that a learnt model alone
listed, whose windows stay: it reported nothing that a limit would have."""
FLOW = np.dtype(
    [
        ("domain", np.uint64),  # keyed hash of the registered domain
        ("first_seen", np.float64),
        ("last_seen", np.float64),
        ("leaked", np.float64),  # bytes of information in new names, in the choice of record types and in order
        ("encoded", np.float64),  # the part of it that read as encoded
        ("encoded_ts", np.float64),  # time of its last encoded name, -inf = none
        ("shape", np.uint64),  # shape of its last numbered name; 0 = none yet
        ("digits", np.uint64),  # digits of that name
        ("first_answer", np.uint64),  # hash of its first answer, 0 = none yet
        ("asked_last", np.uint64),  # its last question whose answer no cache keeps (order_kernels.order), 0 = none yet
        ("single_ts", np.float64),  # time of its last new name that was not of a burst
        ("single", np.float32, (SUMS,)),  # amounts of that name
        ("bytes_in", np.int64),
        ("queries", np.int64),
        ("names", np.int32),
        ("encoded_names", np.int32),
        ("client", np.int32),
        ("windows", np.int32),  # row of State.windows, or NONE while there is at most one name
        ("detail", np.int32),  # row of State.details, or NONE while nothing was carried
        ("seen_at", np.int32),  # place of its keys in State.pool, or NONE
        ("older_at", np.int32),  # place of the older generation of its filter, or NONE
        ("seen", np.int32),  # keys remembered one by one
        ("types", np.int32),  # different unusual record types
        ("own_types", np.uint16, (OWN_TYPES,)),  # the first of them
        ("foretold", np.int32),  # such questions since the last one that was a choice
        ("largest", np.float32),  # bytes of its largest answer
        ("pace", np.uint16),  # steps of time between new names, smoothed (order_kernels.keep_pace); 0 = none yet
        ("swing", np.uint16),  # deviation of that, smoothed
        ("empty", np.uint16),  # answers without data, at most SHORT_MAX
        ("type_last", np.uint16),  # record type of its last query that left, 0 = none yet
        ("polls", np.uint16),  # queries for text at an even pace, one after the other (order_kernels.keep_polls)
        ("poll_pace", np.uint16),  # steps of time between them, smoothed; 0 = none yet
        ("poll_swing", np.uint16),  # deviation of that, smoothed
        ("peak_day", np.int32),
        ("peak", np.float32),  # highest evidence of that day
        ("lent", np.float32),  # bytes that count for the client's scattered sum, too
        ("size", np.int8),  # log2 of the room for its keys; SKETCH = a filter
        ("used", np.uint8),
        ("alone", np.uint8),  # it reached a limit by itself: it is an incident, and does not count in shared sums
        ("watched", np.uint8),  # WATCHED or FOLLOWED: it has an open incident, or may have, and tells of every query
        ("carrier", np.uint8),  # it is in the list of its client's carriers
        ("scattered", np.uint8),  # it is the sum of a client's names below domains of one or two names each
    ],
    align=True,
)

FLOW_SINCE = (
    "first_answer",
    "asked_last",
    "foretold",
    "largest",
    "pace",
    "swing",
    "empty",
    "type_last",
    "polls",
    "poll_pace",
    "poll_swing",
)
"""Fields that the flows of older snapshots lack: zeros there."""


def windows_of(sums: int) -> np.dtype[Any]:
    """A row of windows with so many sums. Every window is a pair of counters, the current bucket and the one before."""
    counters = (np.float32, (len(WINDOWS_S), sums))
    return np.dtype([("bucket", np.int64, (len(WINDOWS_S),)), ("now", *counters), ("before", *counters)])


WINDOWS, OLD_WINDOWS = windows_of(SUMS), windows_of(OLD_SUMS)

DETAIL = np.dtype(
    [("qtype", np.uint16, (QTYPES_MAX,)), ("count", np.int64, (QTYPES_MAX,)), ("samples", np.int32), ("next", np.int32)]
)
"""Query types of a flow that carried something, and the number of its samples."""

CLIENT = np.dtype(
    [
        ("held", np.int32),  # flows of this client
        ("carriers", np.int32),  # how many of them are carriers
        ("scattered", np.int32),  # its flow of scattered names, or NONE
        ("nobody", np.uint8),  # Named: its flows are not summed over domains here, unless it is NAMED
        ("carriers_at", np.int32),  # row of State.carriers, or NONE
        ("words", np.int32),  # words of State.pool that its flows hold
        ("day", np.int32),  # the last one on which it asked
        ("today", np.int32),  # domains that it asked below on that day
        ("yesterday", np.int32),  # domains that it asked below on the day before
    ]
)

FAMILIAR = np.dtype(
    [
        ("domain", np.uint64),  # 0 = free
        ("first_seen", np.float64),
        ("clients", np.uint16),  # at most SHORT_MAX, as names
        ("names", np.uint16),  # different ones, or more
    ]
)
"""A domain with queries below it, from any client."""
SHORT_MAX = (1 << 16) - 1

SIBLINGS = np.dtype(
    [
        ("key", np.uint64),  # hash of client, form and record type; 0 = free
        ("ts", np.float64),  # time of the last name that counted
        ("label", np.uint64),  # sum of the keys of the labels of the last name that counted
        ("domains", np.uint64),  # cells of the domains that it was asked below
        ("client", np.int32),
    ]
)
"""New encoded names of one form and type that one client asks for below several young domains."""

EVIDENCE = np.dtype(
    [
        ("ratio", np.float64),  # times the limit
        ("amount", np.float64),  # bytes, or names if the kind counts names
        ("limit", np.float64),
        ("names", np.int32),
        ("domains", np.int32),
        ("kind", np.int8),  # Kind
        ("window", np.int8),  # number of the window
        ("sign", np.int8),  # Sign
    ],
    align=True,
)

EVENT = np.dtype(
    [
        ("evidence", EVIDENCE),
        ("first_seen", np.float64),
        ("leaked", np.float64),
        ("today", np.float64),  # bytes of information in the last day, inf = unknown
        ("row", np.int32),
        ("flow", np.int32),
        ("queries", np.int64),
        ("names", np.int32),
        ("encoded_names", np.int32),
        ("sharing", np.int32, (SHARING_MAX,)),  # the client's loudest carriers, if the evidence is a shared sum
        ("network", np.uint8),  # the flow is one of the network's
        ("several", np.uint8),  # and several clients are in it, or one that had no room
        ("fresh", np.uint8),  # the query carried something new
        ("secret", np.uint8),  # its name may contain a secret
    ],
    align=True,
)
"""A query that may open or extend an incident, with the state of its flow at that time."""

SAMPLE = np.dtype([("row", np.int32), ("detail", np.int32), ("number", np.int32), ("network", np.int32)])
"""A query whose name becomes the flow's sample of this number."""
PEAK = np.dtype([("row", np.int32), ("scattered", np.int32), ("ratio", np.float32)])


SENT = np.dtype(
    [
        ("ordered", np.float64),  # bytes in its place in the order of known names
        ("chosen", np.float64),  # … and in its type, as its flow counts them
        ("leaked", np.float64),  # of its flow, where that has just become an incident by itself
        ("own_since", np.float64),  # when the incident of its flow was opened, inf = none is open
        ("queries", np.int64),  # of its flow, with this one
        ("row", np.int32),
        ("windows", np.int32),  # those of its client's sum over domains, where that has just become an incident
        ("greets", np.uint8),  # the client asks below the domain for the first time
        ("meets", np.uint8),  # … for the first time on this day
        ("carries", np.uint8),  # it carries something that its flow counts
        ("named", np.uint8),  # its name is new to its client
        ("young", np.uint8),  # its domain is young or rare
        ("home", np.uint8),  # its client is at home
        ("apart", np.uint8),  # its client's own sum over domains is an incident, or the client has no name
        ("alone", np.uint8),  # its flow is an incident by itself
        ("settles", np.uint8),  # … since this query
        ("parts", np.uint8),  # the client's sum is an incident since this query
        ("unheard", np.uint8),  # there was no room for its flow
    ],
    align=True,
)
"""What a query says to the sums over clients (judge_kernels.tell_network)."""


class Kind(IntEnum):
    """The limit that evidence refers to."""

    INFORMATION = 0
    ENCODED = 1
    ANSWERS = 2
    FRESH = 3
    SPREAD = 4
    SPREAD_FRESH = 5
    SCATTERED = 6
    CHOICE = 7
    SECRET = 8
    WORDS = 9
    SIBLINGS = 10
    YOUNG = 11
    FIRST = 12
    ORDERED = 13
    BEACON = 14
    POLLS = 15


class Sign(IntEnum):
    """What else speaks for a tunnel: where new names come at a machine's pace, or siblings beside louder evidence."""

    NONE = 0
    TYPES = 1  # its record types carry text
    EMPTY = 2  # its names read as encoded, and its answers have no data
    DIFFER = 3  # its names read as encoded, and its answers differ
    SIBLINGS = 4  # siblings are beyond their limit, too


class Own(NamedTuple):
    """A limit on one sum of one flow. after_names: it holds only from MIN_NAMES names on (limits.py); young: only below
    domains that are young or rare."""

    kind: Kind
    sum: int
    after_names: bool
    young: bool = False


OWN = (
    Own(Kind.ANSWERS, ANSWERS, False),
    Own(Kind.CHOICE, CHOICE, False),
    Own(Kind.INFORMATION, INFORMATION, True),
    Own(Kind.ENCODED, ENCODED, True),
    Own(Kind.YOUNG, UNNUMBERED, True, young=True),
)
"""The limits that compare a sum as it is; evidence_kernels.own compares the others."""


class Room(IntEnum):
    """Counters of State.room."""

    FLOWS = 0  # rows of `flows` ever handed out
    FREE_FLOW = 1  # first free row among them, or NONE; the next is in its `seen_at`
    LIVE = 2  # flows in use
    WINDOWS = 3
    FREE_WINDOWS = 4  # the next is in bucket[0]
    DETAILS = 5
    FREE_DETAIL = 6
    POOL = 7  # words ever handed out
    REFUSED = 8
    FORGOTTEN = 9  # how often a flow forgot its keys, because the pool or its client's share was full
    FAMILIAR = 10  # domains counted
    KEYS_MAX = 11
    CLIENT_MAX = 12
    POOL_MAX = 13
    CARRIERS = 14  # rows of `carriers` handed out; a sweep takes them back
    SHARE = 15  # words of the pool that one client's flows may hold; a smallest piece is granted beyond it
    NETWORK = 16  # 1 = these are the flows of the network, all of one client
    ELSEWHERE = (
        17  # 1 = sums over clients are counted elsewhere: `familiar` and `heard` are only read, Told.sent filled
    )
    FREE_KEYS = 18  # from here on, by size: first free place of the pool


ROOM_SIZE = Room.FREE_KEYS + 16


class Stop(IntEnum):
    """Why a kernel stopped."""

    DONE = 0
    FLOWS = 1
    PLACES = 2
    WINDOWS = 3
    DETAILS = 4
    POOL = 5
    FAMILIAR = 6
    CARRIERS = 7
    SWEEP = 8


class Named(IntEnum):
    """Whether sums over domains are kept of a client (State.clients)."""

    NAMED = 0
    NAMELESS = 1  # the source does not name the client
    PARTED = 2  # several detectors judge it, and its sums over domains are kept elsewhere (shared.parted)


class Left(IntEnum):
    """What is known of a query's way."""

    STAYED = 0  # a cache here answered it
    KEPT = 1  # it left, as far as is known
    UNKEPT = 2  # it left, and no cache keeps its answer (detector.KEPT_S)


class Scope(IntEnum):
    """What of a name lies outside the sums over domains (Asked.scoped)."""

    NOTHING = 0
    SIGNER = 1  # a benign client asks for such a name once below each of many domains: a mail signer's key
    REVERSE = 2  # an address's name, below its delegation (scoring.reverse_names): no domain that the client visits


class State(NamedTuple):
    """All arrays. NDArray[Any] is a structured array of one of the types above."""

    flows: NDArray[Any]
    askers: NDArray[np.uint64]  # shape (len(flows), 3), of the network: cells of clients, see flow_kernels.ASKERS
    windows: NDArray[Any]
    details: NDArray[Any]
    clients: NDArray[Any]
    carriers: NDArray[np.int32]  # shape (n, CARRIERS_MAX): flows of one client
    places: NDArray[np.int32]  # open addressing: flow, or NONE; its length is a power of two
    pool: NDArray[np.uint64]  # keys of names seen; 0 = free
    familiar: NDArray[Any]  # open addressing by domain
    followers: NDArray[np.uint32]  # what followed a question last, by hash of flow and question (order_kernels.order)
    heard: NDArray[np.uint64]  # names that any client asked for, by hash; a name may take the place of another
    siblings: NDArray[Any]  # by hash; a form may take the place of another. They are not saved
    sibling_windows: NDArray[Any]  # WINDOWS of each
    room: NDArray[np.int64]  # see Room
    swept: NDArray[np.float64]  # shape (1,): time of the last sweep


class Asked(NamedTuple):
    """n queries as judge_kernels.judge reads them; the labels of all names lie in one column."""

    ts: NDArray[np.float64]
    client: NDArray[np.int32]  # row of State.clients, or NONE if there was no room for it
    qtype: NDArray[np.uint16]
    rlen: NDArray[np.int32]
    answer: NDArray[np.uint64]  # QueryBatch.ans_hash
    data: NDArray[np.int32]  # QueryBatch.ans_bytes
    left: NDArray[np.uint8]  # Left
    size: NDArray[np.int64]  # bytes of the wire name
    name: NDArray[np.uint64]  # keyed hash of the lower-case name
    domain: NDArray[np.uint64]  # keyed hash of its registered domain
    form: NDArray[np.uint64]  # hash of the widths of its labels below the domain
    shape: NDArray[np.uint64]  # keyed hash of the part that numbered names have in common, 0 = not numbered
    digits: NDArray[np.uint64]  # digits of a numbered name (lexical_kernels.numbered_hosts)
    discount: NDArray[np.float64]  # how many times more a known service may carry
    secret: NDArray[np.uint8]  # whether the name may contain a secret
    cell: NDArray[np.uint8]  # of the client's address (network.py)
    home_cell: NDArray[np.uint8]  # of its prefix
    scoped: NDArray[np.uint8]  # Scope
    parts: NDArray[np.int64]  # shape (n + 1,): labels of the i-th name: parts[i] to parts[i + 1]
    key: NDArray[np.uint64]  # keyed hash of a label
    bits: NDArray[np.float64]  # information of the label when it is new
    encoded: NDArray[np.uint8]  # whether the label reads as encoded


class Told(NamedTuple):
    """The output of judge_kernels.judge: `evidence` has a row a query; `counts` holds the lengths of the lists.

    Peaks are of clients' flows alone.
    """

    evidence: NDArray[Any]
    events: NDArray[Any]
    samples: NDArray[Any]
    peaks: NDArray[Any]
    counts: NDArray[np.int64]  # shape (5,): events, samples, peaks, sent, sent_windows
    amounts: NDArray[np.float32]  # shape (SUMS,), scratch space of the kernel
    part: NDArray[np.float32]  # shape (SUMS,), the same
    spare: NDArray[Any]  # shape (1,), EVIDENCE, the same
    unheard: NDArray[np.uint8]  # shape (1,), the same: the query at hand has no flow of its own
    ordered: NDArray[np.float64]  # shape (1,), the same: bytes in its place in the order of known names
    total: NDArray[np.float64]  # shape (SUMS,), the same
    saying: NDArray[Any]  # shape (1,), SENT, the same
    sent: NDArray[Any]  # SENT, where sums over clients are counted elsewhere
    sent_windows: NDArray[Any]  # WINDOWS of clients' sums over domains, at the time
    given: NDArray[Any]  # SENT of each query, where another detector has judged them before; else empty
