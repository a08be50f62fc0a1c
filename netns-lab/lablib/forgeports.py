"""Puts packets of strangers on a link that look as if their ports were sealed.

``python3 forgeports.py JSON``, with ``interface``, ``mac`` (of the next hop), ``source``,
``destination``, ``what``: a list of the kinds below, and ``count`` of each.  Prints how many
it sent.

    syn         TCP SYN, flagged, with random ports
    datagram    UDP, flagged, with random ports and octets
    truncated   flagged, and the transport header ends early; lengths that lie
    quote       ICMP errors about flagged packets, cut at any place
    nested      ICMP errors about ICMP errors about flagged packets
    fragment    fragments of flagged packets: first, later, overlapping, too short for ports
    request     UDP with the code point by which hosts inside ask for sealed ports, from inside
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address

RESERVED, MORE = 0x8000, 0x2000
TCP, UDP, ICMP, ICMPV6, FRAGMENT = 6, 17, 1, 58, 44
DSCP, REQUEST = 3, 7
APART = 0.0005  # seconds between two packets, so that no queue is too short for them


def checksum(octets: bytes) -> int:
    """The Internet checksum of RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(octets) + 1) // 2}H", octets + bytes(len(octets) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Forger:
    """Packets between two addresses; what is random comes from ``dice``."""

    def __init__(self, source: str, destination: str, dice: random.Random) -> None:
        self._source, self._destination = ip_address(source), ip_address(destination)
        self._dice = dice

    def _random(self, length: int) -> bytes:
        return self._dice.randbytes(length)

    def _ip(
        self, protocol: int, body: bytes, word: int = RESERVED, length: int | None = None,
        dscp: int = DSCP, back: bool = False,
    ) -> bytes:  # fmt: skip
        """A header with the flag before ``body``; ``back``: from destination to source."""
        ends = (self._source.packed, self._destination.packed)
        addresses = b"".join(reversed(ends) if back else ends)
        size = len(body) if length is None else length
        if self._source.version == 6:
            return struct.pack("!IHBB", 6 << 28 | dscp << 22, size, protocol, 64) + addresses + body
        number = self._dice.getrandbits(16)
        service = 0 if word & RESERVED else dscp << 2
        start = struct.pack("!BBHHHBBH", 0x45, service, 20 + size, number, word, 64, protocol, 0)
        header = start + addresses
        return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body

    def _with_sum(self, protocol: int, body: bytes, at: int) -> bytes:
        pseudo = self._source.packed + self._destination.packed
        if protocol == ICMP:
            pseudo = b""
        else:
            pseudo += struct.pack("!IHBB", len(body), 0, 0, protocol)
        return body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]

    def _segment(self) -> bytes:
        ports = self._random(4)
        body = ports + self._random(4) + bytes(4) + struct.pack("!BBHHH", 0x50, 2, 65535, 0, 0)
        return self._with_sum(TCP, body, 16)

    def _datagram(self) -> bytes:
        payload = self._random(self._dice.randrange(60))
        body = self._random(4) + struct.pack("!HH", 8 + len(payload), 0) + payload
        return self._with_sum(UDP, body, 6)

    def syn(self) -> bytes:
        return self._ip(TCP, self._segment())

    def datagram(self) -> bytes:
        return self._ip(UDP, self._datagram())

    def truncated(self) -> bytes:
        protocol = self._dice.choice((TCP, UDP))
        body = (self._segment() if protocol == TCP else self._datagram())[: self._dice.randrange(8)]
        if self._source.version == 4 and self._dice.random() < 0.3:
            packet = bytearray(self._ip(protocol, body))
            packet[0] = 0x40 | self._dice.randrange(16)  # a header length that lies
            packet[10:12] = bytes(2)
            packet[10:12] = struct.pack("!H", checksum(bytes(packet[:20])))
            return bytes(packet)
        return self._ip(protocol, body)

    def _error(self, about: bytes, cut: int | None = None) -> bytes:
        octets = about if cut is None else about[:cut]
        if self._source.version == 6:
            body = struct.pack("!BBHI", 1, self._dice.randrange(5), 0, 0) + octets
            return self._ip(ICMPV6, self._with_sum(ICMPV6, body, 2), dscp=0)
        kind, code = self._dice.choice(((3, 3), (3, 4), (11, 0), (12, 0)))
        body = struct.pack("!BBHI", kind, code, 0, 1300) + octets
        return self._ip(ICMP, self._with_sum(ICMP, body, 2), word=0, dscp=0)

    def _about(self) -> bytes:
        protocol = self._dice.choice((TCP, UDP))
        body = self._segment() if protocol == TCP else self._datagram()
        return self._ip(protocol, body, back=True)

    def quote(self) -> bytes:
        about = self._about()
        return self._error(about, self._dice.randrange(len(about) + 1))

    def nested(self) -> bytes:
        return self._error(self._error(self._about()))

    def fragment(self) -> bytes:
        offset = self._dice.choice((0, 0, 1, 1, 8, 8190))
        more = self._dice.choice((0, 1))
        body = self._datagram()[: self._dice.choice((4, 8, 16, 24))]
        if self._source.version == 6:
            word = offset << 3 | more
            extra = struct.pack("!BBHI", UDP, 0, word, self._dice.randrange(4))
            return self._ip(FRAGMENT, extra + body)
        return self._ip(UDP, body, word=RESERVED | offset | (MORE if more else 0))

    def request(self) -> bytes:
        return self._ip(UDP, self._datagram(), word=0, dscp=REQUEST)


def main() -> None:
    order = json.loads(sys.argv[1])
    forger = Forger(order["source"], order["destination"], random.Random(4))
    kinds: dict[str, Callable[[], bytes]] = {
        name: getattr(forger, name)
        for name in ("syn", "datagram", "truncated", "quote", "nested", "fragment", "request")
    }
    ethertype = 0x0800 if ip_address(order["source"]).version == 4 else 0x86DD
    frame = bytes.fromhex(order["mac"].replace(":", "")) + bytes.fromhex("020000000001")
    sent = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((order["interface"], 0))
        for what in order["what"]:
            for _ in range(order["count"]):
                link.send(frame + struct.pack("!H", ethertype) + kinds[what]())
                sent += 1
                time.sleep(APART)
    print(sent)


if __name__ == "__main__":
    main()
