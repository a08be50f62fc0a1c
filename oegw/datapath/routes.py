"""Policy routing: packets with the tunnel mark go into the tunnel device, or nowhere.

    ip rule add priority 4500 fwmark TUNNEL/MASK table 4500
    ip route add default dev oegw0 metric 1 table 4500
    ip route add unreachable default metric 1000000 table 4500

When the user-space datapath's process dies, the kernel removes the device and with it the first
route.  Rule and second route stay, so that marked packets are refused and never fall through to
the main table.  A later start finds them again by table, priority and our protocol number, which
other programs' rules and routes do not carry.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Protocol

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from oegw.datapath.interface import DatapathError
from oegw.intercept.interface import Marks

# Our choices.
PROTOCOL = 45  # "who made this" of routes and rules; not in iproute2's rt_protos
_TUNNEL_METRIC = 1
_UNREACHABLE_METRIC = 1_000_000

# Linux, <linux/rtnetlink.h>, <linux/fib_rules.h>.
_RTN_UNREACHABLE = 7
_FR_ACT_TO_TBL = 1

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_EXISTS = 17


class RoutingSettings(Protocol):
    """What each datapath's settings say of it."""

    @property
    def tunnel_interface(self) -> str: ...
    @property
    def mark_mask(self) -> int: ...
    @property
    def routing_table(self) -> int: ...
    @property
    def rule_priority(self) -> int: ...


class TunnelRoutes:
    """Our rules and routes.  Methods raise DatapathError."""

    def __init__(self, settings: RoutingSettings) -> None:
        self._settings = settings
        self._mark = Marks(settings.mark_mask).tunnel

    def install(self) -> None:
        """Put the refusal in place, then the rule, then the way into the device: so no moment
        has marked packets in clear.  What an earlier run left is used or replaced, and if
        this fails, it stays: it is what still keeps marked packets from the main table."""
        settings = self._settings
        leftover = False
        try:
            with IPRoute() as route:
                leftover = any(self._rules(route, family) for family in _families())
                index = next(iter(route.link_lookup(ifname=settings.tunnel_interface)), None)
                if index is None:
                    raise DatapathError(f"there is no device {settings.tunnel_interface}")
                for family in _families():
                    self._add(route, family, type="unreachable", priority=_UNREACHABLE_METRIC)
                    stale = [rule for rule in self._rules(route, family) if not self._fits(rule)]
                    if len(self._rules(route, family)) == len(stale):
                        route.rule("add", **self._rule(family))
                    for rule in stale:
                        _delete_rule(route, rule)
                    self._add(route, family, oif=index, priority=_TUNNEL_METRIC)
        except NetlinkError as error:
            if not leftover:
                self.remove()
            raise DatapathError(f"policy routing: {error}") from None

    def mend(self) -> tuple[str, ...]:
        """Put back what somebody else took away; returns what that was."""
        try:
            with IPRoute() as route:
                gone = tuple(self._missing(route))
        except NetlinkError as error:
            raise DatapathError(f"policy routing: {error}") from None
        if gone:
            self.install()
        return gone

    def _missing(self, route: IPRoute) -> Iterator[str]:
        settings = self._settings
        for family in _families():
            version = 4 if family == socket.AF_INET else 6
            if not any(map(self._fits, self._rules(route, family))):
                yield f"IPv{version} rule of priority {settings.rule_priority}"
            metrics = {each.get_attr("RTA_PRIORITY") for each in self._routes(route, family)}
            if not metrics.issuperset((_TUNNEL_METRIC, _UNREACHABLE_METRIC)):
                yield f"IPv{version} routes of table {settings.routing_table}"

    def remove(self) -> None:
        """Remove what is ours, and nothing else."""
        try:
            with IPRoute() as route:
                for family in _families():
                    for rule in self._rules(route, family):
                        _delete_rule(route, rule)
                    for entry in self._routes(route, family):
                        _delete_route(route, entry)
        except NetlinkError as error:
            raise DatapathError(f"policy routing: {error}") from None

    def _rule(self, family: int) -> dict[str, Any]:
        return {
            "family": family,
            "priority": self._settings.rule_priority,
            "table": self._settings.routing_table,
            "fwmark": self._mark,
            "fwmask": self._settings.mark_mask,
            "protocol": PROTOCOL,
            "action": _FR_ACT_TO_TBL,
        }

    def _add(self, route: IPRoute, family: int, **fields: Any) -> None:
        try:
            route.route(
                "add",
                family=family,
                dst="default",
                table=self._settings.routing_table,
                proto=PROTOCOL,
                **fields,
            )
        except NetlinkError as error:
            if error.code != _EXISTS:
                raise

    def _rules(self, route: IPRoute, family: int) -> list[Any]:
        return [
            rule
            for rule in route.get_rules(family=family)
            if rule.get_attr("FRA_PROTOCOL") == PROTOCOL
            and rule.get_attr("FRA_PRIORITY") == self._settings.rule_priority
            and rule.get_attr("FRA_TABLE") == self._settings.routing_table
        ]

    def _fits(self, rule: Any) -> bool:
        return bool(
            rule.get_attr("FRA_FWMARK") == self._mark
            and rule.get_attr("FRA_FWMASK") == self._settings.mark_mask
        )

    def _routes(self, route: IPRoute, family: int) -> list[Any]:
        return [
            entry
            for entry in route.get_routes(family=family, table=self._settings.routing_table)
            if entry["proto"] == PROTOCOL
            and entry.get_attr("RTA_TABLE") == self._settings.routing_table
        ]


def _families() -> tuple[int, ...]:
    """Those that this kernel has."""
    present = []
    for family in _FAMILIES:
        try:
            socket.socket(family, socket.SOCK_DGRAM).close()
        except OSError:
            continue
        present.append(family)
    return tuple(present)


def _delete_rule(route: IPRoute, rule: Any) -> None:
    route.rule(
        "del",
        family=rule["family"],
        priority=rule.get_attr("FRA_PRIORITY"),
        table=rule.get_attr("FRA_TABLE"),
        fwmark=rule.get_attr("FRA_FWMARK"),
        fwmask=rule.get_attr("FRA_FWMASK"),
        protocol=PROTOCOL,
        action=_FR_ACT_TO_TBL,
    )


def _delete_route(route: IPRoute, entry: Any) -> None:
    fields: dict[str, Any] = {"priority": entry.get_attr("RTA_PRIORITY")}
    if entry["type"] == _RTN_UNREACHABLE:
        fields["type"] = "unreachable"
    else:
        fields["oif"] = entry.get_attr("RTA_OIF")
    route.route(
        "del",
        family=entry["family"],
        dst="default",
        table=entry.get_attr("RTA_TABLE"),
        proto=PROTOCOL,
        **fields,
    )
