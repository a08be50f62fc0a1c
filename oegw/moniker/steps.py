"""What a question comes to (`answering`): values that the daemon's shell carries out.

    Reply       say this, and over TCP close
    Silence     say nothing, and over TCP close
    OpenPort    open the lease, then `opened` or `not_opened`
    AskHost     ask the host behind us, open the lease that `lease` gives, then `forwarded` or
                `not_opened`
    HandOver    say ``accepted`` and hand the connection to the server (RFC 1078)

``trigger`` is the name under which a step is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from oegw.moniker.interface import Entry, IPAddress, Lease
from oegw.moniker.names import ServiceName
from oegw.moniker.wire import Answer


@dataclass(frozen=True, slots=True)
class Source:
    """Where a question came from.  ``asked``: our address to which it was sent.

    ``datagram``: by UDP, so the source is not proven.  ``protected``: it came out of an encrypted
    tunnel.
    """

    address: IPAddress
    asked: IPAddress
    datagram: bool = False
    protected: bool = False

    @property
    def family(self) -> str:
        """``"4"`` or ``"6"``."""
        return str(self.address.version)

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
            self.question.encrypted,
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
