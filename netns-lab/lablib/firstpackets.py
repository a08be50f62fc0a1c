"""Sends one UDP datagram from each of many addresses at an agreed moment, and receives others.

``python3 firstpackets.py ORDER`` runs on a host, started by the lab.  ORDER is a JSON
object: ``pairs`` of own and far address, ``port`` (of both ends), ``start`` and ``end``
(seconds since 1970) and ``payload``.  It prints ``bound`` when it is ready, and at the
end one JSON object: for each own address that heard from its partner, when that was.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time


def main() -> None:
    order = json.loads(sys.argv[1])
    sockets: dict[socket.socket, tuple[str, str]] = {}
    for own, far in order["pairs"]:
        sock = socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((own, order["port"]))
        sockets[sock] = (own, far)
    print("bound", flush=True)
    time.sleep(max(0.0, order["start"] - time.time()))
    for sock, (_, far) in sockets.items():
        sock.sendto(order["payload"].encode(), (far, order["port"]))
    heard: dict[str, float] = {}
    while (left := order["end"] - time.time()) > 0 and len(heard) < len(sockets):
        for sock in select.select(list(sockets), [], [], left)[0]:
            own, far = sockets[sock]
            _, sender = sock.recvfrom(65535)
            if sender[0] == far:
                heard.setdefault(own, time.time() - order["start"])
    print(json.dumps(heard), flush=True)


if __name__ == "__main__":
    main()
