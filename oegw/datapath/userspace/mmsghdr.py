"""The messages of sendmmsg(2) and recvmmsg(2), and these calls by ctypes.

Where a kernel, or what keeps watch over its system calls, has none, each message goes by itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Any

# Linux, <sys/socket.h>: struct mmsghdr, that is msghdr and the length that was sent.
MESSAGE = struct.Struct("@PIPNPNi0PI0P")
CONTROL_LENGTH = struct.calcsize("@PIPNP")  # where it is in there: after all before it
MESSAGE_LENGTH = struct.calcsize("@PIPNPNi0P")

_libc = ctypes.CDLL(None, use_errno=True)


def _system_call(name: str, *arguments: Any) -> Any:
    function = _libc[name]
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, *arguments)
    function.restype = ctypes.c_ssize_t if arguments == (ctypes.c_int,) else ctypes.c_int
    return function


_sendmmsg = _system_call("sendmmsg", ctypes.c_uint, ctypes.c_int)
_recvmmsg = _system_call("recvmmsg", ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmsg = _system_call("sendmsg", ctypes.c_int)
_recvmsg = _system_call("recvmsg", ctypes.c_int)

_DONT_WAIT = socket.MSG_DONTWAIT
_REFUSED = (errno.ENOSYS, errno.EPERM)  # by the kernel; by what keeps watch over its calls


def send_messages(descriptor: int, address: int, count: int) -> int:
    """How many of the messages at ``address`` the kernel took.  Raises OSError if it took none."""
    while True:
        sent: int = _sendmmsg(descriptor, address, count, _DONT_WAIT)
        if sent >= 0:
            return sent
        number = ctypes.get_errno()
        if number in _REFUSED:  # one by one, then
            if _sendmsg(descriptor, address, _DONT_WAIT) >= 0:
                return 1
            number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def receive_messages(descriptor: int, address: int, count: int) -> int:
    """How many messages came, without waiting.  Raises OSError if none did: EAGAIN."""
    while True:
        came: int = _recvmmsg(descriptor, address, count, _DONT_WAIT, None)
        if came >= 0:
            return came
        number = ctypes.get_errno()
        if number in _REFUSED:
            return _receive_one_by_one(descriptor, address, count)
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def _receive_one_by_one(descriptor: int, address: int, count: int) -> int:
    for came in range(count):
        at = address + came * MESSAGE.size
        octets: int = _recvmsg(descriptor, at, _DONT_WAIT)
        if octets < 0:
            number = ctypes.get_errno()
            if came:
                return came
            raise OSError(number, os.strerror(number))
        ctypes.c_uint.from_address(at + MESSAGE_LENGTH).value = octets
    return count
