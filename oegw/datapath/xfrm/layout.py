"""The C structures that NETLINK_XFRM's messages share (<linux/xfrm.h>), and their parts.

Native sizes and alignment throughout: the structures are not the same on every machine.
Ports and SPIs stand in network order, all else in the machine's.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address
from struct import Struct

from oegw.datapath.interface import IPAddress, IPNetwork, Selector

AF_UNSPEC = 0
AF_INET = 2
AF_INET6 = 10

_ADDRESS = 16
_UNLIMITED = 2**64 - 1  # XFRM_INF

SELECTOR = Struct("@16s16s2s2s2s2sHBBBiI")
"""struct xfrm_selector: destination, source, ports with masks, family, prefixes, protocol,
interface, user."""

ID = "16s4sB0I"
"""struct xfrm_id: destination, SPI, protocol."""

LIMITS = "8Q"
"""struct xfrm_lifetime_cfg: soft and hard of bytes, packets, seconds, seconds of use."""

CONSUMED = "4Q"
"""struct xfrm_lifetime_cur: bytes, packets, when added, when first used."""

STATE_NAME = Struct("@16s4sHB0I")
"""struct xfrm_usersa_id: destination, SPI, family, protocol."""


def family_of(address: IPAddress | IPNetwork) -> int:
    return AF_INET if address.version == 4 else AF_INET6


def pack_address(address: IPAddress | None) -> bytes:
    """xfrm_address_t; None is any."""
    return (address.packed if address is not None else b"").ljust(_ADDRESS, b"\0")


def unpack_address(raw: bytes, family: int) -> IPAddress:
    return ip_address(raw[:4] if family == AF_INET else raw)


def pack_selector(source: Selector, destination: Selector) -> bytes:
    def port(selector: Selector) -> tuple[bytes, bytes]:
        mask = b"\xff\xff" if selector.port else b"\0\0"
        return selector.port.to_bytes(2, "big"), mask

    return SELECTOR.pack(
        pack_address(destination.network.network_address),
        pack_address(source.network.network_address),
        *port(destination),
        *port(source),
        family_of(source.network),
        destination.network.prefixlen,
        source.network.prefixlen,
        source.protocol,
        0,
        0,
    )


def unpack_selector(raw: bytes) -> tuple[Selector, Selector] | None:
    """Source and destination; None if it is of no family, i.e. says nothing."""
    (
        destination, source, destination_port, _, source_port, _, family, destination_bits,
        source_bits, protocol, _, _,
    ) = SELECTOR.unpack(raw)  # fmt: skip
    if family not in (AF_INET, AF_INET6):
        return None
    network = IPv4Network if family == AF_INET else IPv6Network
    size = 4 if family == AF_INET else 16
    return (
        Selector(
            network((source[:size], source_bits), strict=False),
            protocol,
            int.from_bytes(source_port, "big"),
        ),
        Selector(
            network((destination[:size], destination_bits), strict=False),
            protocol,
            int.from_bytes(destination_port, "big"),
        ),
    )


def or_unlimited(limit: int | None) -> int:
    return _UNLIMITED if limit is None else limit


def or_none(limit: int) -> int | None:
    return None if limit == _UNLIMITED else limit
