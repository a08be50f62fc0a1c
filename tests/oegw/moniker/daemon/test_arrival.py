"""By which interface, and to which address: as the kernel says it."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from oegw.moniker.daemon.arrival import (
    IP_PKTINFO,
    Tunnel,
    arrival_of,
    ask_for_arrival,
    interface_of,
    sent_from,
)

LOOPBACK = socket.if_nametoindex("lo")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.7", "::1"])
def test_a_connection_tells_its_interface(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        ask_for_arrival(listening)
        listening.bind((host, 0))
        listening.listen()
        with socket.create_connection(listening.getsockname()[:2]), listening.accept()[0] as came:
            assert interface_of(came) == LOOPBACK
            assert Tunnel("lo", lambda: 0.0).is_from(interface_of(came))
            assert not Tunnel("oegw0", lambda: 0.0).is_from(interface_of(came))


def test_a_connection_that_was_not_asked_for_it_tells_nothing() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as came:
            assert interface_of(came) == 0
    assert not Tunnel("lo", lambda: 0.0).is_from(0)


@pytest.mark.parametrize("host", ["127.0.0.7", "::1"])
def test_a_datagram_tells_its_address_and_an_answer_is_sent_from_it(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as bound, \
            socket.socket(family, socket.SOCK_DGRAM) as asker:  # fmt: skip
        ask_for_arrival(bound)
        bound.bind(("", 0))
        asker.connect((host, bound.getsockname()[1]))
        asker.send(b"x")
        _, ancillary, _, peer = bound.recvmsg(10, 256)
        arrival = arrival_of(ancillary)
        assert arrival == (ip_address(host), LOOPBACK)
        assert arrival is not None
        bound.sendmsg([b"y"], sent_from(*arrival), 0, peer)
        assert asker.recv(10) == b"y"  # a connected socket hears no other address


def test_what_was_sent_to_many_is_nobodys() -> None:
    octets = (1).to_bytes(4, "little") + bytes([192, 2, 0, 1]) + bytes([255] * 4)
    assert arrival_of([(socket.IPPROTO_IP, IP_PKTINFO, octets)]) is None
    octets = ip_address("ff02::1").packed + bytes(4)
    assert arrival_of([(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, octets)]) is None
    assert arrival_of([]) is None
    assert arrival_of([(socket.IPPROTO_IP, IP_PKTINFO, b"short")]) is None


def test_an_interface_that_comes_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    tunnel = Tunnel("oegw0", lambda: now[0])
    assert not tunnel.is_from(7)
    monkeypatch.setattr(socket, "if_nametoindex", lambda name: 7)
    assert not tunnel.is_from(7)
    now[0] = 1.0
    assert tunnel.is_from(7)
