"""IKE messages in pieces, as the vendor ID FRAGMENTATION announces them.

Each piece is a message of its own in the clear, with the cookies of the channel and one
payload of type 132: fragment ID (2 octets), number (1, from 1), flags (1; 1 is the last
piece), then octets.  Joined in order they are the message, header included.

    0                   1                   2                   3
    | next payload  |   reserved    |         payload length        |
    |          fragment ID          |    number     |     flags     |
    |                            octets ...                         |

Nothing authenticates a piece, and some peers give every message the same ID.  So a
piece that contradicts another does not push it out: both readings are followed, and
each that becomes whole is handed on, where a forged one fails to decrypt.  Everything is
capped, and only who knows the cookies of a channel can store anything here.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Self

from ike.alarms import Alarm, Alarms
from ike.constants import (
    COOKIE_LENGTH,
    FRAGMENT_TIMEOUT,
    FRAGMENTS_MOST,
    HEADER_LENGTH,
    MESSAGE_LONGEST,
    REASSEMBLIES_MOST,
    REASSEMBLIES_PER_SOURCE,
    REASSEMBLY_READINGS,
)
from ike.errors import FragmentDropped
from ike.events import TransportAddress
from ike.half_open import source_of
from ike.header import Header
from ike.wire import Reader

_LAST = 1
_GENERIC_HEADER = 4
_SPENT_KEPT = 2
_LENGTH_OFFSET = 24  # of the length in the ISAKMP header


_Key = tuple[bytes, TransportAddress, int]  # cookies, source, fragment ID


@dataclass(frozen=True, slots=True)
class Fragment:
    """One piece.  ``number`` counts from 1."""

    identifier: int
    number: int
    last: bool
    octets: bytes

    @classmethod
    def parse(cls, message: bytes) -> Self:
        """From a whole datagram; raises ``Dropped``."""
        reader = Reader(message[HEADER_LENGTH:])
        following = reader.number(1)
        reader.number(1)
        length = reader.number(2)
        if following or length != _GENERIC_HEADER + reader.remaining:
            raise FragmentDropped("not the only payload of its message")
        identifier, number, flags = reader.number(2), reader.number(1), reader.number(1)
        octets = reader.rest()
        if not 1 <= number <= FRAGMENTS_MOST:
            raise FragmentDropped(f"number {number}")
        if not octets:
            raise FragmentDropped("nothing in it")
        return cls(identifier, number, bool(flags & _LAST), octets)


@dataclass(frozen=True, slots=True)
class _Reading:
    """Pieces that may belong to one message.  ``last`` is the number of the last one, if there."""

    pieces: dict[int, bytes]
    last: int | None = None

    def with_piece(self, piece: Fragment) -> _Reading:
        """This reading with ``piece`` in the place of what contradicts it."""
        pieces = {**self.pieces, piece.number: piece.octets}
        last = None if self.last == piece.number else self.last
        if piece.last:
            last = piece.number
            pieces = {n: octets for n, octets in pieces.items() if n <= last}
        elif last is not None and piece.number > last:
            del pieces[last]
            last = None
        return _Reading(pieces, last)

    def agrees(self, piece: Fragment) -> bool:
        if piece.number in self.pieces:
            ends = self.last == piece.number
            return self.pieces[piece.number] == piece.octets and ends == piece.last
        if piece.last:
            return self.last is None and max(self.pieces, default=0) < piece.number
        return self.last is None or piece.number < self.last

    def has(self, piece: Fragment) -> bool:
        return piece.number in self.pieces

    @property
    def too_long(self) -> bool:
        return sum(map(len, self.pieces.values())) > MESSAGE_LONGEST

    def whole(self) -> bytes | None:
        """The message, if all of it is there."""
        if self.last is None or len(self.pieces) < self.last:
            return None
        return b"".join(self.pieces[number] for number in range(1, self.last + 1))


class _Reassembly:
    """What came of one fragment ID on one channel from one source.

    ``readings`` still lack pieces.  ``spent`` are the latest that lacked none: if one of
    their pieces was forged, the true one may be on its way.
    """

    __slots__ = ("alarm", "readings", "spent")

    def __init__(self, alarm: Alarm) -> None:
        self.alarm = alarm
        self.readings: list[_Reading] = []
        self.spent: list[_Reading] = []

    def take(self, piece: Fragment) -> list[bytes]:
        """Add a piece; returns what became whole."""
        agreeing = [reading for reading in self.readings if reading.agrees(piece)]
        growing = [reading for reading in agreeing if not reading.has(piece)]
        grown = [reading.with_piece(piece) for reading in growing]
        if not agreeing:  # a new message under the old ID, or one of both is forged
            others = [*self.readings, *(old for old in self.spent if not old.agrees(piece))]
            grown = [reading.with_piece(piece) for reading in others]
            grown.append(_Reading({}).with_piece(piece))
        self.readings = [reading for reading in self.readings if reading not in growing]
        whole: list[bytes] = []
        for reading in grown:
            if reading.too_long:
                continue
            message = reading.whole()
            if message is not None:
                whole.append(message)
                self.spent.append(reading)
            elif reading not in self.readings:
                self.readings.append(reading)
        del self.readings[:-REASSEMBLY_READINGS]
        del self.spent[:-_SPENT_KEPT]
        return whole


class Fragments:
    """All messages that come in pieces.  The oldest makes room."""

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._under_way: OrderedDict[_Key, _Reassembly] = OrderedDict()
        self._per_source: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._under_way)

    def take(
        self, now: float, header: Header, message: bytes, remote: TransportAddress
    ) -> list[bytes]:
        """A datagram with a piece for a channel that is known: the messages that are whole now.

        Raises ``Dropped``.
        """
        piece = Fragment.parse(message)
        cookies = header.initiator_cookie + header.responder_cookie
        key = (cookies, remote, piece.identifier)
        reassembly = self._under_way.get(key)
        if reassembly is None:
            reassembly = self._begin(now, key)
        elif not reassembly.readings:  # another message under the same ID has its own time
            reassembly.alarm.cancel()
            reassembly.alarm = self._set_alarm(now, key)
        whole = reassembly.take(piece)
        return [message for message in whole if _is_message(message, cookies)]

    def _begin(self, now: float, key: _Key) -> _Reassembly:
        source = source_of(key[1].address)
        if self._per_source[source] >= REASSEMBLIES_PER_SOURCE:
            self._make_room([k for k in self._under_way if source_of(k[1].address) == source])
        elif len(self._under_way) >= REASSEMBLIES_MOST:
            self._make_room(list(self._under_way))
        reassembly = self._under_way[key] = _Reassembly(self._set_alarm(now, key))
        self._per_source[source] += 1
        return reassembly

    def _set_alarm(self, now: float, key: _Key) -> Alarm:
        return self._alarms.set(now + FRAGMENT_TIMEOUT, lambda _: self._end(key))

    def _make_room(self, keys: list[_Key]) -> None:
        """End the oldest of these, one that lacks nothing if there is one."""
        self._end(next((key for key in keys if not self._under_way[key].readings), keys[0]))

    def _end(self, key: _Key) -> None:
        reassembly = self._under_way.pop(key, None)
        if reassembly is None:
            return
        reassembly.alarm.cancel()
        source = source_of(key[1].address)
        self._per_source[source] -= 1
        if not self._per_source[source]:
            del self._per_source[source]


def _is_message(message: bytes, cookies: bytes) -> bool:
    """Whether it can be the message of that channel: what was put together wrongly is not."""
    length = int.from_bytes(message[_LENGTH_OFFSET:HEADER_LENGTH], "big")
    return message[: 2 * COOKIE_LENGTH] == cookies and length == len(message)
