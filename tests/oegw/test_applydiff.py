"""What changes from one configuration to another."""

from __future__ import annotations

import tomllib

import pytest

from oegw.applydiff import differences
from oegw.settings import AT_START_ONLY

OLD = """
version = 1
[dns]
tries = 3
[default]
category = "opportunistic"
[[rule]]
name = "a"
category = "permit"
destination = "10.1.0.0/16"
[[rule]]
name = "b.c"
category = "deny"
[[nat]]
inside = "10.0.0.0/8"
[[socks.user]]
name = "u"
password = "$secret$"
"""


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        ("", "", []),
        ("tries = 3", "tries = 2", ["changed: dns.tries: 3 -> 2 (at a restart)"]),
        ("tries = 3", "", ["removed: dns.tries: 3 (at a restart)"]),
        ('"permit"', '"deny"', ["changed: rule 'a'.category: \"permit\" -> \"deny\""]),
        (
            'name = "a"',
            'name = "z"',
            [
                "removed: rule 'a': { category = \"permit\", destination = \"10.1.0.0/16\" }",
                "added: rule 'z': { category = \"permit\", destination = \"10.1.0.0/16\" }",
            ],
        ),
        ('inside = "10.0.0.0/8"', 'inside = "10.1.0.0/16"',
         ['changed: nat[1].inside: "10.0.0.0/8" -> "10.1.0.0/16" (at a restart)']),
        ("$secret$", "$other$", ["changed: socks.user 'u'.password"]),
        ('name = "u"', 'name = "v"', ["removed: socks.user 'u': { password = ... }",
                                      "added: socks.user 'v': { password = ... }"]),
    ],
)  # fmt: skip
def test_what_is_told(was: str, becomes: str, told: list[str]) -> None:
    new = OLD.replace(was, becomes, 1) if was else OLD
    assert differences(tomllib.loads(OLD), tomllib.loads(new), AT_START_ONLY) == told


def test_the_order_of_rules_with_names_is_no_change() -> None:
    rules = [{"name": "a", "category": "permit"}, {"name": "b", "category": "deny"}]
    assert differences({"rule": rules}, {"rule": rules[::-1]}, ()) == []


def test_values_are_short() -> None:
    [line] = differences({}, {"dns": {"resolvers": ["192.0.2.1"] * 100}}, ())
    assert line.endswith("...")
    assert len(line) < 100


def test_one_value_and_a_list_of_it_are_the_same() -> None:
    old = {"dns": {"resolvers": "192.0.2.1"}, "rule": [{"name": "a", "source": "10.0.0.0/8"}]}
    new = {"dns": {"resolvers": ["192.0.2.1"]}, "rule": [{"name": "a", "source": ["10.0.0.0/8"]}]}
    assert differences(old, new, ()) == []
    assert len(differences(old, {**new, "dns": {"resolvers": ["192.0.2.2"]}}, ())) == 1
