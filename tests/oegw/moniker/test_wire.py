"""The messages between a client and a daemon, both ways (MK-2, MK-25, MK-26, MK-29, MK-33)."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from oegw.moniker.names import ServiceName, Version
from oegw.moniker.wire import (
    MAX_LINE_OCTETS,
    MAX_TEXT,
    Answer,
    Code,
    MalformedMessage,
    Message,
    Query,
    Refusal,
    Retry,
    Sealed,
    decoded,
    is_ours,
    padded,
    parse,
    text,
)

NONCE = "0123456789abcdef"
COOKIE = "c" * 32

MESSAGES = [
    (f"MON/1 Q {NONCE} tcp - starwars *", Query(NONCE, ServiceName.parse("starwars"), "tcp")),
    (
        f"MON/1 Q {NONCE * 2} * reynolds http >=1,<2",
        Query(NONCE * 2, ServiceName.parse("reynolds::http@>=1,<2")),
    ),
    (
        f"MON/1 Q {NONCE} udp - café 2.1 {COOKIE}",
        Query(NONCE, ServiceName.parse("café@2.1"), "udp", COOKIE),
    ),
    (
        f"MON/1 + {NONCE} 40000 tcp 1.0 46 60",
        Answer(NONCE, 40000, "tcp", Version.parse("1.0"), "46", 60),
    ),
    (
        f"MON/1 + {NONCE} 1 sctp 2 6 0 sst",
        Answer(NONCE, 1, "sctp", Version.parse("2"), "6", 0, sst=True),
    ),
    (f"MON/1 - {NONCE} unknown", Refusal(NONCE, Code.UNKNOWN)),
    (
        f"MON/1 - {NONCE} denied by the policy",
        Refusal(NONCE, Code.DENIED, "by the policy"),
    ),
    (f"MON/1 ? {NONCE} {COOKIE}", Retry(NONCE, COOKIE)),
    ("MON/1 E AbC_-9", Sealed("AbC_-9")),
]


@pytest.mark.parametrize(("line", "message"), MESSAGES)
def test_mk_2_each_message_both_ways(line: str, message: Message) -> None:
    assert text(message) == line
    assert parse(line) == message
    assert parse(padded(line, 400)) == message


def test_names_are_canonical_once_they_are_read() -> None:
    query = parse(f"MON/1 Q {NONCE} tcp Reynolds HTTP *")
    assert isinstance(query, Query)
    assert (query.name.namespace, query.name.service) == ("reynolds", "http")


def test_mk_29_a_newer_daemon_s_words_don_t_stop_an_older_client() -> None:
    answer = parse(f"MON/1 + {NONCE} 7 quic 1 46 60 fast x=1 sst")
    assert answer == Answer(NONCE, 7, "quic", Version.parse("1"), "46", 60, sst=True)
    assert parse(f"MON/1 - {NONCE} asleep until noon") == Refusal(NONCE, Code.OTHER, "until noon")


@pytest.mark.parametrize(
    "line",
    [
        *("", " ", "MON/1", "MON/1 ", "MON/2 Q 00", "mon/1 Q", "starwars", "MON/1 X " + NONCE),
        f"MON/1  Q {NONCE} tcp - a *",  # two spaces
        f" MON/1 Q {NONCE} tcp - a *",
        f"MON/1 Q {NONCE} tcp - a",
        f"MON/1 Q {NONCE} tcp - a * {COOKIE} x",
        f"MON/1 Q {NONCE} tcp - a * short",
        f"MON/1 Q {NONCE} TCP - a *",
        f"MON/1 Q {NONCE} tcp - * *",
        f"MON/1 Q {NONCE} tcp - - *",
        f"MON/1 Q {NONCE} tcp  a *",
        f"MON/1 Q {NONCE} tcp - a\tb *",
        f"MON/1 Q {NONCE} tcp - a *\r",
        f"MON/1 Q {NONCE} tcp - {'a' * 256} *",
        f"MON/1 Q {NONCE} tcp - a 1,2,3,4,5",
        f"MON/1 Q {NONCE[:15]} tcp - a *",
        f"MON/1 Q {NONCE * 2}0 tcp - a *",
        "MON/1 Q 0123456789abcdeg tcp - a *",
        f"MON/1 + {NONCE} 0 tcp 1 46 60",
        f"MON/1 + {NONCE} 65536 tcp 1 46 60",
        f"MON/1 + {NONCE} 080 tcp 1 46 60",
        f"MON/1 + {NONCE} ٤٠ tcp 1 46 60",
        f"MON/1 + {NONCE} 80 tcp 1 64 60",
        f"MON/1 + {NONCE} 80 tcp 1 46 86401",
        f"MON/1 + {NONCE} 80 tcp 1 46 -1",
        f"MON/1 + {NONCE} 80 tcp x 46 60",
        f"MON/1 + {NONCE} 80 tcp 1 46",
        f"MON/1 + {NONCE} 80 tcp 1 46 60 {'a ' * 9}z",
        f"MON/1 + {NONCE} 80 tcp 1 46 60 \x1b[2J",
        f"MON/1 - {NONCE}",
        f"MON/1 - {NONCE} \x1b",
        f"MON/1 ? {NONCE}",
        f"MON/1 ? {NONCE} a b",
        *("MON/1 E", "MON/1 E ", "MON/1 E a=", "MON/1 E a b"),
    ],
)
def test_mk_26_what_is_no_message(line: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse(line)
    assert "\x1b" not in str(caught.value)
    assert caught.value.nonce in (None, NONCE)


def test_mk_33_the_nonce_of_a_message_that_can_t_be_read_is_known() -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse(f"MON/1 Q {NONCE} tcp - a:b *")
    assert caught.value.nonce == NONCE
    assert "a:b" not in str(caught.value)


def test_lines_end_with_crlf_or_lf_and_are_utf_8() -> None:
    assert decoded(b"a\r\n") == decoded(b"a\n") == decoded(b"a") == "a"
    assert decoded("caf\u00e9\r\n".encode()) == "café"
    assert decoded(b"a\n\n") == "a\n"
    assert len(decoded(b"x" * MAX_LINE_OCTETS + b"\r\n")) == MAX_LINE_OCTETS
    for octets in (b"x" * (MAX_LINE_OCTETS + 1), b"\xff", b"\xc3"):
        with pytest.raises(MalformedMessage):
            decoded(octets)


def test_ours_and_tcpmux_are_told_apart() -> None:
    assert is_ours("MON/1 Q")
    assert is_ours("mon/9")
    assert not is_ours("monitor")
    assert not is_ours("starwars")
    assert not is_ours("")


def test_mk_25_the_longest_names_fit_into_a_line() -> None:
    longest = f"{'é' * 127}::{'ü' * 127}@>=999999999.1,<=999999999.2,>1,<2"
    line = text(Query("f" * 32, ServiceName.parse(longest), "a" * 16, COOKIE))
    assert len(line.encode()) < MAX_LINE_OCTETS
    assert parse(decoded(line.encode())) == parse(line)


def test_padding_counts_octets() -> None:
    assert len(padded("MON/1 é", 100).encode()) == 100
    assert padded("MON/1", 3) == "MON/1"


def test_a_refusal_s_text_is_short_and_printable() -> None:
    line = text(Refusal(NONCE, Code.DENIED, "évil\r\n\x1b[2J" + "x" * 500))
    assert line.isascii()
    assert line.isprintable()
    assert len(line) == len(f"MON/1 - {NONCE} denied ") + MAX_TEXT
    shown = parse(f"MON/1 - {NONCE} denied \x1b[2Jx")
    assert shown == Refusal(NONCE, Code.DENIED, "?[2Jx")


def mutated(rng: random.Random) -> bytes:
    """A message with something in it changed, cut, doubled or put in."""
    octets = bytearray(rng.choice(MESSAGES)[0].encode())
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(octets) + 1)
        match rng.randrange(4):
            case 0:
                octets[at : at + 1] = rng.randbytes(1)
            case 1:
                del octets[at : at + rng.randint(1, 20)]
            case 2:
                octets[at:at] = rng.choice((b" ", b"-", b"*", b"\xc3\xa9", b"\0", b"9", b"MON/1 "))
            case _:
                octets += octets[at:]
    return bytes(octets)


def read_or_refused(rounds: int, seed: int) -> int:
    rng, read = random.Random(seed), 0
    for _ in range(rounds):
        try:
            message = parse(decoded(mutated(rng)))
        except MalformedMessage:
            continue
        read += 1
        assert parse(text(message)) == message
        assert text(parse(text(message))) == text(message)
    return read


def test_mk_26_hostile_lines_are_read_or_refused() -> None:
    assert read_or_refused(2000, 26) > 200


@pytest.mark.fuzz
def test_mk_26_a_hundred_thousand_hostile_lines_are_read_or_refused() -> None:
    assert read_or_refused(100_000, 2600) > 10_000


def test_the_documentation_s_lines_are_messages() -> None:
    page = (Path(__file__).parents[3] / "oegw/docs/moniker.md").read_text(encoding="utf-8")
    lines = re.findall(r"MON/1 [Q+] [0-9a-f]{16} [^\n\\]+", page)
    assert [type(parse(line)) for line in lines] == [Query, Answer]
    codes = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert {code.value for code in Code} <= set(codes)
