"""Puts one forged clear packet on a link: runs on host wild, started by the lab.

``python3 forge.py INTERFACE DESTINATION_MAC SOURCE DESTINATION PAYLOAD`` sends an
ICMP(v6) echo request that claims to come from SOURCE.
"""

from __future__ import annotations

import socket
import struct
import sys
from ipaddress import IPv4Address, IPv6Address, ip_address


def checksum(octets: bytes) -> int:
    """The Internet checksum of RFC 1071."""
    if len(octets) % 2:
        octets += b"\0"
    total: int = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(
    source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, payload: bytes
) -> bytes:
    """An IP packet with an ICMP echo request."""
    kind = 8 if source.version == 4 else 128
    body = struct.pack("!BBHHH", kind, 0, 0, 0x4F45, 1) + payload
    if source.version == 6:
        pseudo = source.packed + destination.packed + struct.pack("!IHBB", len(body), 0, 0, 58)
        body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
        start = struct.pack("!IHBB", 6 << 28, len(body), 58, 64)
        return start + source.packed + destination.packed + body
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    start = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, 1, 0)
    header = start + source.packed + destination.packed
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def main() -> None:
    interface, mac, source, destination, payload = sys.argv[1:]
    packet = echo_request(ip_address(source), ip_address(destination), payload.encode())
    ethertype = 0x0800 if ip_address(source).version == 4 else 0x86DD
    frame = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("020000000001")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((interface, 0))
        link.send(frame + struct.pack("!H", ethertype) + packet)


if __name__ == "__main__":
    main()
