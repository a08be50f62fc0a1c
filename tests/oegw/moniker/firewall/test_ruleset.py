"""The text of the table: what is refused before the kernel sees it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from oegw.moniker.firewall.book import Hole
from oegw.moniker.firewall.ruleset import COUNTERS, FirewallError, checked, opened, whole_table
from oegw.moniker.settings import FirewallSettings, HostSettings

HOLE = Hole(ip_address("10.9.0.2"), ip_address("10.1.0.2"), 6, 4711)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (FirewallSettings(deny=True), "moniker.firewall.outside: there must be"),
        (FirewallSettings(deny=True, outside=('e" }',)), "can't be the name of an interface"),
        (FirewallSettings(deny=True, outside=("e",), tunnel="a b"), "can't be the name"),
        (FirewallSettings(allow=("tcp dport 80; drop",)), "moniker.firewall.allow"),
        (FirewallSettings(allow=("tcp dport 80\n}",)), "moniker.firewall.allow"),
        (FirewallSettings(allow=(" ",)), "moniker.firewall.allow"),
    ],
)
def test_settings_that_can_not_work_are_named(settings: FirewallSettings, words: str) -> None:
    with pytest.raises(FirewallError, match=words):
        checked(settings)


def test_without_deny_nothing_is_denied() -> None:
    bob = HostSettings("bob", (HOLE.host,), namespaces=("bob",))
    text = whole_table(FirewallSettings(outside=("eth0",)), (bob,))
    assert "hook forward" not in text
    assert "hook input" not in text
    assert "hook prerouting" in text


def test_without_namespaces_nothing_is_translated() -> None:
    """And the kernel need not be able to."""
    text = whole_table(
        FirewallSettings(deny=True, outside=("eth0",)), (HostSettings("bob", (HOLE.host,)),)
    )
    assert "nat hook" not in text


def test_every_drop_and_every_reject_is_counted() -> None:
    settings = FirewallSettings(deny=True, outside=("eth0",), allow=("tcp dport 80",))
    bob = HostSettings("bob", (HOLE.host,), namespaces=("bob",))
    text = whole_table(settings, (bob,))
    for line in text.splitlines():
        if line.strip().endswith(" drop"):
            assert "counter name" in line
    for name in COUNTERS:
        assert f"counter name {name}" in text


def test_a_service_name_can_not_leave_its_quotes() -> None:
    text = opened(HOLE, 60, 'a::"\\\n}; flush ruleset #' + "x" * 500)
    comments = [line for line in text.splitlines() if "comment" in line]
    assert len(comments) == 1
    assert comments[0].count('"') == 2
    assert "flush ruleset" not in text
    assert len(comments[0].split('"')[1]) <= 120
