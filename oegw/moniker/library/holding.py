"""A random port, bound at once and held (MK-3, MK-23, MK-24)."""

from __future__ import annotations

import errno
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from oegw.moniker.library.errors import NoPortLeft, TransportUnavailable
from oegw.moniker.library.ports import LOWEST, parse_ranges, usable
from oegw.moniker.transports import Transport

# Our choices.
TRIES = 128  # with nine tenths of the ports in use, one of 700,000 services finds none
KERNEL = Path("/proc/sys/net/ipv4")

ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104  (a service is for all)

_TAKEN = (errno.EADDRINUSE, errno.EACCES)  # the latter: a policy of the host keeps it for others
_ABSENT = (
    errno.EPROTONOSUPPORT,
    errno.ESOCKTNOSUPPORT,
    errno.EAFNOSUPPORT,
    errno.ENOPROTOOPT,  # MPTCP that is turned off
    errno.EINVAL,
)


def hold(
    transport: Transport, families: str = "46", *, shared: bool = False, address: str = ""
) -> socket.socket:
    """A socket bound to a random port, not listening.

    ``families``: ``"4"``, ``"6"`` or ``"46"`` (one socket for both where the host has IPv6).
    ``shared``: SO_REUSEADDR, so that another program may listen on the port while this one holds
    it.  Without it nobody else gets the port, in any family, as long as the socket is open.
    ``address``: one of the host's, of the one family; else all of them.
    Raises NoPortLeft, TransportUnavailable.
    """
    ports = _usable()
    if not ports:
        raise NoPortLeft(errno.EADDRNOTAVAIL, "no port is left that a service may have")
    for _ in range(TRIES):
        sock = opened(transport, families)
        try:
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address or ANY[sock.family], secrets.choice(ports)))
        except OSError as error:
            sock.close()
            if error.errno not in _TAKEN:
                raise OSError(error.errno, f"a port for a service: {error.strerror}") from None
        else:
            return sock
    raise NoPortLeft(errno.EADDRINUSE, f"{TRIES} ports at random were all taken")


def opened(transport: Transport, families: str) -> socket.socket:
    """A socket of the transport for these families.  Raises TransportUnavailable."""
    if families not in ("4", "6", "46"):
        raise ValueError(f'families {families!r}: is not "4", "6" or "46"')
    if "6" in families:
        try:
            sock = socket.socket(socket.AF_INET6, transport.socket_type, transport.protocol)
        except OSError as error:
            if families == "6" or error.errno != errno.EAFNOSUPPORT:
                raise _unavailable(transport, error) from None
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, families == "6")
            return sock
    try:
        return socket.socket(socket.AF_INET, transport.socket_type, transport.protocol)
    except OSError as error:
        raise _unavailable(transport, error) from None


def _unavailable(transport: Transport, error: OSError) -> OSError:
    if error.errno not in _ABSENT:
        return OSError(error.errno, f"a socket of {transport.name}: {error.strerror}")
    text = f"transport {transport.name}: this host's kernel does not have it"
    if error.errno == errno.EAFNOSUPPORT:
        text = f"transport {transport.name}: this host does not have the family"
    return TransportUnavailable(error.errno, text)


def _usable() -> tuple[int, ...]:
    lowest = LOWEST
    with suppress(ValueError):
        lowest = int(_read("ip_unprivileged_port_start"))
    return usable(
        parse_ranges(_read("ip_local_port_range")),
        parse_ranges(_read("ip_local_reserved_ports")),
        lowest,
    )


def _read(name: str) -> str:
    """A setting of the kernel's; empty where /proc can't be read, and then all ports are alike."""
    try:
        return (KERNEL / name).read_text(encoding="ascii")
    except OSError:
        return ""
