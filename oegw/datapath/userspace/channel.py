"""What the control process and a worker say to each other, one message per datagram.

A message is two octets, version and kind, a 32-bit number that answers
repeat, and a JSON body.  Keys pass through here, and nothing of it is ever logged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import ip_address, ip_network
from struct import Struct
from struct import error as struct_error
from typing import Any

from oegw.datapath.interface import (
    DatapathEvent,
    Direction,
    IPAddress,
    PeerAddressChanged,
    SaExpired,
    SaKey,
    SecurityAssociation,
    Selector,
    UdpEncapsulation,
    UnknownSpiReceived,
)
from oegw.datapath.userspace.offloads import Offload

VERSION = 4
LARGEST = 65536  # octets of one message

_HEADER = Struct("!BBI")


class ChannelError(Exception):
    """A message that the other side should not have sent: the two are not of one version."""


class Kind(IntEnum):
    # From control to worker; each but PATH_MTU is answered by ANSWER or REFUSAL with its number.
    START = 1  # with its Equipment; the answer says which core runs, and why
    INSTALL = 2  # an SA, and where its record is
    REMOVE = 3
    MOVE = 4
    PREFER = 5
    PATH_MTU = 6  # a peer, and what its path takes; the other way round: what was measured
    BEGIN = 7  # all SAs are told: packets move from now on
    PULSE = 8  # to be answered, and no more: whether it hangs
    HOME = 9  # an inbound SA, and which opening worker has it, or will; null: none
    # From worker to control.
    ANSWER = 16
    REFUSAL = 17
    EVENT = 18
    WITHOUT = 19  # an offload that it has lost, and why


@dataclass(frozen=True, slots=True)
class Message:
    kind: Kind
    number: int
    body: Any = field(default=None, repr=False)

    def serialize(self) -> bytes:
        body = json.dumps(self.body, separators=(",", ":")).encode()
        return _HEADER.pack(VERSION, self.kind, self.number) + body

    @classmethod
    def parse(cls, octets: bytes) -> Message:
        """Raises ChannelError."""
        try:
            version, kind, number = _HEADER.unpack_from(octets)
            if version != VERSION:
                raise ChannelError(f"version {version}, not {VERSION}")
            return cls(Kind(kind), number, json.loads(octets[_HEADER.size :]))
        except struct_error:
            raise ChannelError("a message too short") from None
        except (ValueError, RecursionError):
            raise ChannelError("a message that cannot be read") from None


def key_body(key: SaKey) -> list[Any]:
    return [key.direction.value, key.spi, str(key.destination)]


def key_of(body: list[Any]) -> SaKey:
    direction, spi, destination = body
    return SaKey(Direction(direction), spi, ip_address(destination))


def _selector_body(selector: Selector) -> list[Any]:
    return [str(selector.network), selector.protocol, selector.port]


def _selector_of(body: list[Any]) -> Selector:
    network, protocol, port = body
    return Selector(ip_network(network), protocol, port)


def _encapsulation_body(encapsulation: UdpEncapsulation | None) -> list[Any] | None:
    if encapsulation is None:
        return None
    return [encapsulation.source_port, encapsulation.destination_port]


def _encapsulation_of(body: list[Any] | None) -> UdpEncapsulation | None:
    if body is None:
        return None
    source, destination = body
    return UdpEncapsulation(source, destination)


def move_body(
    key: SaKey,
    source: IPAddress,
    destination: IPAddress,
    encapsulation: UdpEncapsulation | None,
) -> list[Any]:
    return [key_body(key), str(source), str(destination), _encapsulation_body(encapsulation)]


def move_of(body: list[Any]) -> tuple[SaKey, IPAddress, IPAddress, UdpEncapsulation | None]:
    key, source, destination, encapsulation = body
    return (
        key_of(key),
        ip_address(source),
        ip_address(destination),
        _encapsulation_of(encapsulation),
    )


def home_body(key: SaKey, home: int | None) -> list[Any]:
    return [key_body(key), home]


def home_of(body: list[Any]) -> tuple[SaKey, int | None]:
    key, home = body
    return key_of(key), None if home is None else int(home)


def sa_body(sa: SecurityAssociation) -> dict[str, Any]:
    return {
        "direction": sa.direction.value,
        "spi": sa.spi,
        "outer": [str(sa.source), str(sa.destination)],
        "inner": [_selector_body(sa.source_selector), _selector_body(sa.destination_selector)],
        "cipher": [sa.cipher, sa.encryption_key.hex()],
        "integrity": [sa.integrity, sa.integrity_key.hex()],
        "extended": sa.extended_sequence_numbers,
        "window": sa.replay_window,
        "encapsulation": _encapsulation_body(sa.encapsulation),
        "limits": [sa.soft_bytes, sa.hard_bytes, sa.soft_seconds, sa.hard_seconds],
        "configured": sa.configured,
    }


def sa_of(body: dict[str, Any]) -> SecurityAssociation:
    outer, inner, limits = body["outer"], body["inner"], body["limits"]
    return SecurityAssociation(
        direction=Direction(body["direction"]),
        spi=body["spi"],
        source=ip_address(outer[0]),
        destination=ip_address(outer[1]),
        source_selector=_selector_of(inner[0]),
        destination_selector=_selector_of(inner[1]),
        cipher=body["cipher"][0],
        encryption_key=bytes.fromhex(body["cipher"][1]),
        integrity=body["integrity"][0],
        integrity_key=bytes.fromhex(body["integrity"][1]),
        extended_sequence_numbers=body["extended"],
        replay_window=body["window"],
        encapsulation=_encapsulation_of(body["encapsulation"]),
        soft_bytes=limits[0],
        hard_bytes=limits[1],
        soft_seconds=limits[2],
        hard_seconds=limits[3],
        configured=body["configured"],
    )


def install_body(sa: SecurityAssociation, offset: int) -> list[Any]:
    return [sa_body(sa), offset]


def install_of(body: list[Any]) -> tuple[SecurityAssociation, int]:
    sa, offset = body
    return sa_of(sa), int(offset)


def path_mtu_body(peer: IPAddress, mtu: int) -> list[Any]:
    return [str(peer), mtu]


def path_mtu_of(body: list[Any]) -> tuple[IPAddress, int]:
    peer, mtu = body
    return ip_address(peer), int(mtu)


def offload_body(offload: Offload) -> list[Any]:
    return [offload.name, offload.reason]


def offload_of(body: list[Any]) -> Offload:
    name, reason = body
    return Offload(str(name), str(reason))


def event_body(event: DatapathEvent) -> list[Any]:
    if isinstance(event, SaExpired):
        return ["expired", key_body(event.key), event.hard]
    if isinstance(event, PeerAddressChanged):
        return ["peer", key_body(event.key), str(event.address), event.port]
    assert isinstance(event, UnknownSpiReceived)
    return ["unknown", str(event.source), str(event.destination), event.spi]


def event_of(body: list[Any]) -> DatapathEvent:
    if body[0] == "expired":
        return SaExpired(key_of(body[1]), body[2])
    if body[0] == "peer":
        return PeerAddressChanged(key_of(body[1]), ip_address(body[2]), body[3])
    return UnknownSpiReceived(ip_address(body[1]), ip_address(body[2]), body[3])
