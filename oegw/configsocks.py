"""Reading ``[socks]``: from a table of a configuration to the settings of the SOCKS server.

[socks]             socket, outgoing, advertise, prefer, confirm_names
[[socks.listener]]  address, port, authentication, interface, encrypted
[[socks.user]]      name, password, encrypted, connections
[[socks.rule]]      allow, commands, clients, users, destinations, names, ports, encrypted
[socks.ids]         scope, reply, idle, lifetime, quarantine, per_scope, total, failures, window,
                    lockout, refresh
[socks.udp]         filtering, idle, destinations, resolutions
[socks.limits]      total, client, negotiating, associations, handshake, connect, bind, idle
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oegw.configfile import Problems, Section, kind_of, shown, suggestion
from oegw.socks5 import passwords
from oegw.socks5.codes import DEFAULT_PORT
from oegw.socks5.settings import (
    AddressIdSettings,
    Limits,
    Listener,
    Rule,
    SocksSettings,
    UdpSettings,
    User,
)
from policy.flow import IPAddress

# Our choices.
MAX_USER_OCTETS = 255  # RFC 1929
MAX_PATTERN = 255
MAX_CONNECTIONS = 1_000_000
MAX_IDS = 1 << 22  # a quarter of the numbers that there are (SK-13): guesses must miss
DAY = 86400
WEEK = 7 * DAY
COMMANDS = ("connect", "bind", "udp", "associate")

_PATTERN = re.compile(r"[^\s/?#@\[\]\\]+")
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)


def read_socks(
    values: Any, directory: Path, problems: Problems, outside: tuple[str, ...] = ()
) -> SocksSettings:
    """The settings of the table ``socks``, whose value in the file is ``values``, None if it is
    not there; what is wrong is in ``problems``.

    Relative paths start at ``directory``.  ``outside``: interfaces that are known to be.
    """
    default = SocksSettings()
    section = Section({} if values is None else values, "socks", problems)
    users = section.tables("user", _user)
    settings = SocksSettings(
        values is not None,
        section.socket_path(directory, "socket", default.socket),
        section.tables("listener", lambda table: _listener(table, outside)),
        users,
        section.tables("rule", _rule),
        _one_of_each_family(section, "outgoing"),
        _one_of_each_family(section, "advertise"),
        section.choice("prefer", default.prefer, {"6": "6", "4": "4"}),
        section.truth("confirm_names", default.confirm_names),
        _ids(section),
        _udp(section),
        _limits(section),
    )
    _compare_listeners(section, settings)
    _compare_users(section, settings)
    section.end()
    return settings


def _one_of_each_family(section: Section, key: str) -> tuple[IPAddress, ...]:
    found = section.addresses(key)
    for address in found:
        if address.is_unspecified or address.is_multicast:
            section.wrong(key, f"{address} is not the address of a host")
    for family in (4, 6):
        if sum(address.version == family for address in found) > 1:
            section.wrong(key, f"has more than one IPv{family} address")
    return found


# ---------------------------------------------------------------- where, and for whom


def _listener(table: Section, outside: tuple[str, ...]) -> Listener | None:
    if "address" not in table:
        table.wrong("address", "is missing: where are clients waited for?")
    address = table.address("address")
    if address is not None and address.is_multicast:
        table.wrong("address", f"{address} is no address to listen on")
    words = {word: word for word in ("none", "password")}
    authentication = table.choice("authentication", "none", words)
    interface = table.interface("interface")
    if interface is not None and interface in outside and authentication == "none":
        table.wrong(
            "authentication", f"{shown(interface)} is outside: strangers must show a password"
        )
    if address is not None and address.is_unspecified and authentication == "none":
        reason = f"{address} is every address: strangers must show a password"
        table.wrong("authentication", reason)
    port = table.integer("port", DEFAULT_PORT, 1, 65535)
    encrypted = table.truth("encrypted", False)
    if address is None:
        return None
    return Listener(address, port, authentication, interface, encrypted)


def _compare_listeners(section: Section, settings: SocksSettings) -> None:
    places = set()
    for listener in settings.listeners:
        place = (listener.address, listener.port, listener.interface)
        if place in places:
            reason = f"two listeners have port {listener.port} of {listener.address}"
            section.wrong("listener", reason)
        places.add(place)
    if not settings.users and any(each.authentication != "none" for each in settings.listeners):
        section.wrong("user", "is missing: a listener asks for passwords, and nobody has one")


def _user(table: Section) -> User | None:
    if "name" not in table:
        table.wrong("name", "is missing: who is it?")
    name = table.text("name")
    if name is not None and len(name.encode()) > MAX_USER_OCTETS:
        table.wrong("name", f"is longer than {MAX_USER_OCTETS} octets")
    password = _password(table)
    encrypted = table.truth("encrypted", False)
    connections = None
    if "connections" in table:
        connections = table.integer("connections", 1, 1, MAX_CONNECTIONS)
    if name is None or password is None:
        return None
    return User(name, password, encrypted, connections)


def _password(table: Section) -> str | None:
    """Never shown: the hash of a weak password is a secret as well, and where no hash stands it
    may be the password itself."""
    word = table.raw("password")
    if word is None:
        table.wrong("password", "is missing: oegw socks password prints what belongs here")
    elif not isinstance(word, str):
        table.wrong("password", "must be a text in quotes")
    elif not _is_hash(word):
        table.wrong("password", "is not what oegw socks password prints")
    else:
        return word
    return None


def _is_hash(word: str) -> bool:
    try:
        passwords.check(word)
    except passwords.InvalidHash:
        return False
    return True


def _compare_users(section: Section, settings: SocksSettings) -> None:
    names = [user.name for user in settings.users]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        section.wrong("user", f"two users have the name {shown(name)}")
    for rule in settings.rules:
        for name in rule.users:
            if name not in names:
                reason = f"{rule.origin} is about {shown(name)}, who is none"
                section.wrong("user", reason + suggestion(name, names))


# ------------------------------------------------------------------------- who may what


def _rule(table: Section) -> Rule | None:
    if "allow" not in table:
        table.wrong("allow", "is missing: true, or false for what is refused")
    rule = Rule(
        table.truth("allow", False),
        _words(table, "commands", COMMANDS),
        table.networks("clients") or (),
        tuple(word for _, word in table.texts("users") or ()),
        table.networks("destinations") or (),
        tuple(_pattern(table, place, word) for place, word in table.texts("names") or ()),
        _ports(table),
        table.truth("encrypted", False),
        table.path,
    )
    if rule.encrypted and not rule.allow:
        table.wrong("encrypted", "says nothing where nothing is allowed")
    return rule


def _words(table: Section, key: str, known: Iterable[str]) -> tuple[str, ...]:
    found = []
    for place, word in table.texts(key) or ():
        if word in known:
            found.append(word)
        else:
            reason = f"{shown(word)} is not one of {', '.join(known)}"
            table.wrong_place(place, reason + suggestion(word, known))
    return tuple(dict.fromkeys(found))


def _pattern(table: Section, place: str, word: str) -> str:
    """A name with ``*`` in it, as names are compared."""
    if len(word.encode()) > MAX_PATTERN or not _PATTERN.fullmatch(word):
        table.wrong_place(place, f"{shown(word)} can't be the pattern of a name")
    return word.removesuffix(".").casefold()


def _ports(table: Section) -> tuple[tuple[int, int], ...]:
    """``443``, ``"8000-8080"``, or a list of such."""
    value = table.raw("ports")
    if value is None:
        return ()
    several = isinstance(value, list)
    if several and not value:
        table.wrong("ports", "the list is empty; leave the key out instead")
    found = []
    for number, each in enumerate(value if several else [value], 1):
        ports = _range(each)
        if ports is not None:
            found.append(ports)
            continue
        text = shown(each) if isinstance(each, str) else kind_of(each)
        reason = f'{text} is neither a port nor a range such as "8000-8080", within 1 to 65535'
        table.wrong_place(f"ports[{number}]" if several else "ports", reason)
    return tuple(dict.fromkeys(found))


def _range(value: object) -> tuple[int, int] | None:
    if isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    elif isinstance(value, str) and (read := _RANGE.fullmatch(value)) is not None:
        first, last = int(read[1]), int(read[2] or read[1])
    else:
        return None
    return (first, last) if 1 <= first <= last <= 65535 else None


# ----------------------------------------------------------------- numbers and seconds


def _ids(section: Section) -> AddressIdSettings:
    default = AddressIdSettings()
    table = section.subsection("ids")
    settings = AddressIdSettings(
        table.choice("scope", default.scope, _same("client", "connection")),
        table.choice("reply", default.reply, _same("address", "id")),
        table.seconds("idle", default.idle, 1, WEEK),
        table.seconds("lifetime", default.lifetime, 1, 52 * WEEK),
        table.seconds("quarantine", default.quarantine, 0, WEEK),
        table.integer("per_scope", default.per_scope, 1, MAX_IDS),
        table.integer("total", default.total, 1, MAX_IDS),
        table.integer("failures", default.failures, 1, 1000),
        table.seconds("window", default.window, 1, DAY),
        table.seconds("lockout", default.lockout, 1, DAY),
        table.truth("refresh", default.refresh),
    )
    if settings.per_scope > settings.total:
        table.wrong("per_scope", "is larger than socks.ids.total")
    if settings.idle > settings.lifetime:
        table.wrong("idle", "is longer than socks.ids.lifetime")
    table.end()
    return settings


def _udp(section: Section) -> UdpSettings:
    default = UdpSettings()
    table = section.subsection("udp")
    settings = UdpSettings(
        table.choice("filtering", default.filtering, _same("address", "port", "any")),
        table.seconds("idle", default.idle, 1, WEEK),
        table.integer("destinations", default.destinations, 1, 65536),
        table.integer("resolutions", default.resolutions, 1, 1024),
    )
    table.end()
    return settings


def _limits(section: Section) -> Limits:
    default = Limits()
    table = section.subsection("limits")
    settings = Limits(
        table.integer("total", default.total, 1, MAX_CONNECTIONS),
        table.integer("client", default.client, 1, MAX_CONNECTIONS),
        table.integer("negotiating", default.negotiating, 1, MAX_CONNECTIONS),
        table.integer("associations", default.associations, 1, MAX_CONNECTIONS),
        table.seconds("handshake", default.handshake, 0.1, 600),
        table.seconds("connect", default.connect, 0.1, 600),
        table.seconds("bind", default.bind, 1, DAY),
        table.seconds("idle", default.idle, 0, WEEK),
    )
    table.end()
    return settings


def _same(*words: str) -> dict[str, str]:
    return {word: word for word in words}
