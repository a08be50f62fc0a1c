"""The client of SOCKS version 5, with the extensions.  For asyncio: `oegw.socks5.client.aio`."""

from oegw.socks5.client.association import UdpAssociation
from oegw.socks5.client.connected import Connected, Listening
from oegw.socks5.client.conversation import Conversation, address_of, connect, name_of, udp
from oegw.socks5.client.errors import (
    AddressTypeNotSupported,
    AnswerUnusable,
    CommandNotSupported,
    CredentialsRefused,
    DestinationRefused,
    DestinationUnusable,
    HostUnreachable,
    InvalidAddress,
    MethodsRefused,
    NetworkUnreachable,
    NotAllowed,
    OutOfTurn,
    ProxyError,
    ProxyUnreachable,
    RequestRefused,
    TooSlow,
    TtlExpired,
)
from oegw.socks5.client.proxy import Proxy

__all__ = [
    "AddressTypeNotSupported",
    "AnswerUnusable",
    "CommandNotSupported",
    "Connected",
    "Conversation",
    "CredentialsRefused",
    "DestinationRefused",
    "DestinationUnusable",
    "HostUnreachable",
    "InvalidAddress",
    "Listening",
    "MethodsRefused",
    "NetworkUnreachable",
    "NotAllowed",
    "OutOfTurn",
    "Proxy",
    "ProxyError",
    "ProxyUnreachable",
    "RequestRefused",
    "TooSlow",
    "TtlExpired",
    "UdpAssociation",
    "address_of",
    "connect",
    "name_of",
    "udp",
]
