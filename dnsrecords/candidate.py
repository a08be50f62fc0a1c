"""One gateway, with what all the delegations to it say together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.outcome import Gateway, IPAddress
from dnsrecords.reading import Found, add_key, owner_of
from dnsrecords.trust import Trust, weakest


@dataclass(slots=True)
class Candidate:
    """A gateway that rolls its key over has a delegation for each key (RFC 4322 section 5.4), and
    the verifier must hold them all.  ``named``: the addresses of ``fqdn`` are where it is.
    """

    precedence: int
    address: IPAddress | None
    fqdn: str | None
    named: bool = False
    keys: list[rsa.RSAPublicKey] = field(default_factory=list)
    lacks_key: bool = False
    addresses: list[IPAddress] = field(default_factory=list)  # of one that is named
    trust: Trust = Trust.SECURE

    def add(self, keys: Iterable[rsa.RSAPublicKey]) -> None:
        for key in keys:
            add_key(self.keys, key)

    def depends_on(self, trust: Trust) -> None:
        """Something was looked up for it, and it is good for no more than that answer."""
        self.trust = weakest(self.trust, trust)

    @property
    def identity(self) -> IPAddress | str:
        """Whose keys are its keys."""
        # One of the two is given: the records see to it.
        return self.fqdn or "" if self.address is None else self.address

    @property
    def key_owner(self) -> str:
        return owner_of(self.identity)

    def gateways(self) -> list[Gateway]:
        """One for each of its addresses; without any it is known by name only."""
        addresses: list[IPAddress | None] = [*self.addresses] if self.named else [self.address]
        return [
            Gateway(
                self.precedence, address, self.fqdn, tuple(self.keys), self.lacks_key, self.trust
            )
            for address in addresses or [None]
        ]


def by_gateway(delegations: Iterable[Found]) -> list[Candidate]:
    """One candidate per gateway, at its lowest precedence; ``delegations`` come in order."""
    found: dict[tuple[IPAddress | None, str | None, bool], Candidate] = {}
    for each in delegations:
        candidate = found.setdefault(
            (each.address, each.fqdn, each.named),
            Candidate(each.precedence, each.address, each.fqdn, each.named),
        )
        if each.key is None:
            candidate.lacks_key = True
        else:
            candidate.add([each.key])
    return list(found.values())


def in_order(
    usable: Iterable[Candidate], shuffle: Callable[[list[Gateway]], None]
) -> tuple[Gateway, ...]:
    """By precedence; those of equal precedence in random order (RFC 4322 section 5.2)."""
    ordered: list[Gateway] = []
    for _, group in groupby(usable, lambda candidate: candidate.precedence):
        tied = [gateway for candidate in group for gateway in candidate.gateways()]
        if len(tied) > 1:
            shuffle(tied)
        ordered += tied
    return tuple(ordered)
