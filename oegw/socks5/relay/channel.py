"""What the server and its relaying processes say to each other: one message in a packet.

The sockets of a connection go with the message that begins it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from oegw.socks5.interface import Transferred

MAX_MESSAGE = 128 * 1024  # octets, of either direction

_BEGIN = struct.Struct("=cQd")  # and what came early
_CLOSE = struct.Struct("=cQ")
_ENDED = struct.Struct("=QQQB")

_REASONS = ("ended", "reset", "idle", "closed")


class ChannelError(Exception):
    """Not a message of ours."""


@dataclass(frozen=True, slots=True)
class Begin:
    """``number``: of the connection, for its life.  The others: see `interface.Relay.begin`."""

    number: int
    idle: float
    early: bytes

    def serialize(self) -> bytes:
        return _BEGIN.pack(b"B", self.number, self.idle) + self.early


@dataclass(frozen=True, slots=True)
class Close:
    number: int

    def serialize(self) -> bytes:
        return _CLOSE.pack(b"C", self.number)


def parse(octets: bytes) -> Begin | Close:
    """Raises ChannelError."""
    try:
        if octets[:1] == b"B":
            _, number, idle = _BEGIN.unpack_from(octets)
            return Begin(number, idle, octets[_BEGIN.size :])
        if octets[:1] == b"C":
            return Close(_CLOSE.unpack(octets)[1])
    except struct.error as error:
        raise ChannelError(str(error)) from error
    raise ChannelError(f"of kind {octets[:1]!r}")


Ended = tuple[int, Transferred]
MOST_ENDED = MAX_MESSAGE // _ENDED.size // 2  # in one message


def serialize_ended(all_ended: list[Ended]) -> bytes:
    return b"".join(
        _ENDED.pack(number, each.to_destination, each.to_client, _REASONS.index(each.reason))
        for number, each in all_ended
    )


def parse_ended(octets: bytes) -> list[Ended]:
    """Raises ChannelError."""
    try:
        return [
            (number, Transferred(to_destination, to_client, _REASONS[reason]))
            for number, to_destination, to_client, reason in _ENDED.iter_unpack(octets)
        ]
    except (struct.error, IndexError) as error:
        raise ChannelError(str(error)) from error
