"""The small values that rules are made of."""

from __future__ import annotations

from policy.rule import ANY_PORT, PortRange


def test_one_port_of_a_selector_is_a_range_and_none_is_any() -> None:
    assert PortRange.of(443) == PortRange(443, 443)
    assert PortRange.of(0) == ANY_PORT
