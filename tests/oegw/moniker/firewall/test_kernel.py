"""Our firewall in a real kernel: what a lease opens, for whom, for how long (MK-18)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from oegw.intercept.nft import firewall_gaps
from oegw.moniker.firewall.ownfirewall import FirewallError, OwnFirewall
from oegw.moniker.interface import Lease, LeaseRefused, Place
from oegw.moniker.settings import FirewallSettings, HostSettings
from tests.support.intercept_net import (
    INSIDE,
    INSIDE6,
    ON_LINK,
    OTHER_PEER,
    PEER,
    PEER6,
    SETTINGS,
    Net,
    wait_for,
    within,
)
from tests.support.moniker_net import Loop, connected, knock, listening, loop_in, silent

pytestmark = pytest.mark.netns

OURS, OURS6 = "10.2.0.1", "fd00:2::1"  # the gateway's addresses outside
DENY = FirewallSettings(deny=True, outside=("out0",))
BOB = HostSettings("bob", (ip_address(INSIDE), ip_address(INSIDE6)), namespaces=("bob",), leases=4)
SECRET = 4711


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


@pytest.fixture
def loop(net: Net) -> Iterator[Loop]:
    with loop_in(net.gateway) as loop:
        yield loop


@contextmanager
def firewall(loop: Loop, settings: FirewallSettings = DENY) -> Iterator[OwnFirewall]:
    """The gateway's, with Bob behind it; nothing of it is left afterwards."""
    wall = loop.make(lambda: OwnFirewall(settings, (BOB,), trace=loop.trace))
    loop.wait(wall.start())
    try:
        yield wall
    finally:
        loop.wait(wall.close())


@pytest.fixture(autouse=True)
def _bare(net: Net) -> Iterator[None]:
    yield
    tables = net.run(net.gateway, "nft", "list", "tables")
    if "oegw_moniker" in tables:
        net.run(net.gateway, "nft", "delete", "table", "inet", "oegw_moniker")


def lease(
    port: int, client: str = PEER, host: str = INSIDE, seconds: int = 60, transport: str = "tcp"
) -> Lease:
    return Lease(ip_address(client), ip_address(host), transport, port, seconds, "starwars", "bob")


def test_a_lease_opens_one_port_for_one_client(net: Net, loop: Loop) -> None:
    with (
        firewall(loop) as wall,
        listening(net.inside, "0.0.0.0", SECRET),
        listening(net.inside, "0.0.0.0", SECRET + 1),
    ):
        assert silent(net, INSIDE, SECRET, PEER)
        opening = loop.wait(wall.open(lease(SECRET)))
        assert (opening.port, opening.seconds) == (SECRET, 60)
        assert knock(net, INSIDE, SECRET, PEER) == "open"
        assert silent(net, INSIDE, SECRET, OTHER_PEER)
        assert silent(net, INSIDE, SECRET + 1, PEER)
        counters = loop.wait(wall.counters())
    assert counters["leased"] == 1
    assert counters["denied"] >= 3


def test_ipv6_as_well(net: Net, loop: Loop) -> None:
    with firewall(loop) as wall, listening(net.inside, "::", SECRET):
        assert silent(net, INSIDE6, SECRET, PEER6)
        loop.wait(wall.open(lease(SECRET, PEER6, INSIDE6)))
        assert knock(net, INSIDE6, SECRET, PEER6) == "open"
        assert silent(net, INSIDE6, SECRET, "fd00:2::2")


def test_a_lease_is_for_one_transport(net: Net, loop: Loop) -> None:
    server = net.udp(net.inside, INSIDE, SECRET)
    client = net.udp(net.outside, PEER)
    with firewall(loop) as wall:
        loop.wait(wall.open(lease(SECRET)))
        client.send("too early", INSIDE, SECRET)
        loop.wait(wall.open(lease(SECRET, transport="udp")))
        client.send("now", INSIDE, SECRET)
        assert server.receive(2) == ["now"]
    server.close()
    client.close()


def test_a_lease_ends_by_its_time(net: Net, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ends it by itself, at the same time as the book."""
    monkeypatch.setattr("oegw.moniker.firewall.book.SLACK", 1.0)
    monkeypatch.setattr("oegw.moniker.firewall.ownfirewall.SWEEP_SECONDS", 0.05)
    with firewall(loop) as wall, listening(net.inside, "0.0.0.0", SECRET):
        loop.wait(wall.open(lease(SECRET, seconds=1)))
        assert knock(net, INSIDE, SECRET, PEER) == "open"
        wait_for(lambda: not wall.leases(), 10)
        wait_for(lambda: silent(net, INSIDE, SECRET, PEER))
    ended = [event for event in loop.events if event["event"] == "lease_ended"]
    assert [(e["why"], e["service"]) for e in ended] == [("time", "bob::starwars")]


def test_what_is_over_by_its_time_has_not_ended_with_its_service(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The book is swept once a second only; who reads the trace wants to know the reason."""
    monkeypatch.setattr("oegw.moniker.firewall.ownfirewall.SWEEP_SECONDS", 1000.0)
    now = [0.0]
    wall = loop.make(lambda: OwnFirewall(DENY, (BOB,), trace=loop.trace, clock=lambda: now[0]))
    loop.wait(wall.start())
    loop.wait(wall.open(lease(SECRET)))
    now[0] = 100.0
    loop.wait(wall.end_of(ip_address(INSIDE), "tcp", SECRET))
    loop.wait(wall.open(lease(SECRET)))
    loop.wait(wall.open(lease(SECRET)))  # renewed: nothing new to be told
    now[0] = 200.0
    loop.wait(wall.open(lease(SECRET)))
    loop.wait(wall.close())
    told = [event.get("why", "") for event in loop.events if event["event"].startswith("lease")]
    assert told == ["", "time", "", "time", ""]


def test_a_service_that_ends_takes_its_leases_and_leaves_its_connections(
    net: Net, loop: Loop
) -> None:
    """Its clients are refused from then on, so that they ask again (MK-30); strangers are not."""
    with firewall(loop) as wall, listening(net.inside, "0.0.0.0", SECRET) as server:
        loop.wait(wall.open(lease(SECRET)))
        client = connected(net, INSIDE, SECRET, PEER)
        accepted, _ = server.accept()
        loop.wait(wall.end_of(ip_address(INSIDE), "tcp", SECRET))
        assert wall.leases() == []
        assert knock(net, INSIDE, SECRET, PEER) == "refused"
        assert silent(net, INSIDE, SECRET, OTHER_PEER)
        client.sendall(b"still there?")
        assert accepted.recv(100) == b"still there?"
        accepted.sendall(b"yes")
        assert client.recv(100) == b"yes"
        loop.wait(wall.open(lease(SECRET)))
        assert knock(net, INSIDE, SECRET, PEER) == "open"
        client.close()
        accepted.close()


def test_out_of_the_tunnel_is_outside(net: Net, loop: Loop) -> None:
    """A packet out of oegw0 is no more special than one in clear (firewall.md)."""
    with (
        firewall(loop, FirewallSettings(deny=True, outside=("elsewhere0",), tunnel="out0")) as wall,
        listening(net.inside, "0.0.0.0", SECRET),
    ):
        assert silent(net, INSIDE, SECRET, PEER)
        loop.wait(wall.open(lease(SECRET)))
        assert knock(net, INSIDE, SECRET, PEER) == "open"


def test_from_inside_everything_goes_out(net: Net, loop: Loop) -> None:
    server = net.udp(net.outside, PEER, 7000)
    client = net.udp(net.inside, INSIDE)
    with firewall(loop):
        client.send("question", PEER, 7000)
        octets, address = server.socket.recvfrom(100)
        assert octets == b"question"
        server.send("answer", address[0], address[1])
        assert client.receive(2) == ["answer"]
    server.close()
    client.close()


def test_questions_reach_the_hosts_that_are_ours(net: Net, loop: Loop) -> None:
    with firewall(loop), listening(net.inside, "0.0.0.0", 1):
        assert knock(net, INSIDE, 1, PEER) == "open"
        server = net.udp(net.inside, INSIDE, 1)
        client = net.udp(net.outside, PEER)
        client.send("MON/1", INSIDE, 1)
        assert server.receive(2) == ["MON/1"]
        server.close()
        client.close()


def test_what_the_settings_allow(net: Net, loop: Loop) -> None:
    settings = FirewallSettings(
        deny=True, outside=("out0",), allow=(f"ip daddr {INSIDE} tcp dport {{ 80, 443 }}",)
    )
    with (
        firewall(loop, settings),
        listening(net.inside, "0.0.0.0", 443),
        listening(net.inside, "0.0.0.0", 444),
    ):
        assert knock(net, INSIDE, 443) == "open"
        assert silent(net, INSIDE, 444)


def test_a_match_that_the_kernel_refuses_is_named(loop: Loop) -> None:
    settings = FirewallSettings(
        deny=True, outside=("out0",), allow=("tcp dport 80", "tcp dprot 81")
    )
    wall = loop.make(lambda: OwnFirewall(settings, (BOB,), trace=loop.trace))
    with pytest.raises(FirewallError, match=r"moniker\.firewall\.allow: 'tcp dprot 81'"):
        loop.wait(wall.start())


def test_services_of_this_box_need_a_lease_and_others_are_none_of_our_business(
    net: Net, loop: Loop
) -> None:
    with (
        firewall(loop) as wall,
        listening(net.gateway, "0.0.0.0", SECRET) as server,
        listening(net.gateway, "0.0.0.0", 2222),
    ):
        assert knock(net, OURS, SECRET, ON_LINK) == "open"
        loop.wait(wall.guard(Place("tcp", SECRET)))
        assert silent(net, OURS, SECRET, ON_LINK)
        assert knock(net, OURS, 2222, ON_LINK) == "open"
        loop.wait(wall.open(lease(SECRET, ON_LINK, OURS)))
        assert knock(net, OURS, SECRET, ON_LINK) == "open"
        assert silent(net, OURS, SECRET, PEER)
        loop.wait(wall.end(Place("tcp", SECRET)))
        assert wall.leases() == []
        # Children of a server that was killed still listen: who had a lease is refused.
        assert knock(net, OURS, SECRET, ON_LINK) == "refused"
        assert silent(net, OURS, SECRET, PEER)
        server.close()
        wait_for(lambda: knock(net, OURS, SECRET, PEER) == "refused")
        with listening(net.gateway, "0.0.0.0", SECRET):
            assert knock(net, OURS, SECRET, PEER) == "open"  # whoever has the port now
        assert loop.wait(wall.counters())["own_denied"] >= 2


@pytest.mark.parametrize("other", [Place("mptcp", SECRET, "4"), Place("tcp", SECRET, "46")])
def test_a_port_is_guarded_until_the_last_service_there_ends(
    net: Net, loop: Loop, other: Place
) -> None:
    """Of a user's own, by SO_REUSEPORT.  MPTCP has its ports in common with TCP."""
    one = Place("tcp", SECRET, "4")
    with firewall(loop) as wall:
        for place in (one, other):
            loop.wait(wall.guard(place))
        loop.wait(wall.end(other))
        loop.wait(wall.end(other))  # once more, as when a lease was opened late
        with listening(net.gateway, OURS, SECRET):
            assert silent(net, OURS, SECRET, PEER)
        loop.wait(wall.end(one))
        assert knock(net, OURS, SECRET, PEER) == "refused"


def test_what_is_guarded_is_what_the_service_has_and_no_more(net: Net, loop: Loop) -> None:
    """Else a user could close the port of another user's server, by registering its neighbour."""
    with (
        firewall(loop) as wall,
        listening(net.gateway, OURS, SECRET),
        listening(net.gateway, OURS6, SECRET),
    ):
        loop.wait(wall.guard(Place("tcp", SECRET, "4", ip_address("127.0.0.2"))))
        loop.wait(wall.guard(Place("tcp", SECRET, "4", ip_address("10.1.0.1"))))
        loop.wait(wall.guard(Place("udp", SECRET)))
        assert knock(net, OURS, SECRET, ON_LINK) == "open"
        loop.wait(wall.guard(Place("tcp", SECRET, "4", ip_address(OURS))))
        assert silent(net, OURS, SECRET, ON_LINK)
        assert knock(net, OURS6, SECRET, PEER6) == "open"
        loop.wait(wall.guard(Place("tcp", SECRET, "6")))
        assert silent(net, OURS6, SECRET, PEER6)
        loop.wait(wall.open(lease(SECRET, ON_LINK, OURS)))
        loop.wait(wall.open(lease(SECRET, PEER6, OURS6)))
        assert knock(net, OURS, SECRET, ON_LINK) == "open"
        loop.wait(wall.end(Place("tcp", SECRET, "4", ip_address(OURS))))
        assert [str(each.host) for each in wall.leases()] == [OURS6]
        assert knock(net, OURS6, SECRET, PEER6) == "open"
        assert silent(net, OURS6, SECRET, "fd00:2::2")


def test_a_forwarded_port_leads_one_client_to_a_host_behind(net: Net, loop: Loop) -> None:
    with firewall(loop) as wall, listening(net.inside, "0.0.0.0", SECRET) as server:
        opening = loop.wait(wall.forward(lease(SECRET), ip_address(OURS)))
        again = loop.wait(wall.forward(lease(SECRET), ip_address(OURS)))
        assert again.port == opening.port != SECRET
        assert opening.port >= 1024
        client = connected(net, OURS, opening.port, PEER)
        accepted, came_from = server.accept()
        assert came_from[0] == PEER
        assert knock(net, OURS, opening.port, OTHER_PEER) == "refused"
        other = loop.wait(wall.forward(lease(SECRET, OTHER_PEER), ip_address(OURS)))
        assert other.port != opening.port
        loop.wait(wall.end_of(ip_address(INSIDE), "tcp", SECRET))
        assert knock(net, OURS, opening.port, PEER) == "refused"
        client.sendall(b"on")
        assert accepted.recv(10) == b"on"
        client.close()
        accepted.close()


def test_forwarding_needs_no_deny_and_works_with_ipv6_and_datagrams(net: Net, loop: Loop) -> None:
    server = net.udp(net.inside, INSIDE6, SECRET)
    client = net.udp(net.outside, PEER6)
    with firewall(loop, FirewallSettings()) as wall:
        opening = loop.wait(
            wall.forward(lease(SECRET, PEER6, INSIDE6, transport="udp"), ip_address(OURS6))
        )
        client.send("hello", OURS6, opening.port)
        octets, address = server.socket.recvfrom(100)
        assert (octets, address[0]) == (b"hello", PEER6)
        server.send("to you", address[0], address[1])
        assert client.receive(2) == ["to you"]
    server.close()
    client.close()


def test_a_client_inside_reaches_the_host_by_the_same_port(net: Net, loop: Loop) -> None:
    """It and the host are neighbours; the answers still have to come back by the gateway."""
    server = net.udp(net.inside, INSIDE, SECRET)
    client = net.udp(net.inside, INSIDE)
    with firewall(loop) as wall:
        opening = loop.wait(wall.forward(lease(SECRET, INSIDE, transport="udp"), ip_address(OURS)))
        client.send("hello", OURS, opening.port)
        octets, address = server.socket.recvfrom(100)
        assert (octets, address[0]) == (b"hello", "10.1.0.1")
        server.send("to you", address[0], address[1])
        assert client.receive(2) == ["to you"]
    server.close()
    client.close()


def test_an_address_that_is_not_ours_is_not_forwarded(loop: Loop) -> None:
    with firewall(loop) as wall:
        for asked in ("10.2.0.77", OURS6):
            with pytest.raises(LeaseRefused) as refused:
                loop.wait(wall.forward(lease(SECRET), ip_address(asked)))
            assert refused.value.code == "gateway"
        assert wall.leases() == []


def test_one_host_has_no_more_leases_than_its_limit(loop: Loop) -> None:
    with firewall(loop) as wall:
        for port in range(4):
            loop.wait(wall.open(lease(5000 + port)))
        with pytest.raises(LeaseRefused) as refused:
            loop.wait(wall.open(lease(5004)))
        assert refused.value.code == "busy"
        loop.wait(wall.open(lease(5000)))  # renewed
        loop.wait(wall.open(lease(5004, ON_LINK, OURS)))  # another host's
        loop.wait(wall.end_of(ip_address(INSIDE), "tcp", 5001))
        loop.wait(wall.open(lease(5004)))
    assert loop.trace.counters["moniker.drop.lease_busy"] == 1


def test_a_host_that_is_gone_takes_all_its_leases(net: Net, loop: Loop) -> None:
    with firewall(loop) as wall, listening(net.inside, "0.0.0.0", SECRET):
        loop.wait(wall.open(lease(SECRET)))
        loop.wait(wall.open(lease(5004, ON_LINK, OURS)))
        loop.wait(wall.end_all_of(BOB))
        assert [each.port for each in wall.leases()] == [5004]
        assert knock(net, INSIDE, SECRET, PEER) == "refused"


def test_a_reload_without_a_host_ends_its_leases_and_questions(net: Net, loop: Loop) -> None:
    with firewall(loop) as wall, listening(net.inside, "0.0.0.0", 1):
        loop.wait(wall.open(lease(SECRET)))
        loop.wait(wall.reload(()))
        assert wall.leases() == []
        assert silent(net, INSIDE, 1, PEER)
        loop.wait(wall.reload((BOB,)))
        assert knock(net, INSIDE, 1, PEER) == "open"


def test_a_stop_leaves_the_deny_chain_without_leases(net: Net, loop: Loop) -> None:
    with (
        listening(net.inside, "0.0.0.0", SECRET) as server,
        listening(net.gateway, "0.0.0.0", SECRET),
    ):
        with firewall(loop) as wall:
            loop.wait(wall.guard(Place("tcp", SECRET)))
            loop.wait(wall.open(lease(SECRET)))
            client = connected(net, INSIDE, SECRET, PEER)
            accepted, _ = server.accept()
        assert silent(net, INSIDE, SECRET, PEER)
        assert silent(net, OURS, SECRET, PEER)
        client.sendall(b"established")
        assert accepted.recv(100) == b"established"
        with pytest.raises(LeaseRefused):
            loop.wait(wall.open(lease(SECRET)))
        client.close()
        accepted.close()


def test_a_stop_leaves_nothing_if_nothing_is_to_be_kept(net: Net, loop: Loop) -> None:
    with firewall(loop, FirewallSettings(deny=True, outside=("out0",), keep=False)):
        assert "oegw_moniker" in net.run(net.gateway, "nft", "list", "tables")
    assert "oegw_moniker" not in net.run(net.gateway, "nft", "list", "tables")


def test_after_a_crash_leases_live_on_and_the_next_process_knows_them(net: Net, loop: Loop) -> None:
    with listening(net.inside, "0.0.0.0", SECRET):
        crashed = loop.make(lambda: OwnFirewall(DENY, (BOB,), trace=loop.trace))
        loop.wait(crashed.start())
        loop.wait(crashed.guard(Place("tcp", 5005)))
        loop.wait(crashed.open(lease(SECRET, seconds=50)))
        with firewall(loop) as wall:  # the other's table is replaced, as after kill -9
            assert knock(net, INSIDE, SECRET, PEER) == "open"
            assert silent(net, INSIDE, SECRET, OTHER_PEER)
            (known,) = wall.leases()
            assert (known.service, known.namespace, known.port) == ("starwars", "bob", SECRET)
            assert 40 <= known.seconds <= 52
            guarded = net.run(net.gateway, "nft", "list", "set", "inet", "oegw_moniker", "own4")
            assert "tcp . 5005 timeout 30s" in guarded
            loop.wait(wall.guard(Place("tcp", 5005)))
            guarded = net.run(net.gateway, "nft", "list", "set", "inet", "oegw_moniker", "own4")
            assert "tcp . 5005 }" in guarded
            loop.wait(wall.end_of(ip_address(INSIDE), "tcp", SECRET))
            assert knock(net, INSIDE, SECRET, PEER) == "refused"
        loop.wait(crashed.close())


def test_a_table_that_another_program_takes_away_is_put_back(
    net: Net, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's own rules begin with `flush ruleset`: a reload of them must not open the site."""
    monkeypatch.setattr("oegw.moniker.firewall.ownfirewall.SWEEP_SECONDS", 0.02)
    with (
        firewall(loop) as wall,
        listening(net.inside, "0.0.0.0", SECRET),
        listening(net.gateway, "0.0.0.0", SECRET),
    ):
        loop.wait(wall.guard(Place("tcp", SECRET)))
        opening = loop.wait(wall.forward(lease(SECRET), ip_address(OURS)))
        net.run(net.gateway, "nft", "flush", "ruleset")
        wait_for(lambda: loop.trace.counters["moniker.firewall_put_back"])
        assert knock(net, INSIDE, SECRET, PEER) == "open"
        assert knock(net, OURS, opening.port, PEER) == "open"
        assert silent(net, INSIDE, SECRET, OTHER_PEER)
        assert silent(net, OURS, SECRET, OTHER_PEER)


def test_leases_are_named_in_the_table_and_in_the_trace(net: Net, loop: Loop) -> None:
    """MK-32; the name is a stranger's, and can't be more than a name."""
    named = Lease(ip_address(PEER), ip_address(INSIDE), "tcp", SECRET, 60, 'x"};drop', "bob")
    with firewall(loop) as wall:
        loop.wait(wall.open(named))
        listed = net.run(net.gateway, "nft", "list", "set", "inet", "oegw_moniker", "lease4")
        assert 'comment "bob::x%22%7D%3Bdrop"' in listed
        with pytest.raises(LeaseRefused):
            loop.wait(wall.open(lease(70000)))
        assert len(wall.leases()) == 1
    opened = next(event for event in loop.events if event["event"] == "lease_opened")
    assert opened["service"] == 'bob::x"};drop'
    assert (opened["client"], opened["port"]) == (PEER, SECRET)


def test_an_address_with_a_scope_is_an_address_and_no_command(net: Net, loop: Loop) -> None:
    with firewall(loop) as wall:
        scoped = "fe80::1%x } ; flush ruleset ; add element inet oegw_moniker lease6 {"
        loop.wait(wall.open(lease(SECRET, scoped, "fe80::2%out0")))
        listed = net.run(net.gateway, "nft", "list", "set", "inet", "oegw_moniker", "lease6")
        assert "fe80::1 . fe80::2 . tcp . 4711" in listed


def test_many_leases_at_once_are_few_transactions_and_few_lines(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def all_of_them(wall: OwnFirewall) -> None:
        await asyncio.gather(
            *(wall.open(lease(6000 + n % 50, f"10.77.{n // 50}.9", OURS)) for n in range(500))
        )

    monkeypatch.setattr("oegw.moniker.firewall.ownfirewall.LINES_AT_ONCE", 20.0)
    with firewall(loop) as wall:
        loop.wait(all_of_them(wall))
        assert len(wall.leases()) == 500
    assert loop.trace.counters["moniker.lease_opened"] < 200  # no flood of lines
    assert loop.trace.counters["moniker.drop.lease_opened_unwritten"] > 300


def test_a_socket_holds_the_forwarded_port(net: Net, loop: Loop) -> None:
    """No program of the gateway gets it meanwhile, and it is free again afterwards."""
    with firewall(loop) as wall:
        opening = loop.wait(wall.forward(lease(SECRET), ip_address(OURS)))
        with pytest.raises(OSError, match="in use"), listening(net.gateway, OURS, opening.port):
            pass
        loop.wait(wall.end_of(ip_address(INSIDE), "tcp", SECRET))
        with listening(net.gateway, OURS, opening.port) as server:
            assert server.getsockname()[1] == opening.port


def test_the_table_gives_no_cause_for_a_warning_about_firewalls(net: Net, loop: Loop) -> None:
    """`oegw check` warns of chains that name the outside interface and not the tunnel's."""
    with firewall(loop):
        assert within(net.gateway, lambda: firewall_gaps(SETTINGS)) == []


def test_a_set_that_is_full_of_refused_clients_keeps_no_lease_from_beginning_or_ending(
    net: Net, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that opens and ends leases all the time filled it, and the site stood still."""
    monkeypatch.setattr("oegw.moniker.firewall.ruleset.MAX_ELEMENTS", 3)
    with firewall(loop) as wall, listening(net.inside, "0.0.0.0", SECRET):
        for port in (1, 2, 3):
            loop.wait(wall.open(lease(port, seconds=3600)))
        loop.wait(wall.end_all_of(BOB))
        loop.wait(wall.open(lease(SECRET)))
        assert knock(net, INSIDE, SECRET, PEER) == "open"
        loop.wait(wall.end_of(ip_address(INSIDE), "tcp", SECRET))
        assert silent(net, INSIDE, SECRET, PEER)


def test_so_many_refused_clients_are_remembered_and_no_more(
    net: Net, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oegw.moniker.firewall.ownfirewall.MAX_REFUSED", 1)
    with firewall(loop) as wall, listening(net.inside, "0.0.0.0", SECRET):
        for port, expected in ((1, "refused"), (SECRET, "silent")):
            loop.wait(wall.open(lease(port, seconds=1)))
            loop.wait(wall.end_of(ip_address(INSIDE), "tcp", port))
            assert knock(net, INSIDE, port, PEER, 0.5) == expected
        wait_for(lambda: not wall._refused, 10)
        loop.wait(wall.open(lease(SECRET)))
        loop.wait(wall.end_of(ip_address(INSIDE), "tcp", SECRET))
        assert knock(net, INSIDE, SECRET, PEER) == "refused"
