"""Attacks on the keys of port encryption: who has them, and whose key is for whose address."""

from __future__ import annotations

import hmac
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from dnsrecords.errors import RecordError
from dnsrecords.outcome import NothingFound, SstKeysFound
from dnsrecords.sstkey import SstKey
from dnsrecords.trust import Trust
from oegw.sst.directory import KeyDirectory, KnownKeys, Source
from oegw.sst.interface import Algorithm, PortKey, SstError
from oegw.sst.permutation import Permutation
from oegw.sst.statickey import StaticKey
from tests.attacks.frame import SST, attack, replaced
from tests.support.sst_wire import TCP

ALICE, BOB, MALLET = map(ip_address, ("192.0.2.1", "198.51.100.7", "203.0.113.66"))
DAY = 20_000
OURS, THEIRS, MALLETS = (StaticKey(bytes([octet] * 32)) for octet in (1, 2, 3))

# RFC 7748 section 6.1 and Curve25519's page: points with which every secret is zero.
SMALL_ORDER = (
    bytes(32),
    bytes([1]) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
)


def _of_what_everybody_sees(self: StaticKey, peer_public: bytes) -> bytes:
    return sha256(b"".join(sorted((self.public, peer_public)))).digest()


@attack(
    SST,
    "An observer with both public keys tries all ports under every key that can be made of them",
    source="design, findings (encrypting under the public key alone is a code book)",
    defence="oegw/sst/statickey.py StaticKey._shared",
    otherwise="the key is in the DNS, and so are all ports",
    without=replaced(("oegw.sst.statickey.StaticKey._shared", _of_what_everybody_sees)),
)
def public_keys_alone() -> None:
    key = OURS.port_key(THEIRS.public, Algorithm.FF1_AES_128, DAY)
    wire = Permutation(key).seal_ports(ALICE.packed, BOB.packed, TCP, 40000, 443)
    # Mallet derives as we do, with what he has: the public keys, and a private one of his own.
    guesses = [
        MALLETS.port_key(public, Algorithm.FF1_AES_128, DAY)
        for public in (OURS.public, THEIRS.public)
    ]
    assert key.octets not in [guess.octets for guess in guesses]
    both = sorted((OURS.public, THEIRS.public))
    secret = sha256(b"".join(both)).digest()
    guesses.append(_derived(secret, both, DAY))
    for guess in guesses:
        found = Permutation(guess).open_ports(ALICE.packed, BOB.packed, TCP, *wire)
        assert found != (40000, 443), "the ports are read with public keys alone"


def _derived(secret: bytes, both: list[bytes], day: int) -> PortKey:
    """RFC 5869, from the paper: extract with the salt, one block of output."""
    extracted = hmac.new(b"SST1", secret, sha256).digest()
    info = b"".join(both) + b"\x01" + day.to_bytes(4, "big")
    octets = hmac.new(extracted, info + b"\x01", sha256).digest()[:16]
    return PortKey(Algorithm.FF1_AES_128, octets)


def _without_look_at_the_point(monkeypatch: Any) -> None:
    monkeypatch.setattr("dnsrecords.sstkey.check_order", lambda octets: None)
    monkeypatch.setattr("dnsrecords.sstkey.check_encoding", lambda octets: None)
    monkeypatch.setattr("oegw.sst.statickey.check_encoding", lambda octets: None)
    monkeypatch.setattr(
        "oegw.sst.statickey.X25519PrivateKey",
        type("Careless", (), {"from_private_bytes": staticmethod(lambda octets: _Careless())}),
    )


class _Careless:
    """X25519 that hands out the secret of zeros."""

    def public_key(self) -> Any:
        return X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()

    def exchange(self, public: Any) -> bytes:
        return bytes(32)


@attack(
    SST,
    "A key in the DNS that is a point of small order, or another spelling of one",
    source="RFC 7748 section 6.1",
    defence=("dnsrecords/sstkey.py check_order", "oegw/sst/statickey.py StaticKey._shared"),
    otherwise="the secret is zero for everybody, and everybody has the key (the library looks too; "
    "taken out with it)",
    without=_without_look_at_the_point,
)
def points_of_small_order() -> None:
    ours = StaticKey(bytes(range(32)))
    for point in SMALL_ORDER:
        try:
            SstKey(10, BOB, 1, point)
        except RecordError:
            known = False
        else:
            known = True
        try:
            key = ours.port_key(point, Algorithm.FF1_AES_128, DAY)
        except SstError:
            continue
        everybodys = _derived(bytes(32), sorted((ours.public, point)), DAY)
        assert key.octets != everybodys.octets, f"everybody has this key (published: {known})"


def _key(owner: StaticKey, gateway: Any = BOB) -> SstKey:
    return SstKey(10, gateway, 1, owner.public)


def _found(*keys: SstKey, ttl: float = 3600.0) -> SstKeysFound:
    return SstKeysFound(keys, ttl, Trust.INSECURE)


def _name_first(self: KeyDirectory, address: Any, now: float, *, secure: bool = False) -> Any:
    return self._by_name.find(address, now) or _find(self, address, now, secure=secure)


_find = KeyDirectory.find


def _any_gateway(
    self: KeyDirectory, name: str, addresses: Any, outcome: SstKeysFound, now: float
) -> int:
    for address in addresses:
        row = KnownKeys(outcome.keys, outcome.trust, Source.NAME, now + outcome.ttl, name)
        self._by_name.keep(address, row)
    return len(addresses)


@attack(
    SST,
    "A name of Mallet's with Bob's address, and a key of Mallet's beside it; Bob's reverse zone "
    "has a key of his own",
    source="design, key confusion; SST-32",
    defence="oegw/sst/directory.py KeyDirectory.find",
    otherwise="whoever gets a host to look up a name of his chooses the key on the way to Bob",
    without=replaced(("oegw.sst.directory.KeyDirectory.find", _name_first)),
)
def name_against_reverse_zone() -> None:
    for name_first in (True, False):
        known = KeyDirectory()
        if name_first:
            known.learn_by_name("mallet.example", [BOB], _found(_key(MALLETS)), 1)
        known.learn(BOB, _found(_key(THEIRS)), 1)
        known.learn_by_name("mallet.example", [BOB], _found(_key(MALLETS)), 1)
        found = known.find(BOB, 2.0)
        assert isinstance(found, KnownKeys)
        assert [key.public_key for key in found.keys] == [THEIRS.public]
        # No answer of the reverse zone is no leave either.
        known.forget(BOB)
        known.learn_by_name("mallet.example", [BOB], _found(_key(MALLETS)), 3)
        assert known.find(BOB, 4.0) is None, "the reverse zone was not asked"


@attack(
    SST,
    "A name of Mallet's with Bob's address, and a key whose gateway is Mallet's own, who answers "
    "every probe; Bob has no key at all",
    source="RFC 4322 section 3.2.4.1: who may speak for an address",
    defence="oegw/sst/directory.py KeyDirectory.learn_by_name",
    otherwise="the probe finds a path that works, and everything for Bob is sealed with a key that "
    "Bob does not have: one look-up by one host inside, and nobody reaches him",
    without=replaced(("oegw.sst.directory.KeyDirectory.learn_by_name", _any_gateway)),
)
def name_with_a_gateway_elsewhere() -> None:
    known = KeyDirectory()
    known.learn(BOB, NothingFound(300.0, "none"), 1)
    known.learn_by_name("mallet.example", [BOB], _found(_key(MALLETS, MALLET)), 1)
    assert not isinstance(known.find(BOB, 2.0), KnownKeys), "a gateway elsewhere answers for Bob"
