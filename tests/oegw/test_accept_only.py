"""Rules with ``initiate = false``: "accept OE but do not initiate it" (RFC 4322 section 3.3.2)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

import ike.events as keying
from oegw import commands as do
from oegw import events as happened
from oegw.commands import Verdict
from oegw.ledger import Lifespans
from policy.flow import Flow
from policy.rule import OnFailure, PortRange, Scope
from policy.table import PolicyTable
from tests.support.playbook import (
    ALICE,
    BOB,
    SG_A,
    SG_B,
    Playbook,
    esp_sa,
    found,
    inbound_key,
    opportunistic,
    outbound_key,
    ping,
    proposal,
)

PAIR = Scope(ip_network(ALICE), ip_network(BOB))
BOTH = pytest.mark.parametrize("on_failure", list(OnFailure))
CACHED = Lifespans().policy


def accepting(on_failure: OnFailure = OnFailure.CLEAR) -> Playbook:
    return Playbook(default=opportunistic("passive", on_failure=on_failure, initiate=False))


def peer_begins(book: Playbook, lookup: int = 1) -> list[do.Command]:
    """SG-B proposes Bob to Alice, and its tunnel comes up; returns the last step's commands."""
    book.send(proposal())
    book.send(happened.LookupEnded(lookup, found((SG_B, "sg-b"))))
    book.send(keying.InboundSaEstablished(1, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE))))
    book.send(happened.SaInstalled(1, inbound_key(0x1001)))
    book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
    return book.send(happened.SaInstalled(1, outbound_key(0x2001)))


def test_clear_packet_goes_on_at_once_and_nothing_is_looked_up() -> None:
    book = accepting()
    assert book.send(ping(1)) == [
        do.InstallPolicy(PAIR, Verdict.CLEAR, CACHED),
        do.ReleaseHeld((1,), Verdict.CLEAR),
    ]
    assert book.state() == "clear"


def test_under_drop_it_is_dropped_at_once() -> None:
    book = accepting(OnFailure.DROP)
    assert book.send(ping(1)) == [
        do.InstallPolicy(PAIR, Verdict.DENY, CACHED),
        do.DiscardHeld((1,), "denied"),
    ]
    assert book.state() == "denied"


@BOTH
def test_verdict_is_cached_for_its_lifespan(on_failure: OnFailure) -> None:
    book = accepting(on_failure)
    book.send(ping(1))
    assert book.wait(CACHED) == [do.RemovePolicy(PAIR)]
    assert book.state() == "expiring"
    # Nothing is to be asked: the packet that shows the use has the verdict back as it was.
    verdict = Verdict.DENY if on_failure is OnFailure.DROP else Verdict.CLEAR
    assert book.send(ping(2))[0] == do.InstallPolicy(PAIR, verdict, CACHED)
    book.wait(CACHED)
    book.wait(120)
    assert book.state() is None, "no packet came, and it is forgotten"


@BOTH
def test_tunnel_of_the_peer_replaces_the_verdict_at_once(on_failure: OnFailure) -> None:
    book = accepting(on_failure)
    book.send(ping(1))
    assert peer_begins(book)[-1] == do.InstallPolicy(
        PAIR, Verdict.TUNNEL, None, on_failure is OnFailure.DROP
    )
    assert book.wait(10 * CACHED) == [do.QueryUsage()]  # the verdict's lifespan ends nothing
    assert book.state() == "keyed"


@BOTH
def test_packet_while_the_peer_negotiates_waits_for_its_tunnel(on_failure: OnFailure) -> None:
    book = accepting(on_failure)
    book.send(proposal())
    book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
    assert book.send(ping(1)) == []  # held, and nothing asked
    book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
    commands = book.send(happened.SaInstalled(1, outbound_key(0x2001)))
    assert commands[-1] == do.ReleaseHeld((1,), Verdict.TUNNEL)


@BOTH
def test_after_the_tunnel_the_rule_decides_again(on_failure: OnFailure) -> None:
    book = accepting(on_failure)
    peer_begins(book)
    book.send(keying.TunnelClosed(1, "deleted by the peer"))
    clear = on_failure is OnFailure.CLEAR
    assert book.send(ping(2))[-1] == (
        do.ReleaseHeld((2,), Verdict.CLEAR) if clear else do.DiscardHeld((2,), "denied")
    )


def test_tunnel_for_the_whole_pair_replaces_the_verdict_of_a_port() -> None:
    web = opportunistic("web", protocol=6, destination_ports=PortRange(80, 80), initiate=False)
    book = Playbook(web, default=opportunistic("rest", initiate=False))
    book.send(happened.PacketTrapped(Flow(ALICE, BOB, 6, 4000, 80), 1, 60))
    narrow = Scope(PAIR.source, PAIR.destination, 6, destination_ports=PortRange(80, 80))
    # The kernel asks the narrower verdict first.
    assert do.RemovePolicy(narrow) in peer_begins(book)
    flow = Flow(ALICE, BOB, 6, 4000, 80)
    assert book.send(happened.PacketTrapped(flow, 2, 60))[-1] == do.ReleaseHeld(
        (2,), Verdict.TUNNEL
    )


def test_verdict_of_another_port_is_left_alone() -> None:
    """A tunnel for one port carries nothing of another port's."""
    web = opportunistic("web", protocol=6, destination_ports=PortRange(80, 80))
    mail = opportunistic("mail", protocol=6, destination_ports=PortRange(25, 25), initiate=False)
    book = Playbook(web, mail)
    book.send(happened.PacketTrapped(Flow(ALICE, BOB, 6, 4000, 25), 1, 60))
    book.send(happened.PacketTrapped(Flow(ALICE, BOB, 6, 4000, 80), 2, 60))
    book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
    book.send(keying.OutboundSaEstablished(0, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
    commands = book.send(happened.SaInstalled(0, outbound_key(0x2001)))
    assert not any(isinstance(c, do.RemovePolicy) for c in commands)
    assert book.send(happened.PacketTrapped(Flow(ALICE, BOB, 6, 4001, 25), 3, 60))[
        -1
    ] == do.ReleaseHeld((3,), Verdict.CLEAR)


def test_set_up_counts_on_nobodys_account() -> None:
    book = accepting()
    for number in range(100):  # more than one source may have under way
        flow = Flow(ALICE, SG_B + number, 1)
        [_, last] = book.send(happened.PacketTrapped(flow, number, 84))
        assert last == do.ReleaseHeld((number,), Verdict.CLEAR)


def test_reload_stops_a_look_up_that_the_new_policy_does_not_begin() -> None:
    book = Playbook()
    assert book.send(ping(1)) == [do.StartLookup(1, BOB)]
    new = PolicyTable((), opportunistic("default", initiate=False))
    commands = book.gateway.replace_policy(new, {}, book.now)
    assert do.CancelLookup(1) in commands
    assert book.send(ping(2))[-1] == do.ReleaseHeld((2,), Verdict.CLEAR)


def test_reload_keeps_the_tunnel_of_the_peer() -> None:
    book = accepting()
    peer_begins(book)
    new = PolicyTable((), opportunistic("default"))
    assert do.CloseTunnel(1) not in book.gateway.replace_policy(new, {}, book.now)
    assert book.send(ping(2))[-1] == do.ReleaseHeld((2,), Verdict.TUNNEL)


def test_answer_is_not_clear_any_more_once_the_peer_knows_that_we_receive() -> None:
    """Its first packet may be there before our side of the tunnel is up; it may drop all else."""
    book = accepting()
    book.send(ping(1))
    book.send(proposal())
    book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
    assert book.state() == "clear"
    book.send(keying.InboundSaEstablished(1, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE))))
    assert book.send(happened.SaInstalled(1, inbound_key(0x1001))) == [
        do.RemovePolicy(PAIR),
        do.ConfirmInbound(1),
    ]
    assert book.send(ping(2)) == []
    book.send(keying.OutboundSaEstablished(1, esp_sa(SG_A, SG_B, 0x2001, (ALICE, BOB))))
    assert book.send(happened.SaInstalled(1, outbound_key(0x2001)))[-1] == do.ReleaseHeld(
        (2,), Verdict.TUNNEL
    )


def test_clear_again_after_a_peer_that_never_finished() -> None:
    book = accepting()
    book.send(ping(1))
    book.send(proposal())
    book.send(happened.LookupEnded(1, found((SG_B, "sg-b"))))
    book.send(keying.InboundSaEstablished(1, esp_sa(SG_B, SG_A, 0x1001, (BOB, ALICE))))
    book.send(happened.SaInstalled(1, inbound_key(0x1001)))
    book.send(ping(2))
    failed = keying.NegotiationFailed(1, keying.Failure.SILENCE, "no message 3")
    assert do.DiscardHeld((2,), "connection_over") in book.send(failed)
    assert book.send(ping(3))[-1] == do.ReleaseHeld((3,), Verdict.CLEAR)
