"""The adversary's instruments: a channel's names carry what it says, and a figure is the same every time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

import pytest

from agents.dns.name import NAME_MAX, from_text
from tests.adversary import decoys, priced
from tests.adversary.__main__ import CHANNELS, main
from tests.adversary.channel import DOMAIN, Channel, Sent
from tests.adversary.measure import WEEK_S, captured, figure_of, run
from tests.adversary.summary import TARGETS, one_name_line, summary, table
from tests.support.detecting import START

pytestmark = pytest.mark.integration

(CONTROL,) = [one for one in CHANNELS if one.kind == "control"]
FEW = [one for one in CHANNELS if one.kind not in ("full", "model")]


def _what(channel: Channel) -> str:
    return channel.what


def sent_by(channel: Channel, count: int) -> list[Sent]:
    return list(islice(channel.send(random.Random(3)), count))


def wire_of_sent(one: Sent) -> bytes:
    return from_text(one.name) if isinstance(one.name, str) else one.name


def test_channels_have_names_of_their_own_and_a_target_each() -> None:
    assert len({one.what for one in CHANNELS}) == len(CHANNELS) >= 100
    assert {one.kind for one in CHANNELS} == {*TARGETS, "one name"}


@pytest.mark.parametrize("channel", FEW, ids=_what)
def test_a_channel_sends_valid_names_that_carry_something_and_the_same_every_time(channel: Channel) -> None:
    sent = sent_by(channel, 400)
    assert sent == sent_by(channel, 400)
    assert max(len(wire_of_sent(one)) for one in sent) <= NAME_MAX
    assert sum(one.up + one.down for one in sent) > 0
    for one in sent:
        room = one.exchange.reply if one.exchange and one.down else one.exchange.ask if one.exchange else None
        assert one.up + one.down <= (len(room) if room else len(wire_of_sent(one)))


@pytest.mark.slow
@pytest.mark.parametrize("bits", priced.SIZES)
def test_who_searches_for_cheap_labels_gains_less_than_a_bit_each(bits: int) -> None:
    """docs/bound.md derives three bits at most."""
    assert priced.priced()[1][: 1 << bits].mean() > bits - 1


MESSAGES = [one for one in CHANNELS if one.kind in ("beside the name", "in", "in once")]


@pytest.mark.parametrize("channel", MESSAGES, ids=_what)
def test_messages_of_a_channel_are_read_as_queries_with_their_answers(channel: Channel) -> None:
    sent = [(START + number, one) for number, one in enumerate(sent_by(channel, 5))]
    batch = captured(sent)
    assert [
        one.exchange and one.exchange.ask[12 : 12 + len(name)] for name, (_, one) in zip(batch.qname, sent, strict=True)
    ] == list(batch.qname)
    assert batch.rlen.tolist() == [len(one.exchange.reply) for _, one in sent if one.exchange]
    assert set(batch.rcode.tolist()) == {0}


def test_a_plain_tunnel_is_found_and_its_figure_is_the_same_every_time() -> None:
    found = figure_of(CONTROL, paces=2)
    assert found == figure_of(CONTROL, paces=2)
    assert found.fast.up_before == 120 and found.fast.queries_before == 4
    assert found.fast.up_critical is not None and found.fast.up_critical >= found.fast.up_before
    assert found.worst.up_before is not None and found.worst.up_before >= found.fast.up_before
    assert found.ever is not None and not found.ever.found
    assert found.ever.seconds <= WEEK_S and 0 < found.up_a_day < 400
    assert found.fast.domain == DOMAIN


def test_what_only_prepares_carries_nothing_and_ends_before_the_clock_begins() -> None:
    def prepared(rng: random.Random) -> Iterator[Sent]:
        yield Sent("www.example.com", gap_s=30 * 86_400)
        yield Sent("a.example.org")
        yield from CONTROL.send(rng)

    made = run(Channel("prepared", "control", prepared), 1.0)
    assert made.up_before == 120
    assert made.seconds < 60


def test_tables_have_a_row_a_channel_and_say_what_missed_its_target() -> None:
    quiet = Channel("nothing to see", "who", lambda rng: iter([Sent("www.example.com", 5_000.0)]), once=True)
    hidden = Channel("a secret", "one name", lambda rng: iter([Sent("www.example.com", 20.0)]), once=True)
    figures = [figure_of(one) for one in (CONTROL, quiet, hidden)]
    assert [line.split("|")[1].strip() for line in table(figures).splitlines()[2:]] == [CONTROL.what, quiet.what]
    assert "none in 5,000" in table(figures)
    rows = {line.split("|")[1].strip(): line.rpartition("| ")[2] for line in summary(figures).splitlines()[2:]}
    assert rows == {"control (out)": "missed |", "who (out)": "missed |"}
    assert one_name_line(figures) == "Secrets in one name: 0 of 1 are an incident. Not: a secret."


def test_the_cheapest_labels_of_the_model_are_cheap_for_what_they_choose() -> None:
    labels, prices = priced.priced()
    assert len(labels) == len(set(labels)) >= 1 << max(priced.SIZES)
    assert all(prices[:-1] <= prices[1:])
    assert prices[(1 << 7) - 1] <= 9


def test_decoys_are_in_time_order_and_the_factor_is_one_of_the_steps() -> None:
    times = [row[0] for row in decoys.decoys()]
    assert times == sorted(times)
    assert 0.5 <= decoys.factor_after_decoys() <= 2.0


def test_the_command_prints_tables_and_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "control", "--paces", "1"]) == 0
    assert "| control (out) | 1 of 1 |" in capsys.readouterr().out
    with pytest.raises(SystemExit) as error:
        main(["--only", "nobody's channel"])
    assert error.value.code == 2
    assert "cannot measure" in capsys.readouterr().err
