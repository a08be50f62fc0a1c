"""A tunnel's successor, its move to another address, its counters: an event in, commands out."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import ike.events as keying
from ike.events import TransportAddress, UdpPorts
from oegw import commands as do
from oegw import events as happened
from oegw.datapath.interface import (
    DatapathEvent,
    Direction,
    PeerAddressChanged,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    Usage,
)
from oegw.ledger import LINGER
from oegw.peer import ConfiguredPeer
from oegw.tunnels import FIRST_WAIT, SUCCESSOR_WAIT
from tests.support.playbook import (
    ALICE,
    BOB,
    SG_A,
    SG_B,
    Playbook,
    configured,
    esp_sa,
    found,
    host,
    inbound_key,
    outbound_key,
    ping,
    proposal,
    rsa_key,
)

MOVED = ip_address("192.1.1.99")


def keyed(book: Playbook, *, ports: UdpPorts | None = None) -> None:
    """From the first packet to a tunnel, number 0."""
    book.send(ping(1))
    book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
    bring_up(book, 0, 0x1001, 0x2001, ports)
    assert book.state() == "keyed"


def bring_up(
    book: Playbook, tunnel: int, inbound: int, outbound: int, ports: UdpPorts | None = None
) -> list[SecurityAssociation]:
    back = ports and UdpPorts(ports.destination, ports.source)
    commands = book.send(
        keying.InboundSaEstablished(
            tunnel, replace(esp_sa(SG_B, SG_A, inbound, (BOB, ALICE)), ports=back)
        )
    )
    book.send(happened.SaInstalled(tunnel, inbound_key(inbound)))
    commands += book.send(
        keying.OutboundSaEstablished(
            tunnel, replace(esp_sa(SG_A, SG_B, outbound, (ALICE, BOB)), ports=ports)
        )
    )
    book.send(happened.SaInstalled(tunnel, outbound_key(outbound)))
    return [command.sa for command in commands if isinstance(command, do.InstallSa)]


def successor(replaces: int) -> keying.TunnelRequest:
    return keying.TunnelRequest(
        SG_A, SG_B, host(ALICE), host(BOB), (rsa_key("sg-b"),), replaces=replaces
    )


class TestPeerThatReceivesOnlyAfterMessage3:
    """We send on a tunnel of ours a little later; no packet waits longer than it must."""

    def wait(self, book: Playbook, tunnel: int, outbound: int) -> float:
        (command,) = book.send(
            keying.OutboundSaEstablished(tunnel, esp_sa(SG_A, SG_B, outbound, (ALICE, BOB)))
        )
        assert isinstance(command, do.InstallSa)
        return command.after

    def test_stranger_has_its_sas_before_it_answers(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        (command,) = book.send(
            keying.InboundSaEstablished(0, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE)))
        )
        assert isinstance(command, do.InstallSa)
        assert command.after == 0, "the peer may send as soon as it has our message 3"
        book.send(happened.SaInstalled(0, inbound_key(0x1001)))
        assert self.wait(book, 0, 0x2001) == 0

    def test_configured_peer_may_be_any(self) -> None:
        rule = configured("office", "192.1.0.0/24", "192.2.0.0/24")
        book = Playbook(rule, peers={"office": ConfiguredPeer(SG_B, rsa_key("sg-b"))})
        book.send(ping(1))
        assert self.wait(book, 0, 0x2001) == FIRST_WAIT

    def test_tunnel_before_it_carries_on_while_the_successor_waits(self) -> None:
        book = Playbook()
        keyed(book)
        book.renew(0)
        assert self.wait(book, 2, 0x2002) == SUCCESSOR_WAIT

    def test_peer_that_began_has_sent_message_3_itself(self) -> None:
        book = Playbook()
        keyed(book)
        book.send(proposal())
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        assert self.wait(book, 1, 0x2002) == 0


class TestRekey:
    def test_successor_is_ordered_and_the_old_tunnel_stays_until_the_core_closes_it(self) -> None:
        book = Playbook()
        keyed(book)
        assert book.renew(0) == [do.StartNegotiation(2, successor(0))]
        assert book.state() == "keyed"
        bring_up(book, 2, 0x1002, 0x2002)
        # Packets went on all the time; the old SAs go when the core says so.
        assert book.send(keying.TunnelClosed(0, "replaced")) == [do.RemoveSa(outbound_key(0x2001))]
        assert book.wait(LINGER - 0.1) == []
        assert book.wait(0.1) == [do.RemoveSa(inbound_key(0x1001))]
        assert book.send(ping(2))[-1] == do.ReleaseHeld((2,), do.Verdict.TUNNEL)

    def test_failed_successor_leaves_the_connection_as_it_is(self) -> None:
        book = Playbook()
        keyed(book)
        book.renew(0)
        failed = keying.NegotiationFailed(2, keying.Failure.SILENCE, "nobody")
        assert book.send(failed) == []
        assert book.state() == "keyed"
        # The core asks again, until the lifetime is over.
        assert book.renew(0) == [do.StartNegotiation(4, successor(0))]

    def test_tunnel_that_the_peer_began_is_succeeded_with_what_it_proved(self) -> None:
        book = Playbook()
        book.send(proposal())
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        bring_up(book, 1, 0x1001, 0x2001)
        wanted = replace(successor(1), peer_identity=SG_B)
        assert book.renew(1) == [do.StartNegotiation(0, wanted)]

    def test_no_successor_for_what_is_gone(self) -> None:
        book = Playbook()
        keyed(book)
        book.send(keying.TunnelClosed(0, "deleted by the peer"))
        assert book.send(keying.TunnelExpiring(0)) == []

    def test_limits_of_the_datapath_are_reported_to_the_core(self) -> None:
        book = Playbook()
        keyed(book)
        assert book.send(SaExpired(outbound_key(0x2001), hard=False)) == [do.ReportExpiring(0)]
        assert book.send(SaExpired(outbound_key(0x2999), hard=False)) == []

    def test_soft_and_hard_limits_of_the_sas(self) -> None:
        book = Playbook()
        keyed(book)
        book.renew(0)
        sa = replace(esp_sa(SG_B, SG_A, 0x1002, (BOB, ALICE)), lifetime_bytes=1000)
        (command,) = book.send(keying.InboundSaEstablished(2, sa))
        assert isinstance(command, do.InstallSa)
        limits = (command.sa.soft_bytes, command.sa.hard_bytes, command.sa.hard_seconds)
        assert limits == (900, 1000, 3660)
        assert not command.sa.configured


class TestRefusedInstallation:
    """Of a tunnel that others gave way to: nothing stays keyed, or waits, without a sender."""

    def test_successor_whose_predecessor_ended_meanwhile(self) -> None:
        book = Playbook()
        keyed(book)
        book.renew(0)
        book.send(keying.InboundSaEstablished(2, esp_sa(SG_B, SG_A, 0x1002, (BOB, ALICE))))
        book.send(happened.SaInstalled(2, inbound_key(0x1002)))
        book.send(keying.OutboundSaEstablished(2, esp_sa(SG_A, SG_B, 0x2002, (ALICE, BOB))))
        book.send(keying.TunnelClosed(0, "deleted by the peer"))
        book.send(happened.SaInstallFailed(2, outbound_key(0x2002), "ENOBUFS"))
        assert book.state() is None
        assert isinstance(book.send(ping(9))[0], do.StartLookup)

    def test_preferred_one(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        book.send(proposal())
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        for tunnel, inbound in ((0, 0x1001), (1, 0x1002)):
            sa = esp_sa(SG_B, SG_A, inbound, (BOB, ALICE))
            book.send(keying.InboundSaEstablished(tunnel, sa))
            book.send(happened.SaInstalled(tunnel, inbound_key(inbound)))
        for tunnel, outbound in ((1, 0x2002), (0, 0x2001)):
            sa = esp_sa(SG_A, SG_B, outbound, (ALICE, BOB))
            book.send(keying.OutboundSaEstablished(tunnel, sa))
        book.send(keying.TunnelPreferred(1))
        commands = book.send(happened.SaInstallFailed(1, outbound_key(0x2002), "ENOBUFS"))
        assert do.CloseTunnel(0) in commands
        assert do.RemoveSa(inbound_key(0x1001)) in commands
        assert book.state() == "clear"  # as after every other failure
        assert book.send(happened.SaInstalled(0, outbound_key(0x2001))) == [
            do.RemoveSa(outbound_key(0x2001))
        ]


class TestMove:
    PORTS = UdpPorts(4500, 1024)

    def test_udp_ports_reach_the_datapath(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        inbound, outbound = bring_up(book, 0, 0x1001, 0x2001, self.PORTS)
        assert inbound.encapsulation == UdpEncapsulation(1024, 4500)
        assert outbound.encapsulation == UdpEncapsulation(4500, 1024)

    def test_core_is_asked_and_both_sas_follow(self) -> None:
        book = Playbook()
        keyed(book, ports=self.PORTS)
        elsewhere = TransportAddress(MOVED, 2048)
        event: DatapathEvent = PeerAddressChanged(inbound_key(0x1001), MOVED, 2048)
        assert book.send(event) == [do.ReportPeerMoved(0, elsewhere)]
        assert book.send(keying.PeerMoved(1, elsewhere, (0,))) == [
            do.MoveSa(0, outbound_key(0x2001), SG_A, MOVED, UdpEncapsulation(4500, 2048)),
            do.MoveSa(0, inbound_key(0x1001), MOVED, SG_A, UdpEncapsulation(2048, 4500)),
        ]
        # From now on the outbound SA has its new name.
        moved = SaKey(Direction.OUTBOUND, 0x2001, MOVED)
        assert book.send(SaExpired(moved, hard=False)) == [do.ReportExpiring(0)]
        # It still calls itself what it has called itself.
        wanted = replace(successor(0), remote=MOVED, peer_identity=SG_B)
        assert book.renew(0) == [do.StartNegotiation(2, wanted)]
        assert do.RemoveSa(moved) in book.send(keying.TunnelClosed(0, "x")) + book.wait(0)

    def test_sa_that_cannot_be_moved_is_given_up(self) -> None:
        book = Playbook()
        keyed(book, ports=self.PORTS)
        book.send(keying.PeerMoved(1, TransportAddress(MOVED, 2048), (0,)))
        commands = book.send(happened.SaMoveFailed(0, outbound_key(0x2001), "no"))
        # It is still there, under the name that it had.
        assert commands[:2] == [do.RemoveSa(outbound_key(0x2001)), do.CloseTunnel(0)]
        assert book.state() is None

    def test_sa_that_cannot_be_moved_and_whose_tunnel_is_closed_does_not_stay(self) -> None:
        book = Playbook()
        keyed(book, ports=self.PORTS)
        book.send(keying.PeerMoved(1, TransportAddress(MOVED, 2048), (0,)))
        book.send(keying.TunnelClosed(0, "deleted by the peer"))
        failed = happened.SaMoveFailed(0, outbound_key(0x2001), "no")
        assert book.send(failed) == [do.RemoveSa(outbound_key(0x2001))]

    def test_peer_that_moves_while_an_sa_is_being_installed(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        inbound = esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE))
        outbound = esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))
        book.send(keying.InboundSaEstablished(0, replace(inbound, ports=UdpPorts(1024, 4500))))
        assert book.send(keying.PeerMoved(1, TransportAddress(MOVED, 2048), (0,))) == []
        assert book.send(happened.SaInstalled(0, inbound_key(0x1001)))[0] == do.MoveSa(
            0, inbound_key(0x1001), MOVED, SG_A, UdpEncapsulation(2048, 4500)
        )
        book.send(keying.OutboundSaEstablished(0, replace(outbound, ports=UdpPorts(4500, 2048))))
        book.send(keying.PeerMoved(1, TransportAddress(MOVED, 3072), (0,)))
        assert book.send(happened.SaInstalled(0, outbound_key(0x2001)))[0] == do.MoveSa(
            0, outbound_key(0x2001), SG_A, MOVED, UdpEncapsulation(4500, 3072)
        )

    def test_tunnels_of_plain_esp_do_not_move(self) -> None:
        book = Playbook()
        keyed(book)
        assert book.send(keying.PeerMoved(1, TransportAddress(MOVED, 500), (0,))) == []


class TestUsage:
    def test_traffic_is_reported_when_it_changes(self) -> None:
        book = Playbook()
        keyed(book)
        usage = {inbound_key(0x1001): Usage(1, 84, 5.0), outbound_key(0x2001): Usage(2, 168, 6.0)}
        assert book.send(happened.UsageReported(usage)) == [do.ReportTraffic(0, 5.0, 6.0)]
        assert book.send(happened.UsageReported(usage)) == []
        usage[outbound_key(0x2001)] = Usage(3, 252, 7.0)
        assert book.send(happened.UsageReported(usage)) == [do.ReportTraffic(0, 5.0, 7.0)]


def test_scope_of_the_pair_is_the_hosts() -> None:
    book = Playbook()
    keyed(book)
    (connection,) = book.gateway.connections()
    assert connection.selectors.local == ip_network(ALICE)


class TestCrossing:
    """Both sides began at once; tunnel 0 is ours, tunnel 1 the peer's."""

    def crossed(self) -> Playbook:
        book = Playbook()
        keyed(book)
        book.send(proposal())
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        book.send(keying.InboundSaEstablished(1, esp_sa(SG_B, SG_A, 0x1002, (BOB, ALICE))))
        book.send(happened.SaInstalled(1, inbound_key(0x1002)))
        return book

    def test_older_one_is_preferred_before_the_younger_is_installed(self) -> None:
        book = self.crossed()
        book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2002, (ALICE, BOB))))
        assert book.send(keying.TunnelPreferred(0)) == []
        assert book.send(happened.SaInstalled(1, outbound_key(0x2002))) == [
            do.RemoveSa(outbound_key(0x2002))
        ]
        assert book.send(keying.TunnelClosed(1, "redundant")) == []
        assert book.wait(LINGER) == [do.RemoveSa(inbound_key(0x1002))]
        assert book.state() == "keyed"

    def test_older_one_is_preferred_when_the_younger_is_there(self) -> None:
        book = self.crossed()
        book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2002, (ALICE, BOB))))
        book.send(happened.SaInstalled(1, outbound_key(0x2002)))
        assert book.send(keying.TunnelPreferred(0)) == [do.RemoveSa(outbound_key(0x2002))]
        (connection,) = book.gateway.connections()
        assert connection.live_tunnel is connection.tunnels[0]

    def test_one_that_only_receives_is_no_tunnel_to_live_on(self) -> None:
        book = self.crossed()
        book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2002, (ALICE, BOB))))
        book.send(happened.SaInstalled(1, outbound_key(0x2002)))
        book.send(keying.TunnelPreferred(0))
        commands = book.send(keying.TunnelClosed(0, "deleted by the peer"))
        assert do.CloseTunnel(1) in commands
        assert do.RemoveSa(inbound_key(0x1002)) in commands
        assert book.state() is None


class TestAnswerThatIsFaster:
    """The peer's first packet came through its tunnel, and our host answers before message 3."""

    def waiting(self) -> Playbook:
        book = Playbook()
        book.send(proposal())
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        book.send(keying.InboundSaEstablished(1, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE))))
        book.send(happened.SaInstalled(1, inbound_key(0x1001)))
        assert book.send(ping(5)) == [], "held, and nothing of our own is begun"
        assert book.state() == "pending"
        return book

    def test_answer_takes_the_tunnel_of_the_peer(self) -> None:
        book = self.waiting()
        book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
        commands = book.send(happened.SaInstalled(1, outbound_key(0x2001)))
        assert commands[-1] == do.ReleaseHeld((5,), do.Verdict.TUNNEL)
        assert not any(isinstance(command, do.StartLookup) for command in commands)

    def test_if_nothing_comes_of_it_the_next_packet_begins(self) -> None:
        book = self.waiting()
        failed = keying.NegotiationFailed(1, keying.Failure.REFUSED, "no message 3")
        assert book.send(failed)[0] == do.RemoveSa(inbound_key(0x1001))
        assert book.send(ping(6)) == [do.StartLookup(2, BOB)]
