"""SAs for tests of the datapath: each algorithm, both directions."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from oegw.datapath.interface import Direction, SecurityAssociation, Selector

A4, B4 = "192.1.0.65", "192.2.0.66"
A6, B6 = "2001:db8:1::65", "2001:db8:2::66"
GATEWAY_A4, GATEWAY_B4 = "192.1.1.4", "192.1.1.5"
GATEWAY_A6, GATEWAY_B6 = "2001:db8:1:1::4", "2001:db8:1:1::5"

ALGORITHMS: dict[str, tuple[str, int, str | None, int]] = {
    "gcm-128": ("aes-gcm-16", 20, None, 0),
    "gcm-192": ("aes-gcm-16", 28, None, 0),
    "gcm-256": ("aes-gcm-16", 36, None, 0),
    "cbc-sha2": ("aes-cbc", 32, "hmac-sha2-256-128", 32),
    "cbc-sha1": ("aes-cbc", 16, "hmac-sha1-96", 20),
    "cbc-192-md5": ("aes-cbc", 24, "hmac-md5-96", 16),
    "3des-sha1": ("3des-cbc", 24, "hmac-sha1-96", 20),
    "3des-md5": ("3des-cbc", 24, "hmac-md5-96", 16),
    "3des-sha2": ("3des-cbc", 24, "hmac-sha2-256-128", 32),
}


def selector(text: str, protocol: int = 0, port: int = 0) -> Selector:
    return Selector(ip_network(text), protocol, port)


def make_sa(
    algorithm: str = "gcm-128",
    direction: Direction = Direction.OUTBOUND,
    spi: int = 0x1000,
    source: str = GATEWAY_A4,
    destination: str = GATEWAY_B4,
    inner: tuple[Selector, Selector] | None = None,
    **fields: Any,
) -> SecurityAssociation:
    """An SA from A to B, with keys that depend only on the algorithm."""
    cipher, key_size, integrity, integrity_size = ALGORITHMS[algorithm]
    source_selector, destination_selector = inner or (selector(A4), selector(B4))
    return SecurityAssociation(
        direction=direction,
        spi=spi,
        source=ip_address(source),
        destination=ip_address(destination),
        source_selector=source_selector,
        destination_selector=destination_selector,
        cipher=cipher,
        encryption_key=bytes(range(1, key_size + 1)),
        integrity=integrity,
        integrity_key=bytes(range(101, 101 + integrity_size)),
        **fields,
    )


def arriving(sa: SecurityAssociation) -> SecurityAssociation:
    """The receiver's half of an outbound SA."""
    return replace(sa, direction=Direction.INBOUND)
