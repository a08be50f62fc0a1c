"""Where the channels and tunnels of one endpoint are found."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

from ike.configuration import Configuration
from ike.events import IPAddress, TrafficSelector, TransportAddress
from ike.half_open import HalfOpenTable
from ike.v1.contact import Contacts
from ike.v1.crowd import Crowd
from ike.v1.keepalive import Keepalives
from ike.v1.main_mode import Peer

if TYPE_CHECKING:
    from ike.v1.session import Session
    from ike.v1.tunnel import Tunnel


class Directory:
    """All channels by cookies and number, all tunnels by number, outbound SPI and selectors."""

    def __init__(self, configuration: Configuration, keepalives: Keepalives) -> None:
        self.keepalives = keepalives
        self.half_open: HalfOpenTable[Session] = HalfOpenTable(
            configuration.half_open_limit, configuration.half_open_per_source
        )
        self.sessions: OrderedDict[int, Session] = OrderedDict()
        self.tunnels: dict[int, Tunnel] = {}
        self._initiated: dict[bytes, Session] = {}
        self._answered: dict[tuple[bytes, bytes], Session] = {}
        self._first_messages: dict[tuple[bytes, IPAddress], Session] = {}
        self._established: dict[tuple[IPAddress, IPAddress], dict[int, Session]] = {}
        self._outbound: dict[tuple[IPAddress, bytes], dict[int, Tunnel]] = {}
        self._alike: dict[tuple[TrafficSelector, TrafficSelector], dict[int, Tunnel]] = {}
        self._led_to: dict[Peer, dict[int, Tunnel]] = {}
        self.contacts = Contacts(configuration.lost_contacts)
        self.crowd = Crowd()
        self.last_channel = 0
        self._last_tunnel = -1

    def next_channel(self) -> int:
        self.last_channel += 1
        return self.last_channel

    def next_tunnel(self) -> int:
        """Odd numbers: tunnels that a peer began."""
        self._last_tunnel += 2
        return self._last_tunnel

    # Channels.

    def add_initiated(self, session: Session, cookie: bytes) -> None:
        self.sessions[session.number] = session
        self._initiated[cookie] = session
        self._between(session)[session.number] = session

    def add_answered(self, session: Session, cookies: tuple[bytes, bytes], first: bytes) -> None:
        """``first`` is message 1."""
        self.sessions[session.number] = session
        self._answered[cookies] = session
        session.first_message = hashlib.sha256(first).digest()
        self._first_messages[session.first_message, session.first_remote.address] = session
        self.half_open.add(session.first_remote.address, session.number, session)

    def answered_established(self, session: Session) -> None:
        """A channel that the peer began is authenticated."""
        self.half_open.remove(session.first_remote.address, session.number)
        self._between(session)[session.number] = session
        self.crowd.add(session)

    def _between(self, session: Session) -> dict[int, Session]:
        ends = (session.local.address, session.remote.address)
        return self._established.setdefault(ends, {})

    def forget_session(self, session: Session, cookies: tuple[bytes, bytes]) -> None:
        self.sessions.pop(session.number, None)
        if session.initiator:
            self._initiated.pop(cookies[0], None)
        else:
            self._answered.pop(cookies, None)
            self._first_messages.pop((session.first_message, session.first_remote.address), None)
            self.half_open.remove(session.first_remote.address, session.number)
            self.crowd.remove(session)
        self._forget_between(session)

    def _forget_between(self, session: Session) -> None:
        between = self._between(session)
        between.pop(session.number, None)
        if not between:
            del self._established[session.local.address, session.remote.address]

    def move_session(self, session: Session, remote: TransportAddress) -> None:
        """An established channel leads to another place from now on."""
        self._forget_between(session)
        session.remote = remote
        self._between(session)[session.number] = session

    def initiated(self, cookie: bytes) -> Session | None:
        """The channel that we began with this cookie."""
        return self._initiated.get(cookie)

    def answered(self, cookies: tuple[bytes, bytes]) -> Session | None:
        """The channel that a peer began, by both cookies."""
        return self._answered.get(cookies)

    def begun_with(self, first: bytes, address: IPAddress) -> Session | None:
        """The channel that began with exactly this message 1 from this address.

        The cookie alone does not decide: else a forged message 1 with a sniffed cookie
        would shut out the true one.
        """
        return self._first_messages.get((hashlib.sha256(first).digest(), address))

    def between(self, local: IPAddress, remote: IPAddress) -> list[Session]:
        """Channels between two addresses: established, or being initiated by us."""
        return list(self._established.get((local, remote), {}).values())

    # Tunnels.

    def add_tunnel(self, tunnel: Tunnel) -> None:
        self.tunnels[tunnel.number] = tunnel
        self._alike.setdefault(tunnel.selectors, {})[tunnel.number] = tunnel

    def tunnel_established(self, tunnel: Tunnel, peer: Peer) -> None:
        """Note the outbound SPI and where it leads."""
        self._note_outbound(tunnel)
        self._led_to.setdefault(peer, {})[tunnel.number] = tunnel

    def _note_outbound(self, tunnel: Tunnel) -> None:
        # Peers behind one NAT share an address, and each chooses its SPIs by itself.
        key = (tunnel.remote.address, tunnel.outbound_spi)
        self._outbound.setdefault(key, {})[tunnel.number] = tunnel

    def _forget_outbound(self, tunnel: Tunnel) -> bool:
        key = (tunnel.remote.address, tunnel.outbound_spi)
        return _remove(self._outbound, key, tunnel.number)

    def move_tunnel(self, tunnel: Tunnel, remote: TransportAddress) -> None:
        """A tunnel leads to another place from now on."""
        known = self._forget_outbound(tunnel)
        tunnel.remote = remote
        if known:
            self._note_outbound(tunnel)

    def forget_tunnel(self, tunnel: Tunnel) -> None:
        self.tunnels.pop(tunnel.number, None)
        self._forget_outbound(tunnel)
        _remove(self._alike, tunnel.selectors, tunnel.number)
        if tunnel.peer is not None:
            _remove(self._led_to, tunnel.peer, tunnel.number)

    def beside(self, tunnel: Tunnel) -> list[Tunnel]:
        """The other tunnels that are up for the same traffic: same peer and selectors.

        One that was ordered in place of another counts too, though its peer may have a new key.
        """
        return [
            other
            for other in self._alike.get(tunnel.selectors, {}).values()
            if other is not tunnel
            and other.established
            and (
                other.peer == tunnel.peer
                or other.replaces == tunnel.number
                or tunnel.replaces == other.number
            )
        ]

    def successor_under_way(self, tunnel: Tunnel) -> bool:
        """Whether a tunnel is under negotiation that may take the place of this one."""

        def same_peer(other: Tunnel) -> bool:
            if other.keyed_on.peer is None:  # ours: its channel is not up yet
                return other.remote.address == tunnel.remote.address
            return other.keyed_on.peer == tunnel.peer

        return any(
            not other.established and (other.replaces == tunnel.number or same_peer(other))
            for other in self._alike.get(tunnel.selectors, {}).values()
        )

    def leading_to(self, peer: Peer) -> list[Tunnel]:
        """The tunnels that are up with this peer."""
        return list(self._led_to.get(peer, {}).values())

    def tunnel_by_outbound(self, session: Session, spi: bytes) -> Tunnel | None:
        """The tunnel with the peer of ``session`` on which we send with this SPI."""
        tunnels = self._outbound.get((session.remote.address, spi), {})
        return next((t for t in tunnels.values() if t.belongs_to(session)), None)


K = TypeVar("K")


def _remove(index: dict[K, dict[int, Tunnel]], key: K, number: int) -> bool:
    """Whether it was there."""
    entries = index.get(key, {})
    known = entries.pop(number, None) is not None
    if known and not entries:
        del index[key]
    return known
