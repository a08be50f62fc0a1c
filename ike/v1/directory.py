"""Where the channels and tunnels of one endpoint are found."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ike.configuration import Configuration
from ike.events import IPAddress, TransportAddress
from ike.half_open import HalfOpenTable
from ike.v1.keepalive import Keepalives

if TYPE_CHECKING:
    from ike.v1.session import Session
    from ike.v1.tunnel import Tunnel


class Directory:
    """All channels by cookies and number, all tunnels by number and outbound SPI."""

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
        self._twins: dict[object, dict[int, Tunnel]] = {}
        self._last_channel = 0
        self._last_tunnel = -1

    def next_channel(self) -> int:
        self._last_channel += 1
        return self._last_channel

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

    def tunnel_established(self, tunnel: Tunnel, twin: object) -> list[Tunnel]:
        """Note the outbound SPI.

        Returns the older tunnels with the same ``twin``, which is peer, selectors and
        direction of initiation.
        """
        self._note_outbound(tunnel)
        twins = self._twins.setdefault(twin, {})
        older = list(twins.values())
        twins[tunnel.number] = tunnel
        return older

    def _note_outbound(self, tunnel: Tunnel) -> None:
        # Peers behind one NAT share an address, and each chooses its SPIs by itself.
        key = (tunnel.remote.address, tunnel.outbound_spi)
        self._outbound.setdefault(key, {})[tunnel.number] = tunnel

    def _forget_outbound(self, tunnel: Tunnel) -> bool:
        key = (tunnel.remote.address, tunnel.outbound_spi)
        tunnels = self._outbound.get(key, {})
        known = tunnels.pop(tunnel.number, None) is not None
        if known and not tunnels:
            del self._outbound[key]
        return known

    def move_tunnel(self, tunnel: Tunnel, remote: TransportAddress) -> None:
        """A tunnel leads to another place from now on."""
        known = self._forget_outbound(tunnel)
        tunnel.remote = remote
        if known:
            self._note_outbound(tunnel)

    def forget_tunnel(self, tunnel: Tunnel, twin: object) -> None:
        self.tunnels.pop(tunnel.number, None)
        self._forget_outbound(tunnel)
        twins = self._twins.get(twin)
        if twins is not None and twins.pop(tunnel.number, None) is not None and not twins:
            del self._twins[twin]

    def tunnel_by_outbound(self, session: Session, spi: bytes) -> Tunnel | None:
        """The tunnel with the peer of ``session`` on which we send with this SPI."""
        tunnels = self._outbound.get((session.remote.address, spi), {})
        return next((t for t in tunnels.values() if t.belongs_to(session)), None)

    def tunnels_of(self, session: Session) -> Iterator[Tunnel]:
        return iter([t for t in self.tunnels.values() if t.session is session])
