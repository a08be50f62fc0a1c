"""The numbers of the protocol (RFC 1928, RFC 1929, draft-kitamura-socks-ipv6-01).

Marked (x): extensions of draft-kitamura-socks-ipv6-01.  Marked (p): of
draft-ietf-aft-socks-pro-v5, which the former is based on.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

VERSION = 5
CREDENTIALS_VERSION = 1  # RFC 1929
DEFAULT_PORT = 1080


class Method(IntEnum):
    """Methods of authentication.  GSSAPI (1) is not offered."""

    NONE = 0x00
    PASSWORD = 0x02
    NO_ACCEPTABLE = 0xFF


class Command(IntEnum):
    """Bit 0x08 asks for the association of an address, alone or with a base command."""

    CONNECT = 0x01
    BIND = 0x02
    UDP_ASSOCIATE = 0x03
    ASSOCIATE = 0x08  # x
    CONNECT_AND_ASSOCIATE = 0x09  # x
    BIND_AND_ASSOCIATE = 0x0A  # x
    UDP_AND_ASSOCIATE = 0x0B  # x

    @property
    def base(self) -> Command | None:
        """CONNECT, BIND, UDP_ASSOCIATE; None for ASSOCIATE alone."""
        return Command(self & 0x07) if self & 0x07 else None

    @property
    def associates(self) -> bool:
        return bool(self & 0x08)


class AddressType(IntEnum):
    IPV4 = 0x01
    NAME = 0x03
    IPV6 = 0x04
    ID = 0x08  # x


class ReplyCode(IntEnum):
    SUCCEEDED = 0x00
    FAILURE = 0x01
    NOT_ALLOWED = 0x02
    NETWORK_UNREACHABLE = 0x03
    HOST_UNREACHABLE = 0x04
    CONNECTION_REFUSED = 0x05
    TTL_EXPIRED = 0x06
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_TYPE_NOT_SUPPORTED = 0x08
    INVALID_ADDRESS = 0x09  # x


class Flag(IntFlag):
    """Of a request; a reply's is 0.  Other bits are ignored, and counted (SK-40)."""

    INTERFACE_REQUEST = 0x01  # p
    USE_CLIENT_PORT = 0x04  # p; UDP ASSOCIATE
    DESTINATION_FAMILY = 0x10  # x; the reply has the family used towards the destination


class Subcommand(IntEnum):
    """Of the UDP control channel."""

    INTERFACE_DATA = 0x01  # p
