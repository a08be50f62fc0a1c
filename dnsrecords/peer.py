"""Where is a peer that is known by name, and which keys has it?  Without IO."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.errors import MalformedName
from dnsrecords.lookup import KeyLookup, answer_failure, check_expected, weaker
from dnsrecords.name import normal_fqdn
from dnsrecords.outcome import IPAddress, KeysFound, Malformed, PeerFound, PeerOutcome
from dnsrecords.question import Answer, Question
from dnsrecords.trust import Trust

# Our choice: more addresses than that no peer has.
MAX_ADDRESSES = 16

_OCTETS = {"A": 4, "AAAA": 16}


class PeerLookup:
    """A, AAAA of ``name``, then KEY of ``identity``; either may be None.

    One family without addresses is no failure if the other has some.  Asked and answered like the
    look-ups of `lookup`.
    """

    def __init__(self, name: str | None, identity: IPAddress | str | None) -> None:
        self.result: PeerOutcome | None = None
        self.notes: list[tuple[str, str]] = []
        self._addresses: list[IPAddress] = []
        self._keys: tuple[rsa.RSAPublicKey, ...] = ()
        self._ttl = float("inf")
        self._trust = Trust.SECURE
        self._failure: PeerOutcome | None = None
        self._key_lookup = None if identity is None else KeyLookup(identity)
        self._families: list[Question] = []
        self._asked: Question | None = None
        if name is not None:
            try:
                owner = normal_fqdn(name) + "."
            except MalformedName as error:
                self.result = Malformed(str(error), 0.0)
                return
            self._families = [Question(owner, rdtype) for rdtype in _OCTETS]
        elif self._key_lookup is None:
            self._finish()
        if self._key_lookup is not None and self._key_lookup.result is not None:
            self._keys_known()

    def next_question(self) -> Question | None:
        """The question to ask now; None while one is under way and when there is a result."""
        if self._asked is not None or self.result is not None:
            return None
        if self._families:
            self._asked = self._families.pop(0)
        elif self._key_lookup is not None:
            self._asked = self._key_lookup.next_question()
        return self._asked

    def receive_answer(self, answer: Answer) -> None:
        """Take the answer to the question under way; another's raises RuntimeError."""
        check_expected(answer, self._asked)
        self._asked = None
        if answer.question.rdtype in _OCTETS:
            self._receive_addresses(answer)
            return
        assert self._key_lookup is not None
        self._key_lookup.receive_answer(answer)
        self._keys_known()

    def _receive_addresses(self, answer: Answer) -> None:
        failure = answer_failure(answer)
        if isinstance(failure, Malformed):  # bogus: nothing of this name is believed
            self.result = failure
            return
        if failure is not None:
            self._failure = self._failure or failure
        else:
            self._note(answer.ttl, answer.trust)
            size = _OCTETS[answer.question.rdtype]
            kind = IPv4Address if size == 4 else IPv6Address
            good = [kind(rdata) for rdata in sorted(answer.records) if len(rdata) == size]
            self._addresses += good[:MAX_ADDRESSES]
        if self._families:
            return
        if not self._addresses:
            detail = f"{answer.question.name}: no address"
            self.result = self._failure or Malformed(detail, answer.ttl)
        elif self._key_lookup is None:
            self._finish()

    def _keys_known(self) -> None:
        assert self._key_lookup is not None
        self.notes += self._key_lookup.notes
        outcome = self._key_lookup.result
        if isinstance(outcome, KeysFound):
            self._keys = outcome.keys
            self._note(outcome.ttl, outcome.trust)
            self._finish()
        else:
            self.result = outcome

    def _note(self, ttl: float, trust: Trust) -> None:
        self._ttl = min(self._ttl, ttl)
        self._trust = weaker(self._trust, trust)

    def _finish(self) -> None:
        self.result = PeerFound(tuple(self._addresses), self._keys, self._ttl, self._trust)
