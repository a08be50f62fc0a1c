"""The KEY record of a security gateway (RFC 2535 section 3.1, RFC 4322 section 5.1).

    flags: 2 octets | protocol: 1 | algorithm: 1 | RSA key as in RFC 3110

A name may have KEY records for other purposes; those are foreign, not wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords import rsakey
from dnsrecords.errors import MalformedHostKey, MalformedRsaKey
from dnsrecords.wire import Reader

# Specification: RFC 2535 sections 3.1.2 and 3.1.3, and the draft's section 6.1.
FLAGS = 0x4200  # not for confidentiality; of an entity that is not a zone
PROTOCOL_IPSEC = 4
ALGORITHM_RSA = 1
FLAG_NOT_FOR_AUTHENTICATION = 0x8000
FLAG_EXTENSION = 0x1000
FLAGS_RESERVED = 0x2CF0


@dataclass(frozen=True, slots=True)
class HostKey:
    """An RSA key that its owner published for IPsec."""

    key: rsa.RSAPublicKey
    flags: int = FLAGS

    @classmethod
    def parse(cls, rdata: bytes) -> HostKey | None:
        """The key in ``rdata``, or None if the record is for another purpose.

        Foreign are: another protocol, another algorithm, and a key that its
        owner forbids to authenticate with.  Raises MalformedHostKey if the
        record is for IPsec and RSA but can't be read or must not be believed.
        """
        reader = Reader(rdata, MalformedHostKey)
        flags = reader.uint16("flags")
        protocol = reader.uint8("protocol")
        algorithm = reader.uint8("algorithm")
        if protocol != PROTOCOL_IPSEC or algorithm != ALGORITHM_RSA:
            return None
        if flags & FLAG_NOT_FOR_AUTHENTICATION:
            return None
        if flags & (FLAGS_RESERVED | FLAG_EXTENSION):
            # The extension bit announces more flags where we would read the key.
            raise MalformedHostKey(f"KEY flags 0x{flags:04x} have reserved bits set")
        try:
            return cls(rsakey.parse(reader.rest()), flags)
        except MalformedRsaKey as error:
            raise MalformedHostKey(f"KEY record: {error}") from error

    def serialize(self) -> bytes:
        """The RDATA."""
        head = self.flags.to_bytes(2, "big") + bytes([PROTOCOL_IPSEC, ALGORITHM_RSA])
        return head + rsakey.serialize(self.key)
