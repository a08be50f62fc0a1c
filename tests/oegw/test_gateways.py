"""Which gateways were silent lately."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from dnsrecords.outcome import Gateway
from oegw.gateways import SOONEST, SilentGateways
from policy.flow import IPAddress

SG_A, SG_D, SG_E = map(ip_address, ("192.1.1.4", "192.1.1.6", "192.1.1.8"))


def listed(*addresses: IPAddress) -> list[Gateway]:
    return [Gateway(10 * n, address, None, ()) for n, address in enumerate(addresses)]


def tried(silent: SilentGateways, now: float) -> list[IPAddress | None]:
    return [g.address for g in silent.in_order(listed(SG_A, SG_D, SG_E), now)]


def test_silent_ones_are_tried_after_the_others_until_their_silence_is_over() -> None:
    silent = SilentGateways()
    assert tried(silent, 0.0) == [SG_A, SG_D, SG_E]
    silent.fell_silent(SG_A, 60.0, 100.0)
    assert silent.silent(SG_A, 159.9)
    assert not silent.silent(None, 100.0)
    assert tried(silent, 159.9) == [SG_D, SG_E, SG_A]
    silent.fell_silent(SG_E, 60.0, 130.0)
    assert tried(silent, 159.9) == [SG_D, SG_A, SG_E]
    assert silent.left(150.0) == {SG_A: 10.0, SG_E: 40.0}
    assert tried(silent, 160.0) == [SG_A, SG_D, SG_E]
    assert tried(silent, 170.0) == [SG_A, SG_D, SG_E]


def test_all_silent_means_that_all_are_tried_in_the_order_of_the_dns() -> None:
    silent = SilentGateways()
    for gateway in (SG_E, SG_D, SG_A):
        silent.fell_silent(gateway, 60.0, 0.0)
    assert tried(silent, 30.0) == [SG_A, SG_D, SG_E]


def test_a_sign_of_life_ends_a_silence() -> None:
    silent = SilentGateways()
    silent.fell_silent(SG_A, 60.0, 0.0)
    assert silent.heard(SG_A)
    assert not silent.heard(SG_A)
    assert silent.next_over() is None
    assert tried(silent, 1.0) == [SG_A, SG_D, SG_E]


def test_silences_that_are_over_are_taken_once() -> None:
    silent = SilentGateways()
    silent.fell_silent(SG_A, 60.0, 0.0)
    silent.fell_silent(SG_D, 20.0, 10.0)
    assert silent.next_over() == 30.0
    assert silent.take_over(29.9) == []
    assert silent.take_over(30.0) == [SG_D]
    assert silent.next_over() == 60.0
    assert silent.take_over(100.0) == [SG_A]
    assert silent.next_over() is None


def test_a_silence_found_by_a_long_try_counts_from_its_beginning() -> None:
    silent = SilentGateways()
    silent.fell_silent(SG_A, 60.0, now=115.0, since=100.0)
    assert silent.next_over() == 160.0
    # But whoever is silent for longer than a silence lasts is not tried without pause.
    silent.fell_silent(SG_A, 5.0, now=115.0, since=100.0)
    assert silent.next_over() == pytest.approx(115.0 + SOONEST)


def test_memory_is_bounded_and_the_oldest_news_goes() -> None:
    silent = SilentGateways(most=100)
    for number in range(10_000):
        silent.fell_silent(ip_address(number), 60.0, float(number))
        assert len(silent) <= 100
    assert not silent.silent(ip_address(9_899), 9_900.0)
    assert silent.silent(ip_address(9_999), 10_000.0)
    # Who is silent again is news.
    silent.fell_silent(ip_address(9_900), 60.0, 10_000.0)
    silent.fell_silent(SG_A, 60.0, 10_000.0)
    assert silent.silent(ip_address(9_900), 10_010.0)
