"""Attacks on Moniker's clients: by whoever can answer in the daemon's place, or changes answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from oegw.moniker import sealedquery, wire
from oegw.moniker.library.cache import Cache
from oegw.moniker.library.finding import Ask, Finding, FindKey, LookUpHost, Open, Place, Wish
from oegw.moniker.library.question import Question
from oegw.moniker.names import MonikerError, ServiceName, Version
from oegw.moniker.settings import ClientSettings
from oegw.moniker.wire import Answer, Query, parse
from oegw.sst.statickey import StaticKey
from tests.attacks.frame import MONIKER, attack, replaced

BOB = ip_address("198.51.100.7")
KEY = StaticKey(bytes(range(32)))
NAME = ServiceName("starwars")
FORGED_PORT = 6666


def asked(answers: Callable[[str], str], encrypt: str) -> tuple[int | None, list[str]]:
    """The port to which a client connects, and the questions that went over the line."""
    wish = Wish("theforce.net", NAME, None, 1, 10.0, encrypt=encrypt)
    chance = random.Random(8)
    finding = Finding(
        wish, ClientSettings(), Cache(), random=chance.randbytes, clock=lambda: 0.0
    )  # fmt: skip
    steps, said = finding.connection(), []
    command: Any = next(steps)
    try:
        while True:
            match command:
                case LookUpHost():
                    command = steps.send([Place(BOB)])
                case FindKey():
                    command = steps.send(KEY.public)
                case Ask(line=line):
                    said.append(line)
                    command = steps.send(answers(line))
                case Open(port=port):
                    return port, said
                case _:
                    return None, said
    except (MonikerError, StopIteration):
        return None, said


def _whatever_it_says(self: Question, line: str) -> Answer:
    message = parse(line)
    assert isinstance(message, Answer)
    return message


@attack(
    MONIKER,
    "Whoever is on the way answers an encrypted question, in clear and with a port of his own",
    source="MK-16, MK-33",
    defence="oegw/moniker/library/question.py Question.answer",
    otherwise="encryption hides the name, and leads to whatever port the attacker likes",
    without=replaced(("oegw.moniker.library.question.Question.answer", _whatever_it_says)),
)
def answers_in_clear() -> None:
    forged = f"MON/1 + {'0' * 32} {FORGED_PORT} tcp 1 46 60"
    port, said = asked(lambda line: forged, "prefer")
    assert all("starwars" not in line for line in said)
    assert port != FORGED_PORT


@attack(
    MONIKER,
    "Off the way: an answer to some question, sent before the daemon's comes",
    source="MK-33; DNS spoofing",
    defence="oegw/moniker/library/question.py Question.answer",
    otherwise="who guesses when a client asks leads it to a port of his own",
    without=replaced(("oegw.moniker.library.question.Question.answer", _whatever_it_says)),
)
def answers_to_other_questions() -> None:
    chance = random.Random(9)
    for _ in range(1000):
        forged = Answer(
            chance.randbytes(16).hex(), FORGED_PORT, "tcp", Version.parse("1"), "46", 60
        )
        port, _ = asked(lambda line, forged=forged: wire.text(forged), "never")  # type: ignore[misc]
        assert port != FORGED_PORT


_seal = sealedquery.seal


def _with_one_key_for_all(line: str, public_key: bytes, random: Any) -> sealedquery.SealedQuery:
    return _seal(line, public_key, lambda octets: b"k" * octets)


@attack(
    MONIKER,
    "An answer to one sealed question is given for another of the same client",
    source="design: a new answer key for each question",
    defence="oegw/moniker/sealedquery.py seal",
    otherwise="whoever is on the way leads the client from one service to another",
    without=replaced(("oegw.moniker.sealedquery.seal", _with_one_key_for_all)),
)
def answers_exchanged() -> None:
    chance = random.Random(10).randbytes
    recorded: list[str] = []

    def daemon(line: str) -> str:
        inner, key = sealedquery.unseal(line, KEY)
        query = parse(inner)
        assert isinstance(query, Query)
        answer = Answer(query.nonce, FORGED_PORT, "tcp", Version.parse("1"), "46", 60)
        recorded.append(sealedquery.seal_answer(wire.text(answer), key, chance))
        return recorded[0]

    first, _ = asked(daemon, "require")
    assert first == FORGED_PORT, "the daemon's own answer is read"
    again = sealedquery.seal("MON/1 Q", KEY.public, random.Random(11).randbytes)
    try:
        read = sealedquery.unseal_answer(recorded[0], again.answer_key)
    except MonikerError:
        return
    raise AssertionError(f"the answer to another question was read: {read}")


def _as_if_none_insisted(self: Finding, place: Place) -> str:
    return "prefer"


@attack(
    MONIKER,
    "Somebody on the way says that the host has lost its key, so that the question comes in clear",
    source="MK-16; downgrades of opportunistic encryption",
    defence="oegw/moniker/library/finding.py Finding._encryption",
    otherwise="whoever can change one answer reads all names, whatever the policy says",
    without=replaced(("oegw.moniker.library.finding.Finding._encryption", _as_if_none_insisted)),
)
def keys_said_to_be_lost() -> None:
    for refusal in ("key", "clear", "malformed", "busy"):
        port, said = asked(
            lambda line, why=refusal: f"MON/1 - {sealedquery.nonce_of(line)} {why}",  # type: ignore[misc]
            "require",
        )
        assert port is None
        assert all(line.startswith("MON/1 E ") for line in said), f"in clear: {said[-1]}"
    port, said = asked(lambda line: "-no such service", "require")
    assert all(line.startswith("MON/1 E ") for line in said), f"in clear: {said[-1]}"
