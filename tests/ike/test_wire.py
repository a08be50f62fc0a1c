from __future__ import annotations

import pytest

from ike.errors import TrailingOctets, TruncatedMessage
from ike.header import Header
from ike.registry import ExchangeType, IdType, PayloadType
from ike.wire import Reader, Writer


def test_reading_what_was_written() -> None:
    writer = Writer()
    writer.number(1, 1)
    writer.number(0x1234, 2)
    writer.octets(b"abc")
    reader = Reader(writer.bytes())
    assert (reader.number(1), reader.number(2), reader.rest()) == (1, 0x1234, b"abc")
    reader.finish()


@pytest.mark.parametrize("count", [4, 1 << 40, -1])
def test_a_reader_cannot_overrun(count: int) -> None:
    reader = Reader(b"abc")
    with pytest.raises(TruncatedMessage):
        reader.octets(count)
    assert reader.rest() == b"abc"


def test_left_over_octets() -> None:
    reader = Reader(b"abc")
    reader.octets(2)
    with pytest.raises(TrailingOctets):
        reader.finish()


def test_a_number_that_does_not_fit() -> None:
    with pytest.raises(OverflowError):
        Writer().number(256, 1)


HEADER = bytes.fromhex("0102030405060708 1112131415161718 01 10 02 00 00000000 0000001c")


def test_the_header_both_ways() -> None:
    header = Header.parse(Reader(HEADER))
    assert header.exchange is ExchangeType.IDENTITY_PROTECTION
    assert header.next_payload is PayloadType.SECURITY_ASSOCIATION
    assert (header.major_version, header.encrypted, header.length) == (1, False, 28)
    writer = Writer()
    header.serialize(writer)
    assert writer.bytes() == HEADER
    for length in range(28):
        with pytest.raises(TruncatedMessage):
            Header.parse(Reader(HEADER[:length]))


def test_registries_survive_strangers() -> None:
    stranger = IdType(200)
    assert (stranger, stranger.name, stranger.value) == (200, "IdType_200", 200)
    assert 200 not in list(IdType)
    with pytest.raises(ValueError, match="70000"):
        IdType(70000)
