"""What can go wrong between an application and a SOCKS server, each with its class.

All are `SocksError`.  Those that a program which knows sockets expects as an OSError of the
standard library are that as well.
"""

from __future__ import annotations

import errno

from oegw.socks5.codes import ReplyCode
from oegw.socks5.wire import SocksError


class ProxyError(SocksError):
    """What the client's side of this room raises."""


class ProxyUnreachable(ProxyError, ConnectionError):  # noqa: N818  (it names the fact)
    """No connection to the server can be had, or it ended before its time."""


class AnswerUnusable(ProxyError, ConnectionError):  # noqa: N818
    """Something answered that speaks no SOCKS version 5, or not to our question."""


class TooSlow(ProxyError, TimeoutError):  # noqa: N818
    """It was not done within the time that the caller gave it."""


class MethodsRefused(ProxyError, PermissionError):  # noqa: N818
    """The server wants another authentication than we can offer (SK-1)."""


class CredentialsRefused(ProxyError, PermissionError):  # noqa: N818
    """User and password were not accepted."""


class DestinationUnusable(ProxyError, ValueError):  # noqa: N818
    """What can't be put into a request: an empty or too long name, a port that is none."""


class OutOfTurn(ProxyError, RuntimeError):  # noqa: N818
    """Our own mistake: something was asked for that the conversation has no place for any more."""


class RequestRefused(ProxyError, OSError):  # noqa: N818
    """The server's answer is no; ``code`` says why, an octet that may be unknown to `ReplyCode`."""

    code: int

    def __init__(self, number: int, text: str, code: int = ReplyCode.FAILURE) -> None:
        super().__init__(number, text)
        self.code = code


class NotAllowed(RequestRefused, PermissionError):  # noqa: N818
    """By the server's rules."""


class NetworkUnreachable(RequestRefused):
    """From the server."""


class HostUnreachable(RequestRefused):
    """From the server; or a name without address, an address without name."""


class DestinationRefused(RequestRefused, ConnectionRefusedError):  # noqa: N818
    """By the destination."""


class TtlExpired(RequestRefused):
    """On the way to the destination."""


class CommandNotSupported(RequestRefused):
    """Or a part of one, by a server without the extensions."""


class AddressTypeNotSupported(RequestRefused):
    """Or, to an ADDRESS ASSOCIATE, there is no address of the preferred family (SK-37)."""


class InvalidAddress(RequestRefused):
    """An ADDRESS ID that is unknown or has expired (SK-18), or a name that can't be one."""


_REFUSALS: dict[int, tuple[type[RequestRefused], int, str]] = {
    ReplyCode.FAILURE: (RequestRefused, errno.EIO, "the server failed"),
    ReplyCode.NOT_ALLOWED: (NotAllowed, errno.EACCES, "not allowed by the server's rules"),
    ReplyCode.NETWORK_UNREACHABLE: (NetworkUnreachable, errno.ENETUNREACH, "network unreachable"),
    ReplyCode.HOST_UNREACHABLE: (HostUnreachable, errno.EHOSTUNREACH, "host unreachable"),
    ReplyCode.CONNECTION_REFUSED: (DestinationRefused, errno.ECONNREFUSED, "connection refused"),
    ReplyCode.TTL_EXPIRED: (TtlExpired, errno.EHOSTUNREACH, "TTL expired"),
    ReplyCode.COMMAND_NOT_SUPPORTED: (
        CommandNotSupported, errno.EOPNOTSUPP, "the server does not support the command",
    ),
    ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED: (
        AddressTypeNotSupported, errno.EAFNOSUPPORT, "no address of that type",
    ),
    ReplyCode.INVALID_ADDRESS: (InvalidAddress, errno.EADDRNOTAVAIL, "invalid address"),
}  # fmt: skip


def refusal(code: int) -> RequestRefused:
    """The error that a reply with ``code``, which is not 0, stands for."""
    kind, number, text = _REFUSALS.get(
        code, (RequestRefused, errno.EIO, f"refused, with the unassigned code {code}")
    )
    return kind(number, text, code)
