"""What interception costs: start, a verdict, and the way of a packet into Python.

python -m tests.bench.bench_intercept      needs root; all traffic stays in namespaces of its own
"""

from __future__ import annotations

import statistics
import time
from ipaddress import IPv4Network, ip_network

from oegw.commands import Verdict
from policy.rule import Category, OnFailure, PortRange, Rule, Scope
from tests.support.intercept_net import INSIDE, PEER, Gateway, Net, wait_for
from tests.support.intercept_policy import policy


def _said(name: str, seconds: float) -> None:
    print(f"{name:58} {seconds * 1e6:12.0f} us")


def _timed(gate: Gateway, scopes: list[Scope], verdict: Verdict) -> float:
    def work() -> float:
        began = time.perf_counter()
        for scope in scopes:
            gate.interception.install_policy(scope, verdict, 60.0, False)
        return (time.perf_counter() - began) / len(scopes)

    return gate.call(work)


def _pairs(first: int, number: int) -> list[Scope]:
    source = ip_network(INSIDE)
    return [Scope(source, IPv4Network((0x0B000000 + first + n, 32))) for n in range(number)]


def main() -> None:
    many = tuple(IPv4Network((0x0C000000 + (n << 8), 24)) for n in range(100_000))
    big = policy(
        Rule("many", Category.PERMIT, None, many),
        default=Rule("rest", Category.OPPORTUNISTIC, on_failure=OnFailure.DROP),
    )
    with Net() as net:
        gate = Gateway(net.gateway)
        began = time.perf_counter()
        gate.start(policy())
        _said("start", time.perf_counter() - began)
        _said("install_policy, pair, first 1000", _timed(gate, _pairs(0, 1000), Verdict.CLEAR))
        _timed(gate, _pairs(1000, 29_000), Verdict.CLEAR)
        _said("install_policy, pair, 30,000 in", _timed(gate, _pairs(30_000, 1000), Verdict.CLEAR))
        _said("install_policy, pair, replacing", _timed(gate, _pairs(0, 1000), Verdict.TUNNEL))
        for number in (0, 3000):
            ports = [
                Scope(ip_network(INSIDE), scope.destination, 6, PortRange(), PortRange(80, 90))
                for scope in _pairs(number, 500)
            ]
            _timed(gate, [Scope(s.source, s.destination, 17) for s in ports], Verdict.CLEAR)
            _said(f"install_policy, port, near {number}", _timed(gate, ports, Verdict.CLEAR))
            more = [
                Scope(s.source, s.destination, 6, PortRange(), PortRange(80, 90))
                for s in _pairs(10_000, 2500)
            ]
            if not number:
                _timed(gate, more, Verdict.CLEAR)
        began = time.perf_counter()
        gate.wait(gate.interception.replace_policy(policy()))
        _said("replace_policy, 1000 tunnels kept", time.perf_counter() - began)
        began = time.perf_counter()
        gate.wait(gate.interception.replace_policy(big))
        _said("replace_policy, 100,000 prefixes", time.perf_counter() - began)
        _said(
            "install_policy, pair, beside 100,000 prefixes",
            _timed(gate, _pairs(50_000, 500), Verdict.CLEAR),
        )
        gate.wait(gate.interception.replace_policy(policy()))
        host, ways = net.udp(net.inside, INSIDE), []
        for number in range(300):
            sent = time.perf_counter()
            host.send("x", PEER)
            wait_for(lambda number=number: len(gate.times) > number)
            ways.append(gate.times[number] - sent)
        _said("sendto to callback, median", statistics.median(ways))
        _said("sendto to callback, 95 %", statistics.quantiles(ways, n=20)[-1])
        gate.end()
        gate = Gateway(net.gateway)
        began = time.perf_counter()
        gate.start(big)
        _said("start, 100,000 prefixes", time.perf_counter() - began)
        gate.end()


if __name__ == "__main__":
    main()
