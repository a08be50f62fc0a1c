"""The registry of transports: one row makes one known (MK-15)."""

from __future__ import annotations

import pytest

from oegw.moniker import transports
from oegw.moniker.transports import (
    MAX_TRANSPORTS,
    MPTCP,
    SCTP,
    TCP,
    UDP,
    Kind,
    Transport,
    UnknownTransport,
    add,
    known,
    named,
    of_protocol,
)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "_known", dict(transports._known))


def test_what_every_host_may_have_is_known() -> None:
    assert [*known()] == [TCP, UDP, MPTCP, SCTP]
    assert [*known(Kind.STREAM)] == [TCP, MPTCP, SCTP]
    assert [*known(Kind.DATAGRAM)] == [UDP]
    for each in known():
        assert named(each.name) is each
        assert of_protocol(each.protocol) is each


def test_a_firewall_sees_mptcp_as_tcp() -> None:
    assert MPTCP.ip_protocol == TCP.ip_protocol == 6
    assert (UDP.ip_protocol, SCTP.ip_protocol) == (17, 132)


def test_one_more_is_one_row() -> None:
    lite = add(Transport("udplite", Kind.DATAGRAM, 2, 136, 136))
    assert named("udplite") is lite
    assert of_protocol(136) is lite
    assert lite in known(Kind.DATAGRAM)
    assert add(Transport("udplite", Kind.DATAGRAM, 2, 136, 136)) is lite


def test_neither_name_nor_protocol_changes_hands() -> None:
    for other in (
        Transport("tcp", Kind.STREAM, 1, 200, 200),
        Transport("mine", Kind.STREAM, 1, 6, 6),
    ):
        with pytest.raises(UnknownTransport, match="already"):
            add(other)


def test_there_is_an_end() -> None:
    for number in range(MAX_TRANSPORTS - 4):
        add(Transport(f"t{number}", Kind.STREAM, 1, 300 + number, 200))
    with pytest.raises(UnknownTransport, match="there are 32"):
        add(Transport("one-more", Kind.STREAM, 1, 999, 200))


@pytest.mark.parametrize("name", ["", "TCP", "a b", "-x", "x" * 17, "ü"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(UnknownTransport):
        Transport(name, Kind.STREAM, 1, 6, 6)
    with pytest.raises(UnknownTransport, match="known are tcp, udp"):
        named(name)


def test_what_is_not_known() -> None:
    with pytest.raises(UnknownTransport):
        of_protocol(33)
    with pytest.raises(UnknownTransport, match="IP protocol 256"):
        Transport("x", Kind.STREAM, 1, 6, 256)
