"""The tunnel device: what the kernel routes into it is to be sealed, what we write into it
came out of a tunnel.  It lives as long as its descriptor."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from oegw.datapath.device import configure_device
from oegw.datapath.interface import DatapathError

# Linux, <linux/if_tun.h>.
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_NAME_LIMIT = 15
_DEVICE = "/dev/net/tun"

_REFUSALS = {
    errno.EBUSY: "is in use, by another gateway?",
    errno.EINVAL: "is a device of another kind already; give another name as tunnel_interface",
}


def open_tun(name: str, mtu: int) -> int:
    """Make the device, set it up, and return its non-blocking descriptor.

    Raises DatapathError, and leaves no device behind.
    """
    if not 0 < len(name) <= _NAME_LIMIT:
        raise DatapathError(f"tunnel interface {name!r}: a name of 1 to {_NAME_LIMIT} octets")
    try:
        descriptor = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DatapathError(f"{_DEVICE}: {error.strerror}") from None
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
        configure_device(name, mtu)
    except OSError as error:
        os.close(descriptor)
        what = _REFUSALS.get(error.errno or 0, error.strerror)
        raise DatapathError(f"tunnel interface {name}: {what}") from None
    return descriptor
