"""Reading ``[moniker]``: from a table of a configuration to the settings of the daemon.

[moniker]                port, addresses, socket, private_key, listing, clear, lease, queries,
                         services
[[moniker.grant]]        user, service, namespace
[[moniker.rule]]         allow, service, namespace, clients, hosts, encrypted
[[moniker.host]]         name, addresses, key, namespaces, leases, port
[moniker.gateway]        address, key, port
[moniker.firewall]       deny, outside, tunnel, allow, keep
[moniker.client]         encrypt
[[moniker.client.rule]]  as [[moniker.rule]]
[moniker.export]         zone, listen, multicast, public, host
[[moniker.export.peer]]  name, address, key, port, inside
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from dnsrecords.errors import MalformedName, RecordError
from dnsrecords.name import normal_fqdn
from dnsrecords.sstkey import check_encoding
from oegw.configfile import BadValue, Problems, Section, address_of, shown
from oegw.moniker.localwire import MAX_LINE_OCTETS, policy_object
from oegw.moniker.names import SYSTEM, InvalidName, canonical
from oegw.moniker.settings import (
    ClientSettings,
    ExportSettings,
    FirewallSettings,
    Found,
    GatewayInFront,
    Grant,
    HostSettings,
    MonikerSettings,
    ServiceRule,
)
from policy.flow import IPAddress

# Our choices.
MAX_PATTERN = 255
DAY = 86400
ROOM = 1024  # octets of an answer beside the rules that it is about
ANY = "*"
SYSTEM_WORD = "-"  # what the system's namespace is called where a namespace is written

_USER = re.compile(r"@?[A-Za-z_][A-Za-z0-9_.-]{0,63}\$?", re.ASCII)
_PLACE = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What other tables say that is ours, too, unless we say something else."""

    private_key: Path | None = None  # [sst]
    outside: tuple[str, ...] = ()  # [interfaces]
    tunnel: str = FirewallSettings().tunnel  # [datapath] tunnel_interface


def read_moniker(
    values: Any, directory: Path, problems: Problems, elsewhere: Elsewhere | None = None
) -> MonikerSettings:
    """The settings of the table ``moniker``, whose value in the file is ``values``, None if it is
    not there; what is wrong is in ``problems``.

    Relative paths start at ``directory``.
    """
    elsewhere = elsewhere or Elsewhere()
    default = MonikerSettings()
    section = Section({} if values is None else values, "moniker", problems)
    settings = MonikerSettings(
        values is not None,
        section.integer("port", default.port, 1, 65535),
        _own_addresses(section),
        section.socket_path(directory, "socket", default.socket),
        section.path_relative_to(directory, "private_key", elsewhere.private_key),
        section.choice("listing", default.listing, {"local": "local", "all": "all"}),
        section.choice("clear", default.clear, {"local": "local", "all": "all"}),
        section.integer("lease", default.lease, 1, DAY),
        section.seconds("queries", default.queries, 0.1, 1_000_000),
        section.integer("services", default.services, 1, 65536),
        section.tables("grant", _grant),
        section.tables("rule", _rule),
        _hosts(section),
        _gateway(section),
        _firewall(section, elsewhere),
        _client(section),
        _export(section, directory),
    )
    _refuse_what_needs_a_key(section, settings)
    section.end()
    return settings


def _refuse_what_needs_a_key(section: Section, settings: MonikerSettings) -> None:
    """What can't work without this host's own key."""
    if settings.private_key is not None:
        return
    if settings.gateway is not None:
        section.wrong("private_key", "is missing: the gateway knows this host by its key")
    if any(host.key is not None for host in settings.hosts):
        section.wrong("private_key", "is missing: hosts that ask for ports know us by our key")
    if settings.clear == "local":
        section.wrong("private_key", 'is missing: with clear = "local" nobody could be answered')


def _own_addresses(section: Section) -> tuple[IPAddress, ...]:
    found = section.addresses("addresses")
    for address in found:
        if address.is_multicast or (address.is_unspecified and len(found) > 1):
            section.wrong("addresses", f"{address} is no address to listen on")
    return tuple(address for address in found if not address.is_unspecified)


# ------------------------------------------------------------------- who may do what


def _grant(table: Section) -> Grant | None:
    user = _needed(table, "user", "who may register? A user, or @ and a group")
    if user is not None and not _USER.fullmatch(user):
        table.wrong("user", f"{shown(user)} is neither a user's name nor @ and a group's")
    namespace = table.text("namespace")
    if namespace in (None, SYSTEM_WORD):
        namespace = SYSTEM
    else:
        namespace = _name(table, "namespace", namespace or "")
    service = _pattern(table, "service")
    return None if user is None else Grant(user, service, namespace)


def _rule(table: Section) -> ServiceRule | None:
    if "allow" not in table:
        table.wrong("allow", "is missing: true, or false for what is denied")
    return ServiceRule(
        table.truth("allow", False),
        _pattern(table, "service"),
        _pattern(table, "namespace"),
        table.networks("clients") or (),
        table.networks("hosts") or (),
        table.truth("encrypted", False),
        table.path,
    )


def _pattern(table: Section, key: str) -> str:
    """A name with ``*`` and ``?`` in it, as names are compared; ``*`` without the key."""
    word = table.text(key)
    if word is None or (key == "namespace" and word == SYSTEM_WORD):
        return word or ANY
    if len(word.encode()) > MAX_PATTERN:
        table.wrong(key, f"is longer than {MAX_PATTERN} octets")
        return ANY
    try:
        canonical(word.replace("*", "x").replace("?", "x"), key)
    except InvalidName:
        table.wrong(key, f"{shown(word)} can't be the pattern of a name")
        return ANY
    return word.casefold()


def _name(table: Section, key: str, word: str) -> str:
    try:
        return canonical(word, key)
    except InvalidName:
        table.wrong(key, f"{shown(word)} can't be a name")
        return SYSTEM


def _needed(table: Section, key: str, question: str) -> str | None:
    if key not in table:
        table.wrong(key, f"is missing: {question}")
    return table.text(key)


# ----------------------------------------------------------------- hosts and gateways


def _hosts(section: Section) -> tuple[HostSettings, ...]:
    hosts = section.tables("host", _host)
    names: dict[str, HostSettings] = {}
    namespaces: dict[str, HostSettings] = {}
    keys: dict[bytes, HostSettings] = {}
    addresses: dict[IPAddress, HostSettings] = {}
    for host in hosts:
        if names.setdefault(host.name, host) is not host:
            section.wrong("host", f"two hosts have the name {shown(host.name)}")
        for namespace in host.namespaces:
            if namespaces.setdefault(namespace, host) is not host:
                section.wrong("host", f"two hosts have the namespace {shown(namespace)}")
        for address in host.addresses:
            if addresses.setdefault(address, host) is not host:
                section.wrong("host", f"two hosts have the address {address}")
        if host.key is not None and keys.setdefault(host.key, host) is not host:
            section.wrong("host", f"{host.name!r} has the key of {keys[host.key].name!r}")
    return hosts


def _host(table: Section) -> HostSettings | None:
    default = HostSettings("", ())
    name = _needed(table, "name", "what is it called in logs?")
    if "addresses" not in table:
        table.wrong("addresses", "is missing: which addresses are the host's?")
    addresses = table.addresses("addresses")
    for address in addresses:
        if address.is_multicast or address.is_unspecified:
            table.wrong("addresses", f"{address} is not the address of a host")
    namespaces = [_name(table, "namespaces", word) for _, word in table.texts("namespaces") or ()]
    return HostSettings(
        name or "",
        addresses,
        _key(table, "key"),
        tuple(dict.fromkeys(namespaces)),
        table.integer("leases", default.leases, 1, 65536),
        table.integer("port", default.port, 1, 65535),
    )


def _gateway(section: Section) -> GatewayInFront | None:
    if "gateway" not in section:
        return None
    table = section.subsection("gateway")
    if "address" not in table:
        table.wrong("address", "is missing: where is the gateway, on our side?")
    address = table.address("address")
    if address is not None and (address.is_multicast or address.is_unspecified):
        table.wrong("address", f"{address} is not the address of a gateway")
    key = None if table.raw("key") == "dns" else _key(table, "key")
    port = table.integer("port", MonikerSettings().port, 1, 65535)
    table.end()
    return None if address is None else GatewayInFront(address, key, port)


def _key(table: Section, key: str) -> bytes | None:
    """The 32 octets of an X25519 public key, in base64 as `oegw sst keygen` prints it."""
    word = table.text(key)
    if word is None:
        return None
    try:
        octets = base64.b64decode(word, validate=True)
        check_encoding(octets)
    except (binascii.Error, ValueError, RecordError):
        table.wrong(key, f"{shown(word)} is no X25519 public key; oegw sst keygen prints it")
        return None
    return octets


# ------------------------------------------------------- firewall, applications, export


def _firewall(section: Section, elsewhere: Elsewhere) -> FirewallSettings:
    default = FirewallSettings()
    table = section.subsection("firewall")
    settings = FirewallSettings(
        table.truth("deny", default.deny),
        table.interfaces("outside") or elsewhere.outside,
        table.interface("tunnel") or elsewhere.tunnel,
        tuple(word for _, word in table.texts("allow") or ()),
        table.truth("keep", default.keep),
    )
    table.end()
    return settings


def _client(section: Section) -> ClientSettings:
    default = ClientSettings()
    table = section.subsection("client")
    words = {word: word for word in ("never", "prefer", "require")}
    settings = ClientSettings(
        table.tables("rule", _rule), table.choice("encrypt", default.encrypt, words)
    )
    if len(json.dumps(policy_object(settings))) > MAX_LINE_OCTETS - ROOM:
        reason = f"the rules are longer than {MAX_LINE_OCTETS - ROOM} octets in all"
        table.wrong("rule", f"{reason}: applications could not read them")
        settings = default
    table.end()
    return settings


def _export(section: Section, directory: Path) -> ExportSettings:
    default = ExportSettings()
    table = section.subsection("export")
    peers = table.tables("peer", lambda peer: _peer(peer, directory))
    settings = ExportSettings(
        _zone(table, "zone"),
        tuple(
            place for where, word in table.texts("listen") or ()
            if (place := _place(table, where, word)) is not None
        ),
        table.interfaces("multicast"),
        table.truth("public", default.public),
        peers,
        _zone(table, "host"),
    )  # fmt: skip
    if settings.listen and "zone" not in table:
        table.wrong("zone", "is missing: below which name are the services that are told?")
    table.end()
    return settings


def _peer(table: Section, directory: Path) -> Found | None:
    if "name" not in table:
        table.wrong("name", "is missing: below which zone does it tell its services?")
    if "address" not in table:
        table.wrong("address", "is missing: where is it asked?")
    if "key" not in table:
        table.wrong("key", "is missing: the file of the TSIG key that both have")
    name = _zone(table, "name")
    address = table.address("address")
    key = table.path_relative_to(directory, "key", None)
    port = table.integer("port", 5300, 1, 65535)
    inside = table.truth("inside", False)
    if name is None or address is None or key is None:
        return None
    return Found(name, address, key, port, inside)


def _zone(table: Section, key: str) -> str | None:
    word = table.text(key)
    try:
        return None if word is None else normal_fqdn(word)
    except MalformedName as error:
        table.wrong(key, str(error))
        return None


def _place(table: Section, where: str, word: str) -> tuple[IPAddress, int] | None:
    """``192.0.2.1:53`` or ``[2001:db8::1]:53``; an address alone has port 53."""
    found = _PLACE.fullmatch(word)
    try:
        if found is None:
            address, port = address_of(word), 53
        else:
            address = IPv6Address(found["six"]) if found["six"] else IPv4Address(found["four"])
            port = int(found["port"])
    except (BadValue, ValueError):
        table.wrong_place(where, f"{shown(word)} is not an address, with or without a port")
        return None
    if not 1 <= port <= 65535:
        table.wrong_place(where, "a port is within 1 to 65535")
        return None
    return address, port
