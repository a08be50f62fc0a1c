"""How far records can be trusted, and what the policy demands: pure, then by playbook."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

import ike.events as keying
from dnsrecords.outcome import (
    Gateway,
    GatewaysFound,
    KeysFound,
    Malformed,
    NothingFound,
    Unanswered,
)
from dnsrecords.trust import Trust
from ike.events import Failure, NegotiationFailed, TransportAddress
from oegw import assurance
from oegw import commands as do
from oegw import events as happened
from oegw.assurance import Unassured, UnsignedDelegation
from oegw.commands import Verdict
from policy.flow import Flow
from policy.rule import OnFailure, Require
from policy.table import PolicyTable
from tests.support.playbook import (
    ALICE,
    BOB,
    SG_A,
    SG_B,
    SG_D,
    Playbook,
    configured,
    esp_sa,
    inbound_key,
    opportunistic,
    outbound_key,
    ping,
    proposal,
    rsa_key,
)

SECURE_ONLY = opportunistic("strict", require=Require.SECURE)
ANY = opportunistic("easy")
SELF = UnsignedDelegation.SELF
STATES = tuple(Trust)


def found(
    gateway: Any = SG_B,
    trust: Trust = Trust.SECURE,
    of_key: Trust = Trust.SECURE,
    fqdn: str | None = None,
    keyless: bool = False,
) -> GatewaysFound:
    one = Gateway(10, gateway, fqdn, (rsa_key("sg-b"),), keyless, of_key)
    return GatewaysFound((one,), 3600.0, trust)


@pytest.mark.parametrize("of_txt", STATES)
@pytest.mark.parametrize("of_key", STATES)
def test_require_looks_at_all_records(of_txt: Trust, of_key: Trust) -> None:
    outcome = found(trust=of_txt, of_key=of_key)
    assert assurance.admitted(outcome, BOB, ANY, UnsignedDelegation.ANY)
    secure = of_txt is of_key is Trust.SECURE
    if secure:
        (gateway,) = assurance.admitted(outcome, BOB, SECURE_ONLY, UnsignedDelegation.ANY)
        assert gateway.trust is Trust.SECURE
    else:
        with pytest.raises(Unassured, match="rule 'strict' requires secure ones"):
            assurance.admitted(outcome, BOB, SECURE_ONLY, UnsignedDelegation.ANY)
    assert assurance.is_enough(SECURE_ONLY, Trust.SECURE if secure else of_key) is (
        secure or of_key is Trust.SECURE
    )


def test_only_opportunistic_rules_require() -> None:
    assert assurance.is_enough(configured("office", "192.1.0.0/24", "192.2.0.0/24"), None)
    assert not assurance.is_enough(SECURE_ONLY, None)
    assert assurance.is_enough(ANY, None)


@pytest.mark.parametrize(
    ("gateway", "fqdn", "trust", "admitted"),
    [
        (SG_B, None, Trust.SECURE, True),
        (SG_B, None, Trust.INSECURE, False),
        (SG_B, None, Trust.INDETERMINATE, False),
        (BOB, None, Trust.INSECURE, True),
        (None, "sg-b.example", Trust.INSECURE, False),
        (BOB, "bob.example", Trust.INSECURE, False),  # a name that somebody may have forged, too
        (None, "sg-b.example", Trust.SECURE, True),
    ],
)
def test_unsigned_delegation_to_itself_only(
    gateway: Any, fqdn: str | None, trust: Trust, admitted: bool
) -> None:
    """RFC 4322 section 3.2.4.1."""
    outcome = found(gateway, trust, fqdn=fqdn)
    if admitted:
        assert assurance.admitted(outcome, BOB, ANY, SELF)
    else:
        with pytest.raises(Unassured, match=f"{trust.value} record of {BOB} delegates to"):
            assurance.admitted(outcome, BOB, ANY, SELF)
    assert assurance.admitted(outcome, BOB, ANY, UnsignedDelegation.ANY)


def test_one_gateway_does_not_spoil_the_other() -> None:
    gateways = (
        Gateway(10, SG_B, None, (rsa_key("sg-b"),), trust=Trust.INSECURE),
        Gateway(20, SG_D, None, (rsa_key("sg-d"),)),
    )
    outcome = GatewaysFound(gateways, 60.0, Trust.SECURE)
    filtered = assurance.filtered(outcome, BOB, SECURE_ONLY, UnsignedDelegation.ANY)
    assert filtered == GatewaysFound(gateways[1:], 60.0, Trust.SECURE)
    filtered = assurance.filtered(outcome, BOB, ANY, UnsignedDelegation.ANY)
    assert isinstance(filtered, GatewaysFound)
    assert filtered.trust is Trust.INSECURE
    assert [each.trust for each in filtered.gateways] == [Trust.INSECURE, Trust.SECURE]


def test_none_left_is_as_if_there_were_no_record() -> None:
    filtered = assurance.filtered(
        found(trust=Trust.INSECURE), BOB, SECURE_ONLY, UnsignedDelegation.ANY
    )
    assert filtered == NothingFound(
        3600.0, "records are insecure, and rule 'strict' requires secure ones"
    )


@pytest.mark.parametrize(
    ("address", "named", "trusted"),
    [
        ("127.0.0.1", [], True),
        ("127.9.9.9", [], True),
        ("::1", [], True),
        ("192.1.1.53", ["192.1.1.53"], True),
        ("192.1.1.53", ["192.1.1.54"], False),
        ("192.1.1.53", [], False),
    ],
)
def test_whose_word_counts(address: str, named: list[str], trusted: bool) -> None:
    assert assurance.trust_in(ip_address(address), [*map(ip_address, named)])[0] is trusted


# The initiator.


class TestInitiator:
    def asked(self, **settings: Any) -> Playbook:
        book = Playbook(default=settings.pop("rule", ANY), **settings)
        strict = book.gateway.table.lookup(Flow(ALICE, BOB, 1)).rule.require is Require.SECURE
        assert book.send(ping(1)) == [do.StartLookup(1, BOB, with_keys=strict)]
        return book

    def test_a_secure_record_is_enough(self) -> None:
        book = self.asked(rule=SECURE_ONLY)
        (started,) = book.send(happened.LookupEnded(1, found()))
        assert isinstance(started, do.StartNegotiation)
        (connection,) = book.gateway.connections()
        assert connection.trust is Trust.SECURE
        assert ("connection", "trust") in [line[:2] for line in book.trace.lines]

    @pytest.mark.parametrize(
        ("trust", "of_key"),
        [(Trust.INSECURE, Trust.SECURE), (Trust.SECURE, Trust.INSECURE)],
    )
    def test_others_are_as_no_record(self, trust: Trust, of_key: Trust) -> None:
        book = self.asked(rule=SECURE_ONLY)
        commands = book.send(happened.LookupEnded(1, found(trust=trust, of_key=of_key)))
        assert book.state() == "clear"
        installed = next(each for each in commands if isinstance(each, do.InstallPolicy))
        assert (installed.verdict, installed.lifespan) == (Verdict.CLEAR, 300.0)
        (connection,) = book.gateway.connections()
        assert connection.reason == "records are insecure, and rule 'strict' requires secure ones"
        assert book.trace.drops["not_assured"] == 1

    def test_drop_stays_drop(self) -> None:
        rule = opportunistic("strict", None, require=Require.SECURE, on_failure=OnFailure.DROP)
        book = self.asked(rule=rule)
        book.send(happened.LookupEnded(1, found(trust=Trust.INSECURE)))
        assert book.state() == "denied"

    def test_without_a_requirement_an_insecure_record_is_used_and_told(self) -> None:
        book = self.asked()
        book.send(happened.LookupEnded(1, found(trust=Trust.INSECURE)))
        (connection,) = book.gateway.connections()
        assert (connection.state.value, connection.trust) == ("pending", Trust.INSECURE)

    def test_unsigned_records_that_delegate_elsewhere(self) -> None:
        book = self.asked(unsigned_delegation=SELF)
        book.send(happened.LookupEnded(1, found(trust=Trust.INSECURE)))
        assert book.state() == "clear"
        book = self.asked(unsigned_delegation=SELF)
        book.send(happened.LookupEnded(1, found(BOB, Trust.INSECURE)))
        assert book.state() == "pending"

    def test_a_key_that_comes_late_weakens_the_whole(self) -> None:
        book = self.asked()
        one = Gateway(10, SG_B, None, (), keyless=True)
        commands = book.send(happened.LookupEnded(1, GatewaysFound((one,), 3600.0, Trust.SECURE)))
        (lookup,) = [each for each in commands if isinstance(each, do.StartKeyLookup)]
        keys = KeysFound((rsa_key("sg-b"),), 60.0, Trust.INSECURE)
        book.send(happened.KeyLookupEnded(lookup.lookup, keys))
        (connection,) = book.gateway.connections()
        assert connection.trust is Trust.INSECURE

    def test_only_keys_that_were_judged_are_used_where_secure_ones_are_required(self) -> None:
        """No keys ordered means: any that proved the peer, on some channel that it began, say."""
        book = self.asked(rule=SECURE_ONLY)
        (started,) = book.send(happened.LookupEnded(1, found(keyless=True)))
        assert isinstance(started, do.StartNegotiation)
        assert started.request.peer_keys == (rsa_key("sg-b"),)
        book.send(NegotiationFailed(started.tunnel, Failure.BAD_SIGNATURE, "another key"))
        assert book.state() == "clear"  # there is nothing else to try

    def test_each_gateway_has_its_own_trust(self) -> None:
        book = self.asked()
        gateways = (
            Gateway(10, SG_B, None, (rsa_key("sg-b"),), trust=Trust.INSECURE),
            Gateway(20, SG_D, None, (rsa_key("sg-d"),)),
        )
        book.send(happened.LookupEnded(1, GatewaysFound(gateways, 60.0, Trust.SECURE)))
        (connection,) = book.gateway.connections()
        assert connection.trust is Trust.INSECURE
        (number,) = connection.tunnels
        book.send(NegotiationFailed(number, Failure.SILENCE, "nobody"))
        assert connection.trust is Trust.SECURE

    def test_bogus_denies_and_silence_does_not(self) -> None:
        book = self.asked()
        book.send(happened.LookupEnded(1, Malformed("DNSSEC calls the answer bogus", 0.0)))
        assert book.state() == "denied"
        book = self.asked()
        book.send(happened.LookupEnded(1, Unanswered("SERVFAIL")))
        assert book.state() == "clear"


# The responder.


def keyed(book: Playbook, tunnel: int, gateway: Any) -> None:
    """A tunnel for Alice and Bob comes up."""
    spis = 0x1000 + tunnel, 0x2000 + tunnel
    book.send(keying.InboundSaEstablished(tunnel, esp_sa(gateway, SG_A, spis[0], (BOB, ALICE))))
    book.send(happened.SaInstalled(tunnel, inbound_key(spis[0])))
    book.send(keying.OutboundSaEstablished(tunnel, esp_sa(SG_A, gateway, spis[1], (ALICE, BOB))))
    book.send(happened.SaInstalled(tunnel, outbound_key(spis[1], gateway)))
    assert book.state() == "keyed"


class TestResponder:
    """SG-B's KEY was found on channel 7 by itself; Bob's TXT record is asked for at 5G2."""

    def proposed(self, of_key: Trust = Trust.SECURE, **settings: Any) -> Playbook:
        book = Playbook(default=settings.pop("rule", ANY), **settings)
        needed = keying.PeerKeyNeeded(8, SG_B, TransportAddress(SG_B))
        assert book.send(needed) == [do.StartKeyLookup(1, SG_B)]
        book.send(happened.KeyLookupEnded(1, KeysFound((rsa_key("sg-b"),), 60.0, of_key)))
        event = proposal()
        event = keying.TunnelProposed(
            event.tunnel, 8, event.identity, event.key, event.local, event.remote,
            event.local_selector, event.remote_selector,
        )  # fmt: skip
        assert book.send(event) == [do.StartLookup(2, BOB, with_keys=False, purpose="authority")]
        return book

    def trust(self, book: Playbook) -> Trust | None:
        (connection,) = book.gateway.connections()
        return connection.trust

    @pytest.mark.parametrize(
        ("of_key", "of_txt", "together"),
        [
            (Trust.SECURE, Trust.SECURE, Trust.SECURE),
            (Trust.INSECURE, Trust.SECURE, Trust.INSECURE),
            (Trust.SECURE, Trust.INSECURE, Trust.INSECURE),
            (Trust.INSECURE, Trust.INDETERMINATE, Trust.INDETERMINATE),
        ],
    )
    def test_a_tunnel_rests_on_key_and_txt(
        self, of_key: Trust, of_txt: Trust, together: Trust
    ) -> None:
        book = self.proposed(of_key)
        assert book.send(happened.LookupEnded(2, found(trust=of_txt))) == [do.AcceptTunnel(1)]
        assert self.trust(book) is together
        book = self.proposed(of_key, rule=SECURE_ONLY)
        (answer,) = book.send(happened.LookupEnded(2, found(trust=of_txt)))
        if together is Trust.SECURE:
            assert answer == do.AcceptTunnel(1)
        else:
            assert isinstance(answer, do.RefuseTunnel)
            assert "requires secure ones" in answer.reason
            assert book.trace.drops["tunnel_refused"] == 1
            assert not list(book.gateway.connections())

    def test_unsigned_records_may_delegate_to_themselves_only(self) -> None:
        book = self.proposed(unsigned_delegation=SELF)
        (answer,) = book.send(happened.LookupEnded(2, found(trust=Trust.INSECURE)))
        assert isinstance(answer, do.RefuseTunnel)
        assert answer.reason == (
            f"insecure record of {BOB} delegates to {SG_B}; unsigned ones may only to itself"
        )
        book = self.proposed(unsigned_delegation=SELF)
        assert book.send(happened.LookupEnded(2, found())) == [do.AcceptTunnel(1)]

    def test_a_host_that_speaks_for_itself_rests_on_its_key(self) -> None:
        for of_key, accepted in ((Trust.SECURE, True), (Trust.INSECURE, False)):
            book = Playbook(default=SECURE_ONLY)
            book.send(keying.PeerKeyNeeded(8, SG_B, TransportAddress(SG_B)))
            book.send(happened.KeyLookupEnded(1, KeysFound((rsa_key("sg-b"),), 60.0, of_key)))
            event = proposal(remote=SG_B)
            event = keying.TunnelProposed(
                event.tunnel, 8, event.identity, event.key, event.local, event.remote,
                event.local_selector, event.remote_selector,
            )  # fmt: skip
            (answer,) = book.send(event)
            assert isinstance(answer, do.AcceptTunnel) is accepted

    @pytest.mark.parametrize(
        ("identity", "key", "trust", "accepted"),
        [
            (SG_D, "sg-d", Trust.INSECURE, False),
            (SG_D, "sg-d", Trust.INDETERMINATE, False),
            (SG_D, "sg-d", Trust.SECURE, True),  # another gateway, and as good
            (SG_B, "mallory", Trust.INSECURE, False),
            (SG_B, "sg-b", Trust.INSECURE, True),  # whose tunnel it is
        ],
    )
    def test_weaker_records_do_not_replace_a_tunnel(
        self, identity: Any, key: str, trust: Trust, accepted: bool
    ) -> None:
        """newoe-27-replace-sa-auth-authnull."""
        book = self.proposed()
        both = GatewaysFound(
            (*found().gateways, Gateway(10, identity, None, (rsa_key(key),))), 60.0, Trust.SECURE
        )
        assert book.send(happened.LookupEnded(2, both)) == [do.AcceptTunnel(1)]
        keyed(book, 1, SG_B)
        book.send(keying.PeerKeyNeeded(9, identity, TransportAddress(identity)))
        book.send(happened.KeyLookupEnded(3, KeysFound((rsa_key(key),), 60.0, trust)))
        event = proposal(3, identity=identity, key=key, address=identity)
        book.send(replace(event, channel=9))
        (answer,) = book.send(happened.LookupEnded(4, both))
        assert isinstance(answer, do.AcceptTunnel) is accepted
        if not accepted:
            assert self.trust(book) is Trust.SECURE

    def test_what_a_peer_began_is_renewed_out_of_strangers_part_of_the_budget(self) -> None:
        """Else a peer that begins many short ones has what is kept from strangers."""
        book = self.proposed()
        assert book.send(happened.LookupEnded(2, found())) == [do.AcceptTunnel(1)]
        keyed(book, 1, SG_B)
        assert book.send(keying.TunnelExpiring(1)) == [do.StartLookup(3, BOB, ours=False)]

    def test_a_renewal_by_the_key_of_the_host_itself_rests_on_that(self) -> None:
        """Bob's TXT record, secure, names another by now."""
        book = Playbook()
        book.send(keying.PeerKeyNeeded(8, BOB, TransportAddress(BOB)))
        found_key = KeysFound((rsa_key("bob"),), 60.0, Trust.SECURE)
        book.send(happened.KeyLookupEnded(1, found_key))
        event = proposal(identity=BOB, key="bob", address=BOB)
        assert book.send(replace(event, channel=8)) == [do.AcceptTunnel(1)]
        keyed(book, 1, BOB)
        assert self.trust(book) is Trust.SECURE
        book.send(keying.TunnelExpiring(1))
        book.send(happened.LookupEnded(2, found()))
        (started,) = book.send(happened.KeyLookupEnded(3, replace(found_key, trust=Trust.INSECURE)))
        assert isinstance(started, do.StartNegotiation)
        assert self.trust(book) is Trust.INSECURE

    def test_a_new_policy_ends_what_it_does_not_want(self) -> None:
        book = self.proposed(Trust.INSECURE)
        book.send(happened.LookupEnded(2, found()))
        commands = book.gateway.replace_policy(PolicyTable((), ANY), {}, book.now)
        assert commands == []
        commands = book.gateway.replace_policy(PolicyTable((), SECURE_ONLY), {}, book.now)
        assert do.CloseTunnel(1) in commands

    def test_a_new_policy_judges_each_tunnel_and_not_the_last(self) -> None:
        book = self.proposed(Trust.INSECURE)
        book.send(happened.LookupEnded(2, found()))
        keyed(book, 1, SG_B)
        book.send(keying.PeerKeyNeeded(8, SG_B, TransportAddress(SG_B)))
        book.send(happened.KeyLookupEnded(3, KeysFound((rsa_key("sg-b"),), 60.0, Trust.SECURE)))
        book.send(replace(proposal(3), channel=8))
        assert book.send(happened.LookupEnded(4, found())) == [do.AcceptTunnel(3)]
        assert self.trust(book) is Trust.INSECURE  # until it is up
        keyed(book, 3, SG_B)
        assert self.trust(book) is Trust.SECURE
        commands = book.gateway.replace_policy(PolicyTable((), SECURE_ONLY), {}, book.now)
        assert do.CloseTunnel(1) in commands
