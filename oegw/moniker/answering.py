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

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import islice

from oegw.moniker import sealedquery, tcpmux, wire
from oegw.moniker.cookies import Cookies
from oegw.moniker.interface import Entry, IPAddress, Lease, LeaseRefused, Opening
from oegw.moniker.names import ServiceName
from oegw.moniker.registry import NotFound, Registry
from oegw.moniker.rules import Asked, Verdict, decide
from oegw.moniker.settings import HostSettings, MonikerSettings
from oegw.moniker.sources import Sources
from oegw.moniker.steps import (
    AskHost,
    HandOver,
    OpenPort,
    Question,
    Reply,
    Silence,
    Source,
    Step,
)
from oegw.moniker.tcpmux import MuxReply
from oegw.moniker.wire import (
    MAX_TTL,
    NO_NONCE,
    Answer,
    Code,
    MalformedMessage,
    Message,
    Query,
    Refusal,
    Retry,
    Sealed,
)
from oegw.sst.statickey import StaticKey

# Our choices.
MAX_REPLAYS = 8192  # sealed questions that opened a port, remembered with the address that asked
MAX_LISTED = 1000  # names in an answer to HELP
UNSEALED_PER_SECOND = 1000.0  # of sources that are not proven; one takes 45 us

__all__ = [
    "Answering",
    "AskHost",
    "HandOver",
    "OpenPort",
    "Question",
    "Reply",
    "Silence",
    "Source",
    "Step",
]


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
        self._registry = registry
        self._cookies = cookies
        self._random = random
        self._choose = choose
        self._leases = leases
        self._replays: OrderedDict[str, IPAddress] = OrderedDict()
        self._unsealings = Sources(UNSEALED_PER_SECOND)
        self._sources = Sources(settings.queries)
        self._hosts: dict[str, HostSettings] = {}
        self.reload(settings, key)

    def reload(self, settings: MonikerSettings, key: StaticKey | None) -> None:
        """Rules, hosts and limits change; what was asked before is answered by the old ones."""
        self._settings = settings
        self._key = key
        self._sources.per_second = settings.queries
        self._hosts = {name: host for host in settings.hosts for name in host.namespaces}

    # -------------------------------------------------------------------- questions

    def asked(self, octets: bytes, source: Source, now: float, *, busy: bool = False) -> Step:
        """``octets``: a datagram, or a line with or without its end.  Never raises.

        ``busy``: only proven sources are answered now.
        """
        source = replace(source, address=_plain(source.address), asked=_plain(source.asked))
        room = len(octets) if source.datagram else wire.MAX_LINE_OCTETS
        blank = Question(source, NO_NONCE, _NOBODY, None, room)
        allowed = source.datagram or self._sources.take(source.address, True, now)
        try:
            line = wire.decoded(octets)
            if not wire.is_ours(line):
                return self._tcpmux(line, blank, allowed)
            message = wire.parse(line)
            if isinstance(message, Sealed):
                blank = replace(blank, nonce=sealedquery.nonce_of(line))
                return self._sealed(line, blank, allowed, now, busy)
            if isinstance(message, Query):
                return self._query(message, blank, allowed, now, busy)
        except MalformedMessage as error:
            nonce = error.nonce or blank.nonce
            return self._malformed(replace(blank, nonce=nonce), str(error), now)
        return self._malformed(blank, "a message that is not a question", now)

    def _query(self, query: Query, blank: Question, allowed: bool, now: float, busy: bool) -> Step:
        """A question that came in clear, or that was unsealed (then `blank` has its key)."""
        source = blank.source
        proven = not source.datagram or self._cookies.holds(query.cookie, source.address, now)
        question = replace(blank, nonce=query.nonce, name=query.name, transport=query.transport)
        if source.datagram and (proven or question.answer_key is None):
            allowed = self._sources.take(source.address, proven, now)
        if not allowed:
            return self._busy(question) if proven else Silence("moniker_too_many")
        if busy and not proven:
            return self._retry(question, now)
        if (refused := self._refused_by_policy(question)) is not None:
            return refused
        if (host := self._hosts.get(query.name.namespace)) is not None:
            if not proven:
                return self._retry(question, now)
            return self._ask(question, host)
        return self._look_up(question, proven, now)

    def _look_up(self, question: Question, proven: bool, now: float) -> Step:
        source = question.source
        try:
            entry = self._registry.find(
                question.name,
                question.transport,
                self._choose,
                at=source.asked,
                family=source.family,
            )
        except NotFound as error:
            return self._refuse(question, error.code, str(error))
        service = entry.service
        # Of another family: the answer tells so, and no lease would help.
        if source.local or source.family not in service.families:
            return self._answer(question, entry, service.port, self._settings.lease)
        if self._leases and not proven:
            return self._retry(question, now)
        lease = Lease(
            source.address,
            source.asked,
            service.transport,
            service.port,
            self._settings.lease,
            service.service,
            service.namespace,
            question.encrypted,
        )
        return OpenPort(question, entry, lease)

    def _sealed(self, line: str, blank: Question, allowed: bool, now: float, busy: bool) -> Step:
        source = blank.source
        if source.datagram and not (
            self._sources.take(source.address, False, now)
            and self._unsealings.take(_ALL, False, now)
        ):
            return Silence("moniker_too_many")
        if not allowed:
            return self._busy(blank)
        try:
            if self._key is None:
                raise sealedquery.UnknownKey
            inner, answer_key = sealedquery.unseal(line, self._key)
        except sealedquery.UnknownKey:
            return self._refuse(blank, Code.KEY, "the key is not this host's")
        if self._replays.get(blank.nonce, source.address) != source.address:
            # It would open the port for somebody who could not even read the question.
            return Silence("moniker_replayed")
        blank, name = replace(blank, answer_key=answer_key), blank.nonce
        try:
            message = wire.parse(inner)
        except MalformedMessage as error:
            return self._refuse(blank, Code.MALFORMED, str(error))
        if not isinstance(message, Query):
            return self._refuse(blank, Code.MALFORMED, "a message that is not a question")
        if source.datagram and message.cookie is None:
            return self._refuse(blank, Code.MALFORMED, "over UDP it needs a cookie, at first any")
        if message.cookie is not None and not source.datagram:
            # A copy of a datagram: over TCP it would need no cookie, and open the port.
            return Silence("moniker_replayed")
        step = self._query(message, blank, allowed, now, busy)
        if isinstance(step, OpenPort | AskHost):  # others are no use to who repeats them
            self._replays[name] = source.address
            if len(self._replays) > MAX_REPLAYS:
                self._replays.popitem(last=False)
        return step

    def _ask(self, question: Question, host: HostSettings) -> Step:
        """MK-14: the question goes on to the host that has the namespace."""
        source = question.source
        mine = [a for a in host.addresses if a.version == source.address.version]
        if not mine or source.address in host.addresses:  # it would come back to us for ever
            return self._refuse(question, Code.UNKNOWN, "no such service")
        return AskHost(question, question.name, question.transport, mine[0], host.port)

    # ----------------------------------------------------------------------- TCPMUX

    def _tcpmux(self, line: str, question: Question, allowed: bool) -> Step:
        if question.source.datagram:
            return Silence("moniker_malformed")
        if not allowed:
            return _mux("busy: too many questions", "moniker_busy")
        try:
            request = tcpmux.parse_request(line)
        except MalformedMessage as error:
            return _mux(str(error), "moniker_malformed")
        if request.name is None:
            return self._help(question)
        question = replace(question, name=request.name, transport="tcp")
        if not self._verdict(question).allowed:
            return _mux("denied", "moniker_denied")
        if request.name.namespace in self._hosts:  # not that of a user here with this name
            return _mux("no such service", "moniker_unknown")
        try:
            entry = self._registry.find(
                request.name, "tcp", self._choose, at=question.source.asked, tcpmux=True
            )
        except NotFound as error:
            return _mux(str(error), f"moniker_{error.code.value}")
        return HandOver(
            question,
            entry,
            tcpmux.reply_text(MuxReply(True)).encode("ascii"),
            tcpmux.reply_text(MuxReply(False, "the service does not answer")).encode("ascii"),
        )

    def _help(self, question: Question) -> Reply:
        """MK-28: who may not list gets a refusal, and learns nothing."""
        if self._settings.listing != "all" and not question.source.local:
            return _mux("services are not listed", "moniker_denied")
        names = dict.fromkeys(self._listed(question))
        return Reply(tcpmux.help_text(islice(names, MAX_LISTED)).encode("utf-8"), "moniker_listed")

    def _listed(self, question: Question) -> Iterator[str]:
        for entry in self._registry.entries():
            name = ServiceName(entry.service.service, entry.service.namespace)
            if self._verdict(replace(question, name=name)).allowed:
                yield str(name)

    # ---------------------------------------------------------------------- answers

    def opened(self, step: OpenPort, opening: Opening) -> Reply | Silence:
        """The port is open."""
        return self._answer(step.question, step.entry, opening.port, opening.seconds)

    def not_opened(self, step: OpenPort | AskHost, refused: LeaseRefused) -> Reply | Silence:
        """The port is not open, or the host gave no answer."""
        return self._refuse(step.question, Code.of(refused.code), str(refused))

    def forwarded(
        self, step: AskHost, answer: Answer | Refusal, opening: Opening | None
    ) -> Reply | Silence:
        """What the host behind us said; ``opening`` where it was an Answer."""
        question = step.question
        if isinstance(answer, Refusal):
            return self._refuse(question, answer.code, answer.text)
        if opening is None:
            return self._refuse(question, Code.GATEWAY, "the port was not opened")
        ttl = min(answer.ttl, opening.seconds, self._settings.lease)
        answer = replace(
            answer,
            nonce=question.nonce,
            port=opening.port,
            families=question.source.family,  # it was opened for that one
            ttl=ttl,
        )
        return self._say(question, answer, "moniker_answered")

    def _answer(self, question: Question, entry: Entry, port: int, ttl: int) -> Reply | Silence:
        service = entry.service
        return self._say(
            question,
            Answer(
                question.nonce,
                port,
                service.transport,
                service.version,
                service.families,
                max(0, min(ttl, self._settings.lease, MAX_TTL)),
                service.sst,
            ),
            "moniker_answered",
        )

    def _verdict(self, question: Question) -> Verdict:
        source = question.source
        if self._settings.clear != "all" and not (question.encrypted or source.local):
            return Verdict(False, Code.CLEAR)
        host = source.asked
        if (behind := self._hosts.get(question.name.namespace)) is not None:
            same = [a for a in behind.addresses if a.version == source.address.version]
            host = same[0] if same else host
        name = question.name
        return decide(
            self._settings.rules,
            Asked(name.service, name.namespace, source.address, host, question.encrypted),
        )

    def _refused_by_policy(self, question: Question) -> Reply | Silence | None:
        """Decided by the name alone: a refusal says nothing of what is registered."""
        verdict = self._verdict(question)
        if verdict.allowed:
            return None
        code = verdict.code or Code.DENIED
        return self._refuse(
            question,
            code,
            "encrypted questions only" if code is Code.CLEAR else "denied by policy",
        )

    def _refuse(self, question: Question, code: Code, why: str) -> Reply | Silence:
        return self._say(question, Refusal(question.nonce, code, why), f"moniker_{code.value}")

    def _busy(self, question: Question) -> Reply | Silence:
        return self._refuse(question, Code.BUSY, "too many questions")

    def _retry(self, question: Question, now: float) -> Reply | Silence:
        cookie = self._cookies.cookie(question.source.address, now)
        return self._say(question, Retry(question.nonce, cookie), "moniker_unproven")

    def _malformed(self, question: Question, why: str, now: float) -> Reply | Silence:
        """A datagram without a nonce gets no answer: nobody could tell that it is ours."""
        source = question.source
        if source.datagram and (
            question.nonce == NO_NONCE or not self._sources.take(source.address, False, now)
        ):
            return Silence("moniker_malformed")
        return self._refuse(question, Code.MALFORMED, why)

    def _say(self, question: Question, message: Message, trigger: str) -> Reply | Silence:
        """MK-27: never more octets than the question had, over UDP."""
        octets = self._octets(question, message)
        if len(octets) > question.room and isinstance(message, Refusal):
            octets = self._octets(question, replace(message, text=""))
        if len(octets) > question.room:
            return Silence("moniker_question_too_short")
        return Reply(octets, trigger)

    def _octets(self, question: Question, message: Message) -> bytes:
        line = wire.text(message)
        if question.answer_key is not None:
            line = sealedquery.seal_answer(line, question.answer_key, self._random)
        return line.encode("utf-8") + (b"" if question.source.datagram else b"\r\n")


_NOBODY = ServiceName("nobody")  # until the question is read
_ALL = IPv4Address(0)


def _mux(why: str, trigger: str) -> Reply:
    return Reply(tcpmux.reply_text(MuxReply(False, why)).encode("ascii"), trigger)


def _plain(address: IPAddress) -> IPAddress:
    """An IPv4 client of an IPv6 socket is an IPv4 client."""
    return getattr(address, "ipv4_mapped", None) or address
