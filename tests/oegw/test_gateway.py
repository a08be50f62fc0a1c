"""Playbooks of the coordinator: draft section 3.2 and RFC 4322 sections 3.2 and 3.3."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

import ike.events as keying
from dnsrecords.outcome import (
    Gateway as FoundGateway,
)
from dnsrecords.outcome import (
    GatewaysFound,
    KeysFound,
    Malformed,
    NothingFound,
    Unanswered,
)
from dnsrecords.trust import Trust
from ike.events import Failure, TrafficSelector, TransportAddress, TunnelRequest
from oegw import commands as do
from oegw import events as happened
from oegw.commands import Verdict
from oegw.datapath.interface import SaExpired
from oegw.hold import HoldSettings
from oegw.ledger import LINGER
from oegw.peer import ConfiguredPeer
from policy.flow import Flow
from policy.rule import OnFailure, PortRange, Scope
from policy.table import PolicyTable
from tests.support.playbook import (
    ALICE,
    BOB,
    DAVE,
    SG_A,
    SG_B,
    SG_D,
    Playbook,
    configured,
    deny,
    esp_sa,
    found,
    host,
    inbound_key,
    opportunistic,
    outbound_key,
    permit,
    ping,
    proposal,
    rsa_key,
)

PAIR = Scope(ip_network(ALICE), ip_network(BOB))


def request(key: str = "sg-b", gateway: object = SG_B) -> TunnelRequest:
    return TunnelRequest(SG_A, gateway, host(ALICE), host(BOB), (rsa_key(key),))  # type: ignore[arg-type]


def keyed(book: Playbook, *, tunnel: int = 0, lookup: int = 1, packet: int = 1) -> None:
    """Take a connection from its first packet to a tunnel."""
    book.send(ping(packet))
    book.send(happened.LookupEnded(lookup, found((SG_B, "sg-b"))))
    book.send(keying.InboundSaEstablished(tunnel, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE))))
    book.send(happened.SaInstalled(tunnel, inbound_key(0x1001)))
    book.send(keying.OutboundSaEstablished(tunnel, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
    book.send(happened.SaInstalled(tunnel, outbound_key(0x2001)))
    assert book.state() == "keyed"


class TestInitiator:
    def test_whole_ladder_from_the_first_packet_to_its_release(self) -> None:
        book = Playbook()
        # (5) the packet is held, (5B) the TXT record is asked for
        assert book.send(ping(1)) == [do.StartLookup(1, BOB)]
        # (5C), (5D)
        assert book.send(happened.LookupEnded(1, found((SG_B, "sg-b")))) == [
            do.StartNegotiation(0, request())
        ]
        # (5G4): nothing is confirmed before the inbound SA is there
        [install] = book.send(
            keying.InboundSaEstablished(0, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE)))
        )
        assert isinstance(install, do.InstallSa)
        assert install.sa.key == inbound_key(0x1001)
        assert book.send(happened.SaInstalled(0, inbound_key(0x1001))) == [do.ConfirmInbound(0)]
        # (5H), (6)
        [install] = book.send(
            keying.OutboundSaEstablished(0, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB)))
        )
        assert isinstance(install, do.InstallSa)
        assert book.send(happened.SaInstalled(0, outbound_key(0x2001))) == [
            do.InstallPolicy(PAIR, Verdict.TUNNEL, None),
            do.ReleaseHeld((1,), Verdict.TUNNEL),
        ]

    def test_first_and_last_packet_wait_and_leave_in_order(self) -> None:
        book = Playbook()
        book.send(ping(1))
        assert book.send(ping(2)) == []
        assert book.send(ping(3)) == [do.DiscardHeld((2,), "hold_newer_came")]
        assert book.send(happened.LookupEnded(1, NothingFound(60, "no record"))) == [
            do.InstallPolicy(PAIR, Verdict.CLEAR, 60),
            do.ReleaseHeld((1, 3), Verdict.CLEAR),
        ]

    def test_hold_mode_first_drops_the_new_packet(self) -> None:
        book = Playbook(hold=HoldSettings(mode="first"))
        book.send(ping(1))
        assert book.send(ping(2)) == [do.DiscardHeld((2,), "hold_first_only")]

    def test_packets_of_a_keyed_pair_that_are_trapped_all_the_same_go_into_the_tunnel(self) -> None:
        book = Playbook()
        keyed(book)
        assert book.send(ping(9)) == [
            do.InstallPolicy(PAIR, Verdict.TUNNEL, None),
            do.ReleaseHeld((9,), Verdict.TUNNEL),
        ]

    def test_second_gateway_is_tried_when_the_first_is_silent(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((SG_D, "sg-d"), (SG_B, "sg-b"))))
        assert book.send(keying.NegotiationFailed(0, Failure.SILENCE, "no answer")) == [
            do.StartNegotiation(2, request())
        ]
        assert book.state() == "pending"

    def test_gateways_that_cannot_be_used_are_passed_over(self) -> None:
        book = Playbook()
        book.send(ping(1))
        outcome = GatewaysFound(
            (
                FoundGateway(1, None, "sg-x.example", (rsa_key("sg-b"),)),
                FoundGateway(2, SG_A, None, (rsa_key("sg-a"),)),  # ourselves
                FoundGateway(
                    3, ip_address("2001:db8::5"), None, (rsa_key("sg-b"),)
                ),  # no IPv6 here
                FoundGateway(4, SG_D, None, ()),  # no key
            ),
            120,
            Trust.INSECURE,
        )
        commands = book.send(happened.LookupEnded(1, outcome))
        assert commands == [
            do.InstallPolicy(PAIR, Verdict.CLEAR, 120),
            do.ReleaseHeld((1,), Verdict.CLEAR),
        ]

    def test_private_destination_is_never_looked_up(self) -> None:
        book = Playbook()
        private = ip_address("10.1.2.3")
        commands = book.send(ping(1, destination=private))
        assert [type(c) for c in commands] == [do.InstallPolicy, do.ReleaseHeld]
        book = Playbook(local_reverse=(ip_network("10.0.0.0/8"),))
        assert book.send(ping(1, destination=private)) == [do.StartLookup(1, private)]


class TestFailures:
    @pytest.mark.parametrize(
        ("outcome", "lifespan"),
        [(NothingFound(77, "no record"), 77), (NothingFound(1e6, ""), 300), (Unanswered("t"), 60)],
    )
    def test_no_tunnel_means_clear_under_clear_and_drop_under_drop(
        self, outcome: NothingFound | Unanswered, lifespan: float
    ) -> None:
        book = Playbook()
        book.send(ping(1))
        assert book.send(happened.LookupEnded(1, outcome)) == [
            do.InstallPolicy(PAIR, Verdict.CLEAR, lifespan),
            do.ReleaseHeld((1,), Verdict.CLEAR),
        ]
        book = Playbook(default=opportunistic("all", on_failure=OnFailure.DROP))
        book.send(ping(1))
        assert book.send(happened.LookupEnded(1, outcome)) == [
            do.InstallPolicy(PAIR, Verdict.DENY, lifespan),
            do.DiscardHeld((1,), "no_tunnel"),
        ]

    def test_malformed_record_means_deny_whatever_on_failure_says(self) -> None:
        """RFC 4322 section 3.2.4."""
        book = Playbook()
        book.send(ping(1))
        assert book.send(happened.LookupEnded(1, Malformed("bad base64", 60))) == [
            do.InstallPolicy(PAIR, Verdict.DENY, 60),
            do.DiscardHeld((1,), "no_tunnel"),
        ]
        assert ("gateway", "malformed_record") in [line[:2] for line in book.trace.lines]

    @pytest.mark.parametrize(
        ("reason", "lifespan"),
        [
            (Failure.SILENCE, 60),
            (Failure.REFUSED, 600),
            (Failure.NO_PROPOSAL, 600),
            (Failure.BAD_SIGNATURE, 3600),  # the TTL of the records
            (Failure.LIMIT, 60),
        ],
    )
    def test_lifespan_depends_on_the_class_of_failure(
        self, reason: Failure, lifespan: float
    ) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        [install, _] = book.send(keying.NegotiationFailed(0, reason, ""))
        assert install == do.InstallPolicy(PAIR, Verdict.CLEAR, lifespan)

    def test_after_the_lifespan_and_no_use_the_next_packet_starts_anew(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, Unanswered("time-out")))
        assert book.gateway.next_timer() == book.now + 60
        assert book.wait(59) == []
        assert book.wait(1) == [do.RemovePolicy(PAIR)]
        assert book.state() == "expiring"
        assert book.gateway.next_timer() == book.now + 120
        assert book.wait(120) == []
        assert book.state() is None
        assert book.send(ping(2)) == [do.StartLookup(2, BOB)]

    def test_sa_that_cannot_be_installed_closes_the_tunnel_and_falls_back(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        book.send(keying.InboundSaEstablished(0, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE))))
        commands = book.send(happened.SaInstallFailed(0, inbound_key(0x1001), "no room"))
        assert commands == [
            do.CloseTunnel(0),
            do.InstallPolicy(PAIR, Verdict.CLEAR, 60),
            do.ReleaseHeld((1,), Verdict.CLEAR),
        ]

    def test_outbound_sa_that_cannot_be_installed_takes_the_inbound_one_along(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        book.send(keying.InboundSaEstablished(0, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE))))
        book.send(happened.SaInstalled(0, inbound_key(0x1001)))
        commands = book.send(happened.SaInstallFailed(0, outbound_key(0x2001), "no room"))
        assert commands[:2] == [do.CloseTunnel(0), do.RemoveSa(inbound_key(0x1001))]


class TestCategories:
    def test_permit_and_deny_are_cached_as_far_as_the_answer_holds(self) -> None:
        book = Playbook(permit("web", "192.2.0.0/24"), deny("never", "192.3.0.0/24"))
        [install, release] = book.send(ping(1))
        assert isinstance(install, do.InstallPolicy)
        assert install.verdict is Verdict.CLEAR
        assert install.scope.destination == ip_network("192.2.0.0/24")
        assert release == do.ReleaseHeld((1,), Verdict.CLEAR)
        [install, discard] = book.send(ping(2, destination=DAVE))
        assert isinstance(install, do.InstallPolicy)
        assert install.verdict is Verdict.DENY
        assert discard == do.DiscardHeld((2,), "denied")

    def test_fragments_are_decided_one_by_one_and_not_cached(self) -> None:
        book = Playbook(
            deny("no mail", "192.2.0.0/24", protocol=6, destination_ports=PortRange(25, 25))
        )
        fragment = happened.PacketTrapped(Flow(ALICE, BOB, 6, fragment=True), 1, 84)
        assert book.send(fragment) == [do.DiscardHeld((1,), "denied")]

    def test_opportunistic_rule_with_a_port_asks_for_a_tunnel_of_that_port(self) -> None:
        rule = opportunistic("web", "192.2.0.0/24", protocol=6, destination_ports=PortRange(80, 80))
        book = Playbook(rule, default=permit("rest", None))
        book.send(happened.PacketTrapped(Flow(ALICE, BOB, 6, 4000, 80), 1, 60))
        [start] = book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        assert isinstance(start, do.StartNegotiation)
        assert start.request.remote_selector == TrafficSelector(ip_network(BOB), 6, 80)
        assert start.request.local_selector == TrafficSelector(ip_network(ALICE), 6, 0)

    def test_configured_traffic_goes_to_its_peer_without_a_look_up_and_never_in_clear(self) -> None:
        rule = configured("office", "192.1.0.0/24", "192.2.0.0/24")
        peer = ConfiguredPeer(SG_B, rsa_key("sg-b"))
        book = Playbook(rule, peers={"office": peer})
        [start] = book.send(ping(1))
        assert isinstance(start, do.StartNegotiation)
        assert start.request.local_selector.network == ip_network("192.1.0.0/24")
        assert start.request.remote_selector.network == ip_network("192.2.0.0/24")
        [install, discard] = book.send(keying.NegotiationFailed(0, Failure.SILENCE, ""))
        assert isinstance(install, do.InstallPolicy)
        assert (install.verdict, install.lifespan) == (Verdict.DENY, 10)
        assert discard == do.DiscardHeld((1,), "no_tunnel")

    def test_keyed_pair_under_drop_refuses_clear_packets_from_outside(self) -> None:
        book = Playbook(default=opportunistic("all", on_failure=OnFailure.DROP))
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        book.send(keying.InboundSaEstablished(0, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE))))
        book.send(happened.SaInstalled(0, inbound_key(0x1001)))
        book.send(keying.OutboundSaEstablished(0, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
        [install, _] = book.send(happened.SaInstalled(0, outbound_key(0x2001)))
        assert install == do.InstallPolicy(PAIR, Verdict.TUNNEL, None, drop_clear_inbound=True)


class TestResponder:
    def key_needed(self, identity: keying.Identity = SG_B) -> keying.PeerKeyNeeded:
        return keying.PeerKeyNeeded(7, identity, TransportAddress(SG_B))

    def test_key_of_a_stranger_is_looked_up(self) -> None:
        book = Playbook()
        assert book.send(self.key_needed()) == [do.StartKeyLookup(1, SG_B)]  # (5F1)
        outcome = KeysFound((rsa_key("sg-b"),), 60, Trust.INSECURE)
        assert book.send(happened.KeyLookupEnded(1, outcome)) == [  # (5F2)
            do.ProvidePeerKeys(7, (rsa_key("sg-b"),))
        ]

    @pytest.mark.parametrize(
        "outcome", [NothingFound(1, "no record"), Unanswered("t"), Malformed("m", 1)]
    )
    def test_stranger_without_key_is_refused(
        self, outcome: NothingFound | Unanswered | Malformed
    ) -> None:
        book = Playbook()
        book.send(self.key_needed())
        [refuse] = book.send(happened.KeyLookupEnded(1, outcome))
        assert isinstance(refuse, do.RefusePeerKeys)
        assert book.trace.drops["peer_without_key"] == 1

    def test_configured_identity_is_never_looked_up_in_dns(self) -> None:
        peer = ConfiguredPeer(SG_B, rsa_key("sg-b"))
        book = Playbook(
            configured("office", "192.1.0.0/24", "192.2.0.0/24"), peers={"office": peer}
        )
        assert book.send(self.key_needed()) == [do.ProvidePeerKeys(7, (rsa_key("sg-b"),))]

    def test_client_must_delegate_to_the_gateway_and_its_key(self) -> None:
        book = Playbook()
        assert book.send(proposal()) == [  # (5G1), (5G2)
            do.StartLookup(1, BOB, with_keys=False, purpose="authority")
        ]
        assert book.send(happened.LookupEnded(1, found((SG_B, "sg-b")))) == [do.AcceptTunnel(1)]

    @pytest.mark.parametrize(
        "delegations",
        [((SG_D, "sg-b"),), ((SG_B, "sg-d"),)],
        ids=["another gateway", "another key"],
    )
    def test_delegation_hijack_is_refused(
        self, delegations: tuple[tuple[object, str], ...]
    ) -> None:
        """Attack 24: gateway and key must both be those of phase 1."""
        book = Playbook()
        book.send(proposal())
        [refuse] = book.send(happened.LookupEnded(1, found(*delegations)))  # type: ignore[arg-type]
        assert isinstance(refuse, do.RefuseTunnel)
        assert book.trace.drops["tunnel_refused"] == 1

    def test_delegation_without_key_beside_one_with_another_key_still_holds(self) -> None:
        """A key roll-over: the record without key says that the KEY records decide."""
        book = Playbook()
        book.send(proposal())
        gateway = FoundGateway(10, SG_B, None, (rsa_key("old"),), keyless=True)
        outcome = GatewaysFound((gateway,), 60, Trust.INSECURE)
        assert book.send(happened.LookupEnded(1, outcome)) == [do.AcceptTunnel(1)]

    def test_delegation_by_name_binds_an_fqdn_identity(self) -> None:
        book = Playbook()
        book.send(proposal(identity="SG-B.example"))
        outcome = GatewaysFound(
            (FoundGateway(10, None, "sg-b.example", (rsa_key("sg-b"),)),), 60, Trust.INSECURE
        )
        assert book.send(happened.LookupEnded(1, outcome)) == [do.AcceptTunnel(1)]

    def test_gateway_that_speaks_for_itself_needs_no_delegation(self) -> None:
        book = Playbook()
        assert book.send(proposal(remote=SG_B)) == [do.AcceptTunnel(1)]

    @pytest.mark.parametrize(
        ("changes", "rules"),
        [
            ({"remote": "192.2.0.0/24"}, ()),
            ({"remote": SG_A}, ()),
            ({"remote": ALICE}, ()),
            ({"remote": "10.0.0.1"}, ()),
            ({}, (deny("no", "192.2.0.0/24"),)),
            ({}, (permit("clear", "192.2.0.0/24"),)),
        ],
        ids=["a network", "our address", "its own far side", "private", "denied", "permitted"],
    )
    def test_what_a_stranger_may_not_propose(
        self, changes: dict[str, object], rules: tuple[object, ...]
    ) -> None:
        book = Playbook(*rules)  # type: ignore[arg-type]
        [refuse] = book.send(proposal(**changes))  # type: ignore[arg-type]
        assert isinstance(refuse, do.RefuseTunnel)

    def test_opportunistic_peer_cannot_take_a_configured_network(self) -> None:
        """Attack 20, RFC 4322 section 12.1."""
        rule = configured("office", "192.1.0.0/24", "192.2.0.0/24")
        peer = ConfiguredPeer(SG_B, rsa_key("sg-b"))
        book = Playbook(rule, peers={"office": peer})
        stranger = proposal(identity=SG_D, key="sg-d", local="192.1.0.0/24", remote="192.2.0.0/24")
        [refuse] = book.send(stranger)
        assert isinstance(refuse, do.RefuseTunnel)
        [refuse] = book.send(proposal(tunnel=3, identity=SG_D, key="sg-d"))
        assert isinstance(refuse, do.RefuseTunnel)
        right = proposal(tunnel=5, local="192.1.0.0/24", remote="192.2.0.0/24")
        assert book.send(right) == [do.AcceptTunnel(5)]

    def test_answers_go_into_the_tunnel_that_the_peer_made(self) -> None:
        book = Playbook()
        book.send(proposal())
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        book.send(keying.InboundSaEstablished(1, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE))))
        assert book.send(happened.SaInstalled(1, inbound_key(0x1001))) == [do.ConfirmInbound(1)]
        book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
        assert book.send(happened.SaInstalled(1, outbound_key(0x2001))) == [
            do.InstallPolicy(PAIR, Verdict.TUNNEL, None)
        ]

    def test_clear_pair_is_encrypted_as_soon_as_the_peer_begins(self) -> None:
        """The peer was off and got its gateway meanwhile."""
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, NothingFound(60, "no record")))
        assert book.state() == "clear"
        book.send(proposal())
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
        assert book.send(happened.SaInstalled(1, outbound_key(0x2001))) == [
            do.InstallPolicy(PAIR, Verdict.TUNNEL, None)
        ]
        assert book.wait(59) == []
        assert book.wait(1) == [do.QueryUsage()]  # the old lifespan ends nothing
        assert book.state() == "keyed"

    def test_both_sides_begin_at_once(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        book.send(proposal())
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
        commands = book.send(happened.SaInstalled(1, outbound_key(0x2001)))
        assert commands[-1] == do.ReleaseHeld((1,), Verdict.TUNNEL)
        # Ours fails afterwards: the pair stays keyed by theirs.
        assert book.send(keying.NegotiationFailed(0, Failure.REFUSED, "")) == []
        assert book.state() == "keyed"

    def test_packet_while_only_the_peer_negotiates_starts_our_own_look_up(self) -> None:
        book = Playbook()
        book.send(proposal())
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        assert book.send(ping(1)) == [do.StartLookup(2, BOB)]

    def test_look_up_without_result_does_not_deny_while_the_peer_negotiates(self) -> None:
        book = Playbook(default=opportunistic("default", on_failure=OnFailure.DROP))
        book.send(proposal())
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        book.send(ping(1))
        assert book.send(happened.LookupEnded(2, NothingFound(300.0, "no such name"))) == []
        assert book.state() == "pending"
        book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
        commands = book.send(happened.SaInstalled(1, outbound_key(0x2001)))
        assert commands[-1] == do.ReleaseHeld((1,), Verdict.TUNNEL)

    def test_proposal_that_comes_to_nothing_leaves_nothing(self) -> None:
        book = Playbook()
        book.send(proposal())
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        assert book.send(keying.TunnelClosed(1, "no QM3")) == []
        assert book.state() is None


class TestEnds:
    def test_delete_takes_the_verdict_away_before_the_sas(self) -> None:
        book = Playbook()
        keyed(book)
        assert book.send(keying.TunnelClosed(0, "deleted by the peer")) == [
            do.RemovePolicy(PAIR),
            do.RemoveSa(outbound_key(0x2001)),
            do.RemoveSa(inbound_key(0x1001)),
        ]
        assert book.send(ping(2)) == [do.StartLookup(2, BOB)]  # held, not clear

    def test_second_tunnel_keeps_the_pair_keyed_when_the_first_goes(self) -> None:
        book = Playbook()
        keyed(book)
        book.send(proposal())
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2002, (ALICE, BOB))))
        book.send(happened.SaInstalled(1, outbound_key(0x2002)))
        assert book.send(keying.TunnelClosed(0, "replaced")) == [do.RemoveSa(outbound_key(0x2001))]
        # What the peer sent into the old tunnel before may still be under way.
        assert book.wait(LINGER) == [do.RemoveSa(inbound_key(0x1001))]
        assert book.state() == "keyed"

    def test_replaced_tunnel_does_not_take_its_successor_along(self) -> None:
        """The peer restarted: the old tunnel is closed while the new SA is being installed."""
        book = Playbook()
        keyed(book)
        book.send(proposal())
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        book.send(keying.InboundSaEstablished(1, esp_sa(SG_B, SG_A, 0x1002, (BOB, ALICE))))
        book.send(happened.SaInstalled(1, inbound_key(0x1002)))
        book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2002, (ALICE, BOB))))
        assert book.send(keying.TunnelClosed(0, "replaced")) == [do.RemoveSa(outbound_key(0x2001))]
        # What the peer sent into the old tunnel before may still be under way.
        assert book.wait(LINGER) == [do.RemoveSa(inbound_key(0x1001))]
        assert book.send(happened.SaInstalled(1, outbound_key(0x2002))) == [
            do.InstallPolicy(PAIR, Verdict.TUNNEL, None)
        ]
        assert book.state() == "keyed"

    def test_packets_are_held_while_the_tunnel_is_gone_and_another_is_negotiated(self) -> None:
        book = Playbook()
        keyed(book)
        book.send(proposal())
        book.send(happened.LookupEnded(2, found((SG_B, "sg-b"))))
        assert book.send(keying.TunnelClosed(0, "deleted by the peer")) == [
            do.RemovePolicy(PAIR),
            do.RemoveSa(outbound_key(0x2001)),
            do.RemoveSa(inbound_key(0x1001)),
        ]
        assert book.send(ping(2)) == []
        book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2002, (ALICE, BOB))))
        assert book.send(happened.SaInstalled(1, outbound_key(0x2002))) == [
            do.InstallPolicy(PAIR, Verdict.TUNNEL, None),
            do.ReleaseHeld((2,), Verdict.TUNNEL),
        ]

    def test_tunnel_deleted_before_it_was_up_is_tried_again_with_the_next_packet(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        book.send(keying.OutboundSaEstablished(0, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
        commands = book.send(keying.TunnelClosed(0, "deleted by the peer"))
        assert do.DiscardHeld((1,), "connection_over") in commands
        assert book.send(ping(2)) == [do.StartLookup(2, BOB)]

    def test_hard_expiry_holds_the_next_packet(self) -> None:
        book = Playbook()
        keyed(book)
        assert book.send(SaExpired(outbound_key(0x2001), hard=False)) == [do.ReportExpiring(0)]
        commands = book.send(SaExpired(outbound_key(0x2001), hard=True))
        assert commands[0] == do.CloseTunnel(0)
        assert do.RemovePolicy(PAIR) in commands
        assert book.send(ping(2)) == [do.StartLookup(2, BOB)]

    def test_sa_installed_for_a_tunnel_that_is_gone_is_removed_again(self) -> None:
        book = Playbook()
        assert book.send(happened.SaInstalled(0, inbound_key(0x1001))) == [
            do.RemoveSa(inbound_key(0x1001))
        ]

    def test_forget_drops_verdicts_early_but_no_tunnel(self) -> None:
        book = Playbook()
        keyed(book)
        book.send(ping(5, destination=DAVE))
        book.send(happened.LookupEnded(2, NothingFound(60, "")))
        everything = ip_network("0.0.0.0/0")
        number, commands = book.gateway.forget(everything, book.now)
        assert number == 1
        assert commands == [do.RemovePolicy(Scope(ip_network(ALICE), ip_network(DAVE)))]
        assert book.state() == "keyed"

    @pytest.mark.parametrize("to", ["192.2.0.0/24", "192.1.1.5/32"])
    def test_close_ends_tunnels_to_a_destination_or_through_a_gateway(self, to: str) -> None:
        book = Playbook()
        keyed(book)
        assert book.gateway.close(ip_network("192.3.0.0/24"), book.now) == (0, [])
        assert book.gateway.close(ip_network(to), book.now) == (
            1,
            [
                do.RemovePolicy(PAIR),
                do.CloseTunnel(0),
                do.RemoveSa(outbound_key(0x2001)),
                do.RemoveSa(inbound_key(0x1001)),
                do.CloseChannels(SG_B),
            ],
        )
        assert book.send(ping(2)) == [do.StartLookup(2, BOB)]

    def test_new_policy_keeps_tunnels_that_it_wants_and_ends_the_others(self) -> None:
        book = Playbook()
        keyed(book)
        same = PolicyTable((permit("x", "192.3.0.0/24"),), opportunistic("default"))
        # What enters the tunnel is decided anew; the tunnel itself stays.
        assert book.gateway.replace_policy(same, {}, book.now) == [do.RemovePolicy(PAIR)]
        assert book.state() == "keyed"
        assert book.send(ping(2))[-1] == do.ReleaseHeld((2,), Verdict.TUNNEL)
        other = PolicyTable((deny("no", "192.2.0.0/24"),), opportunistic("default"))
        commands = book.gateway.replace_policy(other, {}, book.now)
        assert commands[:2] == [do.RemovePolicy(PAIR), do.CloseTunnel(0)]
        assert book.send(ping(3))[-1] == do.DiscardHeld((3,), "denied")

    def test_probe_forgets_a_stale_verdict_and_negotiates(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, NothingFound(60, "")))
        commands = book.gateway.probe(Flow(ALICE, BOB, 1), book.now)
        assert commands == [do.RemovePolicy(PAIR), do.StartLookup(2, BOB)]
        commands = book.send(happened.LookupEnded(2, NothingFound(60, "")))
        assert commands == [do.InstallPolicy(PAIR, Verdict.CLEAR, 60)]  # no packet to release


class TestPortsOfConfiguredRules:
    """What a configured rule claims of a pair never meets a stranger's tunnel."""

    def book(self) -> Playbook:
        rule = replace(
            configured("branch", "192.1.0.0/24", "192.2.0.0/24"),
            protocol=6,
            destination_ports=PortRange(80, 80),
        )
        return Playbook(rule, peers={"branch": ConfiguredPeer(SG_D, rsa_key("sg-d"))})

    def test_configured_traffic_does_not_enter_an_opportunistic_tunnel(self) -> None:
        book = self.book()
        [_] = book.send(ping(1))
        [start] = book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        assert isinstance(start, do.StartNegotiation)
        assert start.request.remote_selector == TrafficSelector(ip_network(BOB), 1, 0)
        book.send(keying.OutboundSaEstablished(0, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
        book.send(happened.SaInstalled(0, outbound_key(0x2001)))
        [start] = book.send(happened.PacketTrapped(Flow(ALICE, BOB, 6, 4000, 80), 2, 60))
        assert isinstance(start, do.StartNegotiation)
        assert start.request.remote == SG_D
        assert start.request.remote_selector == TrafficSelector(ip_network("192.2.0.0/24"), 6, 80)

    def test_stranger_may_not_propose_a_tunnel_that_would_contain_it(self) -> None:
        [refuse] = self.book().send(proposal())
        assert isinstance(refuse, do.RefuseTunnel)

    @pytest.mark.parametrize(("protocol", "port"), [(0, 0), (6, 0), (6, 22), (17, 80)])
    def test_configured_peer_gets_just_the_selectors_of_its_rule(
        self, protocol: int, port: int
    ) -> None:
        right = proposal(
            identity=SG_D, key="sg-d", address=SG_D, local="192.1.0.0/24", remote="192.2.0.0/24"
        )
        wrong = replace(
            right,
            local_selector=replace(right.local_selector, protocol=protocol),
            remote_selector=replace(right.remote_selector, protocol=protocol, port=port),
        )
        [refuse] = self.book().send(wrong)
        assert isinstance(refuse, do.RefuseTunnel)
        fitting = replace(
            right,
            local_selector=replace(right.local_selector, protocol=6),
            remote_selector=replace(right.remote_selector, protocol=6, port=80),
        )
        assert self.book().send(fitting) == [do.AcceptTunnel(1)]

    def test_new_configured_rule_ends_an_opportunistic_tunnel_that_would_contain_it(self) -> None:
        book = Playbook()
        keyed(book)
        table = self.book().gateway.table
        new_peers = {"branch": ConfiguredPeer(SG_D, rsa_key("sg-d"))}
        assert do.CloseTunnel(0) in book.gateway.replace_policy(table, new_peers, book.now)


class TestBounds:
    def test_full_table_gives_up_the_verdict_that_would_end_first(self) -> None:
        book = Playbook(connections=2)
        for number, target in enumerate(("10.0.0.1", "10.0.0.2")):
            book.send(ping(number, destination=ip_address(target)))
            book.now += 1
        commands = book.send(ping(3))
        assert commands == [
            do.RemovePolicy(Scope(ip_network(ALICE), ip_network("10.0.0.1"))),
            do.StartLookup(1, BOB),
        ]

    def test_proposal_that_ends_while_its_authority_is_looked_up_leaves_nothing(self) -> None:
        book = Playbook()
        book.send(proposal())
        assert book.send(keying.NegotiationFailed(1, Failure.CANCELLED, "channel closed")) == [
            do.CancelLookup(1)
        ]
        assert book.send(happened.LookupEnded(1, found((SG_B, "sg-b")))) == []
        assert list(book.gateway.connections()) == []

    def test_scanner_does_not_become_a_flood_of_look_ups(self) -> None:
        book = Playbook(setups_per_source=3)
        targets = [ip_address(f"192.2.0.{n}") for n in range(1, 11)]
        commands = [c for n, t in enumerate(targets) for c in book.send(ping(n, destination=t))]
        assert sum(isinstance(c, do.StartLookup) for c in commands) == 3
        assert sum(c == do.DiscardHeld((n,), "source_limit") for n, c in enumerate(commands)) == 7
        # Another host is not the scanner's victim, and an end makes room.
        assert book.send(ping(50, source=DAVE)) == [do.StartLookup(4, BOB)]
        book.send(happened.LookupEnded(1, NothingFound(60, "")))
        assert book.send(ping(51, destination=targets[9])) == [do.StartLookup(5, targets[9])]

    def test_the_gateways_own_flows_are_those_of_many(self) -> None:
        """Clients of its SOCKS server; but they are not all that there is room for."""
        book = Playbook(setups_per_source=3, setups=20)
        targets = [ip_address(f"192.2.0.{n}") for n in range(1, 11)]
        commands = [
            c
            for n, target in enumerate(targets)
            for c in book.send(ping(n, source=SG_A, destination=target))
        ]
        assert sum(isinstance(c, do.StartLookup) for c in commands) == 5
        assert sum(c == do.DiscardHeld((n,), "source_limit") for n, c in enumerate(commands)) == 5
        assert any(isinstance(c, do.StartLookup) for c in book.send(ping(50)))

    def test_connections_are_bounded(self) -> None:
        book = Playbook(connections=1)
        book.send(ping(1))
        assert book.send(ping(2, destination=DAVE)) == [do.DiscardHeld((2,), "connections_full")]

    def test_stopping_gives_up_every_packet_held(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(ping(2))
        assert book.gateway.release_all_held() == [do.DiscardHeld((1, 2), "stopping")]
        assert book.gateway.held == (0, 0)
