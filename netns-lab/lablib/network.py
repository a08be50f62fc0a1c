"""Builds the topology: one namespace a host, one more with a bridge for each link.

Every command runs inside the lab's own namespaces: the root namespace never
sees an interface or a route of the lab.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from lablib.errors import LabError
from lablib.run import Run
from lablib.topology import Host, Interface, Topology, twin_address, twin_network
from lablib.waiting import patient

CABLES = "cables"  # the namespace of the bridges that stand for the links


def port_name(host: Host, interface: Interface) -> str:
    """The name of the far end of an interface, in the namespace of the links."""
    return f"{host.name}.{interface.name}"


def sysctls(forwarding: bool, ipv6: bool = True) -> list[str]:
    """Settings of a namespace, made before it has interfaces, because these copy `default`."""
    settings = [f"net.ipv4.ip_forward={int(forwarding)}"]
    for which in ("all", "default"):
        settings += [
            f"net.ipv4.conf.{which}.rp_filter=0",
            f"net.ipv4.conf.{which}.send_redirects=0",
            f"net.ipv4.conf.{which}.accept_redirects=0",
            f"net.ipv6.conf.{which}.disable_ipv6={int(not ipv6)}",
            f"net.ipv6.conf.{which}.accept_dad=0",
            f"net.ipv6.conf.{which}.accept_ra=0",
            f"net.ipv6.conf.{which}.accept_redirects=0",
            f"net.ipv6.conf.{which}.router_solicitations=0",
            f"net.ipv6.conf.{which}.forwarding={int(forwarding)}",
        ]
    return settings


def cables_batch(run: Run, topology: Topology) -> str:
    """Bridges and cables, for ``ip -batch`` in the namespace of the links."""
    lines = []
    for link in topology.links:
        lines.append(f"link add {link} type bridge forward_delay 0 mcast_snooping 0")
        lines.append(f"link set {link} up")
    for host in topology.hosts.values():
        for interface in host.interfaces:
            if not interface.link:
                continue
            mac = f"address {interface.mac}" if interface.mac else ""
            port = port_name(host, interface)
            lines.append(
                f"link add {port} type veth peer name {interface.name} {mac} "
                f"netns {run.namespace(host.name)}"
            )
            lines.append(f"link set {port} master {interface.link} up")
    return "\n".join(lines) + "\n"


def host_batch(host: Host) -> str:
    """Addresses and routes of a host, for ``ip -batch`` in its namespace."""
    lines = ["link set lo up"]
    if host.bridge:
        lines.append(f"link add {host.bridge} type bridge forward_delay 0 mcast_snooping 0")
        lines.append(f"link set {host.bridge} up")
    for interface in host.interfaces:
        for address in interface.all_addresses:
            nodad = " nodad" if address.version == 6 else ""
            lines.append(f"address add {address} dev {interface.name}{nodad}")
        if host.bridge:
            lines.append(f"link set {interface.name} master {host.bridge}")
        lines.append(f"link set {interface.name} up")
    for route in host.routes:
        lines.append(f"route add {route.to} via {route.via}")
        lines.append(f"route add {twin_network(route.to)} via {twin_address(route.via)}")
    return "\n".join(lines) + "\n"


def masquerade_rules(interface: str, ports: str) -> str:
    """nftables rules of a NAT, in place of those that are there.  Without ``ports``, UDP keeps its
    own where it can."""
    udp = f'oifname "{interface}" ip protocol udp masquerade to :{ports}' if ports else ""
    return f"""table ip nat {{}}
flush table ip nat
table ip nat {{
    chain out {{
        type nat hook postrouting priority srcnat
        {udp}
        oifname "{interface}" masquerade
    }}
}}"""


def one_to_one_rules(interface: str, inside: str, outside: str) -> str:
    """nftables rules that give each address of one prefix one of another, and back."""
    return f"""table ip nat {{
    chain out {{
        type nat hook postrouting priority srcnat
        oifname "{interface}" snat ip prefix to ip saddr map {{ {inside} : {outside} }}
    }}
    chain in {{
        type nat hook prerouting priority dstnat
        iifname "{interface}" dnat ip prefix to ip daddr map {{ {outside} : {inside} }}
    }}
}}"""


def _batch(run: Run, host: str | None, text: str) -> subprocess.Popen[str]:
    command = ["ip", "-batch", "-"]
    process = subprocess.Popen(
        run.inside(host, command) if host else command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.close()
    process.stdin = None
    return process


def _finish(what: str, process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=patient(30))
    if process.returncode:
        raise LabError(f"{what}: {output.strip()}")


FIRST_USER = 2001  # the number of the first user of a scenario


def accounts(users: Sequence[str]) -> dict[str, str]:
    """The machine's users and groups, and those of a scenario, as files of a host."""
    if not users:
        return {}
    added: dict[str, list[str]] = {"passwd": [], "group": []}
    for number, user in enumerate(users, FIRST_USER):
        added["passwd"].append(f"{user}:x:{number}:{number}::/nonexistent:/bin/sh\n")
        added["group"].append(f"{user}:x:{number}:\n")
    return {
        name: Path(f"/etc/{name}").read_text() + "".join(lines) for name, lines in added.items()
    }


def build(
    run: Run, topology: Topology, resolvers: dict[str, str], users: Sequence[str] = ()
) -> None:
    """Make all namespaces of ``topology``.

    ``resolvers``: the name server a host asks, by host name; others ask the
    lab's resolver.  ``users``: that hosts have beside those of this machine.
    Raises LabError with what ``ip`` said.
    """
    if not Path("/etc/resolv.conf").exists():
        raise LabError("/etc/resolv.conf: not there; `ip netns exec` needs it to put ours over it")
    names = [*topology.hosts, CABLES]
    run.namespaces = [run.namespace(name) for name in names]
    run.save()
    files = accounts(users)
    for host in topology.hosts:
        directory = Path("/etc/netns") / run.namespace(host)
        directory.mkdir(parents=True)
        server = resolvers.get(host, str(topology.address("dns")))
        (directory / "resolv.conf").write_text(
            f"nameserver {server}\nsearch {topology.domain}\n"
            f"options timeout:{round(patient(2))} attempts:2\n"
        )
        for name, text in files.items():
            (directory / name).write_text(text)
    _finish("namespaces", _batch(run, None, "".join(f"netns add {n}\n" for n in run.namespaces)))

    settings = []
    for name in names:
        forwarding = name in topology.hosts and topology.hosts[name].forwarding
        values = sysctls(forwarding, ipv6=name not in (CABLES, "wild"))
        settings.append(
            subprocess.Popen(
                run.inside(name, ["sysctl", "-q", "-w", *values]),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for name, process in zip(names, settings, strict=True):
        _finish(f"settings of {name}", process)

    cables = _batch(run, CABLES, cables_batch(run, topology))
    _finish("links", cables)
    batches = [
        (host.name, _batch(run, host.name, host_batch(host))) for host in topology.hosts.values()
    ]
    for name, batch in batches:
        _finish(f"addresses and routes of {name}", batch)
    for host in topology.hosts.values():
        if (nat := host.masquerade) is not None:
            rules = masquerade_rules(nat.interface, nat.ports)
            if nat.inside:
                rules = one_to_one_rules(nat.interface, nat.inside, nat.outside)
            done = run.call(host.name, ["nft", rules])
            if done.returncode:
                raise LabError(f"NAT of {host.name}: {done.stderr.strip()}")
