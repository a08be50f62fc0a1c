"""Transports: the one place in which a new one is added (MK-15).

Library, daemon and firewall know a transport by its row here and by nothing else.  An application
that brings its own (`add`) has it in its own process; the daemon of its host must know it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from oegw.moniker.names import MonikerError

# Our choice: the registry is not a place for strangers' names.
MAX_TRANSPORTS = 32

_NAME = re.compile(r"[a-z][a-z0-9-]{0,15}", re.ASCII)


class Kind(Enum):
    """What an application sees of a transport."""

    STREAM = "stream"  # connections that are accepted
    DATAGRAM = "datagram"  # messages, each with its sender


_KINDS = [kind.value for kind in Kind]  # a question may have one where others name a transport


class UnknownTransport(MonikerError, ValueError):  # noqa: N818  (it names the fact)
    """No transport of that name is known here."""


@dataclass(frozen=True, slots=True)
class Transport:
    """``name`` is on the wire.  ``socket_type`` and ``protocol`` make a socket, and SO_PROTOCOL
    tells the latter of one; ``ip_protocol`` is in its packets, which is what a firewall sees.

    Transports with the same ``ip_protocol`` have their ports in common.
    """

    name: str
    kind: Kind
    socket_type: int
    protocol: int
    ip_protocol: int

    def __post_init__(self) -> None:
        """Raises UnknownTransport for what can't be one."""
        if not _NAME.fullmatch(self.name) or self.name in _KINDS:
            raise UnknownTransport(f"transport {self.name[:32]!r}: is no name of one")
        if not 0 < self.ip_protocol < 256:
            raise UnknownTransport(f"transport {self.name}: IP protocol {self.ip_protocol}")


# Linux's numbers (socket(2), the registry of IP protocols); not of the module `socket`, for this is
# read by cores.
SOCK_STREAM = 1
SOCK_DGRAM = 2

TCP = Transport("tcp", Kind.STREAM, SOCK_STREAM, 6, 6)
UDP = Transport("udp", Kind.DATAGRAM, SOCK_DGRAM, 17, 17)
MPTCP = Transport("mptcp", Kind.STREAM, SOCK_STREAM, 262, 6)  # RFC 8684: TCP with an option
SCTP = Transport("sctp", Kind.STREAM, SOCK_STREAM, 132, 132)  # RFC 9260, one-to-one style

_known: dict[str, Transport] = {}


def add(transport: Transport) -> Transport:
    """Make a transport known in this process.

    Raises UnknownTransport if its name or its protocol is another's, or there are too many.
    """
    for other in _known.values():
        if other == transport:
            return other
        if other.name == transport.name or other.protocol == transport.protocol:
            raise UnknownTransport(f"transport {transport.name}: that is {other} already")
    if len(_known) >= MAX_TRANSPORTS:
        raise UnknownTransport(f"transport {transport.name}: there are {MAX_TRANSPORTS} already")
    _known[transport.name] = transport
    return transport


for _each in (TCP, UDP, MPTCP, SCTP):
    add(_each)


def named(name: str) -> Transport:
    """Raises UnknownTransport."""
    try:
        return _known[name]
    except KeyError:
        names = ", ".join(_known)
        raise UnknownTransport(f"transport {name[:32]!r}: known are {names}") from None


def of_protocol(protocol: int) -> Transport:
    """The transport of a socket, by its SO_PROTOCOL.  Raises UnknownTransport."""
    for each in _known.values():
        if each.protocol == protocol:
            return each
    raise UnknownTransport(f"transport with protocol {protocol}: is not known")


def suits(name: str, wanted: str) -> bool:
    """Whether the transport ``name`` is what a question wants: that one, or one of that kind."""
    if wanted not in _KINDS:
        return name == wanted
    return name in _known and _known[name].kind.value == wanted


def known(kind: Kind | None = None) -> Iterator[Transport]:
    """All, or those of a kind, in the order in which a client that doesn't mind tries them."""
    return (each for each in tuple(_known.values()) if kind in (None, each.kind))
