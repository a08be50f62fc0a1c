"""The ISAKMP header, RFC 2408 section 3.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ike.constants import COOKIE_LENGTH, HEADER_LENGTH
from ike.registry import ExchangeType, PayloadType
from ike.wire import Reader, Writer

FLAG_ENCRYPTION = 1
FLAG_COMMIT = 2
FLAG_AUTHENTICATION_ONLY = 4
VERSION = 0x10  # major 1, minor 0
NO_COOKIE = bytes(COOKIE_LENGTH)


@dataclass(frozen=True, slots=True)
class Header:
    """The 28 octets before all payloads.  ``length`` counts header and payloads, in octets."""

    initiator_cookie: bytes
    responder_cookie: bytes
    next_payload: PayloadType
    exchange: ExchangeType
    flags: int
    message_id: int
    length: int
    version: int = VERSION

    @property
    def encrypted(self) -> bool:
        return bool(self.flags & FLAG_ENCRYPTION)

    @property
    def major_version(self) -> int:
        return self.version >> 4

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read 28 octets; raises ``TruncatedMessage``.  Nothing is judged here."""
        return cls(
            initiator_cookie=reader.octets(COOKIE_LENGTH),
            responder_cookie=reader.octets(COOKIE_LENGTH),
            next_payload=PayloadType(reader.number(1)),
            version=reader.number(1),
            exchange=ExchangeType(reader.number(1)),
            flags=reader.number(1),
            message_id=reader.number(4),
            length=reader.number(4),
        )

    def serialize(self, writer: Writer) -> None:
        writer.octets(self.initiator_cookie)
        writer.octets(self.responder_cookie)
        writer.number(self.next_payload, 1)
        writer.number(self.version, 1)
        writer.number(self.exchange, 1)
        writer.number(self.flags, 1)
        writer.number(self.message_id, 4)
        writer.number(self.length, 4)

    @classmethod
    def before(
        cls,
        cookies: tuple[bytes, bytes],
        exchange: ExchangeType,
        message_id: int,
        first: PayloadType,
        body_length: int,
        encrypted: bool,
    ) -> bytes:
        """The octets of the header that stands before ``body_length`` octets of payloads."""
        writer = Writer()
        cls(
            initiator_cookie=cookies[0],
            responder_cookie=cookies[1],
            next_payload=first,
            exchange=exchange,
            flags=FLAG_ENCRYPTION if encrypted else 0,
            message_id=message_id,
            length=HEADER_LENGTH + body_length,
        ).serialize(writer)
        return writer.bytes()
