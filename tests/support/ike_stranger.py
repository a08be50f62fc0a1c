"""A stranger who writes his own IKE messages, right ones and wrong ones.

``Stranger`` goes through main mode with an endpoint by the library's codec, but
decides himself what every message says; ``seal`` encrypts anything under the
channel's keys, as any authenticated peer could.
"""

from __future__ import annotations

import struct
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import padding, utils

from ike import events as e
from ike.algorithms import AES_CBC_256, SHA2_256
from ike.groups import GROUPS, portable_pair
from ike.registry import ExchangeType, PayloadType
from ike.v1.keymat import ChannelKeys
from ike.v1.protection import last_block
from tests.support.ike_pair import A, B, Side, private_key

_VECTORS = Path(__file__).parent.parent / "vectors" / "ike" / "modp-primes.txt"
PRIMES = {
    int(line.split()[0]): int(line.split()[1], 16)
    for line in _VECTORS.read_text().splitlines()
    if not line.startswith("#")
}

MAIN, INFO, QUICK = 2, 5, 32
SA, KE, ID, HASH, SIG, NONCE, N, D = 1, 4, 5, 8, 9, 10, 11, 12


def generic(*payloads: tuple[int, bytes]) -> bytes:
    """A chain: each payload is type and body."""
    octets = b""
    for index, (_, body) in enumerate(payloads):
        following = payloads[index + 1][0] if index + 1 < len(payloads) else 0
        octets += struct.pack("!BBH", following, 0, 4 + len(body)) + body
    return octets


def header(
    cookies: tuple[bytes, bytes],
    first: int,
    exchange: int,
    flags: int,
    message_id: int,
    body: bytes,
    version: int = 0x10,
) -> bytes:
    fixed = struct.pack("!BBBBII", first, version, exchange, flags, message_id, 28 + len(body))
    return cookies[0] + cookies[1] + fixed + body


def clear(cookies, exchange, message_id, *payloads) -> bytes:
    return header(cookies, payloads[0][0], exchange, 0, message_id, generic(*payloads))


def tv(kind: int, value: int) -> bytes:
    return struct.pack("!HH", 0x8000 | kind, value)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value


def transform(number: int, identifier: int, attributes: bytes, last: bool = True) -> bytes:
    length = 8 + len(attributes)
    fixed = struct.pack("!BBHBBH", 0 if last else 3, 0, length, number, identifier, 0)
    return fixed + attributes


def proposal(
    protocol: int, spi: bytes, *transforms: bytes, number: int = 1, last: bool = True
) -> bytes:
    body = struct.pack("!BBBB", number, protocol, len(spi), len(transforms)) + spi
    body += b"".join(transforms)
    return struct.pack("!BBH", 0 if last else 2, 0, 4 + len(body)) + body


def sa(*proposals: bytes, doi: int = 1, situation: int = 1) -> bytes:
    return struct.pack("!II", doi, situation) + b"".join(proposals)


MODERN_1 = tv(1, 7) + tv(14, 256) + tv(2, 4) + tv(3, 3) + tv(4, 14) + tv(11, 1) + tv(12, 28800)
ESP_GCM = tv(1, 1) + tv(2, 3600) + tv(3, 14) + tv(4, 1) + tv(6, 128)


def offer(attributes: bytes = MODERN_1) -> bytes:
    """The body of the SA payload of message 1 with one transform."""
    return sa(proposal(1, b"", transform(1, 1, attributes)))


def esp_offer(spi: bytes = b"\x11\x22\x33\x44", attributes: bytes = ESP_GCM, kind: int = 20):
    return sa(proposal(3, spi, transform(1, kind, attributes)))


def subnet(address: str, mask: str = "255.255.255.255") -> bytes:
    from ipaddress import ip_address

    return bytes((4, 0, 0, 0)) + ip_address(address).packed + ip_address(mask).packed


class Stranger:
    """At address A, with the private key "a", talking to the endpoint of ``side``."""

    def __init__(self, side: Side, now: float = 1000.0, address: e.TransportAddress = A) -> None:
        self.side = side
        self.now = now
        self.address = address
        self.cookies = (b"stranger", bytes(8))
        self.group = GROUPS[14]
        self.pair = portable_pair(self.group, lambda count: b"\x5a" * count)
        self.nonce = b"n" * 16
        self.keys: ChannelKeys | None = None
        self.block = b""
        self.next_message_id = 1
        self.last_sent = b""

    def send(self, data: bytes) -> list[bytes]:
        """Deliver a datagram; returns what comes back, questions of the endpoint answered."""
        self.last_sent = data
        endpoint = self.side.endpoint
        endpoint.receive_datagram(self.now, data, B, self.address)
        while (event := endpoint.next_event()) is not None:
            self.side.events.append(event)
            if isinstance(event, e.PeerKeyNeeded):
                key = private_key("a").public_key()
                endpoint.provide_peer_keys(self.now, event.channel, (key,))
            elif isinstance(event, e.TunnelProposed) and self.side.answers:
                endpoint.accept_tunnel(self.now, event.tunnel)
            elif isinstance(event, e.InboundSaEstablished):
                endpoint.confirm_inbound(self.now, event.tunnel)
        return [datagram.data for datagram in endpoint.datagrams_to_send()]

    def send_1(self, body: bytes | None = None) -> list[bytes]:
        self.offer = offer() if body is None else body
        replies = self.send(clear(self.cookies, MAIN, 0, (SA, self.offer)))
        if replies:
            self.cookies = (replies[0][:8], replies[0][8:16])
        return replies

    def send_3(self, public: bytes | None = None) -> list[bytes]:
        public = self.pair.public if public is None else public
        replies = self.send(clear(self.cookies, MAIN, 0, (KE, public), (NONCE, self.nonce)))
        if replies:
            reply = replies[0]
            self.peer_public = reply[32 : 32 + 256]
            nonce_r = reply[32 + 256 + 4 :]
            shared = self.pair.shared_secret(self.peer_public)
            nonces = (self.nonce, nonce_r)
            self.keys = ChannelKeys.derive(SHA2_256, AES_CBC_256, self.cookies, nonces, shared)
            self.iv = self.keys.first_iv(self.pair.public, self.peer_public)
        return replies

    def identification(self) -> bytes:
        return bytes((1, 0, 0, 0)) + self.address.address.packed

    def hash_i(self, identification: bytes) -> bytes:
        return self.keys.signed_hash(
            self.pair.public, self.peer_public, True, self.offer, identification
        )

    def sign(self, identification: bytes) -> bytes:
        digest = self.hash_i(identification)
        return private_key("a").sign(digest, padding.PKCS1v15(), utils.NoDigestInfo())

    def encrypt(self, iv: bytes, octets: bytes) -> bytes:
        octets += bytes(-len(octets) % 16)
        return AES_CBC_256.encrypt(self.keys.cipher_key, iv, octets)

    def message_5(self, *payloads: tuple[int, bytes]) -> bytes:
        body = self.encrypt(self.iv, generic(*payloads))
        return header(self.cookies, payloads[0][0], MAIN, 1, 0, body)

    def send_5(self, *payloads: tuple[int, bytes]) -> list[bytes]:
        """Without arguments the right one."""
        if not payloads:
            identification = self.identification()
            payloads = ((ID, identification), (SIG, self.sign(identification)))
        replies = self.send(self.message_5(*payloads))
        if replies and replies[-1][18] == MAIN:
            self.block = last_block(self.keys, replies[-1])
        return replies

    def establish(self) -> None:
        self.send_1()
        self.send_3()
        assert self.send_5()
        assert self.block

    def seal(
        self,
        exchange: int,
        *payloads: tuple[int, bytes],
        message_id: int | None = None,
        before: bytes = b"",
        digest: bytes | None = None,
        octets: bytes | None = None,
    ) -> bytes:
        """A protected message; ``octets`` replaces the chain after HASH."""
        if message_id is None:
            self.next_message_id += 1
            message_id = self.next_message_id
        rest = generic(*payloads) if octets is None else octets
        if digest is None:
            digest = self.keys.exchange_hash(message_id, before, rest)
        first = payloads[0][0] if payloads else 0
        chain = struct.pack("!BBH", first, 0, 4 + len(digest)) + digest + rest
        body = self.encrypt(self.keys.exchange_iv(self.block, message_id), chain)
        return header(self.cookies, HASH, exchange, 1, message_id, body)

    def quick_1(self, message_id: int | None = None, **changes) -> bytes:
        """Message 1 of quick mode; payloads by name, None leaves one out."""
        payloads = {
            "sa": (SA, esp_offer()),
            "nonce": (NONCE, b"q" * 16),
            "ke": (KE, self.pair.public),
            "id_i": (ID, subnet("192.1.0.65")),
            "id_r": (ID, subnet("192.2.0.66")),
            **changes,
        }
        return self.seal(
            QUICK, *(p for p in payloads.values() if p is not None), message_id=message_id
        )

    def open(self, reply: bytes) -> list[tuple[PayloadType, bytes]]:
        """The payloads of a reply that begins an exchange of its own (informational)."""
        from ike.header import Header
        from ike.v1.protection import verified_chain
        from ike.wire import Reader

        parsed = Header.parse(Reader(reply))
        assert parsed.exchange == ExchangeType.INFORMATIONAL
        iv = self.keys.exchange_iv(self.block, parsed.message_id)
        return list(verified_chain(self.keys, iv, parsed, reply).pieces)
