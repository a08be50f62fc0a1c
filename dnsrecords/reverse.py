"""Where an address has its records: in-addr.arpa (RFC 1035 3.5) and ip6.arpa (RFC 3596 2.5)."""

from __future__ import annotations

from ipaddress import IPv6Address

from dnsrecords.outcome import IPAddress


def reverse_name(address: IPAddress) -> str:
    """The owner name for ``address``, absolute with a trailing dot; a zone index is left out."""
    if isinstance(address, IPv6Address):
        address = IPv6Address(address.packed)  # drops "%eth0", which means nothing to the DNS
    return address.reverse_pointer + "."
