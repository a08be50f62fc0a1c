"""An IKEv1 initiator built for speed: the load of ``bench_ike_responder.py``.

It shares no code with the gateway.  Main mode with RSA signatures, then quick mode without perfect
forward secrecy; with NAT traversal (RFC 3947) if the responder can do it, so that ESP would go in
UDP.
Every message is checked: HASH_R and its signature, HASH(2).  What makes it quick: the same
Diffie-Hellman pair with a short exponent in all exchanges, messages put together by hand, no
retransmission: an exchange that stands still for ``PATIENCE`` is given up and counted as lost.

A number of exchanges is always under way.  A tunnel is kept until ``held`` younger ones are up;
then it and its channel are deleted.

    python -m tests.bench.ike_load PLAN.json       prints what came of it as JSON
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import select
import socket
import struct
import sys
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dh, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

PATIENCE = 2.0  # seconds that an exchange may stand still
_EXPONENT_BITS = 128

# RFC 3526 section 3.
_PRIME = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74"
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437"
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05"
    "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB"
    "9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718"
    "3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF",
    16,
)

_SA, _KE, _ID, _HASH, _SIG, _NONCE, _DELETE, _VENDOR, _NAT_D = 1, 4, 5, 8, 9, 10, 12, 13, 20
_MAIN, _INFORMATIONAL, _QUICK = 2, 5, 32
_ENCRYPTED = 1
_NAT_TRAVERSAL = bytes.fromhex("4a131c81070358455c5728f20e95452f")  # MD5 of "RFC 3947"
_MARKER = bytes(4)  # RFC 3948 section 2.2
_IP_PKTINFO, _SO_RCVBUFFORCE = 8, 33  # Linux; the socket module has no names for them

_HEADER = struct.Struct("!8s8sBBBBII")
_Header = tuple[bytes, bytes, int, int, int, int, int, int]
"""Cookies, next payload, version, exchange, flags, message ID, length."""


def _chain(*payloads: tuple[int, bytes]) -> bytes:
    """Payloads, each with its generic header."""
    following = [kind for kind, _ in payloads[1:]] + [0]
    return b"".join(
        struct.pack("!BBH", after, 0, len(body) + 4) + body
        for (_, body), after in zip(payloads, following, strict=True)
    )


def _cut(first: int, octets: bytes, start: int = 0) -> Iterator[tuple[int, bytes, int]]:
    """Kind, body and the place behind it."""
    while first:
        following, _, length = struct.unpack_from("!BBH", octets, start)
        if length < 4 or start + length > len(octets):
            raise ValueError("a payload that does not fit")
        yield first, octets[start + 4 : start + length], start + length
        first, start = following, start + length


def _attributes(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("!HH", 0x8000 | kind, value) for kind, value in pairs)


def _offer(protocol: int, transform: int, spi: bytes, attributes: bytes) -> bytes:
    """An SA payload with one proposal of one transform."""
    body = struct.pack("!BBHBBH", 0, 0, len(attributes) + 8, 1, transform, 0) + attributes
    proposal = struct.pack("!BBHBBBB", 0, 0, len(body) + 8 + len(spi), 1, protocol, len(spi), 1)
    return struct.pack("!II", 1, 1) + proposal + spi + body


# AES-CBC with 128 bits, SHA2-256, RSA signatures, group 14.
_CHANNEL_OFFER = _offer(
    1, 1, b"", _attributes((1, 7), (2, 4), (3, 3), (4, 14), (14, 128), (11, 1), (12, 28800))
)


def _tunnel_offer(spi: bytes, in_udp: bool) -> bytes:
    """AES-GCM-16 with 128 bits; tunnel mode, in UDP (RFC 3947 section 5.1) or not."""
    mode = 3 if in_udp else 1
    return _offer(3, 20, spi, _attributes((1, 1), (2, 3600), (4, mode), (6, 128)))


def _prf(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b"".join(parts), "sha256")


def _encrypt(key: bytes, iv: bytes, octets: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(octets + bytes(-len(octets) % 16))


def _decrypt(key: bytes, iv: bytes, octets: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor().update(octets)


@dataclass(frozen=True, slots=True)
class _Peer:
    """One of those that we pretend to be."""

    address: str
    source: list[tuple[int, int, bytes]]  # for sendmsg: from this address
    identification: bytes
    selector: bytes


class _DiffieHellman:
    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exponent = secrets.randbits(_EXPONENT_BITS) | 1 << (_EXPONENT_BITS - 1)
            value = pow(2, exponent, _PRIME)
            self._numbers = dh.DHParameterNumbers(_PRIME, 2)
            public = dh.DHPublicNumbers(value, self._numbers)
            self._private = dh.DHPrivateNumbers(exponent, public).private_key()
        self.public = value.to_bytes(256, "big")

    def shared(self, public: bytes) -> bytes:
        peer = dh.DHPublicNumbers(int.from_bytes(public, "big"), self._numbers).public_key()
        return self._private.exchange(peer).rjust(256, b"\0")


class _Exchange:
    """One set-up, from message 1 to the Delete."""

    def __init__(self, load: Load, peer: _Peer, cookie: bytes) -> None:
        self.load = load
        self.peer = peer
        self.cookie = cookie
        self.begun = self.moved = time.monotonic()
        self.step = self._take_2
        self.in_udp = False
        self.port = 500
        self.up = False
        self._cookies = (cookie, bytes(8))
        self._nonce = os.urandom(32)
        self._send(_MAIN, 0, _SA, _chain((_SA, _CHANNEL_OFFER), (_VENDOR, _NAT_TRAVERSAL)))

    def _send(
        self, exchange: int, message_id: int, first: int, octets: bytes, flags: int = 0
    ) -> None:
        header = _HEADER.pack(
            *self._cookies, first, 0x10, exchange, flags, message_id, len(octets) + 28
        )
        self.load.send(self.peer, self.port, header + octets)

    def take(self, header: _Header, data: bytes) -> None:
        if header[4] == _INFORMATIONAL:
            if not self.up:
                self._note_refusal(header, data)
            return
        self.step(header, data)
        self.moved = time.monotonic()

    def _note_refusal(self, header: _Header, data: bytes) -> None:
        """Count what the responder says in place of an answer."""
        said = "in clear"
        if header[5] & _ENCRYPTED:
            iv = hashlib.sha256(self._block + header[6].to_bytes(4, "big")).digest()[:16]
            payloads = list(_cut(header[2], _decrypt(self._key, iv, data[28:])))
            said = " ".join(f"{kind} {body[:8].hex()}" for kind, body, _ in payloads[1:])
        self.load.counts[f"informational {said}"] += 1

    def _take_2(self, header: _Header, data: bytes) -> None:
        self._cookies = header[:2]
        payloads = list(_cut(header[2], data, 28))
        self.in_udp = (_VENDOR, _NAT_TRAVERSAL) in [(kind, body) for kind, body, _ in payloads]
        mine: list[tuple[int, bytes]] = [(_KE, self.load.pair.public), (_NONCE, self._nonce)]
        if self.in_udp:
            both = header[0] + header[1]
            for address in (self.load.responder, self.peer.address):
                place = IPv4Address(address).packed + (500).to_bytes(2, "big")
                mine.append((_NAT_D, hashlib.sha256(both + place).digest()))
        self._send(_MAIN, 0, _KE, _chain(*mine))
        self.step = self._take_4

    def _take_4(self, header: _Header, data: bytes) -> None:
        theirs = {kind: body for kind, body, _ in _cut(header[2], data, 28)}
        both = header[0] + header[1]
        own, public = self.load.pair.public, theirs[_KE]
        shared = self.load.pair.shared(public)
        master = _prf(self._nonce + theirs[_NONCE], shared)
        self._derivation = _prf(master, shared, both, b"\0")
        self._authentication = _prf(master, self._derivation, shared, both, b"\1")
        self._key = _prf(master, self._authentication, shared, both, b"\2")[:16]
        identification = self.peer.identification
        digest = _prf(master, own, public, both, _CHANNEL_OFFER, identification)
        # What HASH_R is over, up to the identification that comes with it.
        self._expected = (master, public + own + header[1] + header[0] + _CHANNEL_OFFER)
        chain = _chain((_ID, identification), (_SIG, self.load.sign(digest)))
        sealed = _encrypt(self._key, hashlib.sha256(own + public).digest()[:16], chain)
        self._block = sealed[-16:]
        if self.in_udp:
            self.port = 4500
        self._send(_MAIN, 0, _ID, sealed, _ENCRYPTED)
        self.step = self._take_6

    def _take_6(self, header: _Header, data: bytes) -> None:
        octets = _decrypt(self._key, self._block, data[28:])
        self._block = data[-16:]
        theirs = {kind: body for kind, body, _ in _cut(header[2], octets)}
        master, before = self._expected
        self.load.verify(theirs[_SIG], _prf(master, before, theirs[_ID]))
        self._message_id = secrets.randbits(32) | 1
        self._spi = b"\1" + os.urandom(3)  # never one of the reserved ones
        self._nonce = os.urandom(32)
        chain = _chain(
            (_SA, _tunnel_offer(self._spi, self.in_udp)),
            (_NONCE, self._nonce),
            (_ID, self.peer.selector),
            (_ID, self.load.selector),
        )
        sealed = self._hashed(self._message_id, _SA, chain)
        self._last = sealed[-16:]
        self._send(_QUICK, self._message_id, _HASH, sealed, _ENCRYPTED)
        self.step = self._take_quick_2

    def _hashed(self, message_id: int, first: int, chain: bytes) -> bytes:
        """HASH(1) and the rest, encrypted as the first message of an exchange."""
        number = message_id.to_bytes(4, "big")
        digest = _prf(self._authentication, number, chain)
        iv = hashlib.sha256(self._block + number).digest()[:16]
        return _encrypt(self._key, iv, struct.pack("!BBH", first, 0, 36) + digest + chain)

    def _take_quick_2(self, header: _Header, data: bytes) -> None:
        if header[6] != self._message_id:
            raise ValueError("another message ID")
        octets = _decrypt(self._key, self._last, data[28:])
        payloads = list(_cut(header[2], octets))
        if payloads[0][0] != _HASH:
            raise ValueError("no HASH first")
        number = self._message_id.to_bytes(4, "big")
        rest = octets[payloads[0][2] : payloads[-1][2]]
        if payloads[0][1] != _prf(self._authentication, number, self._nonce, rest):
            raise ValueError("HASH(2) differs")
        nonce = next(body for kind, body, _ in payloads if kind == _NONCE)
        closing = _prf(self._authentication, b"\0", number, self._nonce, nonce)
        sealed = _encrypt(self._key, data[-16:], _chain((_HASH, closing)))
        self._send(_QUICK, self._message_id, _HASH, sealed, _ENCRYPTED)
        self.step = self._take_more
        self.load.completed(self)

    def _take_more(self, header: _Header, data: bytes) -> None:
        self.load.counts["repeated"] += 1

    def delete(self) -> None:
        """Our inbound SA, and then the channel."""
        for protocol, spi in ((3, self._spi), (1, b"".join(self._cookies))):
            body = struct.pack("!IBBH", 1, protocol, len(spi), 1) + spi
            message_id = secrets.randbits(32) | 1
            sealed = self._hashed(message_id, _DELETE, _chain((_DELETE, body)))
            self._send(_INFORMATIONAL, message_id, _HASH, sealed, _ENCRYPTED)


class Load:
    """As many exchanges under way as the plan says, until its time is over."""

    def __init__(self, plan: dict[str, object]) -> None:
        self.responder = str(plan["responder"])
        network = IPv4Network(str(plan["network"]))
        self.selector = _subnet(network)
        private = serialization.load_pem_private_key(Path(str(plan["key"])).read_bytes(), None)
        public = serialization.load_pem_public_key(Path(str(plan["responder_key"])).read_bytes())
        assert isinstance(private, rsa.RSAPrivateKey)
        assert isinstance(public, rsa.RSAPublicKey)
        self._private, self._public = private, public
        self.pair = _DiffieHellman()
        self.counts: Counter[str] = Counter()
        self._seconds = float(str(plan["seconds"]))
        self._flight = int(str(plan["flight"]))
        self._held = int(str(plan["held"]))
        peers = plan["peers"]
        assert isinstance(peers, list)
        self._peers = deque(_peer(address, network) for address, network in peers)
        self._begun: dict[bytes, _Exchange] = {}
        self._under_way = 0
        self._up: deque[_Exchange] = deque()
        self._next_look = 0.0
        self.durations: list[float] = []
        self._sockets: dict[int, socket.socket] = {}
        for port in (500, 4500):
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 22)
            udp.bind(("0.0.0.0", port))
            udp.setblocking(False)
            self._sockets[port] = udp

    def sign(self, digest: bytes) -> bytes:
        """RFC 2409 section 5.1: without the name of the hash."""
        return self._private.sign(digest, padding.PKCS1v15(), utils.NoDigestInfo())

    def verify(self, signature: bytes, digest: bytes) -> None:
        self._public.verify(signature, digest, padding.PKCS1v15(), utils.NoDigestInfo())  # type: ignore[arg-type]

    def send(self, peer: _Peer, port: int, message: bytes) -> None:
        parts = [message] if port == 500 else [_MARKER, message]
        self._sockets[port].sendmsg(parts, peer.source, 0, (self.responder, port))

    def completed(self, exchange: _Exchange) -> None:
        exchange.up = True
        self.counts["completed"] += 1
        self.durations.append(time.monotonic() - exchange.begun)
        self._under_way -= 1
        self._up.append(exchange)
        while len(self._up) > self._held:
            self._forget(self._up.popleft())

    def _forget(self, exchange: _Exchange) -> None:
        exchange.delete()
        self._begun.pop(exchange.cookie, None)
        self._peers.append(exchange.peer)

    def _begin(self) -> None:
        cookie = os.urandom(8)
        exchange = _Exchange(self, self._peers.popleft(), cookie)
        self._begun[cookie] = exchange
        self._under_way += 1

    def _give_up(self, now: float) -> None:
        """Look for those that stand still, now and then."""
        if now < self._next_look:
            return
        self._next_look = now + PATIENCE / 10
        for exchange in [e for e in self._begun.values() if not e.up]:
            if now - exchange.moved > PATIENCE:
                self.counts[f"lost at {exchange.step.__name__}"] += 1
                del self._begun[exchange.cookie]
                self._peers.append(exchange.peer)
                self._under_way -= 1

    def _receive(self, udp: socket.socket, marker: int) -> None:
        while True:
            try:
                data = udp.recv(4096)
            except BlockingIOError:
                return
            if marker:
                if data[:4] != _MARKER:
                    continue
                data = data[4:]
            header = _HEADER.unpack_from(data)
            exchange = self._begun.get(header[0])
            if exchange is None:
                continue
            try:
                exchange.take(header, data)
            except Exception as error:  # what it is, the report says; the exchange stands still
                self.counts[f"bad: {type(error).__name__}: {error}"] += 1

    def run(self) -> dict[str, object]:
        poll = select.epoll()
        markers = {self._sockets[500].fileno(): 0, self._sockets[4500].fileno(): 4}
        by_number = {udp.fileno(): udp for udp in self._sockets.values()}
        for number in markers:
            poll.register(number, select.EPOLLIN)
        began, used = time.monotonic(), time.process_time()
        end = began + self._seconds
        while (now := time.monotonic()) < end:
            while self._under_way < self._flight and self._peers:
                self._begin()
            for number, _ in poll.poll(0.05):
                self._receive(by_number[number], markers[number])
            self._give_up(now)
        took, used = time.monotonic() - began, time.process_time() - used
        for exchange in self._up:
            exchange.delete()
        return {
            "seconds": took,
            "processor_seconds": used,
            "counts": dict(self.counts),
            "durations": self.durations,
        }


def _subnet(network: IPv4Network) -> bytes:
    """The body of an ID payload: ID_IPV4_ADDR_SUBNET (RFC 2407 section 4.6.2)."""
    return struct.pack("!BBH", 4, 0, 0) + network.network_address.packed + network.netmask.packed


def _peer(address: str, network: str) -> _Peer:
    packed = IPv4Address(address).packed
    information = struct.pack("=I", 0) + packed + bytes(4)
    return _Peer(
        address,
        [(socket.IPPROTO_IP, _IP_PKTINFO, information)],
        struct.pack("!BBH", 1, 0, 0) + packed,
        _subnet(IPv4Network(network)),
    )


def main() -> int:
    warnings.simplefilter("ignore")
    print(json.dumps(Load(json.loads(Path(sys.argv[1]).read_text())).run()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
