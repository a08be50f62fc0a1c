"""Messages of DNS-SD: what one end writes the other end reads, and nothing else."""

from __future__ import annotations

import random
from contextlib import suppress
from ipaddress import ip_address

import dns.flags
import dns.message
import pytest

from dnsrecords.dnssd import (
    MAX_QUESTION_OCTETS,
    Address,
    Code,
    Content,
    MalformedQuestion,
    MalformedReply,
    Place,
    Pointer,
    Record,
    Reply,
    Server,
    Start,
    Text,
    UnprovenQuestion,
    ask,
    read_question,
    readdressed,
    reply_octets,
)
from dnsrecords.errors import RecordError
from dnsrecords.published import TsigKey

OURS = TsigKey("sg-a.sg-b.example", "hmac-sha256", b"the secret of both")
OTHER = TsigKey("sg-a.sg-b.example", "hmac-sha256", b"another one")
STRANGE = TsigKey("elsewhere.example", "hmac-sha256", b"the secret of both")
TYPE = ("_starwars", "_tcp", "site-b", "example")
INSTANCE = ("reynolds::chess 1.2 on b.ob", *TYPE)

CONTENTS: list[Content] = [
    Pointer(INSTANCE),
    Place(1, 100, 28403, ("bob", "site-b", "example")),
    Text((b"txtvers=1", b"episode=4", b"\xff\x00=")),
    Address(ip_address("192.2.0.66")),
    Address(ip_address("2001:db8:2::66")),
    Server(("ns", "site-b", "example")),
    Start(("ns", "site-b", "example"), 7, 10),
]


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: type(content).__name__)
@pytest.mark.parametrize("key", [OURS, None], ids=["signed", "plain"])
def test_a_reply_says_what_was_put_in(content: Content, key: TsigKey | None) -> None:
    asked = ask(TYPE, "PTR", 4711, key)
    question = read_question(asked.octets, [OURS])
    reply = Reply(Code.NOERROR, (Record(TYPE, 10, content),))
    assert asked.read(reply_octets(question, reply, 65535)) == reply


def test_a_question_is_read_in_lower_case_with_the_key_that_signed_it() -> None:
    question = read_question(ask(("_StarWars", "_TCP", "X"), "SRV", 1, OURS).octets, [OTHER, OURS])
    assert (question.name, question.rdtype) == (("_starwars", "_tcp", "x"), "SRV")
    assert (question.key, question.recursion) == (OURS.name, False)
    plain = read_question(ask(TYPE, "SRV", 1, recursion=True).octets, [OURS])
    assert (plain.key, plain.recursion) == (None, True)


@pytest.mark.parametrize("key", [OTHER, STRANGE], ids=["secret", "name"])
def test_a_signature_that_is_not_ours_gets_a_bare_code(key: TsigKey) -> None:
    octets = ask(TYPE, "PTR", 7, key).octets
    with pytest.raises(UnprovenQuestion) as caught:
        read_question(octets, [OURS])
    reply = dns.message.from_wire(caught.value.reply or b"")
    assert (reply.id, reply.rcode(), reply.question) == (7, Code.NOTAUTH, [])
    assert b"secret" not in str(caught.value).encode()


def test_a_signed_question_is_not_believed_when_it_was_changed_or_is_old() -> None:
    octets = ask(TYPE, "PTR", 7, OURS).octets
    changed = octets.replace(b"starwars", b"starwarz")
    with pytest.raises(UnprovenQuestion):
        read_question(changed, [OURS])


def test_a_reply_to_a_signed_question_is_signed_by_the_same_key() -> None:
    asked = ask(TYPE, "PTR", 7, OURS)
    reply = Reply(Code.NOERROR, (Record(TYPE, 10, Pointer(INSTANCE)),))
    unsigned = reply_octets(read_question(ask(TYPE, "PTR", 7).octets, []), reply, 65535)
    with pytest.raises(MalformedReply, match="not signed"):
        asked.read(unsigned)
    signed = reply_octets(read_question(asked.octets, [OURS]), reply, 65535)
    forged = signed.replace(b"b.ob", b"m.al")
    assert forged != signed
    with pytest.raises(MalformedReply):
        asked.read(forged)
    with pytest.raises(MalformedReply):
        ask(TYPE, "PTR", 7, OURS).read(signed.replace(b"\x00\x07", b"\x00\x08", 1))


def test_a_reply_to_another_question_is_refused() -> None:
    reply = reply_octets(read_question(ask(TYPE, "PTR", 7).octets, []), Reply(Code.NOERROR), 65535)
    for other in (ask(TYPE, "SRV", 7), ask(TYPE, "PTR", 8), ask(("x", *TYPE), "PTR", 7)):
        with pytest.raises(MalformedReply):
            other.read(reply)


@pytest.mark.parametrize("key", [OURS, None], ids=["signed", "plain"])
def test_a_reply_without_room_says_so_and_is_no_longer_than_the_question(
    key: TsigKey | None,
) -> None:
    asked = ask(TYPE, "PTR", 7, key)
    question = read_question(asked.octets, [OURS])
    octets = reply_octets(
        question, Reply(Code.NOERROR, (Record(TYPE, 10, Pointer(INSTANCE)),)), len(asked.octets)
    )
    assert octets[2] & 0x02, "TC"
    assert len(octets) <= len(asked.octets)


def test_a_reply_that_was_kept_serves_another_asker() -> None:
    reply = Reply(Code.NOERROR, (Record(TYPE, 10, Pointer(INSTANCE)),))
    first = read_question(ask(TYPE, "PTR", 7).octets, [])
    octets = reply_octets(first, reply, 65535)
    other = ask(tuple(label.upper() for label in TYPE), "PTR", 4711, recursion=True)
    question = read_question(other.octets, [])
    assert question.same == first.same
    kept = readdressed(octets, question)
    (content,) = [record.content for record in other.read(kept).answers]
    assert isinstance(content, Pointer)
    assert tuple(label.lower() for label in content.target) == INSTANCE
    assert kept == reply_octets(question, reply, 65535), "as if it had been written for it"
    with pytest.raises(MalformedReply):
        other.read(octets)
    assert read_question(ask(TYPE, "SRV", 7).octets, []).same != first.same


def test_too_many_records_in_a_reply_are_not_even_read() -> None:
    asked = ask(TYPE, "A", 7)
    octets = bytearray(reply_octets(read_question(asked.octets, []), Reply(Code.NOERROR), 65535))
    octets[6:8] = (10_000).to_bytes(2, "big")
    with pytest.raises(MalformedReply, match="too many"):
        asked.read(bytes(octets))


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"", None),
        (b"\x00" * 11, None),
        (b"\x00\x07\x81\x80" + b"\x00" * 8, None),  # a response
        (b"\x00\x07\x28\x00" + b"\x00\x01" + b"\x00" * 6, Code.NOTIMP),  # an update
        (b"\x00\x07\x00\x00" + b"\x00\x02" + b"\x00" * 6, Code.FORMERR),
        (b"\x00\x07\x00\x00" + b"\x00\x01\x00\x01" + b"\x00" * 4, Code.FORMERR),
        (b"\x00\x07\x00\x00" + b"\x00\x01" + b"\x00" * 6, Code.FORMERR),  # and no question
        (ask(TYPE, "A", 7).octets + bytes(MAX_QUESTION_OCTETS), Code.FORMERR),
    ],
)
def test_what_is_no_question_gets_a_code_or_silence(octets: bytes, code: Code | None) -> None:
    with pytest.raises(MalformedQuestion) as caught:
        read_question(octets, [OURS])
    reply = caught.value.reply
    assert (None if reply is None else reply[3] & 15) == code
    assert reply is None or len(reply) <= max(len(octets), 12)


def test_names_that_have_no_room_are_refused() -> None:
    with pytest.raises(RecordError):
        ask(("x" * 64, "example"), "A", 1)
    with pytest.raises(RecordError):
        ask(("x" * 60,) * 5, "A", 1)


def test_zone_lines_are_those_of_zone_files() -> None:
    record = Record(INSTANCE, 10, Place(0, 1, 2, ("b", "example")))
    assert record.line == (
        r"reynolds::chess\0321.2\032on\032b\.ob._starwars._tcp.site-b.example."
        " 10 IN SRV 0 1 2 b.example."
    ).replace("1.2", r"1\.2")


def _hostile(rounds: int) -> None:
    dice = random.Random(4322)
    question = ask(TYPE, "PTR", 7, OURS).octets
    asked = ask(TYPE, "PTR", 7)
    reply = reply_octets(
        read_question(asked.octets, []),
        Reply(Code.NOERROR, tuple(Record(TYPE, 10, content) for content in CONTENTS)),
        65535,
    )
    for number in range(rounds):
        octets = bytearray(reply if number % 2 else question)
        for _ in range(dice.randrange(1, 6)):
            octets[dice.randrange(len(octets))] = dice.randrange(256)
        del octets[dice.randrange(12, len(octets) + 1) :]
        if number % 2:
            with suppress(MalformedReply):
                asked.read(bytes(octets))
        else:
            with suppress(MalformedQuestion):
                read_question(bytes(octets), [OURS])


def test_hostile_octets_never_raise_anything_else() -> None:
    _hostile(1_000)


@pytest.mark.fuzz
def test_hostile_octets_in_numbers_never_raise_anything_else() -> None:
    _hostile(20_000)


def test_the_flags_of_a_reply() -> None:
    asked = ask(TYPE, "PTR", 7, recursion=True)
    octets = reply_octets(read_question(asked.octets, []), Reply(Code.NXDOMAIN), 512)
    message = dns.message.from_wire(octets)
    assert message.flags & dns.flags.AA
    assert message.flags & dns.flags.RD
    assert not message.flags & dns.flags.RA
