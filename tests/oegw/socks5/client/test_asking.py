"""Requests, replies and datagrams of a client."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oegw.socks5.client import asking
from oegw.socks5.client.errors import AnswerUnusable
from oegw.socks5.codes import AddressType, Command, Flag
from oegw.socks5.wire import Address, AddressId, Datagram, Reply, Request

BOB4, BOB6 = ip_address("192.2.0.66"), ip_address("2001:db8::66")
ID = AddressId(0x010203)


def test_a_request_for_each_command() -> None:
    """SK-26, SK-30, SK-35."""
    assert asking.connect_request(BOB4, 80) == Request(Command.CONNECT, BOB4, 80)
    assert asking.connect_request("bob", 80, Flag.DESTINATION_FAMILY, associate=True) == Request(
        0x09, "bob", 80, 0x10
    )
    assert asking.bind_request(ID, 20) == Request(Command.BIND, ID, 20)
    assert asking.bind_request(ID, 20, associate=True).command == 0x0A
    assert asking.udp_request(BOB4, 5000, Flag.USE_CLIENT_PORT) == Request(3, BOB4, 5000, 4)
    assert asking.udp_request(BOB4, 5000, associate="bob") == Request(0x0B, "bob", 5000)
    assert asking.associate_request("bob") == Request(8, "bob", 0)
    assert asking.associate_request(BOB6, AddressType.NAME) == Request(8, BOB6, 3)


def test_a_header_with_an_id_has_ten_octets() -> None:
    """SK-41."""
    for destination, octets in ((ID, 10), (BOB4, 10), (BOB6, 22)):
        assert len(asking.datagram_octets(b"", destination, 53)) == octets
    assert asking.datagram_octets(b"x", ID, 53).hex(" ") == "00 00 00 08 00 01 02 03 00 35 78"


@given(
    st.one_of(st.ip_addresses(), st.integers(0, 2**24 - 1).map(AddressId)),
    st.integers(0, 65535),
    st.binary(max_size=100),
)
def test_datagrams_go_both_ways(address: Address, port: int, payload: bytes) -> None:
    octets = asking.datagram_octets(payload, address, port)
    assert asking.datagram_in(octets) == Datagram(address, port, payload)


@given(st.binary(max_size=40))
def test_whatever_comes_is_a_datagram_or_none(octets: bytes) -> None:
    found = asking.datagram_in(octets)
    assert found is None or found.fragment == 0


def test_fragments_are_left_out() -> None:
    """SK-7."""
    assert asking.datagram_in(Datagram(BOB4, 53, b"part", 1).octets()) is None


SERVER = ip_address("192.1.1.4")


@pytest.mark.parametrize(
    ("said", "relay"),
    [
        (BOB4, BOB4),
        (BOB6, BOB6),
        (ip_address("::ffff:192.2.0.66"), BOB4),
        (ip_address("0.0.0.0"), SERVER),
        (ip_address("::"), SERVER),
        (ID, SERVER),
        ("gateway", SERVER),
    ],
)
def test_where_datagrams_go(said: Address, relay: object) -> None:
    """SK-30."""
    assert asking.relay_in(Reply(0, said, 4000), SERVER) == (relay, 4000)


def test_nowhere_is_no_place_for_datagrams() -> None:
    with pytest.raises(AnswerUnusable):
        asking.relay_in(Reply(0, BOB4, 0), SERVER)


def test_what_was_preferred_has_to_come() -> None:
    """SK-36, SK-37."""
    assert asking.address_in(Reply(0, BOB6, 0), 6) == BOB6
    assert asking.name_in(Reply(0, "bob", 0)) == "bob"
    assert asking.id_in(Reply(0, ID, 0)) == ID
    for wrong in (BOB4, "bob", ID):
        with pytest.raises(AnswerUnusable):
            asking.address_in(Reply(0, wrong, 0), 6)
    for read in (asking.name_in, asking.id_in):
        with pytest.raises(AnswerUnusable):
            read(Reply(0, BOB4, 0))
