"""The desk of what was lost: ESP arrives that no SA of ours takes, or none of the peer's ours.

RFC 4322 section 3.2.6: one of the two may have restarted, and a cautious attempt to key anew is
made.  Both signs are easily forged, so nothing comes of them unless the source is a gateway that we
have a tunnel with, or a contact of our former life; and then at most once a minute.  What is sent
is never an answer to the source as such: a Delete under the keying channel with the gateway, or a
new main mode, in which it has to prove who it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.outcome import KeyOutcome, KeysFound
from ike.events import (
    Identity,
    KeyingChannelClosed,
    KeyingChannelEstablished,
    SpiRefused,
    TrafficSelector,
    TunnelRequest,
)
from oegw import commands as do
from oegw.connection import State, host_network
from oegw.datapath.interface import Direction, SaKey, UnknownSpiReceived
from oegw.initiator import Initiator
from oegw.ledger import Ledger
from oegw.setups import SetupBudget
from policy.flow import IPAddress

# Our choices.
PAUSE = 60.0  # seconds between two attempts with one peer
ATTEMPTS_PER_SECOND = 10.0  # with all peers together: each may cost a look-up and a main mode


@dataclass(frozen=True, slots=True)
class Greeting:
    """Our question: with which keys may this contact prove itself?"""

    local: IPAddress
    remote: IPAddress
    identity: Identity


@dataclass(frozen=True, slots=True)
class _Intent:
    """What follows when a new channel with a gateway is up."""

    local: IPAddress
    disown: int | None = None  # an SPI
    renew: int | None = None  # a tunnel


class Recovery:
    """Unknown SPIs, from the first sign to a new keying channel."""

    def __init__(self, ledger: Ledger, initiator: Initiator) -> None:
        self._ledger = ledger
        self._initiator = initiator
        self._contacts = set(ledger.settings.contacts)
        self._tried: dict[IPAddress, float] = {}  # in the order of time
        self._budget = SetupBudget(1, ATTEMPTS_PER_SECOND)
        self._channels: dict[int, IPAddress] = {}  # those that are up, and where they lead
        self._intents: dict[IPAddress, _Intent] = {}

    # Signs.

    def unknown_spi_received(self, event: UnknownSpiReceived, now: float) -> None:
        """The source sends on what we do not have: it lost our Delete, or we our SAs."""
        ledger, source, local = self._ledger, event.source, event.destination
        ledger.trace.drop("gateway", "unknown_spi", source=source, spi=f"{event.spi:08x}")
        if local not in ledger.settings.addresses:
            return
        tunnel = ledger.connections.tunnel_with(source)
        contact = None if tunnel is not None else self._contact_at(source)
        if contact is not None and ledger.settings.came_shielded(local, source):
            # It hides the ports of IKE, and our main mode, which nothing shields, would show them.
            # It finds out that we are silent, and begins behind its shield.
            ledger.trace.drop("gateway", "contact_shielded", peer=source)
            return
        if (tunnel is None and contact is None) or not self._may_try(source, now):
            return
        if contact is not None:
            self._greet_contact(Greeting(local, source, contact))
        elif source in self._channels.values():
            self._tell("disowned", source, event.spi)
            ledger.do(do.DisownSpi(local, source, event.spi))
        elif tunnel is not None and tunnel.request is not None:
            self._greet(tunnel.request, _Intent(local, disown=event.spi), event.spi)

    def spi_refused(self, event: SpiRefused, now: float) -> None:
        """The source says that it does not have what we send on: perhaps it restarted."""
        ledger, source = self._ledger, event.remote.address
        number = ledger.connections.tunnel_of_sa(SaKey(Direction.OUTBOUND, event.spi, source))
        connection = None if number is None else ledger.connections.of_tunnel(number)
        if number is None or connection is None:
            ledger.trace.drop("gateway", "unknown_spi_hint", source=source, spi=f"{event.spi:08x}")
            return
        request = connection.tunnels[number].request
        if request is not None and self._may_try(source, now):
            self._greet(request, _Intent(request.local, renew=number), event.spi)

    def _may_try(self, peer: IPAddress, now: float) -> bool:
        while self._tried and next(iter(self._tried.values())) <= now - PAUSE:
            del self._tried[next(iter(self._tried))]
        if peer in self._tried:
            trigger: str | None = "recovery_pause"
        else:
            trigger = self._budget.refuses(0, now)
        if trigger is not None:
            self._ledger.trace.drop("gateway", trigger, peer=peer)
            return False
        self._tried[peer] = now
        return True

    # A new channel.

    def _contact_at(self, source: IPAddress) -> Identity | None:
        """The contact of our former life that is at this address."""
        if source in self._contacts:
            return source
        for peer in self._ledger.peers.values():
            if peer.address == source and peer.expected_identity in self._contacts:
                return peer.expected_identity
        return None

    def _greet_contact(self, greeting: Greeting) -> None:
        ledger, identity = self._ledger, greeting.identity
        configured = [p for p in ledger.peers.values() if p.expected_identity == identity]
        keys = tuple(peer.key for peer in configured if peer.key is not None)
        if keys:
            self._introduce(greeting, keys)
        elif isinstance(identity, str) or ledger.may_look_up(identity):
            lookup = ledger.start_lookup(greeting)
            ledger.do(do.StartKeyLookup(lookup, identity, purpose="contact", ours=True))

    def keys_known(self, greeting: Greeting, outcome: KeyOutcome, now: float) -> None:
        """The DNS has answered for a contact."""
        if isinstance(outcome, KeysFound):
            self._introduce(greeting, outcome.keys)
        else:
            self._ledger.trace.drop(
                "gateway", "contact_without_key", identity=greeting.identity, detail=outcome.detail
            )

    def _introduce(self, greeting: Greeting, keys: tuple[rsa.RSAPublicKey, ...]) -> None:
        """The main mode carries INITIAL-CONTACT, which makes the peer drop what we have lost."""
        request = TunnelRequest(
            greeting.local,
            greeting.remote,
            TrafficSelector(host_network(greeting.local)),
            TrafficSelector(host_network(greeting.remote)),
            keys,
            greeting.identity,
        )
        self._greet(request, _Intent(greeting.local), None)

    def _greet(self, request: TunnelRequest, intent: _Intent, spi: int | None) -> None:
        self._tell("greeted", request.remote, spi)
        for remote in [r for r in self._intents if r not in self._tried]:  # nothing came of them
            del self._intents[remote]
        self._intents[request.remote] = intent
        self._ledger.do(do.GreetPeer(request))

    def _tell(self, event: str, gateway: IPAddress, spi: int | None) -> None:
        self._ledger.trace.event(
            "recovery", event, gateway=gateway, spi=None if spi is None else f"{spi:08x}"
        )

    # What comes of it.

    def channel_established(self, event: KeyingChannelEstablished, now: float) -> None:
        """The peer is who it should be: do what the sign was about."""
        ledger, remote = self._ledger, event.remote.address
        self._channels[event.channel] = remote
        self._contacts.discard(event.identity)  # INITIAL-CONTACT was said, if it was owed
        intent = self._intents.pop(remote, None)
        if intent is None or self._tried.get(remote, now - PAUSE) <= now - PAUSE:
            return
        if intent.disown is not None:
            ledger.do(do.DisownSpi(intent.local, remote, intent.disown))
        connection = None if intent.renew is None else ledger.connections.of_tunnel(intent.renew)
        if connection is None or intent.renew is None or connection.state is not State.KEYED:
            return
        request = connection.tunnels[intent.renew].request
        if request is not None:
            self._initiator.order(connection, replace(request, replaces=intent.renew))

    def channel_closed(self, event: KeyingChannelClosed, now: float) -> None:
        """It leads nowhere any more; if it never was up, the next sign may begin another."""
        self._channels.pop(event.channel, None)
