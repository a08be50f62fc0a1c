"""Vendor IDs in messages 1 and 2 (RFC 2408 section 3.16)."""

from __future__ import annotations

from itertools import permutations

import pytest

from ike.events import Encapsulation
from ike.v1.vendor import Vendor, known_vendors, own_vendors, vendor_payloads

XAUTH = bytes.fromhex("09002689dfd6b712")  # sent by strongSwan before all others
NAT_TRAVERSAL_DRAFT = bytes.fromhex("90cb80913ebb696e086381b5ec427b1f")


@pytest.mark.parametrize(
    "order", list(permutations(Vendor)), ids=lambda v: "-".join(x.name for x in v)
)
def test_all_are_known_in_any_order_among_strangers(order: tuple[Vendor, ...]) -> None:
    octets = [XAUTH, *(vendor.value for vendor in order), NAT_TRAVERSAL_DRAFT]
    assert known_vendors(octets) == frozenset(Vendor)
    assert known_vendors(iter(octets)) == frozenset(Vendor), "a list that can be read only once"


def test_octets_behind_a_known_one_are_capabilities() -> None:
    assert known_vendors([Vendor.FRAGMENTATION.value + b"\x80\0\0\0"]) == {Vendor.FRAGMENTATION}
    assert known_vendors([Vendor.FRAGMENTATION.value[:-1], b"", XAUTH]) == frozenset()


def test_what_we_send_is_what_we_know() -> None:
    for encapsulation in Encapsulation:
        ours = own_vendors(encapsulation)
        assert known_vendors(p.octets for p in vendor_payloads(ours)) == ours
        assert (Vendor.NAT_TRAVERSAL in ours) == (encapsulation is not Encapsulation.ESP)
