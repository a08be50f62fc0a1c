"""Probes of the path: does it keep the flag, and which key does the peer seal new flows with?

A question, and its answer, each in one UDP datagram between the gateways of two hosts:

    magic 8, version 1, kind 1, flags 1, algorithm 1, day 4, sent 8,
    key id of the sender 8, key id of the receiver 8, nonce 16, HMAC-SHA-256 32

The question says in which form it was sent, the answer in which form that arrived.  The answer goes
out in the same form, with the ports swapped, and so tries the way back.  Both ports are random, as
those of a sealed packet are; whoever receives one tells it by its magic.  The MAC also covers both
addresses, so that what a translator changed does not count.

The question is an announcement as well: from its answer on the sender seals new flows with the key
that algorithm, day and key ids stand for.  ``sent`` keeps an old announcement from coming back.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from enum import IntEnum
from hashlib import sha256
from ipaddress import IPv4Address
from struct import Struct

from oegw.packet.checksum import checksum
from oegw.packet.flow import flow_of
from oegw.packet.ip import UDP, PacketError, layout_of
from oegw.sst.interface import PROBE_MAGIC, Algorithm, IPAddress
from oegw.sst.signal import Signal

# Specification values (ours); the magic is that of `interface`.
VERSION = 1
NONCE_OCTETS = 16

_SENT_FLAGGED = 0x01
_ARRIVED_FLAGGED = 0x02
_NO_DAY = 0xFFFFFFFF
_FIELDS = Struct("!8sBBBBIQ8s8s16s")
_MAC_OCTETS = 32
PROBE_OCTETS = _FIELDS.size + _MAC_OCTETS

_UDP = Struct("!HHHH")
_HOP_LIMIT = 64
_DONT_FRAGMENT = 0x4000


class ProbeError(Exception):
    """A probe that can't be read, or is not from whom it says; ``trigger`` names the counter."""

    def __init__(self, trigger: str) -> None:
        super().__init__(trigger)
        self.trigger = trigger


class Kind(IntEnum):
    QUESTION = 1
    ANSWER = 2


@dataclass(frozen=True, slots=True)
class Terms:
    """Which key new flows are sealed with: ``own`` and ``peer`` are key ids, as the sender sees it.

    ``day`` is floor(time/86400), or None where keys have no epochs.
    """

    algorithm: Algorithm
    day: int | None
    own: bytes
    peer: bytes

    def reversed(self) -> Terms:
        """The same from the other side."""
        return Terms(self.algorithm, self.day, self.peer, self.own)


@dataclass(frozen=True, slots=True)
class Probe:
    """``terms`` are the sender's; ``sent``: microseconds since 1970, by the sender's clock."""

    kind: Kind
    terms: Terms
    sent: int
    nonce: bytes
    sent_flagged: bool
    arrived_flagged: bool = False

    @classmethod
    def parse(cls, octets: bytes) -> Probe:
        """What a UDP payload says; its MAC is not looked at.  Raises ProbeError."""
        if len(octets) != PROBE_OCTETS:
            raise ProbeError("probe_length")
        magic, version, kind, flags, algorithm, day, sent, own, peer, nonce = _FIELDS.unpack_from(
            octets
        )
        if magic != PROBE_MAGIC:
            raise ProbeError("probe_magic")
        if version != VERSION:
            raise ProbeError("probe_version")
        try:
            terms = Terms(Algorithm(algorithm), None if day == _NO_DAY else day, own, peer)
            return cls(
                Kind(kind), terms, sent, nonce,
                bool(flags & _SENT_FLAGGED), bool(flags & _ARRIVED_FLAGGED),
            )  # fmt: skip
        except ValueError:
            raise ProbeError("probe_unknown_word") from None

    def serialize(self, key: bytes, source: IPAddress, destination: IPAddress) -> bytes:
        """The UDP payload, for a packet between these addresses."""
        day = _NO_DAY if self.terms.day is None else self.terms.day
        flags = _SENT_FLAGGED * self.sent_flagged | _ARRIVED_FLAGGED * self.arrived_flagged
        fields = _FIELDS.pack(
            PROBE_MAGIC, VERSION, self.kind, flags, self.terms.algorithm, day, self.sent,
            self.terms.own, self.terms.peer, self.nonce,
        )  # fmt: skip
        return fields + _mac(key, fields, source, destination)

    def answered(self, *, arrived_flagged: bool) -> Probe:
        """The answer to this question."""
        return replace(
            self,
            kind=Kind.ANSWER,
            terms=self.terms.reversed(),
            arrived_flagged=arrived_flagged,
        )


def verify(octets: bytes, key: bytes, source: IPAddress, destination: IPAddress) -> None:
    """Raise ProbeError unless the holder of ``key`` made this payload for these addresses."""
    fields, mac = octets[: _FIELDS.size], octets[_FIELDS.size :]
    if not hmac.compare_digest(mac, _mac(key, fields, source, destination)):
        raise ProbeError("probe_forged")


def _mac(key: bytes, fields: bytes, source: IPAddress, destination: IPAddress) -> bytes:
    return hmac.new(key, source.packed + destination.packed + fields, sha256).digest()


# ------------------------------------------------------------------ the packet around it


def packet_with(
    payload: bytes,
    source: IPAddress,
    destination: IPAddress,
    ports: tuple[int, int],
    signal: Signal,
    *,
    flagged: bool,
) -> bytes:
    """A whole IP packet with one UDP datagram."""
    length = _UDP.size + len(payload)
    udp = _UDP.pack(*ports, length, 0) + payload
    pseudo = source.packed + destination.packed + length.to_bytes(4, "big") + UDP.to_bytes(4, "big")
    check = checksum(pseudo + udp) or 0xFFFF  # RFC 768: zero means that there is none
    udp = _UDP.pack(*ports, length, check) + payload
    if isinstance(source, IPv4Address):
        header = bytearray(20)
        header[0], header[8], header[9] = 0x45, _HOP_LIMIT, UDP
        header[2:4] = (20 + length).to_bytes(2, "big")
        header[6:8] = _DONT_FRAGMENT.to_bytes(2, "big")
        header[12:20] = source.packed + destination.packed
        header[10:12] = checksum(header).to_bytes(2, "big")
    else:
        header = bytearray(40)
        header[0], header[6], header[7] = 0x60, UDP, _HOP_LIMIT
        header[4:6] = length.to_bytes(2, "big")
        header[8:40] = source.packed + destination.packed
    packet = header + udp
    if flagged:
        signal.flag(packet)
    return bytes(packet)


def payload_of(packet: bytes) -> tuple[bytes, tuple[int, int]]:
    """The UDP payload of a packet, and its ports.  Raises ProbeError."""
    try:
        _, length, protocol, offset, source_port, destination_port, fragment = layout_of(packet)
    except PacketError as error:
        raise ProbeError(error.trigger) from None
    if fragment or protocol != UDP or source_port is None or destination_port is None:
        raise ProbeError("probe_not_udp")
    return packet[offset + _UDP.size : length], (source_port, destination_port)


def addresses_of(packet: bytes) -> tuple[IPAddress, IPAddress]:
    """Source and destination of a packet's header.  Raises ProbeError."""
    try:
        flow = flow_of(packet)
    except PacketError as error:
        raise ProbeError(error.trigger) from None
    return flow.source, flow.destination


def is_probe(packet: bytes) -> bool:
    """Whether a packet begins as a probe does: what the plane hands up as one."""
    try:
        payload, _ = payload_of(packet)
    except ProbeError:
        return False
    return payload.startswith(PROBE_MAGIC)
