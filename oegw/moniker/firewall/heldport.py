"""A random port of an address of ours, held by a socket that never listens; and whether somebody
else has one."""

from __future__ import annotations

import errno
import socket

from oegw.moniker.firewall.book import Guard
from oegw.moniker.interface import IPAddress, LeaseRefused
from oegw.moniker.library.holding import hold
from oegw.moniker.transports import named, of_protocol
from oegw.moniker.wire import Code


def hold_port(address: IPAddress, transport: str) -> tuple[int, socket.socket]:
    """A free port of ``address``, and the socket that keeps it from others until it is closed.

    It is of those that a service may have (MK-24), for whoever uses it can't tell the difference.
    ``transport``: one that is known.  Raises LeaseRefused.
    """
    on_the_wire = of_protocol(named(transport).ip_protocol)  # of MPTCP, TCP
    try:
        held = hold(on_the_wire, str(address.version), address=str(address))
    except OSError as error:
        text = f"no port of {address} could be taken: {error.strerror}"
        raise LeaseRefused(Code.GATEWAY.value, text) from None
    # Nobody reads it, and strangers' datagrams would lie there until the port is given back.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
    port: int = held.getsockname()[1]
    return port, held


def is_ours(address: IPAddress) -> bool:
    """Whether an address is one of this box."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def is_taken(guard: Guard) -> bool:
    """Whether a socket listens there still, or is bound; one of UDP need only be bound.

    Children of a server that was killed have its socket, too: who connects there gets through.
    """
    kind = of_protocol(guard.protocol)
    family = socket.AF_INET6 if guard.version == 6 else socket.AF_INET
    anywhere = "::" if guard.version == 6 else "0.0.0.0"  # noqa: S104  (bound, and closed at once)
    try:
        with socket.socket(family, kind.socket_type, kind.ip_protocol) as probe:
            if guard.version == 6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind.socket_type == socket.SOCK_STREAM:  # connections that live on don't count
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((str(guard.address or anywhere), guard.port))
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False
