"""What is told of port encryption that is configured and does not do what its words say."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from oegw import config
from oegw.nat import Nat, Translation
from oegw.sstadvice import seals_behind_nat, sst_advice

KEY = '[sst]\nprivate_key = "sst.pem"\n'
RULE = '[[rule]]\nname = "x"\n'
ONLY = RULE + 'category = "permit"\nsst = "only"\n'


def said(text: str, nat: Nat | None = None) -> list[str]:
    settings = config.parse(f"version = 1\n{text}", Path("oegw.toml"))
    return list(sst_advice(settings, nat or Nat()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        KEY,
        KEY + ONLY,
        '[default]\nsst = "inner"\n',
        KEY + 'forwarder = "127.0.0.1:5300"\n' + ONLY + 'destination = "10.0.0.0/8"\n',
        KEY + '[dns]\nlocal_reverse = ["10.1.0.0/16"]\n' + ONLY + 'destination = "10.0.0.0/8"\n',
        KEY + ONLY + 'destination = ["10.0.0.0/8", "192.2.0.0/24"]\n',
    ],
)
def test_nothing_is_said_of_what_works(text: str) -> None:
    assert said(text) == []


@pytest.mark.parametrize(
    ("rule", "other"),
    [
        (ONLY, "goes on without"),
        (ONLY + 'sst_strength = "required"\n', "is dropped"),
        (RULE + 'category = "opportunistic"\nsst = "outer"\n', "goes on without"),
    ],
)
def test_placements_that_take_a_key_of_ours(rule: str, other: str) -> None:
    found = said('[default]\nsst = "inner"\n' + rule)
    assert found == [
        f"rule 'x' never seals ports, its traffic {other}: that takes a key of ours, and there is "
        "no sst.private_key"
    ]


def test_without_key_and_inner_nothing_is_sealed() -> None:
    assert "no port is sealed" in said("[sst]\nenabled = true\n")[0]
    assert "no port is sealed" in said(ONLY)[0]


def test_switched_off_with_rules_that_ask_for_it() -> None:
    off = KEY + "enabled = false\n"
    assert said(off + ONLY) == ["rule 'x': sst = \"only\", and sst.enabled is false"]
    assert said(off) == []
    [sentence] = said('[default]\nsst_strength = "required"\n')
    assert sentence.startswith("rule 'default': sst_strength is of no effect")


def test_destinations_whose_keys_nobody_can_look_up() -> None:
    [sentence] = said(KEY + ONLY + 'destination = ["10.0.0.0/8", "fd00::/8"]\n')
    assert "goes on without: its destination is private" in sentence


@pytest.mark.parametrize(
    ("protocol", "other"), [("icmp", "goes on without"), ("sctp", "is dropped")]
)
def test_rules_for_what_is_never_sealed(protocol: str, other: str) -> None:
    rule = ONLY + 'sst_strength = "required"\n'
    [sentence] = said(f'{KEY}{rule}protocol = "{protocol}"\n')
    assert sentence.endswith(f"its traffic {other}: it is neither for TCP nor for UDP")
    assert said(f'{KEY}{rule}protocol = "udp"\n') == []


def test_forwarder_without_a_use() -> None:
    forwarder = '[sst]\nforwarder = "127.0.0.1:5300"\n'
    assert "nobody listens" in said(forwarder)[0]
    assert "of no use" in said(forwarder + '[default]\nsst = "inner"\n')[0]
    assert "not used" in said('[sst]\nold_keys = ["old.pem"]\n[default]\nsst = "inner"\n')[0]


def test_translation_on_the_way() -> None:
    private = '[gateway]\naddresses = ["192.168.0.4"]\n'
    assert said(private + KEY) == []
    [sentence] = said(private + KEY + ONLY)
    assert sentence.startswith("gateway.addresses: 192.168.0.4 is not public")
    assert said(private + KEY + '[default]\nsst = "inner"\n') == []
    home = ip_network("192.168.0.0/24")
    assert said(KEY + ONLY, Nat((Translation(home, ip_network("192.1.1.4/32")),))) == []
    [sentence] = said(KEY + ONLY, Nat((Translation(home, ip_network("10.0.0.1/32")),)))
    assert sentence.startswith("[[nat]] 192.168.0.0/24 as 10.0.0.1")


@pytest.mark.parametrize(
    ("text", "nat", "found"),
    [
        (KEY + ONLY, Nat(noticed="rule"), True),
        (
            KEY + ONLY,
            Nat((Translation(ip_network("10.0.0.0/8"), ip_network("192.1.1.4/32")),)),
            True,
        ),
        (KEY + ONLY, Nat(), False),
        (KEY, Nat(noticed="rule"), False),
        (KEY + "enabled = false\n" + ONLY, Nat(noticed="rule"), False),
    ],
)
def test_ports_behind_our_own_nat(text: str, nat: Nat, found: bool) -> None:
    settings = config.parse(f"version = 1\n{text}", Path("oegw.toml"))
    assert seals_behind_nat(settings, nat) is found
