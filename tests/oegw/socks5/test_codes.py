"""The numbers of the protocol (RFC 1928, draft-kitamura-socks-ipv6-01)."""

from __future__ import annotations

import pytest

from oegw.socks5.codes import (
    DEFAULT_PORT,
    AddressType,
    Command,
    Flag,
    Method,
    ReplyCode,
    Subcommand,
)


@pytest.mark.parametrize(
    ("command", "base", "associates"),
    [
        (0x01, Command.CONNECT, False),
        (0x02, Command.BIND, False),
        (0x03, Command.UDP_ASSOCIATE, False),
        (0x08, None, True),
        (0x09, Command.CONNECT, True),
        (0x0A, Command.BIND, True),
        (0x0B, Command.UDP_ASSOCIATE, True),
    ],
)
def test_a_command_is_a_base_command_and_a_bit(
    command: int, base: Command | None, associates: bool
) -> None:
    """SK-26: bit 0x08 asks for the association of the address beside the base command."""
    assert Command(command).base is base
    assert Command(command).associates is associates


def test_there_are_no_other_commands() -> None:
    """SK-27."""
    assert [code for code in range(256) if code in set(Command)] == [1, 2, 3, 8, 9, 10, 11]


def test_the_numbers_are_those_of_the_documents() -> None:
    assert DEFAULT_PORT == 1080
    assert [int(method) for method in Method] == [0x00, 0x02, 0xFF]
    assert {kind.name: int(kind) for kind in AddressType} == {
        "IPV4": 1,
        "NAME": 3,
        "IPV6": 4,
        "ID": 8,
    }
    assert [int(code) for code in ReplyCode] == list(range(10))  # SK-4
    assert [int(flag) for flag in Flag] == [0x01, 0x04, 0x10]  # SK-40
    assert [int(each) for each in Subcommand] == [1]
