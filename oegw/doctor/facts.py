"""All that is looked at, each thing read when a subject wants it; `gathering` says how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from oegw.doctor.box import (
    Clock,
    Daemon,
    Files,
    Host,
    Kernel,
    Limits,
    Link,
    Process,
    Routing,
    UdpSocket,
    XfrmItem,
)
from oegw.doctor.fact import Fact, Unexamined
from oegw.doctor.iptablesrules import Iptables
from oegw.doctor.mending import Mending
from oegw.doctor.names import Names
from oegw.doctor.nftrules import NftRules
from oegw.environment import Environment, UnsuitableBox
from oegw.intercept.firewall import Gap
from oegw.rollover import Rollover
from oegw.settings import Settings

IKE_PORTS = (500, 4500)  # RFC 2408 section 2.5.1, RFC 3948 section 4


def _unread() -> Any:
    raise Unexamined("it was not read")


_UNREAD: Fact[Any] = Fact(_unread)


@dataclass(frozen=True, slots=True)
class Facts:
    """``examined``: what can be understood of the configuration, and all that is wrong with it;
    ``surveyed``: what the box is like, or why it can't be the gateway.  The properties raise
    Unexamined as the facts do."""

    path: Path
    text: Fact[str] = _UNREAD
    examined: Fact[tuple[Settings, tuple[str, ...]]] = _UNREAD
    surveyed: Fact[Environment | UnsuitableBox] = _UNREAD
    own_key: Fact[rsa.RSAPublicKey] = _UNREAD
    links: Fact[tuple[Link, ...]] = _UNREAD
    routing: Fact[Routing] = _UNREAD
    sysctls: Fact[Mapping[str, str]] = _UNREAD
    nftables: Fact[NftRules] = _UNREAD
    iptables: Fact[tuple[Iptables, ...]] = _UNREAD
    gaps: Fact[tuple[Gap, ...]] = _UNREAD
    xfrm: Fact[tuple[XfrmItem, ...]] = _UNREAD
    processes: Fact[Mapping[int, Process]] = _UNREAD
    sockets: Fact[tuple[UdpSocket, ...]] = _UNREAD
    kernel: Fact[Kernel] = _UNREAD
    clock: Fact[Clock] = _UNREAD
    limits: Fact[Limits] = _UNREAD
    files: Fact[Files] = _UNREAD
    host: Fact[Host] = _UNREAD
    names: Fact[Names] = _UNREAD
    rollover: Fact[Rollover | None] = _UNREAD
    daemon: Fact[Daemon] = _UNREAD

    @property
    def settings(self) -> Settings:
        return self.examined()[0]

    @property
    def environment(self) -> Environment:
        """Raises Unexamined if this box can't be the gateway."""
        found = self.surveyed()
        if isinstance(found, UnsuitableBox):
            raise Unexamined(str(found))
        return found

    @property
    def inside(self) -> tuple[Link, ...]:
        """Links with hosts behind us: neither outside, nor ours, with an address."""
        outside = self.environment.outside
        tunnel = self.settings.datapath.tunnel_interface
        return tuple(
            link
            for link in self.links()
            if link.name not in (*outside, tunnel, "lo") and (link.has(4) or link.has(6))
        )

    @property
    def runs(self) -> bool:
        return self.daemon().runs

    @property
    def mending(self) -> Mending:
        """What can't be known of the box leaves the plain commands."""
        daemon = _known(self.daemon, Daemon(None))
        host = _known(self.host, Host())
        text = _known(self.text, "")
        return Mending(self.path, text, daemon.number, daemon.unit, host.systemd and host.installed)


def _known(fact: Fact[Any], otherwise: Any) -> Any:
    try:
        return fact()
    except Unexamined:
        return otherwise
