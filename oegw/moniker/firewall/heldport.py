"""A random port of an address of ours, held by a socket that never listens."""

from __future__ import annotations

import secrets
import socket

from oegw.moniker.interface import IPAddress, LeaseRefused
from oegw.moniker.transports import named
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
