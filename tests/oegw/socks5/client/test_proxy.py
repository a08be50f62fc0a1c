"""Which server is meant, and which destination."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from oegw.socks5.client.errors import DestinationUnusable
from oegw.socks5.client.proxy import Proxy, destination_of
from oegw.socks5.wire import Address, AddressId


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("gateway", Proxy("gateway")),
        ("gateway:1081", Proxy("gateway", 1081)),
        ("192.1.1.4", Proxy("192.1.1.4")),
        ("2001:db8::1", Proxy("2001:db8::1")),
        ("::1", Proxy("::1")),
        ("[2001:db8::1]:1081", Proxy("2001:db8::1", 1081)),
        ("fe80::1%eth0", Proxy("fe80::1%eth0")),
        ("alice@gateway", Proxy("gateway", user="alice")),
        ("socks5://gateway", Proxy("gateway")),
        ("socks5h://al%40ice:s%3Acret@[::1]:9/", Proxy("::1", 9, "al@ice", "s:cret")),
    ],
)
def test_a_server_is_written_in_these_ways(text: str, proxy: Proxy) -> None:
    assert Proxy.parse(text) == proxy


@pytest.mark.parametrize(
    "text",
    ["", ":1080", "http://gateway", "socks4://gateway", "gateway:port", "gateway:70000", "a/b",
     "gateway?x", "[::1", "alice@"],
)  # fmt: skip
def test_and_in_no_others(text: str) -> None:
    with pytest.raises(ValueError, match=r"server|socks5|Port"):
        Proxy.parse(text)


def test_a_proxy_is_printed_without_its_secrets() -> None:
    proxy = Proxy("::1", 1080, "alice", "secret")
    assert "secret" not in repr(proxy) + str(proxy)
    assert str(proxy) == "[::1]:1080"


@pytest.mark.parametrize("password", ["", "x" * 256, "é" * 128])
def test_credentials_have_to_fit(password: str) -> None:
    with pytest.raises(ValueError, match="1 to 255 octets"):
        Proxy("gateway", user="alice", password=password).credentials()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("bob.example", "bob.example"),
        ("192.2.0.66", ip_address("192.2.0.66")),
        ("2001:db8::1", ip_address("2001:db8::1")),
        ("[2001:db8::1]", ip_address("2001:db8::1")),
        (AddressId(1), AddressId(1)),
        ("192.2.0.066", "192.2.0.066"),  # nobody knows what that is; the server decides
    ],
)
def test_destinations(written: Address, meant: Address) -> None:
    assert destination_of(written) == meant


@pytest.mark.parametrize(
    ("destination", "port"),
    [("", 1), ("x" * 256, 1), ("bob", -1), ("bob", 65536), ("fe80::1%eth0", 1), ("\udc80", 1)],
)
def test_what_is_no_destination(destination: str, port: int) -> None:
    with pytest.raises(DestinationUnusable):
        destination_of(destination, port)
