"""Configured peers: by address, by name, with their key in the DNS, and of variable address."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

import ike.events as keying
from dnsrecords.outcome import (
    Gateway,
    GatewaysFound,
    KeysFound,
    NothingFound,
    PeerFound,
    Unanswered,
)
from dnsrecords.trust import Trust
from ike.events import Encapsulation, TrafficSelector, TransportAddress, TunnelRequest
from oegw import commands as do
from oegw import events as happened
from oegw.commands import Verdict
from oegw.datapath.interface import Direction, SaKey
from oegw.peer import ConfiguredPeer
from policy.rule import Category, PortRange, Rule, Scope
from tests.support.playbook import (
    BOB,
    SG_A,
    SG_B,
    SG_D,
    Playbook,
    configured,
    esp_sa,
    found,
    ping,
    proposal,
    rsa_key,
)

HERE, THERE = "192.1.0.0/24", "192.2.0.0/24"
ELSEWHERE = ip_address("198.51.100.7")
BRANCH = Scope(ip_network(HERE), ip_network(THERE))


def book_with(peer: ConfiguredPeer, **more: Any) -> Playbook:
    return Playbook(configured("office", HERE, THERE), peers={"office": peer}, **more)


def request(address: Any, key: str, identity: Any, encapsulation: Any = None) -> TunnelRequest:
    selectors = (TrafficSelector(ip_network(HERE)), TrafficSelector(ip_network(THERE)))
    return TunnelRequest(SG_A, address, *selectors, (rsa_key(key),), identity, encapsulation)


def test_fixed_address_is_negotiated_with_at_once() -> None:
    book = book_with(ConfiguredPeer(SG_B, rsa_key("sg-b"), None, Encapsulation.UDP))
    wanted = request(SG_B, "sg-b", None, Encapsulation.UDP)
    assert book.send(ping(1)) == [do.StartNegotiation(0, wanted)]


def test_name_is_looked_up_first() -> None:
    book = book_with(ConfiguredPeer("sg-b.example", rsa_key("sg-b"), "sg-b.example"))
    assert book.send(ping(1)) == [do.StartPeerLookup(1, "sg-b.example", None)]
    outcome = PeerFound((ip_address("2001:db8::5"), ELSEWHERE), (), 60.0, Trust.INSECURE)
    # We have no IPv6 address outside.
    assert book.send(happened.PeerLookupEnded(1, outcome)) == [
        do.StartNegotiation(0, request(ELSEWHERE, "sg-b", "sg-b.example"))
    ]


def test_key_of_the_dns_is_looked_up_too() -> None:
    book = book_with(ConfiguredPeer(SG_B, None))
    assert book.send(ping(1)) == [do.StartPeerLookup(1, None, SG_B)]
    outcome = PeerFound((), (rsa_key("sg-b"),), 60.0, Trust.SECURE)
    assert book.send(happened.PeerLookupEnded(1, outcome)) == [
        do.StartNegotiation(0, request(SG_B, "sg-b", None))
    ]


@pytest.mark.parametrize(
    "outcome",
    [
        NothingFound(300.0, "no such name"),
        Unanswered("no answer"),
        PeerFound((ip_address("2001:db8::5"),), (), 60.0, Trust.INSECURE),
    ],
)
def test_peer_that_cannot_be_found_is_never_a_reason_for_clear(outcome: Any) -> None:
    book = book_with(ConfiguredPeer("sg-b.example", rsa_key("sg-b"), "sg-b.example"))
    book.send(ping(1))
    commands = book.send(happened.PeerLookupEnded(1, outcome))
    assert commands[-1] == do.DiscardHeld((1,), "no_tunnel")
    assert all(c.verdict is Verdict.DENY for c in commands if isinstance(c, do.InstallPolicy))
    book.wait(10.0)
    assert book.send(ping(2)) == [do.StartPeerLookup(2, "sg-b.example", None)]


@pytest.mark.parametrize(
    ("remote", "identity", "key", "wanted"),
    [
        (THERE, SG_B, "sg-d", "rule 'office' has this traffic for 192.1.1.5, with its key; "),
        (THERE, SG_D, "sg-b", "rule 'office' has this traffic for 192.1.1.5, with its key; "),
        ("192.2.0.0/25", SG_B, "sg-b", f"rule 'office' of this peer is for {HERE} and {THERE}; "),
        ("192.2.0.0/25", "x.example", "sg-b", ""),
    ],
)
def test_operator_is_told_what_a_peer_almost_fits(
    remote: str, identity: Any, key: str, wanted: str
) -> None:
    book = book_with(ConfiguredPeer(SG_B, rsa_key("sg-b")))
    [refuse] = book.send(proposal(local=HERE, remote=remote, identity=identity, key=key))
    assert isinstance(refuse, do.RefuseTunnel)
    assert refuse.reason == wanted + f"an opportunistic tunnel is for single hosts, not {HERE}"


class TestRoadWarrior:
    PEER = ConfiguredPeer(None, rsa_key("road"), "road.example")

    def proposed(self, key: str = "road", identity: str = "road.example") -> keying.TunnelProposed:
        return proposal(local=HERE, remote=THERE, identity=identity, key=key, address=ELSEWHERE)

    def test_we_wait_for_it(self) -> None:
        book = book_with(self.PEER)
        assert book.send(ping(1))[-1] == do.DiscardHeld((1,), "denied")
        assert book.state(ip_address("192.1.0.65"), ip_address("192.2.0.66")) == "denied"

    def test_it_begins_from_anywhere_and_its_traffic_flows(self) -> None:
        book = book_with(self.PEER)
        book.send(ping(1))
        remote = TransportAddress(ELSEWHERE, 4500)
        needed = keying.PeerKeyNeeded(7, "road.example", remote)
        assert book.send(needed) == [do.ProvidePeerKeys(7, (rsa_key("road"),))]
        # Denied until now; from now on our packets are held for the tunnel that comes.
        assert book.send(self.proposed()) == [do.RemovePolicy(BRANCH), do.AcceptTunnel(1)]
        assert book.send(ping(2)) == []
        book.send(keying.InboundSaEstablished(1, esp_sa(ELSEWHERE, SG_A, 0x1001, (THERE, HERE))))
        book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, ELSEWHERE, 0x2001, (HERE, THERE))))
        outbound = SaKey(Direction.OUTBOUND, 0x2001, ELSEWHERE)
        assert book.send(happened.SaInstalled(1, outbound)) == [
            do.InstallPolicy(BRANCH, Verdict.TUNNEL, None),
            do.ReleaseHeld((2,), Verdict.TUNNEL),
        ]

    def test_an_answer_that_is_quicker_than_its_tunnel_is_held(self) -> None:
        book = book_with(self.PEER)
        assert book.send(self.proposed()) == [do.AcceptTunnel(1)]
        assert book.send(ping(1)) == []
        assert book.state(ip_address("192.1.0.65"), ip_address("192.2.0.66")) == "pending"

    def test_what_was_held_for_a_peer_that_fails_is_dropped_and_the_next_packet_denied(
        self,
    ) -> None:
        book = book_with(self.PEER)
        book.send(ping(1))
        book.send(self.proposed())
        book.send(ping(2))
        failed = keying.NegotiationFailed(1, keying.Failure.SILENCE, "no message 3")
        assert do.DiscardHeld((2,), "connection_over") in book.send(failed)
        commands = book.send(ping(3))
        assert do.InstallPolicy(BRANCH, Verdict.DENY, 10.0) in commands
        assert commands[-1] == do.DiscardHeld((3,), "denied")

    def test_stranger_with_another_key_or_name_gets_nothing(self) -> None:
        book = book_with(self.PEER)
        for stranger in (self.proposed(key="mallory"), self.proposed(identity="mallory.example")):
            (command,) = book.send(stranger)
            assert isinstance(command, do.RefuseTunnel)


def test_identity_whose_key_is_in_the_dns_is_asked_for_there() -> None:
    book = book_with(ConfiguredPeer(None, None, "road.example"))
    needed = keying.PeerKeyNeeded(7, "road.example", TransportAddress(ELSEWHERE))
    assert book.send(needed) == [do.StartKeyLookup(1, "road.example", ours=True)]
    keys = KeysFound((rsa_key("road"),), 60.0, Trust.SECURE)
    assert book.send(happened.KeyLookupEnded(1, keys)) == [do.ProvidePeerKeys(7, keys.keys)]
    event = proposal(
        local=HERE, remote=THERE, identity="road.example", key="road", address=ELSEWHERE
    )
    assert book.send(event) == [do.AcceptTunnel(1)]


def test_configured_sas_say_so() -> None:
    book = book_with(ConfiguredPeer(SG_B, rsa_key("sg-b")))
    book.send(ping(1))
    (command,) = book.send(keying.InboundSaEstablished(0, esp_sa(SG_B, SG_A, 0x1001, (SG_B, SG_A))))
    assert isinstance(command, do.InstallSa)
    assert command.sa.configured


class TestChannelThatWeBegan:
    """Whoever owns a reverse zone can name SG-B there as the gateway, with a key of its own.

    On the way to SG-B it can then answer us with that key, under the name of SG-B.
    """

    CHANNEL = 8  # for which no key was looked up under the identity
    MALLORY = ip_address("203.0.114.9")

    def proposed(self, key: str, remote: Any, local: Any = None) -> keying.TunnelProposed:
        return replace(proposal(local=local, remote=remote, key=key), channel=self.CHANNEL)

    def begun(self, *rules: Any, **more: Any) -> Playbook:
        book = Playbook(*rules, **more)
        book.send(ping(1, destination=self.MALLORY))
        (order,) = book.send(happened.LookupEnded(1, found((SG_B, "mallory"))))
        assert isinstance(order, do.StartNegotiation)
        return book

    @pytest.mark.parametrize("key", ["mallory", "sg-b"])
    def test_configured_peer_with_its_key_in_the_dns(self, key: str) -> None:
        book = self.begun(
            configured("office", HERE, THERE), peers={"office": ConfiguredPeer(SG_B, None)}
        )
        asked = book.send(self.proposed(key, THERE, HERE))
        assert asked == [do.StartKeyLookup(2, SG_B, ours=True)]
        outcome = KeysFound((rsa_key("sg-b"),), 60.0, Trust.INSECURE)
        (answer,) = book.send(happened.KeyLookupEnded(2, outcome))
        assert isinstance(answer, do.AcceptTunnel if key == "sg-b" else do.RefuseTunnel)

    @pytest.mark.parametrize("key", ["mallory", "sg-b"])
    @pytest.mark.parametrize("record", ["KEY", "TXT"])
    def test_gateway_that_speaks_for_itself(self, key: str, record: str) -> None:
        book = self.begun()
        assert book.send(self.proposed(key, SG_B)) == [do.StartKeyLookup(2, SG_B)]
        keys = KeysFound((rsa_key("sg-b"),), 60.0, Trust.INSECURE)
        nothing = NothingFound(60.0, "no such record")
        known = book.send(happened.KeyLookupEnded(2, keys if record == "KEY" else nothing))
        if known != [do.AcceptTunnel(1)]:
            assert known == [do.StartLookup(3, SG_B, with_keys=True, purpose="authority")]
            known = book.send(happened.LookupEnded(3, found((SG_B, "sg-b"))))
        (answer,) = known
        assert isinstance(answer, do.AcceptTunnel if key == "sg-b" else do.RefuseTunnel)

    @pytest.mark.parametrize("key", ["mallory", "sg-b"])
    def test_delegation_without_key_is_for_the_key_of_the_gateway(self, key: str) -> None:
        book = self.begun()
        assert book.send(self.proposed(key, BOB)) == [
            do.StartLookup(2, BOB, with_keys=True, purpose="authority")
        ]
        gateway = Gateway(10, SG_B, None, (rsa_key("sg-b"),), keyless=True)
        outcome = GatewaysFound((gateway,), 60.0, Trust.INSECURE)
        (answer,) = book.send(happened.LookupEnded(2, outcome))
        assert isinstance(answer, do.AcceptTunnel if key == "sg-b" else do.RefuseTunnel)


def test_stranger_cannot_fill_the_table_for_the_others() -> None:
    book = Playbook(
        configured("office", HERE, THERE),
        peers={"office": ConfiguredPeer(SG_B, rsa_key("sg-b"))},
        connections=40,
    )
    accepted = 0
    for number in range(60):
        event = proposal(
            2 * number + 1, local=ip_address("8.0.0.0") + number, remote=SG_D, identity=SG_D,
            key="mallory", address=SG_D,
        )  # fmt: skip
        accepted += do.AcceptTunnel(event.tunnel) in book.send(event)
    assert accepted == 10
    assert isinstance(book.send(ping(7))[0], do.StartNegotiation)


@pytest.mark.parametrize("hole", [PortRange(0, 1023), PortRange(1024, 65535), PortRange(80, 90)])
def test_configured_ports_beside_a_hole_for_strangers_stay_configured(hole: PortRange) -> None:
    networks = ((ip_network(HERE),), (ip_network(THERE),))
    book = Playbook(
        Rule("office", Category.CONFIGURED, *networks, 6),
        Rule("hole", Category.OPPORTUNISTIC, *networks, 6, destination_ports=hole, override=True),
        peers={"office": ConfiguredPeer(SG_D, rsa_key("sg-d"))},
    )
    (command,) = book.send(proposal(remote=BOB))
    assert isinstance(command, do.RefuseTunnel)
    assert "office" in command.reason
