"""Sockets towards destinations, and our addresses."""

from __future__ import annotations

import socket
from contextlib import closing
from ipaddress import ip_address

import pytest

from oegw.socks5.interface import Demand
from oegw.socks5.server.listening import bound
from oegw.socks5.server.outgoing import OWN_SECONDS, Outgoing, OwnAddresses
from oegw.socks5.settings import Listener
from tests.support.socks_server import LOOPBACK, Gateway

PLAIN = Demand()


def options(sock: socket.socket) -> tuple[bool, bool]:
    return (
        bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)),
        bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)),
    )


@pytest.mark.parametrize("host", LOOPBACK, ids=str)
def test_both_ends_of_a_relayed_connection_hold_nothing_back(host: object) -> None:
    address = ip_address(str(host))
    with (
        closing(bound(Listener(address, 0))) as listening,
        closing(Outgoing((), Gateway()).stream(address, PLAIN)) as sock,
    ):
        sock.setblocking(True)
        sock.connect(listening.getsockname()[:2])
        listening.setblocking(True)
        accepted, _ = listening.accept()
        with closing(accepted):
            assert options(sock) == options(accepted) == (True, True)
    (waiting,) = Outgoing((), Gateway()).waiting([address.version], (address,), PLAIN)
    with closing(waiting), socket.create_connection(waiting.getsockname()[:2]):
        waiting.setblocking(True)
        accepted, _ = waiting.accept()
        with closing(accepted):
            assert options(accepted) == (True, True)


def test_flows_leave_with_the_address_that_is_asked_for() -> None:
    out = Outgoing((ip_address("127.0.0.5"),), Gateway())
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        closing(out.stream(LOOPBACK[0], PLAIN)) as stream,
    ):
        stream.setblocking(True)
        stream.connect(server.getsockname())
        assert stream.getsockname()[0] == "127.0.0.5"
    for sock in (out.datagrams(4, PLAIN, None), *out.waiting([4], (), PLAIN)):
        with closing(sock):
            assert sock.getsockname()[0] == "127.0.0.5"
    assert str(out.towards(LOOPBACK[0], 4)) == "127.0.0.5"
    assert out.towards(LOOPBACK[1], 6) == LOOPBACK[1]  # none of that family: as the routes say


def test_one_port_for_both_families() -> None:
    four, six = Outgoing((), Gateway()).waiting([4, 6], (), PLAIN)
    with closing(four), closing(six):
        assert four.getsockname()[1] == six.getsockname()[1]


def test_what_may_not_be_prepared_is_not_opened() -> None:
    class Refusing(Gateway):
        def prepare(self, sock: socket.socket, demand: Demand) -> None:
            self.seen = sock
            raise PermissionError(1, "no mark")

    gateway = Refusing()
    with pytest.raises(PermissionError):
        Outgoing((), gateway).stream(LOOPBACK[0], PLAIN)
    assert gateway.seen.fileno() == -1


def test_own_addresses_are_remembered_for_a_while() -> None:
    asked = []
    now = 0.0
    own = OwnAddresses(lambda: now, lambda address: bool(asked.append(address)) or len(asked) > 1)
    assert [own(LOOPBACK[0]), own(LOOPBACK[0])] == [False, False]
    now = OWN_SECONDS
    assert own(LOOPBACK[0])
    assert len(asked) == 2
