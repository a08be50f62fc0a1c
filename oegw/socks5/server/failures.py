"""What went wrong with a socket, as the code that the client is told (RFC 1928 section 6).

Linux turns several kinds of ICMP into one errno, and a packet's end by its hop limit into "no route
to host".  The socket's error queue has the ICMP message itself.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress

from oegw.socks5.codes import ReplyCode
from oegw.socks5.interface import Refused

# Linux, <linux/in.h>, <linux/in6.h>, <linux/errqueue.h>; Python does not name them.
IP_RECVERR = 11
IPV6_RECVERR = 25
_EXTENDED_ERROR = struct.Struct("=IBBBxII")  # errno, origin, type, code, info, data
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3

# RFC 792, RFC 1812 section 5.2.7.1; RFC 4443 sections 3.1 and 3.3.
_UNREACHABLE, _EXCEEDED = 3, 11
_UNREACHABLE_6, _EXCEEDED_6 = 1, 3
_PROHIBITED = (9, 10, 13)
_PROHIBITED_6 = (1, 5, 6)

_CODES = {
    errno.ECONNREFUSED: ReplyCode.CONNECTION_REFUSED,
    errno.ENETUNREACH: ReplyCode.NETWORK_UNREACHABLE,
    errno.ENETDOWN: ReplyCode.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: ReplyCode.HOST_UNREACHABLE,
    errno.EHOSTDOWN: ReplyCode.HOST_UNREACHABLE,
    errno.ETIMEDOUT: ReplyCode.HOST_UNREACHABLE,
    errno.ECONNRESET: ReplyCode.CONNECTION_REFUSED,  # before it was established
    # A firewall of ours, or one that said so by ICMPv6.
    errno.EACCES: ReplyCode.NOT_ALLOWED,
    errno.EPERM: ReplyCode.NOT_ALLOWED,
    # No address of ours of that family.
    errno.EAFNOSUPPORT: ReplyCode.NETWORK_UNREACHABLE,
    errno.EADDRNOTAVAIL: ReplyCode.NETWORK_UNREACHABLE,
}


def refusal(error: OSError, code: ReplyCode | None = None) -> Refused:
    """``error`` in the client's terms; ``code``: where something better is known than its errno."""
    number = error.errno or 0
    reason = errno.errorcode.get(number, "error").lower()
    if code is None:
        code = _CODES.get(number, ReplyCode.FAILURE)
    return Refused(code, reason, error.strerror or str(error))


def listen_to_icmp(sock: socket.socket, wanted: bool) -> None:
    """Have the kernel keep ICMP errors for `code_by_icmp`.

    Off again once the socket is connected: an established connection would end by them.
    """
    with suppress(OSError):
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, wanted)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, wanted)


def code_by_icmp(sock: socket.socket) -> ReplyCode | None:
    """What the last ICMP error in the queue of ``sock`` says beyond its errno; None: nothing."""
    found = None
    for _ in range(8):  # some, at most, for each packet sent
        try:
            _, ancillary, _, _ = sock.recvmsg(1, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError:
            break
        for level, kind, octets in ancillary:
            if (level, kind) in (
                (socket.IPPROTO_IP, IP_RECVERR),
                (socket.IPPROTO_IPV6, IPV6_RECVERR),
            ):
                found = _by_type(octets) or found
    return found


def _by_type(octets: bytes) -> ReplyCode | None:
    if len(octets) < _EXTENDED_ERROR.size:
        return None
    _, origin, kind, code, _, _ = _EXTENDED_ERROR.unpack_from(octets)
    if (origin, kind) in ((_ORIGIN_ICMP, _EXCEEDED), (_ORIGIN_ICMP6, _EXCEEDED_6)):
        return ReplyCode.TTL_EXPIRED
    if (origin, kind) == (_ORIGIN_ICMP, _UNREACHABLE) and code in _PROHIBITED:
        return ReplyCode.NOT_ALLOWED
    if (origin, kind) == (_ORIGIN_ICMP6, _UNREACHABLE_6) and code in _PROHIBITED_6:
        return ReplyCode.NOT_ALLOWED
    return None
