"""The ISAKMP header, RFC 2408 section 3.1."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Self

from ike.constants import COOKIE_LENGTH, HEADER_LENGTH
from ike.registry import ExchangeType, PayloadType
from ike.wire import Reader, Writer

FLAG_ENCRYPTION = 1
FLAG_COMMIT = 2
FLAG_AUTHENTICATION_ONLY = 4
VERSION = 0x10  # major 1, minor 0
NO_COOKIE = bytes(COOKIE_LENGTH)

_NUMBERS = Struct("!BBBBII")  # what follows the cookies


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
        cookies = reader.octets(2 * COOKIE_LENGTH)
        following, version, exchange, flags, message_id, length = reader.numbers(_NUMBERS)
        return cls(
            initiator_cookie=cookies[:COOKIE_LENGTH],
            responder_cookie=cookies[COOKIE_LENGTH:],
            next_payload=PayloadType(following),
            version=version,
            exchange=ExchangeType(exchange),
            flags=flags,
            message_id=message_id,
            length=length,
        )

    def serialize(self, writer: Writer) -> None:
        writer.octets(self.initiator_cookie)
        writer.octets(self.responder_cookie)
        writer.numbers(
            _NUMBERS,
            self.next_payload,
            self.version,
            self.exchange,
            self.flags,
            self.message_id,
            self.length,
        )

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
