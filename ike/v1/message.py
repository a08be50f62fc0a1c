"""Chains of payloads, and whole messages in the clear.

A chain is first only cut into pieces; what is in a piece is read when it is
asked for.  So a phase 2 message is verified before its payloads are parsed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Protocol, Self, TypeVar

from ike.constants import PAYLOADS_MOST
from ike.errors import (
    MalformedPayload,
    MissingPayload,
    RepeatedPayload,
    TooManyPayloads,
    TrailingOctets,
    UnknownPayload,
)
from ike.header import Header
from ike.registry import PRIVATE_PAYLOADS, ExchangeType, PayloadType
from ike.v1.payloads import Payload
from ike.wire import Reader, Writer

GENERIC_HEADER = 4  # octets; RFC 2408 section 3.2
_GENERIC = Struct("!BBH")  # next payload, reserved, length
_KNOWN = frozenset(PayloadType) - {PayloadType.NONE, PayloadType.PROPOSAL, PayloadType.TRANSFORM}

P_co = TypeVar("P_co", bound=Payload, covariant=True)


class ReadablePayload(Protocol[P_co]):
    """A payload class, seen as something that reads bodies."""

    @property
    def kind(self) -> PayloadType: ...

    def parse(self, reader: Reader) -> P_co: ...


@dataclass(frozen=True, slots=True)
class Chain:
    """The payloads of one message: types and bodies in order.

    ``length`` is how many octets they took, without any padding after them.
    """

    pieces: tuple[tuple[PayloadType, bytes], ...]
    length: int

    @classmethod
    def cut(cls, first: PayloadType, octets: bytes, padded: bool) -> Self:
        """Cut ``octets`` into payloads.

        ``padded``: whether anything may follow the last payload, as it does in
        decrypted messages.  Vendor and private payloads are kept and ignored; raises
        ``UnknownPayload`` for types that nobody has defined.
        """
        reader = Reader(octets)
        pieces: list[tuple[PayloadType, bytes]] = []
        kind = first
        while kind != PayloadType.NONE:
            if len(pieces) == PAYLOADS_MOST:
                raise TooManyPayloads(f"more than {PAYLOADS_MOST}")
            if kind not in _KNOWN and kind not in PRIVATE_PAYLOADS:
                raise UnknownPayload(f"type {int(kind)}")
            following, _, length = reader.numbers(_GENERIC)
            if length < GENERIC_HEADER:
                raise MalformedPayload(f"payload of {length} octets")
            pieces.append((kind, reader.octets(length - GENERIC_HEADER)))
            kind = PayloadType(following)
        if not padded and reader.remaining:
            raise TrailingOctets(f"{reader.remaining} octets after the last payload")
        if not pieces:
            raise MissingPayload("no payload at all")
        return cls(tuple(pieces), len(octets) - reader.remaining)

    @property
    def first(self) -> PayloadType:
        return self.pieces[0][0]

    def bodies(self, kind: PayloadType) -> list[bytes]:
        return [body for piece, body in self.pieces if piece == kind]

    def has(self, kind: PayloadType) -> bool:
        return any(piece == kind for piece, _ in self.pieces)

    def all(self, payload: ReadablePayload[P_co]) -> list[P_co]:
        """All payloads of one class, parsed."""
        return [_whole(payload, body) for body in self.bodies(payload.kind)]

    def one(self, payload: ReadablePayload[P_co]) -> P_co:
        """The only payload of its class; raises ``MissingPayload``, ``RepeatedPayload``."""
        bodies = self.bodies(payload.kind)
        if not bodies:
            raise MissingPayload(payload.kind.name)
        if len(bodies) > 1:
            raise RepeatedPayload(payload.kind.name)
        return _whole(payload, bodies[0])


def _whole(payload: ReadablePayload[P_co], body: bytes) -> P_co:
    reader = Reader(body)
    value = payload.parse(reader)
    reader.finish()
    return value


def body_of(payload: Payload) -> bytes:
    """What ``Chain.cut`` would show as the body."""
    writer = Writer()
    payload.serialize(writer)
    return writer.bytes()


def join(payloads: Sequence[Payload]) -> bytes:
    """The octets of a chain."""
    writer = Writer()
    followers: Iterable[PayloadType] = [*(p.kind for p in payloads[1:]), PayloadType.NONE]
    for payload, following in zip(payloads, followers, strict=True):
        body = body_of(payload)
        writer.numbers(_GENERIC, following, 0, GENERIC_HEADER + len(body))
        writer.octets(body)
    return writer.bytes()


def clear_message(
    cookies: tuple[bytes, bytes],
    exchange: ExchangeType,
    message_id: int,
    payloads: Sequence[Payload],
) -> bytes:
    """A whole message without encryption."""
    chain = join(payloads)
    first = payloads[0].kind
    return Header.before(cookies, exchange, message_id, first, len(chain), False) + chain
