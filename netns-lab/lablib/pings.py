"""Sends echo requests, and says of each when it was answered.

``python3 pings.py ORDER`` runs on a host, started by the lab.  ORDER is a JSON object:
``requests`` (own address, or empty, and far one, or a name), ``family`` (4 or 6), ``apart``
(seconds between two of them), ``answers`` (how many are to be waited for), ``within`` (seconds that
they may take), ``after`` (seconds to listen further for those that must not come), ``payload``, and
``first`` (seconds to wait for the first answer before the next request).  It prints one JSON list:
for each request the seconds until its reply, or null.

The program ``ping`` waits for the answer to its last request no longer than twice the longest round
trip so far, or its interval: on a busy machine that is too short.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time

ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
ECHO_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}


def checksum(octets: bytes) -> int:
    """RFC 1071.  Over IPv6 the kernel computes it."""
    octets += b"\0" * (len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def request(family: int, identifier: int, sequence: int, payload: bytes) -> bytes:
    blank = struct.pack("!BBHHH", ECHO_REQUEST[family], 0, 0, identifier, sequence) + payload
    return blank[:2] + struct.pack("!H", checksum(blank)) + blank[4:]


def answered(family: int, identifier: int, packet: bytes) -> int | None:
    """The sequence number of an echo reply to us; None for another packet."""
    message = packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet
    if len(message) < 8 or message[0] != ECHO_REPLY[family]:
        return None
    found, sequence = struct.unpack_from("!HH", message, 4)
    return int(sequence) if found == identifier else None


def main() -> None:
    order = json.loads(sys.argv[1])
    family = socket.AF_INET6 if order["family"] == 6 else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    addresses = {
        far: str(socket.getaddrinfo(far, None, family)[0][4][0])
        for far in dict.fromkeys(far for _, far in order["requests"])
    }
    requests = [(own, addresses[far]) for own, far in order["requests"]]
    payload, identifier = order["payload"].encode(), os.getpid() & 0xFFFF
    sockets = {}
    for own in dict.fromkeys(own for own, _ in requests):
        sockets[own] = socket.socket(family, socket.SOCK_RAW, protocol)
        if own:
            sockets[own].bind((own, 0))
    sent = [0.0] * len(requests)
    heard: list[float | None] = [None] * len(requests)

    def listen(seconds: float, *, enough: int | None = None) -> None:
        """Receive for ``seconds``, or until ``enough`` were answered."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if enough is not None and sum(h is not None for h in heard) >= enough:
                return
            for sock in select.select(list(sockets.values()), [], [], left)[0]:
                packet, sender = sock.recvfrom(65535)
                number = answered(family, identifier, packet)
                if number is None or not 0 <= number < len(requests):
                    continue
                if heard[number] is None and sender[0] == requests[number][1]:
                    heard[number] = time.monotonic() - sent[number]

    for number, (own, far) in enumerate(requests):
        if number == 1:
            listen(order.get("first", 0), enough=1)
        if number:
            listen(order["apart"])
        sent[number] = time.monotonic()
        sockets[own].sendto(request(family, identifier, number, payload), (far, 0))
    listen(order["within"], enough=order["answers"])
    listen(order["after"])
    print(json.dumps(heard), flush=True)


if __name__ == "__main__":
    main()
