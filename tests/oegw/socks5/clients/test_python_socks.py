"""python-socks: CONNECT, blocking and with asyncio.  It checks that the reserved octet of a reply
is 0 (SK-39), and that what the server says is neither short nor of an unknown type."""

from __future__ import annotations

import asyncio

import pytest
from python_socks import ProxyError
from python_socks.async_.asyncio import Proxy as AsyncProxy
from python_socks.sync import Proxy

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
    bracketed,
)  # fmt: skip

pytestmark = pytest.mark.netns

FAMILIES = pytest.mark.parametrize(("via", "towards"), ["44", "46", "64", "66"])


def url(via: str, port: int = OPEN_PORT, account: str = "") -> str:
    return f"socks5://{account}{bracketed(SERVER[via])}:{port}"


def conversation(proxy: str, place: str, port: int = ECHO) -> str:
    with Proxy.from_url(proxy, rdns=True).connect(place, port, timeout=10) as connection:
        said = connection.recv(100)
        connection.sendall(b"over")
        said += connection.recv(100)
    return bytes(said).decode()


async def conversation_with_asyncio(proxy: str, place: str) -> str:
    made = await AsyncProxy.from_url(proxy, rdns=True).connect(place, ECHO, timeout=10)
    reader, writer = await asyncio.open_connection(sock=made)
    said = await reader.readline()
    writer.write(b"over")
    writer.write_eof()
    said += await reader.read()
    writer.close()
    await writer.wait_closed()
    return said.decode()


@FAMILIES
def test_connect(bed: Bed, via: str, towards: str) -> None:
    for place in BOB[towards], NAMES[towards]:
        said = bed.at_alice(lambda: conversation(url(via), place))  # noqa: B023
        assert said == f"{LEAVING[towards]}\nover"


@FAMILIES
def test_connect_with_asyncio(bed: Bed, via: str, towards: str) -> None:
    """Its client ends its own direction first: what comes back is whole (half-close)."""
    asked = conversation_with_asyncio(url(via), NAMES[towards])
    assert bed.at_alice(lambda: asyncio.run(asked)) == f"{LEAVING[towards]}\nover"


def test_connect_with_a_password(bed: Bed) -> None:
    proxy = url("6", PASSWORD_PORT, f"{USER}:{PASSWORD}@")
    assert bed.at_alice(lambda: conversation(proxy, NAMES["4"])) == f"{LEAVING['4']}\nover"
    wrong = url("6", PASSWORD_PORT, f"{USER}:wrong@")
    with pytest.raises(ProxyError, match="authentication failure"):
        bed.at_alice(lambda: conversation(wrong, NAMES["4"]))


def test_a_refusal_has_its_code(bed: Bed) -> None:
    with pytest.raises(ProxyError) as raised:
        bed.at_alice(lambda: conversation(url("4"), BOB["4"], NOBODY))
    assert raised.value.error_code == 5
