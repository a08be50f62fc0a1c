"""Name service of the lab: zones for nsd (authoritative) and unbound (caching resolver)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from string import Template

from lablib.dnssec import parent
from lablib.dynamic import start_updatable
from lablib.errors import LabError
from lablib.run import Process, Run
from lablib.topology import Topology, twin_address, twin_network

AUTHORITATIVE = "192.1.1.54"
FAR_AUTHORITATIVE = "192.9.1.54"  # the same server by way of R, for a resolver on a gateway

# Both servers make room when they start for what a lab never has: tables of rates of a million
# clients, a thousand connections, a list of all ports.  Where a page of memory costs much, as in a
# test kernel, that is some seconds of each lab.
FEW_CLIENTS = ("  rrl-size: 100", "  rrl-ratelimit: 0", "  tcp-count: 20", "  xfrd-tcp-max: 4")
FEW_PORTS = ("  outgoing-port-avoid: 0-65535", "  outgoing-port-permit: 20000-24999")


@dataclass(frozen=True, slots=True)
class Times:
    """How long an answer may be kept: a record, and that there is none (the SOA minimum)."""

    ttl: int = 60
    negative: int = 30


@dataclass(frozen=True, slots=True)
class Zone:
    name: str  # without the last dot; the root is ""
    template: str
    records: tuple[str, ...]

    @property
    def file(self) -> str:
        return f"{self.name or 'root'}.zone"


def reverse_zone(network: IPv4Network | IPv6Network) -> str:
    """The zone of the reverse names of a /24 or a /64."""
    labels = network.network_address.reverse_pointer.split(".")
    spare = 1 if network.version == 4 else 16
    return ".".join(labels[spare:])


def owner(line: str) -> str:
    """The owner name of a zone-file line, which must be absolute, without its last dot."""
    name = line.split(None, 1)[0]
    if not name.endswith("."):
        raise LabError(f"record {line[:60]!r}: its owner name must end in a dot")
    return name[:-1].lower()


def type_of(line: str) -> str:
    """The record type of a zone-file line, which has perhaps a TTL and a class before it."""
    for word in line.split()[1:]:
        if not word.isdigit() and word.upper() != "IN":
            return word.upper()
    raise LabError(f"record {line[:60]!r}: no type")


def joined(text: str) -> list[str]:
    """Lines of zone-file text; what stands in parentheses over several lines is one."""
    lines: list[str] = []
    open_parentheses = 0
    for raw in text.splitlines():
        line = raw.rstrip()
        if not line.strip() or line.lstrip().startswith(";"):
            continue
        if open_parentheses:
            lines[-1] += "\n" + line
        else:
            lines.append(line)
        unquoted = "".join(line.split('"')[::2]).split(";")[0]
        open_parentheses += unquoted.count("(") - unquoted.count(")")
    return lines


def zones(topology: Topology, additions: list[str], apart: Iterable[str] = ()) -> list[Zone]:
    """All zones with the hosts' own records and ``additions`` (lines with absolute names).

    ``apart`` are zones below the others.
    """
    records: dict[str, list[str]] = {"": [], topology.domain: [], **{name: [] for name in apart}}
    lines = [f"ns.{topology.domain}. A {AUTHORITATIVE}"]
    for host in topology.hosts.values():
        if host.address is not None:
            for address, rdtype in ((host.address, "A"), (twin_address(host.address), "AAAA")):
                lines.append(f"{host.name}.{topology.domain}. {rdtype} {address}")
        for interface in host.interfaces:
            for address in interface.addresses:
                for network in (IPv4Network(f"{address.ip}/24", strict=False),):
                    records.setdefault(reverse_zone(network), [])
                    records.setdefault(reverse_zone(twin_network(network)), [])
                inside = "" if address.ip == host.address or not host.forwarding else "-inside"
                for either in (address.ip, twin_address(address.ip)):
                    lines.append(
                        f"{either.reverse_pointer}. PTR {host.name}{inside}.{topology.domain}."
                    )
    for line in lines + additions:
        labels = owner(line).split(".")
        suffixes = (".".join(labels[count:]) for count in range(len(labels) + 1))
        records[next(suffix for suffix in suffixes if suffix in records)].append(line)
    for name in records:
        if name:
            records[parent(name, records)].append(f"{name}. NS ns.{topology.domain}.")
    records[""].append(lines[0])  # glue
    return [
        Zone(
            name=name,
            template="root" if not name else "reverse" if name.endswith(".arpa") else "forward",
            records=tuple(entries),
        )
        for name, entries in records.items()
    ]


def write_zones(
    run: Run,
    topology: Topology,
    templates: Path,
    additions: list[str],
    times: Times,
    serial: int,
    apart: Iterable[str] = (),
) -> list[Zone]:
    """Fill the templates in; returns what was written to ``RUN/zones``."""
    directory = run.directory / "zones"
    directory.mkdir(exist_ok=True)
    written = zones(topology, additions, apart)
    for zone in written:
        template = Template((templates / f"{zone.template}.zone").read_text())
        text = template.substitute(
            zone=zone.name,
            domain=topology.domain,
            ttl=times.ttl,
            negative=times.negative,
            serial=serial,
            records="\n".join(zone.records),
        )
        (directory / zone.file).write_text(text)
    return written


def nsd_configuration(directory: Path, written: list[Zone]) -> str:
    addresses = [AUTHORITATIVE, FAR_AUTHORITATIVE]
    addresses += [str(twin_address(IPv4Network(a).network_address)) for a in addresses]
    lines = ["server:"]
    lines += [f"  ip-address: {address}" for address in addresses]
    lines += [
        '  username: ""',
        '  chroot: ""',
        "  server-count: 1",
        "  verbosity: 1",
        *FEW_CLIENTS,
        '  database: ""',
        f'  zonesdir: "{directory}/zones"',
        f'  pidfile: "{directory}/nsd.pid"',
        f'  xfrdfile: "{directory}/nsd.xfrd"',
        f'  xfrdir: "{directory}"',
        f'  zonelistfile: "{directory}/nsd.zones"',
        "remote-control:",
        "  control-enable: no",
    ]
    for zone in written:
        lines += ["zone:", f'  name: "{zone.name or "."}"', f'  zonefile: "{zone.file}"']
    return "\n".join(lines) + "\n"


def unbound_configuration(
    directory: Path,
    name: str,
    addresses: list[str],
    server: str,
    *,
    forwards: bool,
    anchor: Path | None = None,
) -> str:
    """A resolver on ``addresses`` that sends every question to ``server``.

    If it ``forwards``, that is a resolver itself, else an authoritative server.

    With ``anchor``, a file with the root's key, it validates; else there is no DNSSEC: the module
    is the iterator alone.  The ranges for documentation would be answered by unbound itself, so
    that is switched off.
    """
    modules = "iterator" if anchor is None else "validator iterator"
    lines = ["server:"]
    lines += [f"  interface: {address}" for address in addresses]
    lines += [
        "  access-control: 0.0.0.0/0 allow",
        "  access-control: ::0/0 allow",
        '  username: ""',
        '  chroot: ""',
        f'  directory: "{directory}"',
        f'  pidfile: "{directory}/{name}.pid"',
        "  do-daemonize: no",
        "  use-syslog: no",
        '  logfile: ""',
        "  verbosity: 1",
        "  num-threads: 1",
        *FEW_PORTS,
        f'  module-config: "{modules}"',
        *([] if anchor is None else [f'  trust-anchor-file: "{anchor}"', "  ede: yes"]),
        "  qname-minimisation: no",
        "  do-not-query-localhost: no",
        "  msg-cache-size: 1m",
        "  rrset-cache-size: 1m",
        '  local-zone: "8.b.d.0.1.0.0.2.ip6.arpa." nodefault',
        "remote-control:",
        "  control-enable: yes",
        f'  control-interface: "{directory}/{name}.ctl"',
        "  control-use-cert: no",
        "forward-zone:" if forwards else "stub-zone:",
        '  name: "."',
        f"  forward-addr: {server}" if forwards else f"  stub-addr: {server}",
    ]
    return "\n".join(lines) + "\n"


def start_authoritative(run: Run, written: list[Zone]) -> Process:
    configuration = run.directory / "nsd.conf"
    configuration.write_text(nsd_configuration(run.directory, written))
    return run.start("nsd", "dns", ["nsd", "-d", "-c", str(configuration)])


def start_resolver(
    run: Run,
    host: str,
    name: str,
    addresses: list[str],
    server: str = AUTHORITATIVE,
    *,
    forwards: bool = False,
    anchor: Path | None = None,
) -> Process:
    configuration = run.directory / f"{name}.conf"
    text = unbound_configuration(
        run.directory, name, addresses, server, forwards=forwards, anchor=anchor
    )
    configuration.write_text(text)
    return run.start(name, host, ["unbound", "-d", "-c", str(configuration)])


def start(
    run: Run,
    topology: Topology,
    written: list[Zone],
    *,
    updatable: bool = False,
    anchor: Path | None = None,
    source: str = AUTHORITATIVE,
) -> None:
    """Both servers on host dns; returns when both are ready to answer.

    ``source`` is where the resolver asks, if that is not the other one.
    """
    resolver = topology.address("dns")
    if updatable:
        files = [(zone.name, zone.file) for zone in written]
        authoritative = start_updatable(run, [AUTHORITATIVE, FAR_AUTHORITATIVE], files)
    else:
        authoritative = start_authoritative(run, written)
    caching = start_resolver(
        run,
        "dns",
        "unbound",
        [str(resolver), str(topology.address("dns", 6))],
        source,
        anchor=anchor,
    )
    authoritative.await_text("all zones loaded" if updatable else "nsd started")
    complaints = [line for line in authoritative.text().splitlines() if " error: " in line]
    if complaints:
        raise LabError("the name server does not take the zones:\n" + "\n".join(complaints))
    caching.await_text("start of service")
