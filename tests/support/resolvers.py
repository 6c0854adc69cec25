"""Real DNS servers of the system, on loopback and without upstreams, that log what they are asked."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents.dns.message import type_number
from agents.dns.name import from_text
from tests.support.patience import patient
from tests.support.running import free_port

HOST = "127.0.0.1"
LABEL = "x" * 63
ODD: Sequence[tuple[str, str]] = (
    ("plain.example.com", "A"),
    ("MiXeD.CaSe.Example.COM", "TXT"),
    ("GQ5vam9/BA==.t.example", "TXT"),
    (r"a\.dot.example", "A"),
    (r"quo\"ted.example", "A"),
    (r"two words.example", "A"),
    (r"\000\001\255\200.example", "NULL"),
    (r"semi;colon.example", "A"),
    (r"dollar$at@.example", "A"),
    (r"tab\009new\010line.example", "A"),
    (r"back\\slash(x).example", "A"),
    (f"{LABEL}.{LABEL}.{LABEL}.example", "A"),
    ("null.example", "NULL"),
    ("private.example", "TYPE65399"),
    (".", "NS"),
    ("_sip._tcp.example", "SRV"),
    ("xn--mnchen-3ya.example", "AAAA"),
)
"""Names and types that formats get wrong."""
Start = Callable[[Path, int, Path], list[str]]
"""Writes a configuration into a folder: (folder, port, log) -> the command."""


def question_of(qname: str, qtype: str, number: int) -> bytes:
    """A query message (RFC 1035 section 4.1)."""
    head = number.to_bytes(2) + b"\x01\x00\x00\x01" + bytes(6)
    return head + from_text(qname) + b"\0" + type_number(qtype).to_bytes(2) + b"\0\1"


def bind(folder: Path, port: int, log: Path, more: str = "") -> list[str]:
    """BIND, whose query log has categories and severities. more: further options."""
    (folder / "named.conf").write_text(
        f"""options {{ directory "{folder}"; listen-on port {port} {{ {HOST}; }}; listen-on-v6 {{ none; }};
        recursion no; pid-file none; session-keyfile none; dnssec-validation no; {more} }};
        controls {{}};
        logging {{ channel q {{ file "{log}"; print-time iso8601-utc; print-category yes; print-severity yes; }};
        category queries {{ q; }}; category default {{ null; }}; }};\n"""
    )
    return ["named", "-f", "-n", "1", "-c", str(folder / "named.conf")]


def bind_dnstap(folder: Path, port: int, log: Path) -> list[str]:
    """BIND that writes dnstap instead, into a file of Frame Streams."""
    return bind(folder, port, folder / "text.log", f'dnstap {{ client; }}; dnstap-output file "{log}";')


def unbound(folder: Path, port: int, log: Path) -> list[str]:
    """unbound with queries and replies logged; every name does not exist."""
    (folder / "unbound.conf").write_text(
        f"""server:
  interface: {HOST}@{port}
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "{folder}"
  pidfile: "{folder / "unbound.pid"}"
  use-syslog: no
  logfile: "{log}"
  log-queries: yes
  log-replies: yes
  local-zone: "." static
  module-config: "iterator"
remote-control:
  control-enable: no\n"""
    )
    return ["unbound", "-d", "-c", str(folder / "unbound.conf")]


def dnsmasq(folder: Path, port: int, log: Path) -> list[str]:
    """dnsmasq without upstreams."""
    (folder / "dnsmasq.conf").write_text("")
    return [
        *("dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", f"--port={port}", f"--listen-address={HOST}"),
        *("--bind-interfaces", "--log-queries=extra", f"--log-facility={log}", "--user=root"),
        *(f"--conf-file={folder / 'dnsmasq.conf'}", f"--pid-file={folder / 'dnsmasq.pid'}"),
    ]


def dnsdist(folder: Path, port: int, log: Path) -> list[str]:
    """dnsdist that refuses everything."""
    (folder / "dnsdist.conf").write_text(
        f"""setLocal("{HOST}:{port}")
        setSecurityPollSuffix("")
        addAction(AllRule(), LogAction("{log}", false, true, false, false, true))
        addAction(AllRule(), RCodeAction(DNSRCode.REFUSED))\n"""
    )
    return ["dnsdist", "--supervised", "--disable-syslog", "-C", str(folder / "dnsdist.conf")]


SERVERS: dict[str, Start] = {"bind": bind, "unbound": unbound, "dnsmasq": dnsmasq, "dnsdist": dnsdist}


@contextmanager
def resolver(start: Start, folder: Path) -> Iterator[tuple[int, Path]]:
    """A running server's port and log; skips the test where it is not installed."""
    port, log = free_port(), folder / "queries.log"
    command = start(folder, port, log)
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with (folder / "output").open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield port, log
    except TimeoutError as error:
        error.add_note(f"{command[0]} said: {(folder / 'output').read_text(errors='replace')}")
        raise
    finally:
        running.terminate()
        running.wait()


def ask(port: int, questions: Sequence[tuple[str, str]]) -> None:
    """Ask a server one question after another, each until it is answered."""
    with socket.socket(type=socket.SOCK_DGRAM) as asking:
        asking.connect((HOST, port))
        for number, (qname, qtype) in enumerate(questions, start=1):
            _exchange(asking, question_of(qname, qtype, number))


def _exchange(asking: socket.socket, message: bytes) -> None:
    """Ask, and wait for the answer. A server that has not started yet refuses at once, and is asked again."""
    end = time.monotonic() + patient(30)
    asking.settimeout(patient(2))
    while time.monotonic() < end:
        try:
            asking.send(message)
            while asking.recv(4096)[:2] != message[:2]:
                continue
        except ConnectionRefusedError:
            time.sleep(0.02)
            continue
        except TimeoutError:
            continue
        return
    raise TimeoutError("the server does not answer")


def bind_to_socket(folder: Path, port: int, log: Path) -> list[str]:
    """BIND that sends dnstap to the unix socket `tap.sock` in its folder."""
    tap = f'dnstap {{ client; }}; dnstap-output unix "{folder / "tap.sock"}"; dnstap-identity "bind-test";'
    return bind(folder, port, log, tap)


def unbound_to_socket(folder: Path, port: int, log: Path) -> list[str]:
    """unbound that sends dnstap to the unix socket `tap.sock` in its folder."""
    command = unbound(folder, port, log)
    with (folder / "unbound.conf").open("a") as config:
        config.write(
            f"""dnstap:
  dnstap-enable: yes
  dnstap-socket-path: "{folder / "tap.sock"}"
  dnstap-send-identity: yes
  dnstap-identity: "unbound-test"
  dnstap-log-client-query-messages: yes
  dnstap-log-client-response-messages: yes\n"""
        )
    return command


def dnsdist_to_socket(folder: Path, port: int, log: Path) -> list[str]:
    """dnsdist that sends dnstap to the unix socket `tap.sock` in its folder."""
    (folder / "dnsdist.conf").write_text(
        f"""setLocal("{HOST}:{port}")
        setSecurityPollSuffix("")
        tap = newFrameStreamUnixLogger("{folder / "tap.sock"}")
        addAction(AllRule(), DnstapLogAction("dnsdist-test", tap))
        addSelfAnsweredResponseAction(AllRule(), DnstapLogResponseAction("dnsdist-test", tap))
        addAction(AllRule(), RCodeAction(DNSRCode.REFUSED))\n"""
    )
    return ["dnsdist", "--supervised", "--disable-syslog", "-C", str(folder / "dnsdist.conf")]


TAPS: dict[str, Start] = {"bind": bind_to_socket, "unbound": unbound_to_socket, "dnsdist": dnsdist_to_socket}
