"""The connections that exist, found by number, by tunnel, by SA and by packet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ike.events import Identity
from oegw.connection import Connection, Selectors, State, Tunnel, host_network
from oegw.datapath.interface import SaKey
from policy.flow import Flow, IPAddress, IPNetwork
from policy.rule import Category, Require, Rule

# Our choice: connections that one peer may begin; a gateway with so many pairs is a large site.
BEGUN_BY_ONE = 8192


class ConnectionTable:
    """Indexes only; it decides nothing.  ``limit`` bounds the number of connections."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._next_number = 1
        self._by_number: dict[int, Connection] = {}
        self._by_pair: dict[tuple[IPNetwork, IPNetwork], list[Connection]] = {}
        self._by_tunnel: dict[int, Connection] = {}
        self._begun: Counter[Identity] = Counter()
        self._begun_by_peers = 0
        self._by_gateway: dict[IPAddress, dict[int, None]] = {}
        self._by_sa: dict[SaKey, int] = {}
        self._under_way: Counter[IPAddress] = Counter()
        self._asking: dict[int, IPAddress] = {}

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._by_number.values()))

    def __len__(self) -> int:
        return len(self._by_number)

    @property
    def full(self) -> bool:
        return len(self._by_number) >= self._limit

    def admits(self, beginner: Identity) -> bool:
        """Whether this peer may begin one more: peers must not fill the table."""
        return (
            self._begun[beginner] < min(BEGUN_BY_ONE, self._limit // 4)
            and self._begun_by_peers < self._limit // 2
        )

    def create(
        self, selectors: Selectors, rule: Rule, now: float, beginner: Identity | None = None
    ) -> Connection:
        """A new connection, in state NONEXISTENT.  ``beginner``: the peer, if it was not us."""
        connection = Connection(self._next_number, selectors, rule, since=now, beginner=beginner)
        if beginner is not None:
            self._begun[beginner] += 1
            self._begun_by_peers += 1
        self._next_number += 1
        self._by_number[connection.number] = connection
        self._by_pair.setdefault((selectors.local, selectors.remote), []).append(connection)
        return connection

    def discard(self, connection: Connection) -> None:
        """Forget a connection that is over."""
        pair = (connection.selectors.local, connection.selectors.remote)
        del self._by_number[connection.number]
        self._by_pair[pair].remove(connection)
        if not self._by_pair[pair]:
            del self._by_pair[pair]
        for tunnel in list(connection.tunnels):
            self.remove_tunnel(connection, tunnel)
        self.no_longer_under_way(connection)
        if connection.beginner is not None:
            self._begun[connection.beginner] -= 1
            self._begun_by_peers -= 1
            if not self._begun[connection.beginner]:
                del self._begun[connection.beginner]

    def get(self, number: int) -> Connection | None:
        return self._by_number.get(number)

    def exact(self, selectors: Selectors, rule: Rule) -> Connection | None:
        """The connection of this rule with just these selectors."""
        pair = self._by_pair.get((selectors.local, selectors.remote), ())
        return next(
            (c for c in pair if c.selectors == selectors and c.rule.name == rule.name), None
        )

    def for_packet(self, flow: Flow, wanted: Selectors, rule: Rule) -> Connection | None:
        """The connection that a packet of ``rule`` belongs to.

        That is a keyed one that covers it, else the one with the selectors that
        the rule asks for.  Configured traffic belongs to its own rule's
        connection and no other: a stranger's tunnel must not carry it.  Nor must one that was made
        under another rule which demands less of the records: they may be good by chance only.
        """
        hosts = (host_network(flow.source), host_network(flow.destination))
        for pair in dict.fromkeys((hosts, (wanted.local, wanted.remote))):
            for connection in self._by_pair.get(pair, ()):
                mine = connection.rule.category is rule.category and (
                    rule.category is Category.OPPORTUNISTIC or connection.rule.name == rule.name
                )
                mine = mine and not _demands_more(rule, connection)
                if mine and connection.state is State.KEYED and connection.selectors.covers(flow):
                    return connection
        return self.exact(wanted, rule)

    def within(self, connection: Connection) -> list[Connection]:
        """The other opportunistic connections of its pair whose packets it covers."""
        pair = self._by_pair.get((connection.selectors.local, connection.selectors.remote), ())
        return [
            other
            for other in pair
            if other is not connection
            and other.rule.category is connection.rule.category is Category.OPPORTUNISTIC
            and other.selectors in connection.selectors
            and not _demands_more(other.rule, connection)
        ]

    def carried_beside(self, connection: Connection) -> bool:
        """Whether another connection of its pair has a tunnel that covers its packets."""
        pair = self._by_pair.get((connection.selectors.local, connection.selectors.remote), ())
        return any(
            other.state is State.KEYED and connection in self.within(other)
            for other in pair
            if other is not connection
        )

    def add_tunnel(self, connection: Connection, tunnel: Tunnel) -> None:
        connection.tunnels[tunnel.number] = tunnel
        self._by_tunnel[tunnel.number] = connection
        self._by_gateway.setdefault(tunnel.gateway, {})[tunnel.number] = None

    def remove_tunnel(self, connection: Connection, number: int) -> Tunnel | None:
        self._by_tunnel.pop(number, None)
        tunnel = connection.tunnels.pop(number, None)
        if tunnel is not None:
            self._forget_gateway(tunnel)
        for key in (tunnel.inbound, tunnel.outbound) if tunnel else ():
            if key is not None:
                self.remove_sa(key)
        return tunnel

    def lead(self, tunnel: Tunnel, gateway: IPAddress) -> None:
        """The tunnel leads to another address from now on."""
        self._forget_gateway(tunnel)
        tunnel.gateway = gateway
        self._by_gateway.setdefault(gateway, {})[tunnel.number] = None

    def _forget_gateway(self, tunnel: Tunnel) -> None:
        numbers = self._by_gateway.get(tunnel.gateway, {})
        numbers.pop(tunnel.number, None)
        if not numbers:
            self._by_gateway.pop(tunnel.gateway, None)

    def tunnel_with(self, gateway: IPAddress) -> Tunnel | None:
        """A tunnel that is up with this gateway."""
        for number in self._by_gateway.get(gateway, ()):
            tunnel = self._by_tunnel[number].tunnels[number]
            if tunnel.up:
                return tunnel
        return None

    def of_tunnel(self, number: int) -> Connection | None:
        return self._by_tunnel.get(number)

    def add_sa(self, key: SaKey, tunnel: int) -> None:
        self._by_sa[key] = tunnel

    def remove_sa(self, key: SaKey) -> None:
        self._by_sa.pop(key, None)

    def tunnel_of_sa(self, key: SaKey) -> int | None:
        return self._by_sa.get(key)

    def set_under_way(self, connection: Connection, source: IPAddress) -> None:
        """Count a set-up on the account of the inside host that asked for it."""
        if connection.number not in self._asking:
            self._asking[connection.number] = source
            self._under_way[source] += 1

    def no_longer_under_way(self, connection: Connection) -> None:
        source = self._asking.pop(connection.number, None)
        if source is not None:
            self._under_way[source] -= 1
            if not self._under_way[source]:
                del self._under_way[source]

    def under_way(self, source: IPAddress) -> int:
        """How many set-ups this inside host has under way."""
        return self._under_way[source]

    @property
    def all_under_way(self) -> int:
        """How many set-ups all of them have under way."""
        return len(self._asking)


def _demands_more(rule: Rule, connection: Connection) -> bool:
    """Whether a rule other than the connection's wants better records than that, or port
    encryption that it need not have.

    What a decision point has added for a while does not count.
    """
    if rule.name == connection.rule.name:
        return False
    if rule.needs_sealed_tunnel and (
        not connection.rule.needs_sealed_tunnel or connection.rule.sst is not rule.sst
    ):
        return True
    if rule.require is not Require.SECURE:
        return False
    unruled = connection.rule if connection.unruled is None else connection.unruled
    return Require.ANY in (connection.rule.require, unruled.require)
