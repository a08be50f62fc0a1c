"""Vendor IDs: what a peer's payloads say that it can do."""

from __future__ import annotations

import pytest

from ike.v1.vendor import Vendor, known_vendors


@pytest.mark.parametrize("order", [1, -1])
def test_each_known_vendor_is_found_in_any_order_and_from_an_iterator(order: int) -> None:
    identifiers = [b"somebody else", *(vendor.value for vendor in Vendor)][::order]
    assert known_vendors(iter(identifiers)) == frozenset(Vendor)


def test_further_octets_are_capabilities_and_missing_ones_another_vendor() -> None:
    fragmentation = Vendor.FRAGMENTATION.value
    assert known_vendors([fragmentation + b"\x80\0\0\0"]) == {Vendor.FRAGMENTATION}
    assert known_vendors([fragmentation[:-1]]) == frozenset()
