"""dnsdist with the snippet of deploy/dnsdist: it takes up the list of blocks within three seconds, and their end."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import pytest

from agents.core.files import write_atomic
from agents.core.text import NETWORK
from agents.enforcement.keeper import list_text
from tests.enforcement.blocks import block
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.resolvers import HOST
from tests.support.running import free_port
from tests.support.stubs import StubServer

pytestmark = pytest.mark.integration
SNIPPET = Path(__file__).resolve().parents[2] / "deploy" / "dnsdist" / "dns-tunnel-blocks.lua"


def asked(port: int, name: str, source: str = HOST, qtype: str = "A") -> dns.message.Message | None:
    try:
        return dns.query.udp(dns.message.make_query(name, qtype), HOST, port=port, source=source, timeout=patient(3))
    except (dns.exception.Timeout, OSError):
        return None


def rcode(port: int, name: str, source: str = HOST) -> int:
    found = asked(port, name, source)
    return -1 if found is None else int(found.rcode())


@pytest.mark.skipif(shutil.which("dnsdist") is None, reason="dnsdist is not installed")
@pytest.mark.slow
def test_dnsdist_takes_up_the_list(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "blocks.txt"
    with StubServer() as stub:
        (tmp_path / "dnsdist.conf").write_text(
            f"""setLocal("{HOST}:{port}")
            setSecurityPollSuffix("")
            newServer({{address="{HOST}:{stub.endpoint[1]}", healthCheckMode="up"}})
            addAction(QNameRule("own.example."), RCodeAction(DNSRCode.NOTIMP))
            maintained = 0
            function maintenance() maintained = maintained + 1 end
            dofile("{SNIPPET}")
            dnsTunnelBlocks("{path}", {{"192.0.2.99", "2001:db8::99"}})\n"""
        )
        with (tmp_path / "output").open("wb") as output:
            command = ["dnsdist", "--supervised", "--disable-syslog", "-C", str(tmp_path / "dnsdist.conf")]
            running = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            wait_until(lambda: rcode(port, "a.evil.example") == dns.rcode.NOERROR, 20)

            def complaints() -> int:
                return (tmp_path / "output").read_bytes().count(b"cannot use")

            def keep(*blocks: object) -> None:
                write_atomic(path, list_text(blocks).encode())  # type: ignore[arg-type]

            keep(
                block("evil.example"),
                block("refused.example", action="refused"),
                block("hole.example", action="sinkhole"),
                block("one.example", "127.0.0.2"),
                block("many.example", "127.0.0.4/31"),
                block("brief.example", until=time.time() + 4),
            )
            wait_until(lambda: rcode(port, "a.evil.example") == dns.rcode.NXDOMAIN, 3)
            assert rcode(port, "refused.example") == dns.rcode.REFUSED
            hole = asked(port, "x.hole.example")
            assert hole is not None and hole.answer[0][0].to_text() == "192.0.2.99"
            assert [rcode(port, "one.example", f"127.0.0.{n}") for n in (1, 2)] == [0, dns.rcode.NXDOMAIN]
            assert [rcode(port, "many.example", f"127.0.0.{n}") for n in (3, 4, 5, 6)] == [0, 3, 3, 0]
            assert (rcode(port, "notevil.example"), rcode(port, "own.example")) == (0, dns.rcode.NOTIMP)
            assert rcode(port, "brief.example") == dns.rcode.NXDOMAIN
            good, bad = (
                path.read_text(),
                ("nxdomain\t*\tother.example\n", "nxdomain\tnobody\tother.example\t9999999999\n"),
            )
            for number, line in enumerate((*bad, "nxdom"), 1):  # lines that are none, and a copy under way
                write_atomic(path, (good + line).encode())
                wait_until(lambda number=number: complaints() == number, 5)  # type: ignore[misc]
                assert [rcode(port, f"{name}.example") for name in ("evil", "other")] == [dns.rcode.NXDOMAIN, 0]
            wait_until(lambda: rcode(port, "brief.example") == dns.rcode.NOERROR, 8)
            keep(block("slow.example", action="slow"))
            wait_until(lambda: rcode(port, "a.evil.example") == dns.rcode.NOERROR, 3)
            begun = time.monotonic()
            assert rcode(port, "slow.example") == dns.rcode.NOERROR and time.monotonic() - begun >= 1.0
            keep(block("evil.example", NETWORK))
            wait_until(lambda: rcode(port, "a.evil.example") == dns.rcode.NXDOMAIN, 3)
            path.unlink()
            wait_until(lambda: rcode(port, "a.evil.example") == dns.rcode.NOERROR, 3)
        finally:
            running.terminate()
            running.wait()
    assert complaints() == len(bad) + 1
