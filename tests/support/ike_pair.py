"""Two endpoints, the wire between them, and a clock that the test moves.

The wire is a list of datagrams under way.  ``transfer`` delivers the first one,
``drop`` loses it, ``duplicate`` doubles it, ``reorder`` moves it to the end,
``corrupt`` flips bits of it, ``fragment`` cuts it into pieces, ``run`` delivers until
nothing is under way.  Questions of the endpoints are answered at once unless ``answers``
is off.  A side with a ``Nat`` is behind an address translator: what is on the wire has the
translator's address.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from ipaddress import ip_address, ip_network

from cryptography.hazmat.primitives.asymmetric import rsa

from ike import events as e
from ike.configuration import Configuration
from ike.endpoint import Endpoint

A = e.TransportAddress(ip_address("192.1.1.4"))
B = e.TransportAddress(ip_address("192.1.1.5"))
A6 = e.TransportAddress(ip_address("2001:db8:1:1::4"))
B6 = e.TransportAddress(ip_address("2001:db8:1:1::5"))
ALICE = e.TrafficSelector(ip_network("192.1.0.65/32"))
BOB = e.TrafficSelector(ip_network("192.2.0.66/32"))
CAROL = e.TrafficSelector(ip_network("192.1.1.67/32"))


@cache
def private_key(name: str) -> rsa.RSAPrivateKey:
    """One key per name and test run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def octets_from(seed: int):
    return random.Random(seed).randbytes


class Nat:
    """A translator of addresses and ports, as home routers have one.

    A mapping comes into being when something goes out; nothing comes in without one.
    ``public_port`` says how the inner port is seen from outside when a mapping is made.
    """

    def __init__(
        self, public: e.TransportAddress, public_port: Callable[[int], int] = lambda port: port
    ) -> None:
        self.public = public.address
        self.public_port = public_port
        self.mapped: dict[e.TransportAddress, e.TransportAddress] = {}

    def outward(self, source: e.TransportAddress) -> e.TransportAddress:
        if source not in self.mapped:
            port = self.public_port(source.port)
            self.mapped[source] = e.TransportAddress(self.public, port)
        return self.mapped[source]

    def inward(self, destination: e.TransportAddress) -> e.TransportAddress | None:
        inner = [one for one, outer in self.mapped.items() if outer == destination]
        return inner[0] if inner else None

    def remap(
        self, public_port: Callable[[int], int], public: e.TransportAddress | None = None
    ) -> None:
        """Forget all mappings, and make others from now on."""
        self.public_port = public_port
        self.public = public.address if public else self.public
        self.mapped.clear()


def fragments(message: bytes, size: int, identifier: int = 1) -> list[bytes]:
    """A message in pieces as strongSwan sends them: always main mode, in the clear, ID 0."""
    marker = message[:4] if not any(message[:4]) else b""
    message = message[len(marker) :]
    cut = [message[at : at + size] for at in range(0, len(message), size)]
    pieces = []
    for number, octets in enumerate(cut, 1):
        last = 1 if number == len(cut) else 0
        payload = struct.pack("!BBHHBB", 0, 0, 8 + len(octets), identifier, number, last) + octets
        head = message[:16] + struct.pack("!BBBBII", 132, 0x10, 2, 0, 0, 28 + len(payload))
        pieces.append(marker + head + payload)
    return pieces


@dataclass
class Side:
    """One endpoint with what it said."""

    address: e.TransportAddress
    endpoint: Endpoint
    key: rsa.RSAPrivateKey
    events: list[e.Event] = field(default_factory=list)
    answers: bool = True
    takes_sst: bool = True  # whether it accepts port encryption that is offered
    nat: Nat | None = None

    @property
    def public(self) -> e.TransportAddress:
        """Where the other side finds it."""
        return e.TransportAddress(self.nat.public) if self.nat else self.address

    def seen(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def triggers(self) -> list[str]:
        return [event.trigger for event in self.seen(e.MessageDropped)]

    def names(self, kind: type = e.MessageSent) -> list[str]:
        return [event.name for event in self.seen(kind)]

    def pairs(self) -> dict[int, tuple[e.EspSa, e.EspSa]]:
        """The tunnels that are up now: number to inbound and outbound."""
        inbound, pairs = {}, {}
        for event in self.events:
            if isinstance(event, e.InboundSaEstablished):
                inbound[event.tunnel] = event.sa
            elif isinstance(event, e.OutboundSaEstablished):
                pairs[event.tunnel] = (inbound[event.tunnel], event.sa)
            elif isinstance(event, e.TunnelClosed):
                del pairs[event.tunnel]
        return pairs


class Pair:
    """Endpoints ``a`` and ``b``."""

    def __init__(
        self,
        a: dict | None = None,
        b: dict | None = None,
        addresses: tuple[e.TransportAddress, e.TransportAddress] = (A, B),
        seed: int = 1,
        nats: tuple[Nat | None, Nat | None] = (None, None),
    ) -> None:
        self.now = 1000.0
        self.wire: list[e.Datagram] = []
        self.sent: list[e.Datagram] = []
        self.a = self._side(addresses[0], "a", a or {}, seed * 2)
        self.b = self._side(addresses[1], "b", b or {}, seed * 2 + 1)
        self.sides = (self.a, self.b)
        self.broken = False  # whether the wire loses everything
        self.closed_ports: set[int] = set()  # what goes to these, the wire loses
        self.a.nat, self.b.nat = nats
        self.keys_of_peer = {id(self.a): (self.b.key,), id(self.b): (self.a.key,)}

    def _side(self, address: e.TransportAddress, name: str, settings: dict, seed: int) -> Side:
        settings = {"private_key": private_key(name), **settings}
        configuration = Configuration(**settings)
        endpoint = Endpoint(configuration, octets_from(seed))
        return Side(address, endpoint, configuration.private_key)

    def other(self, side: Side) -> Side:
        return self.b if side is self.a else self.a

    def request(self, side: Side | None = None, **changes) -> e.TunnelRequest:
        side = side or self.a
        peer = self.other(side)
        selectors = (ALICE, BOB) if side is self.a else (BOB, ALICE)
        request = e.TunnelRequest(
            side.address.address,
            peer.public.address,
            *selectors,
            (peer.key.public_key(),),
        )
        return replace(request, **changes)

    def initiate(self, tunnel: int = 0, side: Side | None = None, **changes) -> None:
        side = side or self.a
        side.endpoint.initiate(self.now, tunnel, self.request(side, **changes))
        self.pump()

    def pump(self) -> None:
        """Fetch events, answer questions, put what goes out on the wire."""
        for side in self.sides:
            while (event := side.endpoint.next_event()) is not None:
                side.events.append(event)
                if side.answers:
                    self.answer(side, event)
            datagrams = side.endpoint.datagrams_to_send()
            self.sent += datagrams
            for datagram in [] if self.broken else datagrams:
                if side.nat is not None:
                    datagram = replace(datagram, local=side.nat.outward(datagram.local))
                if datagram.remote.port not in self.closed_ports:
                    self.wire.append(datagram)

    def answer(self, side: Side, event: e.Event) -> None:
        endpoint = side.endpoint
        if isinstance(event, e.PeerKeyNeeded):
            keys = tuple(key.public_key() for key in self.keys_of_peer[id(side)])
            endpoint.provide_peer_keys(self.now, event.channel, keys)
        elif isinstance(event, e.TunnelProposed):
            endpoint.accept_tunnel(self.now, event.tunnel, event.sst and side.takes_sst)
        elif isinstance(event, e.InboundSaEstablished):
            endpoint.confirm_inbound(self.now, event.tunnel)

    # Verbs on the first datagram under way.

    def deliver(self, datagram: e.Datagram) -> None:
        for side in self.sides:
            local: e.TransportAddress | None = datagram.remote
            if side.nat is not None:
                local = side.nat.inward(datagram.remote)
            if local is not None and local.address == side.address.address:
                side.endpoint.receive_datagram(self.now, datagram.data, local, datagram.local)
        self.pump()

    def transfer(self) -> e.Datagram:
        datagram = self.wire.pop(0)
        self.deliver(datagram)
        return datagram

    def drop(self) -> e.Datagram:
        return self.wire.pop(0)

    def duplicate(self) -> None:
        self.wire.insert(0, self.wire[0])

    def reorder(self) -> None:
        self.wire.append(self.wire.pop(0))

    def corrupt(self, bit: int) -> None:
        data = bytearray(self.wire[0].data)
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        self.wire[0] = replace(self.wire[0], data=bytes(data))

    def fragment(self, size: int, identifier: int = 1) -> int:
        """Cut the first datagram into pieces of ``size`` octets; says how many."""
        datagram = self.wire.pop(0)
        pieces = fragments(datagram.data, size, identifier)
        self.wire[:0] = [replace(datagram, data=piece) for piece in pieces]
        return len(pieces)

    def run(self, most: int = 200) -> None:
        """Deliver until the wire is empty."""
        while self.wire:
            most -= 1
            assert most, "the exchange does not come to an end"
            self.transfer()

    def run_some(self) -> None:
        """Deliver what is under way now, but not the answers."""
        for _ in range(len(self.wire)):
            self.transfer()

    def wait(self, seconds: float) -> None:
        """Let time pass, ringing every timer at its moment and delivering all."""
        end = self.now + seconds
        for _ in range(10000):
            timers = [t for s in self.sides if (t := s.endpoint.next_timer()) is not None]
            following = min(timers, default=end)
            if following > end:
                break
            self.now = max(self.now, following)
            for side in self.sides:
                side.endpoint.handle_timer(self.now)
            self.pump()
            self.run()
        self.now = end

    def tunnel_up(self) -> bool:
        """Whether some tunnel is up at both ends with matching SAs."""
        outbound_a = {pair[1]: pair[0] for pair in self.a.pairs().values()}
        for inbound, outbound in self.b.pairs().values():
            if inbound in outbound_a and outbound_a[inbound] == outbound:
                return True
        return False
