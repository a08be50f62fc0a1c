"""The messages between a client and a daemon: one line each, over TCP, UDP or sealed.

    MON/1 Q NONCE TRANSPORT|* NAMESPACE|- SERVICE VERSIONS|*  [COOKIE] [padding]
    MON/1 + NONCE PORT TRANSPORT VERSION FAMILIES TTL [sst]
    MON/1 - NONCE CODE TEXT
    MON/1 ? NONCE COOKIE            ask again with this cookie (UDP only: the source is not proven)
    MON/1 E SEALED                  a question or an answer, encrypted (`sealedquery`)

A TCP line ends with CRLF.  Names are percent-encoded where they are not ASCII.  NONCE is 16 to 32
hexadecimal digits of the client's; an answer carries it (MK-33).  Over UDP no answer is longer
than its question (MK-27): questions are padded with spaces.  Any other TCP line is TCPMUX (RFC
1078).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from oegw.moniker.names import MonikerError, ServiceName, Version

# Specification (ours).
PROTOCOL = "MON/1"
DEFAULT_PORT = 1  # that of TCPMUX, whose superset this is
MAX_LINE_OCTETS = 1536


class Code(Enum):
    """Why a question has no other answer; ``value`` is on the wire."""

    UNKNOWN = "unknown"  # no such service here
    VERSION = "version"  # the service is here, no version that will do
    TRANSPORT = "transport"  # the service is here, not over that transport
    DENIED = "denied"  # policy
    BUSY = "busy"  # too many questions, leases or connections: later
    KEY = "key"  # sealed to a key that the daemon doesn't have
    CLEAR = "clear"  # only encrypted questions are answered
    MALFORMED = "malformed"
    GATEWAY = "gateway"  # the gateway in front did not open the port


class MalformedMessage(MonikerError, ValueError):  # noqa: N818  (it names the fact)
    """A line can't be read as a message; the text says why, without the line's own octets."""


@dataclass(frozen=True, slots=True)
class Query:
    """``transport``: a name of `transports` (``tcp``, ``udp``, ...), or None for any."""

    nonce: str
    name: ServiceName
    transport: str | None = None
    cookie: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """``families``: ``"4"``, ``"6"`` or ``"46"``, on which the service listens (MK-29).

    ``ttl``: seconds for which the client may use the port without asking again.  ``sst``: the
    service wants its connections with encrypted ports.
    """

    nonce: str
    port: int
    transport: str
    version: Version
    families: str
    ttl: int
    sst: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    nonce: str
    code: Code
    text: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    nonce: str
    cookie: str
