"""Can this kernel do it all?  Asked by doing it: states that no packet can meet, a device without
a route; all of it removed at once, and the states die by themselves within seconds."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from oegw.datapath.interface import (
    Direction,
    SecurityAssociation,
    Selector,
    UdpEncapsulation,
)
from oegw.datapath.userspace.transform import CIPHERS, GCM, INTEGRITIES
from oegw.datapath.xfrm.messages import MessageType
from oegw.datapath.xfrm.netlink import Netlink, Xfrm, XfrmError
from oegw.datapath.xfrm.plan import standing_policies, state_of
from oegw.datapath.xfrm.settings import XfrmSettings

# Documentation's addresses (RFC 5737, RFC 3849): no packet has them.
_ENDS = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}

# Our choices.
_SPI = 0x0E60_0000
_LIFE = 5  # seconds, in case that we are killed meanwhile
_DEVICE = "oegwprobe"
_OTHER_ID = 0x4000_0000  # so that the device for the trial is not the one at work

_UDP_ENCAP = 100
_UDP_ENCAP_ESPINUDP = 2


async def probe(settings: XfrmSettings) -> str | None:
    """Why this kernel can't carry ESP for us; None if it can.

    The first time, the kernel may load its modules: that takes seconds, and happens in a thread.
    """
    return await asyncio.to_thread(shortcoming, settings)


def shortcoming(
    settings: XfrmSettings,
    connect: Callable[[], Xfrm] = Netlink,
    try_device: Callable[[XfrmSettings], str | None] | None = None,
) -> str | None:
    """The first thing that this kernel can't do."""
    try:
        kernel = connect()
    except XfrmError as error:
        return f"the kernel has no XFRM: {error}"
    try:
        return (
            _ask_for_states(kernel, settings)
            or _ask_for_policy(kernel, settings)
            or _ask_for_encapsulation(settings)
            or (try_device or _ask_for_device)(settings)
            or _ask_for_checks()
        )
    finally:
        kernel.close()


def _ask_for_states(kernel: Xfrm, settings: XfrmSettings) -> str | None:
    for sa in _trials(settings):
        state = state_of(sa, settings)
        try:
            kernel.ask(MessageType.NEWSA, state)
        except XfrmError as error:
            if error.number == errno.EEXIST:
                continue
            udp = " in UDP" if sa.encapsulation else ""
            integrity = f" and {sa.integrity}" if sa.integrity else ""
            what = f"ESP{udp} over IPv{sa.source.version} with {sa.cipher}{integrity}"
            return f"the kernel has no {what}: {error.answer}"
        with suppress(XfrmError):
            kernel.ask(MessageType.DELSA, state.name)
    return None


def _trials(settings: XfrmSettings) -> Iterator[SecurityAssociation]:
    """An SA for each cipher, key size and integrity, in each family, plain and in UDP."""
    number = _SPI
    for version in (4, 6) if _has_ipv6() else (4,):
        source, destination = (ip_address(end) for end in _ENDS[version])
        sa = SecurityAssociation(
            direction=Direction.OUTBOUND,
            spi=number,
            source=source,
            destination=destination,
            source_selector=Selector(ip_network(source)),
            destination_selector=Selector(ip_network(destination)),
            cipher=GCM,
            encryption_key=b"",
            integrity=None,
            integrity_key=b"",
            extended_sequence_numbers=True,
            soft_seconds=_LIFE,
            hard_seconds=_LIFE,
        )
        plain = None
        for encapsulation in (plain, UdpEncapsulation()):
            if encapsulation is not None and settings.encapsulation_port is None:
                continue
            for cipher, row in CIPHERS.items():
                for size in row.key_sizes:
                    for integrity in (None,) if cipher == GCM else tuple(INTEGRITIES):
                        number += 1
                        check = INTEGRITIES[integrity].key_size if integrity else 0
                        yield replace(
                            sa,
                            spi=number,
                            cipher=cipher,
                            # Three parts of a Triple-DES key must differ.
                            encryption_key=bytes(range(1, size + 1)),
                            integrity=integrity,
                            integrity_key=bytes(range(1, check + 1)),
                            encapsulation=encapsulation,
                        )


def _ask_for_policy(kernel: Xfrm, settings: XfrmSettings) -> str | None:
    """A policy of an id that no device has meets no packet."""
    unused = replace(settings, interface_id=settings.interface_id | _OTHER_ID)
    policy = standing_policies(unused)[0]
    try:
        kernel.ask(MessageType.UPDPOLICY, policy)
        kernel.ask(MessageType.DELPOLICY, policy.name)
    except XfrmError as error:
        return f"the kernel has no XFRM policies: {error.answer}"
    return None


def _ask_for_encapsulation(settings: XfrmSettings) -> str | None:
    if settings.encapsulation_port is None:
        return None
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        if version == 6 and not _has_ipv6():
            continue
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as trial:
                trial.setsockopt(socket.IPPROTO_UDP, _UDP_ENCAP, _UDP_ENCAP_ESPINUDP)
        except OSError as error:
            return f"the kernel has no ESP in UDP over IPv{version}: {error.strerror}"
    return None


def _ask_for_device(settings: XfrmSettings) -> str | None:
    try:
        with IPRoute() as route:
            unused = settings.interface_id | _OTHER_ID
            for index in route.link_lookup(ifname=_DEVICE):  # of a run that was killed
                route.link("del", index=index)
            route.link("add", ifname=_DEVICE, kind="xfrm", xfrm_if_id=unused)
            for index in route.link_lookup(ifname=_DEVICE):
                route.link("del", index=index)
    except NetlinkError as error:
        name = errno.errorcode.get(error.code, error.code)
        return f"the kernel has no XFRM interfaces: {os.strerror(error.code)} ({name})"
    return None


def _ask_for_checks() -> str | None:
    """Where no policy is asked about what came in, each SA carries packets of any addresses."""
    for version in (4, 6):
        path = Path(f"/proc/sys/net/ipv{version}/conf/all/disable_policy")
        with suppress(OSError):  # a kernel without IPv6
            if path.read_text(encoding="ascii").strip() != "0":
                name = f"net.ipv{version}.conf.all.disable_policy"
                return f"{name} is set: the kernel would not check what comes out of a tunnel"
    return None


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True
