"""PySocks: CONNECT and UDP."""

from __future__ import annotations

import pytest
import socks

from tests.oegw.socks5.clients.bed import (
    BOB,
    ECHO,
    LEAVING,
    NAMES,
    NOBODY,
    OPEN_PORT,
    PASSWORD,
    PASSWORD_PORT,
    SERVER,
    USER,
    Bed,
)  # fmt: skip

pytestmark = pytest.mark.netns

FAMILIES = pytest.mark.parametrize(("via", "towards"), ["44", "46", "64", "66"])


def conversation(place: str, **proxy: object) -> str:
    """A line of Bob's, and an echo."""
    with socks.create_connection(
        (place, ECHO), timeout=10, proxy_type=socks.SOCKS5, **proxy
    ) as connection:
        said = connection.recv(100)
        connection.sendall(b"over")
        said += connection.recv(100)
    return bytes(said).decode()


@FAMILIES
def test_connect(bed: Bed, via: str, towards: str) -> None:
    proxy = {"proxy_addr": SERVER[via], "proxy_port": OPEN_PORT, "proxy_rdns": True}
    for place in BOB[towards], NAMES[towards]:
        said = bed.at_alice(lambda: conversation(place, **proxy))  # noqa: B023
        assert said == f"{LEAVING[towards]}\nover"


def test_connect_with_a_password(bed: Bed) -> None:
    proxy = {"proxy_addr": SERVER["4"], "proxy_port": PASSWORD_PORT, "proxy_rdns": True}
    account = {"proxy_username": USER, "proxy_password": PASSWORD}
    said = bed.at_alice(lambda: conversation(NAMES["6"], **proxy, **account))
    assert said == f"{LEAVING['6']}\nover"
    account["proxy_password"] = "wrong"
    with pytest.raises(socks.ProxyError) as raised:
        bed.at_alice(lambda: conversation(NAMES["6"], **proxy, **account))
    assert "authentication failed" in str(raised.value)


def test_a_refusal_has_its_code(bed: Bed) -> None:
    def tried() -> None:
        proxied = socks.socksocket()
        proxied.set_proxy(socks.SOCKS5, SERVER["4"], OPEN_PORT)
        proxied.settimeout(10)
        proxied.connect((BOB["4"], NOBODY))

    with pytest.raises(socks.ProxyError) as raised:
        bed.at_alice(tried)
    assert "0x05: Connection refused" in str(raised.value)


@pytest.mark.parametrize("towards", "46")
def test_udp(bed: Bed, towards: str) -> None:
    """PySocks asks with 0.0.0.0:0, and wants whole datagrams (FRAG 0) back.  Its UDP knows servers
    at IPv4 addresses only."""

    def asked() -> tuple[bytes, tuple[str, int]]:
        proxied = socks.socksocket(type=socks.socket.SOCK_DGRAM)
        with proxied:
            proxied.settimeout(10)
            proxied.set_proxy(socks.SOCKS5, SERVER["4"], OPEN_PORT)
            proxied.sendto(b"over", (BOB[towards], ECHO))
            found: tuple[bytes, tuple[str, int]] = proxied.recvfrom(100)
            return found

    octets, sender = bed.at_alice(asked)
    assert octets == f"{LEAVING[towards]} over".encode()
    assert sender == (BOB[towards], ECHO)
