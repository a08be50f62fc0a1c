"""What to ask the DNS, and what its answers come to.  No sockets, no clock.

`GatewayLookup` is the initiator's (RFC 4322 section 3.2.4) and the responder's
check of a claimed source (section 3.3.2); `KeyLookup` is the responder's for
the initiator's identity (section 3.3.1).  Both are driven the same way:

    while (question := lookup.next_question()) is not None:
        lookup.receive_answer(... the Answer to it ...)
    lookup.result

One question is under way at a time.  ``notes`` collects what should be counted
but does not change the result: pairs of a trigger's name and a detail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.delegation import Delegation
from dnsrecords.errors import MalformedName, RecordError
from dnsrecords.key import HostKey
from dnsrecords.name import normal_fqdn
from dnsrecords.outcome import (
    Gateway,
    GatewayOutcome,
    GatewaysFound,
    IPAddress,
    KeyOutcome,
    KeysFound,
    Malformed,
    NothingFound,
    Unanswered,
)
from dnsrecords.question import Answer, Question, Status
from dnsrecords.reverse import reverse_name
from dnsrecords.trust import Trust

# Our choices, against answers that are made to cost us something.
MAX_DELEGATIONS = 32
MAX_KEYS = 16  # of one gateway or one identity
MAX_KEY_QUESTIONS = 8  # of one look-up; a gateway beyond them counts as one without a key


class GatewayLookup:
    """Who may speak for ``address``?

    ``shuffle`` puts a list into random order; it is given each group of
    gateways of equal precedence (RFC 4322 section 5.2).  Without ``with_keys``
    the KEY records of gateways whose TXT record has no key are not asked for,
    and ``keys`` stays empty: enough to know whom the address delegates to.
    """

    def __init__(
        self,
        address: IPAddress,
        shuffle: Callable[[list[Gateway]], None],
        with_keys: bool = True,
        may_ask: Callable[[IPAddress], bool] = lambda address: True,
    ) -> None:
        self.result: GatewayOutcome | None = None
        self.notes: list[tuple[str, str]] = []
        self._shuffle = shuffle
        self._with_keys = with_keys
        self._may_ask = may_ask
        self._pending: Question | None = Question(reverse_name(address), "TXT")
        self._asked: Question | None = None
        self._candidates: list[_Candidate] = []
        self._keyless: list[_Candidate] = []  # still to be asked for, or under way: the first
        self._failures: list[Malformed | Unanswered | NothingFound] = []
        self._ttl = 0.0
        self._trust = Trust.SECURE

    def next_question(self) -> Question | None:
        """The question to ask now; None while one is under way and when there is a result."""
        question, self._pending = self._pending, None
        if question is not None:
            self._asked = question
        return question

    def receive_answer(self, answer: Answer) -> None:
        """Take the answer to the question under way; another's raises RuntimeError."""
        check_expected(answer, self._asked)
        self._asked = None
        if answer.question.rdtype == "TXT":
            self._receive_delegations(answer)
        else:
            self._receive_keys(answer)

    def _receive_delegations(self, answer: Answer) -> None:
        if (failure := answer_failure(answer)) is not None:
            self.result = failure
            return
        delegations: list[tuple[Delegation, bytes]] = []
        for rdata in answer.records:
            try:
                delegation = Delegation.parse(rdata)
            except RecordError as error:
                # RFC 4322 section 3.2.4: deny, even if other records can be read.
                self.notes.append((error.trigger, str(error)))
                self.result = _malformed(answer, error)
                return
            if delegation is not None:
                delegations.append((delegation, rdata))
                if delegation.joined_with_blanks:
                    self.notes.append(("txt_joined_with_blanks", answer.question.name))
        if not delegations:
            detail = f"{answer.question.name} TXT: no record is a delegation"
            self.result = NothingFound(answer.ttl, detail)
            return
        # The order of an answer is the server's whim; ours makes the cut the same each time.
        delegations.sort(key=lambda pair: (pair[0].precedence, pair[1]))
        if len(delegations) > MAX_DELEGATIONS:
            self._note_dropped(answer, len(delegations), MAX_DELEGATIONS, "delegations")
            del delegations[MAX_DELEGATIONS:]
        self._ttl, self._trust = answer.ttl, answer.trust
        self._candidates = _by_gateway(delegation for delegation, _ in delegations)
        if self._with_keys:
            self._keyless = [
                each
                for each in self._candidates
                if each.lacks_key and (each.address is None or self._may_ask(each.address))
            ]
            if len(self._keyless) > MAX_KEY_QUESTIONS:
                self._note_dropped(answer, len(self._keyless), MAX_KEY_QUESTIONS, "KEY look-ups")
                del self._keyless[MAX_KEY_QUESTIONS:]
        self._ask_or_finish()

    def _receive_keys(self, answer: Answer) -> None:
        candidate = self._keyless.pop(0)
        outcome = _read_keys(answer, self.notes)
        if isinstance(outcome, KeysFound):
            candidate.add(outcome.keys)
            self._ttl = min(self._ttl, outcome.ttl)
            self._trust = weaker(self._trust, outcome.trust)
        elif answer.trust is Trust.BOGUS:
            self.result = outcome  # somebody tampers with the DNS: nothing here is believed
            return
        else:
            self._failures.append(outcome)
        self._ask_or_finish()

    def _ask_or_finish(self) -> None:
        if self._keyless:
            self._pending = Question(self._keyless[0].key_owner(), "KEY")
            return
        usable = [each for each in self._candidates if each.keys or not self._with_keys]
        if usable:
            self.result = GatewaysFound(self._in_order(usable), self._ttl, self._trust)
        elif self._failures:
            self.result = _worst(self._failures)
        else:
            detail = "every delegation lacks its key, and no address of theirs may be asked for"
            self.result = NothingFound(self._ttl, detail)

    def _in_order(self, usable: list[_Candidate]) -> tuple[Gateway, ...]:
        ordered: list[Gateway] = []
        for _, group in groupby(
            (each.gateway() for each in usable), lambda gateway: gateway.precedence
        ):
            tied = list(group)
            if len(tied) > 1:
                self._shuffle(tied)
            ordered += tied
        return tuple(ordered)

    def _note_dropped(self, answer: Answer, found: int, kept: int, what: str) -> None:
        detail = f"{answer.question.name}: {found} {what}, {kept} are used"
        self.notes.append(("records_over_limit", detail))


class KeyLookup:
    """Which keys does ``identity`` sign with?

    An address has its KEY records at its reverse name, a domain name at
    itself.  A text that is no domain name gives Malformed without a question:
    the identity is a stranger's word.
    """

    def __init__(self, identity: IPAddress | str) -> None:
        self.result: KeyOutcome | None = None
        self.notes: list[tuple[str, str]] = []
        self._pending: Question | None = None
        self._asked: Question | None = None
        try:
            self._pending = Question(_owner(identity), "KEY")
        except MalformedName as error:
            self.notes.append((error.trigger, str(error)))
            self.result = Malformed(str(error), 0.0)

    def next_question(self) -> Question | None:
        """The question to ask now; None while it is under way and when there is a result."""
        question, self._pending = self._pending, None
        if question is not None:
            self._asked = question
        return question

    def receive_answer(self, answer: Answer) -> None:
        """Take the answer to the question under way; another's raises RuntimeError."""
        check_expected(answer, self._asked)
        self._asked = None
        self.result = _read_keys(answer, self.notes)


@dataclass(slots=True)
class _Candidate:
    """One gateway, with what all the delegations to it say together.

    A gateway that rolls its key over has a delegation for each key (RFC 4322
    section 5.4), and the verifier must hold them all.
    """

    precedence: int
    address: IPAddress | None
    fqdn: str | None
    keys: list[rsa.RSAPublicKey] = field(default_factory=list)
    lacks_key: bool = False

    def add(self, keys: Iterable[rsa.RSAPublicKey]) -> None:
        for key in keys:
            if len(self.keys) < MAX_KEYS and key not in self.keys:
                self.keys.append(key)

    def key_owner(self) -> str:
        # One of the two is given: Delegation sees to it.
        return _owner(self.fqdn or "" if self.address is None else self.address)

    def gateway(self) -> Gateway:
        return Gateway(self.precedence, self.address, self.fqdn, tuple(self.keys), self.lacks_key)


def _by_gateway(delegations: Iterable[Delegation]) -> list[_Candidate]:
    """One candidate per gateway, at its lowest precedence; ``delegations`` come in order."""
    found: dict[tuple[IPAddress | None, str | None], _Candidate] = {}
    for each in delegations:
        candidate = found.setdefault(
            (each.address, each.fqdn), _Candidate(each.precedence, each.address, each.fqdn)
        )
        if each.key is None:
            candidate.lacks_key = True
        else:
            candidate.add([each.key])
    return list(found.values())


def _owner(identity: IPAddress | str) -> str:
    return normal_fqdn(identity) + "." if isinstance(identity, str) else reverse_name(identity)


def check_expected(answer: Answer, asked: Question | None) -> None:
    if asked is None or answer.question != asked:
        raise RuntimeError(f"answer to {answer.question}, but {asked} is under way")


def answer_failure(answer: Answer) -> Malformed | Unanswered | NothingFound | None:
    """What an answer without usable records comes to; None if it has records."""
    what = f"{answer.question.name} {answer.question.rdtype}"
    detail = f"{what}: {answer.detail or answer.status.value}"
    if answer.trust is Trust.BOGUS:
        return Malformed(f"{what}: DNSSEC calls the answer bogus", answer.ttl)
    if answer.status is Status.UNANSWERED:
        return Unanswered(detail)
    if answer.status is not Status.ANSWERED or not answer.records:
        return NothingFound(answer.ttl, detail)
    return None


def _malformed(answer: Answer, error: RecordError) -> Malformed:
    return Malformed(f"{answer.question.name} {answer.question.rdtype}: {error}", answer.ttl)


def _read_keys(
    answer: Answer, notes: list[tuple[str, str]]
) -> KeysFound | NothingFound | Unanswered | Malformed:
    """The keys in an answer about KEY records.

    A record that can't be read does not spoil the good ones beside it: any KEY
    record may verify a signature (RFC 4322 section 5.1), and an old key, too
    small by now, may well be left beside its successor.
    """
    if (failure := answer_failure(answer)) is not None:
        return failure
    keys: list[rsa.RSAPublicKey] = []
    broken: RecordError | None = None
    for rdata in sorted(answer.records):
        try:
            host_key = HostKey.parse(rdata)
        except RecordError as error:
            notes.append((error.trigger, f"{answer.question.name}: {error}"))
            broken = error
            continue
        if host_key is None or host_key.key in keys:
            continue
        if len(keys) == MAX_KEYS:
            detail = f"{answer.question.name}: more than {MAX_KEYS} keys"
            notes.append(("records_over_limit", detail))
            break
        keys.append(host_key.key)
    if keys:
        return KeysFound(tuple(keys), answer.ttl, answer.trust)
    if broken is not None:
        return _malformed(answer, broken)
    return NothingFound(answer.ttl, f"{answer.question.name} KEY: no record is for IPsec")


def weaker(first: Trust, second: Trust) -> Trust:
    return first if first is not Trust.SECURE else second


def _worst(
    failures: list[Malformed | Unanswered | NothingFound],
) -> Malformed | Unanswered | NothingFound:
    """What look-ups of keys that all failed come to: deny if in doubt, retry before giving up."""
    for kind in (Malformed, Unanswered):
        for each in failures:
            if isinstance(each, kind):
                return each
    nothing = [each for each in failures if isinstance(each, NothingFound)]
    return min(nothing, key=lambda each: each.ttl)
