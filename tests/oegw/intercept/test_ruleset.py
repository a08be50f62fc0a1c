"""The text of the table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oegw.intercept.interface import InterceptError, InterceptSettings, Marks
from oegw.intercept.ruleset import checked, new_policy, residue, static_chains, whole_table
from tests.support.intercept_policy import configured_rule, policy, protected_rule

SETTINGS = InterceptSettings(outside=("eth0", "ppp0"), tunnel_interface="oegw0")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"mark_mask": 0}, "mark_mask"),
        ({"mark_mask": 0x10000}, "mark_mask"),
        ({"mark_mask": 0x50000}, "mark_mask"),
        ({"mark_mask": 0x70000}, "mark_mask"),
        ({"mark_mask": 3 << 31}, "mark_mask"),
        ({"assurance_mask": 0}, "assurance_mask"),
        ({"assurance_mask": 0x700}, "assurance_mask"),
        ({"assurance_mask": 0x60000}, "bits in common"),
        ({"table": "oegw; flush ruleset"}, "table"),
        ({"outside": ()}, "outside"),
        ({"outside": ('eth0" accept',)}, "interface"),
        ({"tunnel_interface": "a-name-that-is-too-long"}, "interface"),
        ({"queue": 65536}, "queue"),
        ({"queue_length": 0}, "queue_length"),
    ],
)
def test_settings_that_cannot_work_are_named(wrong, named):
    with pytest.raises(InterceptError, match=named):
        checked(replace(SETTINGS, **wrong))


@pytest.mark.parametrize("mask", [0x3, 0x30000, 0x60000, 0xC0000000])
def test_any_two_neighbouring_bits_will_do(mask):
    settings = checked(replace(SETTINGS, mark_mask=mask, assurance_mask=0x3000))
    marks = Marks(mask)
    assert marks.trap | marks.tunnel == marks.own == mask
    text = whole_table(settings, static_chains(policy()), nft_queue=True)
    assert f"meta mark set meta mark & {0xFFFFFFFF ^ mask:#x} | {marks.trap:#x}" in text


def test_the_queue_is_named_by_nft_or_by_the_mark_alone_and_never_bypassed():
    chains = static_chains(policy())
    by_nft = whole_table(SETTINGS, chains, nft_queue=True)
    by_mark = whole_table(SETTINGS, chains, nft_queue=False)
    assert by_nft.replace("    queue num 4500\n", "") == by_mark
    assert "bypass" not in by_nft


def test_a_replacement_begins_with_the_removal_of_the_old_one():
    text = whole_table(SETTINGS, static_chains(policy()), nft_queue=True)
    assert text.startswith("add table inet oegw\ndelete table inet oegw\ntable inet oegw {\n")


def test_the_residue_has_guard_and_inbound_and_marks_nothing():
    text = residue(SETTINGS, static_chains(policy(protected_rule("10.9.0.0/24"))))
    assert "ip daddr 10.9.0.0/24 goto leak" in text
    assert "meta mark set" not in text
    assert "@" not in text
    text = residue(SETTINGS, static_chains(policy(configured_rule("10.9.0.0/24"))))
    assert "ip saddr 10.9.0.0/24 goto clear_inbound" in text


def test_nothing_stays_where_nothing_is_protected():
    text = residue(SETTINGS, static_chains(policy()))
    assert text == "add table inet oegw\ndelete table inet oegw\n"


def test_a_new_policy_touches_no_hook():
    text = new_policy(SETTINGS, static_chains(policy(configured_rule("10.9.0.0/24"))))
    assert "hook" not in text
    assert "flush chain inet oegw guard6" in text
    assert "delete map inet oegw pair4" in text


def test_dns_is_exempt_only_as_far_as_it_is_configured():
    chains = static_chains(policy())
    without = whole_table(SETTINGS, chains, nft_queue=True)
    with_it = whole_table(replace(SETTINGS, local_resolver=True), chains, nft_queue=True)
    assert "dport 53" not in without
    assert "sport 53" not in without
    assert with_it.count("dport 53 accept") == 3  # output, and the guard on both sides of NAT
    assert with_it.count("sport 53 accept") == 1
