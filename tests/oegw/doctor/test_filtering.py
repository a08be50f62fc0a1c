"""Would a firewall let a packet pass?  Rules of nft and of iptables, as they are listed."""

from __future__ import annotations

from typing import Any

import pytest

from oegw.doctor.filtering import Packet, dropping
from oegw.doctor.iptablesrules import Iptables
from oegw.doctor.nftrules import NftRules

IKE = Packet(4, "udp", "eth1", port=500)
LIMIT = {"limit": {"rate": 10, "per": "second"}}


def equal(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str, right: Any, op: str = "==") -> dict[str, Any]:
    return equal({"meta": {"key": key}}, right, op)


def udp(right: Any, op: str = "==") -> dict[str, Any]:
    return equal({"payload": {"protocol": "udp", "field": "dport"}}, right, op)


SET = equal({"payload": {"protocol": "ip", "field": "daddr"}}, "@ours")
NEW_MATCH = equal({"ct": {"key": "state"}}, "new", "in")
ANSWER = equal({"ct": {"key": "state"}}, ["established", "related"], "in")
SOMEBODY = equal({"payload": {"protocol": "ip", "field": "saddr"}}, "192.1.1.5")
ACCEPT: dict[str, Any] = {"accept": None}
DROP: dict[str, Any] = {"drop": None}
REJECT: dict[str, Any] = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}


def nft(*rules: list[dict[str, Any]], policy: str = "accept", others: Any = ()) -> NftRules:
    head = {"family": "inet", "table": "t"}
    chains = [
        {"chain": {**head, "name": "in", "type": "filter", "hook": "input", "policy": policy}}
    ]
    listed = [
        {"rule": {**head, "chain": "in", "handle": n, "expr": r}} for n, r in enumerate(rules)
    ]
    for name, expressions in others:
        chains.append({"chain": {**head, "name": name}})
        listed += [{"rule": {**head, "chain": name, "handle": 9, "expr": e}} for e in expressions]
    return NftRules({"nftables": [{"table": {"family": "inet", "name": "t"}}, *chains, *listed]})


def drops(rules: NftRules, packet: Packet = IKE) -> bool:
    return bool(list(dropping(rules.chains("oegw"), "input", packet)))


@pytest.mark.parametrize(
    ("rules", "policy", "dropped"),
    [
        ([], "accept", False),
        ([], "drop", True),
        ([[udp({"set": [500, 4500]}), ACCEPT]], "drop", False),
        ([[udp({"set": [{"range": [400, 600]}, 4500]}), ACCEPT]], "drop", False),
        ([[udp(501), ACCEPT]], "drop", True),
        ([[udp(500), DROP]], "accept", True),
        ([[udp(500), REJECT]], "accept", True),
        ([[udp(500, "!="), DROP]], "accept", False),
        ([[meta("iifname", "eth*"), DROP]], "accept", True),
        ([[meta("iifname", "eth0"), DROP]], "accept", False),
        ([[meta("iifname", "lo"), ACCEPT]], "drop", True),
        ([[meta("l4proto", {"set": ["udp", "esp"]}), ACCEPT]], "drop", False),
        ([[meta("nfproto", "ipv6"), ACCEPT]], "drop", True),
        ([[NEW_MATCH, DROP]], "accept", True),
        ([[ANSWER, ACCEPT]], "drop", True),
        # From somebody only: a packet of anybody has another address.
        ([[SOMEBODY, ACCEPT]], "drop", True),
        # What is not known may be.
        ([[SET, ACCEPT]], "drop", False),
        ([[SET, DROP]], "accept", False),
        ([[LIMIT, DROP]], "accept", False),
        ([[{"counter": {}}, DROP], [ACCEPT]], "accept", True),
        ([[ACCEPT], [DROP]], "drop", False),
        ([[{"vmap": {"key": {}, "data": "@verdicts"}}]], "drop", False),
    ],
)  # fmt: skip
def test_one_chain_of_nft(rules: Any, policy: str, dropped: bool) -> None:
    assert drops(nft(*rules, policy=policy)) is dropped


def test_jumps() -> None:
    jump, leave = [{"jump": {"target": "more"}}], [{"return": None}]
    assert not drops(nft(jump, policy="drop", others=[("more", [[udp(500), ACCEPT]])]))
    assert drops(nft(jump, others=[("more", [[udp(500), DROP]])]))
    assert drops(nft(jump, policy="drop", others=[("more", [leave, [ACCEPT]])]))
    assert drops(
        nft([{"goto": {"target": "more"}}], [ACCEPT], policy="drop", others=[("more", [])])
    )
    perhaps = [[LIMIT, {"jump": {"target": "more"}}]]
    assert not drops(nft(*perhaps, others=[("more", [[DROP]])]))
    # A circle, which no kernel takes, ends.
    assert not drops(nft(jump, others=[("more", [jump])]))


def test_a_chain_is_about_its_families() -> None:
    entries = {"family": "ip6", "table": "t"}
    listing = [
        {"chain": {**entries, "name": "in", "type": "filter", "hook": "input", "policy": "drop"}}
    ]
    rules = NftRules({"nftables": listing})
    assert not drops(rules)
    assert drops(rules, Packet(6, "udp", "eth1", port=500))


def test_our_own_tables_are_not_judged() -> None:
    listing = [
        {"chain": {"family": "inet", "table": table, "name": "guard", "type": "filter",
                   "hook": "input", "policy": "drop"}}
        for table in ("oegw", "oegw_sst")
    ]  # fmt: skip
    assert not drops(NftRules({"nftables": listing}))


@pytest.mark.parametrize("listing", [None, {}, {"nftables": 7}, {"nftables": [7, {"rule": 7}, {}]}])
def test_strange_listings(listing: Any) -> None:
    assert not NftRules(listing).chains("oegw")


SAVED = """\
# Generated by iptables-save
*filter
:INPUT {policy} [0:0]
:FORWARD ACCEPT [0:0]
:ours - [0:0]
{rules}
COMMIT
"""


@pytest.mark.parametrize(
    ("rules", "policy", "dropped"),
    [
        ("", "ACCEPT", False),
        ("", "DROP", True),
        ("-A INPUT -p udp -m multiport --dports 500,4500 -j ACCEPT", "DROP", False),
        ("-A INPUT -p udp -m udp --dport 400:600 -j ACCEPT", "DROP", False),
        ("-A INPUT -p tcp -m tcp --dport 500 -j ACCEPT", "DROP", True),
        ("-A INPUT ! -i eth1 -j ACCEPT", "DROP", True),
        ("-A INPUT ! -i eth0 -j DROP", "ACCEPT", True),
        ("-A INPUT -i eth+ -p udp -j REJECT --reject-with icmp-port-unreachable", "ACCEPT", True),
        ("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "DROP", True),
        ("-A INPUT -s 10.0.0.0/8 -j ACCEPT", "DROP", True),
        ("-A INPUT -m set --match-set friends src -j ACCEPT", "DROP", False),
        ("-A INPUT -m limit --limit 1/sec -j DROP", "ACCEPT", False),
        ('-A INPUT -m comment --comment "no -j DROP here" -j ACCEPT', "DROP", False),
        ("-A INPUT -j LOG\n-A INPUT -j ours\n-A ours -p udp -j ACCEPT", "DROP", False),
        ("-A INPUT -j ours\n-A ours -p udp -j RETURN\n-A ours -j ACCEPT", "DROP", True),
    ],
)  # fmt: skip
def test_one_chain_of_iptables(rules: str, policy: str, dropped: bool) -> None:
    chains = Iptables("iptables", SAVED.format(policy=policy, rules=rules)).chains()
    assert bool(list(dropping(chains, "input", IKE))) is dropped


def test_marks_in_nft() -> None:
    def bits(*statements: dict[str, Any]) -> list[tuple[int, bool]]:
        return [(use.bits, use.sets) for use in nft(list(statements)).marks("oegw")]

    mark = {"meta": {"key": "mark"}}
    assert bits(equal({"&": [mark, 0xFF0000]}, 0x80000)) == [(0xFF0000, False)]
    assert bits(equal(mark, 1)) == [(0xFFFFFFFF, False)]
    assert bits({"mangle": {"key": mark, "value": 1}}) == [(0xFFFFFFFF, True)]
    assert bits({"mangle": {"key": mark, "value": {"|": [mark, 0x4000]}}}) == [(0x4000, True)]
    cleared = {"|": [{"&": [mark, 0xFF00FFFF]}, 0x40000]}
    assert bits({"mangle": {"key": mark, "value": cleared}}) == [(0xFF0000, True)]
    assert bits({"mangle": {"key": mark, "value": {"ct": {"key": "mark"}}}}) == [(0xFFFFFFFF, True)]
    assert bits(ACCEPT) == []


def test_marks_in_iptables() -> None:
    rules = """\
-A INPUT -m mark --mark 0x1/0xff -j ACCEPT
-A INPUT -j MARK --set-xmark 0x40000/0xff0000
-A INPUT -j CONNMARK --restore-mark --nfmask 0xf0 --ctmask 0xf0
-A INPUT -m mark --mark 0x10000/0x30000 -m comment --comment oegw-oegw -j NFQUEUE --queue-num 4500
-A INPUT -m mark --mark 0x9 -j ACCEPT"""
    uses = Iptables("iptables", SAVED.format(policy="ACCEPT", rules=rules)).marks("oegw-oegw")
    assert [(use.bits, use.sets) for use in uses] == [
        (0xFF, False), (0xFF0000, True), (0xF0, True), (0xFFFFFFFF, False),
    ]  # fmt: skip


def test_flow_tables() -> None:
    [rule] = nft([{"flow": {"op": "add", "flowtable": "@fast"}}]).flow_rules()
    assert (rule.name.table, rule.name.chain, rule.place, rule.table) == ("t", "in", 0, "fast")
