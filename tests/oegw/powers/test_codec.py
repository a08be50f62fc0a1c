from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oegw.datapath.interface import (
    Direction,
    SaKey,
    SecurityAssociation,
    Selector,
    UdpEncapsulation,
    Usage,
)
from oegw.powers import codec
from oegw.powers.codec import CodecError
from oegw.powers.orders import ANSWERS, Ask, Call, InstallSa, MoveSa, News, Nft, UsageRead

Address = IPv4Address | IPv6Address

addresses = st.ip_addresses()
networks = addresses.map(ip_network)
ports = st.integers(0, 65535)
encapsulations = st.none() | st.builds(UdpEncapsulation, ports, ports)
keys = st.builds(SaKey, st.sampled_from(Direction), st.integers(0, 2**32 - 1), addresses)
selectors = st.builds(Selector, networks, st.integers(0, 255), ports)
numbers = st.none() | st.integers(0, 2**40)
sas = st.builds(
    SecurityAssociation, st.sampled_from(Direction), st.integers(256, 2**32 - 1), addresses,
    addresses, selectors, selectors, st.text(max_size=20), st.binary(max_size=64),
    st.none() | st.text(max_size=20), st.binary(max_size=64), st.booleans(), st.integers(0, 4096),
    encapsulations, numbers, numbers, numbers, numbers, st.booleans(),
)  # fmt: skip
orders = (
    st.builds(InstallSa, sas)
    | st.builds(MoveSa, keys, addresses, addresses, encapsulations)
)  # fmt: skip
usages = st.builds(Usage, ports, st.integers(0, 2**63), st.none() | st.floats(0, 1e12))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)


class Colour(Enum):
    RED = "red"
    ONE = 1


@dataclass(frozen=True, slots=True)
class Small:
    number: int
    colour: Colour
    octets: bytes
    where: Address | None
    names: tuple[str, ...]
    pair: tuple[int, bool]


@dataclass(frozen=True, slots=True)
class Other:
    number: int


SMALL = Small(7, Colour.RED, b"\0\xff", ip_address("192.1.1.4"), ("a", "b"), (1, True))


def plain_of(value: Any, declared: Any) -> Any:
    return json.loads(codec.encode(value, declared))


def read(form: Any, declared: Any) -> Any:
    return codec.decode(json.dumps(form).encode(), declared)


@given(orders)
def test_an_order_comes_as_it_went(order: Any) -> None:
    assert codec.decode(codec.encode(order, Ask), Ask) == order


@given(st.dictionaries(keys, usages, max_size=4))
def test_counters_come_as_they_went(usage: dict[SaKey, Usage]) -> None:
    answer = UsageRead(usage)
    assert codec.decode(codec.encode(answer, UsageRead), UsageRead) == answer


@given(plain, st.sampled_from([Call, Ask, News, *dict.fromkeys(ANSWERS.values())]))
def test_whatever_is_read_is_what_was_declared_or_an_error(form: Any, declared: Any) -> None:
    try:
        value = read(form, declared)
    except CodecError:
        return
    assert codec.decode(codec.encode(value, declared), declared) == value


@given(st.binary(max_size=60))
def test_octets_that_are_no_json_are_an_error(octets: bytes) -> None:
    try:
        json.loads(octets)
    except ValueError:
        with pytest.raises(CodecError):
            codec.decode(octets, Call)


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize(
    "wrong", [None, True, 7.0, 2**70, "red ", "AAA", [1, 1], {"a": 1}, ["a", 1], "192.1.1.04", []]
)
def test_a_field_of_another_type_is_an_error(place: int, wrong: Any) -> None:
    form = plain_of(SMALL, Small)
    assert read(form, Small) == SMALL
    fits = [(3, None), (4, []), (0, 1)]
    if (place, wrong) in fits:
        return
    form[place] = wrong
    with pytest.raises(CodecError):
        read(form, Small)


@pytest.mark.parametrize("change", [lambda form: form.pop(), lambda form: form.append(1)])
def test_a_field_too_few_or_too_many_is_an_error(change: Any) -> None:
    form = plain_of(SMALL, Small)
    change(form)
    with pytest.raises(CodecError):
        read(form, Small)


def test_a_class_that_is_not_declared_is_none_however_real_it_is() -> None:
    assert read(["Other", 3], Small | Other) == Other(3)
    for name in ("Nft", "oegw.powers.orders.Nft", "object", "__class__", ""):
        with pytest.raises(CodecError):
            read([name, 3], Small | Other)


@pytest.mark.parametrize("text", ['"\\ud800"', "NaN", "Infinity", "1e999", "[" * 100_000, ""])
def test_what_json_lets_through_and_is_no_value(text: str) -> None:
    for declared in (str, float, Nft):
        with pytest.raises(CodecError):
            codec.decode(text.encode(), declared)


def test_the_same_key_twice_is_an_error() -> None:
    with pytest.raises(CodecError):
        read([["a", 1], ["a", 2]], dict[str, int])


def test_what_is_wrong_is_not_quoted() -> None:
    with pytest.raises(CodecError) as caught:
        read(["a secret"], Small)
    assert "secret" not in str(caught.value)


def test_our_own_mistakes_are_seen_at_once() -> None:
    with pytest.raises(TypeError):
        codec.encode(object(), Small | Other)
    with pytest.raises(TypeError):
        codec.encode([1], list[int])
