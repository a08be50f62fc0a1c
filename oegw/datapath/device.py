"""What holds for the tunnel device, whichever its kind: address, size, the kernel's settings."""

from __future__ import annotations

import errno
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from oegw.datapath.interface import DatapathError

# Packets out of a tunnel come from addresses whose route leads elsewhere.  The kernel's reverse
# path filter lets such in by a loose check, but only on a device with some IPv4 address.
# This one is reserved for a device that has none to show (RFC 7600 section 4.8),
# and its scope keeps it from being chosen as a source.
_DUMMY_ADDRESS = "192.0.0.8"
_SCOPE_HOST = 254
_UP = 1  # linux/if.h, IFF_UP

# Our choice: packets that wait in the device while the worker is busy.  Each may be a super-packet
# of 64 KiB; with more of them all that passes would wait behind one transfer.
_QUEUE_LENGTH = 1000

_SYSCTLS = (
    (
        "net/ipv4/conf/{}/rp_filter",
        "2",
        True,
    ),  # loose; the kernel takes the larger of this and "all"
    ("net/ipv4/conf/{}/send_redirects", "0", False),
    # An XFRM interface whose packets no policy is asked about takes any out of each SA.
    ("net/ipv4/conf/{}/disable_policy", "0", False),
    ("net/ipv6/conf/{}/disable_policy", "0", False),
    # No IPv6 address, no router to ask.
    ("net/ipv6/conf/{}/addr_gen_mode", "1", False),
    ("net/ipv6/conf/{}/accept_ra", "0", False),
    ("net/ipv6/conf/{}/accept_dad", "0", False),
    ("net/ipv6/conf/{}/router_solicitations", "0", False),
    # Where new devices have no IPv6 ("default"), no route of IPv6 could lead into this one.
    ("net/ipv6/conf/{}/disable_ipv6", "0", False),
)


def configure_device(name: str, mtu: int) -> None:
    """Give the device ``name`` what it needs, and set it up.  Raises OSError."""
    for path, value, required in _SYSCTLS:
        try:
            Path("/proc/sys", path.format(name)).write_text(value)
        except OSError:
            if required:
                raise
    with IPRoute() as route:
        [index] = route.link_lookup(ifname=name)
        try:
            route.addr(
                "replace", index=index, address=_DUMMY_ADDRESS, prefixlen=32, scope=_SCOPE_HOST
            )
            route.link("set", index=index, mtu=mtu, txqlen=_QUEUE_LENGTH, state="up")
        except Exception as error:  # pyroute2's errors share no base class that it documents
            raise OSError(getattr(error, "code", errno.EIO), str(error)) from None


def mend_device(name: str, mtu: int) -> tuple[str, ...]:
    """Give it again what somebody else took away; returns what that was.  Raises DatapathError."""
    try:
        gone = _lacking(name)
        if gone:
            configure_device(name, mtu)
    except (OSError, NetlinkError) as error:
        raise DatapathError(f"tunnel interface {name}: {error}") from None
    return gone


def _lacking(name: str) -> tuple[str, ...]:
    """Raises OSError, NetlinkError."""
    with IPRoute() as route:
        index = next(iter(route.link_lookup(ifname=name)), None)
        if index is None:
            raise OSError(errno.ENODEV, "somebody has removed it")
        [link] = route.get_links(index)
        held = {each.get_attr("IFA_ADDRESS") for each in route.get_addr(index=index)}
    gone = () if link["flags"] & _UP else (f"{name} up",)
    return gone if _DUMMY_ADDRESS in held else (*gone, f"address of {name}")
