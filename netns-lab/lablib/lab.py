"""The lab of one scenario: topology, name service, keys, gateways and captures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lablib import dns, gateway, network, topology
from lablib.capture import Capture
from lablib.errors import LabError
from lablib.gateway import Gateway, Keys, Oegw
from lablib.pcap import Packet
from lablib.run import Process, Run
from lablib.scenario import HOME, VARIANTS, Scenario
from lablib.topology import IPAddress, Topology, twin_address

Say = Callable[[str], None]


@dataclass(slots=True)
class Lab:
    """What is up, and where to find it."""

    run: Run
    topology: Topology
    scenario: Scenario
    gateways: dict[str, Gateway] = field(default_factory=dict)
    captures: dict[str, Capture] = field(default_factory=dict)
    captured: dict[str, list[Packet]] = field(default_factory=dict)

    def address(self, name: str) -> IPAddress:
        """The address of a host, of the scenario's family."""
        return self.topology.address(name, self.scenario.family)

    def crowd(self, name: str) -> list[IPAddress]:
        """The further addresses of a host of the scenario's crowds."""
        if name not in self.scenario.crowd:
            raise LabError(f"{name} has no crowd")
        addresses = self.topology.crowd(name, self.scenario.crowd[name])
        return [twin_address(a) if self.scenario.family == 6 else a for a in addresses]

    def start_captures(self) -> None:
        for link in self.scenario.links:
            self.captures[link] = Capture.begin(self.run, self.topology, link)
        for capture in self.captures.values():
            capture.ready()

    def end_captures(self) -> None:
        """Read all captures into ``captured``; does nothing the second time."""
        for link, capture in self.captures.items():
            if link not in self.captured:
                self.captured[link] = capture.end()


def load_topology(variant: str = "") -> Topology:
    """The draft's network, or a variant of it.  Raises LabError."""
    return topology.load(HOME / "topology.toml", VARIANTS / f"{variant}.toml" if variant else None)


def topology_of(scenario: Scenario) -> Topology:
    """The network that a scenario is played in."""
    result = load_topology(scenario.variant)
    for name, size in scenario.crowd.items():
        result = result.with_crowd(name, size)
    return result


def _clients(lab: Lab, gateway: str, family: int) -> list[str]:
    """The addresses for which a gateway's delegations are published."""
    result = []
    for entry in lab.scenario.records:
        for client in entry.clients if entry.gateway == gateway else ():
            crowd = lab.scenario.crowd.get(client)
            many = lab.topology.crowd(client, crowd) if crowd else []
            result.append(lab.topology.address(client, family))
            result += [a if family == 4 else twin_address(a) for a in many]
    return [str(address) for address in result]


def _publish(oegw: Oegw, lab: Lab, keygens: dict[str, Process]) -> dict[str, Keys]:
    """Keys and records of all gateways, made side by side."""
    for process in keygens.values():
        oegw.finish(process)
    named = {entry.gateway for entry in lab.scenario.records if entry.fqdn}
    precedences = {entry.gateway: entry.precedence for entry in lab.scenario.records}
    asked = {}
    for name in keygens:
        precedence = ["--precedence", str(precedences.get(name, 10))]
        clients = {family: _clients(lab, name, family) for family in (4, 6)}
        if name in named:  # one name for both families
            identity = [*precedence, "--fqdn", f"{name}.{lab.topology.domain}"]
            everyone = clients[4] + clients[6]
            asked[name, 0] = oegw.begin_records(name, identity, everyone, f"records-{name}")
            continue
        for family, who in clients.items():
            identity = [*precedence, "--gateway", str(lab.topology.address(name, family))]
            asked[name, family] = oegw.begin_records(
                name, identity, who, f"records-{name}-{family}"
            )
    keys = {name: Keys(name, lab.run.directory / f"{name}.pem", []) for name in keygens}
    for (name, _), process in asked.items():
        keys[name].records += dns.joined(oegw.finish(process))
    return keys


def put_up(run: Run, scenario: Scenario, say: Say, with_gateways: bool = True) -> Lab:
    """Build everything that the scenario needs, up to working gateways and captures.

    Whatever happens, ``run.close`` undoes it.
    """
    started = time.monotonic()
    lab = Lab(run, topology_of(scenario), scenario)
    run.variant = scenario.variant
    oegw = Oegw(run) if with_gateways else None
    publishers = {entry.gateway for entry in scenario.records} | set(scenario.gateways)
    keygens = {name: oegw.begin_keygen(name, scenario.bits) for name in sorted(publishers) if oegw}
    resolvers = {scenario.resolver: "127.0.0.1"} if scenario.resolver else {}
    if scenario.forwarder:
        resolvers |= lab.topology.clients(scenario.forwarder)
    network.build(run, lab.topology, resolvers)
    say(f"network of {len(lab.topology.hosts)} hosts: {time.monotonic() - started:.2f} s")

    keys = _publish(oegw, lab, keygens) if oegw else {}
    wanted = [
        record
        for name, pair in keys.items()
        for record in pair.records
        if any(entry.gateway == name for entry in scenario.records)
    ]
    additions = wanted + dns.joined(scenario.additions)
    dns.start(run, lab.topology, dns.write_zones(run, lab.topology, HOME / "zones", additions))
    if scenario.resolver:
        own = dns.start_resolver(
            run, scenario.resolver, "unbound-own", ["127.0.0.1"], dns.FAR_AUTHORITATIVE
        )
        own.await_text("start of service")
    if scenario.forwarder:
        inside = sorted(set(lab.topology.clients(scenario.forwarder).values()))
        upstream = str(lab.topology.address("dns"))
        forwarder = dns.start_resolver(
            run, scenario.forwarder, "unbound-forwarder", inside, upstream, forwards=True
        )
        forwarder.await_text("start of service")
    say(f"keys, zones, nsd and unbound: {time.monotonic() - started:.2f} s")

    lab.start_captures()
    if oegw:
        for name in scenario.gateways:
            template: Path = scenario.directory / f"{name}.toml"
            lab.gateways[name] = gateway.write_configuration(
                run, lab.topology, name, template, keys, scenario.datapaths.get(name)
            )
            lab.gateways[name].begin()
        for one in lab.gateways.values():
            one.ready()
        say(f"gateways {', '.join(lab.gateways)}: {time.monotonic() - started:.2f} s")
    return lab
