"""What a socket that came along says: which port its holder has, of which transport (MK-21).

The kernel's word counts, not the application's.  Only the library's registry of transports knows
which kinds of sockets there are (MK-15).
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from oegw.moniker.interface import IPAddress
from oegw.moniker.names import MonikerError
from oegw.moniker.transports import UnknownTransport, of_protocol

# Of the Linux headers; Python's socket module does not know it yet.
SO_NETNS_COOKIE = 71  # asm-generic/socket.h, since Linux 5.14


class NoProof(MonikerError):  # noqa: N818  (it names the fact)
    """The socket proves no port: it is not bound, is connected, or of an unknown kind."""


@dataclass(frozen=True, slots=True)
class Proven:
    """``families``: ``"4"``, ``"6"``, ``"46"``.  ``address``: None for all of the host's."""

    transport: str
    port: int
    families: str
    address: IPAddress | None = None


def proven(bound: socket.socket) -> Proven:
    """What ``bound`` proves.  Raises NoProof.

    A connected socket proves nothing: one that a server accepted has the server's port, and may be
    in the hands of anybody whom the server gave it.
    """
    if bound.family not in (socket.AF_INET, socket.AF_INET6):
        raise NoProof("the socket is not one of IPv4 or IPv6")
    try:
        _refuse_other_networks(bound)
        transport = _transport_of(bound)
        _refuse_connected(bound)
        _refuse_unbound(bound)
        if not is_exclusive(bound):
            raise NoProof("the socket has SO_REUSEADDR and does not listen: others may serve there")
        name = bound.getsockname()
        only_six = bound.family == socket.AF_INET6 and bool(
            bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        )
    except OSError as error:
        raise NoProof(f"the socket does not tell its port: {error.strerror}") from None
    address, port = ip_address(name[0].partition("%")[0]), int(name[1])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return _of_address(transport, port, address.ipv4_mapped, "4")
    if isinstance(address, IPv6Address):
        both = address.is_unspecified and not only_six
        return _of_address(transport, port, address, "46" if both else "6")
    return _of_address(transport, port, address, "4")


def _transport_of(bound: socket.socket) -> str:
    try:
        found = of_protocol(bound.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL))
    except UnknownTransport as error:
        raise NoProof(str(error)) from None
    if found.socket_type != bound.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE):
        raise NoProof(f"the socket is not of the kind that {found.name} has")
    return found.name


def _of_address(transport: str, port: int, address: IPAddress, families: str) -> Proven:
    return Proven(transport, port, families, None if address.is_unspecified else address)


def _refuse_other_networks(bound: socket.socket) -> None:
    """In a network namespace of one's own, which any user may make, every port can be had, and
    those of this host say nothing about it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        try:
            here, there = (
                each.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8) for each in (ours, bound)
            )
        except OSError as error:
            if error.errno == errno.ENOPROTOOPT:
                return  # Linux before 5.14 does not tell
            raise
    if here != there:
        raise NoProof("the socket is of another network namespace")


def _refuse_connected(bound: socket.socket) -> None:
    try:
        bound.getpeername()
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            return
        if error.errno == errno.EINVAL:  # a connection that is over
            raise NoProof("the socket is that of a connection") from None
        raise
    raise NoProof("the socket is that of a connection")


def _refuse_unbound(bound: socket.socket) -> None:
    """A connection that is over, or was taken apart by connect(AF_UNSPEC), has no peer, and still
    tells the server's port, which it has no more.  Who has a port can't bind a second time."""
    try:
        bound.bind(("::" if bound.family == socket.AF_INET6 else "0.0.0.0", 0))  # noqa: S104
    except OSError as error:
        if error.errno == errno.EINVAL:
            return
        raise
    raise NoProof("the socket is not bound to a port")


def is_exclusive(bound: socket.socket) -> bool:
    """Whether nobody but who has ``bound`` can be given its port.

    With SO_REUSEADDR another user's server may bind the port too, and serve there: of streams as
    long as this one does not listen, of datagrams at any time.  Raises OSError.
    """
    if not bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR):
        return True
    return bool(bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def is_kept(bound: socket.socket) -> bool:
    """Whether a socket that has proven a port proves it still.  Raises OSError."""
    try:
        _refuse_unbound(bound)  # a listener that was shut down may have lost its port
    except NoProof:
        return False
    return is_exclusive(bound)


def socket_of(descriptor: int) -> socket.socket:
    """The socket of a descriptor, which it then owns.  Raises NoProof, and closes it, for another
    kind of file."""
    try:
        return socket.socket(fileno=descriptor)
    except OSError:
        with suppress(OSError):
            socket.close(descriptor)
        raise NoProof("what came along is no socket") from None
