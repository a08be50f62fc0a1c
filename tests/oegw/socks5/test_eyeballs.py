"""Which address of a destination is tried when (RFC 8305)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from oegw.socks5.codes import ReplyCode
from oegw.socks5.eyeballs import ATTEMPT_DELAY, MAX_ADDRESSES, Race, ordered

A4, B4, C4 = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3))
A6, B6, C6 = (ip_address(f"2001:db8::{number}") for number in (1, 2, 3))
REFUSED, UNREACHABLE = ReplyCode.CONNECTION_REFUSED, ReplyCode.HOST_UNREACHABLE


# ---------------------------------------------------------------- section 4: the order


@pytest.mark.parametrize(
    ("addresses", "prefer", "order"),
    [
        ((A4, B4, A6, B6), "6", (A6, A4, B6, B4)),
        ((A4, B4, A6, B6), "4", (A4, A6, B4, B6)),
        ((A4, B4, C4, A6), "6", (A6, A4, B4, C4)),
        ((A6, B6, C6, A4), "6", (A6, A4, B6, C6)),
        ((B4, A4), "6", (B4, A4)),  # the resolver's order within a family
        ((A4, A4, A6, A4), "6", (A6, A4)),
        ((ip_address("::ffff:192.0.2.1"), A4), "6", (A4,)),  # the same for the kernel
        ((), "6", ()),
    ],
)
def test_the_families_take_turns(
    addresses: tuple[object, ...], prefer: str, order: tuple[object, ...]
) -> None:
    assert ordered(addresses, prefer) == order  # type: ignore[arg-type]


def test_of_hundreds_of_addresses_few_are_tried() -> None:
    many = [ip_address(f"192.0.2.{number}") for number in range(200)]
    assert ordered([*many, A6]) == (A6, *many[: MAX_ADDRESSES - 1])


# ---------------------------------------------------------------- section 5: the race


def test_the_next_attempt_begins_after_the_delay() -> None:
    race = Race([A6, A4])
    assert race.begin(10.0) == A6
    assert race.begin(10.0) is None
    assert race.wake_at() == 10.0 + ATTEMPT_DELAY
    assert race.begin(10.2) is None
    assert race.begin(10.25) == A4  # beside the first, which goes on
    assert race.begin(10.25) is None
    assert race.wake_at() is None
    assert not race.lost()


def test_the_next_attempt_begins_at_once_when_the_latest_fails() -> None:
    race = Race([A6, A4, B6])
    race.begin(10.0)
    race.failed(A6, UNREACHABLE)
    assert race.begin(10.01) == A4
    assert race.wake_at() == 10.01 + ATTEMPT_DELAY


def test_the_failure_of_an_earlier_attempt_leaves_the_latest_its_time() -> None:
    race = Race([A6, A4, B6])
    race.begin(10.0)
    race.begin(10.25)
    race.failed(A6, UNREACHABLE)
    assert race.begin(10.3) is None
    assert race.wake_at() == 10.5
    race.failed(A4, REFUSED)
    assert race.begin(10.3) == B6


def test_when_all_have_failed_it_is_lost() -> None:
    race = Race([A6, A4])
    race.begin(0.0)
    race.failed(A6, UNREACHABLE)
    assert not race.lost()
    race.begin(0.0)
    assert not race.lost()
    race.failed(A4, REFUSED)
    assert race.lost()
    assert race.wake_at() is None


def test_a_race_without_addresses_is_lost() -> None:
    race = Race([])
    assert race.begin(0.0) is None
    assert race.lost()
    assert race.code() == ReplyCode.FAILURE


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ((UNREACHABLE, REFUSED), REFUSED),
        ((ReplyCode.NETWORK_UNREACHABLE, ReplyCode.NOT_ALLOWED), ReplyCode.NOT_ALLOWED),
        ((ReplyCode.NETWORK_UNREACHABLE, UNREACHABLE), UNREACHABLE),
        ((ReplyCode.TTL_EXPIRED, UNREACHABLE), ReplyCode.TTL_EXPIRED),
        ((ReplyCode.FAILURE, ReplyCode.NETWORK_UNREACHABLE), ReplyCode.NETWORK_UNREACHABLE),
        ((ReplyCode.FAILURE, ReplyCode.FAILURE), ReplyCode.FAILURE),
    ],
)
def test_of_several_failures_the_most_telling_is_told(
    codes: tuple[ReplyCode, ReplyCode], told: ReplyCode
) -> None:
    for order in (codes, codes[::-1]):
        race = Race([A6, A4])
        for address, code in zip((A6, A4), order, strict=True):
            race.begin(0.0)
            race.failed(address, code)
        assert race.code() == told
