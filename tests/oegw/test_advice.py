"""What is told of configurations that are valid and do not do what their words say."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from oegw import config
from oegw.advice import advice
from oegw.nat import Nat, Translation
from oegw.settings import Settings

HERE, FAR = ip_address("127.0.0.1"), ip_address("192.1.1.53")
RULE = '[[rule]]\nname = "x"\ncategory = "opportunistic"\n'
HOME = Nat((Translation(ip_network("192.168.0.0/24"), ip_network("192.1.1.4/32")),))


def settings_of(text: str) -> Settings:
    return config.parse(f"version = 1\n{text}", Path("oegw.toml"))


def test_nothing_is_said_of_what_works() -> None:
    assert advice(Settings(), (FAR,), Nat()) == ()
    text = RULE + 'source = "192.1.0.0/24"\ndestination = "0.0.0.0/0"\nrequire = "secure"\n'
    assert advice(settings_of(text), (FAR, HERE), HOME) == ()


def test_what_is_about_our_own_datapath_where_the_kernel_encrypts() -> None:
    keys = 'core = "python"\noffloads = false\nworkers = 2\n'
    told = advice(settings_of(f'[datapath]\ndatapath = "kernel"\n{keys}'), (FAR,), Nat())
    assert told == tuple(
        f"datapath.{key} is about the datapath in user space, not the kernel's"
        for key in ("core", "offloads", "workers")
    )
    assert advice(settings_of(f"[datapath]\n{keys}"), (FAR,), Nat()) == ()


@pytest.mark.parametrize(
    ("on_failure", "other"), [("clear", "passes in clear"), ("drop", "is dropped")]
)
def test_secure_records_that_nobody_vouches_for(on_failure: str, other: str) -> None:
    text = RULE + f'destination = "192.2.0.0/24"\nrequire = "secure"\non_failure = "{on_failure}"\n'
    assert advice(settings_of(text), (FAR,), Nat()) == (
        f"rule 'x' never has a tunnel, its traffic {other}: it requires secure records, and no "
        "resolver (192.1.1.53) is on this box or in dns.trusted",
    )
    assert advice(settings_of(f'[dns]\ntrusted = ["{FAR}"]\n{text}'), (FAR,), Nat()) == ()
    assert advice(settings_of(text), (HERE,), Nat()) == ()


def test_the_default_rule_is_looked_at_too() -> None:
    settings = settings_of('[default]\nrequire = "secure"\n')
    assert advice(settings, (FAR,), Nat())[0].startswith("rule 'default' never has a tunnel")


def test_a_decision_point_may_demand_less_where_it_is_allowed_to() -> None:
    text = RULE + 'destination = "192.2.0.0/24"\nrequire = "secure"\nrelax = true\n'
    point = '[[decision_point]]\nname = "p"\nurl = "http://192.1.0.70/"\n'
    assert len(advice(settings_of(text), (FAR,), Nat())) == 1
    assert advice(settings_of(text + point), (FAR,), Nat()) == ()


@pytest.mark.parametrize("key", ["source", "destination"])
def test_ends_that_nobody_can_be_asked_about(key: str) -> None:
    settings = settings_of(RULE + f'{key} = ["10.1.0.0/16", "fd00::/8"]\n')
    assert advice(settings, (FAR,), Nat()) == (
        "rule 'x' never has a tunnel, its traffic passes in clear: "
        f"its {key} is private, and not in dns.local_reverse",
    )
    served = replace(settings.dns, local_reverse=(ip_network("10.1.5.0/24"),))
    assert advice(replace(settings, dns=served), (FAR,), Nat()) == ()


@pytest.mark.parametrize("category", ["opportunistic", "deny", "permit"])
def test_sources_that_are_translated_before_the_policy_sees_them(category: str) -> None:
    text = f'[[rule]]\nname = "x"\ncategory = "{category}"\nsource = "192.168.0.0/25"\n'
    assert advice(settings_of(text), (FAR,), HOME) == (
        "rule 'x' applies to nothing: [[nat]] translates 192.168.0.0/24 as 192.1.1.4, all share "
        "one address; its source must be what they are outside",
    )


def test_what_nat_has_to_say_is_said_as_well() -> None:
    nameless = Nat(nameless=(ip_address("192.168.0.4"),))
    assert "gateway.fqdn gives no name" in advice(Settings(), (FAR,), nameless)[0]


def test_private_addresses_where_public_ones_are_meant() -> None:
    nat = Nat((Translation(ip_network("192.168.0.0/24"), ip_network("10.0.0.1/32")),))
    settings = settings_of('[publish]\nclients = ["192.168.0.65", "192.1.0.65"]\n')
    assert advice(settings, (FAR,), nat) == (
        "[[nat]] 192.168.0.0/24 as 10.0.0.1, all share one address: the address outside is "
        "private, so these hosts have no tunnels",
        "publish.clients: 192.168.0.65 is private: no peer looks for its records",
    )
    served = replace(settings.dns, local_reverse=(ip_network("0.0.0.0/0"),))
    assert advice(replace(settings, dns=served), (FAR,), nat) == ()
