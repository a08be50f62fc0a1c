"""Who may be connected to whom (SK-5, SK-23).  Without IO.

The first rule that matches decides.  If none does, a client of our listeners may reach all but what
is ours: loopback, link-local and this box's own addresses are opened only by a rule that names
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from oegw.socks5.interface import Demand
from oegw.socks5.settings import Rule
from oegw.socks5.wire import IPAddress

CONNECT, BIND, UDP, ASSOCIATE = "connect", "bind", "udp", "associate"  # Rule.commands


@dataclass(frozen=True, slots=True)
class Asked:
    """``destination``: the address that would be used, of a BIND the peer's; None if it is not
    known yet (a UDP ASSOCIATE, a BIND for any peer).  ``name``: by which it was asked for, or for
    which the ID stands.  ``encrypted``: the listener or the user demands it."""

    command: str
    client: IPAddress
    user: str = ""
    destination: IPAddress | None = None
    port: int = 0
    name: str | None = None
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason``: for trace and counters: a rule's origin, or ``unruled``, ``loopback``,
    ``link_local``, ``multicast``, ``unspecified``, ``own``."""

    allowed: bool
    reason: str
    demand: Demand = field(default_factory=Demand)


class Rules:
    """``own``: whether an address is one of this box's."""

    def __init__(self, rules: Sequence[Rule], own: Callable[[IPAddress], bool]) -> None:
        raise NotImplementedError

    def decide(self, asked: Asked) -> Verdict:
        """With ``destination`` None: whether anything at all may be allowed; each peer is asked
        for again when it is known."""
        raise NotImplementedError
