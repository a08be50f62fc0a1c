"""What is said of the demands that a policy makes of DNS records."""

from __future__ import annotations

from ipaddress import ip_address

from oegw.assurance import UnsignedDelegation
from oegw.decision import DecisionPoint
from oegw.explain import explanation
from oegw.nat import Nat
from oegw.settings import DnsSettings, Settings
from policy.flow import Flow
from policy.rule import Require
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
