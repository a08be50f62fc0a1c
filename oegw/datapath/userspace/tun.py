"""The tunnel device: what the kernel routes into it is to be sealed, what we write into it
came out of a tunnel.  It lives as long as its descriptor."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from pyroute2 import IPRoute

from oegw.datapath.interface import DatapathError

# Linux, <linux/if_tun.h>.
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_NAME_LIMIT = 15
_DEVICE = "/dev/net/tun"

# Packets out of a tunnel come from addresses whose route leads elsewhere.  The kernel's reverse
# path filter lets such in by a loose check, but only on a device with some IPv4 address.
# This one is reserved for a device that has none to show (RFC 7600 section 4.8),
# and its scope keeps it from being chosen as a source.
_DUMMY_ADDRESS = "192.0.0.8"
_SCOPE_HOST = 254

# Our choice: packets that wait in the device while the worker is busy.
_QUEUE_LENGTH = 2000

_SYSCTLS = (
    (
        "net/ipv4/conf/{}/rp_filter",
        "2",
        True,
    ),  # loose; the kernel takes the larger of this and "all"
    ("net/ipv4/conf/{}/send_redirects", "0", False),
    # No IPv6 address, no router to ask.
    ("net/ipv6/conf/{}/addr_gen_mode", "1", False),
    ("net/ipv6/conf/{}/accept_ra", "0", False),
    ("net/ipv6/conf/{}/accept_dad", "0", False),
    ("net/ipv6/conf/{}/router_solicitations", "0", False),
)


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
        _configure(name, mtu)
    except OSError as error:
        os.close(descriptor)
        what = "is in use, by another gateway?" if error.errno == errno.EBUSY else error.strerror
        raise DatapathError(f"tunnel interface {name}: {what}") from None
    return descriptor


def _configure(name: str, mtu: int) -> None:
    """Raises OSError."""
    for path, value, required in _SYSCTLS:
        try:
            Path("/proc/sys", path.format(name)).write_text(value)
        except OSError:
            if required:
                raise
    with IPRoute() as route:
        [index] = route.link_lookup(ifname=name)
        try:
            route.addr("add", index=index, address=_DUMMY_ADDRESS, prefixlen=32, scope=_SCOPE_HOST)
            route.link("set", index=index, mtu=mtu, txqlen=_QUEUE_LENGTH, state="up")
        except Exception as error:  # pyroute2's errors share no base class that it documents
            raise OSError(getattr(error, "code", errno.EIO), str(error)) from None
