"""The responder's view: may this stranger speak for that client (draft sections 4.9 and 4.12.2)?

Pure decisions over values; `gateway.Gateway` asks and acts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.outcome import Gateway
from ike.events import Encapsulation, Identity, TrafficSelector, TunnelProposed
from oegw.connection import Selectors, configured_selectors
from policy.flow import Flow, IPAddress
from policy.rule import Category, PortRange, Rule
from policy.table import PolicyTable

PublicKey = rsa.RSAPublicKey

IKE_PORTS = (500, 4500)  # RFC 2408 section 2.5.1; RFC 3947 section 4, for ESP in UDP


@dataclass(frozen=True, slots=True)
class ConfiguredPeer:
    """The far side of a configured rule.

    ``address``: an address; a domain name that is looked up for each negotiation; or None for a
    peer whose address varies, which has to begin.  ``key``: its RSA key, or None if its KEY records
    in the DNS say it.  ``identity``: what it calls itself; None means its address.
    ``encapsulation`` of None means what holds for all.
    """

    address: IPAddress | str | None
    key: PublicKey | None
    identity: Identity | None = None
    encapsulation: Encapsulation | None = None

    @property
    def expected_identity(self) -> Identity:
        """Raises ValueError if there is neither identity nor address: no configuration has that."""
        identity = self.address if self.identity is None else self.identity
        if identity is None:
            raise ValueError("a peer without address and identity")
        return identity


class Refusal(Exception):  # noqa: N818  (it is an answer to the peer, not an error of ours)
    """Why a proposed tunnel is refused."""


def same_key(one: rsa.RSAPublicKey, other: rsa.RSAPublicKey) -> bool:
    """Whether two RSA keys are the same numbers."""
    return one.public_numbers() == other.public_numbers()


def proposed_selectors(event: TunnelProposed) -> Selectors:
    """The proposal, seen from our side outwards.  Raises Refusal if the two IDs disagree."""
    local, remote = event.local_selector, event.remote_selector
    if local.network.version != remote.network.version:
        raise Refusal("the two sides are of different address families")
    if local.protocol != remote.protocol:
        raise Refusal("the two sides name different protocols")
    return Selectors(local.network, remote.network, local.protocol, local.port, remote.port)


def configured_rule(
    event: TunnelProposed,
    selectors: Selectors,
    table: PolicyTable,
    peers: dict[str, ConfiguredPeer],
) -> Rule | None:
    """The configured rule that the proposal fits word for word, if its own peer asks.

    Where the peer's key is that of the DNS, whoever asks has to see to it that it is.
    """
    for rule in table.rules:
        if rule.category is not Category.CONFIGURED:
            continue
        peer = peers[rule.name]
        if (
            peer.expected_identity == event.identity
            and configured_selectors(rule) == selectors
            and (peer.key is None or same_key(peer.key, event.key))
        ):
            return rule
    return None


def near_miss(
    event: TunnelProposed,
    selectors: Selectors,
    table: PolicyTable,
    peers: dict[str, ConfiguredPeer],
) -> str:
    """For the operator: what keeps the proposal from a configured rule that it almost fits."""
    missed = ""
    for rule in table.rules:
        if rule.category is not Category.CONFIGURED:
            continue
        expected, wanted = peers[rule.name].expected_identity, configured_selectors(rule)
        if wanted == selectors:
            return f"rule {rule.name!r} has this traffic for {expected}, with its key"
        if expected == event.identity:
            missed = f"rule {rule.name!r} of this peer is for {wanted.local} and {wanted.remote}"
    return missed


def opportunistic_rule(selectors: Selectors, table: PolicyTable) -> Rule:
    """The opportunistic rule that lets a stranger propose this tunnel.  Raises Refusal.

    A stranger may ask for one pair of hosts only, and never for traffic that
    a configured, denied or permitted rule claims: an opportunistic peer must
    not be able to pose as a configured one (RFC 4322 section 12.1).
    """
    for side in (selectors.local, selectors.remote):
        if side.prefixlen != side.max_prefixlen:
            raise Refusal(f"an opportunistic tunnel is for single hosts, not {side}")
    source = selectors.local.network_address
    destination = selectors.remote.network_address
    if source == destination:
        raise Refusal("both sides are the same host")
    flow = Flow(
        source,
        destination,
        selectors.protocol,
        selectors.local_port or None,
        selectors.remote_port or None,
    )
    rule = table.lookup(flow).rule
    if rule.category is not Category.OPPORTUNISTIC:
        raise Refusal(f"our policy for this pair is {rule.category.value} (rule {rule.name!r})")
    if (claim := configured_claim(selectors, table)) is not None:
        raise Refusal(f"part of this traffic is configured (rule {claim.name!r})")
    return rule


def configured_claim(selectors: Selectors, table: PolicyTable) -> Rule | None:
    """The configured rule that claims a protocol or port within a tunnel for a pair of hosts."""
    local, remote = selectors.local.network_address, selectors.remote.network_address
    for rule in table.rules:
        if rule.category is not Category.CONFIGURED or rule.protocol is None:
            continue  # one for every protocol is what a look-up of the pair finds
        if selectors.protocol not in (0, rule.protocol):
            continue
        others = [r for r in table.rules if r.protocol == rule.protocol and not r.builtin]
        sources = _turns(rule.source_ports, (r.source_ports for r in others))
        destinations = _turns(rule.destination_ports, (r.destination_ports for r in others))
        for source in _wanted(selectors.local_port, sources, rule.source_ports):
            for destination in _wanted(selectors.remote_port, destinations, rule.destination_ports):
                flow = Flow(local, remote, rule.protocol, source, destination)
                found = table.lookup(flow).rule
                if found.category is Category.CONFIGURED:
                    return found
    return None


def _turns(ports: PortRange, others: Iterable[PortRange]) -> list[int]:
    """The ports of a range at which the answer of the policy can change."""
    turns = {ports.first}
    for other in others:
        turns |= {other.first, other.last + 1}
    return sorted(port for port in turns if ports.first <= port <= ports.last)


def _wanted(port: int, turns: list[int], ports: PortRange) -> list[int]:
    """What to ask the policy about: all turns, or the one port that the tunnel is for."""
    if not port:
        return turns
    return [port] if ports.first <= port <= ports.last else []


def speaks_for_itself(identity: Identity, selector: TrafficSelector) -> bool:
    """Whether the tunnel's far host is the gateway itself: then no delegation is needed."""
    return isinstance(identity, IPv4Address | IPv6Address) and (
        selector.network.network_address == identity
    )


def is_at(event: TunnelProposed, client: IPAddress) -> bool:
    """Whether a peer known by name proposes the very address that it talks to us from.

    It need not have a reverse map then: no record of ``client`` says that another speaks for it,
    and it could answer us there (draft sections 6.3 and 8; FreeS/WAN's oe-road-01).  Behind a NAT
    it proves nothing, for others have the same address; there IKE leaves its own ports, or at
    least phase 1 finds the NAT.
    """
    return (
        isinstance(event.identity, str)
        and event.remote.port in IKE_PORTS
        and not event.translated
        and event.remote.address == client
    )


def delegated(
    gateways: tuple[Gateway, ...], identity: Identity, key: rsa.RSAPublicKey, *, proven: bool
) -> Gateway | None:
    """The one of the client's delegations that names gateway and key of phase 1 (4.12.3), if any.

    A delegation without key binds the gateway only; its key was ``proven`` by the KEY record of
    phase 1, or else is among the keys that were looked up with the delegation.
    """
    for gateway in gateways:
        if isinstance(identity, str):
            named = gateway.fqdn is not None and gateway.fqdn.lower() == identity.lower()
        else:
            named = gateway.address == identity
        keyless = gateway.keyless or not gateway.keys
        if named and ((proven and keyless) or any(same_key(key, k) for k in gateway.keys)):
            return gateway
    return None
