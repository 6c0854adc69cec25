"""The table of detector types, and what is chosen without a tool finds of it."""

from __future__ import annotations

from agents.learning.run import TypeResult
from scripts.maintainer.compare_types import table


def result(name: str, **by_tool: float) -> TypeResult:
    return TypeResult("names", name, 0.001, sum(by_tool.values()) / len(by_tool), by_tool, 1.5, 12.0)


def test_the_type_that_is_best_on_the_others_is_measured_on_the_tool_left_out() -> None:
    found = [result("one", a=0.9, b=0.1), result("two", a=0.2, b=0.8), TypeResult("names", "three", problem="cannot")]
    lines = table(found).splitlines()
    assert lines[0] == "| names | false alarms | a | b | mean | training | a row |"
    assert lines[2] == "| one | 0.10% | 0.90 | 0.10 | 0.500 | 1.5 s | 12 µs |"
    assert lines[4].startswith("| three | cannot |")
    assert lines[4].count("|") == lines[0].count("|")
    assert lines[5:] == ["without a: two is best, and finds 0.20 of it", "without b: one is best, and finds 0.10 of it"]


def test_types_that_could_not_be_trained_leave_a_table_all_the_same() -> None:
    assert "| three | cannot |" in table([TypeResult("names", "three", problem="cannot")])
