"""What is said of the demands that a policy makes of DNS records."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from oegw.assurance import UnsignedDelegation
from oegw.decision import DecisionPoint
from oegw.explain import explanation
from oegw.nat import Nat
from oegw.settings import DnsSettings, Settings
from oegw.sst.settings import SstSettings
from policy.flow import Flow
from policy.rule import Category, Require, Rule, Sst, SstStrength
from policy.table import PolicyTable
from tests.support.playbook import ALICE, BOB, opportunistic

FAR = ip_address("192.1.1.53")


def said(dns: DnsSettings, require: Require = Require.ANY) -> dict[str, str]:
    rule = opportunistic("rule", require=require)
    settings = Settings(dns=dns, default=rule)
    flow = Flow(ALICE, BOB, 1)
    return dict(explanation(flow, PolicyTable((), rule), settings, Nat()))


def test_nothing_is_demanded_by_default() -> None:
    words = said(DnsSettings(resolvers=(FAR,)))
    assert words["category"] == "opportunistic, else clear"
    assert "It waits while a TXT record at 66.0.2.192.in-addr.arpa. is looked up." in words["what"]
    assert "DNSSEC" not in words["what"]


def test_secure_records() -> None:
    words = said(DnsSettings(resolvers=(FAR,), trusted=(FAR,)), Require.SECURE)
    assert words["category"] == "opportunistic, else clear, secure records only"
    assert "DNSSEC has to vouch for the record" in words["what"]
    assert "It never does" not in words["what"]


def test_secure_records_that_nobody_can_vouch_for() -> None:
    words = said(DnsSettings(resolvers=(FAR,)), Require.SECURE)
    assert "It never does: none of the resolvers (192.1.1.53) is on this box" in words["what"]


def test_unsigned_records_and_other_kinds() -> None:
    dns = DnsSettings(records=("txt", "ipseckey"), unsigned_delegation=UnsignedDelegation.SELF)
    words = said(dns)
    assert "a TXT or IPSECKEY record at" in words["what"]
    assert "A record that is not signed may name the destination itself only." in words["what"]


def test_decision_points_are_asked_whatever_the_addresses_are() -> None:
    rule = opportunistic("rule", relax=True)
    settings = Settings(default=rule, decision_points=(DecisionPoint("hq", "http://192.1.0.70/"),))
    table = PolicyTable((), rule)
    for flow, follows in (
        (Flow(ALICE, ip_address("10.0.0.1"), 1), "The destination is not a public address"),
        (Flow(ip_address("10.0.0.1"), BOB, 1), "No tunnel can be had: 10.0.0.1 is private"),
    ):
        words = dict(explanation(flow, table, settings, Nat()))
        assert words["what"].startswith("It waits while these decision points are asked: hq. ")
        assert f"else it is as follows. {follows}" in words["what"]
        assert words["category"].endswith("else clear, decision points may relax it")


def ports(rule: Rule, protocol: int = 6, sst: SstSettings | None = None) -> dict[str, str]:
    settings = Settings(default=rule, sst=sst or SstSettings(private_key=Path("sst.pem")))
    flow = Flow(ALICE, BOB, protocol)
    return dict(explanation(flow, PolicyTable((), rule), settings, Nat()))


@pytest.mark.parametrize(
    ("placement", "strength", "category", "what"),
    [
        (
            Sst.INNER,
            SstStrength.OPPORTUNISTIC,
            "ports inside the tunnel opportunistic",
            "In the tunnel its ports are encrypted as well: if the peer can.",
        ),
        (
            Sst.INNER,
            SstStrength.REQUIRED,
            "ports inside the tunnel required",
            "encrypted as well: a peer that can't do it has no tunnel with us.",
        ),
        (
            Sst.OUTER,
            SstStrength.REQUIRED,
            "ports of the gateways required",
            "the ports of IKE and ESP in UDP are encrypted: a peer that can't",
        ),
        (
            Sst.ONLY,
            SstStrength.OPPORTUNISTIC,
            "ports without tunnel opportunistic",
            "What leaves without a tunnel has its ports encrypted, and nothing else",
        ),
        (
            Sst.ONLY,
            SstStrength.REQUIRED,
            "ports without tunnel required",
            "if that can't be had it is dropped.",
        ),
        (
            Sst.OFF,
            SstStrength.REQUIRED,
            "ports asked for required",
            "If its sender asks, its ports are encrypted where it leaves in clear; if that can't",
        ),
    ],
)
def test_placement_and_strength_in_words(
    placement: Sst, strength: SstStrength, category: str, what: str
) -> None:
    words = ports(opportunistic("rule", sst=placement, sst_strength=strength))
    assert words["category"] == f"opportunistic, else clear, {category}"
    assert what in words["what"]


def test_required_in_a_tunnel_it_never_passes_in_clear() -> None:
    for placement in (Sst.INNER, Sst.OUTER):
        rule = opportunistic("rule", sst=placement, sst_strength=SstStrength.REQUIRED)
        what = ports(rule)["what"]
        assert "If not, it is dropped." in what
        assert "passes in clear" not in what


def test_nobody_asked_nothing_is_said_of_strength() -> None:
    rule = opportunistic("rule")
    assert ports(rule)["category"] == "opportunistic, else clear"
    assert "If its sender asks, its ports are encrypted" in ports(rule)["what"]
    for settings in (SstSettings(), SstSettings(private_key=Path("k"), requests=())):
        assert "ports" not in ports(rule, sst=settings)["what"]


def test_what_has_no_ports_and_what_is_switched_off() -> None:
    rule = opportunistic("rule", sst=Sst.ONLY)
    required = opportunistic("rule", sst=Sst.ONLY, sst_strength=SstStrength.REQUIRED)
    for each, protocol, what in (
        (rule, 1, "icmp is not a protocol whose ports are encrypted."),
        (required, 1, "icmp is not a protocol whose ports are encrypted."),
        (rule, 132, "sctp is not a protocol whose ports are encrypted."),
        (required, 132, "encrypted: what would leave without a tunnel is dropped."),
    ):
        assert what in ports(each, protocol)["what"]
    off = SstSettings(private_key=Path("k"), enabled=False)
    assert "Its ports are not encrypted: sst.enabled is false." in ports(rule, sst=off)["what"]
    denied = Rule("no", Category.DENY, sst_strength=SstStrength.REQUIRED)
    assert "ports" not in ports(denied)["what"]
