"""Addresses that a record may name as a gateway's."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

IPAddress = IPv4Address | IPv6Address

_BROADCAST = IPv4Address("255.255.255.255")


def why_unusable(address: IPAddress) -> str | None:
    """Why no gateway in the Internet can have ``address``; None if one can."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return "gateway's address has a zone index"
        if address.ipv4_mapped is not None:
            return f"gateway {address} is an IPv4 address in IPv6 clothes"
    for wrong, what in (
        (address.is_unspecified, "the unspecified address"),
        (address.is_loopback, "a loopback address"),
        (address.is_multicast, "a multicast address"),
        (address.is_link_local, "a link-local address"),
        (address == _BROADCAST, "the broadcast address"),
    ):
        if wrong:
            return f"gateway {address} is {what}"
    return None
