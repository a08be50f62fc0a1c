"""What crossed the Internet between Alice and Bob, seen from outside of their routers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

from tests.deploy.site import ALICE, BOB, PLACES, Site

# Specification values: if_packet(7), socket(7), RFC 4303, RFC 3948.
_SOL_PACKET, _PACKET_STATISTICS, _SO_RCVBUFFORCE = 263, 6, 33
_ESP, _UDP, _PORT = 50, 17, 4500

HOSTS = {ip_address(each).packed for each in (ALICE, BOB)}
_BUFFER = 64 << 20  # octets: nobody reads until the end


@dataclass(slots=True)
class Crossed:
    """Packets, as they were: ``clear`` of the pair; ``encrypted`` from router to router, by the
    first of the two."""

    clear: list[bytes] = field(default_factory=list)
    encrypted: dict[str, list[bytes]] = field(default_factory=lambda: {name: [] for name in PLACES})


@contextmanager
def crossing(site: Site) -> Iterator[Crossed]:
    """Filled at the end of the block."""
    capture = site.capture()
    crossed = Crossed()
    capture.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    try:
        yield crossed
        _sort(capture.read(), crossed)
        statistics = capture.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        assert int.from_bytes(statistics[4:], "little") == 0, "some packets were not captured"
    finally:
        capture.close()


def _sort(packets: list[bytes], crossed: Crossed) -> None:
    routers = {ip_address(place.outer).packed: name for name, place in PLACES.items()}
    for packet in packets:
        if packet[0] >> 4 != 4:
            continue
        source, target = packet[12:16], packet[16:20]
        if {source, target} == HOSTS:
            crossed.clear.append(packet)
        elif {source, target} == set(routers) and _is_esp(packet):
            crossed.encrypted[routers[source]].append(packet)


def _is_esp(packet: bytes) -> bool:
    """Alone or in UDP, where four octets of zero stand before IKE (RFC 3948 section 2.2)."""
    behind = packet[(packet[0] & 15) * 4 :]
    if packet[9] == _ESP:
        return True
    port = int.from_bytes(behind[2:4], "big")
    return packet[9] == _UDP and port == _PORT and len(behind) > 12 and any(behind[8:12])
