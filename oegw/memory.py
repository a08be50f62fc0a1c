"""What was encrypted last time, and by which key: so that a downgrade is noticed.

An attacker who makes the DNS or a gateway fall silent gets clear packets where the policy falls
back to clear (RFC 4322 section 9.1).  That is the policy's choice; that it happens to a pair which
had a tunnel before is for the operator to know.  The same holds for a gateway that shows another
key than last time.  Without IO: `memorytable.py` keeps it on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ike.events import Identity
from oegw.connection import Selectors
from oegw.shelf import Shelf
from policy.flow import IPNetwork

# Our choice: entries of each kind.  Of more, those that were keyed longest ago are forgotten, first
# what peers began: else a stranger with many addresses could wipe out the rest.
REMEMBERED_MOST = 16384


def fingerprint(key: rsa.RSAPublicKey) -> str:
    """What tells keys apart: SHA-256 of the public key's DER form, in hexadecimal."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def identity_text(identity: Identity) -> str:
    return "@" + identity.lower() if isinstance(identity, str) else str(identity)


def pair_text(selectors: Selectors) -> str:
    """A pair as it stands on disk: local and remote prefix, protocol, local and remote port."""
    s = selectors
    return f"{s.local} {s.remote} {s.protocol} {s.local_port} {s.remote_port}"


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be written down: new texts by key; None means that the entry goes.

    With ``whole`` there is nothing else: what is on disk goes first.
    """

    pairs: Mapping[str, str | None] = field(default_factory=dict)
    gateways: Mapping[str, str | None] = field(default_factory=dict)
    whole: bool = False

    @property
    def tables(self) -> Mapping[str, Mapping[str, str | None]]:
        """By the name of the table of the state file."""
        return {"pair": self.pairs, "gateway": self.gateways}


class KeyMemory:
    """Pairs that had a tunnel when last keyed, with the gateway; gateways with their last key.

    ``pairs`` and ``gateways`` are what was saved, the least recent first.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[str, str]] = (),
        gateways: Iterable[tuple[str, str]] = (),
        most: int = REMEMBERED_MOST,
    ) -> None:
        self._pairs = Shelf(pairs, most)
        self._gateways = Shelf(gateways, most)
        self._whole = False

    def __len__(self) -> int:
        return len(self._pairs) + len(self._gateways)

    def pair_encrypted(
        self, selectors: Selectors, gateway: Identity, by_peer: bool = False
    ) -> None:
        """A tunnel carries this pair.  ``by_peer``: it was the peer that began."""
        self._pairs.put(pair_text(selectors), identity_text(gateway), by_peer)
        self._note()

    def encrypted_by(self, selectors: Selectors) -> str | None:
        """Which gateway the pair had a tunnel with last time; None if it had none."""
        return self._pairs.get(pair_text(selectors))

    def key_shown(self, gateway: Identity, key: rsa.RSAPublicKey, by_peer: bool = False) -> bool:
        """A gateway has proven to have ``key``; returns whether it had another one last time.

        ``by_peer``: it was the gateway that began.
        """
        name, shown = identity_text(gateway), fingerprint(key)
        before = self._gateways.get(name)
        self._gateways.put(name, shown, by_peer)
        self._note()
        return before is not None and before != shown

    def key_of(self, gateway: Identity) -> str | None:
        """The fingerprint of the key that a gateway has shown last; None if it is not known."""
        return self._gateways.get(identity_text(gateway))

    def forget(self, destination: IPNetwork) -> None:
        """The operator knows: pairs towards ``destination`` may be clear from now on."""
        for key in self._pairs.keys():  # noqa: SIM118  (a shelf is no mapping)
            remote = _remote(key)
            if (
                remote is not None
                and remote.version == destination.version
                and remote.overlaps(destination)
            ):
                self._pairs.drop(key)
        self._note()

    @property
    def changed(self) -> bool:
        return self._whole or self._pairs.changed or self._gateways.changed

    def take_changes(self) -> Changes:
        """What has changed since the last call."""
        whole, self._whole = self._whole, False
        return Changes(self._pairs.take(whole), self._gateways.take(whole), whole)

    def write_all(self) -> None:
        """What was taken did not get onto the disk: next time it is everything."""
        self._whole = True

    def _note(self) -> None:
        """Nobody writes down for long: all of it is shorter than the changes."""
        if self._pairs.overflowed or self._gateways.overflowed:
            self._pairs.take(whole=False)
            self._gateways.take(whole=False)
            self._whole = True


def _remote(pair: str) -> IPNetwork | None:
    """The remote prefix of a pair's text; None if it is not one of ours."""
    try:
        return ip_network(pair.split()[1])
    except (IndexError, ValueError):
        return None
