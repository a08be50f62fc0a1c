"""Answers for as long as they hold, and no more of them than there is room for (MK-30)."""

from __future__ import annotations

from ipaddress import ip_address

from oegw.moniker.library.cache import MAX_SECONDS, Asked, Cache
from oegw.moniker.names import ServiceName, Version
from oegw.moniker.wire import Answer

HERE = ip_address("192.0.2.1")


def asked(name: str = "starwars", transport: str | None = None, port: int = 1) -> Asked:
    return Asked(HERE, port, ServiceName.parse(name), transport)


def answer(ttl: int) -> Answer:
    return Answer("0" * 16, 4711, "tcp", Version.parse("1"), "46", ttl)


def test_it_holds_for_nine_tenths_of_its_time() -> None:
    cache = Cache()
    cache.remember(asked(), answer(60), encrypted=True, now=100)
    found = cache.find(asked(), 153)
    assert found is not None
    assert found.encrypted
    assert found.answer.port == 4711
    assert cache.find(asked(), 154.1) is None
    assert not len(cache)


def test_no_time_is_none_and_a_long_one_is_cut() -> None:
    cache = Cache()
    cache.remember(asked(), answer(0), encrypted=False, now=0)
    assert not len(cache)
    cache.remember(asked(), answer(10**6), encrypted=False, now=0)
    assert cache.find(asked(), MAX_SECONDS) is None


def test_another_question_has_another_answer() -> None:
    cache = Cache()
    cache.remember(asked(), answer(60), encrypted=False, now=0)
    for other in (asked("a::starwars"), asked("starwars@1"), asked(transport="tcp"), asked(port=2)):
        assert cache.find(other, 1) is None


def test_the_oldest_makes_room() -> None:
    cache = Cache(most=3)
    for name in ("a", "b", "c", "a", "d"):
        cache.remember(asked(name), answer(60), encrypted=False, now=0)
    assert len(cache) == 3
    assert cache.find(asked("b"), 1) is None
    assert cache.find(asked("a"), 1) is not None


def test_it_is_forgotten() -> None:
    cache = Cache()
    cache.remember(asked(), answer(60), encrypted=False, now=0)
    cache.forget(asked())
    cache.forget(asked())
    assert cache.find(asked(), 1) is None
    cache.remember(asked(), answer(60), encrypted=False, now=0)
    cache.forget_all()
    assert not len(cache)
