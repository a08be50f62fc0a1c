"""Sends one echo request from each of many pairs of addresses, and says when each was answered.

``python3 firstpings.py ORDER`` runs on a host, started by the lab.  ORDER is a JSON
object: ``pairs`` of own and far address, ``apart`` (seconds between two requests), ``answers`` (how
many are to be waited for), ``within`` (seconds that they may take), ``after`` (seconds to listen
further for those that must not come) and ``payload``.  It prints one JSON list: for each pair the
seconds from request to reply, or null.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time

ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
ECHO_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}


def checksum(octets: bytes) -> int:
    """RFC 1071.  Over IPv6 the kernel computes it."""
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def request(family: int, number: int, payload: bytes) -> bytes:
    """Echo request whose identifier is ``number``."""
    blank = struct.pack("!BBHHH", ECHO_REQUEST[family], 0, 0, number, 1) + payload
    return blank[:2] + struct.pack("!H", checksum(blank)) + blank[4:]


def answered(family: int, packet: bytes) -> int | None:
    """The identifier of an echo reply; None for another packet."""
    message = packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet
    if len(message) < 8 or message[0] != ECHO_REPLY[family]:
        return None
    return int(struct.unpack_from("!H", message, 4)[0])


def main() -> None:
    order = json.loads(sys.argv[1])
    pairs, payload = order["pairs"], order["payload"].encode()
    family = socket.AF_INET6 if ":" in pairs[0][0] else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    sockets = {}
    for own, _ in pairs:
        if own not in sockets:
            sockets[own] = socket.socket(family, socket.SOCK_RAW, protocol)
            sockets[own].bind((own, 0))
    sent = [0.0] * len(pairs)
    heard: list[float | None] = [None] * len(pairs)

    def listen(seconds: float, *, to_all: bool = True) -> None:
        """Receive for ``seconds``; unless ``to_all``, only until enough were answered."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not to_all and sum(h is not None for h in heard) >= order["answers"]:
                return
            for sock in select.select(list(sockets.values()), [], [], left)[0]:
                packet, sender = sock.recvfrom(65535)
                number = answered(family, packet)
                if number is None or not 0 <= number < len(pairs):
                    continue
                if heard[number] is None and sender[0] == pairs[number][1]:
                    heard[number] = time.monotonic() - sent[number]

    for number, (own, far) in enumerate(pairs):
        sent[number] = time.monotonic()
        sockets[own].sendto(request(family, number, payload), (far, 0))
        listen(order["apart"])
    listen(order["within"], to_all=False)
    listen(order["after"])
    print(json.dumps(heard), flush=True)


if __name__ == "__main__":
    main()
