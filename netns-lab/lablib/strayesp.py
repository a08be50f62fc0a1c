"""Sends ESP that belongs to no tunnel: runs on a host, started by the lab.

``python3 strayesp.py DESTINATION COUNT SOURCE...`` sends COUNT packets with SPIs of their own from
each SOURCE, IPv4 addresses which need not be the host's.
"""

from __future__ import annotations

import socket
import struct
import sys
from ipaddress import IPv4Address

ESP = 50
FIRST_SPI = 0x5A5A0000


def packet(source: IPv4Address, destination: IPv4Address, spi: int) -> bytes:
    """The kernel fills in length and checksum."""
    body = struct.pack("!II", spi, 1) + bytes(64)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, ESP, 0)
    return header + source.packed + destination.packed + body


def main() -> None:
    destination, count, *sources = sys.argv[1:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for number in range(int(count)):
            for source in sources:
                octets = packet(IPv4Address(source), IPv4Address(destination), FIRST_SPI + number)
                raw.sendto(octets, (destination, 0))


if __name__ == "__main__":
    main()
