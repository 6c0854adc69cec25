"""Facts of the text of the package and of its tests, which are read once for all of them."""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "agents"
FUNCTION_LINES_MAX = 50
COMMAND = "a command's function has its verb's name"
ENDPOINT = "an endpoint's function has its path's name"
DOUBLES = {
    "evaluate": COMMAND,
    "health": f"{COMMAND}, {ENDPOINT}",
    "hunt": f"{COMMAND}, {ENDPOINT}",
    "incidents": ENDPOINT,
    "learn": COMMAND,
    "main": "what a process begins with",
    "models": f"{COMMAND}, {ENDPOINT}",
    "queries": ENDPOINT,
    "retrain": f"{COMMAND}, {ENDPOINT}",
}
"""Public functions and classes that have a namesake in another room, and why."""
FAULTS = {"LookupError", "KeyError", "TypeError", "AttributeError"}
"""What a programmer's mistake raises."""
COINCIDENCES = {
    "ASKED_S": "how often something looks is its own affair",
    "CLIENTS_MAX": "room for clients",
    "CONNECT_S": "how long something waits for an answer is its own affair",
    "LOOK_S": "how often something looks is its own affair",
    "NONE": "the row that is no row, in arrays that have nothing to do with each other",
    "SAVE_S": "how often something writes is its own affair",
    "SEND_S": "how long something waits for an answer is its own affair",
    "SLOW_S": "how long a slowed client waits, and what is slow",
    "STOP_S": "how long a thread may take to end",
    "TIMEOUT_S": "how long something waits for an answer is its own affair",
    "TOP": "rows of a list, and points of a drawing",
    "WAYS": "of two tables",
}
"""Constants of one name and value that may change without each other, and what they are."""
WAITS = {"join", "result", "settimeout", "wait"}
ASYNCIO_WAIT = "asyncio.wait_for"
OF_PYTHON = {"ValueError", "TypeError", "KeyError", "IndexError", "AttributeError", "RuntimeError", "ImportError"}
CAUGHT_STATEMENTS_MAX = 2
CLOCKS = re.compile(r"(?<!len\()\b(monotonic|perf_counter|took|spent|elapsed|oldest_\w+_s)\b")
"""What a comparison with seconds by the clock reads."""


BOUNDED = {
    "core/column_kernels": "tests/stream/test_record.py",
    "detection/counting/flow_kernels": "tests/detection/test_state.py",
    "detection/counting/order_kernels": "tests/detection/test_state.py",
    "detection/counting/seen_kernels": "tests/detection/test_state.py",
    "detection/counting/window_kernels": "tests/detection/test_state.py",
    "detection/evidence_kernels": "tests/detection/test_state.py",
    "detection/judge_kernels": "tests/detection/test_state.py",
    "detection/tripwires/honeytoken_kernels": "tests/detection/tripwires/test_tripwires.py",
    "dns/message_kernels": "tests/dns/test_message_kernels.py",
    "dns/name_kernels": "tests/dns/test_name.py",
    "scoring/feature_kernels": "tests/scoring/test_scoring_kernels.py",
    "scoring/lexical_kernels": "tests/scoring/test_information.py",
    "scoring/model_kernels": "tests/scoring/test_scoring_kernels.py",
    "sources/capture/capture_kernels": "tests/sources/capture/test_capture_kernels.py",
    "sources/capture/frame_kernels": "tests/sources/capture/test_frames.py",
    "sources/dnstap/dnstap_kernels": "tests/sources/dnstap/test_dnstap.py",
    "sources/dnstap/merging_kernels": "tests/sources/dnstap/test_merging.py",
    "sources/dnstap/protobuf_kernels": "tests/sources/dnstap/test_dnstap.py",
    "sources/listener/cache_kernels": "tests/sources/listener/test_cache.py",
    "sources/listener/datapath_kernels": "tests/sources/listener/test_datapath.py",
    "sources/listener/traffic_kernels": "tests/sources/listener/test_traffic.py",
    "sources/live/block_kernels": "tests/sources/live/test_live_packets.py",
    "sources/logs/bulk/bind_kernels": "tests/sources/logs/test_log_blocks.py",
    "sources/logs/bulk/fields_kernels": "tests/sources/logs/test_log_blocks.py",
    "sources/logs/bulk/json_kernels": "tests/sources/logs/test_log_blocks.py",
    "sources/logs/bulk/suricata_kernels": "tests/sources/logs/test_log_blocks.py",
    "store/postgres_kernels": "tests/store/test_postgres_copy.py",
    "stream/ring_kernels": "tests/stream/test_ring.py",
    "stream/slot_kernels": "tests/stream/test_rings.py",
}
"""Kernels, and the test that gives them hostile bytes while every index is checked (make test-bounds)."""
NOT_HOSTILE = {"store/sampling_kernels": "draws rows by numbers of its own"}


@cache
def trees(root: Path = PACKAGE) -> dict[Path, ast.Module]:
    """Each file below a folder, parsed."""
    return {path: ast.parse(path.read_text("utf-8")) for path in sorted(root.rglob("*.py"))}


@cache
def nodes() -> list[tuple[Path, ast.AST]]:
    """Every function, handler and call of the package, with its file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ExceptHandler, ast.Call)
    return [(path, node) for path, tree in trees().items() for node in ast.walk(tree) if isinstance(node, kinds)]


def namesakes() -> dict[str, list[str]]:
    """Public functions and classes that modules of two rooms or more define, and where."""
    places = defaultdict[str, set[str]](set)
    for path, tree in trees().items():
        for node in tree.body:
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                and "migrations" not in path.parts
            ):
                places[node.name].add(str(path.relative_to(PACKAGE)))
    rooms = {name: {place.partition("/")[0] for place in found} for name, found in places.items()}
    return {
        name: sorted(found)
        for name, found in sorted(places.items())
        if len(rooms[name]) > 1 and not name.startswith("_")
    }


def test_one_word_has_one_meaning() -> None:
    found = namesakes()
    assert set(DOUBLES) <= set(found), "no longer in two rooms"
    assert {name: places for name, places in found.items() if name not in DOUBLES} == {}


def test_functions_are_short() -> None:
    found = [
        f"{path.name}: {node.name}"
        for path, node in nodes()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert found == []


def test_every_module_says_what_it_is() -> None:
    assert [path.name for path, tree in trees().items() if not ast.get_docstring(tree)] == []


def test_only_fanout_catches_everything() -> None:
    found = {path.name for path, node in nodes() if isinstance(node, ast.ExceptHandler) and _is_broad(node)}
    assert found == {"fanout.py", "pyod.py"}, "sinks that stand apart, and other people's detectors by their names"


def test_no_long_list_of_exceptions_hides_a_programmers_error() -> None:
    assert [f"{path.name}:{node.lineno}" for path, node in hiding() if len(caught(path, node)) > 1] == []


def test_errors_of_python_itself_are_caught_around_what_may_raise_them_alone() -> None:
    """Else a mistake in the lines beside it reads like bad input. Those of one text's dates stand together."""
    found = {
        str(path.relative_to(PACKAGE))
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and len(node.body) > CAUGHT_STATEMENTS_MAX
        if any(OF_PYTHON & caught(path, handler) for handler in node.handlers)
    }
    assert found == {"store/console/terms.py"}


def hiding() -> Iterator[tuple[Path, ast.ExceptHandler | ast.Call]]:
    """Handlers, and calls of contextlib.suppress, that pass over a programmer's mistake."""
    for path, node in nodes():
        if isinstance(node, ast.ExceptHandler | ast.Call) and FAULTS & caught(path, node):
            yield path, node


def caught(path: Path, node: ast.ExceptHandler | ast.Call) -> set[str]:
    """Names of the exceptions that a handler, or a call of contextlib.suppress, lets pass."""
    if isinstance(node, ast.Call):
        return {_name(one) for one in node.args} if _name(node.func) == "suppress" else set()
    if isinstance(node.type, ast.Tuple):
        return {_name(one) for one in node.type.elts}
    name = _name(node.type)
    return {one.__name__ for one in _constant(path, name)} if name.isupper() else {name}


def _name(node: ast.AST | None) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _constant(path: Path, name: str) -> tuple[type[BaseException], ...]:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    value: tuple[type[BaseException], ...] = getattr(importlib.import_module(module), name)
    return value


def _is_broad(node: ast.ExceptHandler) -> bool:
    named = [node.type] if not isinstance(node.type, ast.Tuple) else node.type.elts
    return any(one is None or _name(one) in ("Exception", "BaseException") for one in named)


def constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names and values of a module's constants, each of a line that gives several."""
    target: ast.expr
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        elif isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
        else:
            continue
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=True))
        else:
            pairs = [(target, value)]
        yield from ((_name(one), ast.unparse(given)) for one, given in pairs if _name(one).isupper())


def test_no_constant_is_written_twice() -> None:
    found = defaultdict(set)
    for path, tree in trees().items():
        for name, value in constants(tree):
            if re.search(r"\d", value):
                found[name.lstrip("_"), value].add(str(path.relative_to(PACKAGE)))
    twice = {f"{name} = {value}": places for (name, value), places in found.items() if len(places) > 1}
    assert {name: places for name, places in twice.items() if name.partition(" ")[0] not in COINCIDENCES} == {}


def absolute_limits(tree: ast.Module) -> Iterator[int]:
    """Lines that wait a number of seconds, or compare a clock with one, whatever the machine."""
    for node in ast.walk(tree):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call):
            waits = _name(node.func) in WAITS or ast.unparse(node.func) == ASYNCIO_WAIT
            given = [one.value for one in node.keywords if one.arg == "timeout"] + node.args * waits
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Lt | ast.LtE):
            given = node.comparators if CLOCKS.search(ast.unparse(node.left)) else []
        for one in given:
            if isinstance(one, ast.Constant) and isinstance(one.value, int | float) and one.value >= 1:
                yield one.lineno


def test_every_time_limit_is_for_this_machine() -> None:
    """`patient(5)`, not 5 (tests/support/patience.py); benchmarks measure on quiet machines."""
    files = {path: tree for path, tree in trees(ROOT / "tests").items() if "bench" not in path.parts}
    assert [f"{path.name}:{line}" for path, tree in files.items() for line in absolute_limits(tree)] == []


def test_every_kernel_reads_hostile_bytes_with_every_index_checked() -> None:
    kernels = {str(path.relative_to(PACKAGE).with_suffix("")) for path in trees() if path.stem.endswith("_kernels")}
    assert kernels == {*BOUNDED, *NOT_HOSTILE}
    hostile = re.search(r"(?s)^HOSTILE := \$\(addprefix tests/,(.*?)\)$", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert hostile is not None
    assert {*BOUNDED.values()} <= {f"tests/{name}" for name in hostile[1].replace("\\", " ").split()}
