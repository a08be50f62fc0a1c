"""From ``oegw.toml`` to settings.  The only module that reads TOML.

``load`` reports every fault at once, each with file and key path.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from dnsrecords.errors import MalformedName
from dnsrecords.name import normal_fqdn
from dnsrecords.reading import RECORD_KINDS
from ike.v1.suites import NAMED_CHANNEL_SUITES, NAMED_TUNNEL_SUITES
from oegw.assurance import UnsignedDelegation
from oegw.configaudit import read_audit
from oegw.configdecisions import read_decision_points
from oegw.configfile import ConfigError, Problems, Section, host_of, kind_of, shown, suggestion
from oegw.configmanagement import read_management
from oegw.configmoniker import Elsewhere, read_moniker
from oegw.confignat import read_nat
from oegw.configparts import Origins, Part, Text, directory_of, merged, read_texts
from oegw.configrules import ENCAPSULATIONS, RuleReader, read_identity, unusable_gateway
from oegw.configsocks import read_socks
from oegw.configsst import read_sst, refuse_a_circle, refuse_what_is_off
from oegw.datapath.userspace.core.choice import WANTED
from oegw.datapath.userspace.settings import MOST_WORKERS
from oegw.gateways import Choice, MultihomingSettings
from oegw.ledger import Lifespans
from oegw.settings import (
    DEFAULT_CONFIG,
    DatapathSettings,
    DnsSettings,
    GatewaySettings,
    IkeSettings,
    InterceptOptions,
    InterfacesSettings,
    PublishSettings,
    Settings,
)

__all__ = [
    "DEFAULT_CONFIG",
    "ConfigError",
    "DatapathSettings",
    "DnsSettings",
    "GatewaySettings",
    "IkeSettings",
    "InterceptOptions",
    "InterfacesSettings",
    "PublishSettings",
    "Settings",
    "control_socket",
    "examine",
    "examine_values",
    "load",
    "load_texts",
    "merged_values",
    "moniker_socket",
    "parse",
    "socks_socket",
]

VERSION = 1

# Our choices.
WEEK = 7 * 86400
OTHER_ASSURANCE_MASK = 0x300000  # where mark_mask has bits of the usual one
OTHER_ENCRYPTED_MARK = 0x40000000  # where one of them has the usual one
SMALLEST_BYTES = 100_000  # octets of a lifetime
PROFILES = ("modern", "draft")
PFS = {word: word for word in ("required", "optional", "off")}
UNSIGNED_DELEGATION = {each.value: each for each in UnsignedDelegation}
RECORDS = tuple(kind.lower() for kind in RECORD_KINDS)
DATAPATHS = {word: word for word in ("auto", "kernel", "userspace")}
CORES = {word: word for word in WANTED}
_SECTIONS = (
    *("gateway", "interfaces", "dns", "ike", "datapath", "intercept", "lifespans", "multihoming"),
    *("publish", "sst", "management"),
)
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")  # useradd(8)


def load(path: Path) -> Settings:
    """The settings in the file at ``path`` and in those of the directory beside it; relative paths
    in a file start at its directory.

    Raises ConfigError.
    """
    return _faultless(*examine(path))


def load_texts(texts: Sequence[Text]) -> Settings:
    """The settings in files that were read before, the main one first.  Raises ConfigError."""
    return _faultless(*_examine_texts(tuple(texts)))


def parse(text: str, path: Path) -> Settings:
    """The settings in ``text``, as if it were the file at ``path``.  Raises ConfigError."""
    return _faultless(*examine_values(_parse(text, path), path))


def _faultless(settings: Settings, problems: tuple[str, ...]) -> Settings:
    if problems:
        raise ConfigError(problems)
    return settings


def examine(path: Path) -> tuple[Settings, tuple[str, ...]]:
    """What can be understood of the files of the configuration at ``path``, and all that is wrong
    with them.

    In the settings, wrong values have their defaults and wrong rules are left
    out.  Raises ConfigError for files that can't be read as TOML, or don't fit together.
    """
    return _examine_texts(read_texts(path))


def _examine_texts(texts: tuple[Text, ...]) -> tuple[Settings, tuple[str, ...]]:
    values, origins = _merged(texts)
    path = texts[0][0]
    settings, problems = examine_values(values, path, origins)
    others = tuple(each for each, _ in texts[1:])
    files = (*settings.files, directory_of(path), *others)
    return replace(settings, files=files, texts=texts), problems


def merged_values(texts: Sequence[Text]) -> dict[str, Any]:
    """The tables of these files, as TOML has them.  Raises ConfigError."""
    return _merged(texts)[0]


def _merged(texts: Sequence[Text]) -> tuple[dict[str, Any], Origins]:
    return merged([Part(path, text, _parse(text, path)) for path, text in texts])


def control_socket(path: Path) -> Path:
    """Where the gateway of this configuration listens to its operator.

    Only this one key is judged: a gateway must be reachable while its
    configuration is being edited.  Raises ConfigError.
    """
    values, problems = _tables(path)
    values = values.get("gateway", {})
    section = Section(values, "gateway", problems)
    found = _control_socket(section, path.parent)
    if problems.lines():
        raise ConfigError(problems.lines())
    return found


def moniker_socket(path: Path) -> Path:
    """Where the daemon of this configuration listens to applications of its host; as
    `control_socket`.  Raises ConfigError."""
    values, problems = _tables(path)
    return read_moniker(values.get("moniker"), path.parent, problems).socket


def socks_socket(path: Path) -> Path:
    """Where the SOCKS server of this configuration says how it is; as `control_socket`.

    Raises ConfigError."""
    values, problems = _tables(path)
    return read_socks(values.get("socks"), path.parent, problems).socket


def _tables(path: Path) -> tuple[dict[str, Any], Problems]:
    values, origins = _merged(read_texts(path))
    return values, Problems(str(path), origins)


def examine_values(
    values: dict[str, Any], path: Path, origins: Origins | None = None
) -> tuple[Settings, tuple[str, ...]]:
    """As ``examine``, for the tables ``values`` of the file at ``path``."""
    problems = Problems(str(path), origins)
    top = Section(values, "", problems)
    if not _version_known(top):  # the other keys may mean something else there
        raise ConfigError(problems.lines())
    sections = {}
    for name in _SECTIONS:
        sections[name] = Section(top.raw(name, {}), name, problems)
    gateway = _gateway(sections["gateway"], path.parent)
    rules = RuleReader(path.parent, problems, gateway.addresses)
    settings = Settings(
        gateway=gateway,
        interfaces=_interfaces(sections["interfaces"]),
        dns=_dns(sections["dns"]),
        ike=_ike(sections["ike"]),
        datapath=_datapath(sections["datapath"]),
        intercept=_intercept(sections["intercept"]),
        lifespans=_lifespans(sections["lifespans"]),
        publish=_publish(sections["publish"], path.parent),
        multihoming=_multihoming(sections["multihoming"]),
        decision_points=read_decision_points(top.raw("decision_point", []), path.parent, problems),
        default=rules.default(top.raw("default", {})),
        rules=rules.rules(top.raw("rule", [])),
        peers=rules.peers,
        files=rules.files,
        nat=read_nat(top.raw("nat", []), problems),
        management=read_management(sections["management"]),
        audit=read_audit(top.raw("audit"), path.parent, problems),
    )
    intercept = settings.intercept
    taken = intercept.mark_mask | intercept.assurance_mask | intercept.encrypted_mark
    sst = read_sst(sections["sst"], path.parent, taken, intercept.queue)
    tunnel = settings.datapath.tunnel_interface
    elsewhere = Elsewhere(sst.private_key, settings.interfaces.outside, tunnel)
    moniker = read_moniker(top.raw("moniker"), path.parent, problems, elsewhere)
    socks = read_socks(top.raw("socks"), path.parent, problems, settings.interfaces.outside)
    settings = replace(settings, sst=sst, moniker=moniker, socks=socks)
    refuse_what_is_off(sections["sst"], sst, (*settings.rules, settings.default))
    refuse_a_circle(sections["sst"], sst, settings.dns.resolvers)
    if settings.datapath.tunnel_interface in settings.interfaces.outside:
        sections["datapath"].wrong("tunnel_interface", "is one of interfaces.outside")
    for section in (top, *sections.values()):
        section.end()
    return settings, problems.lines()


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: {error}"]) from error
    except ValueError:
        raise ConfigError([f"{path}: there is a number with thousands of digits"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: brackets are nested too deep"]) from None


def _version_known(top: Section) -> bool:
    version = top.raw("version")
    if version is None:
        top.wrong("version", f"is missing: write version = {VERSION} in front")
    elif not isinstance(version, int) or isinstance(version, bool):
        top.wrong("version", f"must be a whole number, not {kind_of(version)}")
    elif version != VERSION:
        top.wrong("version", f"this oegw reads version {VERSION} only")
        return False
    return True


def _gateway(section: Section, directory: Path) -> GatewaySettings:
    default = GatewaySettings()
    addresses = section.addresses("addresses")
    for address in addresses:
        if (reason := unusable_gateway(address)) is not None:
            section.wrong("addresses", reason)
    for family in (4, 6):
        if sum(address.version == family for address in addresses) > 1:
            section.wrong("addresses", f"has more than one IPv{family} address")
    identity = read_identity(section, "identity")
    if identity is not None and not isinstance(identity, str):
        section.wrong("identity", "is an address: leave the key out, or give @ and a domain name")
        identity = None
    fqdn = _fqdn(section)
    if None not in (fqdn, identity) and fqdn != identity:
        section.wrong("fqdn", "is another name than identity, which is the one that counts")
    key = section.path_relative_to(directory, "private_key", default.private_key)
    trace = section.path_relative_to(directory, "trace", None)
    control = _control_socket(section, directory)
    state = section.path_relative_to(directory, "state", default.state) or default.state
    for name, path in (("private_key", key), ("control_socket", control), ("trace", trace)):
        if state == path:
            section.wrong("state", f"is the file of {name}, too; it needs one of its own")
    key = key or default.private_key
    watch = section.seconds("watch", default.watch, 0, 3600)
    user = section.text("user")
    if user is not None and _USER.fullmatch(user) is None:
        section.wrong("user", f"{user!r} is no name of a user")
    return GatewaySettings(addresses, identity, key, control, trace, state, fqdn, watch, user)


def _fqdn(section: Section) -> str | None:
    """A domain name; the @ of an identity may stand before it."""
    word = section.text("fqdn")
    try:
        return None if word is None else normal_fqdn(word.removeprefix("@"))
    except MalformedName as error:
        section.wrong("fqdn", str(error))
        return None


def _control_socket(section: Section, directory: Path) -> Path:
    return section.socket_path(directory, "control_socket", GatewaySettings().control_socket)


def _interfaces(section: Section) -> InterfacesSettings:
    return InterfacesSettings(section.interfaces("outside"))


def _dns(section: Section) -> DnsSettings:
    default = DnsSettings()
    resolvers = section.addresses("resolvers")
    for address in resolvers:
        if address.is_unspecified or address.is_multicast:
            section.wrong("resolvers", f"{address} is not the address of a server")
    trusted = section.addresses("trusted")
    for address in trusted:
        if resolvers and address not in resolvers:
            section.wrong("trusted", f"{address} is not one of dns.resolvers")
    return DnsSettings(
        resolvers,
        section.seconds("timeout", default.timeout, 0.01, 60),
        section.integer("tries", default.tries, 1, 20),
        section.networks("local_reverse") or (),
        section.truth("check_own", default.check_own),
        trusted,
        section.choice("unsigned_delegation", default.unsigned_delegation, UNSIGNED_DELEGATION),
        _record_kinds(section),
        section.integer("questions_per_second", default.questions_per_second, 1, 100_000),
    )


def _record_kinds(section: Section) -> tuple[str, ...]:
    named = section.texts("records")
    if named is None:
        return DnsSettings().records
    for place, name in named:
        if name not in RECORDS:
            section.wrong_place(place, f"{shown(name)} is not one of {', '.join(RECORDS)}")
    kinds = dict.fromkeys(name for _, name in named if name in RECORDS)
    return tuple(kinds) or DnsSettings().records


def _ike(section: Section) -> IkeSettings:
    default = IkeSettings()
    profiles = section.texts("profiles")
    for place, name in profiles or ():
        if name not in PROFILES:
            section.wrong_place(place, f"{shown(name)} is not one of {', '.join(PROFILES)}")
    if [name for _, name in profiles or ()][:2] == ["draft", "modern"]:
        section.wrong("profiles", "modern comes before draft: two of ours must not end on draft")
    settings = IkeSettings(
        default.profiles if not profiles else tuple(name for _, name in profiles),
        section.integer("channel_lifetime", default.channel_lifetime, 10, WEEK),
        section.integer("tunnel_lifetime", default.tunnel_lifetime, 10, WEEK),
        section.seconds("retransmit_first", default.retransmit_first, 0.01, 60),
        section.integer("retransmit_tries", default.retransmit_tries, 1, 20),
        section.integer("half_open_limit", default.half_open_limit, 1, 1_000_000),
        section.integer("half_open_per_source", default.half_open_per_source, 1, 1_000_000),
        _proposals(section, "channel_proposals", NAMED_CHANNEL_SUITES),
        _proposals(section, "tunnel_proposals", NAMED_TUNNEL_SUITES),
        section.choice("pfs", default.pfs, PFS),
        section.integer("channel_bytes", 0, 0, 1 << 50) or None,
        section.integer("tunnel_bytes", 0, 0, 1 << 50) or None,
        section.seconds("keepalive_interval", default.keepalive_interval, 1, 3600),
        section.seconds("dpd_interval", default.dpd_interval, 0, 3600),
        section.integer("dpd_tries", default.dpd_tries, 1, 100),
    )
    for key in ("channel_bytes", "tunnel_bytes"):
        if 0 < (getattr(settings, key) or 0) < SMALLEST_BYTES:
            section.wrong(key, f"is less than {SMALLEST_BYTES}: the tunnel would do nothing else")
    if settings.half_open_per_source > settings.half_open_limit:
        section.wrong("half_open_per_source", "is larger than half_open_limit")
    return settings


def _proposals(section: Section, key: str, known: Collection[str]) -> tuple[str, ...]:
    names = section.texts(key) or []
    for place, name in names:
        if name not in known:
            example = next(iter(known))
            reason = f"{shown(name)} is no proposal, such as {shown(example)}"
            section.wrong_place(place, reason + suggestion(name, known))
    return tuple(name for _, name in names)


def _datapath(section: Section) -> DatapathSettings:
    default = DatapathSettings()
    name = section.interface("tunnel_interface") or default.tunnel_interface
    return DatapathSettings(
        section.choice("datapath", default.datapath, DATAPATHS),
        section.choice("encapsulation", default.encapsulation, ENCAPSULATIONS),
        name,
        section.integer("replay_window", default.replay_window, 32, 65536),
        section.integer("interface_id", default.interface_id, 1, 0xFFFFFFFF),
        section.choice("core", default.core, CORES),
        section.truth("offloads", default.offloads),
        section.integer("workers", default.workers, 0, MOST_WORKERS),
    )


def _intercept(section: Section) -> InterceptOptions:
    default = InterceptOptions()
    mask, assurance = (
        section.integer(key, getattr(default, key), 1, 0xFFFFFFFF)
        for key in ("mark_mask", "assurance_mask")
    )
    if "assurance_mask" not in section and mask & assurance:
        assurance = OTHER_ASSURANCE_MASK
    for key, value in (("mark_mask", mask), ("assurance_mask", assurance)):
        if value != (value & -value) * 3:
            section.wrong(key, f"0x{value:x} is not exactly two neighbouring bits, such as 0x30000")
    if mask & assurance:
        section.wrong("assurance_mask", "has bits of mark_mask")
    encrypted = section.integer("encrypted_mark", default.encrypted_mark, 1, 0xFFFFFFFF)
    if "encrypted_mark" not in section and encrypted & (mask | assurance):
        encrypted = OTHER_ENCRYPTED_MARK
    if encrypted & (encrypted - 1):
        section.wrong("encrypted_mark", f"0x{encrypted:x} is not exactly one bit, such as 0x400000")
    if encrypted & (mask | assurance):
        section.wrong("encrypted_mark", "is a bit of mark_mask or assurance_mask")
    modes = {"first": "first", "first+last": "first+last"}
    return InterceptOptions(
        mask,
        assurance,
        encrypted,
        section.integer("queue", default.queue, 0, 65535),
        section.choice("hold", default.hold, modes),
        section.integer("hold_packets", default.hold_packets, 1, 1_000_000),
        section.integer("hold_bytes", default.hold_bytes, 65536, 1 << 32),
        section.integer("setups_per_source", default.setups_per_source, 1, 65536),
        section.integer("setups", default.setups, 1, 65536),
        section.integer("setups_per_second", default.setups_per_second, 1, 65536),
    )


def _lifespans(section: Section) -> Lifespans:
    default = Lifespans()
    return Lifespans(
        **{
            each.name: section.seconds(each.name, getattr(default, each.name), 0.1, WEEK)
            for each in fields(Lifespans)
        }
    )


def _publish(section: Section, directory: Path) -> PublishSettings:
    default = PublishSettings()
    servers = section.addresses("server")
    if len(servers) > 1:
        section.wrong("server", "is one address: that of the primary server of the zones")
    return PublishSettings(
        section.addresses("clients", host_of),
        section.integer("precedence", default.precedence, 0, 65535),
        section.integer("ttl", default.ttl, 1, WEEK),
        servers[0] if servers else None,
        section.path_relative_to(directory, "tsig_key", None),
        section.truth("ipseckey", default.ipseckey),
    )


def _multihoming(section: Section) -> MultihomingSettings:
    default = MultihomingSettings()
    return MultihomingSettings(
        section.choice("choice", default.choice, {choice.value: choice for choice in Choice}),
        section.seconds("turn", default.turn, 0.1, 60),
        section.seconds("patience", default.patience, 0.5, 600),
    )
