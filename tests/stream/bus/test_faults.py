"""Lines of the log that a sender can cause are so many a minute, and what is left out is counted."""

from __future__ import annotations

from structlog.testing import capture_logs

from agents.stream.bus.faults import LINES_MAX, LINES_S, LimitedLog


def test_so_many_lines_of_an_event_a_minute_and_then_how_many_are_missing() -> None:
    now = [0.0]
    limited = LimitedLog(lambda: now[0])
    with capture_logs() as logs:
        for number in range(LINES_MAX + 5):
            limited.error("message_lost", number=number)
        limited.error("message_not_read")
        now[0] = LINES_S
        limited.error("message_lost", number=-1)
        limited.tell()
        limited.tell()
    lost = [one for one in logs if one["event"] == "message_lost"]
    assert [one["number"] for one in lost if "number" in one] == [*range(LINES_MAX), -1]
    assert [one["left_out"] for one in logs if "left_out" in one] == [5]
    assert sum(one["event"] == "message_not_read" for one in logs) == 1
