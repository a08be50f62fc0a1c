"""What the server and its relaying processes say to each other: one message in a packet.

The sockets of a connection go with the message that begins it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from oegw.socks5.interface import Transferred

MOST_EARLY = 64 * 1024  # octets that may come with a connection
MAX_MESSAGE = 2 * MOST_EARLY  # octets
TOGETHER = 100  # connections in a message; the kernel lets 253 descriptors go with one

_BEGIN = struct.Struct("=Qd")
_CLOSE = struct.Struct("=Q")
_ENDED = struct.Struct("=QQQB")

_REASONS = ("ended", "reset", "idle", "closed")


class ChannelError(Exception):
    """Not a message of ours."""


@dataclass(frozen=True, slots=True)
class Begin:
    """``number``: of the connection, for its life.  The others: see `interface.Relay.begin`."""

    number: int
    idle: float
    early: bytes = b""


@dataclass(frozen=True, slots=True)
class Close:
    number: int


def serialize_close(close: Close) -> bytes:
    return b"C" + _CLOSE.pack(close.number)


def serialize_begins(begins: Sequence[Begin]) -> bytes:
    """One, or some of which no client has sent anything early.  Their sockets go with the message,
    the client's and the destination's of each, in this order."""
    if begins[0].early:
        (only,) = begins
        return b"B" + _BEGIN.pack(only.number, only.idle) + only.early
    return b"M" + b"".join(_BEGIN.pack(each.number, each.idle) for each in begins)


def parse(octets: bytes | memoryview) -> list[Begin] | Close:
    """Raises ChannelError."""
    kind, body = bytes(octets[:1]), octets[1:]
    try:
        if kind == b"M":
            return [Begin(number, idle) for number, idle in _BEGIN.iter_unpack(body)]
        if kind == b"B":
            number, idle = _BEGIN.unpack_from(body)
            return [Begin(number, idle, bytes(body[_BEGIN.size :]))]
        if kind == b"C":
            return Close(*_CLOSE.unpack(body))
    except struct.error as error:
        raise ChannelError(str(error)) from error
    raise ChannelError(f"of kind {kind!r}")


Ended = tuple[int, Transferred]
MAX_REPORT = 16 * 1024  # octets
MOST_ENDED = MAX_REPORT // _ENDED.size  # in one of them


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
