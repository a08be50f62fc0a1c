"""Unknown SPIs: what little comes of a sign that anybody can forge (RFC 4322 section 3.2.6)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

import ike.events as keying
from dnsrecords.outcome import KeysFound, NothingFound
from dnsrecords.trust import Trust
from ike.events import TransportAddress
from oegw import commands as do
from oegw import events as happened
from oegw.commands import Command
from oegw.datapath.interface import UnknownSpiReceived
from oegw.peer import ConfiguredPeer
from policy.flow import IPAddress
from tests.oegw.test_ageing import bring_up, keyed
from tests.support.playbook import (
    ALICE,
    BOB,
    SG_A,
    SG_B,
    SG_D,
    Playbook,
    configured,
    found,
    host,
    proposal,
    rsa_key,
)


def unknown(book: Playbook, source: IPAddress = SG_B, spi: int = 0x999) -> list[Command]:
    return book.send(UnknownSpiReceived(source, SG_A, spi))


def refused(book: Playbook, spi: int, source: IPAddress = SG_B) -> list[Command]:
    return book.send(keying.SpiRefused(TransportAddress(source), spi, authenticated=False))


def channel_up(
    book: Playbook,
    remote: IPAddress = SG_B,
    identity: keying.Identity | None = None,
    channel: int = 3,
) -> list[Command]:
    key, ends = rsa_key("sg-b"), (TransportAddress(SG_A), TransportAddress(remote))
    identity = remote if identity is None else identity
    return book.send(
        keying.KeyingChannelEstablished(channel, *ends, identity, key, True, "modern", 0.1)
    )


class TestStranger:
    def test_nothing_is_sent_and_nothing_is_remembered(self) -> None:
        book = keyed()
        for number in range(10_000):
            source = ip_address(0x0A000000 + number)
            assert unknown(book, source, 0x1000 + number) == []
            assert refused(book, 0x1000 + number, source) == []
        assert book.trace.drops == {"unknown_spi": 10_000, "unknown_spi_hint": 10_000}
        assert book.gateway._recovery._tried == {}

    def test_gateway_of_a_tunnel_that_is_gone_is_a_stranger(self) -> None:
        book = keyed()
        book.send(keying.TunnelClosed(0, "deleted by the peer"))
        assert unknown(book) == []

    def test_packet_to_another_address_than_ours_is_nobodys(self) -> None:
        book = keyed()
        assert book.send(UnknownSpiReceived(SG_B, SG_D, 0x999)) == []


class TestGatewayThatWeHaveATunnelWith:
    def test_it_is_told_under_the_channel_that_we_do_not_have_this_one(self) -> None:
        book = keyed()
        channel_up(book)
        assert unknown(book) == [do.DisownSpi(SG_A, SG_B, 0x999)]

    def test_without_a_channel_a_new_one_is_begun_first(self) -> None:
        book = keyed()
        channel_up(book)
        book.send(keying.KeyingChannelClosed(3, "lifetime over"))
        [greet] = unknown(book)
        assert isinstance(greet, do.GreetPeer)
        assert (greet.request.remote, greet.request.peer_keys) == (SG_B, (rsa_key("sg-b"),))
        assert channel_up(book, channel=4) == [do.DisownSpi(SG_A, SG_B, 0x999)]
        assert channel_up(book, channel=5) == []

    def test_it_gets_one_attempt_a_minute_however_many_are_forged(self) -> None:
        book = keyed()
        channel_up(book)
        attempts = 0
        for second in range(180):
            for number in range(100):
                attempts += len(unknown(book, spi=0x10000 + 100 * second + number))
                attempts += len(refused(book, 0x2001))
            book.now += 1
        assert attempts == 3
        assert book.trace.drops["recovery_pause"] == 2 * 100 * 180 - 3

    def test_all_gateways_together_get_ten_a_second(self) -> None:
        book = Playbook(
            contacts=frozenset(ip_address(0x0A000000 + n) for n in range(1000)),
            local_reverse=(ip_network("10.0.0.0/8"),),
        )
        begun = [unknown(book, ip_address(0x0A000000 + n)) for n in range(1000)]
        assert sum(map(len, begun)) == 10


class TestPeerThatDoesNotKnowOurSpi:
    def test_a_new_channel_is_begun_and_the_tunnel_has_a_successor(self) -> None:
        book = keyed()
        [greet] = refused(book, 0x2001)
        assert isinstance(greet, do.GreetPeer)
        assert book.state() == "keyed", "until the peer has proven itself nothing changes"
        [start] = channel_up(book)
        assert isinstance(start, do.StartNegotiation)
        assert (start.request.remote, start.request.replaces) == (SG_B, 0)

    def test_if_it_said_that_it_forgot_all_there_is_nothing_to_replace(self) -> None:
        book = keyed()
        refused(book, 0x2001)
        book.send(keying.TunnelClosed(0, "initial contact"))
        assert channel_up(book) == []

    @pytest.mark.parametrize(("spi", "source"), [(0x2002, SG_B), (0x2001, SG_D), (0x1001, SG_B)])
    def test_only_an_spi_that_we_send_with_to_this_peer_counts(
        self, spi: int, source: IPAddress
    ) -> None:
        book = keyed()
        assert refused(book, spi, source) == []
        assert book.trace.drops["unknown_spi_hint"] == 1

    def test_peer_that_never_answers_is_asked_again_after_a_minute(self) -> None:
        book = keyed()
        assert len(refused(book, 0x2001)) == 1
        book.now += 61
        assert channel_up(book) == [], "too late: another began it"
        assert len(refused(book, 0x2001)) == 1


class TestContactOfAFormerLife:
    def crashed(self) -> Playbook:
        return Playbook(contacts=frozenset({SG_B, "road.example"}))

    def test_it_is_greeted_with_the_keys_of_the_dns(self) -> None:
        book = self.crashed()
        assert unknown(book) == [do.StartKeyLookup(1, SG_B, "contact", ours=True)]
        keys = KeysFound((rsa_key("sg-b"),), 60, Trust.INSECURE)
        [greet] = book.send(happened.KeyLookupEnded(1, keys))
        assert isinstance(greet, do.GreetPeer)
        assert greet.request == keying.TunnelRequest(
            SG_A, SG_B, host(SG_A), host(SG_B), keys.keys, SG_B
        )
        assert channel_up(book) == []
        book.wait(61)
        assert unknown(book) == [], "it has been told, and is a stranger until there is a tunnel"

    def test_one_without_a_key_is_not(self) -> None:
        book = self.crashed()
        unknown(book)
        assert book.send(happened.KeyLookupEnded(1, NothingFound(60, "no key"))) == []
        assert book.trace.drops["contact_without_key"] == 1

    def test_it_may_have_begun_itself(self) -> None:
        book = self.crashed()
        channel_up(book)
        assert unknown(book) == []

    def test_configured_one_is_found_by_its_address_and_has_its_key(self) -> None:
        rule = configured("road", "192.1.0.0/24", "192.2.0.0/24")
        peer = ConfiguredPeer(SG_D, rsa_key("road"), "road.example")
        book = Playbook(rule, peers={"road": peer}, contacts=frozenset({"road.example"}))
        [greet] = unknown(book, SG_D)
        assert isinstance(greet, do.GreetPeer)
        assert greet.request.peer_identity == "road.example"
        assert greet.request.peer_keys == (rsa_key("road"),)

    def test_sst_38_one_that_hides_the_ports_of_ike_is_not_shown_up(self) -> None:
        """A main mode at once would leave without a shield."""
        book = Playbook(
            contacts=frozenset({SG_B}), came_shielded=lambda local, remote: remote == SG_B
        )
        assert unknown(book) == []
        assert book.trace.drops["contact_shielded"] == 1

    def test_private_identity_is_not_looked_up(self) -> None:
        private = ip_address("10.0.0.1")
        book = Playbook(contacts=frozenset({private}))
        assert unknown(book, private) == []


def test_tunnel_that_moved_is_found_at_its_new_address() -> None:
    book = Playbook()
    book.send(proposal())
    book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
    bring_up(book, 1)
    connections = book.gateway._ledger.connections
    (connection,) = book.gateway.connections()
    connections.lead(connection.tunnels[1], SG_D)
    assert unknown(book, SG_B) == []
    assert len(unknown(book, SG_D)) == 1
    assert connection.selectors.remote == ip_network(BOB)
    assert connection.selectors.local == ip_network(ALICE)
