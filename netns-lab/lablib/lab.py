"""The lab of one scenario: topology, name service, keys, gateways and captures."""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lablib import (
    dns,
    dnssec,
    dynamic,
    gateway,
    moniker,
    network,
    portkeys,
    relaying,
    socks,
    topology,
    whole,
)
from lablib.capture import Capture
from lablib.cells import Played
from lablib.errors import LabError
from lablib.gateway import Gateway, Keys, Oegw, placeholder
from lablib.moniker import MonikerDaemon
from lablib.pcap import Packet
from lablib.records import shaped
from lablib.run import OWN_PLACE, Process, Run
from lablib.scenario import HOME, VARIANTS, Scenario
from lablib.topology import IPAddress, Topology, twin_address

SECONDS_A_DAY = 86400
PREFIX_FILES = "*.prefixes"  # of a scenario, for its configurations: $RUN/NAME.prefixes
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
    keys: dict[str, Keys] = field(default_factory=dict)  # by gateway
    records: list[str] = field(default_factory=list)  # that the DNS has beside the hosts' own
    serial: int = 1  # of the zones
    signer: dnssec.Signer | None = None
    matrix: Played | None = None  # what became of the scenario's matrix
    port_keys: dict[str, Path] = field(default_factory=dict)  # the file in use, by gateway
    clock_days: int = 0  # that the clocks of the gateways are ahead
    monikers: dict[str, MonikerDaemon] = field(default_factory=dict)  # by host
    ports: dict[str, int] = field(default_factory=dict)  # of services, by a name for them

    def queue(self) -> str:
        """How packets get from the kernel to the gateways: by ``nft``, or by ``iptables``."""
        for gateway_ in self.gateways.values():
            for event in gateway_.events():
                if event["event"] == "started" and event["category"] == "intercept":
                    return str(event.get("queue"))
        raise LabError("no gateway has said how it queues packets")

    def public_keys(self) -> dict[str, str]:
        """``SG_B_KEY`` and so on, as configurations and scenarios name the public keys."""
        result = {placeholder(name): pair.public for name, pair in self.keys.items()}
        for name, path in self.port_keys.items():
            public = portkeys.public_of(portkeys.private_octets(path))
            variable = placeholder(name).replace("_KEY", "_PORT_KEY")
            result[variable] = base64.b64encode(public).decode()
        return result

    def as_user(self, user: str, command: list[str]) -> list[str]:
        """The command as this user's, who may read the project's files wherever they are."""
        if not user:
            return command
        if user not in self.scenario.users:
            raise LabError(f"no user {user!r}; there are {', '.join(self.scenario.users)}")
        number = network.FIRST_USER + self.scenario.users.index(user)
        who = [f"--reuid={number}", f"--regid={number}", "--clear-groups"]
        may = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        return ["setpriv", *who, *may, *command]

    def port_key_files(self, gateway: str) -> list[Path]:
        """All keys for ports that this run made for a gateway, the one in use and those before."""
        return sorted(self.run.directory.glob(f"{gateway}*.x25519*"))

    def set_clock(self, days: int) -> None:
        """The clocks of all gateways are so many days ahead from now on."""
        file = self.run.directory / gateway.CLOCK_FILE
        whole.put(file, f"+{days * SECONDS_A_DAY}\n")
        self.clock_days = days

    def write_zones(self) -> list[dns.Zone]:
        """The zone files, with what is in ``records`` now."""
        times = dns.Times(self.scenario.ttl, self.scenario.negative)
        own = dnssec.own_zones(self.topology, self.scenario.dnssec or {})
        written = dns.write_zones(
            self.run, self.topology, HOME / "zones", self.records, times, self.serial, own
        )
        if self.scenario.dnssec is not None:
            self.signer = self.signer or dnssec.Signer(self.run.directory)
            self.signer.sign({zone.name: zone.file for zone in written}, own)
        return written

    def address(self, name: str) -> IPAddress:
        """The address of a host, of the scenario's family."""
        return self.topology.address(name, self.scenario.family)

    def crowd(self, name: str) -> list[IPAddress]:
        """The further addresses of a host of the scenario's crowds."""
        if name not in self.scenario.crowd:
            raise LabError(f"{name} has no crowd")
        addresses = self.topology.crowd(name, self.scenario.crowd[name])
        return [twin_address(a) if self.scenario.family == 6 else a for a in addresses]

    def start_captures(self, devices: bool = False) -> None:
        """Those on links; or those on ``devices``, which are there when their gateways run."""
        links = [link for link in self.scenario.links if (":" in link) is devices]
        for link in links:
            much = self.scenario.moves_much
            self.captures[link] = Capture.begin(self.run, self.topology, link, much)
        for link in links:
            self.captures[link].ready()

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


def _addresses(lab: Lab, clients: Iterable[str]) -> list[str]:
    """The addresses of clients, in both families; a crowd has many, a written one no twin."""
    result = []
    for client in clients:
        crowd = lab.scenario.crowd.get(client)
        many = lab.topology.crowd(client, crowd) if crowd else []
        for family in (4, 6):
            own = lab.topology.address(client, family)
            result += [own] if own.version == family else []
            result += [a if family == 4 else twin_address(a) for a in many]
    return [str(address) for address in result]


def _begin_records(
    oegw: Oegw, lab: Lab, name: str, clients: tuple[str, ...], fqdn: bool, key: str = ""
) -> Process:
    """Start what prints the records of gateway ``name`` for its clients; ``key``: another's key."""
    key = key or name
    if fqdn:
        identity = ["--fqdn", f"{name}.{lab.topology.domain}"]
    else:
        own = (str(lab.topology.address(name, family)) for family in (4, 6))
        identity = [word for address in own for word in ("--gateway", address)]
    identity = [*lab.scenario.precedence(name), *identity]
    if any(e.ipseckey for e in lab.scenario.records if e.gateway == name):
        identity.append("--ipseckey")
    ports = lab.port_keys.get(name)
    return oegw.begin_records(key, identity, _addresses(lab, clients), f"records-{key}", ports)


def published_records(
    oegw: Oegw, lab: Lab, name: str, clients: tuple[str, ...], fqdn: bool
) -> list[str]:
    """What a gateway's operator puts into the DNS for these clients."""
    if name not in lab.keys:
        raise LabError(f"{name} has no key: it is neither a gateway nor in a [[records]]")
    return dns.joined(oegw.finish(_begin_records(oegw, lab, name, clients, fqdn)))


def _make_keys(oegw: Oegw, lab: Lab, keygens: dict[str, Process]) -> None:
    """Keys and records of all gateways, made side by side."""
    ported = {name: lab.run.directory / f"{name}.x25519" for name in lab.scenario.port_keys}
    for process in [oegw.begin_port_keygen(path) for path in ported.values()]:
        oegw.finish(process)
    lab.port_keys |= ported
    for name, process in keygens.items():
        oegw.finish(process)
        oegw.keep_key(name, lab.scenario.bits)
    asked = {}
    for name in publishers(lab.scenario):
        entries = [entry for entry in lab.scenario.records if entry.gateway == name]
        clients = tuple(client for entry in entries for client in entry.clients)
        asked[name] = _begin_records(oegw, lab, name, clients, any(e.fqdn for e in entries))
    for name, process in asked.items():
        lines = dns.joined(oegw.finish(process))
        lab.keys[name] = Keys(name, lab.run.directory / f"{name}.pem", lines)


def _make_spare_keys(oegw: Oegw, lab: Lab) -> None:
    """Keys that are published beside those in use, and signed with by nobody."""
    for entry in lab.scenario.records:
        spares = [f"{entry.gateway}-spare-{number}" for number in range(entry.spare_keys)]
        for process in [oegw.begin_keygen(spare, lab.scenario.bits) for spare in spares]:
            oegw.finish(process)
        for spare in spares:
            process = _begin_records(oegw, lab, entry.gateway, entry.clients, entry.fqdn, key=spare)
            lab.keys[entry.gateway].spare_records += dns.joined(oegw.finish(process))


def _question_records(oegw: Oegw, lab: Lab) -> list[str]:
    """The keys to which questions for hosts' services are encrypted."""
    hosts = lab.scenario.question_keys
    made = [
        oegw.begin_question_records(host, lab.port_keys[host], _addresses(lab, [host]))
        for host in hosts
    ]
    return [line for process in made for line in dns.joined(oegw.finish(process))]


def publishers(scenario: Scenario) -> list[str]:
    """The gateways that have a key."""
    return sorted({entry.gateway for entry in scenario.records} | set(scenario.gateways))


def _is_published(scenario: Scenario, gateway: str, record: str) -> bool:
    """Whether a scenario wants records of this type from the gateway."""
    types = {each for e in scenario.records if e.gateway == gateway for each in e.types}
    return not types or dns.type_of(record) in types


def _start_monikers(lab: Lab) -> None:
    """The daemons of hosts, side by side."""
    for host in lab.scenario.monikers:
        template = lab.scenario.directory / moniker.FOLDER / f"{host}.toml"
        path = moniker.write_configuration(lab.run, host, template, lab.public_keys())
        lab.monikers[host] = MonikerDaemon(host, lab.run, path)
        lab.monikers[host].begin()
    for one in lab.monikers.values():
        one.ready()


def _send_whole_frames(lab: Lab) -> None:
    """Gateways cut their own batches of ESP in UDP, as for a card that cannot do it.

    A batch would be in a capture in part only, and nothing could be said of the rest.
    """
    for name in lab.gateways:
        for interface in lab.topology.host(name).interfaces:
            if interface.link:
                words = ["ethtool", "-K", interface.name, "tx-udp-segmentation", "off"]
                result = lab.run.call(name, words)
                if result.returncode:
                    raise LabError(f"ethtool: {result.stderr.strip()}")


def put_up(run: Run, scenario: Scenario, say: Say, with_gateways: bool = True) -> Lab:
    """Build everything that the scenario needs, up to working gateways and captures.

    Whatever happens, ``run.close`` undoes it.
    """
    started = time.monotonic()
    lab = Lab(run, topology_of(scenario), scenario)
    run.variant = scenario.variant
    oegw = Oegw(run) if with_gateways else None
    keygens = {
        name: oegw.begin_keygen(name, scenario.bits)
        for name in publishers(scenario)
        if oegw and not oegw.has_key(name, scenario.bits)
    }
    resolvers = {scenario.resolver: "127.0.0.1"} if scenario.resolver else {}
    if scenario.forwarder:
        resolvers |= lab.topology.clients(scenario.forwarder)
    resolvers |= scenario.resolvers
    network.build(run, lab.topology, resolvers, scenario.users)
    if scenario.services:
        OWN_PLACE.mkdir(exist_ok=True)
        for host in lab.topology.hosts:
            run.own_place(host).mkdir(parents=True)
    say(f"network of {len(lab.topology.hosts)} hosts: {time.monotonic() - started:.2f} s")

    if oegw:
        _make_keys(oegw, lab, keygens)
        _make_spare_keys(oegw, lab)
    named = {entry.gateway for entry in scenario.records}
    wanted = [
        line
        for name, pair in lab.keys.items()
        if name in named
        for line in shaped(pair.records + pair.spare_records, scenario.records, name)
        if _is_published(scenario, name, line)
    ]
    lab.records = wanted + dns.joined(scenario.additions)
    lab.records += _question_records(oegw, lab) if oegw else []
    written, source = lab.write_zones(), dns.AUTHORITATIVE
    if scenario.relay.get("before") == "resolver":
        relaying.start(run, source, scenario.relay["mode"])
        source = relaying.ADDRESS
    anchor = lab.signer.trust_anchor() if lab.signer else None
    dns.start(run, lab.topology, written, updatable=scenario.dynamic, anchor=anchor, source=source)
    if scenario.relay.get("before") == "gateways":
        relaying.start(run, str(lab.topology.address("dns")), scenario.relay["mode"])
    if scenario.resolver:
        own = dns.start_resolver(
            run,
            scenario.resolver,
            "unbound-own",
            ["127.0.0.1"],
            dns.FAR_AUTHORITATIVE,
            anchor=anchor,
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

    for path in scenario.directory.glob(PREFIX_FILES):
        shutil.copyfile(path, run.directory / path.name)
    lab.start_captures()
    if oegw:
        for name in scenario.gateways:
            template: Path = scenario.directory / f"{name}.toml"
            lab.gateways[name] = gateway.write_configuration(
                run, lab.topology, name, template, lab.public_keys(), scenario.datapath_of(name)
            )
            lab.gateways[name].has_clock = scenario.clock
        if any(fact["kind"] == "no-payload" for fact in scenario.facts):
            _send_whole_frames(lab)
        if scenario.clock:
            lab.set_clock(0)
        at_once = [one for name, one in lab.gateways.items() if name not in scenario.late]
        for name in scenario.secrets:
            dynamic.write_key(run.directory / name, name)
        for one in at_once:
            one.begin()
        for one in at_once:
            one.ready()
        _start_monikers(lab)
        moniker.await_children(run, at_once)
        socks.await_servers(run, at_once)
        names = ", ".join([*(one.name for one in at_once), *lab.monikers])
        say(f"gateways {names}: {time.monotonic() - started:.2f} s")
        lab.start_captures(devices=True)
    return lab
