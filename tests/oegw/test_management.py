"""`[management]`: what it takes, and which rules are told to promise otherwise."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oegw import config
from oegw.box import policy_table
from oegw.config import ConfigError
from oegw.environment import Environment
from oegw.management import management_advice

BOX = Environment(("eth1",), (), frozenset({ip_address("192.1.1.4"), ip_address("127.0.0.1")}), ())


def read(text: str) -> config.Settings:
    return config.parse(f"version = 1\n{text}", Path("oegw.toml"))


def test_addresses_and_prefixes() -> None:
    settings = read('[management]\naddresses = ["198.51.100.7", "192.1.0.0/24"]').management
    assert settings.addresses == (ip_network("198.51.100.7/32"), ip_network("192.1.0.0/24"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('addresses = "0.0.0.0/0"', "oegw.toml: management.addresses: 0.0.0.0/0 is everybody"),
        ('addresses = ["192.1.0.9/24"]', "oegw.toml: management.addresses[1]: '192.1.0.9/24' has"),
        ('adresses = "192.1.0.9"', 'oegw.toml: management.adresses: unknown key; did you mean "a'),
    ],
)
def test_what_is_wrong_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f"[management]\n{text}\n")
    assert caught.value.problems[0].startswith(told)


RULE = '[management]\naddresses = "198.51.100.0/24"\n[[rule]]\nname = "r"\n'


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ('category = "deny"\ndestination = "198.51.0.0/16"', "denies its traffic"),
        ('category = "deny"\ndestination = "198.51.100.7"', "denies its traffic"),
        ('category = "opportunistic"\non_failure = "drop"', "keeps its traffic from leaving"),
        ('category = "deny"\nsource = "192.1.0.0/16"', "denies its traffic"),
        ('category = "deny"\nsource = "192.9.0.0/16"', None),
        ('category = "deny"\ndestination = "198.51.101.0/24"', None),
        ('category = "opportunistic"', None),
        ('category = "permit"', None),
    ],
)
def test_a_rule_that_promises_otherwise_is_told(rule: str, told: str | None) -> None:
    found = list(management_advice(policy_table(read(RULE + rule), BOX)))
    if told is None:
        assert found == []
    else:
        [sentence] = found
        assert sentence.startswith(f"rule 'r' {told}")
        assert "198.51.100.0/24" in sentence


def test_so_is_a_default() -> None:
    settings = read('[management]\naddresses = "198.51.100.7"\n[default]\ncategory = "deny"\n')
    [sentence] = management_advice(policy_table(settings, BOX))
    assert sentence.startswith("rule 'default' denies its traffic")
