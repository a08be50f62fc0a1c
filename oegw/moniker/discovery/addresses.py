"""The addresses of this box, as the kernel has them now.

From its tables in /proc and by ioctl: the daemon does without netlink.
"""

from __future__ import annotations

import fcntl
import re
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from oegw.moniker.interface import IPAddress

# Specification: netdevice(7).
SIOCGIFADDR = 0x8915
_GLOBAL = "00"  # scope of an IPv6 address (include/net/ipv6.h)

# Our choice.
MAX_TOLD = 16  # addresses of one box

_LOCAL = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")  # in the trie of routes, a leaf


def own_addresses() -> tuple[IPAddress, ...]:
    """Those that others can use: no loopback, no link-local ones.  IPv4 first."""
    found: dict[IPAddress, None] = {}
    for text in _LOCAL.findall(_read("fib_trie")):
        four = IPv4Address(text)
        if not (four.is_loopback or four.is_link_local):
            found[four] = None
    found |= {six: None for six, _ in _global_six() if not six.is_loopback}
    return tuple(found)[:MAX_TOLD]


def addresses_of(interface: str) -> tuple[IPAddress, ...]:
    """The first IPv4 address and the global IPv6 addresses of an interface; none: it has none, or
    there is none of that name."""
    found: list[IPAddress] = []
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock.fileno(), SIOCGIFADDR, request)
            found.append(IPv4Address(answer[20:24]))
        except OSError:
            pass  # none of that family
    found += [six for six, device in _global_six() if device == interface]
    return tuple(found)


def _global_six() -> list[tuple[IPv6Address, str]]:
    rows = (line.split() for line in _read("if_inet6").splitlines())
    return [
        (IPv6Address(bytes.fromhex(row[0])), row[5])
        for row in rows
        if len(row) == 6 and row[3] == _GLOBAL
    ]


def _read(name: str) -> str:
    """A table of our network namespace; empty: the kernel has not got that family."""
    try:
        return Path("/proc/self/net", name).read_text(encoding="ascii")
    except OSError:
        return ""
