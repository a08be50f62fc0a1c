"""What the DNS says of this gateway, as values.  Pure; `asking` fills them in."""

from __future__ import annotations

from dataclasses import dataclass

from dnsrecords.outcome import GatewayOutcome, KeyOutcome
from ike.events import Identity
from policy.flow import IPAddress


@dataclass(frozen=True, slots=True)
class Server:
    """``validates``: its answers carry the flag that says so; None where that was not asked."""

    address: IPAddress
    answers: bool
    trusted: bool
    validates: bool | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """``keys``: by what we call ourselves; ``clients``: hosts that we may speak for, ``published``
    those that the configuration names, the others being seen on our links."""

    servers: tuple[Server, ...] = ()
    keys: tuple[tuple[Identity, KeyOutcome], ...] = ()
    clients: tuple[tuple[IPAddress, GatewayOutcome], ...] = ()
    published: frozenset[IPAddress] = frozenset()
