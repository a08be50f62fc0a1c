"""Vendor IDs: what the two sides can do beyond RFC 2409 (RFC 2408 section 3.16).

An unknown one is ignored.  They stand in messages 1 and 2, where nothing protects them:
what they promise is only ever a way to speak, never a right.  The initiator says all
that it can, the responder what both can, so that message 2 is no larger than message 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from ike.events import Encapsulation
from ike.v1.payloads import VendorId


class Vendor(Enum):
    """The ones that we send and understand, with their octets."""

    NAT_TRAVERSAL = bytes.fromhex("4a131c81070358455c5728f20e95452f")  # RFC 3947 section 3.1
    DEAD_PEER_DETECTION = bytes.fromhex("afcad71368a1f1c96b8696fc77570100")  # RFC 3706 section 5.1
    FRAGMENTATION = bytes.fromhex("4048b7d56ebce88525e7de7f00d6c2d3")  # MD5 of "FRAGMENTATION"
    PORT_ENCRYPTION = bytes.fromhex(
        "f21d391a468c748c38f5117cf4b8bc64"
    )  # MD5 of "SST/1", which is ours


def known_vendors(identifiers: Iterable[bytes]) -> frozenset[Vendor]:
    """Those of ``identifiers`` that we understand.

    Some append their capabilities as further octets to FRAGMENTATION: what begins with
    a known one is that one.
    """
    said = tuple(identifiers)
    return frozenset(
        vendor for vendor in Vendor if any(octets.startswith(vendor.value) for octets in said)
    )


def own_vendors(encapsulation: Encapsulation, sst: bool = False) -> frozenset[Vendor]:
    """What we can do with a peer: all, but NAT traversal only if ESP may go in UDP.

    And port encryption only where it runs: who does without tells nobody about it.
    """
    unwanted = set[Vendor]() if sst else {Vendor.PORT_ENCRYPTION}
    if encapsulation is Encapsulation.ESP:
        unwanted.add(Vendor.NAT_TRAVERSAL)
    return frozenset(Vendor) - unwanted


def vendor_payloads(vendors: frozenset[Vendor]) -> list[VendorId]:
    return [VendorId(vendor.value) for vendor in Vendor if vendor in vendors]
