"""Rules of ours that somebody else takes away, and what of them is put back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from oegw.commands import Assurance, Verdict
from oegw.datapath.interface import Direction, SaKey
from policy.rule import PortRange, Scope
from tests.support.intercept_net import (
    INSIDE,
    INSIDE6,
    OTHER_PEER,
    PEER,
    PEER6,
    Gateway,
    Net,
    gateway,
    wait_for,
)
from tests.support.intercept_policy import policy, protected_rule

pytestmark = pytest.mark.netns

TABLE = "table inet oegw"
POLICY = policy(protected_rule(f"{OTHER_PEER}/32"))


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


@pytest.fixture
def gate(net: Net) -> Iterator[Gateway]:
    with gateway(net, POLICY) as gate:
        yield gate


def pair(source: str, destination: str, *more: Any) -> Scope:
    return Scope(ip_network(source), ip_network(destination), *more)


def install(gate: Gateway, scope: Scope, verdict: Verdict, lifespan: float | None = None) -> None:
    gate.call(gate.interception.install_policy, scope, verdict, lifespan, verdict is Verdict.TUNNEL)


def mended(gate: Gateway) -> tuple[str, ...]:
    return gate.wait(gate.interception.mend())  # type: ignore[no-any-return]


def nft(net: Net, *words: str) -> str:
    return net.run(net.gateway, "nft", *words)


def elements(net: Net) -> dict[tuple[str, str], tuple[int | None, int | None]]:
    """Timeout and what is left of it, of each element by its set and itself."""
    found = {}
    for entry in json.loads(nft(net, "-j", "list", "table", "inet", "oegw"))["nftables"]:
        body = entry.get("set") or entry.get("map") or {}
        for each in body.get("elem", ()):
            key = each[0] if isinstance(each, list) else each
            inner = key.get("elem", {}) if isinstance(key, dict) else {}
            name = json.dumps([inner.get("val", key), each[1] if isinstance(each, list) else None])
            found[body["name"], name] = inner.get("timeout"), inner.get("expires")
    return found


def test_all_is_there_again_with_what_is_left_of_lifespans(net: Net, gate: Gateway) -> None:
    install(gate, pair(INSIDE, PEER), Verdict.TUNNEL)
    install(gate, pair(INSIDE6, PEER6), Verdict.TUNNEL)
    install(gate, pair("10.1.0.0/24", "10.9.1.0/24"), Verdict.DENY, 600)
    install(gate, pair(INSIDE, OTHER_PEER, 6, PortRange(), PortRange(80, 81)), Verdict.REFUSE, 500)
    install(gate, pair(INSIDE, OTHER_PEER, 17), Verdict.CLEAR, 0.2)
    sa = SaKey(Direction.INBOUND, 0x1000, ip_address("10.2.0.1"))
    gate.call(gate.interception.assure, sa, pair(PEER, INSIDE), Assurance.SECURE)
    wait_for(lambda: ("protocol4") not in {name for name, _ in elements(net)})  # it is over
    rules, before = nft(net, "-s", "-t", "list", "table", "inet", "oegw"), elements(net)
    assert mended(gate) == ()
    nft(net, "flush", "ruleset")
    assert mended(gate) == (TABLE,)
    assert nft(net, "-s", "-t", "list", "table", "inet", "oegw") == rules
    after = elements(net)
    assert after.keys() == before.keys()
    assert len(after) == 9, after
    for name, (timeout, _) in after.items():
        first, left = before[name]
        assert (timeout is None) == (first is None), name
        if first is not None and left is not None:
            assert timeout is not None
            assert left - 30 <= timeout <= left, name
    assert mended(gate) == ()
    gate.call(gate.interception.remove_policy, pair(INSIDE, PEER))
    gate.call(gate.interception.forget_assurance, sa)
    assert len(elements(net)) == 6


def test_what_is_decided_while_the_table_is_gone_is_in_it_afterwards(
    net: Net, gate: Gateway
) -> None:
    install(gate, pair(INSIDE, PEER), Verdict.CLEAR)
    nft(net, "delete", "table", "inet", "oegw")
    install(gate, pair(INSIDE, PEER), Verdict.TUNNEL)
    install(gate, pair(INSIDE, OTHER_PEER), Verdict.DENY)
    gate.call(gate.interception.remove_policy, pair(INSIDE, OTHER_PEER))
    install(gate, pair(INSIDE6, PEER6), Verdict.DENY)
    assert mended(gate) == (TABLE,)
    assert sorted(name for name, _ in elements(net)) == [
        "deny_pair6", "encrypted_mark", "keyed_pair4", "pair4",
    ]  # fmt: skip


def test_an_element_in_the_way_costs_the_verdicts_and_not_the_rules(
    net: Net, gate: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never should be; but rules without verdicts are better than verdicts without rules."""
    install(gate, pair(INSIDE, PEER), Verdict.CLEAR)
    together = "oegw.intercept.interception.together"
    monkeypatch.setattr(together, lambda *_: "create element inet oegw pair4 { x }")
    nft(net, "flush", "ruleset")
    assert mended(gate) == (TABLE,)
    assert gate.trace.counters["intercept.drop.verdicts_not_put_back"] == 1
    net.udp(net.inside, INSIDE).send("a", PEER)
    wait_for(lambda: gate.counters["trapped"] == 1)


def test_iptables_rules_are_put_back_and_found_by_the_imprint(net: Net, gate: Gateway) -> None:
    if gate.interception.queue_kind == "nft":
        assert gate.wait(gate.interception.mend_jump(True)) == ()
        return
    assert gate.wait(gate.interception.mend_jump(True)) == ()
    net.run(net.gateway, "iptables", "-t", "mangle", "-F", "OUTPUT")
    assert gate.wait(gate.interception.mend_jump(False)) == ("iptables's rule in OUTPUT",)
    assert gate.wait(gate.interception.mend_jump(False)) == ()


def test_thousands_leave_together_though_some_have_gone_already(
    net: Net, gate: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    scopes = [pair(INSIDE, f"10.9.{n >> 8}.{n & 255}") for n in range(1000)]
    for scope in scopes:
        install(gate, scope, Verdict.TUNNEL)
    nft(net, "delete element inet oegw pair4 { 10.1.0.2 . 10.9.0.7, 10.1.0.2 . 10.9.2.9 }")
    spoken: list[str] = []
    speak = gate.interception._speak

    def speaks(command: str) -> str:
        spoken.append(command)
        return speak(command)

    monkeypatch.setattr(gate.interception._leaving, "_run", speaks)

    def forget() -> None:
        for scope in scopes:
            gate.interception.remove_policy(scope)
        assert not spoken

    gate.call(forget)
    assert len(spoken) == 2  # the second with the elements that are gone put in before
    assert [name for name, _ in elements(net)] == ["encrypted_mark"]
