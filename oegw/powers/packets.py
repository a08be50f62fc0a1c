"""Packets of the kernel's queues on their way between hands and mind, and verdicts back.

A packet is one datagram; the hands know it by its number until there is a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from struct import error as struct_error

_PACKET = Struct("!QIIIB")
_VERDICT = Struct("!HQBI")
_ACCEPT, _MARK, _PAYLOAD = 1, 2, 4
_LONGEST = 0xFFFF - 4  # of an attribute of netlink: more would be read as others


class PacketFormError(Exception):
    """Octets that are no packet, or no verdict."""


@dataclass(frozen=True, slots=True)
class Packet:
    """``octets``: what was copied.  ``indev``, ``outdev``: indices of interfaces, 0 for none."""

    number: int
    mark: int
    indev: int
    outdev: int
    hook: int
    octets: bytes

    def serialize(self) -> bytes:
        head = _PACKET.pack(self.number, self.mark, self.indev, self.outdev, self.hook)
        return head + self.octets

    @classmethod
    def parse(cls, octets: bytes) -> Packet:
        """Raises PacketFormError."""
        try:
            number, mark, indev, outdev, hook = _PACKET.unpack_from(octets)
        except struct_error:
            raise PacketFormError("a packet too short") from None
        return cls(number, mark, indev, outdev, hook, octets[_PACKET.size :])


@dataclass(frozen=True, slots=True)
class Verdict:
    """On packet ``number`` of a queue.  ``mark``, ``payload``: other ones; None: as they are."""

    queue: int
    number: int
    accept: bool
    mark: int | None = None
    payload: bytes | None = None

    def serialize(self) -> bytes:
        flags = (
            self.accept * _ACCEPT
            + (self.mark is not None) * _MARK
            + (self.payload is not None) * _PAYLOAD
        )
        head = _VERDICT.pack(self.queue, self.number, flags, self.mark or 0)
        return head + (self.payload or b"")

    @classmethod
    def parse(cls, octets: bytes) -> Verdict:
        """Raises PacketFormError."""
        try:
            queue, number, flags, mark = _VERDICT.unpack_from(octets)
        except struct_error:
            raise PacketFormError("a verdict too short") from None
        payload = octets[_VERDICT.size :]
        has_payload, has_mark = bool(flags & _PAYLOAD), bool(flags & _MARK)
        if len(payload) > _LONGEST:
            raise PacketFormError("a verdict with a packet too long")
        if flags > 7 or (payload and not has_payload) or (mark and not has_mark):
            raise PacketFormError("a verdict with what it does not say")
        return cls(
            queue,
            number,
            bool(flags & _ACCEPT),
            mark if has_mark else None,
            payload if has_payload else None,
        )
