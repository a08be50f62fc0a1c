from __future__ import annotations

import os
from decimal import Decimal, getcontext

import pytest

from ike import groups
from ike.errors import InternalRefusal, InvalidKeyExchange
from ike.groups import GROUPS, KeyPair, KeyPairStock, generate, portable_pair
from tests.support.ike_stranger import PRIMES

CONSTANTS = {2: (1024, 129093), 5: (1536, 741804), 14: (2048, 124476), 15: (3072, 1690314)}


def pi_times_power_of_two(bits: int) -> int:
    """floor(2**bits * pi) by Machin's formula."""
    getcontext().prec = bits // 3 + 30

    def arctan_of_inverse(x: int) -> Decimal:
        power = total = Decimal(1) / x
        n, sign = 1, 1
        while power > Decimal(10) ** -(getcontext().prec + 2):
            power /= x * x
            n, sign = n + 2, -sign
            total += sign * power / n
        return total

    return int((16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)) * 2**bits)


@pytest.mark.parametrize("number", GROUPS)
def test_primes_are_those_of_the_rfcs(number: int) -> None:
    """The digits as printed, and the formula beside them (RFC 2409 6.2, RFC 3526)."""
    bits, constant = CONSTANTS[number]
    group = GROUPS[number]
    assert group.prime == PRIMES[number]
    pi = pi_times_power_of_two(bits - 130)
    assert group.prime == 2**bits - 2 ** (bits - 64) - 1 + 2**64 * (pi + constant)
    assert group.length == bits // 8


@pytest.mark.parametrize("number", GROUPS)
def test_the_library_and_pow_agree(number: int) -> None:
    group = GROUPS[number]
    one, other = generate(group, os.urandom), portable_pair(group, os.urandom)
    secret = one.shared_secret(other.public)
    assert secret == other.shared_secret(one.public)
    assert len(secret) == len(one.public) == len(other.public) == group.length


def test_without_the_library(monkeypatch) -> None:
    monkeypatch.setattr(groups, "_library", None)
    pair = generate(GROUPS[2], os.urandom)
    assert pair.shared_secret(portable_pair(GROUPS[2], os.urandom).public)


def test_secrets_are_padded_on_the_left() -> None:
    group = GROUPS[14]
    pair = KeyPair(group, b"", lambda value: b"\x07")
    assert pair.shared_secret((5).to_bytes(256, "big")) == b"\x00" * 255 + b"\x07"


def test_what_the_library_refuses() -> None:
    def refuse(value: int) -> bytes:
        raise ValueError("no")

    with pytest.raises(InternalRefusal):
        KeyPair(GROUPS[14], b"", refuse).shared_secret((5).to_bytes(256, "big"))


def test_degenerate_values() -> None:
    group = GROUPS[14]
    for value in (0, 1, group.prime - 1, group.prime, 2**2048 - 1):
        with pytest.raises(InvalidKeyExchange):
            group.check(value.to_bytes(256, "big"))
    assert group.check((2).to_bytes(256, "big")) == 2


def test_a_pair_is_handed_out_once() -> None:
    stock = KeyPairStock(os.urandom)
    assert not stock.refill()
    stock.want(GROUPS[14])
    assert stock.refill()
    assert stock.refill()
    assert not stock.refill()
    publics = {stock.take(GROUPS[14]).public for _ in range(4)}
    assert len(publics) == 4
    assert "exchange" not in repr(stock.take(GROUPS[14]))
