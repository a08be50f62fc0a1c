"""From a name to a connection: which question next, what the answer comes to.  Without IO.

A generator that yields commands and is sent what they came to; an error of a command (OSError) is
thrown into it.  So the same steps serve the calls that wait and those of asyncio.

    LookUpHost          -> places
    for each place, until one serves:
      FindKey           -> the host's key, if its question is to be encrypted
      Ask               -> the answer's line           one question ...
      Open              -> a connected socket          ... and one connection (MK-6)

A remembered answer saves the question (MK-30).  A connection that is refused is tried once more
with a fresh question, for the service may have another port by now.  A server that knows TCPMUX
only (RFC 1078) is asked in its way: then the connection of the question is the session.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from oegw.moniker.interface import IPAddress
from oegw.moniker.library.cache import Asked, Cache
from oegw.moniker.library.errors import (
    AnswerUnusable,
    HostUnreachable,
    NotEncrypted,
    ServiceDenied,
    ServiceRefused,
    ServiceUnknown,
    TooSlow,
    TransportUnavailable,
)
from oegw.moniker.library.question import Question, SpeaksTcpmux
from oegw.moniker.names import ServiceName
from oegw.moniker.rules import Asked as Wanted
from oegw.moniker.rules import decide
from oegw.moniker.settings import ClientSettings
from oegw.moniker.transports import Kind, Transport, UnknownTransport, known, named
from oegw.moniker.wire import Answer, Code, MalformedMessage

# Our choices.
MAX_PLACES = 8  # of one host that are tried
KEY_SECONDS = 2.0  # for the DNS to say whether there is a key
HANDSHAKE_SECONDS = 1.5  # for a connection to one place's daemon, while others are untried
STALE_SECONDS = 3.0  # for a connection by a remembered answer: its port may be closed by now


@dataclass(frozen=True, slots=True)
class Place:
    """An address of the host.  ``scope``: the index of an interface, for link-local ones."""

    address: IPAddress
    scope: int = 0

    @property
    def family(self) -> str:
        return str(self.address.version)


@dataclass(frozen=True, slots=True)
class LookUpHost:
    """Gives the host's places, at least one.  Raises HostUnreachable."""

    host: str


@dataclass(frozen=True, slots=True)
class FindKey:
    """Gives the public key of the host, or None.  Raises NotEncrypted for what can't be read."""

    host: str
    address: IPAddress
    seconds: float


@dataclass(frozen=True, slots=True)
class Ask:
    """Gives the answer's line.  ``handshake``: seconds for the connection alone, if they are fewer.

    Raises OSError, MalformedMessage.
    """

    place: Place
    port: int
    line: str
    seconds: float
    handshake: float | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Gives a socket that is connected.  ``sst``: whether its ports are to be encrypted: True,
    False, or None for where this host can.  Raises OSError, TransportUnavailable."""

    place: Place
    port: int
    transport: Transport
    sst: bool | None
    seconds: float


@dataclass(frozen=True, slots=True)
class OpenByTcpmux:
    """Gives a socket that is connected, once a server of RFC 1078 said ``+``.

    Raises OSError, MalformedMessage; ServiceUnknown for ``-``.
    """

    place: Place
    port: int
    name: ServiceName
    seconds: float


Command = LookUpHost | FindKey | Ask | Open | OpenByTcpmux

_Outcome = TypeVar("_Outcome")
Steps = Generator[Command, Any, _Outcome]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted.

    ``transport``: a name, or None for any of ``kind``.  ``question_port``: of the far daemon.
    ``encrypt``: ``"never"``, ``"prefer"``, ``"require"``; None: as the policy says.  ``sst``: only
    with encrypted ports.  ``seconds``: for all of it.
    """

    host: str
    name: ServiceName
    transport: str | None
    question_port: int
    seconds: float
    kind: Kind | None = Kind.STREAM
    encrypt: str | None = None
    sst: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Where it is.  ``answer`` None: by TCPMUX only.  ``remembered``: nobody was asked."""

    place: Place
    answer: Answer | None
    encrypted: bool = False
    remembered: bool = False

    def kind(self) -> Kind:
        return Kind.STREAM if self.answer is None else named(self.answer.transport).kind


class _Unsuitable(ServiceUnknown):
    """The service is there, by a transport that is no use to us; perhaps by another as well."""


class _NotHere(ServiceUnknown):
    """The service is there, at an address of the other family."""


class Finding:
    """One wish, by this host's policy.  ``random`` gives octets, ``clock`` seconds.  ``until``: by
    the clock, when the wish's time is over; None: it begins now."""

    def __init__(
        self,
        wish: Wish,
        policy: ClientSettings,
        cache: Cache,
        *,
        random: Callable[[int], bytes],
        clock: Callable[[], float],
        until: float | None = None,
    ) -> None:
        """Raises UnknownTransport."""
        if wish.transport is not None and wish.kind not in (None, named(wish.transport).kind):
            raise UnknownTransport(f"transport {wish.transport}: is not of the kind wanted")
        self._wish = wish
        self._policy = policy
        self._cache = cache
        self._random = random
        self._clock = clock
        self._deadline = clock() + wish.seconds if until is None else until
        self._places_left = 1
        self._hurried = False

    def connection(self) -> Steps[tuple[Any, Found]]:
        """The steps to a connected socket.  Raises the errors of `errors`."""
        return (yield from self._at_each_place(self._connected))

    def location(self) -> Steps[Found]:
        """The steps to where it is; always by a question, and without a connection."""
        return (yield from self._at_each_place(lambda place: self._fresh(place, self._any())))

    # ------------------------------------------------------------------ place by place

    def _at_each_place(self, do: Callable[[Place], Steps[_Outcome]]) -> Steps[_Outcome]:
        """What the first place that serves gives.  A daemon's refusal is an answer, and ends it.

        A firewall that lets through one family only drops the other in silence.  So the first
        addresses get little time, and their whole time when all have been tried (RFC 8305 in turn).
        """
        places: list[Place] = (yield LookUpHost(self._wish.host))[:MAX_PLACES]
        failures: list[Exception] = []
        queue = deque((place, place != places[-1]) for place in places)
        while queue:
            self._places_left = len(queue)
            place, self._hurried = queue.popleft()
            try:
                return (yield from do(place))
            except (NotEncrypted, TransportUnavailable) as error:
                if getattr(error, "errno", None) != errno.EAFNOSUPPORT:
                    raise
                failures.append(error)  # a host without IPv6: there may be an IPv4 address
            except (_NotHere, _Unsuitable, _DeniedHere) as error:
                failures.append(error)
            except ServiceRefused:
                raise
            except (OSError, MalformedMessage) as error:
                if self._hurried and isinstance(error, TimeoutError):
                    queue.append((place, False))
                else:
                    failures.append(error)
        raise self._failure(places, failures)

    def _failure(self, places: list[Place], failures: list[Exception]) -> Exception:
        for kind in (ServiceRefused, AnswerUnusable):
            if first := next((each for each in failures if isinstance(each, kind)), None):
                return _public(first)
        where = f"{self._wish.host} ({', '.join(str(each.address) for each in places)})"
        if any(isinstance(each, MalformedMessage) for each in failures):
            return AnswerUnusable(f"{where}: what answers there can't be read")
        if failures and all(isinstance(each, TimeoutError) for each in failures):
            return TooSlow(f"{where}: no answer within {self._wish.seconds:g} s")
        if any(isinstance(each, _NotServing) for each in failures):
            return HostUnreachable(f"{where}: {self._wish.name} does not take connections")
        return HostUnreachable(f"{where}: no daemon of Moniker answers there")

    def _share(self, most: float | None = None) -> float:
        """Seconds for the next step: so that each place that is left has its part."""
        left = (self._deadline - self._clock()) / self._places_left
        return max(left if most is None else min(left, most), 0.001)

    def _any(self) -> str | None:
        """What a first question wants: the transport, or any of the kind, or any at all."""
        if self._wish.transport is None and self._wish.kind is not None:
            return self._wish.kind.value
        return self._wish.transport

    # ---------------------------------------------------------------------- connecting

    def _connected(self, place: Place) -> Steps[tuple[Any, Found]]:
        """Any transport that the host and we have, in a question for any; else one by one."""
        unsuitable: Exception | None = None
        for transport in self._transports():
            try:
                return (yield from self._connected_by(place, transport))
            except (_Unsuitable, TransportUnavailable) as error:
                unsuitable = unsuitable or error
            except ServiceUnknown as error:
                if unsuitable is None or error.code is not Code.TRANSPORT:
                    raise
        raise unsuitable or HostUnreachable(f"{self._wish.host}: no transport is known")

    def _transports(self) -> Iterator[str | None]:
        yield self._any()
        if self._wish.transport is None:
            yield from (each.name for each in known(self._wish.kind))

    def _connected_by(self, place: Place, transport: str | None) -> Steps[tuple[Any, Found]]:
        asked = self._asked(place, transport)
        found = self._remembered(place, asked)
        if found is not None:
            try:
                return (yield self._opening(found)), found
            except TransportUnavailable:
                raise
            except OSError:  # refused, or closed by a firewall whose lease is over
                self._cache.forget(asked)
        found = yield from self._fresh(place, transport)
        if found.answer is None:
            return (yield self._by_tcpmux(place)), found
        try:
            return (yield self._opening(found)), found
        except ConnectionRefusedError:
            self._cache.forget(asked)
        found = yield from self._fresh(place, transport)
        try:
            return (yield self._opening(found)), found
        except ConnectionRefusedError:
            self._cache.forget(asked)
            raise _NotServing from None

    def _opening(self, found: Found) -> Open:
        if found.answer is None:
            raise AnswerUnusable(f"{self._wish.host}: answers in one way, and then in another")
        return Open(
            found.place,
            found.answer.port,
            named(found.answer.transport),
            self._wish.sst or (None if found.answer.sst else False),
            self._share(STALE_SECONDS if found.remembered else None),
        )

    def _by_tcpmux(self, place: Place) -> OpenByTcpmux:
        return OpenByTcpmux(place, self._wish.question_port, self._wish.name, self._share())

    def _asked(self, place: Place, transport: str | None) -> Asked:
        return Asked(place.address, self._wish.question_port, self._wish.name, transport)

    def _remembered(self, place: Place, asked: Asked) -> Found | None:
        """Of a stream only: nobody refuses a datagram, so an old port would not be noticed."""
        kept = self._cache.find(asked, self._clock())
        encryption = self._encryption(place)  # the policy may have changed
        if kept is None or (encryption == "require" and not kept.encrypted):
            return None
        if named(kept.answer.transport).kind is Kind.DATAGRAM:
            return None
        return Found(place, kept.answer, kept.encrypted, remembered=True)

    # -------------------------------------------------------------------------- asking

    def _fresh(self, place: Place, transport: str | None) -> Steps[Found]:
        """What the daemon says now.  Raises ServiceRefused, and what the commands raise."""
        encryption = self._encryption(place)
        key: bytes | None = None
        if encryption != "never":
            key = yield FindKey(self._wish.host, place.address, self._share(KEY_SECONDS))
        if key is None and encryption == "require":
            raise NotEncrypted(
                f"{self._wish.host} ({place.address}): there is no key to encrypt the question to"
            )
        try:
            answer, encrypted = yield from self._question(place, transport, key, encryption)
        except SpeaksTcpmux:
            self._tcpmux_will_do(encryption)
            return Found(place, None)
        self._usable(place, answer)
        asked = self._asked(place, transport)
        self._cache.remember(asked, answer, encrypted=encrypted, now=self._clock())
        return Found(place, answer, encrypted)

    def _ask(self, place: Place, question: Question) -> Ask:
        handshake = HANDSHAKE_SECONDS if self._hurried else None
        return Ask(place, self._wish.question_port, question.line, self._share(), handshake)

    def _question(
        self, place: Place, transport: str | None, key: bytes | None, encryption: str
    ) -> Steps[tuple[Answer, bool]]:
        """One question; a second, in clear, only where the host has lost the key that it publishes
        and this host's policy does not insist."""
        question = Question(self._wish.name, transport, key, self._random)
        line = yield self._ask(place, question)
        try:
            return question.answer(line), key is not None
        except ServiceRefused as error:
            if error.code is not Code.KEY or key is None or encryption == "require":
                raise
        question = Question(self._wish.name, transport, None, self._random)
        line = yield self._ask(place, question)
        return question.answer(line), False

    def _tcpmux_will_do(self, encryption: str) -> None:
        """Raises what is wrong with asking a server of RFC 1078."""
        name = self._wish.name
        if encryption == "require":
            raise NotEncrypted(f"{self._wish.host}: speaks TCPMUX only, which is never encrypted")
        if name.namespace or name.versions.bounds or self._wish.transport not in (None, "tcp"):
            raise ServiceUnknown(
                Code.UNKNOWN,
                f"{self._wish.host}: speaks TCPMUX only, which knows names, but neither "
                "namespaces, versions nor transports",
            )
        if self._wish.kind is Kind.DATAGRAM or self._wish.sst:
            raise ServiceUnknown(Code.TRANSPORT, f"{self._wish.host}: speaks TCPMUX only")

    def _usable(self, place: Place, answer: Answer) -> None:
        """Raises _Unsuitable for what this host, or this place, can't use."""
        name = f"{self._wish.name} of {self._wish.host}"
        if place.family not in answer.families:
            raise _NotHere(Code.TRANSPORT, f"{name}: not over IPv{place.family}")
        if self._wish.transport not in (None, answer.transport):
            raise AnswerUnusable(f"{self._wish.host}: answers for another transport")
        if answer.version not in self._wish.name.versions:
            raise AnswerUnusable(f"{self._wish.host}: answers for another version")
        try:
            kind = named(answer.transport).kind
        except UnknownTransport as error:
            raise _Unsuitable(Code.TRANSPORT, f"{name}: {error}") from None
        if self._wish.kind not in (None, kind):
            raise _Unsuitable(Code.TRANSPORT, f"{name}: only over {answer.transport}")

    def _encryption(self, place: Place) -> str:
        """What the policy makes of the wish, for this place (MK-17): what does not leave the host
        needs no encryption.  Raises ServiceDenied."""
        encryption = self._by_policy(place)
        return "never" if place.address.is_loopback else encryption

    def _by_policy(self, place: Place) -> str:
        name = self._wish.name
        for encrypted in (True, False):
            wanted = Wanted(name.service, name.namespace, None, place.address, encrypted)
            verdict = decide(self._policy.rules, wanted)
            if verdict.allowed:
                continue
            if encrypted:
                text = f"{name} of {self._wish.host}: the policy of this host refuses it"
                raise _DeniedHere(Code.DENIED, f"{text} ({verdict.origin})".replace(" ()", ""))
            return "require"
        if "require" in (self._policy.encrypt, self._wish.encrypt):
            return "require"  # an application may ask for more than the policy does, not for less
        return self._wish.encrypt or self._policy.encrypt


def _public(error: Exception) -> Exception:
    """Of a class that the application has read of."""
    if isinstance(error, _DeniedHere):
        return ServiceDenied(error.code, str(error))
    if isinstance(error, _NotHere | _Unsuitable):
        return ServiceUnknown(error.code, str(error))
    return error


class _DeniedHere(ServiceDenied):
    """By this host's policy, for one place."""


class _NotServing(ConnectionRefusedError):  # noqa: N818
    """By a fresh answer, twice."""
