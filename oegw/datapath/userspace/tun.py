"""The tunnel device: what the kernel routes into it is to be sealed, what we write into it
came out of a tunnel.  It lives as long as one of its descriptors.

With offloads, frames have a virtio header and may be super-packets of up to 64 KiB: the kernel
leaves to us what a network card would do, and takes the same from us.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress
from dataclasses import dataclass

from oegw.bpf.kernel import BpfError, loaded
from oegw.datapath.device import configure_device
from oegw.datapath.interface import DatapathError
from oegw.datapath.userspace.offloads import (
    STEERING,
    SWITCHED_OFF,
    TCP_SEGMENTATION,
    UDP_SEGMENTATION,
    Offload,
)
from oegw.datapath.userspace.steering import steering

# Linux, <linux/if_tun.h>.
_TUNSETIFF = 0x400454CA
_TUNGETFEATURES = 0x800454CF
_TUNSETOFFLOAD = 0x400454D0
_TUNGETVNETHDRSZ = 0x800454D7
_TUNSETVNETHDRSZ = 0x400454D8
_TUNSETSTEERINGEBPF = 0x800454E0
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_MULTI_QUEUE = 0x0100
_CSUM, _TSO4, _TSO6, _TSO_ECN = 0x01, 0x02, 0x04, 0x08
_USO4, _USO6 = 0x20, 0x40  # Linux 6.2
_NAME_LIMIT = 15
_DEVICE = "/dev/net/tun"
_VIRTIO_HEADER = 10  # octets: the short form, without a number of buffers

_TCP = _CSUM | _TSO4 | _TSO6 | _TSO_ECN

_REFUSALS = {
    errno.EBUSY: "is in use, by another gateway?",
    errno.EINVAL: "is a device of another kind already; give another name as tunnel_interface",
}


@dataclass(frozen=True, slots=True)
class Tun:
    """The device: one non-blocking descriptor for each queue.

    ``virtio``: each frame begins with a virtio header of 10 octets, in the machine's byte order.
    ``uso``: the device takes super-packets of UDP (UDP_L4) from us, and gives us such.
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
    flags = _IFF_TUN | _IFF_NO_PI | (_IFF_MULTI_QUEUE if queues > 1 else 0)
    descriptors: list[int] = []
    try:
        why_not = _opened(name, flags, queues, offloads, descriptors)
        uso, told = _offloaded(descriptors, why_not)
        if queues > 1:
            told += (_steered(descriptors[0]),)
        configure_device(name, mtu)
    except OSError as error:
        _close(descriptors)
        what = _REFUSALS.get(error.errno or 0, error.strerror)
        raise DatapathError(f"tunnel interface {name}: {what}") from None
    except BaseException:
        _close(descriptors)
        raise
    return Tun(tuple(descriptors), not why_not, uso, told)


def _opened(name: str, flags: int, queues: int, offloads: bool, descriptors: list[int]) -> str:
    """Open all queues into ``descriptors``; why they are without virtio headers, or an empty
    string.  Raises OSError, DatapathError."""
    why_not = "" if offloads else SWITCHED_OFF
    for _ in range(queues):
        descriptors.append(_new())
    if not why_not and not _features(descriptors[0]) & _IFF_VNET_HDR:
        why_not = "the kernel's TUN devices have no virtio headers"
    for descriptor in descriptors:
        used = flags | (0 if why_not else _IFF_VNET_HDR)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), used))
        if not why_not and _number(descriptor, _TUNGETVNETHDRSZ) != _VIRTIO_HEADER:
            # A device that somebody made beforehand, and for another use.
            fcntl.ioctl(descriptor, _TUNSETVNETHDRSZ, struct.pack("=i", _VIRTIO_HEADER))
    return why_not


def _new() -> int:
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DatapathError(f"{_DEVICE}: {error.strerror}") from None


def _features(descriptor: int) -> int:
    try:
        return _number(descriptor, _TUNGETFEATURES)
    except OSError:  # it does not say, so there is nothing to count on
        return 0


def _number(descriptor: int, request: int) -> int:
    return int(struct.unpack("=i", fcntl.ioctl(descriptor, request, bytes(4)))[0])


def _offloaded(descriptors: list[int], why_not: str) -> tuple[bool, tuple[Offload, ...]]:
    """Have the device leave to us what it can; whether that is UDP's segmentation too, and what
    is told."""
    if why_not:
        return False, (Offload(TCP_SEGMENTATION, why_not), Offload(UDP_SEGMENTATION, why_not))
    refusal = _refused(descriptors, _TCP | _USO4 | _USO6)
    if not refusal:
        return True, (Offload(TCP_SEGMENTATION), Offload(UDP_SEGMENTATION))
    udp = Offload(UDP_SEGMENTATION, f"the TUN device refuses it: {refusal} (needs Linux 6.2)")
    refusal = _refused(descriptors, _TCP)
    if not refusal:
        return False, (Offload(TCP_SEGMENTATION), udp)
    # The headers stay, and say "no super-packet, no partial checksum" each time.
    return False, (Offload(TCP_SEGMENTATION, f"the TUN device refuses it: {refusal}"), udp)


def _refused(descriptors: list[int], features: int) -> str:
    """They are the device's, but the last queue that was told decides: so all are."""
    try:
        for descriptor in descriptors:
            set_offload(descriptor, features)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def set_offload(descriptor: int, features: int) -> None:
    """Raises OSError."""
    fcntl.ioctl(descriptor, _TUNSETOFFLOAD, features)


def _steered(descriptor: int) -> Offload:
    try:
        with loaded(steering()) as program:
            fcntl.ioctl(descriptor, _TUNSETSTEERINGEBPF, struct.pack("=i", program))
    except BpfError as error:
        return Offload(STEERING, f"{error}; the kernel's own is used")
    except OSError as error:
        return Offload(STEERING, f"the TUN device refuses it: {error.strerror}")
    return Offload(STEERING)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
