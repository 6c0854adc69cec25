"""The bare upstream: answers every query with one A record as fast as Python can. Prints its port; ends with stdin."""

from __future__ import annotations

import select
import socket
import sys

HEAD = b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
RECORD = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"


def main() -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    server.setblocking(False)
    print(server.getsockname()[1], flush=True)
    while True:
        ready, _, _ = select.select([server, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        for _ in range(64):
            try:
                query, peer = server.recvfrom(512)
            except BlockingIOError:
                break
            server.sendto(query[:2] + HEAD + query[12:] + RECORD, peer)


if __name__ == "__main__":
    main()
