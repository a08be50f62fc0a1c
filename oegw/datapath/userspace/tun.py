"""The tunnel device: what the kernel routes into it is to be sealed, what we write into it
came out of a tunnel.  It lives as long as its descriptor."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from dataclasses import dataclass

from oegw.datapath.device import configure_device
from oegw.datapath.interface import DatapathError
from oegw.datapath.userspace.offloads import Offload

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


@dataclass(frozen=True, slots=True)
class Tun:
    """The device: one non-blocking descriptor for each queue.

    ``virtio``: each frame begins with a virtio header of 10 octets, in the machine's byte order.
    ``uso``: the device takes super-packets of UDP (UDP_L4) from us.
    A worker needs nothing but the number of its descriptor, and these two.
    """

    descriptors: tuple[int, ...]
    virtio: bool
    uso: bool
    told: tuple[Offload, ...]

    def close(self) -> None:
        """The device is gone once its workers have closed their copies too."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def open_tun(name: str, mtu: int, queues: int = 1, offloads: bool = False) -> Tun:
    """Make the device, and set it up.

    With several queues a flow, and all between two hosts, stays in one.
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
    return Tun((descriptor,), False, False, ())
