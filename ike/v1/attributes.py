"""Data attributes, RFC 2408 section 3.3: type and value (TV), or type, length, value (TLV)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from typing import Self

from ike.constants import ATTRIBUTES_MOST
from ike.errors import MalformedPayload
from ike.wire import Reader, Writer

_BASIC = 0x8000
_BASIC_MOST = 0xFFFF
_PAIR = Struct("!HH")  # type; value or length
_NUMBER_LONGEST = 8  # octets; longer values are no numbers that we know


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute whose value is a number.

    The form of encoding is not part of the value: an attribute offered in one form may
    come back in the other (RFC 2409 appendix A).  A value too long to be a number that
    anyone here understands is kept as ``None``, which equals no value we accept.
    """

    kind: int
    value: int | None

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        kind, value_or_length = reader.numbers(_PAIR)
        if kind & _BASIC:
            return cls(kind & ~_BASIC, value_or_length)
        value = reader.octets(value_or_length)
        if len(value.lstrip(b"\0")) > _NUMBER_LONGEST:
            return cls(kind, None)
        return cls(kind, int.from_bytes(value, "big"))

    def serialize(self, writer: Writer) -> None:
        """The short form where the value fits, else four octets."""
        if self.value is None:
            raise ValueError("a value that was not understood cannot be written")
        if self.value <= _BASIC_MOST:
            writer.numbers(_PAIR, _BASIC | self.kind, self.value)
        else:
            writer.number(self.kind, 2)
            writer.number(4, 2)
            writer.number(self.value, 4)


def parse_attributes(reader: Reader) -> tuple[Attribute, ...]:
    """All attributes up to the end of the reader's block."""
    attributes: list[Attribute] = []
    while reader.remaining:
        if len(attributes) == ATTRIBUTES_MOST:
            raise MalformedPayload(f"more than {ATTRIBUTES_MOST} attributes")
        attributes.append(Attribute.parse(reader))
    return tuple(attributes)


def serialize_attributes(attributes: Iterable[Attribute]) -> bytes:
    writer = Writer()
    for attribute in attributes:
        attribute.serialize(writer)
    return writer.bytes()


@dataclass(frozen=True, slots=True)
class AttributeSet:
    """The attributes of one transform, by type, with the lifetimes apart.

    ``values`` has one value per type.  ``lifetimes`` maps the life type (seconds,
    kilobytes) to its duration.
    """

    values: dict[int, int | None]
    lifetimes: dict[int, int]

    @classmethod
    def gather(cls, attributes: Iterable[Attribute], life_type: int, duration: int) -> Self | None:
        """``None`` if the list contradicts itself or a duration has no type before it.

        Repeated equal attributes are one (RFC 2407 section 4.5.2).
        """
        values: dict[int, int | None] = {}
        lifetimes: dict[int, int] = {}
        unit: int | None = None
        for attribute in attributes:
            if attribute.kind == life_type:
                unit = attribute.value
            elif attribute.kind == duration:
                if unit is None or attribute.value is None:
                    return None
                if lifetimes.setdefault(unit, attribute.value) != attribute.value:
                    return None
            elif values.setdefault(attribute.kind, attribute.value) != attribute.value:
                return None
        return cls(values, lifetimes)
