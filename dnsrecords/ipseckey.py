"""The IPSECKEY record (RFC 4025): a gateway, and its key, for the host at whose name it stands.

    precedence: 1 octet | gateway type: 1 | algorithm: 1 | gateway | public key

    precedence gateway-type algorithm gateway base64-key

The gateway is nothing, an IPv4 or IPv6 address, or a domain name in wire form without compression.
It says what the TXT record of RFC 4322 says, and `reading` makes the same of both.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords import rsakey
from dnsrecords.delegation import refuse_unusable
from dnsrecords.errors import (
    MalformedDelegation,
    MalformedIpsecKey,
    MalformedName,
    MalformedRsaKey,
    shown,
)
from dnsrecords.name import normal_fqdn
from dnsrecords.outcome import IPAddress
from dnsrecords.wire import Reader

# Specification.
MAX_PRECEDENCE = 0xFF
ALGORITHM_NONE = 0  # RFC 4025 section 2.4: no key is present
ALGORITHM_RSA = 2
MAX_NAME_OCTETS = 255  # RFC 1035 section 2.3.4
MAX_LABEL = 63

_NUMBER = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)


class GatewayType(IntEnum):
    """RFC 4025 section 2.3."""

    NONE = 0  # the host itself
    IPV4 = 1
    IPV6 = 2
    NAME = 3


@dataclass(frozen=True, slots=True)
class IpsecKey:
    """One record.  ``key`` is as it stands there, of an RSA key in the form of RFC 3110, or empty.

    At most one of ``address`` and ``fqdn`` is given, the latter in lower case without a trailing
    dot; without either the host is its own gateway.
    """

    precedence: int
    address: IPAddress | None = None
    fqdn: str | None = None
    algorithm: int = ALGORITHM_RSA
    key: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.precedence <= MAX_PRECEDENCE:
            raise MalformedIpsecKey(
                f"precedence {self.precedence} is not within 0 to {MAX_PRECEDENCE}"
            )
        if self.algorithm not in (ALGORITHM_NONE, ALGORITHM_RSA):
            raise MalformedIpsecKey(f"algorithm {self.algorithm} is not RSA")
        if self.algorithm == ALGORITHM_NONE and self.key:
            raise MalformedIpsecKey("there is a key, and the algorithm says that there is none")
        if self.address is not None:
            if self.fqdn is not None:
                raise MalformedIpsecKey("gateway has both an address and a domain name")
            try:
                refuse_unusable(self.address)
            except MalformedDelegation as error:
                raise MalformedIpsecKey(str(error)) from error
        elif self.fqdn is not None:
            try:
                normal = normal_fqdn(self.fqdn)
            except MalformedName as error:
                raise MalformedIpsecKey(f"gateway: {error}") from error
            if normal != self.fqdn:
                what = f"{shown(self.fqdn)} is not in lower case without a last dot"
                raise MalformedIpsecKey(what)

    @property
    def gateway_type(self) -> GatewayType:
        if self.fqdn is not None:
            return GatewayType.NAME
        if self.address is None:
            return GatewayType.NONE
        return GatewayType.IPV4 if self.address.version == 4 else GatewayType.IPV6

    @classmethod
    def of(
        cls,
        precedence: int,
        address: IPAddress | None,
        fqdn: str | None,
        key: rsa.RSAPublicKey | None,
    ) -> IpsecKey:
        """The record for a gateway with this key."""
        algorithm = ALGORITHM_NONE if key is None else ALGORITHM_RSA
        octets = b"" if key is None else rsakey.serialize(key)
        return cls(precedence, address, fqdn, algorithm, octets)

    @classmethod
    def parse(cls, rdata: bytes) -> IpsecKey | None:
        """The record in ``rdata``, or None if it is for other keys or gateways than we know.

        A DSA key, say, or a gateway of a type that RFC 4025 does not have.  Raises
        MalformedIpsecKey for one that is ours and can't be read.  The key is not judged here.
        """
        reader = Reader(rdata, MalformedIpsecKey)
        precedence = reader.uint8("precedence")
        kind = reader.uint8("gateway type")
        algorithm = reader.uint8("algorithm")
        if algorithm not in (ALGORITHM_NONE, ALGORITHM_RSA) or kind > max(GatewayType):
            return None
        address: IPAddress | None = None
        fqdn: str | None = None
        match GatewayType(kind):
            case GatewayType.IPV4:
                address = IPv4Address(reader.take(4, "gateway"))
            case GatewayType.IPV6:
                address = IPv6Address(reader.take(16, "gateway"))
            case GatewayType.NAME:
                fqdn = _name(reader)
        return cls(precedence, address, fqdn, algorithm, reader.rest())

    def serialize(self) -> bytes:
        """The RDATA."""
        head = bytes([self.precedence, self.gateway_type, self.algorithm])
        gateway = b"" if self.address is None else self.address.packed
        if self.fqdn is not None:
            labels = [label.encode("ascii") for label in self.fqdn.split(".")]
            gateway = b"".join(bytes([len(label)]) + label for label in labels) + b"\x00"
        return head + gateway + self.key

    @classmethod
    def from_text(cls, text: str) -> IpsecKey:
        """The record as a zone file has it (RFC 4025 section 3.1).  Raises MalformedIpsecKey."""
        words = text.split()
        if words[:1] == ["("] and words[-1:] == [")"]:
            words = words[1:-1]
        if len(words) < 4 or not all(_NUMBER.fullmatch(word) for word in words[:3]):
            raise MalformedIpsecKey(f"{shown(text)} is not PRECEDENCE TYPE ALGORITHM GATEWAY KEY")
        precedence, kind, algorithm = map(int, words[:3])
        try:
            key = base64.b64decode("".join(words[4:]), validate=True)
        except ValueError as error:
            raise MalformedIpsecKey(f"key is not base64: {error}") from error
        address, fqdn = _gateway(kind, words[3])
        return cls(precedence, address, fqdn, algorithm, key)

    def presentation(self) -> str:
        """The RDATA as a zone file has it."""
        gateway = "." if self.address is None else str(self.address)
        if self.fqdn is not None:
            gateway = self.fqdn + "."
        words = [str(self.precedence), str(int(self.gateway_type)), str(self.algorithm), gateway]
        if self.key:
            words.append(base64.b64encode(self.key).decode("ascii"))
        return " ".join(words)

    def public_key(self) -> rsa.RSAPublicKey | None:
        """The key, or None if there is none.  Raises MalformedIpsecKey for one not to be used."""
        if not self.key:
            return None
        try:
            return rsakey.parse(self.key)
        except MalformedRsaKey as error:
            raise MalformedIpsecKey(str(error)) from error


def _gateway(kind: int, word: str) -> tuple[IPAddress | None, str | None]:
    try:
        match kind:
            case GatewayType.NONE if word == ".":
                return None, None
            case GatewayType.IPV4:
                return IPv4Address(word), None
            case GatewayType.IPV6:
                return IPv6Address(word), None
            case GatewayType.NAME:
                return None, normal_fqdn(word)
    except (AddressValueError, MalformedName) as error:
        raise MalformedIpsecKey(f"gateway: {error}") from error
    raise MalformedIpsecKey(f"gateway {shown(word)} is not of type {kind}")


def _name(reader: Reader) -> str:
    """A domain name in wire form; compressed it must not be (RFC 4025 section 2.5)."""
    labels: list[str] = []
    size = 1
    while (length := reader.uint8("label")) != 0:
        if length > MAX_LABEL:
            raise MalformedIpsecKey("gateway's name is compressed, or has a label of unknown kind")
        size += 1 + length
        if size > MAX_NAME_OCTETS:
            raise MalformedIpsecKey("gateway's name is too long")
        label = reader.take(length, "label").decode("latin-1")
        if "." in label:
            raise MalformedIpsecKey("gateway's name has a dot within a label")
        labels.append(label)
    try:
        return normal_fqdn(".".join(labels))
    except MalformedName as error:
        raise MalformedIpsecKey(f"gateway: {error}") from error
