"""One question to a daemon, and what its answer comes to.  Without IO.

A question in clear is answered in clear, a sealed one sealed; but a daemon that can't open it says
so in clear, and so may one that is busy.  Such a refusal proves nothing, and gains nothing: a
stranger on the way could as well have lost the question.
"""

from __future__ import annotations

from collections.abc import Callable

from oegw.moniker.library.errors import REFUSALS, AnswerUnusable, ServiceRefused
from oegw.moniker.names import ServiceName
from oegw.moniker.wire import (
    Answer,
    Code,
    Query,
    Refusal,
    Sealed,
    is_ours,
    parse,
    text,
)

# Our choice.
NONCE_OCTETS = 16

# What a daemon may say without having read which question it was.
_UNREAD = (Code.KEY, Code.BUSY, Code.MALFORMED, Code.CLEAR, Code.OTHER)


class SpeaksTcpmux(AnswerUnusable):
    """The server took our question for a name that it doesn't have (RFC 1078)."""


class Question:
    """``line``: to be sent, without CRLF.  ``key``: the host's public key; None: in clear."""

    def __init__(
        self,
        name: ServiceName,
        transport: str | None,
        key: bytes | None,
        random: Callable[[int], bytes],
    ) -> None:
        self._name = name
        self._nonce = random(NONCE_OCTETS).hex()
        self._answer_key: bytes | None = None
        self.line = text(Query(self._nonce, name, transport))
        if key is not None:
            # Takes a while to import, and most hosts have no key.
            from oegw.moniker.sealedquery import seal

            sealed = seal(self.line, key, random)
            self.line, self._answer_key = sealed.text, sealed.answer_key

    def answer(self, line: str) -> Answer:
        """What ``line`` says.

        Raises ServiceRefused (one of its kinds), SpeaksTcpmux, AnswerUnusable, MalformedMessage.
        """
        if not is_ours(line):
            if line[:1] == "-":
                raise SpeaksTcpmux("the server speaks TCPMUX only")
            raise AnswerUnusable("what answers there is no daemon of Moniker")
        if self._answer_key is not None and isinstance(parse(line), Sealed):
            from oegw.moniker.sealedquery import unseal_answer

            message = parse(unseal_answer(line, self._answer_key))
        else:
            message = parse(line)
            if isinstance(message, Refusal) and message.code in _UNREAD:
                raise self._refused(message)
            if self._answer_key is not None:
                raise AnswerUnusable("an answer in clear to an encrypted question")
        if not isinstance(message, Answer | Refusal):
            raise AnswerUnusable("what came is no answer")
        if message.nonce != self._nonce:
            raise AnswerUnusable("an answer to another question")
        if isinstance(message, Refusal):
            raise self._refused(message)
        return message

    def _refused(self, refusal: Refusal) -> ServiceRefused:
        why = f": {refusal.text}" if refusal.text else ""
        kind = REFUSALS.get(refusal.code, ServiceRefused)
        return kind(refusal.code, f"{self._name}: {refusal.code.value}{why}")
