"""A question names the kind of transport that is wanted (MK-6, MK-7)."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest

from oegw.moniker.library.cache import Cache
from oegw.moniker.library.finding import Ask, Finding, LookUpHost, Open, Place, Wish
from oegw.moniker.names import ServiceName, Version
from oegw.moniker.settings import ClientSettings
from oegw.moniker.transports import Kind
from oegw.moniker.wire import Answer, Query, parse, text

PLACE = Place(ip_address("192.0.2.2"))


def asked_and_opened(wish: Wish, cache: Cache) -> tuple[str | None, str]:
    """The transport of the one question that a connection takes, None for none; what it opens."""
    policy = ClientSettings(encrypt="never")
    finding = Finding(wish, policy, cache, random=random.Random(7).randbytes, clock=lambda: 0.0)
    steps, wanted = finding.connection(), None
    command = next(steps)
    assert isinstance(command, LookUpHost)
    command = steps.send([PLACE])
    if isinstance(command, Ask):
        query = parse(command.line)
        assert isinstance(query, Query)
        wanted = query.transport
        transport = {"stream": "tcp", "datagram": "udp", None: "tcp"}.get(wanted, wanted)
        assert transport is not None
        command = steps.send(
            text(Answer(query.nonce, 40000, transport, Version.parse("1"), "46", 60))
        )
    assert isinstance(command, Open)
    return wanted, command.transport.name


def wish(kind: Kind | None, transport: str | None = None) -> Wish:
    return Wish("h", ServiceName.parse("starwars"), transport, 1, 5.0, kind)


@pytest.mark.parametrize(
    ("made", "wanted", "opened"),
    [
        (wish(Kind.STREAM), "stream", "tcp"),
        (wish(Kind.DATAGRAM), "datagram", "udp"),
        (wish(Kind.STREAM, "sctp"), "sctp", "sctp"),
        (wish(None), None, "tcp"),
    ],
)
def test_mk_6_one_question_whatever_else_has_the_name(
    made: Wish, wanted: str | None, opened: str
) -> None:
    assert asked_and_opened(made, Cache()) == (wanted, opened)


def test_mk_30_an_answer_is_remembered_for_its_kind_only() -> None:
    cache = Cache()
    assert asked_and_opened(wish(Kind.STREAM), cache) == ("stream", "tcp")
    assert asked_and_opened(wish(Kind.STREAM), cache) == (None, "tcp")  # nobody was asked
    assert asked_and_opened(wish(Kind.DATAGRAM), cache) == ("datagram", "udp")
