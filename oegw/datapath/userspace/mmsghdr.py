"""The messages of sendmmsg(2) and recvmmsg(2), and these calls by ctypes."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

# Linux, <sys/socket.h>: struct mmsghdr, that is msghdr and the length that was sent.
MESSAGE = struct.Struct("@PIPNPNi0PI0P")
CONTROL_LENGTH = struct.calcsize("@PIPNP")  # where it is in there: after all before it
MESSAGE_LENGTH = struct.calcsize("@PIPNPNi0P")

_libc = ctypes.CDLL(None, use_errno=True)


def system_call(name: str, arguments: int) -> Any:
    """A function of the C library that takes numbers and addresses, all as long as a pointer, and
    answers an int."""
    function = _libc[name]
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int) + (
        (ctypes.c_void_p,) * (arguments - 4)
    )
    function.restype = ctypes.c_int
    return function
