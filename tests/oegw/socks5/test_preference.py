"""Which address the client is told (Extension 3; SK-33 to SK-39)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import product

import pytest

from oegw.socks5.codes import Flag, ReplyCode
from oegw.socks5.preference import (
    AskName,
    Preference,
    TellAddress,
    TellId,
    TellName,
    association_answer,
    bound_address,
    louder,
    peer_address,
    preference_of,
    relay_address,
    reserved_octet_used,
    unspecified,
)
from oegw.socks5.terms import Refused

INSIDE4, INSIDE6 = "192.168.1.1", "fd00::1"  # of ours, where the client came
OUTSIDE4, OUTSIDE6 = "198.51.100.1", "2001:db8::1"  # of ours, towards the destination
PUBLIC4, PUBLIC6 = "203.0.113.9", "2001:db8:9::9"  # what somebody else's NAT makes of ours
UNSAID, DESTINATION = Preference.UNSAID, Preference.DESTINATION


@pytest.mark.parametrize(
    ("preference", "client_side", "outgoing", "told"),
    [
        # SK-33: the family by which the client came
        (UNSAID, INSIDE4, OUTSIDE4, OUTSIDE4),
        (UNSAID, INSIDE6, OUTSIDE6, OUTSIDE6),
        (UNSAID, INSIDE4, OUTSIDE6, INSIDE4),
        (UNSAID, INSIDE6, OUTSIDE4, INSIDE6),
        (Preference.NAME, INSIDE4, OUTSIDE6, INSIDE4),  # of which there is none of ours
        # SK-34: the family used towards the destination
        (DESTINATION, INSIDE4, OUTSIDE4, OUTSIDE4),
        (DESTINATION, INSIDE6, OUTSIDE6, OUTSIDE6),
        (DESTINATION, INSIDE4, OUTSIDE6, OUTSIDE6),
        (DESTINATION, INSIDE6, OUTSIDE4, OUTSIDE4),
        # stored with the ID
        (Preference.IPV4, INSIDE6, OUTSIDE4, OUTSIDE4),
        (Preference.IPV4, INSIDE4, OUTSIDE6, INSIDE4),
        (Preference.IPV6, INSIDE4, OUTSIDE6, OUTSIDE6),
        (Preference.IPV6, INSIDE4, OUTSIDE4, f"::ffff:{OUTSIDE4}"),
        (Preference.IPV4, INSIDE6, OUTSIDE6, "0.0.0.0"),
        # A listener for both families has IPv4 clients at such addresses.
        (UNSAID, f"::ffff:{INSIDE4}", f"::ffff:{OUTSIDE4}", OUTSIDE4),
        (UNSAID, "fe80::1%eth0", OUTSIDE4, "fe80::1"),
    ],
)
def test_the_bound_address(
    preference: Preference, client_side: str, outgoing: str, told: str
) -> None:
    told_address = bound_address(preference, ip_address(client_side), ip_address(outgoing))
    assert told_address == ip_address(told)


def test_whatever_is_preferred_the_family_is_the_one_that_was_asked_for() -> None:
    sides = [ip_address(each) for each in (INSIDE4, INSIDE6)]
    outgoings = [ip_address(each) for each in (OUTSIDE4, OUTSIDE6)]
    advertised: list[tuple[IPv4Address | IPv6Address, ...]] = [
        (),
        (ip_address(PUBLIC4),),
        (ip_address(PUBLIC4), ip_address(PUBLIC6)),
    ]
    for preference, side, outgoing, own in product(Preference, sides, outgoings, advertised):
        wanted = {
            Preference.IPV4: 4,
            Preference.IPV6: 6,
            DESTINATION: outgoing.version,
        }.get(preference, side.version)
        assert bound_address(preference, side, outgoing, own).version == wanted


def test_what_is_advertised_stands_for_our_address_of_that_family() -> None:
    advertise = (ip_address(PUBLIC4),)
    inside, outside = ip_address(INSIDE4), ip_address(OUTSIDE4)
    assert bound_address(UNSAID, inside, outside, advertise) == ip_address(PUBLIC4)
    other = ip_address(OUTSIDE6)
    assert bound_address(DESTINATION, inside, other, advertise) == other


@pytest.mark.parametrize(
    ("preference", "client_side", "peer", "told"),
    [
        (UNSAID, INSIDE4, OUTSIDE4, OUTSIDE4),
        (UNSAID, INSIDE6, OUTSIDE6, OUTSIDE6),
        (UNSAID, INSIDE6, OUTSIDE4, f"::ffff:{OUTSIDE4}"),
        (UNSAID, INSIDE4, OUTSIDE6, INSIDE4),  # IPv4 has no room for it
        (DESTINATION, INSIDE4, OUTSIDE6, OUTSIDE6),
        (DESTINATION, INSIDE6, OUTSIDE4, OUTSIDE4),
        (Preference.IPV6, INSIDE4, OUTSIDE4, f"::ffff:{OUTSIDE4}"),
        (Preference.IPV4, INSIDE6, OUTSIDE6, "0.0.0.0"),
        (UNSAID, INSIDE4, f"::ffff:{OUTSIDE4}", OUTSIDE4),
    ],
)
def test_who_has_come(preference: Preference, client_side: str, peer: str, told: str) -> None:
    """SK-5, SK-33, SK-34."""
    found = peer_address(preference, ip_address(client_side), ip_address(peer))
    assert found == ip_address(told)


def test_datagrams_are_sent_to_an_address_that_the_client_can_reach() -> None:
    """SK-30."""
    assert relay_address(ip_address(INSIDE4)) == ip_address(INSIDE4)
    assert relay_address(ip_address(INSIDE6), (ip_address(PUBLIC4),)) == ip_address(INSIDE6)
    assert relay_address(ip_address(INSIDE4), (ip_address(PUBLIC4),)) == ip_address(PUBLIC4)


@pytest.mark.parametrize(
    ("client_side", "told"), [(INSIDE4, "0.0.0.0"), (INSIDE6, "::"), ("::ffff:1.2.3.4", "0.0.0.0")]
)
def test_no_address_has_the_clients_family(client_side: str, told: str) -> None:
    assert unspecified(ip_address(client_side)) == ip_address(told)


# ---------------------------------------------------------------- what was said


@pytest.mark.parametrize(
    ("flag", "adr_pref", "preference"),
    [
        (0x00, 0, UNSAID),
        (0x00, 1, Preference.IPV4),
        (0x00, 3, Preference.NAME),
        (0x00, 4, Preference.IPV6),
        (0x00, 8, UNSAID),
        (0x00, 0x0104, Preference.IPV6),  # the upper octet is reserved
        (0x05, 4, Preference.IPV6),  # other flags
        (0x10, 0, DESTINATION),
        (0x10, 1, DESTINATION),  # SK-38
        (0x15, 99, DESTINATION),
    ],
)
def test_what_the_request_says(flag: int, adr_pref: int, preference: Preference) -> None:
    assert preference_of(flag, adr_pref) is preference


@pytest.mark.parametrize("adr_pref", [2, 5, 0x10, 0xFF, 0x0102])
def test_a_preference_for_no_address_type_is_refused(adr_pref: int) -> None:
    with pytest.raises(Refused) as raised:
        preference_of(0, adr_pref)
    assert raised.value.code == ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED


def test_the_reserved_octet_is_told() -> None:
    assert reserved_octet_used(0x0104)
    assert not reserved_octet_used(4)


@pytest.mark.parametrize("stored", list(Preference))
def test_the_flag_is_louder_than_what_is_stored(stored: Preference) -> None:
    """SK-38."""
    assert louder(0, stored) is stored
    assert louder(Flag.DESTINATION_FAMILY, stored) is DESTINATION


# ---------------------------------------------------------------- dedicated ADDRESS ASSOCIATE

V4, V6 = ip_address("192.0.2.7"), ip_address("2001:db8:7::7")


@pytest.mark.parametrize(
    ("preference", "destination", "addresses", "answer"),
    [
        (UNSAID, "a.example", (V6, V4), TellId()),
        (Preference.IPV4, "a.example", (V6, V4), TellAddress(V4)),
        (Preference.IPV6, "a.example", (V4, V6), TellAddress(V6)),
        (Preference.NAME, "a.example", (V6,), TellName("a.example")),
        (Preference.NAME, V4, (V4,), AskName(V4)),  # SK-36
        (DESTINATION, "a.example", (V6, V4), TellAddress(V6)),  # what would be tried first
        (DESTINATION, "a.example", (V4, V6), TellAddress(V4)),
        (Preference.IPV4, V4, (V4,), TellAddress(V4)),
        (Preference.IPV4, ip_address("::ffff:192.0.2.7"), (V4,), TellAddress(V4)),
    ],
)
def test_what_a_dedicated_association_is_answered(
    preference: Preference,
    destination: IPv4Address | IPv6Address | str,
    addresses: tuple[IPv4Address | IPv6Address, ...],
    answer: object,
) -> None:
    """SK-32, SK-35 to SK-37."""
    assert association_answer(preference, destination, addresses) == answer


@pytest.mark.parametrize(
    ("preference", "addresses"), [(Preference.IPV4, (V6,)), (Preference.IPV6, (V4,))]
)
def test_no_address_of_the_family_is_refused(
    preference: Preference, addresses: tuple[IPv4Address | IPv6Address, ...]
) -> None:
    """SK-37."""
    with pytest.raises(Refused) as raised:
        association_answer(preference, "a.example", addresses)
    assert raised.value.code == ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED
