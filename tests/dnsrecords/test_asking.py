"""Each question is asked once, for any number of purposes."""

import pytest

from dnsrecords.asking import Questions
from dnsrecords.question import Answer, Question, Status

ONE, TWO = Question("a.", "A"), Question("a.", "AAAA")


def test_a_question_with_two_purposes_is_asked_once() -> None:
    questions: Questions[str] = Questions()
    assert not questions
    for purpose in ("first", "second"):
        questions.add(ONE, purpose)
    questions.add(TWO, "third")
    assert [questions.next(), questions.next(), questions.next()] == [ONE, TWO, None]
    assert questions.answered(Answer(TWO, Status.NO_DATA)) == ["third"]
    assert questions.answered(Answer(ONE, Status.NO_DATA)) == ["first", "second"]
    assert not questions


def test_what_is_not_under_way_is_not_answered() -> None:
    questions: Questions[str] = Questions()
    questions.add(ONE, "first")
    for question in (ONE, TWO):
        with pytest.raises(RuntimeError, match="not under way"):
            questions.answered(Answer(question, Status.NO_DATA))
    assert questions.next() == ONE
    questions.drop()
    assert not questions
    assert questions.next() is None
