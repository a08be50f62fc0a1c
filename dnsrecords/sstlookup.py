"""Which keys for port encryption has an address, or a name?  Without IO.

Asked and answered like the look-ups of `lookup`:

    result = await resolver.run(SstKeyLookup(address))      # its reverse name
    result = await resolver.run(SstKeyLookup("b.example"))  # _sst.b.example
"""

from __future__ import annotations

from collections.abc import Callable

from dnsrecords.asking import Questions
from dnsrecords.errors import MalformedName, RecordError, UnknownSstAlgorithm
from dnsrecords.name import normal_fqdn
from dnsrecords.outcome import IPAddress, Malformed, NothingFound, SstKeyOutcome, SstKeysFound
from dnsrecords.question import Answer, Question
from dnsrecords.reading import Notes, answer_failure, malformed
from dnsrecords.reverse import reverse_name
from dnsrecords.sstkey import NAME_PREFIX, QUESTIONS, SstKey

# Our choices.
MAX_SST_KEYS = 16  # of one owner: two algorithms, a few gateways, an old key beside the new one
NOT_ASKED_TTL = 3600.0  # seconds that "may not be asked for" holds


class SstKeyLookup:
    """The SST keys at the reverse name of an address, or at ``_sst.`` and a name (SST-32).

    ``questions``: keys that are for questions only (Moniker) are wanted, too.

    ``may_ask``: whether the reverse name of an address may be asked for; of private ranges the
    public DNS is not.  A text that is no domain name gives Malformed without a question.
    """

    def __init__(
        self,
        owner: IPAddress | str,
        may_ask: Callable[[IPAddress], bool] = lambda address: True,
        *,
        questions: bool = False,
    ) -> None:
        self._wants_questions = questions
        self.result: SstKeyOutcome | None = None
        self.notes: Notes = []
        self._questions: Questions[None] = Questions()
        if isinstance(owner, str):
            try:
                name = sst_name(owner)
            except MalformedName as error:
                self.notes.append((error.trigger, str(error)))
                self.result = Malformed(str(error), 0.0)
                return
        elif may_ask(owner):
            name = reverse_name(owner)
        else:
            detail = f"{owner} is in a private or reserved range: not looked up"
            self.result = NothingFound(NOT_ASKED_TTL, detail)
            return
        self._questions.add(Question(name, "TXT"), None)

    def next_question(self) -> Question | None:
        """A question to ask now; None when it is under way, and when there is a result."""
        return None if self.result is not None else self._questions.next()

    def receive_answer(self, answer: Answer) -> None:
        """Take the answer to the question; another's raises RuntimeError."""
        if self.result is not None:
            return  # it came too late to matter
        self._questions.answered(answer)
        self.result = read_sst_keys(answer, self.notes, questions=self._wants_questions)


def sst_name(name: str) -> str:
    """The owner name of the keys of a host known by name, absolute.  Raises MalformedName."""
    return normal_fqdn(NAME_PREFIX + normal_fqdn(name)) + "."


def read_sst_keys(answer: Answer, notes: Notes, *, questions: bool = False) -> SstKeyOutcome:
    """The keys in one answer; a record of ours that can't be read spoils them all.

    So it is with delegations (RFC 4322 section 3.2.4), and for their reason: who can put one record
    there that we can't read, and one that we can, must not choose what we see.
    """
    if (failure := answer_failure(answer)) is not None:
        return failure
    found: dict[SstKey, None] = {}
    for rdata in sorted(answer.records):
        try:
            key = SstKey.parse(rdata)
        except UnknownSstAlgorithm as error:
            notes.append((error.trigger, f"{answer.question.name}: {error}"))
            continue
        except RecordError as error:
            notes.append((error.trigger, str(error)))
            return malformed(answer, error)
        if key is not None and (questions or key.algorithm != QUESTIONS):
            found[key] = None
    if not found:
        return NothingFound(answer.ttl, f"{answer.question.name} TXT: no record is an SST key")
    # The order of an answer is the server's whim; ours makes the cut the same each time.
    keys = sorted(found, key=lambda each: (each.precedence, each.serialize()))
    if len(keys) > MAX_SST_KEYS:
        detail = f"{answer.question.name}: {len(keys)} SST keys, {MAX_SST_KEYS} are used"
        notes.append(("records_over_limit", detail))
    return SstKeysFound(tuple(keys[:MAX_SST_KEYS]), answer.ttl, answer.trust)
