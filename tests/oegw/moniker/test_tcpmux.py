"""The lines of TCPMUX (RFC 1078), as its servers and clients write them."""

from __future__ import annotations

import random

import pytest

from oegw.moniker.names import ServiceName
from oegw.moniker.tcpmux import (
    MuxReply,
    MuxRequest,
    help_text,
    parse_reply,
    parse_request,
    reply_text,
    request_text,
)
from oegw.moniker.wire import MAX_TEXT, MalformedMessage


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("starwars", "starwars"),
        ("StarWars ", "starwars"),
        ("reynolds::http@2", "reynolds::http@2"),
    ],
)
def test_requests_by_name(line: str, name: str) -> None:
    request = parse_request(line)
    assert request == MuxRequest(ServiceName.parse(name))
    assert request_text(request) == name + "\r\n"


@pytest.mark.parametrize("line", ["HELP", "help", "Help "])
def test_help_is_no_service(line: str) -> None:
    assert parse_request(line) == MuxRequest(None)
    assert request_text(MuxRequest(None)) == "HELP\r\n"


@pytest.mark.parametrize("line", ["", " ", "a b", "GET / HTTP/1.1", "\x16\x03\x01", "a" * 256])
def test_what_is_no_request(line: str) -> None:
    with pytest.raises(MalformedMessage):
        parse_request(line)


def test_replies_both_ways() -> None:
    for line, reply in (
        ("+", MuxReply(True)),
        ("+Go", MuxReply(True, "Go")),
        ("-Service not available", MuxReply(False, "Service not available")),
    ):
        assert parse_reply(line) == reply
        assert reply_text(reply) == line + "\r\n"


def test_a_stranger_s_reply_is_shown_without_what_moves_the_cursor() -> None:
    assert parse_reply("-\x1b[2J" + "x" * 999) == MuxReply(False, "?[2J" + "x" * (MAX_TEXT - 4))
    assert reply_text(MuxReply(False, "é\r\n")) == "-???\r\n"


@pytest.mark.parametrize("line", ["", "ok", " +", "SSH-2.0-x", "+" * 2000])
def test_what_is_no_reply(line: str) -> None:
    with pytest.raises(MalformedMessage):
        parse_reply(line)


def test_help_is_one_name_a_line() -> None:
    assert help_text(["a", "b::c"]) == "a\r\nb::c\r\n"
    assert help_text([]) == ""


def test_hostile_lines_are_read_or_refused() -> None:
    rng, read = random.Random(1078), 0
    for _ in range(2000):
        line = "".join(
            chr(rng.choice((rng.randrange(256), rng.randrange(97, 123)))) for _ in "12345"
        )
        for parsed in (parse_request, parse_reply):
            try:
                parsed(line)
            except MalformedMessage:
                continue
            read += 1
    assert read > 50
