"""Sockets of ours towards destinations, and which of our addresses they have."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from oegw.socks5.interface import Demand, Dialler
from oegw.socks5.server.failures import refusal
from oegw.socks5.wire import IPAddress

# Our choices: a connection costs no question to the kernel if there was one lately.
REMEMBERED = 4096
OWN_SECONDS = 1.0

IP_BIND_ADDRESS_NO_PORT = 24  # Linux; Python 3.11 does not name it

# A place that is everybody's, for the question by which address we would leave for it: nothing is
# sent.  Root servers' addresses, which do not change.
_ANYWHERE = {4: "198.41.0.4", 6: "2001:503:ba3e::2:30"}
_ANY_PORT = 53

_ANY = {4: IPv4Address(0), 6: IPv6Address(0)}


def family_of(address: IPAddress) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def source_towards(destination: IPAddress | str) -> IPAddress | None:
    """Our address towards ``destination`` as the routing table says; None: no way.  Raises
    OSError."""
    where = ip_address(destination)
    with socket.socket(family_of(where), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect((str(where), _ANY_PORT))
        except OSError:
            return None
        return address_of(sock.getsockname())


def carry_on(sock: socket.socket) -> None:
    """What a relayed connection is like, or those that a listening socket accepts: nothing is held
    back, and who has gone without a word is noticed in the end."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class OwnAddresses:
    """What ``is_own`` says, remembered for `OWN_SECONDS`."""

    def __init__(self, clock: Callable[[], float], is_own: Callable[[IPAddress], bool]) -> None:
        self._clock = clock
        self._is_own = is_own
        self._known: dict[IPAddress, bool] = {}
        self._until = 0.0

    def __call__(self, address: IPAddress) -> bool:
        now = self._clock()
        if now >= self._until or len(self._known) >= REMEMBERED:
            self._known.clear()
            self._until = now + OWN_SECONDS
        known = self._known.get(address)
        if known is None:
            known = self._known[address] = self._is_own(address)
        return known


def address_of(sockaddr: tuple[str, int] | tuple[str, int, int, int]) -> IPAddress:
    """Without the zone."""
    return _address(sockaddr[0])


@lru_cache(REMEMBERED)
def _address(text: str) -> IPAddress:
    return ip_address(text.partition("%")[0])


class Outgoing:
    """``own``: addresses that flows leave with, at most one of each family."""

    def __init__(self, own: Sequence[IPAddress], dialler: Dialler) -> None:
        self._own: dict[int, IPAddress] = {address.version: address for address in own}
        self._dialler = dialler

    def stream(self, destination: IPAddress, demand: Demand) -> socket.socket:
        """A TCP socket that is ready to be connected to ``destination``.  Raises OSError."""
        sock = self._prepared(destination.version, socket.SOCK_STREAM, demand)
        own = self._own.get(destination.version)
        if own is not None:
            try:
                # The port is chosen when it connects: only then the kernel knows which are free.
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((str(own), 0))
            except OSError:
                sock.close()
                raise
        return sock

    def datagrams(self, version: int, demand: Demand, port: int | None) -> socket.socket:
        """A UDP socket, bound; ``port``: if it is free, else another one.  Raises OSError."""
        sock = self._prepared(version, socket.SOCK_DGRAM, demand)
        own = self._own.get(version)
        host = str(own or _ANY[version])
        try:
            if port:
                with suppress(OSError):
                    sock.bind((host, port))
                    return sock
            sock.bind((host, 0))
        except OSError:
            sock.close()
            raise
        return sock

    def waiting(
        self, versions: Sequence[int], peers: Sequence[IPAddress], demand: Demand
    ) -> list[socket.socket]:
        """TCP sockets that ``peers`` can connect to, one of each family, all with the same port;
        no peers: anybody.  Raises OSError."""
        for _ in range(8):  # the other family may have the port in use
            made: list[socket.socket] = []
            port = 0
            try:
                for version in versions:
                    sock = self._prepared(version, socket.SOCK_STREAM, demand)
                    made.append(sock)
                    sock.bind((self._host(version, peers), port))
                    port = sock.getsockname()[1]
                for sock in made:
                    sock.listen(8)
            except OSError as error:
                failure = error
                for sock in made:
                    sock.close()
                if len(made) < 2:
                    break
            else:
                return made
        raise failure

    def towards(self, destination: IPAddress | None, version: int) -> IPAddress | None:
        """Our address towards ``destination``; None: towards anywhere by that family.  Raises
        Refused."""
        own = self._own.get(version)
        if own is not None:
            return own
        try:
            return source_towards(destination or _ANYWHERE[version])
        except OSError as error:  # no descriptor is left
            raise refusal(error) from error

    def _host(self, version: int, peers: Sequence[IPAddress]) -> str:
        """Where to wait: at the address that the peers know, if they agree on it."""
        own = self._own.get(version)
        if own is not None:
            return str(own)
        sources = {source_towards(peer) for peer in peers if peer.version == version}
        if len(sources) == 1 and (source := sources.pop()) is not None:
            return str(source)
        return str(_ANY[version])

    def _prepared(self, version: int, kind: int, demand: Demand) -> socket.socket:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        try:
            if version == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                carry_on(sock)
            self._dialler.prepare(sock, demand)
        except BaseException:
            sock.close()
            raise
        return sock
