"""The translator: every command, between clients and destinations of either family, named in every
way; each code that a client can be answered; nothing on the wire that was not asked for.

What is said and heard is written and read here by hand, not by the code under test.
"""

from __future__ import annotations

import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from oegw.socks5.passwords import hashed
from tests.support.intercept_net import ON_LINK, PEER, PEER6, Net, wait_for, within
from tests.support.socks_strangers import (
    ASSOCIATE,
    BIND,
    CLIENT,
    CLIENT6,
    CONNECT,
    ECHO,
    HERE,
    HERE6,
    OTHERS,
    UDP_ASSOCIATE,
    Client,
    Echo,
    Names,
    Said,
    SocksServer,
    datagrams,
    inhabited,
    place,
    servers,
    until_idle,
)

pytestmark = pytest.mark.netns

OUTSIDE, OUTSIDE6 = "10.2.0.1", "fd00:2::1"  # of the gateway
FOUR, SIX, BOTH = "four.example", "six.example", "both.example"
RECORDS = {
    "four.example.": {"A": [PEER]},
    "six.example.": {"AAAA": [PEER6]},
    "both.example.": {"A": [PEER], "AAAA": [PEER6]},
    "2.0.9.10.in-addr.arpa.": {"PTR": ["four.example."]},
    "8.8.8.8.in-addr.arpa.": {"PTR": ["four.example."]},  # which does not lead back
}
NO_ROUTE, NOT_THERE, FAR = "198.51.100.1", "192.0.2.1", "203.0.113.1"
CLOSED = 5  # a port where nobody listens

families = pytest.mark.parametrize("client_family", [4, 6])
destinations = pytest.mark.parametrize("family", [4, 6])
namings = pytest.mark.parametrize("naming", ["address", "name", "id", "id-of-name"])


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with inhabited() as net:
        route = ("ip", "route", "add")
        net.run(net.gateway, *route, "throw", f"{NO_ROUTE}/32")
        net.run(net.gateway, *route, f"{FAR}/32", "via", ON_LINK, "hoplimit", "1")
        net.run(net.outside, *route, "unreachable", f"{NOT_THERE}/32")
        router = ("net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0")
        net.run(net.outside, "sysctl", "-qw", *router)
        yield net


@pytest.fixture(scope="module")
def echo(net: Net) -> Iterator[Echo]:
    with servers(net) as echo:
        yield echo


@pytest.fixture(scope="module")
def names(net: Net) -> Iterator[Names]:
    names = Names(net, RECORDS)
    yield names
    names.close()


@pytest.fixture(scope="module")
def server(net: Net, echo: Echo, names: Names) -> Iterator[SocksServer]:
    with (
        tempfile.TemporaryDirectory(prefix="oegw-socks-") as folder,
        SocksServer(net, Path(folder), "[socks.limits]\nconnect = 1\nbind = 5\n") as server,
    ):
        yield server
        until_idle(server)


def entered(net: Net, family: int) -> Client:
    client = Client(net, CLIENT if family == 4 else CLIENT6)
    assert client.greet()
    return client


def named(client: Client, family: int, naming: str) -> str | bytes:
    """The destination of that family, as the client may write it."""
    match naming:
        case "address":
            return PEER if family == 4 else PEER6
        case "name":
            return FOUR if family == 4 else SIX
        case "id":
            return client.associated(PEER if family == 4 else PEER6)
    return client.associated(FOUR if family == 4 else SIX)


def here(family: int) -> str:
    return HERE if family == 4 else HERE6


def kind(family: int) -> int:
    return 1 if family == 4 else 4


# --------------------------------------------------------------------- the matrix


@families
@destinations
@namings
def test_connect(
    net: Net, server: SocksServer, client_family: int, family: int, naming: str
) -> None:
    """SK-2, SK-3, SK-14, SK-22; SK-33: what is told has the family of the client."""
    with entered(net, client_family) as client:
        said = client.ask(CONNECT, named(client, family, naming), ECHO)
        assert (said.code, said.kind) == (0, kind(client_family))
        own = (OUTSIDE if family == 4 else OUTSIDE6) if family == client_family else None
        assert said.address == (own or here(client_family))
        assert said.port > 0
        client.say(b"hello")
        assert client.hear(5) == b"hello"


@families
@destinations
@namings
def test_connect_with_the_flag(
    net: Net, server: SocksServer, client_family: int, family: int, naming: str
) -> None:
    """SK-34: what is told has the family towards the destination."""
    with entered(net, client_family) as client:
        said = client.ask(CONNECT, named(client, family, naming), ECHO, 0x10)
        assert (said.code, said.kind) == (0, kind(family))
        assert said.address == (OUTSIDE if family == 4 else OUTSIDE6)


@families
@destinations
@namings
def test_bind(net: Net, server: SocksServer, client_family: int, family: int, naming: str) -> None:
    """SK-2, SK-3, SK-5, SK-14."""
    peer = PEER if family == 4 else PEER6
    with entered(net, client_family) as client:
        first = client.ask(BIND, named(client, family, naming), 0)
        assert (first.code, first.kind) == (0, kind(client_family))

        def connect() -> socket.socket:
            ours = OUTSIDE if family == 4 else OUTSIDE6
            return socket.create_connection((ours, first.port), 5, source_address=(peer, 0))

        with within(net.outside, connect) as far:
            second = client.reply()
            assert (second.code, second.kind) == (0, kind(client_family))
            assert second.port == far.getsockname()[1]
            if family == client_family:
                assert second.address == peer
            client.say(b"hello")
            assert far.recv(100) == b"hello"
            far.sendall(b"answer")
            assert client.hear(6) == b"answer"


@families
@destinations
@namings
def test_udp_associate(
    net: Net, server: SocksServer, client_family: int, family: int, naming: str
) -> None:
    """SK-2, SK-3, SK-14, SK-30; SK-42: the answer names the peer as the client did."""
    with entered(net, client_family) as client:
        where = named(client, family, naming)
        ours = datagrams(net, client)
        ours.say(where, ECHO, b"hello")
        heard = ours.hear()
        assert heard is not None
        assert (heard.code, heard.address, heard.port, heard.rest) == (0, where, ECHO, b"hello")
        ours.socket.close()


# ------------------------------------------------------------ combined with an association


@families
@destinations
@pytest.mark.parametrize("naming", ["address", "name"])
def test_connect_and_associate(
    net: Net, server: SocksServer, client_family: int, family: int, naming: str
) -> None:
    """SK-26: an ID in place of the address, and the normal port; it is good for another time."""
    with entered(net, client_family) as client:
        said = client.ask(CONNECT | ASSOCIATE, named(client, family, naming), ECHO)
        assert (said.code, said.kind) == (0, 8)
        assert said.port > 0
        client.say(b"hello")
        assert client.hear(5) == b"hello"
        with entered(net, client_family) as again:
            assert again.ask(CONNECT, said.address, ECHO).code == 0


@families
@destinations
def test_bind_and_associate(net: Net, server: SocksServer, client_family: int, family: int) -> None:
    """SK-29: the ID of who is expected, and the ID of who has come."""
    peer = PEER if family == 4 else PEER6
    with entered(net, client_family) as client:
        first = client.ask(BIND | ASSOCIATE, peer, 0)
        assert (first.code, first.kind) == (0, 8)

        def connect() -> socket.socket:
            ours = OUTSIDE if family == 4 else OUTSIDE6
            return socket.create_connection((ours, first.port), 5, source_address=(peer, 0))

        with within(net.outside, connect) as far:
            second = client.reply()
            assert (second.code, second.kind) == (0, 8)
            assert second.port == far.getsockname()[1]
            assert second.address == first.address, "it is the same host"


@families
@destinations
def test_udp_and_associate(net: Net, server: SocksServer, client_family: int, family: int) -> None:
    """SK-30: the relay is at the server's address of the TCP connection; SK-41: 10 octets."""
    with entered(net, client_family) as client:
        said = client.ask(UDP_ASSOCIATE | ASSOCIATE, PEER if family == 4 else PEER6, 0)
        assert (said.code, said.kind) == (0, 8)
        assert isinstance(said.address, bytes)
        header = b"\0\0\0" + place(said.address, ECHO)
        assert len(header) == 10
        made = within(
            net.inside,
            lambda: socket.socket(
                socket.AF_INET if client_family == 4 else socket.AF_INET6, socket.SOCK_DGRAM
            ),
        )
        with made:
            made.settimeout(5)
            made.bind((CLIENT if client_family == 4 else CLIENT6, 0))
            made.sendto(header + b"hello", (here(client_family), said.port))
            assert made.recv(100) == header + b"hello"


# ------------------------------------------------------------ the association of addresses


def preferred(client: Client, address: str | bytes, preference: int, flag: int = 0) -> Said:
    return client.ask(ASSOCIATE, address, preference, flag)


def test_preferences(net: Net, server: SocksServer, names: Names) -> None:
    """SK-25, SK-31, SK-32, SK-35 to SK-38, on one connection, and at last CONNECT."""
    with entered(net, 4) as client:
        number = client.associated(BOTH)
        for preference, address in ((1, PEER), (4, PEER6), (0x7F01, PEER)):
            assert preferred(client, BOTH, preference).address == address
            assert preferred(client, number, preference).address == address
        assert preferred(client, PEER, 3).address == FOUR
        assert preferred(client, BOTH, 8).address == number
        assert preferred(client, number, 0).address == number
        both = preferred(client, BOTH, 1, 0x10)
        assert both.address == PEER6, "SK-38: the family that would be used"
        assert client.ask(CONNECT, number, ECHO).code == 0
    assert {
        "both.example. A",
        "both.example. AAAA",
        "2.0.9.10.in-addr.arpa. PTR",
    } <= names.asked()


@pytest.mark.parametrize(
    ("address", "preference", "code"),
    [
        (FOUR, 4, 8),  # SK-37
        (SIX, 1, 8),
        (PEER, 4, 8),
        (FOUR, 2, 8),  # no address type
        ("nobody.example", 1, 4),
        (PEER6, 3, 4),  # it has no name
        ("8.8.8.8", 3, 4),  # its name is not its own
    ],
)
def test_preferences_that_can_not_be_heeded(
    net: Net, server: SocksServer, address: str, preference: int, code: int
) -> None:
    with entered(net, 4) as client:
        assert preferred(client, address, preference).code == code
        assert client.to_the_end() == b""


def test_an_association_sends_nothing_to_the_destination(net: Net, server: SocksServer) -> None:
    """SK-24: it may be an address that must not know of us yet."""
    silent, silent6 = "10.9.0.3", "fd00:9::77"
    capture = net.capture(net.outside, "out0")
    with entered(net, 4) as client:
        for address in (silent, silent6):
            client.associated(address)
        assert client.ask(CONNECT, PEER, ECHO).code == 0
    wait_for(lambda: capture.to(PEER))
    assert capture.to(silent) == capture.to(silent6) == []
    capture.close()


@families
def test_the_udp_control_channel(net: Net, server: SocksServer, client_family: int) -> None:
    """SK-43: our address and port towards a destination; what it does not know keeps it open."""
    with entered(net, client_family) as client:
        number = client.associated(PEER6)
        ours = datagrams(net, client)
        ports = {}
        for where, family in ((PEER, 4), (PEER6, 6), (number, 6)):
            client.say(b"\0\x01\x10" + place(where, ECHO))
            said = client.reply()
            assert (said.code, said.address) == (0, OUTSIDE if family == 4 else OUTSIDE6)
            ports[where] = said.port
        client.say(b"\0\x01\0" + place(PEER, ECHO))
        assert client.reply().kind == kind(client_family)
        for sub in (0, 2, 255):
            client.say(bytes([0, sub, 0]) + place(PEER, ECHO))
            assert client.reply().code == 7
        client.say(b"\0\x01\0" + place(b"\0xyz", ECHO))
        assert client.reply().code == 9
        for where, address in ((PEER, PEER), (number, PEER6)):
            seen = net.udp(net.outside, address, 4002)
            ours.say(where, 4002, b"hello")
            _, source = seen.socket.recvfrom(100)
            assert source[1] == ports[where], "it is another port than was told"
            seen.close()
        ours.socket.close()


# ------------------------------------------------------------------------ the codes


@pytest.mark.parametrize(
    ("code", "command", "address", "port"),
    [
        (2, CONNECT, "127.0.0.1", ECHO),
        (3, CONNECT, NO_ROUTE, ECHO),
        (4, CONNECT, "nobody.example", ECHO),
        (4, CONNECT, NOT_THERE, ECHO),  # a router outside says that it is not there
        (5, CONNECT, PEER, CLOSED),
        (5, CONNECT, PEER6, CLOSED),
        (6, CONNECT, FAR, ECHO),  # further than a packet may go
        (7, 4, PEER, ECHO),
        (8, ASSOCIATE, FOUR, 4),
        (9, CONNECT, b"\0abc", ECHO),
        (2, BIND, "127.0.0.1", 0),
        (9, BIND, b"\0abc", 0),
        (4, BIND, "nobody.example", 0),
        (7, 0x0F, PEER, ECHO),
        (9, UDP_ASSOCIATE | ASSOCIATE, b"\0abc", 0),
        (2, ASSOCIATE, "127.0.0.1", 0),
    ],
)
def test_each_code(
    net: Net, server: SocksServer, code: int, command: int, address: str | bytes, port: int
) -> None:
    """SK-4, SK-10: told, and closed."""
    for family in (4, 6):
        with entered(net, family) as client:
            said = client.ask(command, address, port)
            assert (said.code, said.kind, said.port) == (code, kind(family), 0)
            assert client.to_the_end() == b""


def test_a_general_failure(net: Net, names: Names, tmp_path: Path) -> None:
    """SK-4, SK-28: REP 01, when there is no room for the ID; and the connection that was there is
    closed."""
    with (
        servers_of(net) as echo,
        SocksServer(net, tmp_path, at_another_port("[socks.ids]\nper_scope = 1\n")) as server,
        Client(net, port=2080) as first,
        Client(net, port=2080) as second,
    ):
        assert first.greet()
        assert second.greet()
        assert first.ask(CONNECT | ASSOCIATE, PEER, 8007).code == 0
        near, _ = echo.accept()
        assert second.ask(CONNECT | ASSOCIATE, BOTH, 8007).code == 1
        assert second.to_the_end() == b""
        far, _ = echo.accept()
        assert far.recv(1) == b""
        assert server.status()["ids"]["ids"] == 1
        near.close()
        far.close()


def servers_of(net: Net) -> socket.socket:
    return within(
        net.outside,
        lambda: socket.create_server(("::", 8007), family=socket.AF_INET6, dualstack_ipv6=True),
    )


def at_another_port(rest: str, more: str = "") -> str:
    return f'[[socks.listener]]\naddress = "{HERE}"\nport = 2080\n{more}{rest}'


def test_flags_that_nobody_knows_are_ignored_and_counted(net: Net, server: SocksServer) -> None:
    """SK-39, SK-40: 0x04 is sent by Dante's client; no reply has a flag."""
    before = server.counters().get("drop.unknown_flags", 0)
    for flag in (0x01, 0x04, 0x05):
        with entered(net, 4) as client:
            assert client.ask(CONNECT, PEER, ECHO, flag).code == 0
        with entered(net, 4) as client:
            assert client.ask(UDP_ASSOCIATE, "0.0.0.0", 0, flag).code == 0
    assert server.counters().get("drop.unknown_flags", 0) == before
    for flag in (0x02, 0x08, 0xE0):
        with entered(net, 4) as client:
            assert client.ask(CONNECT, PEER, ECHO, flag).code == 0
    assert server.counters()["drop.unknown_flags"] == before + 3


def test_two_users_of_one_host(net: Net, echo: Echo, tmp_path: Path) -> None:
    """SK-1, SK-15: neither has any use of the other's IDs."""
    users = "".join(
        f'[[socks.user]]\nname = "{name}"\npassword = "{hashed(name.encode(), bytes(16))}"\n'
        for name in ("ann", "ben")
    )
    rest = at_another_port(users, 'authentication = "password"\n')
    with SocksServer(net, tmp_path, rest), Client(net, port=2080) as client:
        assert client.greet("ann", "ann")
        number = client.associated(PEER)
        for user, code in (("ben", 9), ("ann", 0)):
            with Client(net, port=2080) as other:
                assert other.greet(user, user)
                assert other.ask(CONNECT, number, ECHO).code == code
        with Client(net, port=2080) as other:
            assert not other.greet("ann", "ben")
        with Client(net, port=2080) as other:
            other.say(b"\x05\x01\x00")
            assert other.to_the_end() == b"\x05\xff"


def test_ids_in_the_frames_of_a_client_s_link(net: Net, server: SocksServer) -> None:
    """SK-41: what is on the wire is ten octets longer than what the client says, with an ID as with
    an IPv4 address, and 22 with an IPv6 address."""
    capture = net.capture(net.inside, "in0")
    with entered(net, 4) as client:
        number = client.associated(PEER6)
        ours = datagrams(net, client)
        for where in (number, PEER6, PEER):
            ours.say(where, ECHO, b"0123456789")
            assert ours.hear() is not None
        ours.socket.close()
    sizes = [
        struct.unpack_from("!H", packet, 24)[0] - 8 - 10
        for packet in capture.read()
        if packet[0] == 0x45 and packet[9] == socket.IPPROTO_UDP
    ]
    assert sizes == [10, 10, 22, 22, 10, 10]
    capture.close()


def test_others_on_the_same_link_have_the_same_server(net: Net, server: SocksServer) -> None:
    for source in OTHERS[:3]:
        with Client(net, source) as client:
            assert client.greet()
            assert client.ask(CONNECT, PEER6, ECHO).code == 0
