"""The responder's authority (draft 4.9, 4.12; RFC 4322 3.3): the peer's, and our own."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

import ike.events as keying
from dnsrecords.outcome import Gateway as FoundGateway
from dnsrecords.outcome import (
    GatewayOutcome,
    GatewaysFound,
    KeyOutcome,
    KeysFound,
    Malformed,
    NothingFound,
    Unanswered,
)
from dnsrecords.trust import Trust
from ike.events import Failure, TransportAddress
from oegw import ahead, refusals
from oegw import commands as do
from oegw import events as happened
from oegw.commands import Command
from oegw.peer import ConfiguredPeer
from oegw.selfknowledge import OwnSettings
from policy.rule import Require
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
    esp_sa,
    found,
    inbound_key,
    opportunistic,
    outbound_key,
    ping,
    proposal,
    rsa_key,
)

OURS = rsa_key("sg-a")
NOTHING = NothingFound(300.0, "no such record")
STRICT = opportunistic("strict", require=Require.SECURE)


def book(*rules: object, **settings: object) -> Playbook:
    own = OwnSettings(OURS, None, "sg-a.example")
    return Playbook(*rules, own=own, **settings)  # type: ignore[arg-type]


def keys(*names: str) -> KeysFound:
    return KeysFound(tuple(rsa_key(name) for name in names), 60.0, Trust.INSECURE)


def named(fqdn: str, key: str) -> GatewaysFound:
    return GatewaysFound((FoundGateway(10, None, fqdn, (rsa_key(key),)),), 60.0, Trust.INSECURE)


OURS_TO_SPEAK_FOR = found((SG_A, "sg-a"))
THEIRS = found((SG_B, "sg-b"))


def reasons(commands: list[Command]) -> list[str]:
    return [c.reason for c in commands if isinstance(c, do.RefuseTunnel)]


class TestOwnClient:
    def test_both_ends_are_looked_up_at_the_same_time(self) -> None:
        b = book()
        assert b.send(proposal()) == [  # (5G1), (5G2)
            do.StartLookup(1, BOB, with_keys=False, purpose="authority"),
            do.StartLookup(2, ALICE, purpose="own"),
        ]
        assert b.send(happened.LookupEnded(1, THEIRS)) == []
        assert b.send(happened.LookupEnded(2, OURS_TO_SPEAK_FOR)) == [do.AcceptTunnel(1)]

    def test_order_of_the_answers_does_not_matter(self) -> None:
        b = book()
        b.send(proposal())
        assert b.send(happened.LookupEnded(2, OURS_TO_SPEAK_FOR)) == []
        assert b.send(happened.LookupEnded(1, THEIRS)) == [do.AcceptTunnel(1)]

    @pytest.mark.parametrize(
        "delegation",
        [
            NOTHING,
            found((SG_D, "sg-a")),
            found((SG_A, "sg-d")),
            Unanswered("no answer"),
            Malformed("unreadable", 60.0),
        ],
        ids=["no record", "another gateway", "another key", "no answer", "malformed"],
    )
    def test_client_that_did_not_delegate_to_us_is_refused(
        self, delegation: GatewayOutcome
    ) -> None:
        """D2 case 7, oe-fail-without-resp-client-txt-01."""
        b = book()
        b.send(proposal())
        commands = b.send(happened.LookupEnded(2, delegation))
        assert commands[0] == do.CancelLookup(1)
        assert len(reasons(commands)) == 1
        assert b.gateway.lookups_under_way == 0
        assert b.send(happened.LookupEnded(1, THEIRS)) == []

    def test_refusal_of_the_peer_ends_our_own_question(self) -> None:
        b = book()
        b.send(proposal())
        commands = b.send(happened.LookupEnded(1, NOTHING))
        assert commands[0] == do.CancelLookup(2)
        assert len(reasons(commands)) == 1

    def test_address_of_somebody_else_is_not_ours_to_speak_for(self) -> None:
        b = book()
        b.send(proposal(local="8.0.0.1"))
        assert len(reasons(b.send(happened.LookupEnded(2, NOTHING)))) == 1

    def test_private_address_is_refused_without_a_question(self) -> None:
        b = book()
        commands = b.send(proposal(local="10.0.0.1"))
        assert len(reasons(commands)) == 1
        assert b.gateway.lookups_under_way == 0

    def test_our_own_address_needs_no_record(self) -> None:
        b = book()
        b.send(proposal(local=SG_A))
        assert b.send(happened.LookupEnded(1, THEIRS)) == [do.AcceptTunnel(1)]

    def test_client_delegates_to_our_name(self) -> None:
        b = book()
        b.send(proposal())
        b.send(happened.LookupEnded(1, THEIRS))
        commands = b.send(happened.LookupEnded(2, named("sg-a.example", "sg-a")))
        assert commands == [do.AcceptTunnel(1)]

    def test_what_we_know_of_our_client_is_not_asked_again(self) -> None:
        b = book()
        b.send(proposal())
        b.send(happened.LookupEnded(2, OURS_TO_SPEAK_FOR))
        b.send(happened.LookupEnded(1, THEIRS))
        again = b.send(proposal(3, remote=DAVE))
        assert again == [do.StartLookup(3, DAVE, with_keys=False, purpose="authority")]
        b = book()
        b.send(proposal())
        b.send(happened.LookupEnded(2, NOTHING))
        assert len(reasons(b.send(proposal(3, remote=DAVE)))) == 1

    def test_gateway_that_speaks_for_itself_asks_for_our_client(self) -> None:
        b = book()
        assert b.send(proposal(remote=SG_B)) == [do.StartLookup(1, ALICE, purpose="own")]
        assert b.send(happened.LookupEnded(1, OURS_TO_SPEAK_FOR)) == [do.AcceptTunnel(1)]

    def test_proposal_that_is_over_takes_both_questions_along(self) -> None:
        b = book()
        b.send(proposal())
        commands = b.send(keying.NegotiationFailed(1, Failure.CANCELLED, "channel closed"))
        assert set(commands) == {do.CancelLookup(1), do.CancelLookup(2)}
        assert b.gateway.lookups_under_way == 0

    def test_configured_tunnel_rests_on_no_delegation(self) -> None:
        rule = configured("office", "192.1.0.0/24", "192.2.0.0/24")
        b = book(rule, peers={"office": ConfiguredPeer(SG_B, rsa_key("sg-b"))})
        right = proposal(local="192.1.0.0/24", remote="192.2.0.0/24")
        assert b.send(right) == [do.AcceptTunnel(1)]


class TestPeerKnownByName:
    """D2 cases 9, 11 and 12: an initiator that has a name and no reverse map."""

    def proposed(self, **changes: object) -> keying.TunnelProposed:
        event = proposal(identity="road.example", key="road", address=DAVE, remote=DAVE)
        return replace(event, **changes)  # type: ignore[arg-type]

    def accepted(
        self,
        event: keying.TunnelProposed,
        delegation: GatewayOutcome,
        of_address: KeyOutcome = NOTHING,
    ) -> bool:
        b = book()
        b.send(event)
        b.send(happened.LookupEnded(2, OURS_TO_SPEAK_FOR))
        commands = b.send(happened.LookupEnded(1, delegation))
        if commands == [do.StartKeyLookup(3, event.remote.address)]:
            commands = b.send(happened.KeyLookupEnded(3, of_address))
        return commands == [do.AcceptTunnel(1)]

    def test_speaks_for_the_address_that_it_is_at(self) -> None:
        """Its key is that of the KEY record at its name: "KEY but no TXT" is the draft's way."""
        assert self.accepted(self.proposed(), NOTHING)

    def test_not_for_another_address(self) -> None:
        assert not self.accepted(self.proposed(remote=TransportAddress(SG_B)), NOTHING)

    def test_not_against_a_record_that_names_another(self) -> None:
        assert not self.accepted(self.proposed(), found((SG_B, "sg-b")))
        assert not self.accepted(self.proposed(), named("other.example", "road"))
        assert self.accepted(self.proposed(), named("road.example", "road"))

    @pytest.mark.parametrize("outcome", [Unanswered("no answer"), Malformed("mangled", 60.0)])
    def test_not_where_nobody_knows_what_the_record_says(self, outcome: GatewayOutcome) -> None:
        """D2 case 10 is the malformed one."""
        assert not self.accepted(self.proposed(), outcome)

    def test_not_for_an_address_that_has_a_key_of_its_own(self) -> None:
        """Whoever can send from a host's address must not take its tunnels by some name.

        A host that speaks for itself has a KEY record and needs no TXT record.
        """
        assert not self.accepted(self.proposed(), NOTHING, keys("dave"))
        assert not self.accepted(self.proposed(), NOTHING, Unanswered("no answer"))
        assert not self.accepted(self.proposed(), NOTHING, Malformed("bogus", 60.0))
        assert self.accepted(self.proposed(), NOTHING, keys("dave", "road"))

    def test_nothing_vouches_for_the_address(self) -> None:
        """That no record is there is no record: `require` wants one, and marks tell of one."""
        for rule, accepted in ((opportunistic("any"), True), (STRICT, False)):
            b = Playbook(default=rule)
            needed = keying.PeerKeyNeeded(8, "road.example", TransportAddress(DAVE))
            b.send(needed)
            b.send(happened.KeyLookupEnded(1, replace(keys("road"), trust=Trust.SECURE)))
            b.send(self.proposed(channel=8))
            b.send(happened.LookupEnded(2, NOTHING))
            commands = b.send(happened.KeyLookupEnded(3, NOTHING))
            assert (commands == [do.AcceptTunnel(1)]) is accepted
            assert [c.trust for c in b.gateway.connections()] == [Trust.INSECURE] * accepted

    def test_a_new_policy_does_not_lock_it_out(self) -> None:
        """Its channel is older than the policy: who it is has to be asked again."""
        b = Playbook()
        b.gateway.replace_policy(b.gateway.table, {}, b.now)
        [asked] = b.send(self.proposed())
        assert isinstance(asked, do.StartLookup)
        assert b.send(happened.LookupEnded(1, NOTHING)) == [do.StartKeyLookup(2, "road.example")]
        [asked] = b.send(happened.KeyLookupEnded(2, keys("road")))
        assert isinstance(asked, do.StartLookup)
        assert b.send(happened.LookupEnded(3, NOTHING)) == [do.StartKeyLookup(4, DAVE)]
        assert b.send(happened.KeyLookupEnded(4, NOTHING)) == [do.AcceptTunnel(1)]

    def test_not_on_a_channel_that_we_began(self) -> None:
        """There the key is what some delegation says, not what KEY says of the name."""
        assert not self.accepted(self.proposed(channel=99), NOTHING)

    def test_not_for_an_identity_that_is_an_address(self) -> None:
        event = self.proposed(identity=SG_D)
        assert not self.accepted(event, NOTHING)


class TestDelegationHijack:
    """Attack 24: whoever owns a reverse zone names a victim's gateway, or a victim's key."""

    @pytest.mark.parametrize(
        ("identity", "key", "delegation"),
        [
            (SG_B, "mallory", found((SG_B, "sg-b"))),  # the victim's record, another key
            (SG_D, "sg-b", found((SG_B, "sg-b"))),  # the victim's key, another gateway
            (SG_D, "mallory", found((SG_D, "sg-b"))),  # names itself with the victim's key
            ("mallory.example", "mallory", named("sg-b.example", "mallory")),
            ("mallory.example", "mallory", found((SG_B, "mallory"))),
        ],
    )
    def test_gateway_and_key_must_both_be_those_of_phase_1(
        self, identity: keying.Identity, key: str, delegation: GatewayOutcome
    ) -> None:
        b = book()
        b.send(proposal(identity=identity, key=key))
        assert len(reasons(b.send(happened.LookupEnded(1, delegation)))) == 1

    def test_any_of_several_published_keys_will_do(self) -> None:
        """A roll-over: the record of the old key stands beside that of the new one."""
        gateway = FoundGateway(10, SG_B, None, tuple(map(rsa_key, ("old", "sg-b", "next"))))
        b = book()
        b.send(proposal())
        b.send(happened.LookupEnded(2, OURS_TO_SPEAK_FOR))
        outcome = GatewaysFound((gateway,), 60.0, Trust.INSECURE)
        assert b.send(happened.LookupEnded(1, outcome)) == [do.AcceptTunnel(1)]


class TestWeakerNeverReplacesStronger:
    """Attack 21: an opportunistic phase 1 under the identity of a configured peer."""

    def up(self) -> Playbook:
        rule = configured("office", "192.1.0.0/24", "192.2.0.0/24")
        b = book(rule, peers={"office": ConfiguredPeer(SG_B, rsa_key("sg-b"))})
        b.send(ping(1))
        inner = (ip_network("192.2.0.0/24"), ip_network("192.1.0.0/24"))
        b.send(keying.InboundSaEstablished(0, esp_sa(SG_B, SG_A, 0x1001, inner)))
        b.send(happened.SaInstalled(0, inbound_key(0x1001)))
        b.send(keying.OutboundSaEstablished(0, esp_sa(SG_A, SG_B, 0x2001, inner[::-1])))
        b.send(happened.SaInstalled(0, outbound_key(0x2001)))
        assert b.state() == "keyed"
        return b

    def test_only_the_configured_key_opens_phase_1(self) -> None:
        b = self.up()
        needed = keying.PeerKeyNeeded(9, SG_B, TransportAddress(DAVE))
        assert b.send(needed) == [do.ProvidePeerKeys(9, (rsa_key("sg-b"),))]
        # Nor when we began ourselves, for some destination whose record names that gateway.
        needed = replace(needed, initiator=True)
        assert b.send(needed) == [do.ProvidePeerKeys(9, (rsa_key("sg-b"),))]

    @pytest.mark.parametrize("network", ["192.2.0.0/24", "192.2.0.66/32"])
    def test_channel_under_that_identity_with_another_key_gets_nothing(self, network: str) -> None:
        b = self.up()
        local = "192.1.0.0/24" if network.endswith("/24") else ALICE
        event = proposal(key="mallory", local=local, remote=network)
        commands = b.send(replace(event, channel=99))
        assert [type(c) for c in commands] == [do.RefuseTunnel]
        assert b.state() == "keyed"
        [connection] = b.gateway.connections()
        assert list(connection.tunnels) == [0]

    def test_its_failure_and_its_closing_touch_no_sa(self) -> None:
        b = self.up()
        assert b.send(keying.NegotiationFailed(5, Failure.BAD_SIGNATURE, "forged")) == []
        assert b.send(keying.TunnelClosed(5, "deleted by the peer")) == []
        assert b.state() == "keyed"


class TestLookAhead:
    """The key look-up starts at message 1 (RFC 4322 section 4.2)."""

    def started(self, remote: object = SG_B, channel: int = 7) -> keying.ExchangeStarted:
        return keying.ExchangeStarted(channel, TransportAddress(SG_A), TransportAddress(remote))  # type: ignore[arg-type]

    def test_key_of_the_peers_address_is_looked_up(self) -> None:
        b = Playbook()
        assert b.send(self.started()) == [do.StartKeyLookup(1, SG_B)]
        assert b.send(self.started()) == []  # it is under way
        # Message 5 asks the same: the resolver has one query for both.
        needed = keying.PeerKeyNeeded(7, SG_B, TransportAddress(SG_B))
        assert b.send(needed) == [do.StartKeyLookup(2, SG_B)]
        assert b.send(happened.KeyLookupEnded(1, keys("sg-b"))) == []
        assert b.send(happened.KeyLookupEnded(2, keys("sg-b"))) == [
            do.ProvidePeerKeys(7, (rsa_key("sg-b"),))
        ]
        assert b.gateway.lookups_under_way == 0

    @pytest.mark.parametrize("address", ["10.1.2.3", "192.168.0.7", "127.0.0.1"])
    def test_never_for_private_ranges(self, address: str) -> None:
        assert Playbook().send(self.started(ip_address(address))) == []

    def test_never_for_a_configured_peer_whose_key_is_known(self) -> None:
        peers = {"office": ConfiguredPeer(SG_B, rsa_key("sg-b"))}
        rule = configured("office", "192.1.0.0/24", "192.2.0.0/24")
        assert Playbook(rule, peers=peers).send(self.started()) == []

    def test_flood_of_forged_sources_stays_within_the_budget(self) -> None:
        b = Playbook()
        first = int(ip_address("8.0.0.0"))
        asked: list[Command] = []
        for number in range(50_000):
            asked += b.send(self.started(ip_address(first + number)))
        assert len(asked) == ahead.UNDER_WAY
        assert b.gateway.lookups_under_way == ahead.UNDER_WAY
        assert b.trace.drops["lookup_ahead_budget"] == 50_000 - ahead.UNDER_WAY

    def test_flood_that_is_answered_quickly_is_limited_by_time(self) -> None:
        b = Playbook()
        first = int(ip_address("8.0.0.0"))
        asked = 0
        for number in range(1000):  # within two seconds
            b.now += 0.002
            for command in b.send(self.started(ip_address(first + number))):
                assert isinstance(command, do.StartKeyLookup)
                asked += 1
                b.send(happened.KeyLookupEnded(command.lookup, NOTHING))
        assert asked <= ahead.BURST + 2 * ahead.PER_SECOND
        b.now += 10
        assert len(b.send(self.started())) == 1


class TestRefusalsForStatus:
    def test_refusal_keeps_its_reason(self) -> None:
        b = book()
        b.send(proposal())
        b.send(happened.LookupEnded(2, NOTHING))
        [kept] = b.gateway.refusals
        assert kept.peer == SG_B
        assert kept.address == SG_B
        assert kept.what == "a tunnel for 192.1.0.65/32 and 192.2.0.66/32"
        assert "192.1.0.65 does not delegate to us" in kept.reason
        b.send(proposal(3))
        [kept] = b.gateway.refusals
        assert kept.times == 2

    def test_key_that_is_not_in_the_dns(self) -> None:
        b = book()
        b.send(keying.PeerKeyNeeded(9, SG_D, TransportAddress(SG_D)))
        b.send(happened.KeyLookupEnded(1, NOTHING))
        [kept] = b.gateway.refusals
        assert (kept.peer, kept.what) == (SG_D, "its key")

    def test_our_own_negotiation_is_no_refusal(self) -> None:
        b = book()
        b.send(keying.PeerKeyNeeded(9, SG_D, TransportAddress(SG_D), initiator=True))
        b.send(happened.KeyLookupEnded(1, NOTHING))
        assert list(b.gateway.refusals) == []

    def test_strangers_do_not_fill_the_memory(self) -> None:
        kept = refusals.Refusals()
        for number in range(10_000):
            peer = f"sg-{number // 6}.example"
            kept.note(peer, SG_B, "a tunnel", f"reason {number}", float(number))
        assert len(list(kept)) == refusals.PEERS_KEPT * refusals.KEPT_PER_PEER
        assert next(iter(kept)).reason == "reason 9999"


class TestTxtWithoutKey:
    """The gateway's KEY look-up overlaps main mode on the initiator's side, too."""

    def keyless(self, *gateways: object, key: str | None = None) -> GatewaysFound:
        given = () if key is None else (rsa_key(key),)
        return GatewaysFound(
            tuple(FoundGateway(10, g, None, given, keyless=True) for g in gateways or (SG_B,)),  # type: ignore[arg-type]
            600.0,
            Trust.SECURE,
        )

    def begun(self, *gateways: object) -> Playbook:
        b = Playbook()
        b.send(ping(1))
        start, ask = b.send(happened.LookupEnded(1, self.keyless(*gateways)))
        assert isinstance(start, do.StartNegotiation)  # (5D) does not wait
        assert start.request.peer_keys == ()
        assert ask == do.StartKeyLookup(2, start.request.remote, purpose="gateway-key")
        return b

    def test_key_is_there_before_message_6(self) -> None:
        b = self.begun()
        assert b.send(happened.KeyLookupEnded(2, keys("old", "sg-b"))) == []
        needed = keying.PeerKeyNeeded(4, SG_B, TransportAddress(SG_B), initiator=True)
        assert b.send(needed) == [do.StartKeyLookup(3, SG_B)]  # the resolver has it
        assert b.send(happened.KeyLookupEnded(3, keys("old", "sg-b"))) == [
            do.ProvidePeerKeys(4, (rsa_key("old"), rsa_key("sg-b")))
        ]

    def test_trust_is_the_weaker_of_both_records(self) -> None:
        b = self.begun()
        b.send(happened.KeyLookupEnded(2, keys("sg-b")))
        [connection] = b.gateway.connections()
        assert connection.trust is Trust.INSECURE

    @pytest.mark.parametrize(
        ("outcome", "state", "lifespan"),
        [
            (NothingFound(40.0, "no KEY"), "clear", 40.0),
            (NothingFound(4000.0, "no KEY"), "clear", 300.0),
            (Unanswered("no answer"), "clear", 60.0),
            (Malformed("bogus", 60.0), "denied", 60.0),
        ],
    )
    def test_look_up_that_fails_ends_it_in_its_class(
        self, outcome: GatewayOutcome, state: str, lifespan: float
    ) -> None:
        b = self.begun()
        commands = b.send(happened.KeyLookupEnded(2, outcome))  # type: ignore[arg-type]
        assert commands[0] == do.CloseTunnel(0)
        assert b.state() == state
        [connection] = b.gateway.connections()
        assert connection.expires == b.now + lifespan
        assert b.send(keying.NegotiationFailed(0, Failure.CANCELLED, "closed")) == []

    def test_next_gateway_is_tried_and_the_worst_of_all_counts(self) -> None:
        b = self.begun(SG_B, SG_D)
        close, start, ask = b.send(happened.KeyLookupEnded(2, Malformed("unreadable", 60.0)))
        assert close == do.CloseTunnel(0)
        assert isinstance(start, do.StartNegotiation)
        assert start.request.remote == SG_D
        assert ask == do.StartKeyLookup(3, SG_D, purpose="gateway-key")
        b.send(happened.KeyLookupEnded(3, NOTHING))
        assert b.state() == "denied"

    def test_negotiation_that_fails_first_ends_the_look_up(self) -> None:
        b = self.begun()
        commands = b.send(keying.NegotiationFailed(0, Failure.SILENCE, "no answer"))
        assert do.CancelLookup(2) in commands
        assert b.gateway.lookups_under_way == 0

    def test_no_keys_at_message_6(self) -> None:
        b = self.begun()
        b.send(keying.NegotiationFailed(0, Failure.NO_KEY, "no KEY record"))
        assert b.state() == "clear"

    def test_record_with_a_key_beside_one_without(self) -> None:
        """First the key of the TXT record; if the gateway has another, those of KEY."""
        b = Playbook()
        b.send(ping(1))
        [start] = b.send(happened.LookupEnded(1, self.keyless(key="old")))
        assert isinstance(start, do.StartNegotiation)
        assert start.request.peer_keys == (rsa_key("old"),)
        start, _ = b.send(keying.NegotiationFailed(0, Failure.BAD_SIGNATURE, ""))
        assert isinstance(start, do.StartNegotiation)
        assert start.request.peer_keys == ()

    def test_silent_gateway_is_not_tried_again_with_other_keys(self) -> None:
        b = Playbook()
        b.send(ping(1))
        b.send(happened.LookupEnded(1, self.keyless(key="old")))
        b.send(keying.NegotiationFailed(0, Failure.SILENCE, ""))
        assert b.state() == "clear"

    def test_rule_that_requires_dnssec_requires_it_of_the_key_too(self) -> None:
        """Its look-ups bring the keys along; but it may have come while this was under way."""
        gateway = replace(self.keyless().gateways[0], trust=Trust.SECURE)
        outcome = GatewaysFound((gateway,), 600.0, Trust.SECURE)
        b = Playbook(default=STRICT)
        b.send(ping(1))
        assert not any(
            isinstance(command, do.StartNegotiation)
            for command in b.send(happened.LookupEnded(1, outcome))
        )
        b = Playbook()
        b.send(ping(1))
        start, _ = b.send(happened.LookupEnded(1, outcome))
        assert isinstance(start, do.StartNegotiation)
        b.gateway.replace_policy(PolicyTable((), STRICT), {}, b.now)
        commands = b.send(happened.KeyLookupEnded(2, keys("sg-b")))
        assert commands[0] == do.CloseTunnel(0)
        [connection] = b.gateway.connections()
        assert connection.state.value == "clear"
        assert "requires secure" in connection.reason

    def test_tunnel_is_renewed_without_a_key_in_the_record(self) -> None:
        b = self.begun()
        b.send(happened.KeyLookupEnded(2, keys("sg-b")))
        b.send(keying.InboundSaEstablished(0, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE))))
        b.send(happened.SaInstalled(0, inbound_key(0x1001)))
        b.send(keying.OutboundSaEstablished(0, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
        b.send(happened.SaInstalled(0, outbound_key(0x2001)))
        [ask] = b.send(keying.TunnelExpiring(0))
        assert isinstance(ask, do.StartLookup)
        start, *_ = b.send(happened.LookupEnded(ask.lookup, self.keyless()))
        assert isinstance(start, do.StartNegotiation)
        assert start.request.peer_keys == ()
        assert start.request.replaces == 0

    def test_gateway_at_a_private_address_has_no_key_that_we_could_look_up(self) -> None:
        b = Playbook()
        b.send(ping(1))
        b.send(happened.LookupEnded(1, self.keyless(ip_address("192.168.0.1"))))
        assert b.state() == "clear"
