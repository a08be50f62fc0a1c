"""The payloads, RFC 2408 section 3 and RFC 2407 section 4.6.

Each class reads and writes its own body, that is all after the generic header
of next payload, reserved octet and length, which ``message`` handles.  Reserved
fields are written as zero and read without being judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Protocol, Self

from ike.constants import (
    COOKIE_LENGTH,
    NONCE_LONGEST,
    NONCE_SHORTEST,
    SPIS_MOST,
    TRANSFORMS_MOST,
)
from ike.errors import InvalidNonce, MalformedPayload, UnsupportedDoi
from ike.identity import Identification
from ike.registry import DOI_IPSEC, SITUATION_IDENTITY_ONLY, NotifyType, PayloadType
from ike.registry import Protocol as SecurityProtocol
from ike.v1.attributes import Attribute, parse_attributes, serialize_attributes
from ike.wire import Reader, Writer

_SUB_HEADER = 4  # generic header of proposals and transforms
_SUB = Struct("!BBH")  # next, reserved, length


class Payload(Protocol):
    """What a message can be made of."""

    kind: ClassVar[PayloadType]

    def serialize(self, writer: Writer) -> None: ...


@dataclass(frozen=True, slots=True)
class Transform:
    """One way to do it, RFC 2408 section 3.6.  ``octets`` is the body as it was on the wire."""

    number: int
    identifier: int
    attributes: tuple[Attribute, ...]
    octets: bytes = b""

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = Reader(body)
        number, identifier = reader.number(1), reader.number(1)
        reader.number(2)
        return cls(number, identifier, parse_attributes(reader), body)

    def serialize(self, writer: Writer) -> None:
        """A transform that was read is written again octet for octet (RFC 2409 section 5)."""
        if self.octets:
            writer.octets(self.octets)
            return
        writer.number(self.number, 1)
        writer.number(self.identifier, 1)
        writer.number(0, 2)
        writer.octets(serialize_attributes(self.attributes))


@dataclass(frozen=True, slots=True)
class Proposal:
    """A protocol with its SPI and the ways to do it, RFC 2408 section 3.5."""

    number: int
    protocol: SecurityProtocol
    spi: bytes
    transforms: tuple[Transform, ...]

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = Reader(body)
        number, protocol = reader.number(1), SecurityProtocol(reader.number(1))
        spi_size, count = reader.number(1), reader.number(1)
        spi = reader.octets(spi_size)
        bodies = _parse_chain(reader, PayloadType.TRANSFORM)
        if len(bodies) != count:
            raise MalformedPayload(f"{len(bodies)} transforms, {count} announced")
        return cls(number, protocol, spi, tuple(Transform.parse(body) for body in bodies))

    def serialize(self, writer: Writer) -> None:
        writer.number(self.number, 1)
        writer.number(self.protocol, 1)
        writer.number(len(self.spi), 1)
        writer.number(len(self.transforms), 1)
        writer.octets(self.spi)
        _serialize_chain(writer, PayloadType.TRANSFORM, self.transforms)


def _parse_chain(reader: Reader, kind: PayloadType) -> list[bytes]:
    """Bodies of like sub-payloads up to the end of the reader's block.

    The "next payload" of each says ``kind``, and 0 in the last.
    """
    bodies: list[bytes] = []
    more = True
    while more:
        if len(bodies) == TRANSFORMS_MOST:
            raise MalformedPayload(f"more than {TRANSFORMS_MOST} in one chain")
        following, _, length = reader.numbers(_SUB)
        bodies.append(reader.octets(length - _SUB_HEADER))
        if following not in (kind, PayloadType.NONE):
            raise MalformedPayload(f"payload {following} among those of type {kind}")
        more = following == kind
    reader.finish()
    return bodies


def _serialize_chain(
    writer: Writer, kind: PayloadType, items: Sequence[Proposal | Transform]
) -> None:
    for index, item in enumerate(items, 1):
        body = Writer()
        item.serialize(body)
        octets = body.bytes()
        following = kind if index < len(items) else PayloadType.NONE
        writer.numbers(_SUB, following, 0, _SUB_HEADER + len(octets))
        writer.octets(octets)


@dataclass(frozen=True, slots=True)
class SecurityAssociation:
    """What is offered or chosen, RFC 2408 section 3.4, RFC 2407 section 4.6.1."""

    kind: ClassVar[PayloadType] = PayloadType.SECURITY_ASSOCIATION
    proposals: tuple[Proposal, ...]

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Raises ``UnsupportedDoi`` for all but the IPsec DOI with identity only."""
        doi, situation = reader.number(4), reader.number(4)
        if doi != DOI_IPSEC or situation != SITUATION_IDENTITY_ONLY:
            raise UnsupportedDoi(f"DOI {doi}, situation {situation}")
        bodies = _parse_chain(reader, PayloadType.PROPOSAL)
        return cls(tuple(Proposal.parse(body) for body in bodies))

    def serialize(self, writer: Writer) -> None:
        writer.number(DOI_IPSEC, 4)
        writer.number(SITUATION_IDENTITY_ONLY, 4)
        _serialize_chain(writer, PayloadType.PROPOSAL, self.proposals)


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """A Diffie-Hellman public value, RFC 2408 section 3.7; judged in ``groups``."""

    kind: ClassVar[PayloadType] = PayloadType.KEY_EXCHANGE
    public: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        return cls(reader.rest())

    def serialize(self, writer: Writer) -> None:
        writer.octets(self.public)


@dataclass(frozen=True, slots=True)
class Nonce:
    """RFC 2408 section 3.13; 8 to 256 octets (RFC 2409 section 5)."""

    kind: ClassVar[PayloadType] = PayloadType.NONCE
    octets: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        octets = reader.rest()
        if not NONCE_SHORTEST <= len(octets) <= NONCE_LONGEST:
            raise InvalidNonce(f"{len(octets)} octets")
        return cls(octets)

    def serialize(self, writer: Writer) -> None:
        writer.octets(self.octets)


@dataclass(frozen=True, slots=True)
class IdentificationPayload:
    """RFC 2407 section 4.6.2.  ``octets`` is the body as hashed into HASH_I and HASH_R."""

    kind: ClassVar[PayloadType] = PayloadType.IDENTIFICATION
    identification: Identification
    octets: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        octets = reader.rest()
        return cls(Identification.parse(Reader(octets)), octets)

    @classmethod
    def of(cls, identification: Identification) -> Self:
        writer = Writer()
        identification.serialize(writer)
        return cls(identification, writer.bytes())

    def serialize(self, writer: Writer) -> None:
        writer.octets(self.octets)


@dataclass(frozen=True, slots=True)
class Signature:
    """RFC 2408 section 3.12."""

    kind: ClassVar[PayloadType] = PayloadType.SIGNATURE
    octets: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        return cls(reader.rest())

    def serialize(self, writer: Writer) -> None:
        writer.octets(self.octets)


@dataclass(frozen=True, slots=True)
class VendorId:
    """RFC 2408 section 3.16."""

    kind: ClassVar[PayloadType] = PayloadType.VENDOR_ID
    octets: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        return cls(reader.rest())

    def serialize(self, writer: Writer) -> None:
        writer.octets(self.octets)


@dataclass(frozen=True, slots=True)
class NatDiscovery:
    """The hash of an address and port as the sender sees it, RFC 3947 section 3.2."""

    kind: ClassVar[PayloadType] = PayloadType.NAT_DISCOVERY
    octets: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        return cls(reader.rest())

    def serialize(self, writer: Writer) -> None:
        writer.octets(self.octets)


@dataclass(frozen=True, slots=True)
class Notification:
    """RFC 2408 section 3.14."""

    kind: ClassVar[PayloadType] = PayloadType.NOTIFICATION
    protocol: SecurityProtocol
    spi: bytes
    notify: NotifyType
    octets: bytes = b""

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """The DOI is not judged: some peers write 0 for ISAKMP's own notifies."""
        reader.number(4)
        protocol, spi_size = SecurityProtocol(reader.number(1)), reader.number(1)
        notify = NotifyType(reader.number(2))
        return cls(protocol, reader.octets(spi_size), notify, reader.rest())

    def serialize(self, writer: Writer) -> None:
        writer.number(DOI_IPSEC, 4)
        writer.number(self.protocol, 1)
        writer.number(len(self.spi), 1)
        writer.number(self.notify, 2)
        writer.octets(self.spi)
        writer.octets(self.octets)


@dataclass(frozen=True, slots=True)
class Delete:
    """RFC 2408 section 3.15: the SPIs that the sender no longer receives on."""

    kind: ClassVar[PayloadType] = PayloadType.DELETE
    protocol: SecurityProtocol
    spis: tuple[bytes, ...]

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Raises ``MalformedPayload`` unless SPIs are 4 octets, or 16 (cookies) for ISAKMP."""
        reader.number(4)
        protocol, size, count = (
            SecurityProtocol(reader.number(1)),
            reader.number(1),
            reader.number(2),
        )
        if size != (2 * COOKIE_LENGTH if protocol == SecurityProtocol.ISAKMP else 4):
            raise MalformedPayload(f"SPIs of {size} octets for protocol {protocol}")
        if count > SPIS_MOST:
            raise MalformedPayload(f"{count} SPIs")
        spis = tuple(reader.octets(size) for _ in range(count))
        reader.finish()
        return cls(protocol, spis)

    def serialize(self, writer: Writer) -> None:
        writer.number(DOI_IPSEC, 4)
        writer.number(self.protocol, 1)
        writer.number(len(self.spis[0]) if self.spis else 4, 1)
        writer.number(len(self.spis), 2)
        for spi in self.spis:
            writer.octets(spi)
