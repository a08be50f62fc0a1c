"""What `oegw status` says of port encryption: as a whole, and for each connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from oegw.connection import Connection, State, Tunnel
from oegw.sst.books import Fate
from oegw.sst.interface import Leg
from oegw.sst.service import SstService
from policy.flow import IPAddress
from policy.rule import Sst

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """``rows`` are for the answer; ``fates``: what the latest flow of a pair of hosts got, and of a
    host outside."""

    rows: Row
    fates: dict[tuple[IPAddress, IPAddress], Fate] = field(default_factory=dict)
    latest: dict[IPAddress, Fate] = field(default_factory=dict)


def section(service: SstService | None) -> Section | None:
    """None where port encryption does not run."""
    if service is None:
        return None
    fates = dict(service.report().fates)
    return Section(
        service.snapshot(),
        fates,
        {remote: fate for (_, remote), fate in fates.items()},
    )


def ports_of(connection: Connection, found: Section | None) -> str | None:
    """Which protection a flow of the connection got; None where there is nothing to say."""
    if found is None:
        return None
    if connection.state is State.KEYED:
        return _of_tunnel(connection.live_tunnel)
    if connection.state is not State.CLEAR:
        return None
    fate = _fate(connection, found)
    if fate is None or fate.leg is Leg.TUNNEL:
        wanted = connection.rule.sst is Sst.ONLY
        return "clear; no flow has asked for its ports to be sealed" if wanted else "clear"
    if fate.sealed:
        return "clear with ports sealed"
    if fate.dropped:
        return f"dropped, ports can't be sealed: {fate.reason}"
    return f"clear, ports not sealed: {fate.reason}"


def _of_tunnel(tunnel: Tunnel | None) -> str:
    inside = tunnel is not None and tunnel.sealed
    around = tunnel is not None and tunnel.shielded
    match inside, around:
        case True, True:
            return "tunnel with ports sealed inside and around"
        case True, False:
            return "tunnel with ports sealed inside"
        case False, True:
            return "tunnel with ports sealed around"
    if tunnel is not None and tunnel.unsealed:
        return f"tunnel, ports not sealed: {tunnel.unsealed}"
    return "tunnel"


def _fate(connection: Connection, found: Section) -> Fate | None:
    """Of the latest flow; behind our own NAT the kernel may see another source than the policy."""
    local, remote = connection.selectors.local, connection.selectors.remote
    if remote.num_addresses == 1:
        there: IPv4Address | IPv6Address = remote.network_address
        if local.num_addresses == 1 and (local.network_address, there) in found.fates:
            return found.fates[local.network_address, there]
        return found.latest.get(there)
    return next((fate for there, fate in found.latest.items() if there in remote), None)
