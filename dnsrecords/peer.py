"""Where is a peer that is known by name, and which keys has it?  Without IO."""

from __future__ import annotations

from collections.abc import Sequence

from dnsrecords.asking import Questions
from dnsrecords.errors import MalformedName
from dnsrecords.lookup import ADDRESS_OCTETS, KeyLookup, addresses_in
from dnsrecords.name import normal_fqdn
from dnsrecords.outcome import IPAddress, KeysFound, Malformed, PeerFound, PeerOutcome
from dnsrecords.question import Answer, Question
from dnsrecords.reading import Failure, answer_failure, worst
from dnsrecords.trust import Trust, weakest

# Our choice: more addresses than that no peer has.
MAX_ADDRESSES = 16


class PeerLookup:
    """A and AAAA of ``name`` and the keys of ``identity``, all at once; either may be None.

    One family without addresses is no failure if the other has some.  Asked and answered like the
    look-ups of `lookup`.
    """

    def __init__(
        self,
        name: str | None,
        identity: IPAddress | str | None,
        records: Sequence[str] = ("TXT",),
    ) -> None:
        self.result: PeerOutcome | None = None
        self.notes: list[tuple[str, str]] = []
        self._addresses: dict[str, list[IPAddress]] = {}  # by the type of their records
        self._ttl = float("inf")
        self._trust = Trust.SECURE
        self._failures: list[Failure] = []
        self._key_lookup = None if identity is None else KeyLookup(identity, records)
        self._questions: Questions[None] = Questions()
        self._named = name is not None
        if name is not None:
            try:
                owner = normal_fqdn(name) + "."
            except MalformedName as error:
                self.result = Malformed(str(error), 0.0)
                return
            for rdtype in ADDRESS_OCTETS:
                self._questions.add(Question(owner, rdtype), None)
        self._look()

    def next_question(self) -> Question | None:
        """A question to ask now; None when all are under way, and when there is a result."""
        if self.result is not None:
            return None
        question = self._questions.next()
        if question is None and self._key_lookup is not None:
            question = self._key_lookup.next_question()
        return question

    def receive_answer(self, answer: Answer) -> None:
        """Take the answer to a question under way; another's raises RuntimeError."""
        if self.result is not None:
            return  # it came too late to matter
        if answer.question.rdtype in ADDRESS_OCTETS:
            self._questions.answered(answer)
            self._receive_addresses(answer)
        elif self._key_lookup is None:
            raise RuntimeError(f"answer to {answer.question}, which is not under way")
        else:
            self._key_lookup.receive_answer(answer)
        self._look()

    def _receive_addresses(self, answer: Answer) -> None:
        failure = answer_failure(answer)
        if isinstance(failure, Malformed):  # bogus: nothing of this name is believed
            self.result = failure
        elif failure is not None:
            self._failures.append(failure)
        else:
            self._note(answer.ttl, answer.trust)
            found = addresses_in(answer)[:MAX_ADDRESSES]
            self._addresses[answer.question.rdtype] = found
            if not found:
                detail = f"{answer.question.name}: no address"
                self._failures.append(Malformed(detail, answer.ttl))

    def _look(self) -> None:
        """Whether all is known by now, or will never be."""
        lookup = self._key_lookup
        keys = None if lookup is None else lookup.result
        if self.result is not None:
            return
        if lookup is not None and keys is not None and not isinstance(keys, KeysFound):
            self.notes += lookup.notes
            self.result = keys
            return
        if self._questions or (lookup is not None and keys is None):
            if not self._questions and self._named and not any(self._addresses.values()):
                self.result = worst(self._failures)
            return
        addresses = [each for rdtype in ADDRESS_OCTETS for each in self._addresses.get(rdtype, ())]
        if self._named and not addresses:
            self.result = worst(self._failures)
            return
        if lookup is not None:
            self.notes += lookup.notes
        if isinstance(keys, KeysFound):
            self._note(keys.ttl, keys.trust)
        public = keys.keys if isinstance(keys, KeysFound) else ()
        self.result = PeerFound(tuple(addresses), public, self._ttl, self._trust)

    def _note(self, ttl: float, trust: Trust) -> None:
        self._ttl = min(self._ttl, ttl)
        self._trust = weakest(self._trust, trust)
