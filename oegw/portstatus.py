"""What `oegw status` says of port encryption: as a whole, and for each connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from oegw.connection import Connection, State
from oegw.sst.books import Fate
from oegw.sst.interface import Leg
from oegw.sst.service import SstService
from policy.flow import IPAddress, IPNetwork
from policy.rule import Sst

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """``rows`` are for the answer; ``fates`` by pair of hosts, ``around``: gateways whose own ports
    are sealed, ``inside``: pairs of networks whose tunnel carries sealed ports."""

    rows: Row
    fates: dict[tuple[IPAddress, IPAddress], Fate] = field(default_factory=dict)
    latest: dict[IPAddress, Fate] = field(default_factory=dict)  # by the host outside
    around: frozenset[IPAddress] = frozenset()
    inside: frozenset[tuple[IPNetwork, IPNetwork]] = frozenset()


def section(service: SstService | None) -> Section | None:
    """None where port encryption does not run."""
    if service is None:
        return None
    report = service.report()
    fates = dict(report.fates)
    return Section(
        service.snapshot(),
        fates,
        {remote: fate for (_, remote), fate in fates.items()},
        frozenset(remote for _, remote in report.shields),
        frozenset((each.local, each.remote) for each in report.tunnels if each.sending),
    )


def ports_of(connection: Connection, found: Section | None) -> str | None:
    """Which protection a flow of the connection got; None where there is nothing to say."""
    if found is None:
        return None
    if connection.state is State.KEYED:
        return _of_tunnel(connection, found)
    if connection.state is not State.CLEAR:
        return None
    fate = _fate(connection, found)
    if fate is None or fate.leg is Leg.TUNNEL:
        wanted = connection.rule.sst is Sst.ONLY
        return "clear; no flow has asked for its ports to be sealed" if wanted else "clear"
    if fate.sealed:
        return "clear with ports sealed"
    return f"clear, ports not sealed: {fate.reason}"


def _of_tunnel(connection: Connection, found: Section) -> str:
    selectors = connection.selectors
    inside = (selectors.local, selectors.remote) in found.inside
    tunnel = connection.live_tunnel
    around = tunnel is not None and tunnel.gateway in found.around
    match inside, around:
        case True, True:
            return "tunnel with ports sealed inside and around"
        case True, False:
            return "tunnel with ports sealed inside"
        case False, True:
            return "tunnel with ports sealed around"
    if connection.rule.sst in (Sst.INNER, Sst.OUTER):
        return f"tunnel, ports not sealed {_PLACES[connection.rule.sst]}"
    return "tunnel"


_PLACES = {Sst.INNER: "inside: the peer does not know how", Sst.OUTER: "around"}


def _fate(connection: Connection, found: Section) -> Fate | None:
    """Of the latest flow; behind our own NAT the kernel may see another source than the policy."""
    local, remote = connection.selectors.local, connection.selectors.remote
    if remote.num_addresses == 1:
        there: IPv4Address | IPv6Address = remote.network_address
        if local.num_addresses == 1 and (local.network_address, there) in found.fates:
            return found.fates[local.network_address, there]
        return found.latest.get(there)
    return next((fate for there, fate in found.latest.items() if there in remote), None)
