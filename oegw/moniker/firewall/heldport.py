"""A random port of an address of ours, held by a socket that never listens; and whether somebody
else has one."""

from __future__ import annotations

import errno
import secrets
import socket

from oegw.moniker.firewall.book import Guard
from oegw.moniker.interface import IPAddress, LeaseRefused
from oegw.moniker.transports import known, named
from oegw.moniker.wire import Code

# Our choices.
FIRST, LAST = 1024, 65535
TRIES = 64

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def hold_port(address: IPAddress, transport: str) -> tuple[int, socket.socket]:
    """A free port of ``address``, and the socket that keeps it from others until it is closed.

    ``transport``: one that is known.  Raises LeaseRefused.
    """
    kind = named(transport)
    problem = OSError("no free port")
    for _ in range(TRIES):
        port = FIRST + secrets.randbelow(LAST - FIRST + 1)
        try:
            held = socket.socket(_FAMILIES[address.version], kind.socket_type, kind.ip_protocol)
        except OSError as error:
            problem = error
            break  # the kernel doesn't know the protocol
        try:
            if address.version == 6:
                held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            held.bind((str(address), port))
        except OSError as error:
            held.close()
            problem = error
            continue
        return port, held
    raise LeaseRefused(Code.GATEWAY.value, f"no port of {address} could be taken: {problem}")


def is_ours(address: IPAddress) -> bool:
    """Whether an address is one of this box."""
    with socket.socket(_FAMILIES[address.version], socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def is_taken(guard: Guard) -> bool:
    """Whether a socket listens there still, or is bound; one of UDP need only be bound.

    Children of a server that was killed have its socket, too: who connects there gets through.
    """
    kind = next((each for each in known() if each.ip_protocol == guard.protocol), None)
    if kind is None:
        return False
    family = _FAMILIES[guard.version]
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
