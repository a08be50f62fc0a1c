"""What to ask the DNS, and what its answers come to.  No sockets, no clock.

`GatewayLookup` is the initiator's (RFC 4322 section 3.2.4) and the responder's
check of a claimed source (section 3.3.2); `KeyLookup` is the responder's for
the initiator's identity (section 3.3.1).  Both are driven the same way:

    until lookup.result is there:
        ask what lookup.next_question() gives, until it gives None
        lookup.receive_answer(... the Answer to one of them, in any order ...)

What does not depend on an answer is asked at the same time as it.  ``notes``
collects what should be counted but does not change the result: pairs of a
trigger's name and a detail.  ``records`` says which kinds of record name a
gateway: "TXT" (then its keys are KEY records) and "IPSECKEY".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from ipaddress import IPv4Address, IPv6Address

from dnsrecords.asking import Questions
from dnsrecords.candidate import Candidate, by_gateway, in_order
from dnsrecords.errors import MalformedName
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
from dnsrecords.question import Answer, Question
from dnsrecords.reading import (
    KEY_RECORD_OF,
    MAX_KEYS,
    Failure,
    Found,
    answer_failure,
    joined_keys,
    owner_of,
    read_delegations,
    read_keys,
    worst,
)
from dnsrecords.reverse import reverse_name
from dnsrecords.trust import Trust, weakest

__all__ = ["MAX_KEYS", "GatewayLookup", "KeyLookup"]

# Our choices, against answers that are made to cost us something.
MAX_DELEGATIONS = 32
MAX_KEY_QUESTIONS = 8  # gateways of one look-up; one beyond them counts as one without a key
MAX_NAMES = 4  # gateways whose addresses are looked up (RFC 4025 gateway type 3)
MAX_ADDRESSES = 4  # of one of them, and of each family

ADDRESS_OCTETS = {"A": 4, "AAAA": 16}


class _Purpose(Enum):
    DELEGATIONS = auto()
    KEYS = auto()
    ADDRESSES = auto()


class GatewayLookup:
    """Who may speak for ``address``?

    ``shuffle`` puts a list into random order; it is given each group of
    gateways of equal precedence (RFC 4322 section 5.2).  Without ``with_keys``
    the key records of gateways whose delegation has no key are not asked for,
    and ``keys`` stays empty: enough to know whom the address delegates to.
    """

    def __init__(
        self,
        address: IPAddress,
        shuffle: Callable[[list[Gateway]], None],
        with_keys: bool = True,
        may_ask: Callable[[IPAddress], bool] = lambda address: True,
        records: Sequence[str] = ("TXT",),
    ) -> None:
        self.result: GatewayOutcome | None = None
        self.notes: list[tuple[str, str]] = []
        self._address = address
        self._shuffle = shuffle
        self._with_keys = with_keys
        self._may_ask = may_ask
        self._records = tuple(records)
        self._questions: Questions[tuple[_Purpose, Candidate | None]] = Questions()
        self._delegations: list[Found] = []
        self._ttl = float("inf")
        self._trust = Trust.SECURE
        self._failures: list[Failure] = []
        self._candidates: list[Candidate] | None = None  # None: not all delegations are known yet
        self._keys: dict[int, list[KeyOutcome]] = {}  # by the candidate's place
        for rdtype in self._records:
            question = Question(reverse_name(address), rdtype)
            self._questions.add(question, (_Purpose.DELEGATIONS, None))

    def next_question(self) -> Question | None:
        """A question to ask now; None when all are under way, and when there is a result."""
        return None if self.result is not None else self._questions.next()

    def receive_answer(self, answer: Answer) -> None:
        """Take the answer to a question under way; another's raises RuntimeError."""
        if self.result is not None:
            return  # it came too late to matter
        for purpose, candidate in self._questions.answered(answer):
            if candidate is None:
                self._receive_delegations(answer)
            elif purpose is _Purpose.KEYS:
                self._receive_keys(answer, candidate)
            else:
                self._receive_addresses(answer, candidate)
            if self.result is not None:
                self._questions.drop()
                return
        if not self._questions:
            if self._candidates is None:
                self._delegations_known()
            if not self._questions and self.result is None:
                self._finish()

    # First who it is that may speak for the address.

    def _receive_delegations(self, answer: Answer) -> None:
        outcome = read_delegations(answer, self._address, self.notes)
        match outcome:
            case Malformed():
                self.result = outcome
            case list():
                self._delegations += outcome
                self._ttl = min(self._ttl, answer.ttl)
                self._trust = weakest(self._trust, answer.trust)
            case _:
                self._failures.append(outcome)

    def _delegations_known(self) -> None:
        """All answers about the address are in: ask what they leave open, all at once."""
        if not self._delegations:
            self.result = worst(self._failures)
            return
        self._failures.clear()  # a second kind of record that is not there, or not to be had
        # The order of an answer is the server's whim; ours makes the cut the same each time.
        self._delegations.sort(key=lambda each: (each.precedence, each.rdata))
        self._cut(self._delegations, MAX_DELEGATIONS, "delegations")
        self._candidates = by_gateway(self._delegations)
        named = [each for each in self._candidates if each.named]
        self._cut(named, MAX_NAMES, "gateways by name")
        for candidate in named:
            for rdtype in ADDRESS_OCTETS:
                question = Question(candidate.key_owner, rdtype)
                self._questions.add(question, (_Purpose.ADDRESSES, candidate))
        if self._with_keys:
            keyless = [
                each
                for each in self._candidates
                if each.lacks_key and (each.address is None or self._may_ask(each.address))
            ]
            self._cut(keyless, MAX_KEY_QUESTIONS, "KEY look-ups")
            for candidate in keyless:
                for rdtype in self._records:
                    question = Question(candidate.key_owner, KEY_RECORD_OF[rdtype])
                    self._questions.add(question, (_Purpose.KEYS, candidate))

    def _cut(self, many: list[Found] | list[Candidate], kept: int, what: str) -> None:
        if len(many) > kept:
            detail = f"{reverse_name(self._address)}: {len(many)} {what}, {kept} are used"
            self.notes.append(("records_over_limit", detail))
            del many[kept:]

    # Then their keys and their addresses.

    def _receive_keys(self, answer: Answer, candidate: Candidate) -> None:
        outcome = read_keys(answer, candidate.identity, self.notes)
        if answer.trust is Trust.BOGUS:
            # Somebody tampers with the DNS: nothing here is believed.  The outcome says so.
            assert isinstance(outcome, Malformed)
            self.result = outcome
            return
        self._keys.setdefault(id(candidate), []).append(outcome)
        if len(self._keys[id(candidate)]) < len(self._records):
            return
        joined = joined_keys(self._keys.pop(id(candidate)))
        if isinstance(joined, KeysFound):
            candidate.add(joined.keys)
            candidate.depends_on(joined.trust)
            self._ttl = min(self._ttl, joined.ttl)
        else:
            self._failures.append(joined)

    def _receive_addresses(self, answer: Answer, candidate: Candidate) -> None:
        failure = answer_failure(answer)
        if isinstance(failure, Malformed):
            self.result = failure
        elif failure is None:
            found = addresses_in(answer)[:MAX_ADDRESSES]
            candidate.addresses += found
            candidate.addresses.sort(key=lambda each: (each.version, each))
            candidate.depends_on(answer.trust)
            self._ttl = min(self._ttl, answer.ttl)
        elif isinstance(failure, Unanswered):
            self._failures.append(failure)

    def _finish(self) -> None:
        candidates = self._candidates or []
        usable = [each for each in candidates if each.keys or not self._with_keys]
        if usable:
            gateways = in_order(usable, self._shuffle)
            self.result = GatewaysFound(gateways, self._ttl, self._trust)
        elif self._failures:
            self.result = worst(self._failures)
        else:
            detail = "every delegation lacks its key, and no address of theirs may be asked for"
            self.result = NothingFound(self._ttl, detail)


def addresses_in(answer: Answer) -> list[IPAddress]:
    """The addresses of an answer to A or AAAA, in an order of our own."""
    size = ADDRESS_OCTETS[answer.question.rdtype]
    kind = IPv4Address if size == 4 else IPv6Address
    return [kind(rdata) for rdata in sorted(answer.records) if len(rdata) == size]


class KeyLookup:
    """Which keys does ``identity`` sign with?

    An address has its key records at its reverse name, a domain name at
    itself.  A text that is no domain name gives Malformed without a question:
    the identity is a stranger's word.
    """

    def __init__(self, identity: IPAddress | str, records: Sequence[str] = ("TXT",)) -> None:
        self.result: KeyOutcome | None = None
        self.notes: list[tuple[str, str]] = []
        self._identity = identity
        self._questions: Questions[None] = Questions()
        self._outcomes: list[KeyOutcome] = []
        try:
            owner = owner_of(identity)
        except MalformedName as error:
            self.notes.append((error.trigger, str(error)))
            self.result = Malformed(str(error), 0.0)
            return
        for rdtype in records:
            self._questions.add(Question(owner, KEY_RECORD_OF[rdtype]), None)

    def next_question(self) -> Question | None:
        """A question to ask now; None when all are under way, and when there is a result."""
        return None if self.result is not None else self._questions.next()

    def receive_answer(self, answer: Answer) -> None:
        """Take the answer to a question under way; another's raises RuntimeError."""
        if self.result is not None:
            return  # it came too late to matter
        self._questions.answered(answer)
        outcome = read_keys(answer, self._identity, self.notes)
        self._outcomes.append(outcome)
        if answer.trust is Trust.BOGUS:
            self.result = outcome
        elif not self._questions:
            self.result = joined_keys(self._outcomes)
