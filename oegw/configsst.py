"""Reading ``[sst]``: from a table of a configuration to the settings of port encryption."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TypeVar

from oegw.configfile import Section, shown
from oegw.sst.interface import ALGORITHMS, IPAddress
from oegw.sst.settings import (
    Request,
    SstSettings,
)
from policy.rule import Rule, Sst, SstStrength

MARK_BITS = 6
DNS_PORT = 53

_WHERE = re.compile(
    r"(?:\[(?P<six>[^\[\]]+)\]|(?P<four>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)

_Word = TypeVar("_Word", bound=Enum)
_Named = TypeVar("_Named")


def read_sst(section: Section, directory: Path, taken: int, queue: int) -> SstSettings:
    """The settings of ``[sst]``.

    ``taken``: bits of the packet mark that are in use; ``queue``: a netfilter queue that is.
    """
    default = SstSettings()
    mask = section.integer("mark_mask", default.mark_mask, 1, 0xFFFFFFFF)
    if mask != (mask & -mask) * ((1 << MARK_BITS) - 1):
        section.wrong("mark_mask", f"0x{mask:x} is not exactly {MARK_BITS} neighbouring bits")
    if mask & taken:
        section.wrong(
            "mark_mask", "has bits of intercept.mark_mask, assurance_mask or encrypted_mark"
        )
    first = section.integer("queue", default.queue, 0, 65534)
    if queue in (first, first + 1):
        section.wrong("queue", f"{first} and {first + 1} are ours, and intercept.queue is {queue}")
    dscp = section.integer("dscp", default.dscp, 1, 63)
    request = section.integer("request_dscp", default.request_dscp, 1, 63)
    restored = section.integer("restored_dscp", default.restored_dscp, 0, 63)
    for key, value in (("request_dscp", request), ("restored_dscp", restored)):
        if value == dscp:
            section.wrong(key, f"{value} is dscp, which says that ports are encrypted")
    return SstSettings(
        section.truth("enabled", False) if "enabled" in section else None,
        section.path_relative_to(directory, "private_key", default.private_key),
        section.paths_relative_to(directory, "old_keys"),
        _algorithms(section),
        _word(section, "epochs", default.epochs),
        _word(section, "ipv4_signal", default.ipv4_signal),
        dscp,
        restored,
        request,
        _requests(section),
        _word(section, "lan_flag", default.lan_flag),
        _word(section, "strangers", default.strangers),
        _word(section, "fragments", default.fragments),
        section.integer("flows", default.flows, 16, 1 << 22),
        section.seconds("flow_lifespan", default.flow_lifespan, 1, 86400),
        section.integer("hold_packets", default.hold_packets, 1, 65536),
        section.seconds("patience", default.patience, 0.1, 60),
        section.seconds("probe_interval", default.probe_interval, 1, 86400),
        _forwarder(section),
        mask,
        first,
    )


def refuse_what_is_off(section: Section, sst: SstSettings, rules: Iterable[Rule]) -> None:
    """A rule that requires port encryption would let its traffic out without (SST-29)."""
    if sst.enabled is not False:
        return
    for rule in rules:
        if rule.sst is not Sst.OFF and rule.sst_strength is SstStrength.REQUIRED:
            section.wrong("enabled", f"rule {rule.name!r} requires port encryption")
            return


def refuse_a_circle(section: Section, sst: SstSettings, resolvers: Iterable[IPAddress]) -> None:
    """A forwarder that is its own resolver would ask itself."""
    if sst.forwarder is not None and sst.forwarder in [(each, DNS_PORT) for each in resolvers]:
        reason = f"{sst.forwarder[0]} is one of dns.resolvers: questions would go in a circle"
        section.wrong("forwarder", reason)


def _word(section: Section, key: str, default: _Word) -> _Word:
    return section.choice(key, default, {each.value: each for each in type(default)})


def _algorithms(section: Section) -> tuple[str, ...]:
    return _named(section, "algorithms", {name: name for name in ALGORITHMS}) or (
        SstSettings().algorithms
    )


def _requests(section: Section) -> tuple[Request, ...]:
    if "requests" not in section:
        return SstSettings().requests
    if section.raw("requests") == []:
        return ()  # nobody may ask
    return _named(section, "requests", {each.value: each for each in Request})


def _named(section: Section, key: str, known: Mapping[str, _Named]) -> tuple[_Named, ...]:
    """The values that a list names, each once; what it names else is a fault."""
    found = []
    for place, name in section.texts(key) or ():
        if name in known:
            found.append(known[name])
        else:
            section.wrong_place(place, f"{shown(name)} is not one of {', '.join(known)}")
    return tuple(dict.fromkeys(found))


def _forwarder(section: Section) -> tuple[IPAddress, int] | None:
    """An address, or an address and a port: ``"127.0.0.1:5300"``, ``"[::1]:5300"``."""
    word = section.text("forwarder")
    if word is None:
        return None
    found = _WHERE.fullmatch(word)
    try:
        if found is None:
            address, number = ip_address(word), DNS_PORT
        else:
            address = IPv6Address(found["six"]) if found["six"] else IPv4Address(found["four"])
            number = int(found["port"] or DNS_PORT)
    except ValueError:
        section.wrong("forwarder", f"{shown(word)} is not an address, with or without a port")
        return None
    if not 1 <= number <= 65535:
        section.wrong("forwarder", "a port is within 1 to 65535")
        return None
    if address.is_unspecified or address.is_multicast:
        section.wrong("forwarder", f"{address} is no address to listen on")
        return None
    return address, number
