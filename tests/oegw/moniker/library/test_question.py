"""One question and its answer, in clear and sealed (MK-16, MK-33)."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest

from oegw.moniker.library.errors import (
    AnswerUnusable,
    KeyRefused,
    ServiceBusy,
    ServiceDenied,
    ServiceRefused,
    ServiceUnknown,
)
from oegw.moniker.library.question import Question, SpeaksTcpmux
from oegw.moniker.names import MonikerError, ServiceName, Version
from oegw.moniker.sealedquery import seal_answer, unseal
from oegw.moniker.wire import Answer, Code, MalformedMessage, Query, Refusal, parse, text
from oegw.sst.statickey import StaticKey

NAME = ServiceName.parse("bob::starwars@>=1")
KEY = StaticKey(bytes(range(32)))


def octets(seed: int = 1) -> Any:
    return random.Random(seed).randbytes


def asked(question: Question) -> Query:
    message = parse(question.line)
    assert isinstance(message, Query)
    return message


def answer(nonce: str, **changes: Any) -> Answer:
    fields: dict[str, Any] = {
        "port": 4711, "transport": "tcp", "version": Version.parse("1"), "families": "46", "ttl": 60
    }  # fmt: skip
    return Answer(nonce, **{**fields, **changes})


def test_it_asks_for_what_is_wanted_with_a_nonce_of_its_own() -> None:
    random_octets = octets()
    first = asked(Question(NAME, "tcp", None, random_octets))
    second = asked(Question(NAME, None, None, random_octets))
    assert (first.name, first.transport, second.transport) == (NAME, "tcp", None)
    assert first.nonce != second.nonce
    assert len(first.nonce) == 32


def test_an_answer_is_taken() -> None:
    question = Question(NAME, None, None, octets())
    given = answer(asked(question).nonce)
    assert question.answer(text(given)) == given


def test_an_answer_to_another_question_is_not() -> None:
    question = Question(NAME, None, None, octets())
    with pytest.raises(AnswerUnusable, match="another question"):
        question.answer(text(answer("0" * 16)))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.UNKNOWN, ServiceUnknown),
        (Code.VERSION, ServiceUnknown),
        (Code.TRANSPORT, ServiceUnknown),
        (Code.DENIED, ServiceDenied),
        (Code.GATEWAY, ServiceDenied),
        (Code.BUSY, ServiceBusy),
        (Code.KEY, KeyRefused),
        (Code.CLEAR, KeyRefused),
        (Code.MALFORMED, ServiceRefused),
        (Code.OTHER, ServiceRefused),
    ],
)
def test_each_refusal_has_its_error(code: Code, kind: type[ServiceRefused]) -> None:
    question = Question(NAME, None, None, octets())
    with pytest.raises(kind, match=f"bob::starwars@>=1: {code.value}: not today") as caught:
        question.answer(text(Refusal(asked(question).nonce, code, "not today")))
    assert caught.value.code is code
    assert isinstance(caught.value, MonikerError)


def test_each_code_has_an_error() -> None:
    for code in Code:
        question = Question(NAME, None, None, octets())
        with pytest.raises(ServiceRefused):
            question.answer(text(Refusal(asked(question).nonce, code)))


def test_a_server_of_rfc_1078_takes_it_for_a_name() -> None:
    question = Question(NAME, None, None, octets())
    with pytest.raises(SpeaksTcpmux):
        question.answer("-Service not available")
    for line in ("+Go", "220 ready", "", "HTTP/1.1 400 Bad Request"):
        with pytest.raises(AnswerUnusable, match="no daemon of Moniker"):
            question.answer(line)


def test_what_is_no_answer() -> None:
    question = Question(NAME, None, None, octets())
    for line in (question.line, "MON/1 E QUJD", f"MON/1 ? {'0' * 16} {'ab' * 16}"):
        with pytest.raises((AnswerUnusable, MalformedMessage)):
            question.answer(line)


def test_sealed_only_the_host_can_read_it_and_only_we_its_answer() -> None:
    question = Question(NAME, None, KEY.public, octets())
    assert "starwars" not in question.line
    line, answer_key = unseal(question.line, KEY)
    given = answer(parse(line).nonce)  # type: ignore[union-attr]
    assert question.answer(seal_answer(text(given), answer_key, octets(2))) == given
    with pytest.raises(MalformedMessage):
        question.answer(seal_answer(text(given), bytes(32), octets(2)))


def test_a_sealed_question_has_no_answer_in_clear() -> None:
    question = Question(NAME, None, KEY.public, octets())
    nonce = parse(unseal(question.line, KEY)[0]).nonce  # type: ignore[union-attr]
    with pytest.raises(AnswerUnusable, match="in clear"):
        question.answer(text(answer(nonce)))
    with pytest.raises(AnswerUnusable, match="in clear"):
        question.answer(text(Refusal(nonce, Code.UNKNOWN)))


@pytest.mark.parametrize("code", [Code.KEY, Code.BUSY, Code.MALFORMED])
def test_but_who_can_not_read_it_may_say_so(code: Code) -> None:
    question = Question(NAME, None, KEY.public, octets())
    with pytest.raises(ServiceRefused) as caught:
        question.answer(text(Refusal("0" * 16, code)))
    assert caught.value.code is code


@pytest.mark.parametrize(
    "rounds", [pytest.param(2000), pytest.param(60_000, marks=pytest.mark.fuzz)]
)
def test_any_line(rounds: int) -> None:
    dice = random.Random(5)
    question = Question(NAME, None, None, octets())
    good = text(answer(asked(question).nonce))
    for _ in range(rounds):
        letters = list(good if dice.random() < 0.7 else "MON/1 E QUJD")
        for _ in range(dice.randrange(1, 4)):
            letters[dice.randrange(len(letters))] = chr(dice.randrange(0x20, 0x17F))
        line = "".join(letters)[: dice.randrange(90)]
        with suppress(MonikerError):
            assert isinstance(question.answer(line), Answer)
