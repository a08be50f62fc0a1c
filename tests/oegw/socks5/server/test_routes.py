"""Whose an address is."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from oegw.socks5.server.routes import is_own


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
    ],
)
def test_own_addresses(address: str, own: bool) -> None:
    assert is_own(ip_address(address)) == own
