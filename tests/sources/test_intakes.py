"""Kinds of files: each is a Spec, found by name or by content, and the list of them costs no compiler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents import sources
from agents.core.errors import CaptureError
from agents.core.types import QueryBatch, batch_of
from agents.sources import SPECS, kind_of, open_source
from agents.sources.intake import FileSource, Intake
from tests.support.captures import T0, ip4, linked, pcap, question, udp


def test_each_kind_has_a_name_a_summary_and_described_fields() -> None:
    names = [spec.name for spec in SPECS]
    assert (names[0], names[-1], len(set(names))) == ("pcap", "tsv", len(SPECS))
    assert all(spec.summary and spec.sign for spec in SPECS)
    fields = {field.name: field for spec in SPECS for field in spec.fields}
    ports = fields["replay_ports"]
    assert (ports.name, ports.kind, ports.default) == ("replay_ports", str, "53")
    assert fields.keys() == {"replay_ports", "log_timezone", "log_date_order"}
    for field in fields.values():
        assert isinstance(field.default, field.kind)
        assert field.description


def test_listing_the_kinds_loads_no_compiler_and_no_reader() -> None:
    code = "import sys, agents.sources; print(*(name for name in sys.modules if 'numba' in name or 'kernels' in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


def test_a_field_takes_its_default_unless_an_option_has_its_name(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(pcap([(T0, linked(1, ip4(udp(question(), dport=5353))))]))
    assert sum(map(len, open_source([path]).batches(9))) == 0
    assert sum(map(len, open_source([path], "pcap", {"replay_ports": "53, 5353", "other": 1}).batches(9))) == 1


class OneQuery(FileSource):
    """A made-up kind of file: its content is the client's address."""

    def check(self, stream: object) -> None:
        return

    def batches(self, size: int) -> Iterator[QueryBatch]:
        with self._open() as stream:
            client = stream.read()[4:].decode()
        yield batch_of([(T0, client, b"\1a", 1, 20, 0, 0, 20, -1, 1.0, "")])


def test_a_further_kind_is_a_spec_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"ONE 192.0.2.9")
    with pytest.raises(CaptureError, match=r"neither a pcap or pcapng capture, .* nor a table with ts, client"):
        kind_of(path)
    kind = Intake(
        "one", "a file of one query", (), lambda path, options: OneQuery(path), lambda head: head[:3] == b"ONE"
    )
    monkeypatch.setattr(sources, "SPECS", (*SPECS, kind))
    assert kind_of(path) is kind
    for format in ("auto", "one"):
        (batch,) = open_source([path], format).batches(5)
        assert list(batch.client) == ["192.0.2.9"]
    path.write_bytes(b"TWO")
    with pytest.raises(CaptureError, match=r"capture, .*, a table with .* nor a file of one query"):
        kind_of(path)


def test_how_far_a_file_has_been_read_is_known(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(pcap([(T0, linked(1, ip4(udp(question()))))] * 4))
    source = open_source(paths)
    assert (source.size, source.done) == (sum(path.stat().st_size for path in paths), 0)
    batches = source.batches(2)
    next(batches)
    assert 0 < source.done < source.size
    list(batches)
    assert source.done == source.size
