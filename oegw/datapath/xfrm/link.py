"""The XFRM interface: what is routed into it meets the policies with its id, and what comes out
of a state with its id comes out of it."""

from __future__ import annotations

import errno
import os
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from oegw.datapath.device import configure_device
from oegw.datapath.interface import DatapathError
from oegw.datapath.xfrm.settings import XfrmSettings

_NAME_LIMIT = 15


def make_link(settings: XfrmSettings) -> None:
    """Make the device anew and set it up.  Raises DatapathError, and leaves no device behind.

    One of the same kind, name and id is what an earlier run left.
    """
    name = settings.tunnel_interface
    if not 0 < len(name.encode()) <= _NAME_LIMIT:
        raise DatapathError(f"tunnel interface {name!r}: a name of 1 to {_NAME_LIMIT} octets")
    remove_link(settings)
    try:
        with IPRoute() as route:
            route.link("add", ifname=name, kind="xfrm", xfrm_if_id=settings.interface_id)
    except NetlinkError as error:
        raise DatapathError(
            f"tunnel interface {name}, an XFRM interface with id {settings.interface_id}: "
            f"{_words(error.code)}"
        ) from None
    try:
        configure_device(name, settings.mtu)
    except OSError as error:
        remove_link(settings)
        raise DatapathError(f"tunnel interface {name}: {error.strerror}") from None


def remove_link(settings: XfrmSettings) -> None:
    """Remove the device if it is ours.  Raises DatapathError."""
    try:
        with IPRoute() as route:
            for index in route.link_lookup(ifname=settings.tunnel_interface):
                [link] = route.get_links(index)
                if _is_ours(link, settings):
                    route.link("del", index=index)
    except NetlinkError as error:
        raise DatapathError(
            f"tunnel interface {settings.tunnel_interface}: {_words(error.code)}"
        ) from None


def has_link(settings: XfrmSettings) -> bool:
    """Whether the device is there, and ours.  Raises DatapathError."""
    try:
        with IPRoute() as route:
            found = route.link_lookup(ifname=settings.tunnel_interface)
            return any(_is_ours(link, settings) for i in found for link in route.get_links(i))
    except NetlinkError as error:
        raise DatapathError(
            f"tunnel interface {settings.tunnel_interface}: {_words(error.code)}"
        ) from None


def _is_ours(link: Any, settings: XfrmSettings) -> bool:
    info = link.get_attr("IFLA_LINKINFO")
    if info is None or info.get_attr("IFLA_INFO_KIND") != "xfrm":
        return False
    shape = info.get_attr("IFLA_INFO_DATA")
    return shape is not None and shape.get_attr("IFLA_XFRM_IF_ID") == settings.interface_id


def _words(code: int) -> str:
    return f"{os.strerror(code)} ({errno.errorcode.get(code, code)})"
