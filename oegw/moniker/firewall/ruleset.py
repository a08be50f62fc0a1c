"""The text of the table ``inet oegw_moniker``.  Pure: settings in, nft language out.

    prerouting, destination NAT     client, our address, q -> host, port     (forward4, forward6)
    postrouting, source NAT         such a client, if it is inside itself -> our address

    forward, from outside or out of the tunnel:
        established, related              accept
        leaves by such an interface       accept: it reaches nothing inside
        lease4, lease6                    count, accept: client . host . protocol . port
        a question to a host of ours      count, accept
        what [moniker.firewall] allows    count, accept
        over4, over6                      count, refuse: its lease ended before its time
        else                              count, drop

    input, from outside or out of the tunnel, to a port in `own4` ... `own_at6`:
        established, related; lease4, lease6; over4, over6; else, as above

An accept here is an accept of this table; the rules of others are asked all the same.  A client
whose lease ended early is refused, so that it asks again (MK-30); strangers hear nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from oegw.moniker.firewall.book import Forward, Guard, Hole
from oegw.moniker.interface import IPAddress
from oegw.moniker.names import MonikerError
from oegw.moniker.settings import FirewallSettings, HostSettings

TABLE = "oegw_moniker"

# Our choices.
MAX_ELEMENTS = 32768  # of one set; the book refuses before, and the kernel clears up late
MAX_GUARDED = 65535
MAX_COMMENT = 120  # the kernel keeps 128 octets with an element
_DNAT_PRIORITY = -101  # just before other tables' destination NAT
_HAIRPIN_PRIORITY = 99  # and just before their source NAT

COUNTERS = {
    "leased": "packets that opened a connection under a lease",
    "questions": "packets that opened a connection to ask a host's daemon",
    "allowed": "packets that moniker.firewall.allow let through",
    "over": "packets refused, since their lease ended before its time",
    "denied": "packets from outside to inside that nothing allowed",
    "own_denied": "packets from outside to a service of this box, without a lease",
    "forwarded": "connections forwarded to a host behind",
}
"""The counters in the table, and what they count."""

_INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
_BAD_IN_MATCH = re.compile(r"[;#\n\r]")
_KEY = "type {0} . {0} . inet_proto . inet_service"
_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
_HEADER = {4: "ip", 6: "ip6"}


class FirewallError(MonikerError):
    """The kernel refuses the table, or a setting can't work; the text says which."""


def checked(settings: FirewallSettings) -> FirewallSettings:
    """The same settings.  Raises FirewallError if one of them can't work."""
    if settings.deny and not settings.outside:
        raise FirewallError("moniker.firewall.outside: there must be at least one interface")
    for interface in _interfaces(settings):
        if not _INTERFACE.fullmatch(interface):
            raise FirewallError(
                f"moniker.firewall.outside: {interface!r} can't be the name of an interface"
            )
    for match in settings.allow:
        if not match.strip() or _BAD_IN_MATCH.search(match):
            raise FirewallError(
                f"moniker.firewall.allow: {match!r} must be one match of the nft language"
            )
    return settings


def whole_table(settings: FirewallSettings, hosts: Sequence[HostSettings]) -> str:
    """One transaction that replaces whatever stands under our name."""
    return (
        removing()
        + f"table inet {TABLE} {{\n"
        + "".join(f"  counter {name} {{ }}\n" for name in COUNTERS)
        + _sets()
        + (_translating(settings) if any(host.namespaces for host in hosts) else "")
        + (_deciding(settings) if settings.deny else "")
        + "}\n"
        + questions(hosts)
    )


def removing() -> str:
    """nft before 1.0.7 has no ``destroy``: a table is surely there once it was added."""
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\n"


def residue() -> str:
    """What a stop leaves of a table that denies: the chains, with no lease and no question."""
    names = [f"{name}{version}" for version in (4, 6) for name in ("lease", "over", "questions")]
    lines = [f"flush set inet {TABLE} {name}\n" for name in names]
    lines += [f"flush map inet {TABLE} forward{version}\n" for version in (4, 6)]
    return "".join(lines)


def questions(hosts: Sequence[HostSettings]) -> str:
    """Whom clients may ask: the hosts' daemons; what was there before is forgotten."""
    lines = []
    for version in (4, 6):
        asked = sorted(
            {f"{a} . {h.port}" for h in hosts for a in h.addresses if a.version == version}
        )
        lines.append(f"flush set inet {TABLE} questions{version}\n")
        if asked:
            lines.append(f"add element inet {TABLE} questions{version} {{ {', '.join(asked)} }}\n")
    return "".join(lines)


def opened(hole: Hole, seconds: float, name: str) -> str:
    """Commands: a lease for so many seconds from now, whether or not there was one.

    ``name``: of the service, which ``nft list`` shows.  That its client may be one of those to be
    refused (`refused`) need not be taken back: the lease is asked first.
    """
    return _element("renew", f"lease{hole.host.version}", _key(hole), seconds, name)


def ended(hole: Hole) -> str:
    """Commands: the lease is over."""
    return _element("delete", f"lease{hole.host.version}", _key(hole))


def refused(hole: Hole, seconds: float) -> str:
    """Commands: for so many seconds its client is refused, and not met with silence."""
    return _element("renew", f"over{hole.host.version}", _key(hole), seconds)


def forwarded(forward: Forward, seconds: float, name: str) -> str:
    """Commands: a port of ours leads to a host's, for one client."""
    return _element(
        "renew",
        f"forward{forward.asked.version}",
        _key(forward.outer),
        seconds,
        name,
        value=f"{forward.hole.host} . {forward.hole.port}",
    )


def forward_ended(forward: Forward) -> str:
    """Commands: it doesn't any more."""
    return _element(
        "delete",
        f"forward{forward.asked.version}",
        _key(forward.outer),
        value=f"{forward.hole.host} . {forward.hole.port}",
    )


def guarded(guard: Guard, seconds: float | None = None) -> str:
    """Commands: a port of this box needs a lease; ``seconds``: only so long."""
    return _element("renew", *_guard_element(guard), seconds)


def unguarded(guard: Guard) -> str:
    """Commands: a port of this box is none of our business any more."""
    return _element("delete", *_guard_element(guard))


def _guard_element(guard: Guard) -> tuple[str, str]:
    port = f"{guard.protocol} . {guard.port}"
    if guard.address is None:
        return f"own{guard.version}", port
    return f"own_at{guard.version}", f"{guard.address} . {port}"


def trial(match: str) -> str:
    """A transaction, to be run dry, that shows whether the kernel understands one match."""
    return f"table inet {TABLE}_trial {{\n{_chain('trial', f'{match} accept')}}}\n"


def _element(
    what: str,
    name: str,
    key: str,
    seconds: float | None = None,
    comment: str = "",
    value: str = "",
) -> str:
    """Adding first makes sure that it is there; an element's time can't be changed in place."""
    tail = f" : {value}" if value else ""
    timed = f" timeout {max(1, round(seconds * 1000))}ms" if seconds is not None else ""
    named = f' comment "{quote(comment, safe=":")[:MAX_COMMENT]}"' if comment else ""
    place = f"element inet {TABLE} {name}"
    text = f"add {place} {{ {key}{tail} }}\ndelete {place} {{ {key}{tail} }}\n"
    if what == "renew":
        text += f"add {place} {{ {key}{timed}{named}{tail} }}\n"
    return text


def _key(hole: Hole) -> str:
    return f"{hole.client} . {hole.host} . {hole.protocol} . {hole.port}"


def _sets() -> str:
    text = ""
    own = f"inet_proto . inet_service; flags timeout; size {MAX_GUARDED};"
    for version, address in _TYPES.items():
        text += f"  set own{version} {{ type {own} }}\n"
        text += f"  set own_at{version} {{ type {address} . {own} }}\n"
        key = _KEY.format(address)
        rest = f"flags timeout; size {MAX_ELEMENTS};"
        text += f"  set lease{version} {{ {key}; {rest} }}\n"
        text += f"  set over{version} {{ {key}; {rest} }}\n"
        text += f"  map forward{version} {{ {key} : {address} . inet_service; {rest} }}\n"
        text += f"  set questions{version} {{ type {address} . inet_service; }}\n"
    return text


def _translating(settings: FirewallSettings) -> str:
    """The second chain counts, and is for clients inside: without it the host would answer them
    directly.

    That a map has no such key ends a rule, too.  To ask before whether it has takes a kernel that
    is newer than Debian 12's (6.1 refuses it), so who was forwarded is counted afterwards.
    """
    hook = f"type nat hook prerouting priority {_DNAT_PRIORITY}; policy accept;"
    lines = [
        f"meta nfproto ipv{version} dnat {_HEADER[version]} to {_looked_up(version)} "
        f"map @forward{version}"
        for version in _TYPES
    ]
    behind = f"type nat hook postrouting priority {_HAIRPIN_PRIORITY}; policy accept;"
    turned = [
        f"ct status dnat {_looked_up(version)} @lease{version} counter name forwarded"
        for version in _TYPES
    ]
    if settings.outside:
        turned += [
            f"iifname != {_outside(settings)} ct status dnat {_looked_up(version)} "
            f"@lease{version} masquerade"
            for version in _TYPES
        ]
    return _chain("prerouting", hook, *lines) + _chain("postrouting", behind, *turned)


def _deciding(settings: FirewallSettings) -> str:
    outside = _outside(settings)
    leased = [f"{_looked_up(v)} @lease{v} counter name leased accept" for v in _TYPES]
    asked = [
        f"meta l4proto {{ tcp, udp }} {_HEADER[version]} daddr . th dport @questions{version} "
        "counter name questions accept"
        for version in _TYPES
    ]
    over = [f"{_looked_up(version)} @over{version} goto refuse" for version in _TYPES]
    own = []
    for v, header in _HEADER.items():
        own.append(f"meta nfproto ipv{v} meta l4proto . th dport @own{v}")
        own.append(f"{header} daddr . meta l4proto . th dport @own_at{v}")
    return (
        _chain(
            "refuse",
            "counter name over",
            "meta l4proto tcp reject with tcp reset",
            "reject with icmpx port-unreachable",
        )
        + _chain(
            "from_outside",
            "ct state established,related accept",
            f"oifname {outside} accept",
            *leased,
            *asked,
            *(f"{match} counter name allowed accept" for match in settings.allow),
            *over,
            "counter name denied drop",
        )
        + _chain(
            "to_services",
            "ct state established,related accept",
            *leased,
            *over,
            "counter name own_denied drop",
        )
        + _chain(
            "forward",
            "type filter hook forward priority filter; policy accept;",
            f"iifname {outside} goto from_outside",
        )
        + _chain(
            "input",
            "type filter hook input priority filter; policy accept;",
            *(f"iifname {outside} {guards} goto to_services" for guards in own),
        )
    )


def _looked_up(version: int) -> str:
    header = _HEADER[version]
    return f"{header} saddr . {header} daddr . meta l4proto . th dport"


def _outside(settings: FirewallSettings) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in _interfaces(settings)) + " }"


def _interfaces(settings: FirewallSettings) -> Iterable[str]:
    return dict.fromkeys(name for name in (*settings.outside, settings.tunnel) if name)


def _chain(name: str, *lines: str) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"  chain {name} {{\n{body}  }}\n"


def addresses_of(hosts: Sequence[HostSettings]) -> frozenset[IPAddress]:
    """All addresses of the hosts behind us."""
    return frozenset(address for host in hosts for address in host.addresses)
