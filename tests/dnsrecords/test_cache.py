from dnsrecords.cache import AnswerCache
from dnsrecords.question import Answer, Question, Status


def answer(
    name: str, ttl: float = 60.0, status: Status = Status.ANSWERED, octets: int = 1
) -> Answer:
    return Answer(Question(name, "TXT"), status, (b"x" * octets,), ttl)


def test_an_answer_is_kept_for_its_ttl_and_ages() -> None:
    cache = AnswerCache(10)
    cache.store(answer("a."), 1000.0)
    found = cache.find(Question("a.", "TXT"), 1059.0)
    assert found is not None
    assert found.ttl == 1.0
    assert found.records == (b"x",)
    assert cache.find(Question("a.", "KEY"), 1059.0) is None
    assert cache.find(Question("a.", "TXT"), 1060.0) is None
    assert len(cache) == 0


def test_negative_answers_are_kept_and_silence_is_not() -> None:
    cache = AnswerCache(10)
    cache.store(answer("a.", status=Status.NO_NAME), 0.0)
    cache.store(answer("b.", status=Status.NO_DATA), 0.0)
    cache.store(answer("c.", status=Status.UNANSWERED), 0.0)
    cache.store(answer("d.", ttl=0.0), 0.0)
    kept = [name for name in "abcd" if cache.find(Question(f"{name}.", "TXT"), 1.0)]
    assert kept == ["a", "b"]


def test_the_oldest_goes_first_and_a_renewed_one_is_young() -> None:
    cache = AnswerCache(2)
    for name in ("a.", "b.", "a.", "c."):
        cache.store(answer(name), 0.0)
    assert cache.find(Question("b.", "TXT"), 1.0) is None
    assert cache.find(Question("a.", "TXT"), 1.0) is not None
    assert len(cache) == 2
    cache.forget()
    assert len(cache) == 0


def test_large_answers_make_room_for_each_other() -> None:
    """A stranger's zone has an answer of 64 kilobytes for each name that he has us ask for."""
    cache = AnswerCache(10000, octets=100)
    for name in ("a.", "b.", "c."):
        cache.store(answer(name, octets=40), 0.0)
    assert cache.find(Question("a.", "TXT"), 1.0) is None
    assert len(cache) == 2
    cache.store(answer("b.", octets=60), 0.0)  # again, and longer: together they just fit
    assert len(cache) == 2
    assert cache.find(Question("b.", "TXT"), 61.0) is None  # its time is over, and its place free
    cache.store(answer("d.", octets=60), 61.0)
    assert len(cache) == 2
    cache.store(answer("e.", octets=101), 61.0)
    assert len(cache) == 0
