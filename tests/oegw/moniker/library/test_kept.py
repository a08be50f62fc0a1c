"""What is said to the daemon about what is kept (MK-31), message by message."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

import pytest

from oegw.moniker.library.kept import (
    Changed,
    ChangeRefused,
    DaemonConfused,
    Dropped,
    HandedOver,
    Kept,
    Refused,
    Registered,
    Request,
    SendNow,
)

STARWARS = {"service": "starwars", "version": "1"}


def said(request: Request) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(request.line)
    assert request.line.endswith(b"\n")
    return message


def answer(request: Request, **fields: Any) -> bytes:
    return json.dumps({"tag": said(request)["tag"], **fields}).encode()


def registered(kept: Kept, number: int = 7) -> int:
    """One service that the daemon knows."""
    key, (request,) = kept.keep(STARWARS)
    assert kept.received(answer(request, ok=True, number=number, namespace="bob")) == [
        Registered(key, "bob")
    ]
    return key


def connected() -> Kept:
    kept = Kept()
    assert kept.connected() == []
    return kept


def test_without_a_daemon_it_waits_and_then_is_registered_with_its_socket() -> None:
    kept = Kept()
    key, requests = kept.keep(STARWARS)
    assert requests == []
    (request,) = kept.connected()
    assert said(request) == {**STARWARS, "do": "register", "tag": said(request)["tag"]}
    assert request.socket_of == key
    assert not kept.registered(key)


def test_after_a_restart_all_is_registered_again() -> None:
    kept = connected()
    keys = [registered(kept, 7), registered(kept, 8)]
    kept.lost()
    assert not any(kept.registered(key) for key in keys)
    requests = kept.connected()
    assert [each.socket_of for each in requests] == keys
    kept.received(answer(requests[0], ok=True, number=1, namespace="-"))
    assert kept.registered(keys[0])


def test_a_change_is_told_and_registered_like_that_later() -> None:
    kept = connected()
    key = registered(kept)
    (request,) = kept.change(key, {"weight": 5})
    assert said(request) | {"tag": 0} == {"do": "update", "number": 7, "weight": 5, "tag": 0}
    assert kept.received(answer(request, ok=True)) == [Changed(key)]
    (request,) = kept.change(key, {"weight": 0})
    assert kept.received(answer(request, ok=False, code="malformed", text="weight")) == [
        ChangeRefused(key, "malformed", "weight")
    ]
    kept.change(key, {"weight": 9})
    kept.lost()
    assert kept.change(key, {"exported": True}) == []
    assert said(kept.connected()[0])["weight"] == 9


def test_a_change_while_the_registration_is_under_way_follows_it() -> None:
    kept = connected()
    key, (request,) = kept.keep(STARWARS)
    assert kept.change(key, {"weight": 5}) == []
    first, then = kept.received(answer(request, ok=True, number=7, namespace="bob"))
    assert first == Registered(key, "bob")
    assert isinstance(then, SendNow)
    assert said(then.request)["weight"] == 5


def test_what_is_dropped_is_unregistered() -> None:
    kept = connected()
    key = registered(kept)
    (request,) = kept.drop(key)
    assert said(request)["do"] == "unregister"
    assert said(request)["number"] == 7
    assert not len(kept)
    assert not kept.idle
    assert kept.received(answer(request, ok=True)) == [Dropped(key)]
    assert kept.idle
    assert kept.drop(key) == []


def test_what_is_dropped_before_it_is_registered_is_unregistered_then() -> None:
    kept = connected()
    key, (request,) = kept.keep(STARWARS)
    assert kept.drop(key) == []
    (then,) = kept.received(answer(request, ok=True, number=7, namespace="bob"))
    assert isinstance(then, SendNow)
    assert said(then.request)["number"] == 7
    _, (request,) = kept.keep(STARWARS)
    kept.drop(2)


def test_a_refusal_ends_what_never_was_registered_and_keeps_what_was() -> None:
    kept = connected()
    key, (request,) = kept.keep(STARWARS)
    refusal = {"ok": False, "code": "limit", "text": "too many"}
    assert kept.received(answer(request, **refusal)) == [Refused(key, "limit", "too many", True)]
    assert kept.idle
    key = registered(kept)
    kept.lost()
    (request,) = kept.connected()
    assert kept.received(answer(request, **refusal)) == [Refused(key, "limit", "too many", False)]
    assert len(kept) == 1
    (request,) = kept.again(key)
    kept.received(answer(request, ok=True, number=9, namespace="bob"))
    assert kept.again(key) == []


def test_a_connection_that_is_handed_over_belongs_to_its_service() -> None:
    kept = connected()
    key = registered(kept)
    event = {"event": "tcpmux", "number": 7, "peer": ["192.0.2.1", 4711]}
    assert kept.received(json.dumps(event).encode()) == [HandedOver(key, ("192.0.2.1", 4711))]
    event["number"] = 8
    assert kept.received(json.dumps(event).encode()) == [HandedOver(None, ("192.0.2.1", 4711))]


def test_an_answer_to_nothing_is_nothing() -> None:
    kept = connected()
    for line in (b'{"tag":99,"ok":true}', b'{"tag":"x"}', b"{}", b'{"tag":[1]}'):
        assert kept.received(line) == []


@pytest.mark.parametrize(
    "line",
    [b"", b"x", b"[]", b"1", b"\xff", b'{"event":"tcpmux"}', b'{"event":"tcpmux","peer":[1,2]}',
     b"[" * 5000],
)  # fmt: skip
def test_a_daemon_that_is_none(line: bytes) -> None:
    with pytest.raises(DaemonConfused):
        connected().received(line)


def test_a_registration_without_a_number() -> None:
    kept = connected()
    _, (request,) = kept.keep(STARWARS)
    with pytest.raises(DaemonConfused, match="without a number"):
        kept.received(answer(request, ok=True))


def test_a_registration_that_no_line_holds() -> None:
    with pytest.raises(ValueError, match="16384 octets"):
        connected().keep({**STARWARS, "text": ["x" * 250] * 80})


@pytest.mark.parametrize(
    "rounds", [pytest.param(2000), pytest.param(100_000, marks=pytest.mark.fuzz)]
)
def test_any_line(rounds: int) -> None:
    kept = connected()
    registered(kept)
    dice = random.Random(11)
    values = [True, False, None, 0, 7, -1, "x", "tcpmux", [], ["a", 1], {}]
    for _ in range(rounds):
        names = dice.sample(("tag", "ok", "event", "number", "peer", "code", "text"), 4)
        line = json.dumps({name: dice.choice(values) for name in names}).encode()
        if dice.random() < 0.3:
            line = bytes(dice.randrange(256) for _ in range(dice.randrange(12)))
        with suppress(DaemonConfused):
            kept.received(line)
    assert len(kept) <= 1
