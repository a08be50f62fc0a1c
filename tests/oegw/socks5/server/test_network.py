"""The server on a router: what a network says of a destination, and who is inside.

inside 10.1.0.2 --- 10.1.0.1 gateway 10.2.0.1 --- 10.2.0.2 outside, a router as well
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from oegw.socks5.codes import ReplyCode
from oegw.socks5.server import listening
from oegw.socks5.settings import Listener, SocksSettings
from oegw.socks5.wire import Datagram
from tests.support.intercept_net import Net, enter, within
from tests.support.socks_server import PATIENCE, Client, Running, running

pytestmark = pytest.mark.netns

CONNECT, BIND, UDP = 1, 2, 3
SETTINGS = SocksSettings(
    present=True,
    listeners=(
        Listener(ip_address("10.1.0.1"), 0, interface="in0"),
        Listener(ip_address("fd00:1::1"), 0, interface="in0"),
    ),
)


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Net() as net:
        for key in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            net.run(net.outside, "sysctl", "-qw", f"net.{key}=1")
        for kind, number in (("prohibit", 1), ("unreachable", 2)):
            net.run(net.outside, "ip", "route", "add", kind, f"10.8.{number}.0/24")
            net.run(net.outside, "ip", "-6", "route", "add", kind, f"fd00:8:{number}::/64")
        yield net


@pytest.fixture
def server(net: Net, tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path, SETTINGS, enter=lambda: enter(net.gateway)) as server:
        yield server


def client(net: Net, server: Running, which: int = 0, host: str = "") -> Client:
    host = host or str(SETTINGS.listeners[which].address)
    return within(net.inside, lambda: Client.connected(host, server.server.ports[which]))


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("10.8.1.1", ReplyCode.NOT_ALLOWED),
        ("fd00:8:1::1", ReplyCode.NOT_ALLOWED),
        ("10.8.2.1", ReplyCode.HOST_UNREACHABLE),
        ("fd00:8:2::1", ReplyCode.NETWORK_UNREACHABLE),  # ICMPv6: no route to destination
    ],
)
def test_what_routers_say(net: Net, server: Running, host: str, code: ReplyCode) -> None:
    """SK-4: each as the code that means it, at once."""
    with client(net, server) as asking:
        asking.greet()
        assert asking.ask(CONNECT, host, 80).code == code


@pytest.mark.parametrize(
    ("key", "host"),
    [("ipv4.ip_default_ttl", "10.7.0.1"), ("ipv6.conf.out0.hop_limit", "fd00:7::1")],
    ids=["v4", "v6"],
)
def test_a_hop_limit_that_ran_out(net: Net, server: Running, key: str, host: str) -> None:
    before = net.run(net.gateway, "sysctl", "-n", f"net.{key}").strip()
    net.run(net.gateway, "sysctl", "-qw", f"net.{key}=1")
    try:
        with client(net, server) as asking:
            asking.greet()
            assert asking.ask(CONNECT, host, 80).code == ReplyCode.TTL_EXPIRED
    finally:
        net.run(net.gateway, "sysctl", "-qw", f"net.{key}={before}")


def test_no_route(net: Net, server: Running) -> None:
    net.run(net.gateway, "ip", "route", "add", "unreachable", "10.6.0.0/24")
    with client(net, server) as asking:
        asking.greet()
        reply = asking.ask(CONNECT, "10.6.0.1", 80)
        assert reply.code in (ReplyCode.NETWORK_UNREACHABLE, ReplyCode.HOST_UNREACHABLE)


def test_this_boxs_own_addresses_are_no_destinations(net: Net, server: Running) -> None:
    for host in ("10.2.0.1", "10.1.0.1", "fd00:2::1"):
        with client(net, server) as asking:
            asking.greet()
            assert asking.ask(CONNECT, host, 80).code == ReplyCode.NOT_ALLOWED


def test_what_is_routed_to_this_box_is_its_own_too(net: Net, server: Running) -> None:
    """The address of all routers of an IPv6 network, and networks that are routed to loopback:
    services that listen at any address have those as well."""
    net.run(net.gateway, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    net.run(net.gateway, "ip", "-6", "route", "add", "local", "fd00:77::/64", "dev", "lo")
    net.run(net.gateway, "ip", "route", "add", "local", "10.77.0.0/24", "dev", "lo")
    net.run(net.gateway, "ip", "-6", "addr", "add", "fd00:78::1/64", "dev", "out0", "nodad")
    for host in ("fd00:78::", "fd00:77::5", "10.77.0.5"):
        with client(net, server) as asking:
            asking.greet()
            assert asking.ask(CONNECT, host, 80).code == ReplyCode.NOT_ALLOWED, host
    with client(net, server) as asking:
        asking.greet()
        relay = asking.ask(UDP, "0.0.0.0", 0).port
        service = within(net.gateway, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        sock = within(net.inside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with sock, service:
            service.bind(("::", 0))
            place = ip_address("fd00:78::"), service.getsockname()[1]
            sock.sendto(Datagram(*place, b"in").octets(), ("10.1.0.1", relay))
            server.until(lambda: server.counter("drop.udp_rule") == 1)
            service.settimeout(0.2)
            with pytest.raises(TimeoutError):
                service.recv(100)


def seen_from(net: Net, server: Running, port: int, flag: int) -> int:
    """The port by which a destination sees an association of a client that sends from ``port``."""
    with client(net, server) as asking:
        asking.greet()
        relay = asking.ask(UDP, "0.0.0.0", port, flag).port
        sock = within(net.inside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        far = within(net.outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with sock, far:
            sock.bind(("10.1.0.2", port))
            far.bind(("10.2.0.2", 5300))
            far.settimeout(PATIENCE)
            octets = Datagram(ip_address("10.2.0.2"), 5300, b"here").octets()
            sock.sendto(octets, ("10.1.0.1", relay))
            seen: int = far.recvfrom(100)[1][1]
            return seen


def test_the_clients_port_is_used_if_it_is_free(net: Net, server: Running) -> None:
    """SK-40: FLAG 0x04 (pro-v5); else, and where the port is taken, another one."""
    assert seen_from(net, server, 5777, 0x04) == 5777
    assert seen_from(net, server, 5777, 0x00) != 5777
    with within(net.gateway, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as service:
        service.bind(("10.2.0.1", 5777))
        assert seen_from(net, server, 5777, 0x04) != 5777


def test_no_client_takes_the_port_of_a_service(net: Net, server: Running) -> None:
    """One of this box that has not started yet, or is being started again: IKE has 500."""
    assert seen_from(net, server, 500, 0x04) != 500


def test_nobody_outside_gets_an_answer(net: Net, server: Running) -> None:
    """The address is an inside one; Linux would answer for it to anybody."""
    for which, host in ((0, "10.1.0.1"), (1, "fd00:1::1")):
        port = server.server.ports[which]
        with pytest.raises(ConnectionRefusedError):
            within(net.outside, lambda h=host, p=port: Client.connected(h, p))  # type: ignore[misc]


def test_nobody_outside_can_pretend_to_be_the_client(net: Net, server: Running) -> None:
    """SK-6: the relay socket takes only what comes in by the interface of its client."""

    def forge(port: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
            octets = Datagram(ip_address("10.9.0.2"), 53, b"forged").octets()
            size = 28 + len(octets)
            udp = b"".join(each.to_bytes(2, "big") for each in (5353, port, size - 20, 0)) + octets
            ip = (
                bytes.fromhex("4500")
                + size.to_bytes(2, "big")
                + bytes.fromhex("00000000401100000a0100020a010001")
            )
            raw.sendto(ip + udp, ("10.1.0.1", 0))

    for key in ("all", "out0"):
        net.run(net.gateway, "sysctl", "-qw", f"net.ipv4.conf.{key}.rp_filter=0")
    with client(net, server) as asking:
        asking.greet()
        relay = asking.ask(UDP, "0.0.0.0", 0).port
        within(net.outside, lambda: forge(relay))
        sock = within(net.inside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        far = within(net.outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with sock, far:
            far.bind(("10.9.0.2", 53))
            far.settimeout(PATIENCE)
            sock.sendto(Datagram(ip_address("10.9.0.2"), 53, b"own").octets(), ("10.1.0.1", relay))
            assert far.recvfrom(100)[0] == b"own"  # the other one would have come first
            assert server.counter("drop.udp_source_port") == 0


def test_datagrams_go_where_there_is_a_route(net: Net, server: Running) -> None:
    """A name leads to IPv6 first, which leads nowhere: of a datagram nobody would learn that."""
    net.run(net.gateway, "ip", "-6", "route", "add", "unreachable", "fd00:66::/64")
    server.names.of = {"bob.example": ("fd00:66::1", "10.9.0.2")}
    with client(net, server) as asking:
        asking.greet()
        relay = asking.ask(UDP, "0.0.0.0", 0).port
        sock = within(net.inside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        far = within(net.outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with sock, far:
            far.bind(("10.9.0.2", 53))
            far.settimeout(PATIENCE)
            sock.sendto(Datagram("bob.example", 53, b"here").octets(), ("10.1.0.1", relay))
            assert far.recvfrom(100)[0] == b"here"


@pytest.mark.parametrize("which", [0, 1], ids=["v4-client", "v6-client"])
@pytest.mark.parametrize("own", ["10.2.0.1", "fd00:2::1"], ids=["v4", "v6"])
def test_bind_tells_the_address_that_the_peer_knows(
    net: Net, server: Running, which: int, own: str
) -> None:
    """SK-34: with the flag, our address towards the peer, whatever the client's family."""
    peer = "10.9.0.2" if "." in own else "fd00:9::2"
    with client(net, server, which) as asking:
        asking.greet()
        first = asking.ask(BIND, peer, 0, flag=0x10)
        assert str(first.address) == own

        def come() -> socket.socket:
            return socket.create_connection((own, first.port), PATIENCE, source_address=(peer, 0))

        with within(net.outside, come):
            assert str(asking.reply().address) == peer


def test_an_interface_that_is_made_anew(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that is bound to an interface is deaf when that goes, even if one of the same name
    comes."""

    def make() -> None:
        net.run(net.gateway, "ip", "link", "add", "new0", "type", "veth", "peer", "new1")
        net.run(net.gateway, "ip", "addr", "add", "10.5.0.1/24", "dev", "new0")
        net.run(net.gateway, "ip", "link", "set", "new0", "up")

    monkeypatch.setattr(listening, "AGAIN_SECONDS", 0.05)
    settings = SocksSettings(
        present=True,
        listeners=(*SETTINGS.listeners, Listener(ip_address("10.5.0.1"), 0, interface="new0")),
    )
    with running(tmp_path, settings, enter=lambda: enter(net.gateway)) as server:

        def is_there() -> bool:
            return bool(server.snapshot()["listeners"][2]["listening"])

        assert not is_there()
        make()
        server.until(is_there, "listening")
        subprocess.run(["ip", "-n", net.gateway, "link", "del", "new0"], check=True)
        server.until(lambda: not is_there(), "noticing")
        make()
        server.until(is_there, "listening again")
