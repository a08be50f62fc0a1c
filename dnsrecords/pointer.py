"""What does the reverse zone call an address?  PTR records (RFC 1035 section 3.3.12), without IO.

Who writes the reverse zone owns the address; if the name that stands there has the address in turn,
what is said at the name is said for the address, too.
"""

from __future__ import annotations

from collections.abc import Callable

from dnsrecords.asking import Questions
from dnsrecords.errors import MalformedName
from dnsrecords.name import normal_fqdn
from dnsrecords.outcome import IPAddress, NameOutcome, NamesFound, NothingFound
from dnsrecords.question import Answer, Question
from dnsrecords.reading import Notes, answer_failure
from dnsrecords.reverse import reverse_name
from dnsrecords.wire import Reader

# Our choices.
MAX_NAMES = 16
NOT_ASKED_TTL = 3600.0  # seconds that "may not be asked for" holds


class PointerLookup:
    """The names of ``address``; driven as the look-ups of `lookup` are.

    ``may_ask``: whether its reverse name may be asked for; of private ranges the public DNS is not.
    """

    def __init__(
        self,
        address: IPAddress,
        may_ask: Callable[[IPAddress], bool] = lambda address: True,
    ) -> None:
        self.result: NameOutcome | None = None
        self.notes: Notes = []
        self._questions: Questions[None] = Questions()
        if may_ask(address):
            self._questions.add(Question(reverse_name(address), "PTR"), None)
        else:
            detail = f"{address} is in a private or reserved range: not looked up"
            self.result = NothingFound(NOT_ASKED_TTL, detail)

    def next_question(self) -> Question | None:
        """A question to ask now; None when it is under way, and when there is a result."""
        return None if self.result is not None else self._questions.next()

    def receive_answer(self, answer: Answer) -> None:
        """Take the answer to the question; another's raises RuntimeError."""
        if self.result is not None:
            return  # it came too late to matter
        self._questions.answered(answer)
        if (failure := answer_failure(answer)) is not None:
            self.result = failure
            return
        names: dict[str, None] = {}
        for rdata in sorted(answer.records):
            try:
                names[_name(rdata)] = None
            except MalformedName as error:  # no host's name: it says nothing of one
                self.notes.append((error.trigger, f"{answer.question.name}: {error}"))
        if names:
            self.result = NamesFound(tuple(names)[:MAX_NAMES], answer.ttl, answer.trust)
        else:
            detail = f"{answer.question.name} PTR: no record is a host's name"
            self.result = NothingFound(answer.ttl, detail)


def _name(rdata: bytes) -> str:
    """Raises MalformedName."""
    reader = Reader(rdata, MalformedName)
    labels: list[str] = []
    while length := reader.uint8("length"):
        label = reader.take(length, "label").decode("latin-1")
        if "." in label:
            raise MalformedName("a label has a dot")
        labels.append(label)
    return normal_fqdn(".".join(labels))
