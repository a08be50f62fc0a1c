"""Reading ``[default]`` and ``[[rule]]``: from tables of a configuration to rules and peers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords import rsakey
from dnsrecords.delegation import refuse_unusable
from dnsrecords.errors import MalformedDelegation, MalformedName, MalformedRsaKey
from dnsrecords.name import normal_fqdn
from ike.events import Encapsulation, Identity
from oegw.configfile import BadValue, Problems, Section, address_of, kind_of, shown
from oegw.peer import ConfiguredPeer
from oegw.settings import default_rule
from policy.errors import PrefixFileError
from policy.flow import IPAddress, IPNetwork
from policy.order import PORTED_PROTOCOLS
from policy.prefixes import PrefixList, read_prefixes
from policy.rule import ANY_PORT, Category, OnFailure, PortRange, Require, Rule, Sst, SstStrength

Prefixes = tuple[IPNetwork, ...] | PrefixList | None

CATEGORIES = {category.value: category for category in Category}
ON_FAILURE = {each.value: each for each in OnFailure}
REQUIRE = {each.value: each for each in Require}
SST = {each.value: each for each in Sst}
SST_STRENGTH = {each.value: each for each in SstStrength}

# IANA "Assigned Internet Protocol Numbers".
PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "ipv6": 41,
    "rsvp": 46,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "eigrp": 88,
    "ospf": 89,
    "pim": 103,
    "vrrp": 112,
    "l2tp": 115,
    "sctp": 132,
    "udplite": 136,
}

MAX_NAME = 64  # characters of a rule's name: it stands in tables and in log lines

ENCAPSULATIONS = {
    each.value: each for each in (Encapsulation.AUTO, Encapsulation.ESP, Encapsulation.UDP)
}

_CONFIGURED_ONLY = ("peer", "peer_key", "peer_identity", "encapsulation")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)


@dataclass(slots=True)
class RuleReader:
    """Reads the rules of one file; ``peers`` fills on the way.

    ``own`` are the gateway's outer addresses, empty if they are found out later.
    """

    directory: Path
    problems: Problems
    own: tuple[IPAddress, ...]
    peers: dict[str, ConfiguredPeer] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _files: dict[Path, PrefixList | None] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of prefixes that the rules name."""
        return tuple(self._files)

    def default(self, values: Any) -> Rule:
        """The rule of ``[default]``."""
        section = Section(values, "default", self.problems)
        category = section.choice("category", Category.OPPORTUNISTIC, CATEGORIES)
        if category is Category.CONFIGURED:
            section.wrong("category", "a default can't be configured: strangers have no peer")
            category = Category.OPPORTUNISTIC
        rule = default_rule(
            category, self._on_failure(section, category), self.problems.place("default")
        )
        rule = self._with_options(section, rule)
        section.end()
        return rule

    def rules(self, values: Any) -> tuple[Rule, ...]:
        """The rules of all ``[[rule]]``; those with faults are in ``problems`` and left out."""
        if not isinstance(values, list):
            self.problems.add(
                "rule", f"must be written [[rule]], in double brackets, not {kind_of(values)}"
            )
            return ()
        rules = (self._rule(number, each) for number, each in enumerate(values, 1))
        return tuple(rule for rule in rules if rule is not None)

    def _rule(self, number: int, values: Any) -> Rule | None:
        if not isinstance(values, dict):
            self.problems.add(f"rule[{number}]", f"must be a table, not {kind_of(values)}")
            return None
        faults = len(self.problems)
        section = Section(values, f"rule[{number}]", self.problems)
        name = self._name(section)
        category = self._category(section)
        source = self._prefixes(section, "source")
        destination = self._prefixes(section, "destination")
        protocol = self._protocol(section)
        rule = Rule(
            name,
            category,
            source,
            destination,
            protocol,
            _ports(section, "source_ports", protocol),
            _ports(section, "destination_ports", protocol),
            self._on_failure(section, category),
            section.truth("override", False),
            self.problems.place(f"rule[{number}]"),
        )
        rule = self._with_options(section, rule)
        if category is Category.CONFIGURED:
            self._configured(section, rule)
        else:
            for key in _CONFIGURED_ONLY:
                if section.raw(key) is not None:
                    section.wrong(key, "is for rules of category configured only")
        section.end()
        return rule if len(self.problems) == faults else None

    def _name(self, section: Section) -> str:
        if "name" not in section:
            section.wrong("name", "is missing: each rule needs a name of its own")
        name = section.text("name")
        if name is None:
            return ""
        if len(name) > MAX_NAME:
            section.wrong("name", f"{shown(name)} has more than {MAX_NAME} characters")
        elif name == "default" or name.startswith("built-in"):
            section.wrong("name", f"{shown(name)} is the name of a rule that every gateway has")
        elif name in self._names:
            section.wrong("name", f"another rule is named {shown(name)}")
        self._names.add(name)
        return name

    def _category(self, section: Section) -> Category:
        if "category" not in section:
            section.wrong("category", f"is missing: it is one of {', '.join(CATEGORIES)}")
        return section.choice("category", Category.DENY, CATEGORIES)

    def _with_options(self, section: Section, rule: Rule) -> Rule:
        """The rule with what only one category can say."""
        opportunistic = ("initiate", "require", "relax")
        self._only_for(section, rule.category, Category.OPPORTUNISTIC, *opportunistic)
        self._only_for(section, rule.category, Category.DENY, "icmp")
        rule = self._with_sst(section, rule)
        return replace(
            rule,
            initiate=section.truth("initiate", True),
            icmp=section.truth("icmp", False),
            require=section.choice("require", Require.ANY, REQUIRE),
            relax=section.truth("relax", False),
        )

    def _with_sst(self, section: Section, rule: Rule) -> Rule:
        """The rule with what it says of port encryption; a fault if that can't work."""
        sst = section.choice("sst", Sst.OFF, SST)
        strength = section.choice("sst_strength", SstStrength.OPPORTUNISTIC, SST_STRENGTH)
        if (reason := _unusable_sst(rule, sst)) is not None:
            section.wrong("sst", reason)
        if rule.category is Category.DENY:
            self._only_for(section, rule.category, Category.OPPORTUNISTIC, "sst_strength")
        return replace(rule, sst=sst, sst_strength=strength)

    def _only_for(self, section: Section, category: Category, meant: Category, *keys: str) -> None:
        # A category that could not be read says nothing about what belongs beside it.
        readable = section.raw("category", Category.OPPORTUNISTIC.value) == category.value
        for key in keys:
            if key in section and readable and category is not meant:
                section.wrong(key, f"is for category {meant.value} only")

    def _on_failure(self, section: Section, category: Category) -> OnFailure:
        on_failure = section.choice("on_failure", OnFailure.CLEAR, ON_FAILURE)
        self._only_for(section, category, Category.OPPORTUNISTIC, "on_failure")
        return on_failure

    def _prefixes(self, section: Section, key: str) -> Prefixes:
        networks = section.networks(key)
        file = section.path_relative_to(self.directory, f"{key}_file", None)
        if file is None:
            return networks
        if networks is not None:
            section.wrong(f"{key}_file", f"give either {key} or {key}_file")
            return networks
        if file not in self._files:
            try:
                self._files[file] = read_prefixes(file)
            except PrefixFileError as error:
                self._files[file] = None
                for line in str(error).splitlines():
                    section.wrong(f"{key}_file", line)
        return self._files[file]

    def _protocol(self, section: Section) -> int | None:
        value = section.raw("protocol")
        if value is None:
            return None
        try:
            return protocol_of(value)
        except BadValue as error:
            section.wrong("protocol", str(error))
            return None

    def _configured(self, section: Section, rule: Rule) -> None:
        networks: list[IPNetwork] = []
        for key in ("source", "destination"):
            if f"{key}_file" in section:
                section.wrong(f"{key}_file", f"a configured rule has one {key} prefix, not a list")
                continue
            prefixes = getattr(rule, key)
            if prefixes is None or len(prefixes) != 1:
                given = "none" if prefixes is None else str(len(prefixes))
                section.wrong(key, f"a configured rule has exactly one {key} prefix, not {given}")
            else:
                networks.append(prefixes[0])
        if len(networks) == 2 and networks[0].version != networks[1].version:
            section.wrong("destination", "is of another address family than source")
        for key, ports in (
            ("source_ports", rule.source_ports),
            ("destination_ports", rule.destination_ports),
        ):
            if ports != ANY_PORT and ports.width > 1:
                section.wrong(key, "a configured rule has one port: IKEv1 can't agree on a range")
        for key in ("peer", "peer_key"):
            if key not in section:
                section.wrong(key, "is missing: a configured rule needs it")
        faults = len(self.problems)
        address = self._peer_address(section)
        public_key = self._peer_key(section)
        identity = read_identity(section, "peer_identity")
        encapsulation = section.choice("encapsulation", None, dict[str, Any](ENCAPSULATIONS))
        if section.raw("peer") == "any" and identity is None:
            section.wrong("peer_identity", 'is missing: a peer "any" needs a name to be known by')
        if len(self.problems) != faults or not {"peer", "peer_key"} <= section.keys():
            return
        if identity is None and isinstance(address, str):
            identity = address
        self.peers[rule.name] = ConfiguredPeer(address, public_key, identity, encapsulation)

    def _peer_key(self, section: Section) -> rsa.RSAPublicKey | None:
        """The key; None for ``"dns"``."""
        text = section.text("peer_key")
        if text is None or text == "dns":
            return None
        try:
            return rsakey.parse_text(text)
        except MalformedRsaKey as error:
            section.wrong("peer_key", f'{error}; give a key, or "dns"')
            return None

    def _peer_address(self, section: Section) -> IPAddress | str | None:
        """An address or a domain name; None for ``"any"``."""
        word = section.text("peer")
        if word is None or word == "any":
            return None
        if any(c not in "0123456789.:" for c in word) and ":" not in word:
            try:
                name = normal_fqdn(word)
                if "." not in name:  # most likely a word that means something else
                    raise MalformedName(f"{shown(word)} is no full domain name")
                return name
            except MalformedName as error:
                section.wrong("peer", f'{error}; give an address, a domain name, or "any"')
                return None
        try:
            address = address_of(word)
        except BadValue as error:
            section.wrong("peer", f'{error}; give an address, a domain name, or "any"')
            return None
        if (reason := unusable_gateway(address)) is not None:
            section.wrong("peer", reason)
        elif address in self.own:
            section.wrong("peer", f"{address} is this gateway's own address")
        elif self.own and all(address.version != own.version for own in self.own):
            section.wrong("peer", f"gateway.addresses has no IPv{address.version} address")
        return address


def _unusable_sst(rule: Rule, sst: Sst) -> str | None:
    """Why traffic of ``rule`` can't have its ports encrypted at this place, or None."""
    if sst is Sst.OFF:
        return None
    if rule.category is Category.DENY:
        return "what is denied has no ports to hide"
    if sst is Sst.ONLY:
        if rule.category is Category.CONFIGURED:
            return '"only" hides ports and encrypts nothing: a configured rule promises more'
        if rule.on_failure is OnFailure.DROP:
            return '"only" hides ports and encrypts nothing: on_failure = "drop" promises more'
        return None
    if rule.category is Category.PERMIT:
        return f'"{sst.value}" needs a tunnel, which a permit rule never has; "only" needs none'
    if sst is Sst.INNER and (rule.source_ports, rule.destination_ports) != (ANY_PORT, ANY_PORT):
        return 'with "inner" a rule can\'t name ports: the tunnel could not know them again'
    return None


def unusable_gateway(address: IPAddress) -> str | None:
    """Why no gateway can have ``address``, or None."""
    try:
        refuse_unusable(address)
    except MalformedDelegation as error:
        return str(error).removeprefix("gateway ")
    return None


def identity_of(word: str) -> Identity:
    """``@`` and a domain name, or an address.  Raises BadValue."""
    if word.startswith("@"):
        try:
            return normal_fqdn(word[1:])
        except MalformedName as error:
            raise BadValue(str(error)) from None
    try:
        return address_of(word)
    except BadValue:
        raise BadValue(f"{shown(word)} is neither @ and a domain name nor an address") from None


def read_identity(section: Section, key: str) -> Identity | None:
    """The identity at ``key``; None without it."""
    word = section.text(key)
    if word is None:
        return None
    try:
        return identity_of(word)
    except BadValue as error:
        section.wrong(key, str(error))
        return None


def protocol_of(value: object) -> int:
    """The number of an upper-layer protocol, from its name or number.  Raises BadValue."""
    if isinstance(value, str):
        if value.lower() in PROTOCOLS:
            return PROTOCOLS[value.lower()]
        if not re.fullmatch(r"[0-9]{1,3}", value, re.ASCII):
            raise BadValue(
                f"{shown(value)} is not a protocol: give its number, or one of "
                f"{', '.join(PROTOCOLS)}"
            )
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadValue(f"must be a protocol's name or number, not {kind_of(value)}")
    if not 0 <= value <= 255:
        raise BadValue("a protocol's number is within 0 to 255")
    return value


def _ports(section: Section, key: str, protocol: int | None) -> PortRange:
    value = section.raw(key)
    if value is None:
        return ANY_PORT
    try:
        ports = ports_of(value)
    except BadValue as error:
        section.wrong(key, str(error))
        return ANY_PORT
    if protocol is not None and protocol not in PORTED_PROTOCOLS:
        section.wrong(key, f"protocol {protocol} has no ports")
    return ports


def ports_of(value: object) -> PortRange:
    """A port or a range of them: ``80``, ``"80"``, ``"80-89"``.  Raises BadValue."""
    if isinstance(value, str) and (match := _PORTS.fullmatch(value)):
        first, last = int(match[1]), int(match[2] or match[1])
    elif isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    else:
        raise BadValue(f'must be a port or a range as "1000-2000", not {kind_of(value)}')
    if not (0 <= first <= 65535 and 0 <= last <= 65535):
        raise BadValue("ports are within 0 to 65535")
    if first > last:
        raise BadValue(f"the range begins at {first}, after its end {last}")
    return PortRange(first, last)
