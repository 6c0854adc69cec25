"""Honeytokens and strict groups in the detector: what trips them, what does not, and that no full table hides it."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.core.columns import coded, packed
from agents.core.errors import SettingsError, UsageError
from agents.core.types import Incident, Row, Severity, Verdicts, batch_of
from agents.detection.detector import TunnelDetector
from agents.detection.incidents import TRIPPED_MAX
from agents.detection.known_services import services_at
from agents.detection.limits import SCATTERED, Scale
from agents.detection.tripwires.honeytokens import (
    TOKENS_MAX,
    HoneytokenList,
    HoneytokenSearch,
    load_honeytokens,
    new_list,
    save_honeytokens,
)
from agents.detection.tripwires.tripwires import Tripwires
from agents.dns.name import from_text, wire_of
from agents.dns.strict_groups import StrictGroups, read_groups
from agents.learning.baseline import benign_names, golden_names, lookalike_names
from agents.scoring.lexical import read_names
from tests.support.detecting import START, query, shipped_model

TOKEN = b"kX9vQ2mT7pLw4RzB8nYc"
PIECE = 10
"""Bytes of this token that are enough to tell it."""
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain text": bytes,
    "hex": lambda data: data.hex().encode(),
    "base32": base64.b32encode,
    "base32hex": base64.b32hexencode,
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
    "reversed": lambda data: base64.b64encode(data)[::-1],
    "of the reversed text": lambda data: base64.b32encode(data[::-1]),
    "URL encoding": lambda data: quote(data).encode(),
}
CASES: tuple[Callable[[bytes], bytes], ...] = (bytes.lower, bytes.upper, bytes)
EVIL = [b"evil", b"test"]


@lru_cache(maxsize=1)
def listed() -> HoneytokenList:
    return new_list().with_token("build db", TOKEN, "2026-11-29", shipped_model().chars.bits_of)


def found_in(names: Sequence[bytes], client: str = "10.0.0.7") -> dict[int, str]:
    lexical = read_names(packed(names), shipped_model(), (1, 2))
    return HoneytokenSearch(listed()).find(lexical, coded([client] * len(names)))


def cut(text: bytes, size: int) -> list[bytes]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@settings(deadline=None)
@given(
    st.sampled_from(sorted(ENCODINGS)),
    st.sampled_from(CASES),
    st.binary(max_size=14),
    st.binary(max_size=14),
    st.integers(5, 63),
)
def test_a_token_is_found_in_any_encoding_case_and_cut(
    code: str, case: Callable[[bytes], bytes], before: bytes, behind: bytes, size: int
) -> None:
    encoded = case(ENCODINGS[code](before + TOKEN + behind))
    name = wire_of([*cut(encoded, size), *EVIL])
    assert found_in([name])[0].startswith("the honeytoken build db in ")


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["plain text", "hex", "base32", "base64"]), st.integers(5, 40), st.integers(0, 4))
def test_nor_does_cutting_it_over_names_hide_it(code: str, size: int, number: int) -> None:
    """A piece in each name, however short, a counter behind it, and each name asked twice, as A and AAAA."""
    encoded = ENCODINGS[code](bytes(number) + TOKEN).lower()
    names = [wire_of([piece, b"%d" % n, *EVIL]) for n, piece in enumerate(cut(encoded, size))]
    assert found_in([name for name in names for _ in range(2)])


def test_a_piece_too_short_to_tell_is_no_token() -> None:
    for at in range(len(TOKEN) - PIECE + 2):
        assert found_in([wire_of([TOKEN[at : at + PIECE - 1], *EVIL])]) == {}
    for at in range(len(TOKEN) - PIECE + 1):
        assert found_in([wire_of([TOKEN[at : at + PIECE], *EVIL])])


def test_ordinary_names_and_random_ones_have_none() -> None:
    rng = random.Random(1)
    names = [from_text(name) for name in (*benign_names()[:10_000], *golden_names(), *lookalike_names())]
    names += [wire_of([base64.b32encode(rng.randbytes(30)).lower(), *EVIL]) for _ in range(2000)]
    assert found_in(names) == {}


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (b"", "0 bytes"),
        (b"kX9vQ2m", "7 bytes"),
        (bytes(range(256)) * 3, "768 bytes"),
        (b"a" * 40, "too little variety"),
        (b"1234567890123456", "too little variety"),
        (b"abcdefghijklmnopq", "too little variety"),
        (b"administrator", "too little variety"),
        (b"kX9vQ2mT", "too little variety"),
    ],
)
def test_a_token_that_could_be_an_ordinary_name_is_refused(secret: bytes, why: str) -> None:
    with pytest.raises(UsageError, match=why) as raised:
        new_list().with_token("x", secret, "", shipped_model().chars.bits_of)
    assert "\n" not in str(raised.value) and (len(secret) < 3 or secret.decode("latin-1") not in str(raised.value))


@pytest.mark.parametrize("name", ["", "-x", "a\nb", "x" * 65, "a/b", "build db"])
def test_a_tokens_name_is_harmless_and_its_own(name: str) -> None:
    with pytest.raises(UsageError, match="cannot add"):
        listed().with_token(name, TOKEN, "", shipped_model().chars.bits_of)


def test_words_make_a_token_of_longer_pieces() -> None:
    """Its words alone, which ordinary names have too, are none."""
    bits = shipped_model().chars.bits_of
    found = HoneytokenSearch(new_list().with_token("words", b"correct-horse-battery-staple", "", bits))

    def asked(label: bytes) -> dict[int, str]:
        return found.find(read_names(packed([wire_of([label, *EVIL])]), shipped_model(), (1, 2)), coded(["10.0.0.7"]))

    assert asked(b"correct-horse-battery") and not asked(b"horse-battery") and not asked(b"correct-horse")


def test_the_file_keeps_hashes_alone(tmp_path: Path) -> None:
    path = tmp_path / "honeytokens.json"
    save_honeytokens(path, listed())
    assert path.stat().st_mode & 0o777 == 0o600
    kept = path.read_bytes()
    for encode in ENCODINGS.values():
        encoded = encode(TOKEN)
        assert not any(encoded[at : at + 6] in kept for at in range(len(encoded) - 5))
    assert load_honeytokens(path) == listed()
    assert load_honeytokens(tmp_path / "none").tokens == ()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.integers(0, 20_000))
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: bytes | int) -> None:
    path, kept = tmp_path / "list.json", bytearray(listed().to_bytes())
    if isinstance(damage, int):
        kept[damage % len(kept)] ^= 1
        damage = bytes(kept)
    path.write_bytes(damage)
    try:
        assert isinstance(load_honeytokens(path), HoneytokenList)
    except SettingsError as error:
        assert str(error).startswith("cannot read ") and "\n" not in str(error)


def test_the_list_has_an_end() -> None:
    full = HoneytokenList(listed().key, tuple(listed().tokens * TOKENS_MAX))
    with pytest.raises(UsageError, match=f"holds {TOKENS_MAX} tokens"):
        full.with_token("one more", TOKEN, "", shipped_model().chars.bits_of)


def tripwires(folder: Path, groups: str = "") -> Tripwires:
    save_honeytokens(folder / "honeytokens.json", listed())
    (folder / "allow.txt").write_text("listed.example\n")
    return Tripwires(folder / "honeytokens.json", StrictGroups(read_groups(groups, folder), [from_text("localhost")]))


def judged(rows: Sequence[Row], wires: Tripwires, keys_max: int = 1000) -> tuple[Verdicts, list[Incident]]:
    detector = TunnelDetector(shipped_model(), keys_max, 3600.0, Scale(), tripwires=wires)
    verdicts = detector.detect(batch_of(rows))
    return verdicts, sorted(verdicts.incidents, key=lambda one: one.domain)


def test_one_name_with_a_token_is_critical(tmp_path: Path) -> None:
    name = wire_of([*cut(base64.b64encode(b"db=" + TOKEN), 20), b"evil", b"example"])
    verdicts, (found,) = judged([query(START, "10.0.0.7", name)], tripwires(tmp_path))
    assert (found.severity, found.domain, found.client) == (Severity.CRITICAL, "evil.example", "10.0.0.7")
    assert found.score > 0.9999
    assert found.reasons[0] == "one query below evil.example carried the honeytoken build db in base64"
    assert verdicts.severity.tolist() == [Severity.CRITICAL]
    assert verdicts.reasons[0][0] == "it carries the honeytoken build db in base64"
    assert TOKEN.decode() not in " ".join(found.reasons)


def test_a_token_in_an_own_zone_stays_inside(tmp_path: Path) -> None:
    services = services_at([], START, ["corp.example"])
    detector = TunnelDetector(shipped_model(), 100, 3600.0, Scale(), services, tripwires=tripwires(tmp_path))
    inside = query(START, "10.0.0.7", wire_of([TOKEN, b"corp", b"example"]))
    assert detector.detect(batch_of([inside])).incidents == ()


@pytest.mark.parametrize("domain", [TOKEN + b".com", TOKEN + b".github.io", TOKEN[:10] + b"." + TOKEN[10:]])
def test_a_token_in_the_domain_itself_is_found(domain: bytes, tmp_path: Path) -> None:
    _, found = judged([query(START, "10.0.0.7", domain.decode())], tripwires(tmp_path))
    assert [one.severity for one in found] == [Severity.CRITICAL] and found[0].sample_names


GROUPS = "10.0.9.0/24=allow.txt,2001:db8:9::/64=allow.txt"


@pytest.mark.parametrize("client", ["10.0.9.7", "2001:db8:9::7"])
@pytest.mark.parametrize("name", ["www.evil.example", "evil.example", "com", "Listed.example.evil.net"])
def test_what_a_member_asks_for_besides_is_an_incident_at_once(client: str, name: str, tmp_path: Path) -> None:
    rows = [
        query(START, client, "a.listed.example"),
        query(START + 1, client, name),
        query(START + 2, client, "localhost"),
    ]
    verdicts, (found,) = judged([*rows, query(START + 3, "10.0.8.1", name)], tripwires(tmp_path, GROUPS))
    assert (found.client, found.severity) == (client, Severity.HIGH)
    reason = f"the client is in a strict group and asked for {name.lower()}, which its list does not have"
    assert found.reasons == (reason,) and verdicts.reasons[1][0] == reason
    assert verdicts.severity.tolist() == [0, Severity.HIGH, 0, 0]
    assert "should have " + found.domain in found.evidence["benign_if"]
    assert found.sample_names == (name.lower(),) or found.sample_names == (name,)


def test_an_offence_is_an_incident_each_time_one_is_over(tmp_path: Path) -> None:
    wires = tripwires(tmp_path, GROUPS)
    detector = TunnelDetector(shipped_model(), 100, 3600.0, Scale(), tripwires=wires)
    seen = set()
    for day in range(3):
        for second in range(2):
            row = query(START + 86_400 * day + second, "10.0.9.7", "www.evil.example")
            seen |= {one.incident_id for one in detector.detect(batch_of([row])).incidents if one.closed_at is None}
    assert len(seen) == 3


def test_a_member_that_asks_for_everything_has_few_incidents(tmp_path: Path) -> None:
    rows = [query(START + n, "10.0.9.7", f"www.evil{n}.example") for n in range(200)]
    _, found = judged(rows, tripwires(tmp_path, GROUPS))
    assert len(found) == TRIPPED_MAX + 1
    assert found[0].domain == SCATTERED and found[0].reasons[0].endswith("which its list does not have")


def test_nor_has_one_who_sends_a_token_everywhere(tmp_path: Path) -> None:
    rows = [query(START + n, "10.0.0.7", wire_of([TOKEN, b"evil%d" % n, b"example"])) for n in range(50)]
    _, found = judged(rows, tripwires(tmp_path))
    assert len(found) <= TRIPPED_MAX + 1
    assert all(one.severity == Severity.CRITICAL and "the honeytoken build db" in one.reasons[0] for one in found)
    assert found[0].domain == SCATTERED and ", sent below evil" in found[0].reasons[0]


def test_a_full_table_hides_neither(tmp_path: Path) -> None:
    filler = [query(START, f"10.1.{n // 250}.{n % 250}", f"a{n}.filler{n}.example") for n in range(100)]
    rows = [query(START + 1, "10.0.9.7", "www.evil.example"), query(START + 1, "10.0.0.7", wire_of([TOKEN, *EVIL]))]
    _, found = judged([*filler, *rows, *rows], tripwires(tmp_path, GROUPS), keys_max=4)
    assert [(one.domain, one.severity) for one in found if one.client in ("10.0.9.7", "10.0.0.7")] == [
        ("evil.example", Severity.HIGH),
        ("evil.test", Severity.CRITICAL),
    ]
    assert all(one.sample_names for one in found)


def test_a_name_is_hostile_text(tmp_path: Path) -> None:
    name = wire_of([b"\x1b[2J\n", b"evil", b"example"])
    _, (found,) = judged([query(START, "10.0.9.7", name)], tripwires(tmp_path, GROUPS))
    assert found.reasons[0].isprintable() and "\\027" in found.reasons[0]
