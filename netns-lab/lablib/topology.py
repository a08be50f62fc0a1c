"""Hosts, links and addresses of the lab, read from ``topology.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
)
from pathlib import Path
from typing import Any

from lablib.errors import LabError

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface


def twin_address(address: IPv4Address) -> IPv6Address:
    """The IPv6 address of the host with this IPv4 address: 192.X.Y.h is 2001:db8:X:Y::h."""
    _, x, y, host = str(address).split(".")
    return IPv6Address(f"2001:db8:{x}:{y}::{host}")


def twin_network(network: IPv4Network) -> IPv6Network:
    """The IPv6 network beside this IPv4 one; /24 has /64, /32 has /128, the default its own."""
    if network.prefixlen == 0:
        return IPv6Network("::/0")
    length = {24: 64, 32: 128}[network.prefixlen]
    return IPv6Network((twin_address(network.network_address), length))


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface of a host; ``link`` is empty for the loopback interface."""

    name: str
    link: str
    addresses: tuple[IPv4Interface, ...]

    @property
    def all_addresses(self) -> tuple[IPInterface, ...]:
        """The addresses of both families."""
        twins = (
            IPv6Interface((twin_address(a.ip), twin_network(a.network).prefixlen))
            for a in self.addresses
        )
        return (*self.addresses, *twins)

    @property
    def mac(self) -> str:
        """A fixed hardware address, made from the first IPv4 address; empty if there is none."""
        if not self.addresses:
            return ""
        return "02:00:" + ":".join(f"{octet:02x}" for octet in self.addresses[0].ip.packed)


@dataclass(frozen=True, slots=True)
class Route:
    to: IPv4Network
    via: IPv4Address


@dataclass(frozen=True, slots=True)
class Masquerade:
    """A NAT: what leaves by ``interface`` gets its address and, if UDP, one of ``ports`` if given.

    With ``inside`` and ``outside``, two prefixes, it translates one for one instead, both ways.
    """

    interface: str
    ports: str = ""  # as "20000-20999"
    inside: str = ""
    outside: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """One host, which becomes one network namespace."""

    name: str
    address: IPv4Address | None  # the one its name resolves to
    interfaces: tuple[Interface, ...]
    routes: tuple[Route, ...]
    forwarding: bool
    bridge: str  # name of the bridge over all its interfaces; empty if it is no bridge
    masquerade: Masquerade | None = None

    def interface_on(self, link: str) -> Interface:
        """The interface on ``link``.  Raises LabError if there is none."""
        for interface in self.interfaces:
            if interface.link == link:
                return interface
        raise LabError(f"{self.name} has no interface on link {link}")


@dataclass(frozen=True, slots=True)
class Topology:
    domain: str
    links: dict[str, str]  # name, what it is
    hosts: dict[str, Host]

    def host(self, name: str) -> Host:
        """Raises LabError, which names the hosts there are."""
        if name not in self.hosts:
            raise LabError(f"no host {name!r}; there are {', '.join(self.hosts)}")
        return self.hosts[name]

    def clients(self, router: str) -> dict[str, str]:
        """The hosts whose default route is ``router``, each with the router's address there."""
        own = {str(a.ip) for i in self.host(router).interfaces for a in i.addresses}
        return {
            host.name: str(route.via)
            for host in self.hosts.values()
            for route in host.routes
            if route.to.prefixlen == 0 and str(route.via) in own
        }

    def address(self, name: str, family: int = 4) -> IPAddress:
        """The address of a host by name, or the address that is written there (IPv4 or IPv6).

        ``bob.4`` and ``bob.6`` are Bob's addresses, whatever ``family`` is.
        """
        host, _, of_family = name.rpartition(".")
        if host in self.hosts and of_family in ("4", "6"):
            return self.address(host, int(of_family))
        if name not in self.hosts:
            try:
                return ip_interface(name).ip
            except ValueError:
                self.host(name)
        address = self.host(name).address
        if address is None:
            raise LabError(f"host {name} has no address")
        return address if family == 4 else twin_address(address)

    def crowd(self, name: str, size: int) -> list[IPv4Address]:
        """``size`` further addresses of a host, from .101 on, in the network of its own one."""
        own = self.host(name).address
        if own is None or not 0 < size <= 150:
            raise LabError(f"{name}: no crowd of {size}")
        network = IPv4Network(f"{own}/24", strict=False)
        return [network[101 + number] for number in range(size)]

    def with_crowd(self, name: str, size: int) -> Topology:
        """The same, but with a crowd of addresses on the interface of a host."""
        host, crowd = self.host(name), self.crowd(name, size)
        interfaces = tuple(
            replace(i, addresses=(*i.addresses, *(IPv4Interface(f"{c}/24") for c in crowd)))
            if host.address in {a.ip for a in i.addresses}
            else i
            for i in host.interfaces
        )
        return replace(self, hosts={**self.hosts, name: replace(host, interfaces=interfaces)})


def load(path: Path, variant: Path | None = None) -> Topology:
    """Read the file; links and hosts of ``variant`` are added, or stand in for their namesakes.

    Raises LabError that names the file and the host.
    """
    table = _read(path)
    if variant is not None:
        other = _read(variant)
        table["links"] |= other.get("links", {})
        entries = {entry["name"]: entry for entry in (*table["host"], *other.get("host", ()))}
        table["host"], path = list(entries.values()), variant
    hosts: dict[str, Host] = {}
    for entry in table["host"]:
        try:
            host = Host(
                name=entry["name"],
                address=IPv4Address(entry["address"]) if "address" in entry else None,
                interfaces=tuple(
                    Interface(
                        name=interface["name"],
                        link=interface.get("link", ""),
                        addresses=tuple(map(IPv4Interface, interface.get("addresses", ()))),
                    )
                    for interface in entry["interfaces"]
                ),
                routes=tuple(
                    Route(IPv4Network(route["to"]), IPv4Address(route["via"]))
                    for route in entry.get("routes", ())
                ),
                forwarding=entry.get("forwarding", False),
                bridge=entry.get("bridge", ""),
                masquerade=Masquerade(**entry["masquerade"]) if "masquerade" in entry else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LabError(f"{path.name}: host {entry.get('name')}: {error}") from error
        for interface in host.interfaces:
            if interface.link and interface.link not in table["links"]:
                raise LabError(f"{path.name}: host {host.name}: no link {interface.link!r}")
        hosts[host.name] = host
    return Topology(domain=table["domain"], links=table["links"], hosts=hosts)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise LabError(f"{path}: {error}") from error
