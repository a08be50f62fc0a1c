"""Random lives of the coordinator: whatever happens in whatever order, certain things hold.

`World` stands for all that is around `oegw.gateway.Gateway`: the DNS, the keying core, the
datapath, the kernel's verdicts, decision points and an operator.  Each answers when chance will
have it.  After every step, and when all is over, the world is looked at.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

import ike.events as keying
from dnsrecords.outcome import Gateway as FoundGateway
from dnsrecords.outcome import (
    GatewaysFound,
    KeysFound,
    Malformed,
    NothingFound,
    PeerFound,
    Unanswered,
)
from dnsrecords.trust import Trust
from ike.events import Failure, TrafficSelector, TransportAddress
from oegw import commands as do
from oegw import events as happened
from oegw.assurance import UnsignedDelegation
from oegw.commands import Verdict
from oegw.connection import State
from oegw.datapath.interface import (
    Direction,
    PeerAddressChanged,
    SaExpired,
    SaKey,
    UnknownSpiReceived,
    Usage,
)
from oegw.decision import DecisionPoint, NoAnswer, OnTimeout, Opinion, Replies
from oegw.gateway import CoordinatorSettings, Gateway, Lifespans
from oegw.gateways import Choice, MultihomingSettings
from oegw.intercept.verdicts import Shape, shape_of
from oegw.nat import Nat, Translation
from oegw.peer import ConfiguredPeer
from oegw.portencryption import lacks
from oegw.selfknowledge import OwnSettings
from policy.flow import Flow
from policy.rule import (
    ANY_PORT,
    Category,
    OnFailure,
    PortRange,
    Require,
    Rule,
    Scope,
    Sst,
    SstStrength,
)
from policy.table import PolicyTable
from tests.support.playbook import (
    ALICE,
    BOB,
    DAVE,
    SG_A,
    SG_B,
    SG_D,
    CountingTrace,
    configured,
    rsa_key,
)

STRICT, BRANCH, HIDDEN, HIDING = map(
    ip_address, ("192.2.0.67", "192.4.0.1", "192.168.0.65", "192.168.0.66")
)
SG_E = ip_address("192.1.1.7")
GATEWAYS = (SG_B, SG_D, SG_E)
SOURCES = (ALICE, DAVE, SG_A, HIDDEN, HIDING)
DESTINATIONS = (BOB, STRICT, BRANCH, SG_B)
TRAFFIC: tuple[dict[str, int], ...] = (
    {"protocol": 1},
    {"protocol": 6, "source_port": 1234, "destination_port": 25},
    {"protocol": 6, "source_port": 1234, "destination_port": 443},
)
NAT = Nat((Translation(ip_network("192.168.0.0/24"), ip_network("192.1.1.4/32")),))
POINTS = (
    DecisionPoint("first", "http://192.1.0.80/"),
    DecisionPoint("second", "http://192.1.0.81/", on_timeout=OnTimeout.DENY),
)


@dataclass
class Negotiation:
    """A tunnel as the keying core knows it."""

    number: int
    local: TrafficSelector
    remote: TrafficSelector
    gateway: Any
    ours: bool
    replaces: int | None = None
    stage: str = "asked"  # proposed, asked, inbound, confirmed, up
    retired: bool = False  # another one is preferred
    sst: bool = False  # port encryption inside was offered and, if by the peer, accepted

    @property
    def pair(self) -> tuple[TrafficSelector, TrafficSelector]:
        return self.local, self.remote


class World:
    """One life.  ``seed`` decides everything."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.now = 1000.0
        # Few flows and few gateways, so that much befalls each.
        self.flows = [
            Flow(source, destination, **traffic)
            for source in chance.sample(SOURCES, chance.choice((1, 2, 2, 5)))
            for destination in chance.sample(DESTINATIONS, chance.choice((1, 1, 2, 4)))
            for traffic in chance.sample(TRAFFIC, chance.choice((1, 2, 3)))
        ]
        self.far = chance.sample(GATEWAYS, chance.choice((1, 2, 3)))
        self.luck = chance.choice((0.5, 0.8, 0.95))
        self.upheaval = chance.choice((0.1, 1.0, 3.0))  # reloads and orders of the operator
        self.ports = random.Random(f"ports {seed}")  # what has to do with port encryption
        self.encrypts = self.ports.random() < 0.6
        self.sealed_peers: set[Any] = set()  # whose IKE comes with its ports encrypted
        self.trace = CountingTrace()
        self.peers = {
            "vpn": chance.choice(
                (
                    ConfiguredPeer(SG_D, rsa_key("sg-d")),
                    ConfiguredPeer(SG_D, None),
                    ConfiguredPeer("branch.example", rsa_key("sg-d"), "branch.example"),
                    ConfiguredPeer(None, rsa_key("sg-d"), "branch.example"),
                )
            )
        }
        self.points = chance.choice(((), (), POINTS, POINTS[:1]))
        self.gateway = Gateway(
            self.random_table(),
            CoordinatorSettings(
                addresses=(SG_A,),
                peers=self.peers,
                unsigned_delegation=chance.choice(tuple(UnsignedDelegation)),
                lifespans=Lifespans(no_record=chance.choice((3.0, 300.0))),
                contacts=frozenset(chance.sample(GATEWAYS, 1)),
                setups_per_source=chance.choice((2, 32, 32)),
                setups=chance.choice((2, 1000, 1000)),
                setups_per_second=chance.choice((0.5, 250.0, 250.0)),
                connections=chance.choice((2, 65536, 65536)),
                nat=chance.choice((Nat(), NAT)),
                multihoming=MultihomingSettings(chance.choice(tuple(Choice))),
                own=chance.choice((None, OwnSettings(rsa_key("own")))),
                decision_points=self.points,
                encrypts_ports=self.encrypts,
                came_shielded=lambda local, remote: remote in self.sealed_peers,
            ),
            self.trace,
        )
        self.log: list[str] = []
        self.port_keys: set[int] = set()  # tunnels
        self.seals: set[int] = set()  # those whose key seals what leaves
        self.shieldings: dict[int, tuple[Any, Any]] = {}  # tunnels that wait for a shield
        self.shields: set[tuple[Any, Any]] = set()  # asked for, and not taken back
        self.lookups: dict[int, do.Command] = {}
        self.negotiations: dict[int, Negotiation] = {}
        self.installs: list[do.InstallSa] = []
        self.sas: dict[SaKey, int] = {}
        self.verdicts: dict[Scope, tuple[Verdict, float | None]] = {}
        self.packets: dict[int, Flow] = {}
        self.fates: dict[int, str] = {}
        self.queries = 0
        self.channels: set[int] = {7}
        self.next_packet = self.next_proposal = 1
        self.next_spi = 0x1000
        self.next_channel = 100
        self.waiting: list[Any] = []  # events of the keying core
        self.gateway._responder._prove(7)
        self.execute(self.gateway.begin(self.now))

    # The policy.

    def random_table(self) -> PolicyTable:
        chance, rules = self.chance, []
        for make in (self._strict, self._web, self._mail, self._passive):
            if chance.random() < 0.4:
                rules.append(self._with_ports(make()))
        if chance.random() < 0.5:
            vpn = replace(configured("vpn", "192.1.0.0/24", "192.4.0.0/24"), override=True)
            rules.append(self._with_ports(vpn))
        default = Rule(
            "default",
            Category.OPPORTUNISTIC,
            on_failure=chance.choice((OnFailure.CLEAR, OnFailure.CLEAR, OnFailure.DROP)),
            relax=chance.random() < 0.2,
            require=chance.choice((Require.ANY, Require.ANY, Require.ANY, Require.SECURE)),
        )
        return PolicyTable(rules, self._with_ports(default))

    def _with_ports(self, rule: Rule) -> Rule:
        """The rule, now and then with port encryption, as far as the configuration allows it."""
        placements = [Sst.OFF, Sst.OFF, Sst.OUTER]
        if rule.destination_ports == ANY_PORT:
            placements.append(Sst.INNER)
        sst, strength = self.ports.choice(placements), self.ports.choice(tuple(SstStrength))
        if not self.encrypts or rule.category in (Category.PERMIT, Category.DENY):
            return rule
        return replace(rule, sst=sst, sst_strength=strength)

    def _strict(self) -> Rule:
        return Rule(
            "strict", Category.OPPORTUNISTIC, None, (ip_network(STRICT),),
            on_failure=OnFailure.DROP, override=True, relax=self.chance.random() < 0.3,
        )  # fmt: skip

    def _web(self) -> Rule:
        return Rule(
            "web", Category.OPPORTUNISTIC, None, None, 6, destination_ports=PortRange(443, 443),
            on_failure=OnFailure.DROP, override=True,
            require=self.chance.choice(tuple(Require)),
        )  # fmt: skip

    def _mail(self) -> Rule:
        category = self.chance.choice((Category.PERMIT, Category.DENY, Category.OPPORTUNISTIC))
        return Rule(
            "mail", category, None, None, 6, destination_ports=PortRange(25, 25), override=True,
            icmp=category is Category.DENY,
        )  # fmt: skip

    def _passive(self) -> Rule:
        return Rule(
            "passive", Category.OPPORTUNISTIC, None, (ip_network(BOB),),
            on_failure=self.chance.choice(tuple(OnFailure)), initiate=False, override=True,
        )  # fmt: skip

    # What the gateway wants.

    def feed(self, event: Any) -> None:
        self.log.append(f"{self.now:.1f} {event}")
        self.execute(self.gateway.receive(event, self.now))

    def execute(self, commands: list[do.Command]) -> None:
        for command in commands:
            self.log.append(f"        {command}")
            self.obey(command)
        while self.waiting:
            event = self.waiting.pop(0)
            self.log.append(f"{self.now:.1f} core: {event}")
            for command in self.gateway.receive(event, self.now):
                self.log.append(f"        {command}")
                self.obey(command)

    def obey(self, command: do.Command) -> None:
        match command:
            case (
                do.StartLookup(lookup=number)
                | do.StartKeyLookup(lookup=number)
                | do.StartPeerLookup(lookup=number)
                | do.StartDecision(lookup=number)
            ):
                assert number not in self.lookups
                self.lookups[number] = command
            case do.CancelLookup(lookup=number):
                del self.lookups[number]
            case do.StartNegotiation(tunnel=number, request=request):
                assert number not in self.negotiations
                self.negotiations[number] = Negotiation(
                    number, request.local_selector, request.remote_selector, request.remote, True,
                    request.replaces, sst=request.sst,
                )  # fmt: skip
                assert self.encrypts or not request.sst
                assert number not in self.shieldings, "message 1 before the shield"
                connection = self.gateway._ledger.connections.of_tunnel(number)
                assert connection is not None
                if connection.rule.needs_sealed_tunnel and connection.rule.sst is Sst.OUTER:
                    assert (request.local, request.remote) in self.shields, "without a shield"
                    assert request.encapsulation is keying.Encapsulation.UDP
            case do.ShieldGateway(tunnel=number, local=local, remote=remote):
                self.shieldings[number] = local, remote
                self.shields.add((local, remote))
            case do.UnshieldGateway(local=local, remote=remote):
                self.shields.remove((local, remote))
            case do.SealTunnel(tunnel=number):
                assert number not in self.port_keys
                self.port_keys.add(number)
            case do.SendSealed(tunnel=number):
                assert number in self.port_keys
                assert any(
                    key.direction is Direction.OUTBOUND and tunnel == number
                    for key, tunnel in self.sas.items()
                ), "sealed before the peer has the key"
                self.seals.add(number)
            case do.SendUnsealed(tunnel=number):
                self.seals.remove(number)
            case do.UnsealTunnel(tunnel=number):
                self.port_keys.remove(number)
                self.seals.discard(number)
            case do.AcceptTunnel(tunnel=number, sst=sst):
                if number in self.negotiations:
                    assert self.negotiations[number].sst or not sst
                    self.negotiations[number].sst = sst
                    assert self.negotiations[number].stage == "proposed"
                    self.negotiations[number].stage = "asked"
            case do.RefuseTunnel(tunnel=number):
                # The core answers with NegotiationFailed, as it does to every end before the last.
                if self.negotiations.pop(number, None) is not None:
                    self.waiting.append(
                        keying.NegotiationFailed(number, Failure.CANCELLED, "refused by us")
                    )
            case do.ConfirmInbound(tunnel=number):
                known = self.negotiations.get(number)
                if known is not None and known.stage == "inbound":
                    known.stage = "confirmed"
            case do.CloseTunnel(tunnel=number):
                known = self.negotiations.pop(number, None)
                if known is not None:
                    self.waiting.append(
                        keying.TunnelClosed(number, "closed")
                        if known.stage == "up"
                        else keying.NegotiationFailed(number, Failure.CANCELLED, "closed")
                    )
            case do.InstallSa(tunnel=number):
                known = self.negotiations.get(number)
                if known is not None and known.sst and known.stage == "inbound":
                    assert number in self.port_keys, "what comes sealed can't be opened"
                self.installs.append(command)
            case do.RemoveSa(key=key):
                self.sas.pop(key, None)
            case do.MoveSa(tunnel=number, key=key, destination=destination):
                if key in self.sas:
                    if self.chance.random() < 0.2:
                        self.waiting.append(happened.SaMoveFailed(number, key, "no"))
                    else:
                        self.sas[replace(key, destination=destination)] = self.sas.pop(key)
            case do.QueryUsage():
                self.queries += 1
            case do.InstallPolicy(scope=scope, verdict=verdict, lifespan=lifespan):
                assert lifespan is None or lifespan > 0
                self.verdicts[scope] = verdict, None if lifespan is None else self.now + lifespan
            case do.RemovePolicy(scope=scope):
                self.verdicts.pop(scope, None)
            case do.ReleaseHeld(packets=packets, verdict=verdict):
                for packet in packets:
                    self.gone(packet, verdict.value)
            case do.DiscardHeld(packets=packets, trigger=trigger):
                for packet in packets:
                    self.gone(packet, trigger)

    def gone(self, packet: int, fate: str) -> None:
        assert packet not in self.fates, f"packet {packet} twice: {self.fates[packet]}, {fate}"
        self.fates[packet] = fate
        flow = self.packets[packet]
        if fate == Verdict.CLEAR.value:
            assert not self.rule(flow).guarded, f"{flow} left in clear"
            assert self.rule(flow).category is not Category.DENY, f"{flow} left in clear"

    def rule(self, flow: Flow) -> Rule:
        return self.gateway.nat.seen(flow, self.gateway.table).rule

    def verdict(self, flow: Flow) -> Verdict | None:
        """What the kernel does with a packet, the narrowest answer first."""
        found: dict[Shape, Verdict] = {}
        for scope, (verdict, until) in self.verdicts.items():
            if (until is None or until > self.now) and _in(flow, scope):
                found[shape_of(scope)] = verdict
        return next((found[shape] for shape in Shape if shape in found), None)

    # What happens.

    def step(self) -> None:
        steps: tuple[tuple[float, Callable[[], None]], ...] = (
            (12, self.packet),
            (14, self.answer),
            (18, self.negotiate),
            (5 * (1 - self.luck), self.negotiation_fails),
            (5, self.proposal),
            (14, self.install),
            (1.5, self.tunnel_closes),
            (2, self.tunnel_expires),
            (3, self.usage),
            (6, self.time_passes),
            (0.5 * self.upheaval, self.reload),
            (1 * self.upheaval, self.operator),
            (1.5, self.signs),
            (0.5, self.peer_moves),
            (1, self.key_questions),
            (10, self.shield),
        )
        [step] = self.chance.choices([s for _, s in steps], [w for w, _ in steps])
        step()

    def shield(self) -> None:
        """The path to a gateway was probed; a peer's begins to be shielded, or ceases to."""
        self.sealed_peers ^= {self.ports.choice(GATEWAYS)} if self.ports.random() < 0.3 else set()
        if self.shieldings:
            number = self.ports.choice(list(self.shieldings))
            del self.shieldings[number]
            reason = None if self.ports.random() < self.luck else "stripped"
            self.feed(happened.GatewayShielded(number, reason))

    def packet(self, flow: Flow | None = None) -> None:
        flow = flow or self.chance.choice(self.flows)
        if self.verdict(flow) is not None and self.chance.random() < 0.9:
            return  # the kernel knows; now and then one was in the queue already
        number, self.next_packet = self.next_packet, self.next_packet + 1
        self.packets[number] = flow
        self.feed(happened.PacketTrapped(flow, number, 100))

    def answer(self, number: int | None = None) -> None:
        if number is None:
            if not self.lookups:
                return
            number = self.chance.choice(list(self.lookups))
        command = self.lookups.pop(number)
        match command:
            case do.StartLookup(address=address, purpose=purpose):
                outcome = self.gateways(purpose == "own" or address in (ALICE, DAVE))
                self.feed(happened.LookupEnded(number, outcome))
            case do.StartKeyLookup(identity=identity):
                self.feed(happened.KeyLookupEnded(number, self.keys(identity)))
            case do.StartPeerLookup():
                found = PeerFound((SG_D,), (rsa_key("sg-d"),), 60.0, self.trust())
                self.feed(happened.PeerLookupEnded(number, self.or_nothing(found)))
            case do.StartDecision():
                self.feed(happened.DecisionsEnded(number, self.replies()))

    def trust(self) -> Trust:
        return Trust.SECURE if self.chance.random() < self.luck else Trust.INSECURE

    def or_nothing(self, found: Any) -> Any:
        chance = self.chance
        if chance.random() < self.luck:
            return found
        return chance.choice(
            (
                NothingFound(chance.choice((0.0, 2.0, 300.0)), "none"),
                Unanswered("silence"),
                Unanswered("silence"),
                Malformed("bogus", 60.0),
            )
        )

    def gateways(self, own: bool) -> Any:
        chance = self.chance
        if own:
            found = (FoundGateway(10, SG_A, None, (rsa_key("own"),)),)
        else:
            found = tuple(
                FoundGateway(
                    chance.choice((10, 20)), gateway, None,
                    chance.choice(((), (rsa_key(_key_of(gateway)),))), chance.random() < 0.3,
                    self.trust(),
                )
                for gateway in chance.sample(self.far, chance.randint(1, len(self.far)))
            )  # fmt: skip
            found = tuple(sorted(found, key=lambda gateway: gateway.precedence))
        return self.or_nothing(GatewaysFound(found, chance.choice((2.0, 3600.0)), self.trust()))

    def keys(self, identity: Any) -> Any:
        key = "own" if identity == SG_A else _key_of(identity)
        return self.or_nothing(KeysFound((rsa_key(key),), 60.0, self.trust()))

    def replies(self) -> Replies:
        return tuple((point, self.reply()) for point in self.points or POINTS)

    def reply(self) -> Any:
        chance = self.chance
        category = chance.choice((Category.PERMIT, Category.DENY, Category.OPPORTUNISTIC, None))
        ttl = chance.choice((1.0, 10.0, 600.0))
        if chance.random() < 0.3:
            return NoAnswer("timeout")
        if category is not Category.OPPORTUNISTIC:
            return Opinion(category, ttl=ttl, icmp=chance.random() < 0.5)
        return Opinion(
            category, chance.choice((None, *OnFailure)), chance.choice((None, *Require)),
            chance.choice((None, False)), ttl=ttl,
        )  # fmt: skip

    def some(self, *stages: str) -> Negotiation | None:
        fitting = [n for n in self.negotiations.values() if n.stage in stages]
        return self.chance.choice(fitting) if fitting else None

    def negotiate(self) -> None:
        """A negotiation goes on by one step."""
        known = self.some("asked", "confirmed")
        if known is None:
            return
        spi, self.next_spi = self.next_spi, self.next_spi + 1
        ports = keying.UdpPorts(4500, 4500) if self.chance.random() < 0.3 else None
        here, there = (SG_A, known.local), (known.gateway, known.remote)
        inward = known.stage == "asked"
        source, destination = (there, here) if inward else (here, there)
        sa = keying.EspSa(
            spi, source[0], destination[0], source[1], destination[1], "aes-gcm-16", bytes(20),
            None, b"", True, 3600, None, ports,
        )  # fmt: skip
        if inward:
            known.stage = "inbound"
            known.sst = known.sst and (not known.ours or self.ports.random() < 0.8)
            key, translated = bytes(16) if known.sst else None, self.ports.random() < 0.1
            self.feed(keying.InboundSaEstablished(known.number, sa, key, translated))
        else:
            known.stage = "up"
            self.feed(keying.OutboundSaEstablished(known.number, sa))
            self.settle(known)

    def negotiation_fails(self, failure: Failure | None = None) -> None:
        known = self.some("proposed", "asked", "inbound", "confirmed")
        if known is not None:
            del self.negotiations[known.number]
            reason = failure or self.chance.choice(tuple(Failure))
            self.feed(keying.NegotiationFailed(known.number, reason, "so it is"))

    def proposal(self) -> None:
        chance = self.chance
        number, self.next_proposal = self.next_proposal, self.next_proposal + 2
        gateway, flow = chance.choice(self.far), chance.choice(self.flows)
        local = SG_A if flow.source in (HIDDEN, HIDING) else flow.source
        remote = flow.destination
        way = chance.choice((0, 0, 0, 25, 443))
        here = TrafficSelector(ip_network(local), 6 if way else 0, way)
        there = TrafficSelector(ip_network(remote), 6 if way else 0, way)
        identity: Any = gateway
        if remote == BRANCH:
            here = TrafficSelector(ip_network("192.1.0.0/24"))
            there = TrafficSelector(ip_network("192.4.0.0/24"))
            gateway, identity = SG_D, chance.choice((SG_D, "branch.example"))
        elif way:
            here = replace(here, port=0)
        sst = self.encrypts and self.ports.random() < 0.6
        self.negotiations[number] = Negotiation(
            number, here, there, gateway, False, stage="proposed", sst=sst
        )
        channel = chance.choice(tuple(self.channels))
        self.feed(
            keying.TunnelProposed(
                number, channel, identity, rsa_key(_key_of(identity)), TransportAddress(SG_A),
                TransportAddress(gateway, chance.choice((500, 4500))), here, there, sst,
            )
        )  # fmt: skip

    def install(self) -> None:
        if not self.installs:
            return
        command = self.installs.pop(self.chance.randrange(len(self.installs)))
        key = command.sa.key
        if self.chance.random() < 0.2 * (1 - self.luck):
            self.feed(happened.SaInstallFailed(command.tunnel, key, "no room"))
            return
        self.sas[key] = command.tunnel
        self.feed(happened.SaInstalled(command.tunnel, key))

    def tunnel_closes(self) -> None:
        known = self.some("up")
        if known is not None:
            del self.negotiations[known.number]
            reason = self.chance.choice(("deleted by the peer", keying.DEAD_PEER))
            self.feed(keying.TunnelClosed(known.number, reason))

    def tunnel_expires(self) -> None:
        known = self.some("up")
        if known is not None and not known.retired:
            self.feed(keying.TunnelExpiring(known.number))
        if self.sas:
            key = self.chance.choice(list(self.sas))
            self.feed(SaExpired(key, hard=self.chance.random() < 0.3))

    def settle(self, younger: Negotiation) -> None:
        """Two tunnels were begun at once: now and then the elder is preferred."""
        if younger.number not in self.negotiations or self.chance.random() < 0.5:
            return
        for elder in list(self.negotiations.values()):
            alike = elder.pair == younger.pair and elder.gateway == younger.gateway
            if elder is not younger and alike and elder.stage == "up" and not elder.retired:
                for other in self.negotiations.values():
                    if other.pair == elder.pair and other.stage == "up":
                        other.retired = other is not elder
                self.feed(keying.TunnelPreferred(elder.number))
                return

    def usage(self) -> None:
        chance = self.chance
        usage = {
            key: Usage(1, 100, self.now - chance.random() * 100)
            for key in self.sas
            if chance.random() < 0.5
        }
        self.feed(happened.UsageReported(usage))
        self.queries = 0

    def time_passes(self) -> None:
        due = self.gateway.next_timer()
        if due is not None and self.chance.random() < 0.5:
            self.now = max(self.now, due)
        else:
            self.now += self.chance.choice((0.01, 0.01, 0.5, 1.0, 5.0, 70.0))
        self.tick()

    def tick(self) -> None:
        self.log.append(f"{self.now:.1f} timer")
        self.execute(self.gateway.handle_timer(self.now))

    def reload(self) -> None:
        if self.chance.random() < 0.5:
            self.points = self.chance.choice(((), POINTS, POINTS[:1]))
        self.log.append(f"{self.now:.1f} reload")
        table = self.random_table()
        self.log.append(f"        {table.rules} {table.default} {self.points}")
        self.verdicts = {s: v for s, v in self.verdicts.items() if v[0] is Verdict.TUNNEL}
        if self.chance.random() < 0.3:
            self.peers = {"vpn": ConfiguredPeer(SG_D, rsa_key("sg-d"))}
        self.execute(self.gateway.replace_policy(table, self.peers, self.now, self.points))

    def operator(self) -> None:
        chance = self.chance
        match chance.randrange(3):
            case 0:
                self.log.append(f"{self.now:.1f} probe")
                self.execute(self.gateway.probe(chance.choice(self.flows), self.now))
            case 1:
                self.log.append(f"{self.now:.1f} forget")
                network = ip_network(f"{chance.choice(DESTINATIONS)}/24", strict=False)
                self.execute(self.gateway.forget(network, self.now)[1])
            case 2:
                self.log.append(f"{self.now:.1f} close")
                where = ip_network(chance.choice((*DESTINATIONS, *GATEWAYS)))
                self.execute(self.gateway.close(where, self.now)[1])

    def signs(self) -> None:
        chance, gateway = self.chance, self.chance.choice(self.far)
        there = TransportAddress(gateway)
        outbound = [key for key in self.sas if key.direction is Direction.OUTBOUND]
        match chance.randrange(5):
            case 0:
                self.feed(UnknownSpiReceived(gateway, SG_A, 4711))
            case 1 if outbound:
                key = chance.choice(outbound)
                self.feed(
                    keying.SpiRefused(
                        TransportAddress(key.destination), key.spi, chance.random() < 0.5
                    )
                )
            case 2:
                number, self.next_channel = self.next_channel, self.next_channel + 1
                self.channels.add(number)
                self.feed(
                    keying.KeyingChannelEstablished(
                        number, TransportAddress(SG_A), there, gateway, rsa_key(_key_of(gateway)),
                        chance.random() < 0.5, "modern", 0.1,
                    )
                )  # fmt: skip
            case 3 if len(self.channels) > 1:
                number = chance.choice(sorted(self.channels - {7}))
                self.channels.discard(number)
                self.feed(keying.KeyingChannelClosed(number, "over"))

    def key_questions(self) -> None:
        gateway = self.chance.choice(GATEWAYS)
        number, self.next_channel = self.next_channel, self.next_channel + 1
        here, there = TransportAddress(SG_A), TransportAddress(gateway)
        if self.chance.random() < 0.5:
            self.feed(keying.ExchangeStarted(number, here, there))
        else:
            self.feed(
                keying.PeerKeyNeeded(number, gateway, there, initiator=self.chance.random() < 0.5)
            )

    def peer_moves(self) -> None:
        inbound = [key for key in self.sas if key.direction is Direction.INBOUND]
        if inbound and self.chance.random() < 0.5:
            self.feed(PeerAddressChanged(self.chance.choice(inbound), SG_E, 1024))
        known = self.some("up")
        if known is not None:
            known.gateway = self.chance.choice(GATEWAYS)
            there = TransportAddress(known.gateway, 1025)
            self.feed(keying.PeerMoved(7, there, (known.number,)))

    # What holds.

    def look(self) -> None:
        """After each step."""
        ledger = self.gateway._ledger
        assert set(ledger.lookups) == set(self.lookups)
        undecided = {p for p in self.packets if p not in self.fates}
        assert len(undecided) == ledger.hold.packets == self.gateway.held[0]
        for flow in self.flows:
            self.look_at(flow)
        installing = Counter(install.tunnel for install in self.installs)
        for connection in self.gateway.connections():
            who = f"{connection.state} {connection.selectors} {connection.reason}"
            match connection.state:
                case State.POTENTIAL:
                    assert connection.inquiry is not None, who
                    assert connection.inquiry.open, who
                case State.PENDING:
                    hopes = [t for t in connection.tunnels.values() if not t.receives_only]
                    assert hopes, who
                case State.EXPIRING:
                    open_ = connection.inquiry and connection.inquiry.open
                    waits = open_ and connection.renewing is None
                    assert connection.expires is not None or waits or connection.tunnels, who
                case State.CLEAR | State.DENIED:
                    assert connection.expires is not None, who
                    assert (connection.expires, connection.number) in ledger._expiries, who
                case State.KEYED:
                    assert any(tunnel.carries for tunnel in connection.tunnels.values()), who
                    if connection.rule.category is Category.OPPORTUNISTIC:
                        looks = {number for _, number in self.gateway._ageing._looks}
                        looks |= self.gateway._ageing._looking
                        assert connection.number in looks, f"{who}: nobody looks at it"
                case State.NONEXISTENT:
                    assert connection.tunnels, who
            if connection.inquiry is not None:
                assert set(connection.inquiry.open) <= set(self.lookups), who
            if connection.number in ledger.connections._asking:
                behind = connection.state is State.EXPIRING and connection.expires is None
                assert connection.under_way or behind, who
            live = connection.live_tunnel
            assert connection.seals == (live.number if live and live.sealed else None), who
            assert connection.seals is None or connection.seals in self.seals, who
            for number, tunnel in connection.tunnels.items():
                known = self.negotiations.get(number)
                if known is None:
                    assert number in self.shieldings, f"{who}: {tunnel} is nobody's"
                    continue
                if known.stage == "up" and not tunnel.up:
                    assert installing[number], f"{who}: {tunnel} is never installed"
        for number, known in self.negotiations.items():
            if known.stage == "proposed":
                asked = any(
                    getattr(getattr(a, "proposal", None), "tunnel", None) == number
                    for a in ledger.lookups.values()
                )
                assert asked, f"proposal {number} is never answered"
            else:
                assert ledger.connections.of_tunnel(number) is not None, f"{number} was forgotten"
        lingering = {key for _, _, key, _ in ledger._lingering}
        for key, number in self.sas.items():
            assert ledger.connections.tunnel_of_sa(key) == number or key in lingering, (
                f"{key} stays"
            )

    def look_at(self, flow: Flow) -> None:
        """The kernel's verdict for one flow."""
        verdict, rule = self.verdict(flow), self.rule(flow)
        if verdict is Verdict.CLEAR:
            assert not rule.guarded, f"{flow} passes in clear"
            assert rule.category is not Category.DENY, f"{flow} passes in clear"
        if verdict is None or rule.category in (Category.PERMIT, Category.DENY):
            return
        connection = self.gateway.find(flow)
        assert connection is not None, f"{flow}: {verdict} by nobody"
        if verdict is Verdict.TUNNEL:
            assert connection.standing is State.KEYED, f"{flow}: {verdict}, {connection.standing}"
            if rule.require is Require.SECURE and not rule.relax:
                assert connection.trust is Trust.SECURE, f"{flow}: trust {connection.trust}"
            live = connection.live_tunnel
            if live is not None:
                assert not lacks(rule, live), f"{flow}: {live} for {rule}"
        elif self.gateway._initiator.selectors(flow, rule) == connection.selectors:
            # Beside one that is for a part of it only, there are other connections.
            assert connection.standing is not State.KEYED, f"{flow}: {verdict} beside a tunnel"

    def wind_down(self) -> None:
        """Nothing begins any more; all that is open ends, and time passes."""
        for _ in range(3000):
            if self.lookups:
                self.answer(next(iter(self.lookups)))
            elif self.installs:
                self.install()
            elif self.some("proposed", "asked", "inbound", "confirmed"):
                self.negotiation_fails(Failure.SILENCE)
            elif self.shieldings:
                self.shield()
            elif self.queries:
                self.feed(happened.UsageReported({}))
                self.queries = 0
            elif (due := self.gateway.next_timer()) is not None:
                self.now = max(self.now + 0.01, due)
                self.tick()
            elif self.some("up"):
                self.tunnel_closes()
            elif len(self.channels) > 1:
                number = max(self.channels)
                self.channels.discard(number)
                self.feed(keying.KeyingChannelClosed(number, "over"))
            else:
                break
            self.look()
        self.now += 10000.0
        self.tick()
        self.over()

    def over(self) -> None:
        ledger, homes = self.gateway._ledger, self.gateway._initiator.homes
        table = ledger.connections
        assert not list(self.gateway.connections())
        assert not self.lookups
        assert not self.negotiations
        assert not self.sas
        assert not self.port_keys
        assert not self.seals
        assert not self.shields
        assert not [s for s, (_, until) in self.verdicts.items() if until is None]
        assert not [p for p in self.packets if p not in self.fates]
        assert self.gateway.held == (0, 0)
        left = {
            "approvals": ledger.approvals, "lingering": ledger._lingering,
            "expiries": ledger._expiries, "looks": self.gateway._ageing._looks,
            "looking": self.gateway._ageing._looking, "returns": homes._returns,
            "leading": homes._leading, "cuts": homes._cuts, "ahead": self.gateway._ahead._under_way,
            "by_pair": table._by_pair, "by_tunnel": table._by_tunnel, "begun": table._begun,
            "begun_by_peers": table._begun_by_peers, "by_gateway": table._by_gateway,
            "by_sa": table._by_sa, "under_way": table._under_way, "asking": table._asking,
            "hold": ledger.hold._places, "shields": ledger.shields._shields,
            "shields' tunnels": ledger.shields._of_tunnel,
            "shields' channels": ledger.shields._of_channel,
        }  # fmt: skip
        assert not {name: what for name, what in left.items() if what}


def _key_of(identity: Any) -> str:
    names = {SG_B: "sg-b", SG_D: "sg-d", SG_E: "sg-e", "branch.example": "sg-d"}
    return names.get(identity, "other")


def _in(flow: Flow, scope: Scope) -> bool:
    return (
        flow.source in scope.source
        and flow.destination in scope.destination
        and scope.protocol in (None, flow.protocol)
        and scope.source_ports.first <= (flow.source_port or 0) <= scope.source_ports.last
        and scope.destination_ports.first
        <= (flow.destination_port or 0)
        <= scope.destination_ports.last
    )


def live(seed: int, steps: int) -> None:
    world = World(seed)
    try:
        for _ in range(steps):
            world.step()
            world.look()
        world.wind_down()
    except Exception as error:
        tail = "\n".join(world.log[-600:])
        raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}\n{tail}") from error


@pytest.mark.parametrize("seed", range(60))
def test_a_short_life(seed: int) -> None:
    live(seed, 150)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1400))
def test_a_long_life(seed: int) -> None:
    live(seed, 400)
