"""What becomes of a question: the core of the daemon, without IO.

    octets -> asked() -> Reply       say this, and over TCP close
                         Silence     say nothing, and over TCP close
                         OpenPort    open the lease, then opened() or not_opened() -> Reply
                         AskHost     ask the host behind us, open the lease that lease() gives, then
                                     forwarded() or not_opened() -> Reply
                         HandOver    say this and hand the connection to the server (RFC 1078)

Each step has a ``trigger``, the name it is counted under.  Nothing that a stranger sends raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from oegw.moniker.cookies import Cookies
from oegw.moniker.interface import (
    Entry,
    IPAddress,
    Lease,
    LeaseRefused,
    Opening,
)
from oegw.moniker.names import ServiceName
from oegw.moniker.registry import Registry
from oegw.moniker.settings import MonikerSettings
from oegw.moniker.wire import Answer, Refusal
from oegw.sst.statickey import StaticKey


@dataclass(frozen=True, slots=True)
class Source:
    """Where a question came from.  ``asked``: our address to which it was sent.

    ``datagram``: by UDP, so the source is not proven.  ``protected``: it came by an encrypted tunnel.
    """

    address: IPAddress
    asked: IPAddress
    datagram: bool = False
    protected: bool = False

    @property
    def local(self) -> bool:
        """A process of this host asks."""
        return self.address.is_loopback or self.address == self.asked


@dataclass(frozen=True, slots=True)
class Question:
    """A question that was read, and what its answer needs.  ``room``: octets that the answer may
    have; ``answer_key``: None for a question in clear."""

    source: Source
    nonce: str
    name: ServiceName
    transport: str | None
    room: int
    answer_key: bytes | None = field(default=None, repr=False)

    @property
    def encrypted(self) -> bool:
        return self.answer_key is not None or self.source.protected


@dataclass(frozen=True, slots=True)
class Reply:
    """``octets``: with CRLF over TCP."""

    octets: bytes
    trigger: str


@dataclass(frozen=True, slots=True)
class Silence:
    trigger: str


@dataclass(frozen=True, slots=True)
class OpenPort:
    """``entry`` is what was asked for; the client may have it as soon as ``lease`` is open."""

    question: Question
    entry: Entry
    lease: Lease
    trigger: str = "moniker_open"


@dataclass(frozen=True, slots=True)
class AskHost:
    """The namespace is that of a host behind us: ``name`` over ``transport`` is asked of ``host``
    (of the client's family; ``port``: of its daemon)."""

    question: Question
    name: ServiceName
    transport: str | None
    host: IPAddress
    port: int
    trigger: str = "moniker_forwarded"

    def lease(self, answer: Answer, seconds: int) -> Lease:
        """What is to be opened for the answer of the host."""
        name = self.question.name
        return Lease(
            self.question.source.address,
            self.host,
            answer.transport,
            answer.port,
            min(seconds, answer.ttl),
            name.service,
            name.namespace,
        )


@dataclass(frozen=True, slots=True)
class HandOver:
    """``accepted`` is said first, or ``failed`` if the server can't be given the connection."""

    question: Question
    entry: Entry
    accepted: bytes
    failed: bytes
    trigger: str = "moniker_handed_over"


Step = Reply | Silence | OpenPort | AskHost | HandOver


class Answering:
    """``leases``: opening a port costs something, so a datagram's source must be proven first.

    ``random``: so many random octets; ``choose``: a random number below the one given.
    """

    def __init__(
        self,
        settings: MonikerSettings,
        registry: Registry,
        cookies: Cookies,
        *,
        key: StaticKey | None,
        random: Callable[[int], bytes],
        choose: Callable[[int], int],
        leases: bool = False,
    ) -> None:
        raise NotImplementedError

    def reload(self, settings: MonikerSettings, key: StaticKey | None) -> None:
        """Rules, hosts and limits change; what was asked before is answered by the old ones."""
        raise NotImplementedError

    def asked(self, octets: bytes, source: Source, now: float, *, busy: bool = False) -> Step:
        """``octets``: a datagram, or a line with or without its end.  Never raises.

        ``busy``: only proven sources are answered now.
        """
        raise NotImplementedError

    def opened(self, step: OpenPort, opening: Opening) -> Reply:
        """The port is open."""
        raise NotImplementedError

    def not_opened(self, step: OpenPort | AskHost, refused: LeaseRefused) -> Reply:
        """The port is not open, or the host gave no answer."""
        raise NotImplementedError

    def forwarded(self, step: AskHost, answer: Answer | Refusal, opening: Opening | None) -> Reply:
        """What the host behind us said; ``opening`` where it was an Answer."""
        raise NotImplementedError
