"""One house of a town: the cores of a gateway, and what the daemon, the kernel and the network are
to them.  See `town`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import rsa

import ike.events as keying
from dnsrecords.lookup import GatewayLookup, KeyLookup
from dnsrecords.peer import PeerLookup
from ike.configuration import Configuration
from ike.endpoint import Endpoint
from oegw import events as happened
from oegw.commands import Verdict
from oegw.datapath.interface import DatapathError
from oegw.datapath.userspace.engine import Deliver, EngineSettings, SendEsp
from oegw.gateway import CoordinatorSettings, Gateway
from oegw.packet.checksum import checksum
from oegw.packet.flow import flow_of
from oegw.selfknowledge import OwnSettings
from policy.builtin import builtin_rules
from policy.flow import Flow
from policy.rule import Rule, Scope
from policy.table import PolicyTable
from tests.support.datapath_engines import Engines
from tests.support.playbook import CountingTrace, opportunistic
from tests.support.town_dns import Stub

if TYPE_CHECKING:
    from tests.support.town import Town

IPAddress = IPv4Address | IPv6Address
ICMP, UDP, ESP = 1, 17, 50
ECHO, REPLY = 8, 0
USAGE_LOOK = 5.0  # seconds between two readings of the counters, as in the daemon
INSTALLING = 0.0005  # seconds that an SA takes to be installed


@cache
def town_key(name: str, bits: int = 1024) -> rsa.RSAPrivateKey:
    """A key for each name and run: the smallest that is allowed, for it is quick."""
    return rsa.generate_private_key(65537, bits)


def packet_of(
    source: IPAddress, destination: IPAddress, protocol: int = ICMP, rest: bytes = b""
) -> bytes:
    """An IPv4 packet."""
    length = 20 + len(rest)
    head = b"\x45\x00" + length.to_bytes(2, "big") + b"\x00\x00\x00\x00\x40"
    head += bytes((protocol, 0, 0)) + source.packed + destination.packed
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + rest


def echo(number: int, kind: int = ECHO) -> bytes:
    return bytes((kind, 0, 0, 0)) + number.to_bytes(4, "big")


def ports(source: int, destination: int, text: bytes = b"") -> bytes:
    """A UDP header and what follows."""
    both = source.to_bytes(2, "big") + destination.to_bytes(2, "big")
    return both + (8 + len(text)).to_bytes(2, "big") + bytes(2) + text


class _ForgetfulTrace(CountingTrace):
    """Counts what is dropped, and keeps no lines."""

    def event(self, category: str, event: str, **fields: Any) -> None:
        pass


@dataclass
class _Place:
    verdict: Verdict
    expires: float | None
    drop_clear_inbound: bool


class House:
    """One gateway with its clients."""

    def __init__(
        self,
        town: Town,
        name: str,
        address: str,
        inside: tuple[str, ...],
        rules: tuple[Rule, ...],
        default: Rule | None,
        ike: dict[str, Any],
        settings: dict[str, Any],
        check_own: bool,
        fqdn: str | None,
    ) -> None:
        self.town = town
        self.name = name
        self.address = ip_address(address)
        self.inside = tuple(ip_network(text) for text in inside)
        self.key = town_key(name)
        self.ike_settings = {"private_key": self.key, **ike}
        self.settings = settings
        self.check_own, self.fqdn = check_own, fqdn
        self.decide: Callable[[Any], Any] = lambda question: ()  # the decision points
        self.unshieldable: str | None = None  # why no pair of gateways can be shielded
        self.behind: House | None = None  # the gateway in whose network it is itself
        self.on = True
        self.rules, self.default = rules, default or opportunistic("default")
        self.stub = Stub(town.zones, town.later, lambda: town.now, f"{town.seed} {name}")
        self._boots = 0
        self.boot()

    def boot(self, **ike: Any) -> None:
        """Begin with empty hands, as after a crash."""
        self._boots += 1
        self.trace = CountingTrace() if self.town.record else _ForgetfulTrace()
        self.events: list[keying.Event] = []
        self.drops: Counter[str] = Counter()  # of packets
        self.held: dict[int, bytes] = {}
        self.verdicts: dict[Scope, _Place] = {}
        self.port_keys: dict[int, tuple[Any, Any, bytes]] = {}  # by tunnel: our side, theirs, key
        self.seals: set[int] = set()  # tunnels whose key seals what leaves
        self.shields: set[tuple[IPAddress, IPAddress]] = set()  # our gateway address, theirs
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.retransmissions = 0
        randomness = random.Random(f"{self.town.seed} {self.name} {self._boots}").randbytes
        self.endpoint = Endpoint(Configuration(**{**self.ike_settings, **ike}), randomness)
        self.engine = Engines(EngineSettings(), randomness)
        self.gateway = Gateway(
            self._table(),
            CoordinatorSettings(addresses=(self.address,), own=self._own(), **self.settings),
            self.trace,
        )
        self._packets = 0
        self._lookups: set[int] = set()
        self._armed: float | None = None
        self._looking = False
        boots = self._boots
        self.town.later(0.0, lambda: self._begin(boots))

    def _begin(self, boots: int) -> None:
        if boots == self._boots:
            self.execute(self.gateway.begin(self.town.now))
            self.pump()

    def _own(self) -> OwnSettings | None:
        if not self.check_own:
            return None
        key, name = self.ike_settings["private_key"], self.ike_settings.get("identity")
        name = name.lower().rstrip(".") if isinstance(name, str) else None
        return OwnSettings(key.public_key(), name, self.fqdn)

    def _table(self) -> PolicyTable:
        return PolicyTable(
            (*self.rules, *builtin_rules(self.inside, (self.address,))), self.default
        )

    def reload(self, rules: tuple[Rule, ...], default: Rule | None = None, **peers: Any) -> None:
        """A new policy, as SIGHUP brings it."""
        self.rules, self.default = rules, default or self.default
        table = self._table()
        kept = {s: p for s, p in self.verdicts.items() if p.verdict is Verdict.TUNNEL}
        self.verdicts = kept
        self.execute(self.gateway.replace_policy(table, peers, self.town.now))
        self.pump()

    def owns(self, address: IPAddress) -> bool:
        return address == self.address or any(
            address.version == n.version and address in n for n in self.inside
        )

    # What happens to packets.

    def leave(self, packet: bytes) -> None:
        """A packet of our side that would go out."""
        flow, now = flow_of(packet), self.town.now
        if self.gateway.table.lookup(flow).rule.builtin:
            self._clear(packet)
            return
        place = self._verdict(flow)
        if place is None:
            self._packets += 1
            self.held[self._packets] = packet
            self.feed(happened.PacketTrapped(flow, self._packets, len(packet)))
        else:
            self._go(packet, place.verdict)
        del now

    def _verdict(self, flow: Flow) -> _Place | None:
        for scope, place in reversed(list(self.verdicts.items())):
            if place.expires is not None and place.expires <= self.town.now:
                del self.verdicts[scope]
            elif _covers(scope, flow):
                return place
        return None

    def _go(self, packet: bytes, verdict: Verdict) -> None:
        if verdict is Verdict.CLEAR:
            self._clear(packet)
        elif verdict is Verdict.TUNNEL:
            self._act(self.engine.outbound(packet, self.town.now))
        else:
            self.drops[verdict.value] += 1

    def _clear(self, packet: bytes) -> None:
        flow = flow_of(packet)
        if self.gateway.table.lookup(flow).rule.protected:
            self.drops["guard"] += 1
            return
        self._emit("clear", flow.source, flow.destination, packet)

    def _emit(self, kind: str, source: IPAddress, destination: IPAddress, data: bytes) -> None:
        """Out by the outer interface: to the town, or to the gateway that this one is behind."""
        if self.behind is None or self.behind.owns(destination):
            self.town.cross(kind, source, destination, data)
        elif kind == "clear":
            self.behind.leave(data)
        else:
            self.behind.leave(enclosed(kind, source, destination, data))

    def _disclosed(self, packet: bytes, flow: Flow) -> tuple[str, bytes] | None:
        """The ISAKMP or ESP for this gateway that is in a packet."""
        if flow.destination == self.address and flow.protocol == ESP:
            return "esp", packet[20:]
        if (flow.destination, flow.destination_port) == (self.address, 500):
            return "ike", packet[28:]
        return None

    def take(self, packet: bytes, how: str) -> None:
        """A packet that the gateway before this one has let in."""
        flow = flow_of(packet)
        if how == "tunnel" and self._disclosed(packet, flow) is None:
            self.town.arrive(packet, how)
        else:
            self.come_in("clear", flow.source, flow.destination, packet)

    def _act(self, actions: list[Any]) -> None:
        for action in actions:
            if isinstance(action, SendEsp):
                sa = action.sa.sa
                self._emit("esp", sa.source, sa.destination, action.payload)
            elif isinstance(action, Deliver):
                self._let_in(action.packet, "tunnel")
        self._drain_engine()

    def _drain_engine(self) -> None:
        taken, self.engine.events = self.engine.events, []
        for event in taken:
            self.feed(event)

    def come_in(self, kind: str, source: IPAddress, destination: IPAddress, data: bytes) -> None:
        """Something from outside."""
        now = self.town.now
        if kind == "clear" and (found := self._disclosed(data, flow_of(data))) is not None:
            kind, data = found
        if kind == "ike":
            here, there = keying.TransportAddress(destination), keying.TransportAddress(source)
            self.endpoint.receive_datagram(now, data, here, there)
            self.pump()
        elif kind == "esp":
            act = self.engine.inbound(data, source.packed, destination.packed, 0, None, now)
            self._act(act)
        else:
            flow = flow_of(data)
            back = Flow(
                flow.destination, flow.source, flow.protocol, flow.destination_port,
                flow.source_port,
            )  # fmt: skip
            place = self._verdict(back)
            rule = self.gateway.table.lookup(back).rule
            if place is not None and place.drop_clear_inbound:
                self.drops["keyed_clear_inbound"] += 1
            elif rule.category.value == "configured":
                self.drops["clear_inbound"] += 1
            else:
                self._let_in(data, "clear")

    def _let_in(self, packet: bytes, how: str) -> None:
        there = self.town.owner(flow_of(packet).destination)
        if there is not None and there.behind is self:
            there.take(packet, how)
        else:
            self.town.arrive(packet, how)

    # The pump, as in the daemon.

    def feed(self, event: Any) -> None:
        self.execute(self.gateway.receive(event, self.town.now))
        self.pump()

    def pump(self) -> None:
        now = self.town.now
        while (event := self.endpoint.next_event()) is not None:
            if self.town.record:
                self.events.append(event)
            if isinstance(event, keying.MessageSent):
                self.sent[event.name] += 1
                self.retransmissions += event.retransmission
            elif isinstance(event, keying.MessageReceived):
                self.received[event.name] += 1
            self.execute(self.gateway.receive(event, now))
        for datagram in self.endpoint.datagrams_to_send():
            self._emit("ike", datagram.local.address, datagram.remote.address, datagram.data)
        self._rearm()

    def _rearm(self) -> None:
        moments = (
            self.endpoint.next_timer(), self.gateway.next_timer(), self.engine.next_deadline(),
        )  # fmt: skip
        due = min((m for m in moments if m is not None), default=None)
        if due is not None and (self._armed is None or due < self._armed):
            self._armed = due
            boots = self._boots
            self.town.at(due, lambda: self._ring(boots, due))
        if not self._looking and self.endpoint._directory.tunnels:
            self._looking = True
            boots = self._boots
            self.town.later(USAGE_LOOK, lambda: self._look(boots))

    def _ring(self, boots: int, due: float) -> None:
        if boots != self._boots or self._armed != due:
            return
        self._armed = None
        now = self.town.now
        self.endpoint.handle_timer(now)
        self.execute(self.gateway.handle_timer(now))
        self.engine.expire_due(now)
        self._drain_engine()
        self.pump()

    def _look(self, boots: int) -> None:
        """Read the counters now and then."""
        if boots == self._boots:
            self._looking = False
            self.feed(happened.UsageReported(self.engine.usage()))

    def execute(self, commands: list[Any]) -> None:
        for command in commands:
            getattr(self, "_do_" + type(command).__name__)(command)

    def _look_up(self, number: int, lookup: Any, event: Callable[[int, Any], Any]) -> None:
        boots = self._boots
        self._lookups.add(number)

        def done(outcome: Any) -> None:
            if boots == self._boots and number in self._lookups:
                self._lookups.discard(number)
                self.feed(event(number, outcome))

        self.stub.run(lookup, done)

    def _do_StartLookup(self, c: Any) -> None:  # noqa: N802 - named for the commands
        lookup = GatewayLookup(
            c.address, self.stub.shuffle, with_keys=c.with_keys,
            may_ask=self.gateway.may_look_up,
        )  # fmt: skip
        self._look_up(c.lookup, lookup, happened.LookupEnded)

    def _do_StartKeyLookup(self, c: Any) -> None:  # noqa: N802
        self._look_up(c.lookup, KeyLookup(c.identity), happened.KeyLookupEnded)

    def _do_StartPeerLookup(self, c: Any) -> None:  # noqa: N802
        self._look_up(c.lookup, PeerLookup(c.name, c.identity), happened.PeerLookupEnded)

    def _do_StartDecision(self, c: Any) -> None:  # noqa: N802
        boots = self._boots
        self._lookups.add(c.lookup)

        def answered() -> None:
            if boots == self._boots and c.lookup in self._lookups:
                self._lookups.discard(c.lookup)
                self.feed(happened.DecisionsEnded(c.lookup, self.decide(c.question)))

        self.town.later(self.town.delay, answered)

    def _do_CancelLookup(self, c: Any) -> None:  # noqa: N802
        self._lookups.discard(c.lookup)

    def _do_StartNegotiation(self, c: Any) -> None:  # noqa: N802
        self.endpoint.initiate(self.town.now, c.tunnel, c.request)

    def _do_ProvidePeerKeys(self, c: Any) -> None:  # noqa: N802
        self.endpoint.provide_peer_keys(self.town.now, c.channel, c.keys)

    def _do_RefusePeerKeys(self, c: Any) -> None:  # noqa: N802
        self.endpoint.peer_keys_unavailable(self.town.now, c.channel, c.reason)

    def _do_AcceptTunnel(self, c: Any) -> None:  # noqa: N802
        self.endpoint.accept_tunnel(self.town.now, c.tunnel, sst=c.sst)

    def _do_RefuseTunnel(self, c: Any) -> None:  # noqa: N802
        self.endpoint.refuse_tunnel(self.town.now, c.tunnel, c.reason)

    def _do_ConfirmInbound(self, c: Any) -> None:  # noqa: N802
        self.endpoint.confirm_inbound(self.town.now, c.tunnel)

    def _do_CloseTunnel(self, c: Any) -> None:  # noqa: N802
        self.endpoint.close_tunnel(self.town.now, c.tunnel)

    def _do_CloseChannels(self, c: Any) -> None:  # noqa: N802
        self.endpoint.close_channels(self.town.now, c.remote)

    def _do_ReportExpiring(self, c: Any) -> None:  # noqa: N802
        self.endpoint.tunnel_expiring(self.town.now, c.tunnel)

    def _do_ReportTraffic(self, c: Any) -> None:  # noqa: N802
        self.endpoint.traffic_seen(self.town.now, c.tunnel, c.received, c.sent)

    def _do_ReportPeerMoved(self, c: Any) -> None:  # noqa: N802
        self.endpoint.peer_moved(self.town.now, c.tunnel, c.remote)

    def _do_GreetPeer(self, c: Any) -> None:  # noqa: N802
        self.endpoint.greet(self.town.now, c.request)

    def _do_DisownSpi(self, c: Any) -> None:  # noqa: N802
        self.endpoint.disown(self.town.now, c.local, c.remote, c.spi)

    def _do_QueryUsage(self, c: Any) -> None:  # noqa: N802
        boots = self._boots
        self.town.later(0.0, lambda: self._look(boots))

    def _do_InstallSa(self, c: Any) -> None:  # noqa: N802
        boots = self._boots

        def install() -> None:
            if boots != self._boots:
                return
            try:
                self.engine.install(c.sa, self.town.now)
            except DatapathError as error:
                self.feed(happened.SaInstallFailed(c.tunnel, c.sa.key, str(error)))
            else:
                self.feed(happened.SaInstalled(c.tunnel, c.sa.key))

        self.town.later(INSTALLING + c.after, install)

    def _do_MoveSa(self, c: Any) -> None:  # noqa: N802
        self.engine.move(c.key, c.source, c.destination, c.encapsulation)

    def _do_PreferSa(self, c: Any) -> None:  # noqa: N802
        self.engine.prefer(c.key)

    def _do_SealTunnel(self, c: Any) -> None:  # noqa: N802
        self.port_keys[c.tunnel] = (c.local, c.remote, c.key)

    def _do_SendSealed(self, c: Any) -> None:  # noqa: N802
        self.seals.add(c.tunnel)

    def _do_SendUnsealed(self, c: Any) -> None:  # noqa: N802
        self.seals.remove(c.tunnel)

    def _do_UnsealTunnel(self, c: Any) -> None:  # noqa: N802
        del self.port_keys[c.tunnel]
        self.seals.discard(c.tunnel)

    def _do_ShieldGateway(self, c: Any) -> None:  # noqa: N802
        boots = self._boots

        def answered() -> None:
            if boots == self._boots:
                if self.unshieldable is None:
                    self.shields.add((c.local, c.remote))
                self.feed(happened.GatewayShielded(c.tunnel, self.unshieldable))

        self.town.later(2 * self.town.delay, answered)

    def _do_UnshieldGateway(self, c: Any) -> None:  # noqa: N802
        self.shields.discard((c.local, c.remote))

    def _do_RemoveSa(self, c: Any) -> None:  # noqa: N802
        self.engine.remove(c.key)

    def _do_InstallPolicy(self, c: Any) -> None:  # noqa: N802
        expires = None if c.lifespan is None else self.town.now + c.lifespan
        self.verdicts.pop(c.scope, None)
        self.verdicts[c.scope] = _Place(c.verdict, expires, c.drop_clear_inbound)

    def _do_RemovePolicy(self, c: Any) -> None:  # noqa: N802
        self.verdicts.pop(c.scope, None)

    def _do_ReleaseHeld(self, c: Any) -> None:  # noqa: N802
        for number in c.packets:
            self._go(self.held.pop(number), c.verdict)

    def _do_DiscardHeld(self, c: Any) -> None:  # noqa: N802
        for number in c.packets:
            del self.held[number]
            self.drops[c.trigger] += 1

    # To read.

    def state(self, source: str, destination: str, protocol: int = ICMP) -> str | None:
        found = self.gateway.find(Flow(ip_address(source), ip_address(destination), protocol))
        return found.state.value if found else None

    def seen(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def triggers(self) -> list[str]:
        return [event.trigger for event in self.seen(keying.MessageDropped)]

    @property
    def sas(self) -> int:
        """SAs installed."""
        return len(self.engine.usage())

    def traced(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, name, fields in self.trace.lines if name == event]


def enclosed(kind: str, source: IPAddress, destination: IPAddress, data: bytes) -> bytes:
    """ISAKMP or ESP as a packet like any other, for gateways that it only passes."""
    if kind == "esp":
        return packet_of(source, destination, ESP, data)
    return packet_of(source, destination, UDP, ports(500, 500, data))


def _covers(scope: Scope, flow: Flow) -> bool:
    if flow.source.version != scope.source.version:
        return False
    if flow.source not in scope.source or flow.destination not in scope.destination:
        return False
    if scope.protocol not in (None, flow.protocol):
        return False
    return all(
        port is None or wanted.first <= port <= wanted.last
        for port, wanted in (
            (flow.source_port, scope.source_ports),
            (flow.destination_port, scope.destination_ports),
        )
    )
