"""What the DNS says of ourselves: our identity, and whom we speak for (draft 4.9, 4.12, 6.3)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

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
from oegw import commands as do
from oegw import events as happened
from oegw.peer import ConfiguredPeer
from oegw.selfknowledge import (
    RECORDS_KEPT,
    UNANSWERED_KEPT,
    NotOurs,
    OwnQuestion,
    OwnSettings,
    Record,
    SelfKnowledge,
)
from policy.builtin import never_public
from policy.rule import OnFailure
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
    found,
    opportunistic,
    ping,
    rsa_key,
)

NAME = "sg-a.example"
OURS, OTHER = rsa_key("sg-a"), rsa_key("other")
NOTHING = NothingFound(300.0, "no such record")
SILENT = Unanswered("no answer")
SG_A6 = ip_address("2001:db8:1:1::4")


def keys(*found_keys: object) -> KeysFound:
    return KeysFound(found_keys or (OURS,), 600.0, Trust.INSECURE)  # type: ignore[arg-type]


def names_us(address: object = SG_A, fqdn: str | None = None, key: object = OURS) -> GatewaysFound:
    given = () if key is None else (key,)
    gateway = FoundGateway(10, address, fqdn, given, keyless=key is None)  # type: ignore[arg-type]
    return GatewaysFound((gateway,), 600.0, Trust.INSECURE)


BY_NAME = names_us(None, NAME)
BOTH = GatewaysFound(names_us().gateways + BY_NAME.gateways, 600.0, Trust.INSECURE)


def knowledge(
    client: object = ALICE,
    delegation: GatewayOutcome | None = None,
    address: KeyOutcome | None = None,
    name: KeyOutcome | None = None,
    *,
    identity: str | None = None,
    fqdn: str | None = NAME,
) -> SelfKnowledge:
    own = SelfKnowledge(OwnSettings(OURS, identity, fqdn), (SG_A,), lambda a: not never_public(a))
    for question, outcome in (
        (OwnQuestion(Record.DELEGATION, client), delegation),  # type: ignore[arg-type]
        (OwnQuestion(Record.KEY, SG_A), address),
        (OwnQuestion(Record.KEY, NAME), name),
    ):
        if outcome is not None:
            own.learned(question, outcome, 0.0)
    return own


class TestIdentityForAClientBehindUs:
    """Row by row: what Alice's TXT says, KEY of our address, KEY of our name, what we are called.

    None is the address.
    """

    @pytest.mark.parametrize(
        ("delegation", "address", "name", "identity"),
        [
            (names_us(), keys(), keys(), None),
            (names_us(key=None), keys(), NOTHING, None),
            (names_us(), keys(OTHER, OURS), NOTHING, None),  # rolling over: two are published
            (BOTH, keys(), keys(), None),
            (BOTH, NOTHING, keys(), NAME),  # no usable reverse map: by itself
            (BOTH, keys(OTHER), keys(), NAME),
            (BY_NAME, keys(), keys(), NAME),
            (names_us(None, NAME, None), NOTHING, keys(), NAME),
            (names_us(None, "SG-A.Example"), NOTHING, keys(), NAME),
            # The DNS does not answer: that must not keep us from trying.
            (SILENT, SILENT, SILENT, None),
            (None, None, None, None),
            (SILENT, keys(), keys(), None),
            (names_us(), SILENT, keys(), None),
            (BOTH, SILENT, keys(), NAME),  # what is known to hold goes first
            (SILENT, NOTHING, keys(), NAME),
            (BOTH, NOTHING, SILENT, NAME),
        ],
    )
    def test_identity(
        self,
        delegation: GatewayOutcome | None,
        address: KeyOutcome | None,
        name: KeyOutcome | None,
        identity: str | None,
    ) -> None:
        assert knowledge(ALICE, delegation, address, name).identity_for(ALICE, SG_A) == identity

    @pytest.mark.parametrize(
        ("delegation", "address", "name", "why"),
        [
            (NOTHING, keys(), keys(), "does not delegate to us"),
            (names_us(SG_D), keys(), keys(), "does not delegate to 192.1.1.4"),
            (names_us(SG_A, None, OTHER), keys(), NOTHING, "with another key than ours"),
            (names_us(), NOTHING, keys(), "our key is not in the DNS"),  # D2 case 6
            (names_us(), keys(OTHER), NOTHING, "our key is not among the KEY records"),
            (BY_NAME, keys(), NOTHING, "our key is not in the DNS"),
            (names_us(None, "sg-d.example"), keys(), keys(), "does not delegate to @sg-a.example"),
        ],
    )
    def test_no_identity(
        self, delegation: GatewayOutcome, address: KeyOutcome, name: KeyOutcome, why: str
    ) -> None:
        with pytest.raises(NotOurs, match=why) as caught:
            knowledge(ALICE, delegation, address, name).identity_for(ALICE, SG_A)
        assert 0 < caught.value.ttl <= 600
        assert not caught.value.bad

    def test_records_of_our_client_that_cannot_be_read_or_are_bogus(self) -> None:
        own = knowledge(ALICE, Malformed("DNSSEC calls the answer bogus", 60.0), keys(), keys())
        with pytest.raises(NotOurs, match="bogus") as caught:
            own.identity_for(ALICE, SG_A)
        assert caught.value.bad

    def test_without_a_name_only_the_address_counts(self) -> None:
        own = knowledge(ALICE, BOTH, NOTHING, keys(), fqdn=None)
        with pytest.raises(NotOurs, match="our key is not in the DNS"):
            own.identity_for(ALICE, SG_A)

    def test_client_in_a_private_range_has_no_records_that_a_peer_could_see(self) -> None:
        client = ip_address("192.168.1.2")
        with pytest.raises(NotOurs, match="private"):
            knowledge(client, names_us(), keys()).identity_for(client, SG_A)
        assert [q.record for q in knowledge(client).questions(client, 0.0)] == [Record.KEY] * 2


class TestIdentityForOurselves:
    @pytest.mark.parametrize(
        ("delegation", "address", "name", "identity"),
        [
            (None, keys(), NOTHING, None),  # no TXT record is needed (RFC 4322 section 7)
            (NOTHING, keys(), keys(), None),
            (NOTHING, NOTHING, keys(), NAME),  # oe-road-01: only a name is ours
            (BY_NAME, NOTHING, keys(), NAME),
            (SILENT, NOTHING, keys(), NAME),
            (None, SILENT, NOTHING, None),
        ],
    )
    def test_identity(
        self,
        delegation: GatewayOutcome | None,
        address: KeyOutcome,
        name: KeyOutcome,
        identity: str | None,
    ) -> None:
        assert knowledge(SG_A, delegation, address, name).identity_for(SG_A, SG_A) == identity

    def test_our_key_is_nowhere(self) -> None:
        """D2 case 6, oe-fail-without-private-key-01."""
        with pytest.raises(NotOurs, match="our key is not in the DNS"):
            knowledge(SG_A, NOTHING, NOTHING, NOTHING).identity_for(SG_A, SG_A)

    def test_another_gateway_speaks_for_our_address(self) -> None:
        with pytest.raises(NotOurs, match=r"does not delegate to @sg-a\.example"):
            knowledge(SG_A, names_us(SG_D), NOTHING, keys()).identity_for(SG_A, SG_A)

    def test_our_address_has_the_key_of_somebody_else(self) -> None:
        """Then no peer takes us at our name: the address could be another's."""
        with pytest.raises(NotOurs, match=r"192\.1\.1\.4 has another key than @sg-a\.example"):
            knowledge(SG_A, NOTHING, keys(OTHER), keys()).identity_for(SG_A, SG_A)
        assert knowledge(SG_A, BY_NAME, keys(OTHER), keys()).identity_for(SG_A, SG_A) == NAME


class TestForcedIdentity:
    def test_address_is_not_tried(self) -> None:
        own = knowledge(ALICE, BOTH, keys(), keys(), identity=NAME)
        assert own.identity_for(ALICE, SG_A) is None  # what is configured
        assert {q.about for q in own.questions(ALICE, 1e9)} == {ALICE, NAME}
        own = knowledge(ALICE, names_us(), keys(), NOTHING, identity=NAME)
        with pytest.raises(NotOurs):
            own.identity_for(ALICE, SG_A)

    def test_dns_that_does_not_answer_does_not_keep_us_from_trying(self) -> None:
        own = knowledge(ALICE, SILENT, None, SILENT, identity=NAME)
        assert own.identity_for(ALICE, SG_A) is None


class TestQuestions:
    def test_all_at_once_and_then_none_until_the_ttl_is_over(self) -> None:
        own = knowledge()
        asked = own.questions(ALICE, 0.0)
        assert asked == [
            OwnQuestion(Record.DELEGATION, ALICE),
            OwnQuestion(Record.KEY, SG_A),
            OwnQuestion(Record.KEY, NAME),
        ]
        for question in asked:
            answer = names_us() if question.record is Record.DELEGATION else keys()
            own.learned(question, answer, 0.0)
        assert own.questions(ALICE, 599.0) == []
        assert own.questions(BOB, 599.0) == [OwnQuestion(Record.DELEGATION, BOB)]
        assert len(own.questions(ALICE, 600.0)) == 3

    def test_what_was_not_answered_is_asked_again_soon(self) -> None:
        own = knowledge(ALICE, SILENT, keys(), keys())
        assert own.questions(ALICE, UNANSWERED_KEPT - 1) == []
        assert own.questions(ALICE, UNANSWERED_KEPT) == [OwnQuestion(Record.DELEGATION, ALICE)]

    def test_our_own_address_needs_no_delegation_unless_we_have_a_name(self) -> None:
        assert knowledge(fqdn=None).questions(SG_A, 0.0) == [OwnQuestion(Record.KEY, SG_A)]
        assert OwnQuestion(Record.DELEGATION, SG_A) in knowledge().questions(SG_A, 0.0)

    def test_keys_can_be_asked_for_before_any_client_is_known(self) -> None:
        assert knowledge().key_questions(0.0) == [
            OwnQuestion(Record.KEY, SG_A),
            OwnQuestion(Record.KEY, NAME),
        ]

    def test_private_address_of_ours_is_never_asked_for(self) -> None:
        own = SelfKnowledge(
            OwnSettings(OURS, None, NAME),
            (ip_address("192.168.0.4"),),
            lambda a: not never_public(a),
        )
        assert own.key_questions(0.0) == [OwnQuestion(Record.KEY, NAME)]
        own.learned(OwnQuestion(Record.KEY, NAME), keys(), 0.0)
        own.learned(OwnQuestion(Record.DELEGATION, ALICE), BOTH, 0.0)
        assert own.identity_for(ALICE, ip_address("192.168.0.4")) == NAME

    def test_what_is_kept_is_bounded(self) -> None:
        own = knowledge()
        first = int(ip_address("8.0.0.0"))
        for number in range(RECORDS_KEPT + 100):
            client = ip_address(first + number)
            own.learned(OwnQuestion(Record.DELEGATION, client), NOTHING, 0.0)
        assert len(own._kept) == RECORDS_KEPT

    def test_of_whom_else_a_client_names_nothing_is_kept(self) -> None:
        """Strangers choose the clients that they ask us for, and write those clients' records."""
        others = tuple(
            FoundGateway(10, ip_address(0xC0020000 + number), None, (OTHER,))
            for number in range(30)
        )
        both = GatewaysFound(others + names_us().gateways, 600.0, Trust.INSECURE)
        own = knowledge(ALICE, both, keys())
        own.learned(OwnQuestion(Record.DELEGATION, BOB), replace(both, gateways=others), 0.0)
        assert own.identity_for(ALICE, SG_A) is None
        own.check_client(ALICE)
        with pytest.raises(NotOurs):
            own.check_client(BOB)
        kept = [outcome for _, outcome in own._kept.values()]
        assert sum(len(o.gateways) for o in kept if isinstance(o, GatewaysFound)) == 1

    def test_address_of_the_clients_family(self) -> None:
        own = SelfKnowledge(OwnSettings(OURS), (SG_A, SG_A6), lambda a: True)
        client = ip_address("2001:db8:1:0::65")
        assert own.questions(client, 0.0)[-1] == OwnQuestion(Record.KEY, SG_A6)
        assert own.address_for(BOB) == SG_A

    def test_settled_when_the_first_choice_is_confirmed(self) -> None:
        assert knowledge(ALICE, names_us(), keys()).settled(ALICE)
        assert not knowledge(ALICE, names_us()).settled(ALICE)
        assert not knowledge(ALICE, names_us(), NOTHING).settled(ALICE)
        assert knowledge(ALICE, Malformed("", 1.0)).settled(ALICE)

    def test_key_that_we_changed_to(self) -> None:
        own = knowledge(ALICE, names_us(), keys(OURS))
        own.replace_key(OTHER)  # type: ignore[arg-type]
        with pytest.raises(NotOurs, match="another key than ours"):
            own.identity_for(ALICE, SG_A)

    def test_nothing_is_checked_without_settings(self) -> None:
        own = SelfKnowledge(None, (SG_A,), lambda a: True)
        assert own.questions(ALICE, 0.0) == own.key_questions(0.0) == []
        assert own.client_questions(ALICE, 0.0) == []
        assert own.identity_for(ALICE, SG_A) is None
        assert own.settled(ALICE)
        own.check_client(ip_address("8.0.0.1"))
        own.replace_key(OTHER)  # type: ignore[arg-type]


class TestClientThatAPeerAsksFor:
    """What closes us as a proxy for any address (D2 case 7)."""

    @pytest.mark.parametrize("delegation", [names_us(), names_us(key=None), BY_NAME, BOTH], ids=str)
    def test_is_ours(self, delegation: GatewayOutcome) -> None:
        knowledge(ALICE, delegation).check_client(ALICE)

    @pytest.mark.parametrize(
        "delegation",
        [NOTHING, names_us(SG_D), names_us(SG_A, None, OTHER), SILENT, None, Malformed("x", 60.0)],
        ids=lambda outcome: type(outcome).__name__,
    )
    def test_is_not(self, delegation: GatewayOutcome | None) -> None:
        with pytest.raises(NotOurs):
            knowledge(ALICE, delegation).check_client(ALICE)

    def test_our_own_address_is_ours(self) -> None:
        knowledge().check_client(SG_A)

    def test_private_address_is_not(self) -> None:
        with pytest.raises(NotOurs, match="private"):
            knowledge().check_client(ip_address("10.0.0.1"))


# Playbooks: the same with the rest of the gateway.


def book(**settings: object) -> Playbook:
    return Playbook(own=OwnSettings(OURS, None, settings.pop("fqdn", None)), **settings)  # type: ignore[arg-type]


class TestInitiator:
    def test_own_records_are_asked_for_along_with_the_destination(self) -> None:
        b = book()
        assert b.send(ping(1)) == [
            do.StartLookup(1, BOB),
            do.StartLookup(2, ALICE, purpose="own"),
            do.StartKeyLookup(3, SG_A, purpose="own", ours=True),
        ]
        assert b.send(happened.LookupEnded(1, found((SG_B, "sg-b")))) == []
        assert b.send(happened.LookupEnded(2, names_us())) == []
        [start] = b.send(happened.KeyLookupEnded(3, keys()))
        assert isinstance(start, do.StartNegotiation)
        assert start.request.identity is None
        # Known by now: nothing is added for the next.
        assert b.send(ping(2, destination=DAVE)) == [do.StartLookup(4, DAVE)]

    def test_name_is_used_where_the_address_has_no_key(self) -> None:
        b = book(fqdn=NAME)
        b.send(ping(1))
        b.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        b.send(happened.LookupEnded(2, BOTH))
        assert b.send(happened.KeyLookupEnded(3, NOTHING)) == []
        [start] = b.send(happened.KeyLookupEnded(4, keys()))
        assert isinstance(start, do.StartNegotiation)
        assert start.request.identity == NAME

    def test_slow_zone_of_a_name_that_is_not_needed_is_not_waited_for(self) -> None:
        b = book(fqdn=NAME)
        b.send(ping(1))
        b.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        b.send(happened.LookupEnded(2, BOTH))
        cancel, start = b.send(happened.KeyLookupEnded(3, keys()))
        assert cancel == do.CancelLookup(4)
        assert isinstance(start, do.StartNegotiation)

    @pytest.mark.parametrize("on_failure", list(OnFailure))
    def test_client_that_has_not_delegated_to_us_fails_before_we_negotiate(
        self, on_failure: OnFailure
    ) -> None:
        b = book(default=opportunistic("default", on_failure=on_failure))
        b.send(ping(1))
        b.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        b.send(happened.KeyLookupEnded(3, keys()))
        commands = b.send(happened.LookupEnded(2, NOTHING))
        assert not any(isinstance(c, do.StartNegotiation) for c in commands)
        assert b.state() == ("clear" if on_failure is OnFailure.CLEAR else "denied")
        assert b.trace.drops["own_records"] == 1
        [connection] = b.gateway.connections()
        assert "192.1.0.65 does not delegate to us" in connection.reason
        assert connection.expires == b.now + 300

    def test_our_key_is_not_in_the_dns(self) -> None:
        """D2 case 6."""
        b = book()
        b.send(ping(1))
        b.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        b.send(happened.LookupEnded(2, names_us()))
        commands = b.send(happened.KeyLookupEnded(3, NOTHING))
        assert not any(isinstance(c, do.StartNegotiation) for c in commands)
        [connection] = b.gateway.connections()
        assert "our key is not in the DNS" in connection.reason

    def test_bogus_records_of_our_client_mean_deny(self) -> None:
        b = book()
        b.send(ping(1))
        b.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        b.send(happened.LookupEnded(2, Malformed("DNSSEC calls the answer bogus", 60.0)))
        assert b.state() == "denied"

    def test_destination_without_record_is_told_as_such(self) -> None:
        b = book()
        b.send(ping(1))
        b.send(happened.LookupEnded(2, NOTHING))
        b.send(happened.KeyLookupEnded(3, NOTHING))
        b.send(happened.LookupEnded(1, NothingFound(60.0, "Bob has no record")))
        [connection] = b.gateway.connections()
        assert connection.reason == "Bob has no record"

    def test_dead_dns_about_ourselves_does_not_block(self) -> None:
        b = book()
        b.send(ping(1))
        b.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
        b.send(happened.LookupEnded(2, SILENT))
        [start] = b.send(happened.KeyLookupEnded(3, SILENT))
        assert isinstance(start, do.StartNegotiation)

    def test_configured_traffic_rests_on_no_records(self) -> None:
        rule = configured("branch", "192.1.0.0/24", "192.2.0.0/24")
        b = Playbook(
            rule,
            peers={"branch": ConfiguredPeer(SG_B, rsa_key("sg-b"))},
            own=OwnSettings(OURS),
        )
        [start] = b.send(ping(1))
        assert isinstance(start, do.StartNegotiation)

    def test_keys_are_asked_for_at_the_start(self) -> None:
        b = book(fqdn=NAME)
        assert b.gateway.begin(b.now) == [
            do.StartKeyLookup(1, SG_A, purpose="own", ours=True),
            do.StartKeyLookup(2, NAME, purpose="own", ours=True),
        ]
        b.send(happened.KeyLookupEnded(1, keys()))
        b.send(happened.KeyLookupEnded(2, keys()))
        assert b.send(ping(1)) == [
            do.StartLookup(3, BOB),
            do.StartLookup(4, ALICE, purpose="own"),
        ]

    def test_forgotten_connection_gives_its_questions_up(self) -> None:
        b = book()
        b.send(ping(1))
        b.send(happened.LookupEnded(2, names_us()))
        table = b.gateway.table
        denying = PolicyTable((deny("no", "192.2.0.0/24"),), table.default)
        commands = b.gateway.replace_policy(denying, {}, b.now)
        assert do.CancelLookup(1) in commands
        assert do.CancelLookup(3) in commands
        assert b.gateway.lookups_under_way == 0
