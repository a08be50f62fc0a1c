"""Destinations with several gateways: draft section 9, RFC 4322 sections 3.2.5 and 8.

We are SG-A here, and Bob's site has two gateways: SG-B and SG-D.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

import ike.events as keying
from dnsrecords.outcome import Gateway as FoundGateway
from dnsrecords.outcome import GatewaysFound, NothingFound, Unanswered
from dnsrecords.trust import Trust
from ike.events import Failure, TransportAddress
from oegw import commands as do
from oegw import events as happened
from oegw.commands import Command
from oegw.connection import Connection
from oegw.datapath.interface import SaKey, Usage
from oegw.gateways import Choice, MultihomingSettings
from oegw.memory import pair_text
from oegw.multihoming import GATEWAYS_MOST, RETURNS_MOST
from policy.flow import Flow, IPAddress
from policy.rule import OnFailure, Require
from tests.support.playbook import (
    ALICE,
    BOB,
    DAVE,
    SG_A,
    SG_B,
    SG_D,
    Playbook,
    esp_sa,
    inbound_key,
    opportunistic,
    outbound_key,
    ping,
    proposal,
    rsa_key,
)

NAMES = {SG_B: "sg-b", SG_D: "sg-d"}


def homes(*homes: tuple[int, IPAddress], trust: Trust = Trust.INSECURE) -> GatewaysFound:
    """Bob's delegations: precedence and gateway."""
    gateways = tuple(
        FoundGateway(precedence, address, None, (rsa_key(NAMES.get(address, "sg-b")),), trust=trust)
        for precedence, address in homes
    )
    return GatewaysFound(gateways, 3600.0, trust)


BOTH = homes((10, SG_B), (20, SG_D))


def of(kind: type, commands: list[Command]) -> list[Command]:
    return [command for command in commands if isinstance(command, kind)]


def asked(commands: list[Command]) -> list[tuple[int, IPAddress]]:
    """The tunnels that are to be negotiated, and with whom."""
    return [(c.tunnel, c.request.remote) for c in commands if isinstance(c, do.StartNegotiation)]


def lookups(commands: list[Command]) -> list[int]:
    return [c.lookup for c in commands if isinstance(c, do.StartLookup)]


def silence(tunnel: int) -> keying.NegotiationFailed:
    return keying.NegotiationFailed(tunnel, Failure.SILENCE, "no answer")


def up(
    book: Playbook,
    tunnel: int,
    gateway: IPAddress,
    source: IPAddress = ALICE,
    destination: IPAddress = BOB,
) -> list[Command]:
    """A tunnel comes up; its SPIs follow from its number.  Returns what the last step gave."""
    spis = 0x1000 + tunnel, 0x2000 + tunnel
    inner = source, destination
    book.send(keying.InboundSaEstablished(tunnel, esp_sa(gateway, SG_A, spis[0], inner[::-1])))
    book.send(happened.SaInstalled(tunnel, inbound_key(spis[0])))
    book.send(keying.OutboundSaEstablished(tunnel, esp_sa(SG_A, gateway, spis[1], inner)))
    return book.send(happened.SaInstalled(tunnel, sending(tunnel, gateway)))


def sending(tunnel: int, gateway: IPAddress) -> SaKey:
    return outbound_key(0x2000 + tunnel, gateway)


def pair(book: Playbook, source: IPAddress = ALICE, destination: IPAddress = BOB) -> Connection:
    connection = book.gateway.find(Flow(source, destination, 1))
    assert connection is not None
    return connection


def carrier(book: Playbook, source: IPAddress = ALICE) -> IPAddress | None:
    live = pair(book, source).live_tunnel
    return live.gateway if live else None


def by_second_gateway(
    book: Playbook, outcome: GatewaysFound = BOTH, source: IPAddress = ALICE
) -> None:
    """The first gateway is silent, so the second one carries the pair."""
    [lookup] = lookups(book.send(ping(1, source)))
    [(first, gateway)] = asked(book.send(happened.LookupEnded(lookup, outcome)))
    if gateway == SG_B:
        [(first, gateway)] = asked(book.send(silence(first)))
    assert gateway == SG_D
    up(book, first, SG_D, source)
    assert carrier(book, source) == SG_D


def alive(gateway: IPAddress, key: str = "") -> keying.KeyingChannelEstablished:
    here, there = TransportAddress(SG_A), TransportAddress(gateway)
    shown = rsa_key(key or NAMES[gateway])
    return keying.KeyingChannelEstablished(9, here, there, gateway, shown, True, "", 0.1)


def next_timer(book: Playbook) -> float:
    moment = book.gateway.next_timer()
    assert moment is not None
    return moment


class TestFailOver:
    def test_a_failure_counts_when_all_gateways_were_tried(self) -> None:
        third = ip_address("192.1.1.8")
        book = Playbook(default=opportunistic("default", on_failure=OnFailure.DROP))
        book.send(ping(1))
        outcome = homes((10, SG_B), (20, SG_D), (30, third))
        assert asked(book.send(happened.LookupEnded(1, outcome))) == [(0, SG_B)]
        assert asked(book.send(silence(0))) == [(2, SG_D)]
        assert asked(book.send(silence(2))) == [(4, third)]
        assert book.state() == "pending"
        commands = book.send(silence(4))
        assert do.DiscardHeld((1,), "no_tunnel") in commands
        assert book.state() == "denied"
        assert pair(book).reason == "silence: no answer (3 gateways tried)"

    @pytest.mark.parametrize(
        ("failures", "lifespan"),
        [
            ((Failure.SILENCE, Failure.SILENCE), 60.0),
            ((Failure.REFUSED, Failure.SILENCE), 600.0),
            ((Failure.SILENCE, Failure.REFUSED), 600.0),
            ((Failure.BAD_SIGNATURE, Failure.REFUSED), 777.0),
            ((Failure.REFUSED, Failure.WRONG_IDENTITY), 777.0),
            ((Failure.LIMIT, Failure.SILENCE), 60.0),
        ],
    )
    def test_the_most_telling_failure_decides_on_the_lifespan(
        self, failures: tuple[Failure, Failure], lifespan: float
    ) -> None:
        book = Playbook()
        lifespans = replace(book.gateway._ledger.settings.lifespans, bad_signature=777.0)
        ledger = book.gateway._ledger
        ledger.settings = replace(ledger.settings, lifespans=lifespans)
        book.send(ping(1))
        book.send(happened.LookupEnded(1, BOTH))
        for tunnel, failure in zip((0, 2), failures, strict=True):
            commands = book.send(keying.NegotiationFailed(tunnel, failure, "so it is"))
        [install] = of(do.InstallPolicy, commands)
        assert isinstance(install, do.InstallPolicy)
        assert install.lifespan == lifespan

    def test_a_failure_of_yesterday_says_nothing_today(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, homes((10, SG_B))))
        book.send(keying.NegotiationFailed(0, Failure.REFUSED, "no"))
        book.wait(600.0)
        [lookup] = lookups(book.send(ping(2)))
        book.send(happened.LookupEnded(lookup, homes((10, SG_B))))
        [install] = of(do.InstallPolicy, book.send(silence(2)))
        assert isinstance(install, do.InstallPolicy)
        assert install.lifespan == 60.0

    def test_no_more_gateways_than_a_few_are_tried(self) -> None:
        """A zone must not make us knock at a hundred doors."""
        book = Playbook()
        book.send(ping(1))
        many = homes(*((10 + n, ip_address(f"192.1.7.{n + 1}")) for n in range(100)))
        commands = book.send(happened.LookupEnded(1, many))
        tried = 0
        while book.state() == "pending":
            [(tunnel, _)] = asked(commands)
            tried += 1
            commands = book.send(silence(tunnel))
        assert tried == GATEWAYS_MOST

    def test_the_time_for_all_is_bounded_and_shared(self) -> None:
        third = ip_address("192.1.1.8")
        book = Playbook(multihoming=MultihomingSettings(patience=60.0))
        book.send(ping(1))
        outcome = homes((10, SG_B), (20, SG_D), (30, third))
        assert asked(book.send(happened.LookupEnded(1, outcome))) == [(0, SG_B)]
        assert next_timer(book) == book.now + 20.0
        assert book.wait(19.0) == []
        commands = book.wait(1.0)
        assert do.CloseTunnel(0) in commands
        assert asked(commands) == [(2, SG_D)]
        # The keying core confirms; that is no second failure.
        assert book.send(keying.NegotiationFailed(0, Failure.CANCELLED, "closed")) == []
        # SG-D fails early: the third has the rest.
        book.now += 4.0
        assert asked(book.send(silence(2))) == [(4, third)]
        assert asked(book.wait(35.0)) == []
        assert book.state() == "pending"
        assert do.CloseTunnel(4) in book.wait(1.0)
        assert book.state() == "clear"
        assert book.now == 1060.0

    def test_who_has_authenticated_itself_and_is_slow_is_not_silent(self) -> None:
        book = Playbook(multihoming=MultihomingSettings(patience=8.0))
        book.send(ping(1))
        book.send(happened.LookupEnded(1, BOTH))
        book.now += 1.0
        book.send(alive(SG_B))
        commands = book.wait(3.0)
        assert do.CloseTunnel(0) in commands
        assert asked(commands) == [(2, SG_D)]
        assert book.gateway.silent_gateways(book.now) == {}
        book.wait(4.0)
        assert pair(book).reason.startswith("refused: ")
        assert list(book.gateway.silent_gateways(book.now)) == [SG_D]

    def test_what_is_agreed_is_not_cut_short(self) -> None:
        book = Playbook(multihoming=MultihomingSettings(patience=4.0))
        book.send(ping(1))
        book.send(happened.LookupEnded(1, homes((10, SG_B))))
        up(book, 0, SG_B)
        assert of(do.CloseTunnel, book.wait(10.0)) == []
        assert book.state() == "keyed"


class TestSilentLately:
    def test_what_one_pair_has_waited_for_the_next_need_not(self) -> None:
        book = Playbook()
        by_second_gateway(book)
        book.send(ping(2, DAVE))
        assert asked(book.send(happened.LookupEnded(2, BOTH))) == [(4, SG_D)]
        assert book.gateway.silent_gateways(book.now) == {SG_B: 60.0}

    def test_until_the_silence_is_over(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, homes((10, SG_B))))
        book.send(silence(0))
        book.wait(60.0)
        [lookup] = lookups(book.send(ping(2, DAVE)))
        assert asked(book.send(happened.LookupEnded(lookup, BOTH))) == [(2, SG_B)]

    def test_a_dead_peer_is_silent_and_its_pairs_go_on_by_the_other_at_once(self) -> None:
        book = Playbook(default=opportunistic("default", on_failure=OnFailure.DROP))
        book.send(ping(1))
        book.send(happened.LookupEnded(1, BOTH))
        up(book, 0, SG_B)
        commands = book.send(keying.TunnelClosed(0, keying.DEAD_PEER))
        assert of(do.RemovePolicy, commands)  # held from now on, not clear
        assert of(do.InstallPolicy, commands) == []
        [lookup] = lookups(book.send(ping(2)))
        assert asked(book.send(happened.LookupEnded(lookup, BOTH))) == [(2, SG_D)]

    def test_a_delete_is_no_silence(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, BOTH))
        up(book, 0, SG_B)
        book.send(keying.TunnelClosed(0, "deleted by the peer"))
        [lookup] = lookups(book.send(ping(2)))
        assert asked(book.send(happened.LookupEnded(lookup, BOTH))) == [(2, SG_B)]

    def test_a_dns_without_answer_is_no_silence_of_the_gateway(self) -> None:
        """Its TXT record has no key, and the look-up of its KEY records gets no answer."""
        book = Playbook()
        keyless = FoundGateway(10, SG_B, None, (), keyless=True)
        book.send(ping(1))
        commands = book.send(
            happened.LookupEnded(1, GatewaysFound((keyless,), 3600.0, Trust.INSECURE))
        )
        [keys] = [c.lookup for c in commands if isinstance(c, do.StartKeyLookup)]
        book.send(happened.KeyLookupEnded(keys, Unanswered("time-out")))
        assert book.state() == "clear"
        assert pair(book).reason.startswith("no_key: key of 192.1.1.5")
        assert book.gateway.silent_gateways(book.now) == {}

    def test_who_is_heard_again_is_tried_first_again(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, homes((10, SG_B))))
        book.send(silence(0))
        book.send(alive(SG_B))
        [lookup] = lookups(book.send(ping(2, DAVE)))
        assert asked(book.send(happened.LookupEnded(lookup, BOTH))) == [(2, SG_B)]


class TestBackAgain:
    def test_the_preferred_gateway_is_tried_behind_the_standing_tunnel(self) -> None:
        book = Playbook()
        by_second_gateway(book)
        assert next_timer(book) <= book.now + 60.0
        assert book.wait(59.0) == []
        # The silence is over: what do the records say today?
        [lookup] = lookups(book.wait(1.0))
        commands = book.send(happened.LookupEnded(lookup, BOTH))
        assert asked(commands) == [(4, SG_B)]
        assert of(do.RemovePolicy, commands) == []
        assert book.state() == "keyed"
        assert carrier(book) == SG_D
        book.send(alive(SG_B))
        commands = up(book, 4, SG_B)
        # Make before break: nothing of the old tunnel goes, and the newest sends.
        assert of(do.RemoveSa, commands) == of(do.CloseTunnel, commands) == []
        assert carrier(book) == SG_B
        assert len(pair(book).tunnels) == 2
        assert lookups(book.wait(600.0)) == []

    def test_a_try_in_vain_costs_nothing_and_comes_once_in_each_silence(self) -> None:
        book = Playbook()
        by_second_gateway(book)
        for number in range(5):
            [lookup] = lookups(book.wait(60.0))
            [(tunnel, gateway)] = asked(book.send(happened.LookupEnded(lookup, BOTH)))
            assert gateway == SG_B, number
            book.now += 15.5  # its retransmissions
            assert of(do.RemovePolicy, book.send(silence(tunnel))) == []
            assert book.state() == "keyed"
            assert carrier(book) == SG_D
            book.now -= 15.5
            # The silence counts from the beginning of the try.
            assert next_timer(book) == pytest.approx(book.now + 60.0)

    def test_one_pair_is_the_scout_for_all_and_the_others_follow_a_few_at_a_time(self) -> None:
        book = Playbook()
        inside = [ip_address(f"192.1.0.{n}") for n in range(100, 150)]
        for source in inside:
            by_second_gateway(book, source=source)
        [lookup] = lookups(book.wait(60.0))  # one, not fifty
        [(tunnel, _)] = asked(book.send(happened.LookupEnded(lookup, BOTH)))
        book.send(alive(SG_B))
        waiting = lookups(up(book, tunnel, SG_B, inside[0]))
        led = 1
        assert len(waiting) == RETURNS_MOST
        while waiting:
            assert len(waiting) <= RETURNS_MOST
            lookup = waiting.pop(0)
            [(tunnel, gateway)] = asked(book.send(happened.LookupEnded(lookup, BOTH)))
            assert gateway == SG_B
            waiting += lookups(up(book, tunnel, SG_B, inside[led]))
            led += 1
        assert led == len(inside)
        assert {carrier(book, source) for source in inside} == {SG_B}

    def test_a_scout_that_finds_silence_is_the_only_one(self) -> None:
        book = Playbook()
        for n in range(100, 110):
            by_second_gateway(book, source=ip_address(f"192.1.0.{n}"))
        [lookup] = lookups(book.wait(60.0))
        [(tunnel, _)] = asked(book.send(happened.LookupEnded(lookup, BOTH)))
        assert lookups(book.send(silence(tunnel))) == []
        assert len(lookups(book.wait(60.0))) == 1

    def test_a_scout_that_is_refused_does_not_keep_the_others_back(self) -> None:
        book = Playbook()
        for n in (100, 101):
            by_second_gateway(book, source=ip_address(f"192.1.0.{n}"))
        [lookup] = lookups(book.wait(60.0))
        [(tunnel, _)] = asked(book.send(happened.LookupEnded(lookup, BOTH)))
        refused = keying.NegotiationFailed(tunnel, Failure.REFUSED, "not that one")
        assert len(lookups(book.send(refused))) == 1

    def test_a_gateway_that_shows_itself_is_gone_back_to_at_once(self) -> None:
        book = Playbook()
        by_second_gateway(book)
        [lookup] = lookups(book.send(alive(SG_B)))
        assert asked(book.send(happened.LookupEnded(lookup, BOTH))) == [(4, SG_B)]

    @pytest.mark.parametrize(
        "outcome",
        [
            homes((20, SG_D)),
            homes((30, SG_B), (20, SG_D)),
            NothingFound(60.0, "no record"),
            Unanswered("time-out"),
        ],
    )
    def test_records_that_say_otherwise_today_are_heeded(self, outcome: GatewaysFound) -> None:
        book = Playbook()
        by_second_gateway(book)
        [lookup] = lookups(book.wait(60.0))
        assert book.send(happened.LookupEnded(lookup, outcome)) == []
        assert carrier(book) == SG_D

    def test_without_an_answer_of_the_dns_it_is_asked_again_later(self) -> None:
        book = Playbook()
        by_second_gateway(book)
        [lookup] = lookups(book.wait(60.0))
        assert book.send(happened.LookupEnded(lookup, Unanswered("time-out"))) == []
        assert lookups(book.wait(59.0)) == []
        assert len(lookups(book.wait(1.0))) == 1

    @pytest.mark.parametrize("require", list(Require))
    def test_the_policy_demands_as_much_of_the_way_back(self, require: Require) -> None:
        book = Playbook(default=opportunistic("default", require=require))
        by_second_gateway(book, homes((10, SG_B), (20, SG_D), trust=Trust.SECURE))
        commands = book.wait(60.0)
        [lookup] = lookups(commands)
        strict = require is Require.SECURE
        assert do.StartLookup(lookup, BOB, with_keys=strict, ours=True) in commands
        assert pair(book).trust is Trust.SECURE
        commands = book.send(happened.LookupEnded(lookup, BOTH))  # insecure today
        assert bool(asked(commands)) == (require is Require.ANY)
        if require is Require.ANY:
            assert pair(book).trust is Trust.SECURE  # the standing tunnel's
            up(book, 4, SG_B)
            assert pair(book).trust is Trust.INSECURE

    def test_among_equals_nobody_is_preferred(self) -> None:
        book = Playbook()
        by_second_gateway(book, homes((10, SG_B), (10, SG_D)))
        assert lookups(book.wait(60.0)) == []
        assert carrier(book) == SG_D

    def test_a_pair_that_ended_meanwhile_is_left_alone(self) -> None:
        book = Playbook()
        by_second_gateway(book)
        [lookup] = lookups(book.wait(60.0))
        book.send(keying.TunnelClosed(2, "deleted by the peer"))
        assert book.send(happened.LookupEnded(lookup, BOTH)) == []

    def test_a_try_in_the_background_is_no_hope_to_build_on(self) -> None:
        """The standing tunnel ends: the next packet begins anew, and does not wait for the try."""
        book = Playbook()
        by_second_gateway(book)
        [lookup] = lookups(book.wait(60.0))
        [(tunnel, _)] = asked(book.send(happened.LookupEnded(lookup, BOTH)))
        commands = book.send(keying.TunnelClosed(2, "deleted by the peer"))
        assert do.CloseTunnel(tunnel) in commands
        assert book.state() is None
        book.send(keying.NegotiationFailed(tunnel, Failure.CANCELLED, "closed"))
        assert len(lookups(book.send(ping(9)))) == 1

    def test_a_pair_begun_by_the_second_gateway_knows_the_first_by_its_delegation(self) -> None:
        """SG-D speaks for Bob because Bob says so, and what he says names SG-B as well."""
        book = Playbook()
        book.send(ping(1, DAVE))
        book.send(happened.LookupEnded(1, homes((10, SG_B))))
        book.send(silence(0))
        event = proposal(1, identity=SG_D, key="sg-d", address=SG_D)
        [lookup] = lookups(book.send(event))
        assert book.send(happened.LookupEnded(lookup, BOTH)) == [do.AcceptTunnel(1)]
        up(book, 1, SG_D)
        # A kilobyte for each key, for as long as there is the connection: the gateways will do.
        assert [(g.address, g.keys) for g in pair(book).homes] == [(SG_B, ()), (SG_D, ())]
        [lookup] = lookups(book.wait(60.0))
        assert asked(book.send(happened.LookupEnded(lookup, BOTH))) == [(2, SG_B)]
        assert not any(home.keys for home in pair(book).homes)


def two_tunnels(choice: Choice) -> Playbook:
    """SG-B and SG-D, of equal precedence, have each a tunnel for Alice and Bob; SG-D's is newer."""
    book = Playbook(multihoming=MultihomingSettings(choice=choice))
    equal = homes((10, SG_B), (10, SG_D))
    for tunnel, gateway in ((1, SG_B), (3, SG_D)):
        event = proposal(tunnel, identity=gateway, key=NAMES[gateway], address=gateway)
        [lookup] = lookups(book.send(event))
        book.send(happened.LookupEnded(lookup, equal))
        assert of(do.PreferSa, up(book, tunnel, gateway)) == []
    assert carrier(book) == SG_D
    return book


def used(received: dict[int, float | None], sent: float = 1000.0) -> happened.UsageReported:
    """When the tunnels last received a packet, and sent one."""
    usage = {}
    for tunnel, when in received.items():
        gateway = SG_B if tunnel == 1 else SG_D
        usage[inbound_key(0x1000 + tunnel)] = Usage(1, 84, when)
        usage[sending(tunnel, gateway)] = Usage(1, 84, sent)
    return happened.UsageReported(usage)


def renewed(book: Playbook, tunnel: int) -> list[tuple[int, IPAddress]]:
    """A tunnel's life is nearly over, and the DNS says what it said before."""
    commands = book.send(keying.TunnelExpiring(tunnel))
    [lookup] = lookups(commands)
    return asked(book.send(happened.LookupEnded(lookup, BOTH)))


def preferred(commands: list[Command]) -> list[SaKey]:
    return [c.key for c in commands if isinstance(c, do.PreferSa)]


class TestWhichTunnelSends:
    def test_option_5_the_one_keyed_last(self) -> None:
        book = two_tunnels(Choice.REKEYED)
        assert preferred(book.send(used({1: 1009.0, 3: 1001.0}))) == []
        assert carrier(book) == SG_D

    def test_option_2_the_one_received_from_last(self) -> None:
        book = two_tunnels(Choice.RECEIVED)
        assert preferred(book.send(used({1: None, 3: None}))) == []
        assert preferred(book.send(used({1: 1001.0, 3: 1005.0}))) == []
        assert preferred(book.send(used({1: 1006.0, 3: 1005.0}))) == [sending(1, SG_B)]
        assert carrier(book) == SG_B
        assert preferred(book.send(used({1: 1006.0, 3: 1005.0}))) == []
        assert preferred(book.send(used({1: 1006.0, 3: 1006.0}))) == []  # a tie changes nothing
        assert preferred(book.send(used({1: 1006.0, 3: 1007.0}))) == [sending(3, SG_D)]
        assert carrier(book) == SG_D

    def test_option_1_each_in_turn(self) -> None:
        book = two_tunnels(Choice.ROUND_ROBIN)
        turns = [preferred(book.send(used({1: 1001.0, 3: 1001.0}, 1000.0 + n))) for n in range(4)]
        assert turns == [[sending(1, SG_B)], [sending(3, SG_D)]] * 2
        # Who has sent nothing in its turn keeps it.
        assert preferred(book.send(used({1: 1004.0, 3: 1004.0}, 1003.0))) == []
        assert preferred(book.send(used({1: 1004.0, 3: 1004.0}, 1005.0))) == [sending(1, SG_B)]

    @pytest.mark.parametrize("choice", [Choice.RECEIVED, Choice.ROUND_ROBIN])
    def test_one_tunnel_leaves_no_choice(self, choice: Choice) -> None:
        book = two_tunnels(choice)
        book.send(keying.TunnelClosed(3, "deleted by the peer"))
        assert carrier(book) == SG_B
        assert preferred(book.send(used({1: 1001.0}))) == []

    @pytest.mark.parametrize("choice", [Choice.RECEIVED, Choice.ROUND_ROBIN])
    def test_a_successor_is_no_rival_of_the_tunnel_before_it(self, choice: Choice) -> None:
        book = two_tunnels(choice)
        book.send(keying.TunnelClosed(1, "deleted by the peer"))
        event = proposal(5, identity=SG_D, key="sg-d", address=SG_D)
        [lookup] = lookups(book.send(event))
        book.send(happened.LookupEnded(lookup, BOTH))
        up(book, 5, SG_D)
        assert len(pair(book).tunnels) == 2
        assert preferred(book.send(used({3: 1009.0, 5: None}))) == []

    def test_what_a_tunnel_receives_while_it_is_replaced_counts_for_its_gateway(self) -> None:
        book = two_tunnels(Choice.RECEIVED)
        event = proposal(5, identity=SG_D, key="sg-d", address=SG_D)
        [lookup] = lookups(book.send(event))
        book.send(happened.LookupEnded(lookup, BOTH))
        up(book, 5, SG_D)
        assert preferred(book.send(used({1: 1002.0, 3: 1003.0, 5: None}))) == []
        assert preferred(book.send(used({1: 1004.0, 3: 1003.0, 5: None}))) == [sending(1, SG_B)]
        # The newer one of the two sends, should it be SG-D's turn again.
        assert preferred(book.send(used({1: 1004.0, 3: 1005.0, 5: None}))) == [sending(5, SG_D)]

    def test_our_own_successor_takes_the_place_of_its_own_predecessor_only(self) -> None:
        """SG-D sends; that SG-B's tunnel is renewed by us must not change that (option 5)."""
        book = two_tunnels(Choice.REKEYED)
        book.send(used({1: book.now, 3: book.now}))
        [(successor, gateway)] = renewed(book, 1)
        assert gateway == SG_B
        assert preferred(up(book, successor, SG_B)) == [sending(3, SG_D)]
        assert carrier(book) == SG_D
        [(successor, gateway)] = renewed(book, 3)
        assert gateway == SG_D
        assert preferred(up(book, successor, SG_D)) == []
        assert carrier(book) == SG_D

    @pytest.mark.parametrize(
        ("choice", "tunnel", "heard", "lives"),
        [
            (Choice.REKEYED, 1, None, False),
            (Choice.REKEYED, 1, 1000.0, False),
            (Choice.REKEYED, 1, 1060.0, True),
            (Choice.RECEIVED, 1, None, False),
            (Choice.ROUND_ROBIN, 1, None, True),
            (Choice.REKEYED, 3, None, True),
        ],
    )
    def test_a_tunnel_that_neither_sends_nor_receives_is_not_renewed(
        self, choice: Choice, tunnel: int, heard: float | None, lives: bool
    ) -> None:
        book = two_tunnels(choice)
        book.send(used({tunnel: heard}))
        book.now = 1061.0
        assert bool(lookups(book.send(keying.TunnelExpiring(tunnel)))) == lives

    def test_a_crossed_initiation_with_one_gateway_leaves_the_other_alone(self) -> None:
        book = two_tunnels(Choice.REKEYED)
        event = proposal(5, identity=SG_D, key="sg-d", address=SG_D)
        [lookup] = lookups(book.send(event))
        book.send(happened.LookupEnded(lookup, BOTH))
        up(book, 5, SG_D)
        assert book.send(keying.TunnelPreferred(3)) == [do.RemoveSa(sending(5, SG_D))]
        tunnels = pair(book).tunnels
        assert [n for n, t in tunnels.items() if t.receives_only] == [5]
        assert carrier(book) == SG_D
        book.send(keying.TunnelClosed(3, "deleted by the peer"))
        assert carrier(book) == SG_B


class TestKeyMemory:
    def test_clear_after_encrypted_is_told_once_for_each_verdict(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, homes((10, SG_B))))
        up(book, 0, SG_B)
        book.send(keying.TunnelClosed(0, keying.DEAD_PEER))
        book.send(ping(2))
        book.send(happened.LookupEnded(2, homes((10, SG_B))))
        book.send(silence(2))
        assert book.state() == "clear"
        [line] = [f for c, e, f in book.trace.lines if (c, e) == ("memory", "encrypted_before")]
        assert line["gateway"] == "192.1.1.5"
        assert (line["source"], line["destination"]) == (ip_network(ALICE), ip_network(BOB))
        assert pair(book).encrypted_before == "192.1.1.5"
        # Encrypted again: no complaint stays.
        event = proposal(1)
        [lookup] = lookups(book.send(event))
        book.send(happened.LookupEnded(lookup, homes((10, SG_B))))
        up(book, 1, SG_B)
        assert pair(book).encrypted_before == ""

    def test_a_pair_that_never_had_a_tunnel_is_no_downgrade(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, NothingFound(60.0, "no record")))
        assert book.state() == "clear"
        assert pair(book).encrypted_before == ""
        assert not any(c == "memory" for c, _, _ in book.trace.lines)

    def test_the_operator_can_forget_it(self) -> None:
        book = Playbook()
        book.send(ping(1))
        book.send(happened.LookupEnded(1, homes((10, SG_B))))
        up(book, 0, SG_B)
        book.send(keying.TunnelClosed(0, "deleted by the peer"))
        book.gateway.forget(ip_network(BOB), book.now)
        book.send(ping(2))
        book.send(happened.LookupEnded(2, NothingFound(60.0, "no record")))
        assert not any(c == "memory" for c, _, _ in book.trace.lines)

    def test_another_key_than_last_time_is_told(self) -> None:
        book = Playbook()
        for key in ("sg-b", "sg-b", "mallory", "mallory"):
            book.send(alive(SG_B, key))
        [line] = [f for c, e, f in book.trace.lines if (c, e) == ("memory", "key_changed")]
        assert line["identity"] == SG_B

    def test_what_peers_began_is_forgotten_first(self) -> None:
        book = Playbook()
        book.send(ping(1, DAVE))
        book.send(happened.LookupEnded(1, homes((10, SG_B))))
        up(book, 0, SG_B, DAVE)
        [lookup] = lookups(book.send(proposal(1)))
        book.send(happened.LookupEnded(lookup, homes((10, SG_B))))
        up(book, 1, SG_B)
        book.send(alive(SG_B))
        book.send(replace(alive(SG_D), initiator=False))
        memory = book.gateway.memory
        assert list(memory._pairs._guests) == [pair_text(pair(book).selectors)]
        assert list(memory._gateways._guests) == [str(SG_D)]
