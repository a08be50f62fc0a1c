"""Proof of a datagram's source (MK-33)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from oegw.moniker.cookies import STEP, Cookies
from oegw.moniker.wire import Retry, parse, text

ALICE, BOB = ip_address("192.0.2.1"), ip_address("2001:db8::1")
COOKIES = Cookies(b"s" * 32)


def test_mk_33_a_cookie_is_good_for_its_source_only() -> None:
    cookie = COOKIES.cookie(ALICE, 100.0)
    assert COOKIES.holds(cookie, ALICE, 100.0)
    for other in (BOB, ip_address("192.0.2.2"), ip_address("::192.0.2.1")):
        assert not COOKIES.holds(cookie, other, 100.0)
    assert not Cookies(b"t" * 32).holds(cookie, ALICE, 100.0)


def test_mk_33_a_cookie_is_good_for_one_to_two_steps() -> None:
    for born in (0.0, 1.0, STEP - 0.1, 12345.6):
        cookie = COOKIES.cookie(ALICE, born)
        assert COOKIES.holds(cookie, ALICE, born + STEP)
        assert not COOKIES.holds(cookie, ALICE, born + 2 * STEP)
        assert not COOKIES.holds(cookie, ALICE, born - 2 * STEP)


@pytest.mark.parametrize("cookie", [None, "", "0", "é" * 32, "0" * 32, "\0"])
def test_what_is_no_cookie(cookie: str | None) -> None:
    assert not COOKIES.holds(cookie, ALICE, 0.0)


def test_a_cookie_can_be_said() -> None:
    retry = Retry("0" * 16, COOKIES.cookie(BOB, 1e9))
    assert parse(text(retry)) == retry


def test_the_secret_is_silent_and_long() -> None:
    assert repr(COOKIES) == "Cookies()"
    with pytest.raises(ValueError, match="31 octets"):
        Cookies(b"s" * 31)
