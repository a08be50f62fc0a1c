"""Playbooks for the gateway: an event goes in, exactly these commands come out.

No crypto, no sockets: keys are two small RSA keys made once, time is a number.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

import ike.events as keying
from dnsrecords.outcome import Gateway as FoundGateway
from dnsrecords.outcome import GatewayOutcome, GatewaysFound
from dnsrecords.trust import Trust
from ike.events import TrafficSelector, TransportAddress
from oegw.commands import Command, StartLookup
from oegw.datapath.interface import DatapathEvent, Direction, SaKey
from oegw.events import Event, LookupEnded, PacketTrapped
from oegw.gateway import CoordinatorSettings, Gateway
from policy.flow import Flow, IPAddress
from policy.rule import Category, OnFailure, Rule
from policy.table import PolicyTable

ALICE, BOB, DAVE = map(ip_address, ("192.1.0.65", "192.2.0.66", "192.3.0.68"))
SG_A, SG_B, SG_D = map(ip_address, ("192.1.1.4", "192.1.1.5", "192.1.1.6"))


@cache
def rsa_key(name: str) -> rsa.RSAPublicKey:
    """A key for each name, the same for the whole run."""
    return rsa.generate_private_key(65537, 1024).public_key()


class CountingTrace:
    """A trace that keeps its lines for assertions."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []
        self.drops: Counter[str] = Counter()

    def event(self, category: str, event: str, **fields: Any) -> None:
        self.lines.append((category, event, fields))

    def drop(self, category: str, trigger: str, **fields: Any) -> None:
        self.drops[trigger] += 1


class Playbook:
    """A gateway and its clock."""

    def __init__(
        self,
        *rules: Rule,
        default: Rule | None = None,
        **settings: Any,
    ) -> None:
        self.now = 1000.0
        self.trace = CountingTrace()
        self.gateway = Gateway(
            PolicyTable(rules, default or opportunistic("default")),
            CoordinatorSettings(addresses=(SG_A,), **settings),
            self.trace,
        )
        # Channel 7 of `proposal` is one that the peer began: its key was found under its identity.
        self.gateway._responder._prove(7)

    def send(self, event: Event | keying.Event | DatapathEvent) -> list[Command]:
        return self.gateway.receive(event, self.now)

    def renew(self, tunnel: int, outcome: GatewayOutcome | None = None) -> list[Command]:
        """A tunnel's life is nearly over, and the DNS is asked whether it may have a successor.

        It says that SG-B has Bob's traffic and its key, unless told otherwise.
        """
        [question] = self.send(keying.TunnelExpiring(tunnel))
        assert isinstance(question, StartLookup)
        answer = found((SG_B, "sg-b")) if outcome is None else outcome
        return self.send(LookupEnded(question.lookup, answer))

    def wait(self, seconds: float) -> list[Command]:
        self.now += seconds
        return self.gateway.handle_timer(self.now)

    def state(self, source: IPAddress = ALICE, destination: IPAddress = BOB) -> str | None:
        connection = self.gateway.find(Flow(source, destination, 1))
        return connection.state.value if connection else None


def opportunistic(
    name: str, destination: str | None = None, on_failure: OnFailure = OnFailure.CLEAR, **more: Any
) -> Rule:
    return _rule(name, Category.OPPORTUNISTIC, destination, on_failure=on_failure, **more)


def permit(name: str, destination: str | None, **more: Any) -> Rule:
    return _rule(name, Category.PERMIT, destination, **more)


def deny(name: str, destination: str, **more: Any) -> Rule:
    return _rule(name, Category.DENY, destination, **more)


def configured(name: str, source: str, destination: str) -> Rule:
    return Rule(name, Category.CONFIGURED, (ip_network(source),), (ip_network(destination),))


def _rule(name: str, category: Category, destination: str | None, **more: Any) -> Rule:
    networks = None if destination is None else (ip_network(destination),)
    return Rule(name, category, None, networks, **more)


def ping(packet: int, source: IPAddress = ALICE, destination: IPAddress = BOB) -> PacketTrapped:
    return PacketTrapped(Flow(source, destination, 1), packet, 84)


def found(*gateways: tuple[IPAddress, str], ttl: float = 3600.0) -> GatewayOutcome:
    return GatewaysFound(
        tuple(FoundGateway(10, a, None, (rsa_key(k),)) for a, k in gateways), ttl, Trust.INSECURE
    )


def host(address: IPAddress) -> TrafficSelector:
    return TrafficSelector(ip_network(address))


def esp_sa(
    source: IPAddress, destination: IPAddress, spi: int, inner: tuple[Any, Any]
) -> keying.EspSa:
    """An SA between two gateways for one pair of hosts."""
    return keying.EspSa(
        spi, source, destination, host(inner[0]), host(inner[1]), "aes-gcm-16", bytes(20), None,
        b"", True, 3600, None,
    )  # fmt: skip


def inbound_key(spi: int, destination: IPAddress = SG_A) -> SaKey:
    return SaKey(Direction.INBOUND, spi, destination)


def outbound_key(spi: int, destination: IPAddress = SG_B) -> SaKey:
    return SaKey(Direction.OUTBOUND, spi, destination)


def proposal(
    tunnel: int = 1,
    *,
    local: Any = None,
    remote: Any = None,
    identity: keying.Identity = SG_B,
    key: str = "sg-b",
    address: IPAddress = SG_B,
) -> keying.TunnelProposed:
    """SG-B proposes Bob to Alice, unless told otherwise."""
    return keying.TunnelProposed(
        tunnel,
        7,
        identity,
        rsa_key(key),
        TransportAddress(SG_A),
        TransportAddress(address),
        TrafficSelector(ip_network(local or ALICE)),
        TrafficSelector(ip_network(remote or BOB)),
    )
