"""Identities on the wire: phase 1 names and phase 2 traffic selectors (RFC 2407 section 4.6.2).

The body of an ID payload is type (1 octet), protocol (1), port (2), then the
value.  Opportunistic tunnels name single hosts as subnets of full length (RFC
4322 section 4.6.2); what is read may also be a plain address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Self

from ike.errors import InvalidIdentity
from ike.events import Identity, IPAddress, IPNetwork, TrafficSelector
from ike.registry import IdType
from ike.wire import Reader, Writer

_UDP = 17
_IKE_PORT = 500
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\Z")


@dataclass(frozen=True, slots=True)
class Identification:
    """The body of an ID payload."""

    kind: IdType
    protocol: int
    port: int
    value: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        return cls(IdType(reader.number(1)), reader.number(1), reader.number(2), reader.rest())

    def serialize(self, writer: Writer) -> None:
        writer.number(self.kind, 1)
        writer.number(self.protocol, 1)
        writer.number(self.port, 2)
        writer.octets(self.value)

    @classmethod
    def of_identity(cls, identity: Identity) -> Self:
        """How we name ourselves in phase 1: protocol and port are 0."""
        if isinstance(identity, str):
            return cls(IdType.FQDN, 0, 0, normal_name(identity).encode("ascii"))
        kind = IdType.IPV4_ADDR if identity.version == 4 else IdType.IPV6_ADDR
        return cls(kind, 0, 0, identity.packed)

    def identity(self) -> Identity:
        """The phase 1 identity.

        Raises ``InvalidIdentity`` for other types than address and FQDN, for values
        that are none, and for a protocol and port other than 0 or UDP 500 (RFC 2407
        section 4.6.2).
        """
        if self.protocol not in (0, _UDP) or self.port not in (0, _IKE_PORT):
            raise InvalidIdentity(f"protocol {self.protocol} port {self.port} in phase 1")
        if self.kind == IdType.FQDN:
            try:
                return normal_name(self.value.decode("ascii"))
            except ValueError as error:
                raise InvalidIdentity("not a domain name") from error
        if self.kind in (IdType.IPV4_ADDR, IdType.IPV6_ADDR):
            return self._address(self.value)
        raise InvalidIdentity(f"{self.kind.name} in phase 1")

    @classmethod
    def of_selector(cls, selector: TrafficSelector) -> Self:
        """How we say one side of a tunnel: always as a subnet."""
        network = selector.network
        kind = IdType.IPV4_ADDR_SUBNET if network.version == 4 else IdType.IPV6_ADDR_SUBNET
        value = network.network_address.packed + network.netmask.packed
        return cls(kind, selector.protocol, selector.port, value)

    def selector(self) -> TrafficSelector:
        """One side of a tunnel; raises ``InvalidIdentity`` for what is no host or subnet."""
        if self.kind in (IdType.IPV4_ADDR, IdType.IPV6_ADDR):
            network = host_network(self._address(self.value))
        elif self.kind in (IdType.IPV4_ADDR_SUBNET, IdType.IPV6_ADDR_SUBNET):
            network = self._subnet()
        else:
            raise InvalidIdentity(f"{self.kind.name} in phase 2")
        return TrafficSelector(network, self.protocol, self.port)

    def _address(self, value: bytes) -> IPAddress:
        four = self.kind in (IdType.IPV4_ADDR, IdType.IPV4_ADDR_SUBNET)
        if len(value) != (4 if four else 16):
            raise InvalidIdentity(f"{len(value)} octets in {self.kind.name}")
        return IPv4Address(value) if four else IPv6Address(value)

    def _subnet(self) -> IPNetwork:
        half = len(self.value) // 2
        address = self._address(self.value[:half])
        mask = int(self._address(self.value[half:]))
        bits = address.max_prefixlen
        prefix = mask.bit_count()
        if mask != ((1 << prefix) - 1) << (bits - prefix):
            raise InvalidIdentity("the mask has holes")
        try:
            if isinstance(address, IPv4Address):
                return IPv4Network((address, prefix))
            return IPv6Network((address, prefix))
        except ValueError as error:
            raise InvalidIdentity("host bits in a subnet") from error


def normal_name(name: str) -> str:
    """A domain name in lower case, without the final dot; ``ValueError`` if it is none."""
    normal = name.removesuffix(".").lower()
    if not _NAME.match(normal):
        raise ValueError(f"not a domain name: {name!r}")
    return normal


def normal_identity(identity: Identity) -> Identity:
    return normal_name(identity) if isinstance(identity, str) else identity


def host_network(address: IPAddress) -> IPNetwork:
    """The subnet that holds this host alone."""
    if isinstance(address, IPv4Address):
        return IPv4Network((address, 32))
    return IPv6Network((address, 128))
