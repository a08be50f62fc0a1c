"""What may be written where a name belongs."""

from __future__ import annotations

import random
from contextlib import suppress
from ipaddress import ip_address

import pytest

from oegw.moniker.names import ServiceName
from oegw.moniker.uri import MonikerUri
from oegw.socksnames import HostName, UnreadableName, is_localhost, wanted


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("TheForce.net", "theforce.net"),
        ("theforce.net.", "theforce.net"),
        ("_srv.theforce.net", "_srv.theforce.net"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("mon", "mon"),
        ("nothing.mon", "nothing.mon"),
        ("moon.lemon", "moon.lemon"),
    ],
)
def test_names_of_hosts(text: str, name: str) -> None:
    assert wanted(text) == HostName(name)


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"])
def test_addresses_that_are_written_as_names(text: str) -> None:
    assert wanted(text) == ip_address(text)


@pytest.mark.parametrize(
    ("text", "service", "host"),
    [
        ("starwars.theforce.net.mon", "starwars", "theforce.net"),
        ("starwars.theforce.net.MON.", "starwars", "theforce.net"),
        ("http@2.theforce.net.mon", "http@2", "theforce.net"),
        ("http@1%2E2.theforce.net.mon", "http@1.2", "theforce.net"),
        ("reynolds::http@>=1,<3.theforce.net.mon", "reynolds::http@>=1,<3", "theforce.net"),
        ("starwars.192.0.2.1.mon", "starwars", "192.0.2.1"),
        ("starwars://theforce.net", "starwars", "theforce.net"),
        ("reynolds::http@2://[2001:db8::1]", "reynolds::http@2", "2001:db8::1"),
    ],
)
def test_services(text: str, service: str, host: str) -> None:
    assert wanted(text) == MonikerUri(ServiceName.parse(service), host)


def test_a_uri_may_have_more() -> None:
    assert wanted("http://theforce.net:7/x") == MonikerUri(
        ServiceName.parse("http"), "theforce.net", 7, "/x"
    )


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "a..b", "-a.example", "a b", "x" * 64 + ".example", "1.2.3.4.5", "fe80::1%eth0",
        "[2001:db8::1]", "://host", "a://", "a b.host.mon", ".host.mon", "x.a:99999.mon",
        "\u00fc" * 200 + ".example", "bob\x00.example", "%ff.host.mon",
    ],
)  # fmt: skip
def test_what_is_neither(text: str) -> None:
    with pytest.raises(UnreadableName):
        wanted(text)


def test_no_text_of_a_stranger_raises_anything_else() -> None:
    dice = random.Random(3)
    signs = "ab.:/@%[]mon://\u00fc\u0130\u200d1 -_\x00>="
    for _ in range(2000):
        text = "".join(dice.choice(signs) for _ in range(dice.randrange(1, 40)))
        with suppress(UnreadableName):
            wanted(text + dice.choice(["", ".mon", ".a.mon"]))


def test_localhost() -> None:
    assert is_localhost("localhost")
    assert is_localhost("a.localhost")
    assert not is_localhost("mylocalhost")
