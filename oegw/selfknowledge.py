"""What the DNS says about ourselves: which identity peers can verify, and who has delegated to us.

A responder looks up the key of the identity that we present, and whether the client that we speak
for names it (draft sections 4.9 and 4.12).  We look at the same records before we begin: an
identity that no peer can verify leads to nothing but a refusal and a wait.  The same records say
whom we may be asked for: no host has us as its gateway without having said so in the DNS.

Nothing here asks; ``questions`` says what to ask.  What came back is kept for its TTL.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.outcome import (
    Gateway,
    GatewayOutcome,
    GatewaysFound,
    KeyOutcome,
    KeysFound,
    Malformed,
    NothingFound,
    Unanswered,
)
from ike.events import Identity
from policy.flow import IPAddress

# Our choices.
RECORDS_KEPT = 4096  # about clients of ours, mostly
UNANSWERED_KEPT = 5.0  # seconds until a question without an answer is put again


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """``key`` is what we sign with.  ``identity``, a domain name, is used whatever the DNS says of
    our address; ``fqdn`` is one to use where our address has no KEY record."""

    key: rsa.RSAPublicKey
    identity: str | None = None
    fqdn: str | None = None


class Record(Enum):
    """What is asked for about ourselves."""

    DELEGATION = "TXT"
    KEY = "KEY"


@dataclass(frozen=True, slots=True)
class OwnQuestion:
    """Ask for ``record`` of an address, at its reverse name, or of a domain name."""

    record: Record
    about: Identity


class NotOurs(Exception):  # noqa: N818  (it names the fact)
    """We can't speak for a client.  ``ttl``: seconds for which that holds; ``bad``: somebody
    tampers with the records, or they can't be read."""

    def __init__(self, reason: str, ttl: float, bad: bool = False) -> None:
        super().__init__(reason)
        self.ttl = ttl
        self.bad = bad


class _Answer(Enum):
    """Whether the DNS says something of us."""

    YES = 2
    UNKNOWN = 1  # it did not answer: that must not keep us from trying
    NO = 0


class SelfKnowledge:
    """Without ``own`` nothing is checked: every client is ours, under the identity configured."""

    def __init__(
        self,
        own: OwnSettings | None,
        addresses: tuple[IPAddress, ...],
        may_look_up: Callable[[IPAddress], bool],
    ) -> None:
        self._own = own
        self._addresses = addresses
        self._may_look_up = may_look_up
        self._kept: OrderedDict[OwnQuestion, tuple[float, GatewayOutcome | KeyOutcome]] = (
            OrderedDict()
        )

    def replace_key(self, key: rsa.RSAPublicKey) -> None:
        """We sign with another key from now on."""
        if self._own is not None:
            self._own = replace(self._own, key=key)

    # What to ask.

    def key_questions(self, now: float) -> list[OwnQuestion]:
        """What can be asked before any client is known: our own keys."""
        if self._own is None:
            return []
        names = [name for address in self._addresses for name in self._names(address)]
        return [q for name in dict.fromkeys(names) for q in self._open(Record.KEY, name, now)]

    def questions(self, client: IPAddress, now: float) -> list[OwnQuestion]:
        """What is not known, or not any more, of what ``identity_for`` goes by."""
        if self._own is None:
            return []
        local = self.address_for(client)
        wanted = self.client_questions(client, now)
        for name in self._names(local):
            wanted += self._open(Record.KEY, name, now)
        return wanted

    def client_questions(self, client: IPAddress, now: float) -> list[OwnQuestion]:
        """The same of what ``check_client`` goes by."""
        if self._own is None or not self._may_look_up(client):
            return []
        if client in self._addresses and self._name is None:
            return []  # we speak for it as itself
        return list(self._open(Record.DELEGATION, client, now))

    def _open(self, record: Record, about: Identity, now: float) -> Iterator[OwnQuestion]:
        if not isinstance(about, str) and not self._may_look_up(about):
            return
        question = OwnQuestion(record, about)
        if question not in self._kept or self._kept[question][0] <= now:
            yield question

    def learned(
        self, question: OwnQuestion, outcome: GatewayOutcome | KeyOutcome, now: float
    ) -> None:
        """An answer.  It stays beyond its time until there is another, but is asked for again."""
        ttl = UNANSWERED_KEPT if isinstance(outcome, Unanswered) else outcome.ttl
        if isinstance(outcome, GatewaysFound):  # strangers choose clients, and what these name
            outcome = replace(outcome, gateways=tuple(filter(self._may_be_us, outcome.gateways)))
        self._kept[question] = (now + ttl, outcome)
        self._kept.move_to_end(question)
        if len(self._kept) > RECORDS_KEPT:
            self._kept.popitem(last=False)

    def _may_be_us(self, gateway: Gateway) -> bool:
        own = self._own
        names = () if own is None else filter(None, (own.identity, own.fqdn))
        return any(_names_us(gateway, name) for name in (*self._addresses, *names))

    # What follows from it.

    @property
    def _name(self) -> str | None:
        own = self._own
        return None if own is None else own.identity or own.fqdn

    def address_for(self, client: IPAddress) -> IPAddress:
        """Our outer address towards a gateway of the client's family, if we have one."""
        near = (a for a in self._addresses if a.version == client.version)
        return next(near, self._addresses[0])

    def _names(self, local: IPAddress) -> list[Identity]:
        """What we may call ourselves, in order of preference."""
        assert self._own is not None
        if self._own.identity is not None:
            return [self._own.identity]
        return [local] if self._own.fqdn is None else [local, self._own.fqdn]

    def settled(self, client: IPAddress) -> bool:
        """Whether no further answer can change what ``identity_for`` says."""
        if self._own is None:
            return True
        local = self.address_for(client)
        first = self._names(local)[0]
        try:
            return self._standing(first, client, local)[0] is _Answer.YES
        except NotOurs:
            return True

    def identity_for(self, client: IPAddress, local: IPAddress) -> Identity | None:
        """Under which identity to negotiate for ``client`` from our address ``local``.

        None is the one that we always have: the address, or what is configured.  Raises NotOurs.
        An address goes before a name, and what the DNS confirms before what it keeps silent about.
        """
        if self._own is None:
            return None
        if not self._may_look_up(client):
            raise NotOurs(f"{client} is in a private or reserved range: no peer looks it up", 3600)
        chosen: tuple[_Answer, Identity | None] = (_Answer.NO, None)
        complaints: list[tuple[str, float]] = []
        for name in self._names(local):
            answer, why, ttl = self._standing(name, client, local)
            if answer is _Answer.NO:
                complaints.append((why, ttl))
            elif answer.value > chosen[0].value:
                chosen = (answer, None if name in (local, self._own.identity) else name)
        if chosen[0] is _Answer.NO:
            reasons = dict.fromkeys(why for why, _ in complaints)
            raise NotOurs("; ".join(reasons), min(ttl for _, ttl in complaints))
        return chosen[1]

    def check_client(self, client: IPAddress) -> None:
        """Whether a peer may ask us for ``client``.  Raises NotOurs.

        No answer is a no: else whoever names an address of a broken zone had us as its gateway.
        """
        if self._own is None or client in self._addresses:
            return
        if not self._may_look_up(client):
            raise NotOurs(f"{client} is in a private or reserved range", 3600)
        outcome = self._outcome(OwnQuestion(Record.DELEGATION, client))
        if outcome is None or isinstance(outcome, Unanswered):
            raise NotOurs(f"the DNS does not answer whether {client} delegates to us", 0.0)
        names: list[Identity] = list(self._addresses)
        if self._own.fqdn is not None:
            names.append(self._own.fqdn)
        if self._own.identity is not None:
            names.append(self._own.identity)
        judged = [self._named(name, client, outcome) for name in names]
        if not any(answer is _Answer.YES for answer, _, _ in judged):
            raise NotOurs(f"{client} does not delegate to us: {_detail(outcome)}", judged[0][2])

    def _standing(
        self, name: Identity, client: IPAddress, local: IPAddress
    ) -> tuple[_Answer, str, float]:
        """Whether a peer can verify ``name``, and that ``client`` delegates to it."""
        bound = self._bound(name, client, local)
        published = self._published(name)
        return min((bound, published), key=lambda each: each[0].value)

    def _bound(
        self, name: Identity, client: IPAddress, local: IPAddress
    ) -> tuple[_Answer, str, float]:
        if client == local == name:
            return _Answer.YES, "", 0.0
        outcome = self._outcome(OwnQuestion(Record.DELEGATION, client))
        if outcome is None or isinstance(outcome, Unanswered):
            return _Answer.UNKNOWN, "", 0.0
        if client == local and isinstance(name, str) and isinstance(outcome, NothingFound):
            keys = self._outcome(OwnQuestion(Record.KEY, local))
            if isinstance(keys, KeysFound) and not self._is_ours(keys.keys):
                return _Answer.NO, f"{local} has another key than {shown(name)}", keys.ttl
            return _Answer.YES, "", 0.0  # nobody else speaks for it: a peer takes us at our name
        return self._named(name, client, outcome)

    def _named(
        self, name: Identity, client: IPAddress, outcome: GatewayOutcome | KeyOutcome
    ) -> tuple[_Answer, str, float]:
        """Whether the records of ``client`` name us, with our key or none."""
        assert self._own is not None
        if isinstance(outcome, Malformed):
            raise NotOurs(f"records of our client {client}: {outcome.detail}", outcome.ttl, True)
        if not isinstance(outcome, GatewaysFound):
            why = f"{client} does not delegate to us: {_detail(outcome)}"
            return _Answer.NO, why, _ttl(outcome)
        ours = [gateway for gateway in outcome.gateways if _names_us(gateway, name)]
        if not ours:
            return _Answer.NO, f"{client} does not delegate to {shown(name)}", outcome.ttl
        for gateway in ours:
            if gateway.keyless or not gateway.keys or self._is_ours(gateway.keys):
                return _Answer.YES, "", 0.0
        why = f"{client} delegates to {shown(name)} with another key than ours"
        return _Answer.NO, why, outcome.ttl

    def _published(self, name: Identity) -> tuple[_Answer, str, float]:
        """Whether our key is among the KEY records of ``name``."""
        if not isinstance(name, str) and not self._may_look_up(name):
            why = f"{name} is in a private or reserved range: no peer looks up its key"
            return _Answer.NO, why, 3600.0
        match self._outcome(OwnQuestion(Record.KEY, name)):
            case None | Unanswered():
                return _Answer.UNKNOWN, "", 0.0
            case KeysFound(keys=keys, ttl=ttl):
                if self._is_ours(keys):
                    return _Answer.YES, "", 0.0
                return _Answer.NO, f"our key is not among the KEY records of {shown(name)}", ttl
            case outcome:
                why = f"our key is not in the DNS: {_detail(outcome)}"
                return _Answer.NO, why, _ttl(outcome)

    def _is_ours(self, keys: tuple[rsa.RSAPublicKey, ...]) -> bool:
        assert self._own is not None
        return self._own.key in keys

    def _outcome(self, question: OwnQuestion) -> GatewayOutcome | KeyOutcome | None:
        kept = self._kept.get(question)
        return None if kept is None else kept[1]


def shown(name: Identity) -> str:
    """An identity as configurations and records write it."""
    return f"@{name}" if isinstance(name, str) else str(name)


def _names_us(gateway: Gateway, name: Identity) -> bool:
    if isinstance(name, str):
        return gateway.fqdn is not None and gateway.fqdn.lower() == name.lower()
    return gateway.address == name


def _detail(outcome: GatewayOutcome | KeyOutcome) -> str:
    if isinstance(outcome, GatewaysFound | KeysFound):
        return "its records name others"
    return outcome.detail


def _ttl(outcome: GatewayOutcome | KeyOutcome) -> float:
    return 0.0 if isinstance(outcome, Unanswered) else outcome.ttl
