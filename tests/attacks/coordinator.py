"""Attacks on the gateway's decisions: rows 16, 18 to 22, 24 and 25."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import ike.events as keying
from dnsrecords.budget import Budget
from dnsrecords.outcome import KeysFound
from dnsrecords.trust import Trust
from ike.events import TransportAddress
from oegw import commands as do
from oegw import events as happened
from oegw.commands import Verdict
from oegw.datapath.interface import SaExpired, UnknownSpiReceived
from oegw.keyingport import KeyingPort
from oegw.peer import ConfiguredPeer
from policy.rule import OnFailure, Rule
from tests.attacks.frame import attack, replaced
from tests.oegw.test_gateway import TestBounds, TestResponder, keyed
from tests.support.playbook import (
    SG_B,
    SG_D,
    Playbook,
    configured,
    found,
    opportunistic,
    outbound_key,
    ping,
    proposal,
    rsa_key,
)


@attack(
    16,
    "A host of ours sprays packets at addresses nobody has",
    source="oe-flood-deadlock-01; the howto: one look-up for each forged source",
    defence="oegw/initiator.py Initiator.packet_trapped",
    otherwise="each packet is a look-up and a negotiation",
    without=replaced(("oegw.connections.ConnectionTable.under_way", lambda self, source: 0)),
)
def scanner() -> None:
    TestBounds().test_scanner_does_not_become_a_flood_of_look_ups()


@attack(
    16,
    "50,000 packets in a second, each with another forged source",
    source="the howto: one look-up for each forged source; oe-flood-deadlock-01",
    defence="oegw/setups.py SetupBudget.refuses",
    otherwise="each forged source is a look-up, and the limits for one source see nothing",
    without=replaced(("oegw.setups.SetupBudget.refuses", lambda self, under_way, now: None)),
)
def forged_sources_inside() -> None:
    book = Playbook()
    keyed(book)
    lookups = dropped = 0
    for number in range(50_000):
        book.now += 1 / 50_000
        source = ip_address(0xC1000000 + number)
        commands = book.send(ping(number + 10, source=source))
        lookups += sum(isinstance(c, do.StartLookup) for c in commands)
        dropped += sum(isinstance(c, do.DiscardHeld) for c in commands)
        assert lookups <= 1000, "more look-ups than the budget has"
    assert lookups + dropped == 50_000
    assert lookups <= 501  # those of a second, and a burst
    assert book.send(ping(9))[-1] == do.ReleaseHeld((9,), Verdict.TUNNEL), "a tunnel goes on"


@attack(
    16,
    "A flood of questions to the DNS, whoever causes them",
    source="oe-flood-deadlock-01",
    defence="dnsrecords/budget.py Budget.refusal",
    otherwise="strangers' questions take all, and configured peers' none are left",
    without=replaced(
        ("dnsrecords.budget.Budget.refusal", lambda self, under_way, now, *, ours: None)
    ),
)
def questions_without_end() -> None:
    budget = Budget()
    asked = sum(
        budget.refusal(0, 100.0 + number / 50_000, ours=False) is None for number in range(50_000)
    )
    assert asked <= 1500
    assert budget.refusal(0, 101.0, ours=True) is None, "nothing is left for our own"
    assert budget.refusal(200, 200.0, ours=False) is not None
    assert budget.refusal(200, 200.0, ours=True) is None


@attack(
    16,
    "20,000 messages 1 with forged sources, for each of which a key might be looked up ahead",
    source="RFC 4322 section 12.3",
    defence="oegw/ahead.py Ahead.exchange_started",
    otherwise="each forged message 1 is a question to the DNS",
    without=replaced(("oegw.ahead.UNDER_WAY", 1 << 30), ("oegw.ahead.BURST", 1 << 30)),
)
def look_ups_ahead_of_forged_sources() -> None:
    book = Playbook()
    local, asked = TransportAddress(ip_address("192.1.1.4")), 0
    for number in range(20_000):
        remote = TransportAddress(ip_address(0xC1000000 + number))
        commands = book.send(keying.ExchangeStarted(number, local, remote))
        asked += sum(isinstance(c, do.StartKeyLookup) for c in commands)
    assert asked <= 50


@attack(
    16,
    "Packets for so many pairs that the table is full",
    source="oe-flood-deadlock-01",
    defence="oegw/ledger.py Ledger.room",
    otherwise="the table grows for as long as somebody sends",
    without=replaced(("oegw.ledger.Ledger.room", lambda self, now: True)),
)
def full_table() -> None:
    TestBounds().test_connections_are_bounded()


def _keep_all(self: Any, connection: int, packet: int, size: int, *more: Any) -> None:
    """Hold.keep without limits."""
    self.packets += 1
    self.octets += size


@attack(
    16,
    "Thousands of packets that wait for a verdict",
    source="oe-flood-deadlock-01",
    defence="oegw/hold.py Hold.keep",
    otherwise="they wait in memory, all of them",
    without=replaced(("oegw.hold.Hold.keep", _keep_all)),
)
def held_packets() -> None:
    book = Playbook(
        setups_per_source=1 << 20, connections=1 << 20, setups=1 << 20, setups_per_second=1e9
    )
    discarded = 0
    for number in range(3000):
        destination = ip_address(0xC0020000 + number)
        for again in range(2):
            commands = book.send(ping(2 * number + again, destination=destination))
            discarded += sum(isinstance(c, do.DiscardHeld) for c in commands)
    packets, octets = book.gateway.held
    assert packets + discarded == 6000
    assert packets <= 1024
    assert octets <= 4 * 1024 * 1024


class _Sockets:
    """A socket that has an error queued by ICMP, then a message."""

    def __init__(self) -> None:
        self.left: list[Any] = [
            OSError(errno.ECONNREFUSED, "port unreachable"),
            OSError(errno.EHOSTUNREACH, "host unreachable"),
            (b"message 2", ("192.1.1.5", 500)),
            BlockingIOError(),
        ]
        self.closed = False

    def recvfrom(self, size: int) -> Any:
        following = self.left.pop(0)
        if isinstance(following, Exception):
            raise following
        return following

    def close(self) -> None:
        self.closed = True


def _end_at_an_error(self: KeyingPort, local: TransportAddress) -> None:
    try:
        data, sender = self._sockets[local].recvfrom(65535)
    except OSError:
        self._sockets[local].close()
        return
    self._receiver(data, local, TransportAddress(ip_address(sender[0]), sender[1]))


@attack(
    18,
    "Forged ICMP unreachables while a negotiation runs",
    source="RFC 4322 section 9.2",
    defence="oegw/keyingport.py KeyingPort._readable",
    otherwise="one forged ICMP message ends what is under way",
    without=replaced(("oegw.keyingport.KeyingPort._readable", _end_at_an_error)),
)
def forged_unreachables() -> None:
    received: list[bytes] = []
    port = KeyingPort((), 0, lambda data, local, remote: received.append(data))
    local, sockets = TransportAddress(ip_address("192.1.1.4")), _Sockets()
    port._sockets[local] = sockets  # type: ignore[assignment]
    port._readable(local)
    assert received == [b"message 2"]
    assert not sockets.closed


def _accept_all(selectors: Any, table: Any) -> Rule:
    return table.default


@attack(
    20,
    "A stranger proposes a configured peer's network, or a part of it",
    source="RFC 4322 section 12.1",
    defence="oegw/peer.py opportunistic_rule",
    otherwise="configured traffic goes to whoever asked for it",
    without=replaced(("oegw.peer.opportunistic_rule", _accept_all)),
)
def network_of_a_configured_peer() -> None:
    rule = configured("office", "192.1.0.0/24", "192.2.0.0/24")
    book = Playbook(rule, peers={"office": ConfiguredPeer(SG_B, rsa_key("sg-b"))})
    for number, remote in enumerate(("192.2.0.0/24", "192.2.0.66/32", "0.0.0.0/0")):
        local = "192.1.0.0/24" if number != 1 else "192.1.0.65/32"
        stranger = proposal(
            tunnel=2 * number + 1, identity=SG_D, key="sg-d", local=local, remote=remote
        )
        commands = book.send(stranger)
        # He has published delegations by his clients, as anybody may for his own addresses.
        for command in list(commands):
            if isinstance(command, do.StartLookup):
                commands += book.send(happened.LookupEnded(command.lookup, found((SG_D, "sg-d"))))
        assert not any(isinstance(c, do.AcceptTunnel) for c in commands), remote
        assert any(isinstance(c, do.RefuseTunnel) for c in commands), remote


def _always_by_dns(self: Any, event: Any, now: float) -> None:
    self._ledger.do(do.StartKeyLookup(self._ledger.start_lookup(event), event.identity))


@attack(
    21,
    "Phase 1 with the identity of a configured peer, and a key from the DNS",
    source="newoe-27-replace-sa-auth-authnull; RFC 4322 section 12.1",
    defence="oegw/responder.py Responder.peer_key_needed",
    otherwise="whoever can write into that peer's zone is that peer",
    without=replaced(("oegw.responder.Responder.peer_key_needed", _always_by_dns)),
)
def identity_of_a_configured_peer() -> None:
    rule = configured("office", "192.1.0.0/24", "192.2.0.0/24")
    book = Playbook(rule, peers={"office": ConfiguredPeer(SG_B, rsa_key("sg-b"))})
    needed = keying.PeerKeyNeeded(9, SG_B, TransportAddress(SG_B))
    commands = book.send(needed)
    for command in list(commands):
        if isinstance(command, do.StartKeyLookup):
            outcome = KeysFound((rsa_key("mallory"),), 60.0, Trust.INSECURE)
            commands += book.send(happened.KeyLookupEnded(command.lookup, outcome))
    [provided] = [c for c in commands if isinstance(c, do.ProvidePeerKeys)]
    assert provided.keys == (rsa_key("sg-b"),)


@attack(
    22,
    "10,000 forged ESP packets a minute in the name of a gateway that we have a tunnel with, and "
    "as many notices that it does not know our SPI",
    source="RFC 4322 section 3.2.6",
    defence="oegw/recovery.py Recovery._may_try",
    otherwise="each is an attempt at a new keying channel",
    without=replaced(("oegw.recovery.Recovery._may_try", lambda self, peer, now: True)),
)
def forged_signs_of_a_restart() -> None:
    book = Playbook()
    keyed(book)
    attempts = 0
    for number in range(10_000):
        book.now += 60.0 / 10_000
        commands = book.send(UnknownSpiReceived(SG_B, ip_address("192.1.1.4"), 0x9000 + number))
        commands += book.send(keying.SpiRefused(TransportAddress(SG_B), 0x2001, False))
        attempts += len(commands)
    assert attempts <= 2, "more than one in a minute"
    # Strangers get nothing at all, and nothing is sent to where a packet claims to come from.
    for number in range(1000):
        stranger = ip_address(0xC1000000 + number)
        assert book.send(UnknownSpiReceived(stranger, ip_address("192.1.1.4"), 0x9000)) == []


_ANY_RECORD_IS_ENOUGH = replaced(
    ("oegw.peer.delegated", lambda gateways, identity, key, **more: gateways[0])
)


@attack(
    24,
    "A client's record names another gateway, or this one with another key",
    source="draft section 4.12.3; RFC 4322 section 3.3.2",
    defence="oegw/peer.py delegated",
    otherwise="a gateway speaks for clients that gave leave to another",
    without=_ANY_RECORD_IS_ENOUGH,
)
def delegation_of_another_gateway() -> None:
    for delegations in (((SG_D, "sg-b"),), ((SG_B, "sg-d"),)):
        TestResponder().test_delegation_hijack_is_refused(delegations)


@attack(
    24,
    "Whoever owns a reverse zone names a victim's gateway there, with a key of his own, and then "
    "proposes as that gateway",
    source="draft section 4.9 (the key is that of the identity's KEY record)",
    defence="oegw/responder.py Responder.tunnel_proposed",
    otherwise="he speaks for the victim's own address, with a key that the victim never published",
    without=replaced(
        (
            "oegw.responder.Responder._prove",
            lambda self, channel: self._proven.__setitem__(8, None),
        )
    ),
)
def key_of_a_hijacked_delegation() -> None:
    book = Playbook()
    # Channel 8 is ours: we began it for a destination whose record said "SG-B, with this key".
    speaks_for_itself = replace(proposal(remote=SG_B, key="mallory"), channel=8)
    commands = book.send(speaks_for_itself)
    for command in list(commands):
        if isinstance(command, do.StartKeyLookup):
            outcome = KeysFound((rsa_key("sg-b"),), 60.0, Trust.INSECURE)
            commands += book.send(happened.KeyLookupEnded(command.lookup, outcome))
        elif isinstance(command, do.StartLookup):
            commands += book.send(happened.LookupEnded(command.lookup, found((SG_B, "sg-b"))))
    for command in list(commands):
        if isinstance(command, do.StartLookup):
            commands += book.send(happened.LookupEnded(command.lookup, found((SG_B, "sg-b"))))
    assert not any(isinstance(c, do.AcceptTunnel) for c in commands)
    assert any(isinstance(c, do.RefuseTunnel) for c in commands)


def _clear_when_over(self: Any, event: SaExpired, now: float) -> None:
    """Tunnels.sa_expired that lets traffic pass until there is another tunnel."""
    connections = self._ledger.connections
    connection = connections.of_tunnel(connections.tunnel_of_sa(event.key))
    for scope in connection.scopes:
        self._ledger.do(do.InstallPolicy(scope, Verdict.CLEAR, 60.0))


@attack(
    25,
    "The SA reaches its limit before there is a successor",
    source="strongSwan issue 3053; Openswan issue 32",
    defence="oegw/tunnels.py Tunnels.sa_expired",
    otherwise="packets go in the clear until the next tunnel is up",
    without=replaced(("oegw.tunnels.Tunnels.sa_expired", _clear_when_over)),
)
def hard_expiry() -> None:
    for on_failure in OnFailure:
        book = Playbook(default=opportunistic("default", on_failure=on_failure))
        keyed(book)
        commands = book.send(SaExpired(outbound_key(0x2001), hard=True))
        assert any(isinstance(c, do.RemovePolicy) for c in commands), "its packets are not held"
        commands += book.send(ping(2))
        for command in commands:
            verdict = getattr(command, "verdict", None)
            assert verdict is not Verdict.CLEAR, command


def _verdicts_stay(end: Any) -> Any:
    """Ledger.end that leaves a verdict for clear text behind."""

    def lenient(self: Any, connection: Any, happening: Any, reason: str, now: float) -> None:
        scopes = list(connection.scopes)
        end(self, connection, happening, reason, now)
        for scope in scopes:
            self.do(do.InstallPolicy(scope, Verdict.CLEAR, None))

    return lenient


def _end() -> Any:
    from oegw.ledger import Ledger

    return Ledger.end


@attack(
    25,
    "The peer deletes the tunnel: what follows must not go in the clear",
    source="libreswan issue 268",
    defence="oegw/ledger.py Ledger.end",
    otherwise="a Delete is an order to send in the clear",
    without=replaced(("oegw.ledger.Ledger.end", _verdicts_stay(_end()))),
)
def delete_is_no_order_to_send_in_the_clear() -> None:
    for on_failure in OnFailure:
        book = Playbook(default=opportunistic("default", on_failure=on_failure))
        keyed(book)
        commands = book.send(keying.TunnelClosed(0, "deleted by the peer"))
        assert isinstance(commands[0], do.RemovePolicy), "first its packets are held again"
        assert not [c for c in commands if isinstance(c, do.InstallPolicy)]
